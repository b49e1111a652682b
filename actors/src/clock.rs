//! The clock of a worker: cheaper than the system's, and never far from it.
//!
//! Each call reads it. The processor's counter is read in a third of the time that the system's clock takes; it is set by
//! that clock again and again, so that the two agree to a microsecond.

use std::cell::Cell;
use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long the counter is relied on, in nanoseconds.
const SET_EVERY: u64 = 10_000_000;

/// What moments are counted from: some time before the process began to ask for one, so that there is none before it.
static ORIGIN: LazyLock<Instant> = LazyLock::new(|| {
    let now = std::time::Instant::now();
    now.checked_sub(Duration::from_secs(3600)).unwrap_or(now).into()
});

/// A moment in this process: a number, which is compared and taken off another in no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// A moment that threads share.
#[derive(Debug)]
pub(crate) struct AtomicMoment(AtomicU64);

impl AtomicMoment {
    pub(crate) fn new(Moment(nanos): Moment) -> Self {
        Self(AtomicU64::new(nanos))
    }

    pub(crate) fn get(&self) -> Moment {
        Moment(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, Moment(nanos): Moment) {
        self.0.store(nanos, Ordering::Relaxed);
    }
}

impl Moment {
    /// The origin of all moments, for whoever compares none.
    pub(crate) const ORIGIN: Self = Self(0);

    /// How long it is after an earlier moment; nothing, if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// The same in nanoseconds: a duration is two numbers, and takes a division to make.
    #[inline]
    #[must_use]
    pub fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// So many nanoseconds later.
    #[inline]
    #[must_use]
    pub fn after(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

impl From<Moment> for Instant {
    fn from(Moment(nanos): Moment) -> Self {
        *ORIGIN + Duration::from_nanos(nanos)
    }
}

impl From<Instant> for Moment {
    fn from(at: Instant) -> Self {
        Self(nanos(at.saturating_duration_since(*ORIGIN)))
    }
}

/// A duration in nanoseconds; the longest there is, if it has more.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock of one thread.
pub(crate) struct Clock {
    /// `None`: time is tokio's, which tests pause.
    counter: Option<quanta::Clock>,
    /// When it was set, by both clocks.
    set: Cell<(u64, Moment)>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("set", &self.set).finish_non_exhaustive()
    }
}

impl Clock {
    /// The clock of a thread of ours.
    pub(crate) fn counting() -> Self {
        let counter = quanta::Clock::new();
        let set = Cell::new((counter.raw(), by_system()));
        Self {
            counter: Some(counter),
            set,
        }
    }

    /// tokio's clock.
    pub(crate) fn tokio() -> Self {
        Self {
            counter: None,
            set: Cell::new((0, by_system())),
        }
    }

    /// The present moment.
    #[inline]
    pub(crate) fn now(&self) -> Moment {
        let Some(counter) = &self.counter else {
            return by_system();
        };
        let (count, at) = self.set.get();
        let now = counter.raw();
        let since = counter.delta_as_nanos(count, now);
        // A counter that went back, as after a suspend, tells nothing.
        if now >= count && since < SET_EVERY {
            return Moment(at.0 + since);
        }
        let at = by_system();
        self.set.set((now, at));
        at
    }
}

#[cold]
fn by_system() -> Moment {
    Instant::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_system() {
        let clock = Clock::counting();
        for _ in 0..1000 {
            let (before, now, after) = (Instant::now(), Instant::from(clock.now()), Instant::now());
            // A thread that is not run between two of these readings makes no difference.
            let near = Duration::from_millis(1);
            assert!(
                before <= now + near && now <= after + near,
                "{before:?} {now:?} {after:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tokios_can_be_paused() {
        let clock = Clock::tokio();
        let before = clock.now();
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(clock.now().since(before), Duration::from_secs(7));
        assert_eq!(Instant::from(clock.now()), Instant::now());
        let later = Instant::now() + Duration::from_secs(2);
        assert_eq!(Moment::from(later).since(clock.now()), Duration::from_secs(2));
        assert_eq!(clock.now().since(later.into()), Duration::ZERO);
    }
}
