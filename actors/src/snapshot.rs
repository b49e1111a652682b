//! What can be seen of a module from outside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ganglion_api::{FailureKind, Then};
use serde::{Serialize, Serializer};

use crate::breaker::BreakerSnapshot;
use crate::poison::PoisonSnapshot;
use crate::state::ModuleState;
use crate::tally::{DurationHistogram, Tally, Totals};
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
    /// How long those took in which its code took part, the wait for a permit included.
    #[serde(skip)]
    pub durations: DurationHistogram,
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

/// What is counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    tallies: Mutex<Tallies>,
    policies: [[AtomicU64; Then::ALL.len()]; FailureKind::ALL.len()],
}

/// A tally for each worker that calls the module.
#[derive(Debug, Default)]
struct Tallies {
    present: Vec<Arc<Tally>>,
    /// Those of workers that are gone.
    past: Totals,
}

impl Counters {
    fn tallies(&self) -> MutexGuard<'_, Tallies> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tally for one worker.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        let mut tallies = self.tallies();
        let Tallies { present, past } = &mut *tallies;
        present.retain(|tally| {
            let is_used = Arc::strong_count(tally) > 1;
            if !is_used {
                past.add(tally);
            }
            is_used
        });
        let tally = Arc::<Tally>::default();
        present.push(Arc::clone(&tally));
        tally
    }

    pub(crate) fn count_policy(&self, kind: FailureKind, then: Then) {
        self.policies[kind as usize][then as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> Totals {
        let tallies = self.tallies();
        let mut totals = tallies.past.clone();
        for tally in &tallies.present {
            totals.add(tally);
        }
        totals
    }

    pub(crate) fn policies(&self) -> BTreeMap<FailureKind, BTreeMap<Then, u64>> {
        let kinds = FailureKind::ALL.into_iter().map(|kind| {
            let used = self.policies[kind as usize].each_ref();
            (
                kind,
                above_zero(Then::ALL, used.map(|used| used.load(Ordering::Relaxed))),
            )
        });
        kinds.filter(|(_, used)| !used.is_empty()).collect()
    }
}

/// The counts above zero; both arrays have the same order.
pub(crate) fn above_zero<T: Ord, const N: usize>(words: [T; N], counts: [u64; N]) -> BTreeMap<T, u64> {
    let counts = words.into_iter().zip(counts);
    counts.filter(|(_, count)| *count > 0).collect()
}
