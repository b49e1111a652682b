//! The time that one call has.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Moment, nanos};

/// The time that one call has, from the moment that it is made.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// When the call is made.
    pub now: Moment,
    /// How long it may take, in nanoseconds.
    pub nanos: u64,
    /// It is the module's whole `call_timeout`.
    pub whole: bool,
}

impl Budget {
    /// The budget of a call that is made now, so many nanoseconds before the end of its chain, of a module with this
    /// `call_timeout`.
    #[must_use]
    pub fn new(now: impl Into<Moment>, left: u64, call_timeout: Duration) -> Self {
        let call_timeout = nanos(call_timeout);
        Self {
            now: now.into(),
            nanos: left.min(call_timeout),
            whole: left >= call_timeout,
        }
    }

    /// How long the call may take.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// Its end.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.now.after(self.nanos).into()
    }
}
