//! When a failed module is made again, and when that is given up.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// More doublings than any duration has bits.
const MAX_DOUBLINGS: usize = 128;

/// How often a failed module is made again, and after which pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartSettings {
    /// How many restarts there may be within [`within`](Self::within); one more failure gives up. With 0 the first one
    /// does.
    pub max: usize,
    /// In what time. Failures that are older are forgotten.
    pub within: Duration,
    /// The pause before the second restart, which doubles with each further one, and the longest it becomes. The first
    /// restart is made at once.
    pub backoff: (Duration, Duration),
}

impl Default for RestartSettings {
    fn default() -> Self {
        Self {
            max: 5,
            within: Duration::from_secs(60),
            backoff: (Duration::from_millis(100), Duration::from_secs(30)),
        }
    }
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextRestart {
    /// The module is made again at once.
    Now,
    /// It is made again after this pause.
    After(Duration),
    /// It failed too often: it is not made again.
    GiveUp,
}

/// The failures of one module that still count. Pure: it has neither a clock nor chance of its own.
#[derive(Debug)]
pub(crate) struct RestartHistory {
    settings: RestartSettings,
    /// The moments of the failures within the window, the oldest first; at most one more than restarts are allowed.
    failures: VecDeque<Instant>,
}

impl RestartHistory {
    /// A history without failures.
    pub(crate) fn new(settings: RestartSettings) -> Self {
        Self {
            settings,
            failures: VecDeque::new(),
        }
    }

    /// What it goes by.
    pub(crate) fn settings(&self) -> &RestartSettings {
        &self.settings
    }

    /// Notes a failure, and says what follows. `jitter`, from 0.0 to 1.0, is the caller's chance: the pause is between
    /// the half of itself and the whole, so that modules that failed together do not come back together.
    pub(crate) fn failed(&mut self, now: Instant, jitter: f64) -> NextRestart {
        let RestartSettings { max, within, .. } = self.settings;
        self.failures
            .retain(|failure| now.saturating_duration_since(*failure) <= within);
        self.failures.push_back(now);
        if self.failures.len() > max {
            // Older ones change nothing any more: this many are enough to give up.
            let superfluous = self.failures.len() - max - 1;
            self.failures.drain(..superfluous);
            return NextRestart::GiveUp;
        }
        match self.failures.len().checked_sub(2) {
            None => NextRestart::Now,
            Some(doublings) => NextRestart::After(self.pause(doublings, jitter)),
        }
    }

    /// Forgets the last failures, so many of them: their cause is gone.
    pub(crate) fn forgive(&mut self, failures: usize) {
        let left = self.failures.len().saturating_sub(failures);
        self.failures.truncate(left);
    }

    /// Forgets the failures: an operator released the module, or made it anew.
    pub(crate) fn clear(&mut self) {
        self.failures.clear();
    }

