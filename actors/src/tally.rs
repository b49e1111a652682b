//! What is counted at every call: plain numbers for each worker, added up when somebody reads them.
//!
//! Only its own thread writes a tally, so to count is a load and a store, and no worker waits for another one's cache line.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ganglion_api::FailureKind;

/// The upper bounds of the histogram's buckets, in microseconds; what takes longer is in one more.
const BOUNDS: [u64; 20] = [
    1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 5_000_000,
];

/// The calls of one module from one worker.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    calls: AtomicU64,
    failures: [AtomicU64; FailureKind::ALL.len()],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// There is one writer.
fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl Tally {
    /// One more call, on the thread that the tally is for.
    pub(crate) fn count(&self, failure: Option<FailureKind>) {
        add(&self.calls, 1);
        if let Some(kind) = failure {
            add(&self.failures[kind as usize], 1);
        }
    }

    /// One more call, in which the module's code took part. It took so long.
    pub(crate) fn took_part(&self, failure: Option<FailureKind>, duration: Duration) {
        self.count(failure);
        let whole = duration.as_secs().saturating_mul(1_000_000_000);
        let nanos = whole.saturating_add(duration.subsec_nanos().into());
        // Most calls are in the first buckets.
        let bucket = BOUNDS.iter().position(|bound| nanos <= bound * 1_000);
        add(&self.buckets[bucket.unwrap_or(BOUNDS.len())], 1);
        add(&self.nanos, nanos);
    }
}

/// Tallies, added up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    pub(crate) calls: u64,
    pub(crate) failures: [u64; FailureKind::ALL.len()],
    pub(crate) durations: DurationHistogram,
}

impl Totals {
    /// Adds a tally.
    pub(crate) fn add(&mut self, tally: &Tally) {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        self.calls += read(&tally.calls);
        for (total, number) in self.failures.iter_mut().zip(&tally.failures) {
            *total += read(number);
        }
        for (total, number) in self.durations.buckets.iter_mut().zip(&tally.buckets) {
            *total += read(number);
        }
        self.durations.sum = self
            .durations
            .sum
            .saturating_add(Duration::from_nanos(read(&tally.nanos)));
    }
}

/// How long calls took, in buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DurationHistogram {
    buckets: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl DurationHistogram {
    /// The buckets, from the shortest calls on: the longest duration that counts into each, which the last one has none of,
    /// and how many calls are in it.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = BOUNDS.iter().map(|bound| Some(Duration::from_micros(*bound)));
        bounds.chain([None]).zip(self.buckets)
    }

    /// How long all of them took together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// How many calls there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_are_added_up_and_durations_fall_into_their_buckets() {
        let (one, two) = (Tally::default(), Tally::default());
        two.count(Some(FailureKind::Overloaded));
        let panicked = Some(FailureKind::Panicked);
        for (tally, failure, nanos) in [
            (&one, None, 0),
            (&one, panicked, 1_000),
            (&two, panicked, 1_001),
            (&two, None, 9_000_000_000),
        ] {
            tally.took_part(failure, Duration::from_nanos(nanos));
        }
        let mut totals = Totals::default();
        totals.add(&one);
        totals.add(&two);
        assert_eq!((totals.calls, totals.failures[FailureKind::Panicked as usize]), (5, 2));
        let durations = totals.durations;
        assert_eq!(
            (durations.count(), durations.sum()),
            (4, Duration::from_nanos(9_000_002_001))
        );
        let counts: Vec<_> = durations.buckets().filter(|(_, count)| *count > 0).collect();
        let micros = |micros| Some(Duration::from_micros(micros));
        assert_eq!(counts, [(micros(1), 2), (micros(2), 1), (None, 1)]);
    }
}
