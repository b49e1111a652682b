//! A computation of a cached function, with those who wait for it.

use std::sync::Arc;

use ganglion_api::{CacheKey, CachedValue, Computed, ModuleError};
use tokio::sync::watch;

use super::function_cache::FunctionCache;
use crate::thread::ModuleThread;

/// What those who wait are given.
pub(super) type Filled = Result<CachedValue, ModuleError>;

/// A computation that is under way, with those who wait for it.
pub(super) struct Flight {
    landed: watch::Sender<Option<Filled>>,
    /// Where it is computed.
    pub(super) thread: Arc<ModuleThread>,
}

impl Flight {
    pub(super) fn on(thread: Arc<ModuleThread>) -> Self {
        Self {
            landed: watch::channel(None).0,
            thread,
        }
    }

    /// Tells those who wait. False if it did before.
    pub(super) fn land(&self, filled: Filled) -> bool {
        self.landed.send_replace(Some(filled)).is_none()
    }

    /// Waits for its end.
    pub(super) async fn landed(&self) -> Filled {
        let mut landed = self.landed.subscribe();
        let landed = landed.wait_for(Option::is_some).await;
        let filled = landed.ok().and_then(|filled| filled.clone());
        filled.unwrap_or_else(|| Err(lost()))
    }
}

/// A computation on its way: if it is dropped with its thread, those who wait are told.
pub(super) struct Underway {
    cache: Arc<FunctionCache>,
    key: CacheKey,
    flight: Arc<Flight>,
}

impl Underway {
    pub(super) fn new(cache: Arc<FunctionCache>, key: CacheKey, flight: Arc<Flight>) -> Self {
        Self { cache, key, flight }
    }

    pub(super) fn cache(&self) -> &FunctionCache {
        &self.cache
    }

    pub(super) fn land(self, computed: Result<Computed, ModuleError>) {
        self.cache.land(self.key.clone(), &self.flight, computed);
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.flight.landed.borrow().is_none() {
            self.cache.land(self.key.clone(), &self.flight, Err(lost()));
        }
    }
}

pub(super) fn lost() -> ModuleError {
    ModuleError::message("the computation of a cached value is lost with its thread")
}
