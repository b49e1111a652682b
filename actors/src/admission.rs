//! Who may call a module right now: a bounded number runs, a bounded number waits.
//!
//! The capacity of an actix mailbox bounds neither running handlers nor what clones of an address push, so the right
//! to have a call running is a permit of our own, over all workers.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use ganglion_api::FailureKind;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::thread::ModuleThread;

/// Something that is held on a thread, and given back when the thread is given up.
pub(crate) trait Reclaim: Send + Sync {
    /// Gives it back. Once is enough.
    fn reclaim(&self);
}

/// The permits of one module that are out on one thread.
///
/// When the thread is given up they come back at once: what runs there may never end, and is never answered.
#[derive(Debug)]
pub(crate) struct Ledger {
    permits: Arc<Semaphore>,
    out: AtomicUsize,
}

impl Ledger {
    /// Set once the permits were given back.
    const RECLAIMED: usize = 1 << (usize::BITS - 1);

    /// Counts a permit that is on its way to the thread.
    fn lend(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Permit {
        let reclaimed = self.out.fetch_add(1, Ordering::AcqRel) & Self::RECLAIMED != 0;
        Permit {
            ledger: (!reclaimed).then(|| Arc::clone(self)),
            permit: Some(permit),
        }
    }
}

impl Reclaim for Ledger {
    fn reclaim(&self) {
        let out = self.out.fetch_or(Self::RECLAIMED, Ordering::AcqRel);
        if out & Self::RECLAIMED == 0 {
            self.permits.add_permits(out);
        }
    }
}

/// The right to have one call running. It is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    ledger: Option<Arc<Ledger>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(ledger) = &self.ledger else { return };
        let reclaimed = ledger.out.fetch_sub(1, Ordering::AcqRel) & Ledger::RECLAIMED != 0;
        if reclaimed && let Some(permit) = self.permit.take() {
            permit.forget();
        }
    }
}

/// The permits of one module, over all threads.
#[derive(Debug)]
pub(crate) struct Admission {
    permits: Arc<Semaphore>,
    max_in_flight: usize,
    waiting: Arc<AtomicUsize>,
    mailbox: usize,
}

/// One who waits for a permit, counted until it is dropped.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

type Acquire = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// A place in the queue for permits. Who waits may do so on a thread that gets stuck, and would be given a permit all the
/// same: so the place can be taken away.
struct Place(Mutex<Option<(Acquire, Waiting)>>);

impl Place {
    fn take(&self) -> Option<(Acquire, Waiting)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// `None` once it was taken away.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<OwnedSemaphorePermit, AcquireError>>> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((acquire, _)) => acquire.as_mut().poll(cx).map(Some),
            None => Poll::Ready(None),
        }
    }
}

impl Reclaim for Place {
    fn reclaim(&self) {
        // A permit that it was given already goes to the next in the queue.
        drop(self.take());
    }
}

/// Gives the place up when who waits is dropped.
struct InQueue(Arc<Place>);

impl Drop for InQueue {
    fn drop(&mut self) {
        self.0.reclaim();
    }
}

