//! Waiting until it is calm: for threads that block, threads that spin and futures that hang.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A stretch of time between two changes of the switch. Who waits in one goes on when it is over, also if the next
/// misbehaving one has begun by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

/// Whether there is misbehaviour, and who waits for its end.
#[derive(Debug, Default)]
pub(super) struct Switch {
    /// Even while there is misbehaviour, odd while it is calm. Changed only under the lock, so that nobody who looks at
    /// it under the lock misses a change.
    epoch: AtomicU64,
    hanging: Mutex<Hanging>,
    changed: Condvar,
    running: AtomicUsize,
}

#[derive(Debug, Default)]
struct Hanging {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// A call that misbehaves at this moment.
struct Running<'a>(&'a Switch);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Switch {
    /// The epoch, if there is misbehaviour.
    pub(super) fn misbehaving(&self) -> Option<Epoch> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        epoch.is_multiple_of(2).then_some(Epoch(epoch))
    }

    /// Ends the misbehaviour, or begins it again; nothing if it is so already.
    pub(super) fn set_calm(&self, calm: bool) {
        let mut hanging = self.lock();
        if self.misbehaving().is_some() != calm {
            return;
        }
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let wakers = std::mem::take(&mut hanging.wakers);
        drop(hanging);
        self.changed.notify_all();
        // Not under the lock: a waker may drop a future that hangs, which takes the lock.
        wakers.into_values().for_each(Waker::wake);
    }

    /// How many block, spin or hang.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Blocks the thread until the epoch is over.
    pub(super) fn block(&self, epoch: Epoch) {
        let _running = self.run();
        drop(self.changed.wait_while(self.lock(), |_| self.goes_on(epoch)));
    }

    /// Keeps the thread busy until the epoch is over.
    pub(super) fn spin(&self, epoch: Epoch) {
        let _running = self.run();
        while self.goes_on(epoch) {
            std::hint::spin_loop();
        }
    }

    /// Blocks the thread for this long, or until the epoch is over.
    pub(super) fn pause(&self, epoch: Epoch, at_most: Duration) {
        drop(
            self.changed
                .wait_timeout_while(self.lock(), at_most, |_| self.goes_on(epoch)),
        );
    }

    /// Is ready when the epoch is over.
    pub(super) async fn hang(&self, epoch: Epoch) {
        Hang {
            switch: self,
            epoch,
            place: None,
            _running: self.run(),
        }
        .await;
    }

    fn goes_on(&self, epoch: Epoch) -> bool {
        self.epoch.load(Ordering::SeqCst) == epoch.0
    }

    fn run(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::SeqCst);
        Running(self)
    }

    fn lock(&self) -> MutexGuard<'_, Hanging> {
        self.hanging.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Hang<'a> {
    switch: &'a Switch,
    epoch: Epoch,
    /// Where its waker stands among those that hang.
    place: Option<u64>,
    _running: Running<'a>,
}

impl Future for Hang<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut hanging = self.switch.lock();
        if !self.switch.goes_on(self.epoch) {
            return Poll::Ready(());
        }
        let place = self.place.unwrap_or(hanging.next);
        if self.place.is_none() {
            hanging.next += 1;
        }
        let old = hanging.wakers.insert(place, context.waker().clone());
        // Wakers are dropped without the lock, for the same reason as they are woken without it.
        drop(hanging);
        drop(old);
        self.place = Some(place);
        Poll::Pending
    }
}

impl Drop for Hang<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let mut hanging = self.switch.lock();
            let waker = hanging.wakers.remove(&place);
            drop(hanging);
            drop(waker);
        }
    }
}
