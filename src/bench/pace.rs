//! How fast is asked.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How fast is asked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pace {
    /// A closed loop: the next question of a caller comes when its last one is decided.
    Closed,
    /// An open loop: this many questions a second, on a schedule that waits for nobody.
    Rate(f64),
}

impl Pace {
    /// How many questions the schedule has in this time; `None` without a schedule.
    pub(crate) fn ticks(self, duration: Duration) -> Option<u64> {
        match self {
            Self::Closed => None,
            // The rate and the duration have bounds that keep it far below 2^53.
            Self::Rate(rate) => Some(((rate * duration.as_secs_f64()).round() as u64).max(1)),
        }
    }

    /// How long after the schedule's beginning the nth question is due.
    pub(crate) fn due(rate: f64, nth: u64) -> Duration {
        Duration::from_secs_f64(nth as f64 / rate)
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed loop"),
            Self::Rate(rate) => write!(f, "open loop, {rate} a second"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_schedule_has_rate_times_duration_ticks_and_all_are_due_within_it(
            rate in 0.1_f64..1e6, millis in 1_u64..10_000
        ) {
            let duration = Duration::from_millis(millis);
            let ticks = Pace::Rate(rate).ticks(duration).unwrap();
            let exact = rate * duration.as_secs_f64();
            prop_assert!(ticks >= 1 && (ticks as f64 - exact).abs() <= 1.0);
            prop_assert!(Pace::due(rate, ticks - 1) <= duration);
            prop_assert_eq!(Pace::due(rate, 0), Duration::ZERO);
        }
    }
}
