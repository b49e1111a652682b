//! What can be seen of a module from outside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use ganglion_api::{FailureKind, Then};
use serde::{Serialize, Serializer};

use crate::breaker::BreakerSnapshot;
use crate::poison::PoisonSnapshot;
use crate::state::ModuleState;
use crate::tier::Tier;

/// What a module is doing, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ModuleSnapshot {
    /// The module's id.
    pub id: String,
    /// Its `module:` path.
    pub path: String,
    /// How it is isolated.
    pub tier: Tier,
    /// What it is doing.
    pub state: ModuleState,
    /// Since when, in RFC 3339 with milliseconds, UTC.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
    /// Why, for people; null where the state says it all.
    pub reason: Option<String>,
    /// How often it was re-created since the start, by the supervisor or an operator.
    pub restarts: u64,
    /// The breakers by callback, and that of its `web_resource`s; those without calls in their window that never
    /// opened are left out.
    pub breakers: BTreeMap<&'static str, BreakerSnapshot>,
    /// How many calls run. Those on threads that were given up do not count.
    pub in_flight: usize,
    /// How many wait for a permit.
    pub queued: usize,
    /// How many calls that waited for a permit, or would have, gave way to others since the start. They failed as
    /// `overloaded`.
    pub shed: u64,
    /// How many calls were made since the start, failed ones too.
    pub calls: u64,
    /// How many of them failed, by kind.
    pub failures: BTreeMap<FailureKind, u64>,
    /// What its failures counted as, by kind: how often each word of the failure policy was used. Only those above zero.
    /// A Matrix error that is passed on uses none, and a module that was not reached before the deadline uses one without
    /// a call.
    pub policies: BTreeMap<FailureKind, BTreeMap<Then, u64>>,
    /// How often it blocked a thread, which was given up.
    pub blocked: u64,
    /// How many of these threads are stuck still.
    pub stuck_threads: usize,
    /// The args that bypass it, those that struck last at the end.
    pub poison: Vec<PoisonSnapshot>,
    /// How many calls bypassed it for their args since the start.
    pub poison_bypasses: u64,
}

pub(crate) fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// Calls and failures since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    calls: AtomicU64,
    failures: [AtomicU64; FailureKind::ALL.len()],
    policies: [[AtomicU64; Then::ALL.len()]; FailureKind::ALL.len()],
}

impl Counters {
    pub(crate) fn count(&self, failure: Option<FailureKind>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(kind) = failure {
            self.failures[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_policy(&self, kind: FailureKind, then: Then) {
        self.policies[kind as usize][then as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn failures(&self) -> BTreeMap<FailureKind, u64> {
        counted(FailureKind::ALL, &self.failures)
    }

    pub(crate) fn policies(&self) -> BTreeMap<FailureKind, BTreeMap<Then, u64>> {
        let kinds = FailureKind::ALL
            .into_iter()
            .map(|kind| (kind, counted(Then::ALL, &self.policies[kind as usize])));
        kinds.filter(|(_, used)| !used.is_empty()).collect()
    }
}

/// The counts above zero; both arrays have the same order.
fn counted<T: Ord, const N: usize>(words: [T; N], counts: &[AtomicU64; N]) -> BTreeMap<T, u64> {
    let counts = words
        .into_iter()
        .zip(counts.iter().map(|count| count.load(Ordering::Relaxed)));
    counts.filter(|(_, count)| *count > 0).collect()
}