impl Admission {
    /// At most `max_in_flight` calls run and at most `mailbox` wait.
    pub(crate) fn new(max_in_flight: usize, mailbox: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_in_flight)),
            max_in_flight,
            waiting: Arc::default(),
            mailbox,
        }
    }

    /// A ledger for one thread.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::new(Ledger {
            permits: Arc::clone(&self.permits),
            out: AtomicUsize::new(0),
        })
    }

    /// A permit for a call on the ledger's thread, waited for until `until`, first come, first served.
    ///
    /// # Errors
    /// `overloaded` if too many wait already or none came free in time; `not_running` once admission is closed or the
    /// module's incarnation `retired`, at once for those who wait.
    ///
    /// # Cancellation
    /// Dropping the future gives the place up.
    pub(crate) async fn admit(
        &self,
        ledger: &Arc<Ledger>,
        until: Instant,
        retired: &CancellationToken,
    ) -> Result<Permit, FailureKind> {
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => return Ok(ledger.lend(permit)),
            Err(TryAcquireError::Closed) => return Err(FailureKind::NotRunning),
            Err(TryAcquireError::NoPermits) => {}
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.mailbox {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(FailureKind::Overloaded);
        }
        let acquire: Acquire = Box::pin(Arc::clone(&self.permits).acquire_owned());
        let waiting = Waiting(Arc::clone(&self.waiting));
        let place = Arc::new(Place(Mutex::new(Some((acquire, waiting)))));
        if let Some(thread) = ModuleThread::here() {
            thread.keep(Arc::clone(&place) as Arc<dyn Reclaim>);
        }
        let queue = InQueue(place);
        let permit = timeout_at(until, poll_fn(|cx| queue.0.poll(cx)));
        match retired.run_until_cancelled(permit).await {
            Some(Ok(Some(Ok(permit)))) => Ok(ledger.lend(permit)),
            Some(Ok(Some(Err(_)) | None)) | None => Err(FailureKind::NotRunning),
            Some(Err(_elapsed)) => Err(FailureKind::Overloaded),
        }
    }

    /// Admits nobody any more, and sends away those who wait.
    pub(crate) fn close(&self) {
        self.permits.close();
    }

    /// How many calls run; those on threads that were given up do not count.
    pub(crate) fn in_flight(&self) -> usize {
        self.max_in_flight.saturating_sub(self.permits.available_permits())
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// An admission with one thread.
    struct One(Admission, Arc<Ledger>, CancellationToken);

    impl One {
        fn new(max_in_flight: usize, mailbox: usize) -> Self {
            let admission = Admission::new(max_in_flight, mailbox);
            let ledger = admission.ledger();
            Self(admission, ledger, CancellationToken::new())
        }

        async fn admit(&self) -> Result<Permit, FailureKind> {
            let soon = Instant::now() + Duration::from_secs(1);
            self.0.admit(&self.1, soon, &self.2).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_mailbox_is_overloaded_at_once_and_a_late_permit_after_the_budget() {
        let admission = One::new(1, 1);
        let permit = admission.admit().await.unwrap();
        let (waits, refused) = tokio::join!(admission.admit(), async {
            let begun = Instant::now();
            let refused = admission.admit().await;
            assert_eq!(begun.elapsed(), Duration::ZERO);
            refused
        });
        assert_eq!(refused.unwrap_err(), FailureKind::Overloaded);
        assert_eq!(waits.unwrap_err(), FailureKind::Overloaded);
        drop(permit);
        assert_eq!((admission.0.in_flight(), admission.0.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_sends_away_those_who_wait() {
        let admission = One::new(1, 10);
        let _permit = admission.admit().await.unwrap();
        let (waits, ()) = tokio::join!(admission.admit(), async { admission.0.close() });
        assert_eq!(waits.unwrap_err(), FailureKind::NotRunning);
        assert_eq!(admission.admit().await.unwrap_err(), FailureKind::NotRunning);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_gives_up_leaves_its_place() {
        let admission = One::new(1, 1);
        let permit = admission.admit().await.unwrap();
        let mut waits = Box::pin(admission.admit());
        assert!(futures_util::poll!(&mut waits).is_pending());
        assert_eq!(admission.0.waiting(), 1);
        drop(waits);
        assert_eq!(admission.0.waiting(), 0);
        drop(permit);
        assert!(admission.admit().await.is_ok());
    }
    #[tokio::test(start_paused = true)]
    async fn retiring_sends_away_those_who_wait() {
        let admission = One::new(1, 10);
        let _permit = admission.admit().await.unwrap();
        let (waits, ()) = tokio::join!(admission.admit(), async { admission.2.cancel() });
        assert_eq!(waits.unwrap_err(), FailureKind::NotRunning);
    }

    #[tokio::test(start_paused = true)]
    async fn permits_on_a_thread_that_is_given_up_come_back_once() {
        let admission = One::new(3, 0);
        let elsewhere = admission.0.ledger();
        let soon = Instant::now() + Duration::from_secs(1);
        let kept = admission.0.admit(&elsewhere, soon, &admission.2).await.unwrap();
        let ended = admission.admit().await.unwrap();
        let stuck = admission.admit().await.unwrap();
        drop(ended);
        admission.1.reclaim();
        admission.1.reclaim();
        assert_eq!(admission.0.in_flight(), 1);
        // The stuck call ends after all, and one more ran into the same thread: neither changes the count.
        let late = admission.admit().await.unwrap();
        assert_eq!(admission.0.in_flight(), 2);
        drop((stuck, late));
        assert_eq!(admission.0.in_flight(), 1);
        drop(kept);
        assert_eq!(admission.0.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_on_a_thread_that_is_given_up_is_given_no_permit() {
        let admission = One::new(1, 1);
        let permit = admission.admit().await.unwrap();
        // Waits on a thread that never polls it again.
        let acquire: Acquire = Box::pin(Arc::clone(&admission.0.permits).acquire_owned());
        admission.0.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(Arc::clone(&admission.0.waiting));
        let place = Place(Mutex::new(Some((acquire, waiting))));
        assert!(futures_util::poll!(poll_fn(|cx| place.poll(cx))).is_pending());
        admission.1.reclaim();
        assert_eq!(admission.0.in_flight(), 1);
        place.reclaim();
        assert_eq!((admission.0.in_flight(), admission.0.waiting()), (0, 0));
        assert!(futures_util::poll!(poll_fn(|cx| place.poll(cx))).is_ready());
        drop(permit);
        let elsewhere = admission.0.ledger();
        let soon = Instant::now() + Duration::from_secs(1);
        assert!(admission.0.admit(&elsewhere, soon, &admission.2).await.is_ok());
    }
}
