//! Latencies, exact: a cell has some thousands of them.

use std::time::{Duration, Instant};

use ganglion_benches::machine;

/// A phase of a cell.
pub(crate) type Phase = (Instant, Instant);

/// A phase in which nothing is done but to wait.
pub(crate) fn phase(duration: Duration) -> Phase {
    let begin = Instant::now();
    machine::wait(duration);
    (begin, Instant::now())
}

/// The latencies of one phase or more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    sorted: Vec<Duration>,
}

impl Samples {
    /// The calls that were scheduled in these phases.
    pub(crate) fn of(calls: &[(Instant, Duration)], phases: &[Phase]) -> Self {
        let within = |due: Instant| phases.iter().any(|(begin, end)| *begin <= due && due < *end);
        let mut sorted: Vec<_> = calls
            .iter()
            .filter(|(due, _)| within(*due))
            .map(|(_, latency)| *latency)
            .collect();
        sorted.sort_unstable();
        Self { sorted }
    }

    pub(crate) fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The latency that this share of the calls, per mille, did not exceed; 0 without calls.
    pub(crate) fn per_mille(&self, share: usize) -> Duration {
        let rank = (self.sorted.len() * share).div_ceil(1000).max(1);
        self.sorted.get(rank - 1).copied().unwrap_or_default()
    }

    pub(crate) fn p50(&self) -> Duration {
        self.per_mille(500)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.per_mille(990)
    }

    pub(crate) fn p999(&self) -> Duration {
        self.per_mille(999)
    }
}

/// The latencies with and without something.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) without: Samples,
    pub(crate) with: Samples,
    /// The larger p99 of the two phases without it by the smaller one.
    pub(crate) drift: f64,
}

impl Compared {
    pub(crate) fn of(calls: &[(Instant, Duration)], before: Phase, with: Phase, after: Phase) -> Self {
        let p99 = |phase| Samples::of(calls, &[phase]).p99().as_secs_f64();
        let (first, last) = (p99(before), p99(after));
        Self {
            without: Samples::of(calls, &[before, after]),
            with: Samples::of(calls, &[with]),
            drift: first.max(last) / first.min(last),
        }
    }

    pub(crate) fn ratio(&self) -> f64 {
        self.with.p99().as_secs_f64() / self.without.p99().as_secs_f64()
    }

    pub(crate) fn count(&self) -> usize {
        self.without.count() + self.with.count()
    }
}
