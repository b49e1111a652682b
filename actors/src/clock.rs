//! The clock of a worker: cheaper than the system's, and never far from it.
//!
//! Each call reads it. The processor's counter is read in a third of the time that the system's clock takes; it is set by
//! that clock again and again, so that the two agree to a microsecond.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// How long the counter is relied on, in nanoseconds.
const SET_EVERY: u64 = 10_000_000;

/// A moment on a clock: a number, which is compared and taken off another in no time.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// When the clock was made.
    origin: Instant,
    /// So many nanoseconds later.
    nanos: u64,
}

impl Moment {
    /// How long it is after an earlier moment; nothing, if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// The same in nanoseconds: a duration is two numbers, and takes a division to make.
    #[inline]
    #[must_use]
    pub fn nanos_since(self, earlier: Self) -> u64 {
        if self.origin == earlier.origin {
            return self.nanos.saturating_sub(earlier.nanos);
        }
        // Another clock's.
        nanos(Instant::from(self).saturating_duration_since(earlier.into()))
    }
}

impl From<Moment> for Instant {
    fn from(Moment { origin, nanos }: Moment) -> Self {
        origin + Duration::from_nanos(nanos)
    }
}

impl From<Instant> for Moment {
    fn from(origin: Instant) -> Self {
        Self { origin, nanos: 0 }
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
    origin: Instant,
    /// When it was set: by the counter, and in nanoseconds since the origin.
    set: Cell<(u64, u64)>,
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
        let set = Cell::new((counter.raw(), 0));
        Self {
            counter: Some(counter),
            origin: Instant::now(),
            set,
        }
    }

    /// tokio's clock.
    pub(crate) fn tokio() -> Self {
        Self {
            counter: None,
            origin: Instant::now(),
            set: Cell::default(),
        }
    }

    /// The present moment.
    #[inline]
    pub(crate) fn now(&self) -> Moment {
        let Some(counter) = &self.counter else {
            return self.at(self.by_system());
        };
        let (count, nanos) = self.set.get();
        let now = counter.raw();
        let since = counter.delta_as_nanos(count, now);
        if since < SET_EVERY {
            return self.at(nanos + since);
        }
        let nanos = self.by_system();
        self.set.set((now, nanos));
        self.at(nanos)
    }

    /// A moment that another clock has told.
    pub(crate) fn moment(&self, at: Instant) -> Moment {
        self.at(self.nanos(at))
    }

    fn at(&self, nanos: u64) -> Moment {
        Moment {
            origin: self.origin,
            nanos,
        }
    }

    #[cold]
    fn by_system(&self) -> u64 {
        self.nanos(Instant::now())
    }

    fn nanos(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.origin))
    }
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
    }

    #[tokio::test(start_paused = true)]
    async fn moments_of_two_clocks_are_compared_by_the_systems() {
        let first = Clock::tokio();
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = Clock::tokio();
        let before = first.now();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(second.now().since(before), Duration::from_secs(2));
        assert_eq!(before.since(second.now()), Duration::ZERO);
        let now = Moment::from(Instant::now());
        assert_eq!(now.since(before), Duration::from_secs(2));
        assert_eq!(first.moment(now.into()).since(before), Duration::from_secs(2));
    }
}
