//! Latencies, counted rather than kept: a run may have millions of them.

use std::time::Duration;

use hdrhistogram::Histogram;

/// How exact a latency is kept: three digits, which is a thousandth.
const DIGITS: u8 = 3;

/// Latencies, in nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Latencies {
    histogram: Histogram<u64>,
    total: Duration,
}

/// The calls of one step of the scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    /// What they took at most, in nanoseconds. They took more than the step before.
    pub(super) to: u64,
    pub(super) calls: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new(DIGITS).expect("three digits are a number of digits that it has");
        Self {
            histogram,
            total: Duration::ZERO,
        }
    }
}

impl Latencies {
    pub(super) fn record(&mut self, latency: Duration) {
        // It grows by itself, so nothing is too long for it.
        let _ = self.histogram.record(nanos(latency).max(1));
        self.total += latency;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        // Both have the same digits, and this one grows.
        let _ = self.histogram.add(&other.histogram);
        self.total += other.total;
    }

    pub(super) fn count(&self) -> u64 {
        self.histogram.len()
    }

    pub(super) fn total(&self) -> Duration {
        self.total
    }

    /// The latency that this share of the calls did not exceed, in nanoseconds. `None` if there are too few of them: the
    /// slowest of a hundred calls says nothing about one in a thousand.
    pub(super) fn quantile(&self, share: f64) -> Option<u64> {
        let needed = 1.0 / (1.0 - share);
        // A hair less, for shares that are no exact fractions.
        (self.count() as f64 >= needed - 0.5).then(|| self.histogram.value_at_quantile(share))
    }

    /// The longest one; `None` without any.
    pub(super) fn max(&self) -> Option<u64> {
        (self.count() > 0).then(|| self.histogram.max())
    }

    /// How many calls took how long, in steps of 1, 2, 5, from the first step with calls to the last.
    pub(super) fn buckets(&self) -> Vec<Bucket> {
        let mut buckets: Vec<Bucket> = Vec::new();
        let mut scale = scale().peekable();
        for value in self.histogram.iter_recorded() {
            let calls = value.count_since_last_iteration();
            while let Some(to) = scale.peek().copied() {
                let fits = value.value_iterated_to() <= to;
                if fits || !buckets.is_empty() {
                    let calls = if fits { calls } else { 0 };
                    match buckets.last_mut().filter(|last| last.to == to) {
                        Some(last) => last.calls += calls,
                        None => buckets.push(Bucket { to, calls }),
                    }
                }
                if fits {
                    break;
                }
                scale.next();
            }
        }
        buckets
    }
}

/// The steps of the scale, in nanoseconds: 1, 2, 5, 10, ...
pub(super) fn scale() -> impl Iterator<Item = u64> {
    (0..18).flat_map(|power| [1, 2, 5].map(|step| step * 10_u64.pow(power)))
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(nanos: &[u64]) -> Latencies {
        let mut latencies = Latencies::default();
        for nanos in nanos {
            latencies.record(Duration::from_nanos(*nanos));
        }
        latencies
    }

    #[test]
    fn a_share_needs_enough_calls_to_be_said() {
        let thousand: Vec<u64> = (1..=1000).map(|nth| nth * 1000).collect();
        let latencies = of(&thousand);
        let close = |share, expected: f64| {
            let quantile = latencies.quantile(share).unwrap() as f64;
            assert!((quantile / expected - 1.0).abs() < 0.002, "{quantile} for {expected}");
        };
        close(0.5, 500_000.0);
        close(0.9, 900_000.0);
        close(0.99, 990_000.0);
        close(0.999, 999_000.0);
        assert_eq!(of(&thousand[..999]).quantile(0.999), None);
        assert!(of(&thousand[..100]).quantile(0.99).is_some());
        assert_eq!(of(&thousand[..99]).quantile(0.99), None);
        assert_eq!((of(&[]).quantile(0.5), of(&[]).max()), (None, None));
    }

    proptest! {
        #[test]
        fn every_call_is_in_one_bucket(nanos in prop::collection::vec(1_u64..10_u64.pow(11), 0..200)) {
            let latencies = of(&nanos);
            let buckets = latencies.buckets();
            let sum: u64 = buckets.iter().map(|bucket| bucket.calls).sum();
            prop_assert_eq!(sum, nanos.len() as u64);
            prop_assert!(buckets.windows(2).all(|pair| pair[0].to < pair[1].to));
            if let (Some(first), Some(last)) = (buckets.first(), buckets.last()) {
                prop_assert!(first.calls > 0 && last.calls > 0);
                // A thousandth may make the difference of a step.
                prop_assert!(last.to as f64 * 1.001 >= *nanos.iter().max().unwrap() as f64);
            }
        }

        #[test]
        fn merged_is_as_recorded_together(
            a in prop::collection::vec(1_u64..10_u64.pow(10), 0..50), b in prop::collection::vec(1_u64..10_u64.pow(10), 0..50)
        ) {
            let mut merged = of(&a);
            merged.merge(&of(&b));
            let together = of(&[a, b].concat());
            prop_assert_eq!(merged.buckets(), together.buckets());
            prop_assert_eq!(merged.total(), together.total());
            prop_assert_eq!(merged.max(), together.max());
        }
    }
}
