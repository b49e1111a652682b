//! How old results get.

use std::time::Duration;

use crate::clock::{Moment, nanos};

/// How old results get, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ages {
    ttl: Option<u64>,
    idle: Option<u64>,
}

impl Ages {
    pub(super) fn new(ttl: Option<Duration>, idle: Option<Duration>) -> Self {
        Self {
            ttl: ttl.map(nanos),
            idle: idle.map(nanos),
        }
    }

    /// Whether there is an age that is too old.
    pub(super) fn are_limited(self) -> bool {
        self.ttl.is_some() || self.idle.is_some()
    }

    /// Whether it matters when a result was asked for.
    pub(super) fn depend_on_asking(self) -> bool {
        self.idle.is_some()
    }

    /// Whether a result is too old that was made and last asked for at these moments.
    pub(super) fn are_over(self, made: Moment, asked_at: Moment, now: Moment) -> bool {
        let over = |most: Option<u64>, since| most.is_some_and(|most| now.nanos_since(since) >= most);
        over(self.ttl, made) || over(self.idle, asked_at)
    }

    /// The longest time that a result stays which nobody asks for.
    pub(super) fn longest(self) -> Option<Duration> {
        let longest = match (self.ttl, self.idle) {
            (Some(ttl), Some(idle)) => ttl.min(idle),
            (ttl, idle) => ttl.or(idle)?,
        };
        Some(Duration::from_nanos(longest))
    }
}
