//! What was said in the log lately. Calls that do not reach their module fail at once, so under a flood there may be any
//! number of them, and one line a second says as much as all of them.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ganglion_api::FailureKind;

/// The time between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(1);

/// The begin of the clock.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The failures of one module, by kind.
#[derive(Debug, Default)]
pub(crate) struct Said([Kind; FailureKind::ALL.len()]);

#[derive(Debug, Default)]
struct Kind {
    /// When the next line may come, in milliseconds of the clock.
    next: AtomicU64,
    unsaid: AtomicU64,
}

impl Said {
    /// Whether a failure of this kind is to be said now; if so, how many were not since the last that was.
    pub(crate) fn say(&self, kind: FailureKind) -> Option<u64> {
        self.say_at(kind, BEGIN.elapsed())
    }

    fn say_at(&self, kind: FailureKind, now: Duration) -> Option<u64> {
        match kind {
            FailureKind::Overloaded | FailureKind::BreakerOpen | FailureKind::Quarantined | FailureKind::NotRunning => {
            }
            // The module's code took part: there are only as many as it had calls.
            _ => return Some(0),
        }
        let Kind { next, unsaid } = &self.0[kind as usize];
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let due = next.load(Ordering::Relaxed);
        let following = millis(now.saturating_add(PAUSE));
        let says = millis(now) >= due
            && next
                .compare_exchange(due, following, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if says {
            return Some(unsaid.swap(0, Ordering::Relaxed));
        }
        unsaid.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_were_not_said() {
        let said = Said::default();
        let at = |kind, millis| said.say_at(kind, Duration::from_millis(millis));
        assert_eq!(at(FailureKind::Overloaded, 0), Some(0));
        assert_eq!(at(FailureKind::Overloaded, 1), None);
        assert_eq!(at(FailureKind::Overloaded, 999), None);
        // Another kind has lines of its own, and what the module's code did is always said.
        assert_eq!(at(FailureKind::BreakerOpen, 999), Some(0));
        assert_eq!(
            (at(FailureKind::Panicked, 1), at(FailureKind::Panicked, 1)),
            (Some(0), Some(0))
        );
        assert_eq!(at(FailureKind::Overloaded, 1000), Some(2));
        assert_eq!(at(FailureKind::Overloaded, 5000), Some(0));
    }
}
