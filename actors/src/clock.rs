//! The clock of a worker: cheaper than the system's, and never far from it.
//!
//! Each call reads it. The processor's counter is read in a third of the time that the system's clock takes; it is set by
//! that clock again and again, so that the two agree to a microsecond.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// How long the counter is relied on, in nanoseconds.
const SET_EVERY: u32 = 10_000_000;

/// The clock of one thread.
pub(crate) struct Clock {
    /// `None`: time is tokio's, which tests pause.
    counter: Option<quanta::Clock>,
    /// When it was set, by both clocks.
    set: Cell<(u64, Instant)>,
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
        let set = Cell::new((counter.raw(), Instant::now()));
        Self {
            counter: Some(counter),
            set,
        }
    }

    /// tokio's clock.
    pub(crate) fn tokio() -> Self {
        Self {
            counter: None,
            set: Cell::new((0, Instant::now())),
        }
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Instant {
        let Some(counter) = &self.counter else {
            return Instant::now();
        };
        let (count, at) = self.set.get();
        let now = counter.raw();
        let since = counter.delta_as_nanos(count, now);
        if let Ok(since) = u32::try_from(since)
            && since < SET_EVERY
        {
            return at + Duration::new(0, since);
        }
        let at = Instant::now();
        self.set.set((now, at));
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_system() {
        let clock = Clock::counting();
        for _ in 0..1000 {
            let (before, now, after) = (Instant::now(), clock.now(), Instant::now());
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
        assert_eq!(clock.now() - before, Duration::from_secs(7));
    }
}
