//! What can be seen of a module from outside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ganglion_api::FailureKind;
use serde::Serialize;

use crate::state::ModuleState;

/// What a module is doing, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleSnapshot {
    /// The module's id.
    pub id: String,
    /// Its `module:` path.
    pub path: String,
    /// What it is doing.
    pub state: ModuleState,
    /// How many calls run.
    pub in_flight: usize,
    /// How many wait for a permit.
    pub queued: usize,
    /// How many calls were made, failed ones too.
    pub calls: u64,
    /// How many of them failed, by kind.
    pub failures: BTreeMap<FailureKind, u64>,
}

/// Calls and failures since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    calls: AtomicU64,
    failures: [AtomicU64; FailureKind::ALL.len()],
}

impl Counters {
    pub(crate) fn count(&self, failure: Option<FailureKind>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(kind) = failure {
            self.failures[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn failures(&self) -> BTreeMap<FailureKind, u64> {
        let counts = FailureKind::ALL
            .into_iter()
            .map(|kind| (kind, self.failures[kind as usize].load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}