    fn pause(&self, doublings: usize, jitter: f64) -> Duration {
        let (first, longest) = self.settings.backoff;
        let doublings = doublings.min(MAX_DOUBLINGS);
        let base = (0..doublings)
            .fold(first, |pause, _| pause.saturating_mul(2))
            .min(longest);
        // What is no number from 0 to 1 must not panic in a multiplication.
        let jitter = if (0.0..=1.0).contains(&jitter) { jitter } else { 1.0 };
        // The longest durations have no exact f64: the whole could become too long for a duration, the half cannot.
        let half = base / 2;
        half.saturating_add(half.mul_f64(jitter)).min(base)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn settings(max: usize, within: Duration, backoff: (Duration, Duration)) -> RestartSettings {
        RestartSettings { max, within, backoff }
    }

    #[test]
    fn the_first_restart_is_immediate_then_the_pause_doubles_then_it_gives_up() {
        let now = Instant::now();
        let mut history = RestartHistory::new(RestartSettings::default());
        let next: Vec<_> = (0..7).map(|_| history.failed(now, 1.0)).collect();
        let after = |pause| NextRestart::After(pause * MS);
        let expected = [
            NextRestart::Now,
            after(100),
            after(200),
            after(400),
            after(800),
            NextRestart::GiveUp,
            NextRestart::GiveUp,
        ];
        assert_eq!(next, expected);
    }

    #[test]
    fn failures_that_are_forgiven_do_not_count() {
        let now = Instant::now();
        let mut history = RestartHistory::new(settings(5, Duration::from_mins(1), (MS, MS)));
        for _ in 0..10 {
            let next: Vec<_> = (0..3).map(|_| history.failed(now, 1.0)).collect();
            assert_eq!(next, [NextRestart::Now, NextRestart::After(MS), NextRestart::After(MS)]);
            history.forgive(3);
        }
        history.failed(now, 1.0);
        history.forgive(usize::MAX);
        assert_eq!(history.failed(now, 1.0), NextRestart::Now);
    }

    #[test]
    fn the_pause_is_at_most_the_longest_and_jitter_takes_up_to_half_of_it() {
        let now = Instant::now();
        for (jitter, expected) in [
            (0.0, [50, 100, 125, 125]),
            (0.5, [75, 150, 187, 187]),
            (1.0, [100, 200, 250, 250]),
        ] {
            let mut history = RestartHistory::new(settings(9, 60_000 * MS, (100 * MS, 250 * MS)));
            assert_eq!(history.failed(now, jitter), NextRestart::Now);
            for pause in expected {
                let NextRestart::After(after) = history.failed(now, jitter) else {
                    panic!("no pause")
                };
                assert_eq!(after.as_millis(), pause);
            }
        }
    }

    #[test]
    fn failures_older_than_the_window_are_forgotten_and_so_is_the_exponent() {
        let begin = Instant::now();
        let mut history = RestartHistory::new(settings(2, 1000 * MS, (100 * MS, 30_000 * MS)));
        let mut at = |offset: u32| history.failed(begin + offset * MS, 1.0);
        assert_eq!(at(0), NextRestart::Now);
        assert_eq!(at(1000), NextRestart::After(100 * MS));
        assert_eq!(at(1001), NextRestart::After(100 * MS));
        assert_eq!(at(3000), NextRestart::Now);
        assert_eq!(at(3001), NextRestart::After(100 * MS));
        assert_eq!(at(3002), NextRestart::GiveUp);
    }

    #[test]
    fn without_any_restart_the_first_failure_gives_up() {
        let mut history = RestartHistory::new(settings(0, 1000 * MS, (MS, MS)));
        assert_eq!(history.failed(Instant::now(), 0.5), NextRestart::GiveUp);
    }

    #[test]
    fn a_cleared_history_begins_anew() {
        let now = Instant::now();
        let mut history = RestartHistory::new(settings(1, 1000 * MS, (MS, MS)));
        assert_eq!(history.failed(now, 0.0), NextRestart::Now);
        assert_eq!(history.failed(now, 0.0), NextRestart::GiveUp);
        history.clear();
        assert_eq!(history.failed(now, 0.0), NextRestart::Now);
    }

    fn any_duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::MAX),
            (0..5000_u64).prop_map(Duration::from_millis),
            any::<u64>().prop_map(Duration::from_secs),
        ]
    }

    fn any_jitter() -> impl Strategy<Value = f64> {
        prop_oneof![8 => 0.0..1.0, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(-1.0)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_settings_overflow_and_no_window_has_more_restarts_than_allowed(
            max in prop_oneof![9 => 0..8_usize, 1 => Just(usize::MAX)],
            within in any_duration(),
            backoff in (any_duration(), any_duration()),
            failures in prop::collection::vec((0..3000_u32, any_jitter()), 0..40),
        ) {
            let mut history = RestartHistory::new(settings(max, within, backoff));
            let mut now = Instant::now();
            let mut all: Vec<Instant> = Vec::new();
            for (pause, jitter) in failures {
                now += pause * MS;
                all.push(now);
                let counted = all.iter().filter(|failure| now - **failure <= within).count();
                match history.failed(now, jitter) {
                    NextRestart::Now => prop_assert!(counted == 1 && max > 0),
                    NextRestart::After(after) => {
                        prop_assert!(counted > 1 && counted <= max);
                        prop_assert!(after <= backoff.1);
                    }
                    NextRestart::GiveUp => prop_assert!(counted > max),
                }
            }
        }
    }
}
