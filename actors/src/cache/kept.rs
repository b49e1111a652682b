//! A result as it is kept.

use std::sync::Arc;

use ganglion_api::CachedValue;

use super::prefixes::Generation;
use crate::incarnation::Incarnation;

/// A value that is kept. Whoever needs its room drops it, and its drop is the module's code: so it is handed to a thread
/// where it harms nobody.
pub(super) struct Kept {
    value: Option<CachedValue>,
    incarnation: Arc<Incarnation>,
    /// When, as far as invalidations by prefixes go.
    pub(super) generation: Generation,
}

impl Kept {
    pub(super) fn new(value: CachedValue, incarnation: &Arc<Incarnation>, generation: Generation) -> Self {
        Self {
            value: Some(value),
            incarnation: Arc::clone(incarnation),
            generation,
        }
    }

    pub(super) fn value(&self) -> Option<CachedValue> {
        self.value.clone()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.incarnation.discard(Box::new(value));
        }
    }
}
