//! Who may call a module right now: a bounded number runs, a bounded number waits.
//!
//! The capacity of an actix mailbox bounds neither running handlers nor what clones of an address push, so the right
//! to have a call running is a permit of our own, over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ganglion_api::FailureKind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout_at};

/// The right to have one call running. It is given back when it is dropped.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// The permits of one module, over all workers.
#[derive(Debug)]
pub struct Admission {
    permits: Arc<Semaphore>,
    max_in_flight: usize,
    waiting: AtomicUsize,
    mailbox: usize,
}

/// One who waits for a permit, counted until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// At most `max_in_flight` calls run and at most `mailbox` wait.
    #[must_use]
    pub fn new(max_in_flight: usize, mailbox: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_in_flight)),
            max_in_flight,
            waiting: AtomicUsize::new(0),
            mailbox,
        }
    }

    /// A permit, waited for until `until`, first come, first served.
    ///
    /// # Errors
    /// `overloaded` if too many wait already or none came free in time; `not_running` once admission is closed, at
    /// once for those who wait.
    ///
    /// # Cancellation
    /// Dropping the future gives the place up.
    pub async fn admit(&self, until: Instant) -> Result<Permit, FailureKind> {
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => return Ok(Permit(permit)),
            Err(TryAcquireError::Closed) => return Err(FailureKind::NotRunning),
            Err(TryAcquireError::NoPermits) => {}
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.mailbox {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(FailureKind::Overloaded);
        }
        let _waiting = Waiting(&self.waiting);
        match timeout_at(until, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Permit(permit)),
            Ok(Err(_closed)) => Err(FailureKind::NotRunning),
            Err(_elapsed) => Err(FailureKind::Overloaded),
        }
    }

    /// Admits nobody any more, and sends away those who wait.
    pub fn close(&self) {
        self.permits.close();
    }

    /// How many calls run.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.max_in_flight.saturating_sub(self.permits.available_permits())
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_mailbox_is_overloaded_at_once_and_a_late_permit_after_the_budget() {
        let admission = Admission::new(1, 1);
        let permit = admission.admit(soon()).await.unwrap();
        let (waits, refused) = tokio::join!(admission.admit(soon()), async {
            let begun = Instant::now();
            let refused = admission.admit(soon()).await;
            assert_eq!(begun.elapsed(), Duration::ZERO);
            refused
        });
        assert_eq!(refused.unwrap_err(), FailureKind::Overloaded);
        assert_eq!(waits.unwrap_err(), FailureKind::Overloaded);
        drop(permit);
        assert_eq!((admission.in_flight(), admission.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_sends_away_those_who_wait() {
        let admission = Admission::new(1, 10);
        let _permit = admission.admit(soon()).await.unwrap();
        let (waits, ()) = tokio::join!(admission.admit(soon()), async { admission.close() });
        assert_eq!(waits.unwrap_err(), FailureKind::NotRunning);
        assert_eq!(admission.admit(soon()).await.unwrap_err(), FailureKind::NotRunning);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_gives_up_leaves_its_place() {
        let admission = Admission::new(1, 1);
        let permit = admission.admit(soon()).await.unwrap();
        let mut waits = Box::pin(admission.admit(soon()));
        assert!(futures_util::poll!(&mut waits).is_pending());
        assert_eq!(admission.waiting(), 1);
        drop(waits);
        assert_eq!(admission.waiting(), 0);
        drop(permit);
        assert!(admission.admit(soon()).await.is_ok());
    }
}
