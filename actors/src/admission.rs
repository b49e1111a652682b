//! Who may call a module right now: a bounded number runs, a bounded number waits, and who waits takes turns.
//!
//! The capacity of an actix mailbox bounds neither running handlers nor what clones of an address push, so the right
//! to have a call running is a permit of our own, over all workers. It is no semaphore of tokio's, since that knows one
//! line only: here gating calls have a share of their own, and one caller's flood waits behind itself.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use ganglion_api::{CallFailure, FailureKind};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::queue::{CallClass, Caller, FairQueue, Ticket};
use crate::stock::{Stock, Taken};
use crate::thread::ModuleThread;

/// Something that is held on a thread, and given back when the thread is given up.
pub trait Reclaim: Send + Sync {
    /// Gives it back. Once is enough.
    fn reclaim(&self);
}

/// The permits of one module that are out on one thread.
///
/// When the thread is given up they come back at once: what runs there may never end, and is never answered.
#[derive(Debug)]
pub(crate) struct Ledger {
    permits: Arc<Permits>,
    /// Those of other calls, and those of gating ones.
    out: [AtomicUsize; 2],
}

impl Ledger {
    /// Set once the permits were given back.
    const RECLAIMED: usize = 1 << (usize::BITS - 1);

    /// Counts a permit that is on its way to the thread.
    ///
    /// # Errors
    /// The thread was given up: what is sent there may never come back.
    pub(crate) fn lend(self: &Arc<Self>, gating: bool) -> Result<Permit, Refusal> {
        let out = &self.out[usize::from(gating)];
        let reclaimed = out.fetch_add(1, Ordering::AcqRel) & Self::RECLAIMED != 0;
        if reclaimed {
            self.permits.put_back(gating);
            return Err(Refusal::NotRunning);
        }
        Ok(Permit {
            ledger: Arc::clone(self),
            gating,
        })
    }
}

impl Reclaim for Ledger {
    fn reclaim(&self) {
        for (out, gating) in self.out.iter().zip([false, true]) {
            let out = out.fetch_or(Self::RECLAIMED, Ordering::AcqRel);
            if out & Self::RECLAIMED == 0 {
                for _ in 0..out {
                    self.permits.put_back(gating);
                }
            }
        }
    }
}

/// The right to have one call running. It is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    ledger: Arc<Ledger>,
    gating: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let out = &self.ledger.out[usize::from(self.gating)];
        let reclaimed = out.fetch_sub(1, Ordering::AcqRel) & Ledger::RECLAIMED != 0;
        if !reclaimed {
            self.ledger.permits.put_back(self.gating);
        }
    }
}

/// A permit on its way to who waited for it. It goes back when it is dropped.
#[derive(Debug)]
struct Slot {
    permits: Option<Arc<Permits>>,
    gating: bool,
}

impl Slot {
    /// It has come where it goes to: from now on its drop gives nothing back. Says whether it is for a gating call.
    fn take(mut self) -> bool {
        self.permits = None;
        self.gating
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(permits) = &self.permits {
            permits.put_back(self.gating);
        }
    }
}

/// Why a call was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The module takes no calls any more.
    NotRunning,
    /// There is no room to wait.
    Full,
    /// It waited, and gave way to another call.
    Shed,
    /// No permit came free in time.
    Late,
    /// Its place was taken away: it goes on elsewhere, or nobody waits for it any more.
    Withdrawn,
}

impl Refusal {
    /// As the failure that it is; `absence` is why the module takes no calls.
    pub(crate) fn failure(self, absence: FailureKind) -> CallFailure {
        let overloaded = |detail: &str| CallFailure::new(FailureKind::Overloaded, Some(detail.to_owned()));
        match self {
            Self::NotRunning | Self::Withdrawn => absence.into(),
            Self::Full => overloaded("its mailbox is full"),
            Self::Shed => overloaded("shed: its mailbox is full, and another call came before this one"),
            Self::Late => overloaded("no permit came free in time"),
        }
    }
}

type Grant = oneshot::Sender<Result<Slot, Refusal>>;

/// The permits of one module, over all threads, and those who wait for one.
#[derive(Debug)]
struct Permits {
    stock: Arc<Stock>,
    mailbox: usize,
    /// How many wait, so that neither who comes nor who leaves need lock for nobody.
    waiting: AtomicUsize,
    closed: AtomicBool,
    shed: AtomicU64,
    queue: Mutex<FairQueue<Grant>>,
}

impl Permits {
    fn lock(&self) -> MutexGuard<'_, FairQueue<Grant>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a permit, if one is free for such a call.
    fn take(&self, gating: bool) -> bool {
        self.stock.take(Taken::of_permit(gating)).is_ok()
    }

    fn put_back(self: &Arc<Self>, gating: bool) {
        self.stock.give(Taken::of_permit(gating));
        self.came_back();
    }

    /// A permit came back to the stock.
    fn came_back(self: &Arc<Self>) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.serve(&mut self.lock());
        }
    }

    /// Gives what is free to those whose turn it is.
    fn serve(self: &Arc<Self>, queue: &mut FairQueue<Grant>) {
        loop {
            let free = self.stock.free();
            let class = queue.turn(free.others == 0).filter(|_| free.permits > 0);
            let Some(class) = class else { break };
            let gating = class == CallClass::Gating;
            // Somebody who found nobody waiting may take it first.
            if !self.take(gating) {
                continue;
            }
            let slot = Slot {
                permits: Some(Arc::clone(self)),
                gating,
            };
            let refused = match queue.pop(class) {
                Some(grant) => grant.send(Ok(slot)).err(),
                None => Some(Ok(slot)),
            };
            if let Some(Ok(slot)) = refused {
                // Who waited is gone. Given back by hand, since its drop would lock again.
                self.stock.give(Taken::of_permit(slot.take()));
            }
        }
        self.waiting.store(queue.len(), Ordering::SeqCst);
    }

    /// Takes a place in the queue; if there are too many then, somebody gives way.
    fn enqueue(self: &Arc<Self>, class: CallClass, caller: Caller) -> Result<Place, Refusal> {
        let (grant, granted) = oneshot::channel();
        let mut queue = self.lock();
        if self.closed.load(Ordering::SeqCst) {
            return Err(Refusal::NotRunning);
        }
        let ticket = queue.push(class, caller, grant);
        self.waiting.store(queue.len(), Ordering::SeqCst);
        // One may have come free meanwhile.
        self.serve(&mut queue);
        let displaced = (queue.len() > self.mailbox).then(|| queue.give_way()).flatten();
        self.waiting.store(queue.len(), Ordering::SeqCst);
        drop(queue);
        if let Some((displaced, grant)) = displaced {
            let own = displaced == ticket;
            let refusal = if own && class != CallClass::Notifying {
                Refusal::Full
            } else {
                self.shed.fetch_add(1, Ordering::Relaxed);
                Refusal::Shed
            };
            // Who is gone need not be told.
            let _ = grant.send(Err(refusal));
        }
        Ok(Place {
            permits: Arc::clone(self),
            ticket,
            granted: Mutex::new(Some(granted)),
        })
    }
}

/// A place in the queue for permits. Who waits may do so on a thread that gets stuck, and would be given a permit all the
/// same: so the place can be taken away.
struct Place {
    permits: Arc<Permits>,
    ticket: Ticket,
    granted: Mutex<Option<oneshot::Receiver<Result<Slot, Refusal>>>>,
}

impl Place {
    fn granted(&self) -> MutexGuard<'_, Option<oneshot::Receiver<Result<Slot, Refusal>>>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Slot, Refusal>> {
        let mut granted = self.granted();
        let Some(receiver) = &mut *granted else {
            return Poll::Ready(Err(Refusal::Withdrawn));
        };
        // It is told before it is dropped.
        let polled = Pin::new(receiver).poll(cx);
        polled.map(|granted| granted.unwrap_or(Err(Refusal::NotRunning)))
    }
}

impl Reclaim for Place {
    fn reclaim(&self) {
        // A permit that it was given already goes to the next in the queue, once nothing is locked.
        let granted = self.granted().take();
        if granted.is_some() {
            let mut queue = self.permits.lock();
            let left = queue.remove(self.ticket);
            self.permits.waiting.store(queue.len(), Ordering::SeqCst);
            drop(queue);
            drop(left);
        }
        drop(granted);
    }
}

/// Gives the place up when who waits is dropped.
struct InQueue(Arc<Place>);

impl Drop for InQueue {
    fn drop(&mut self) {
        self.0.reclaim();
    }
}

/// The permits of one module.
#[derive(Debug)]
pub(crate) struct Admission(Arc<Permits>);

impl Admission {
    /// As many calls run as the stock has permits, and at most `mailbox` wait.
    pub(crate) fn new(stock: &Arc<Stock>, mailbox: usize) -> Self {
        Self(Arc::new(Permits {
            stock: Arc::clone(stock),
            mailbox,
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            shed: AtomicU64::new(0),
            queue: Mutex::default(),
        }))
    }

    /// A ledger for one thread.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::new(Ledger {
            permits: Arc::clone(&self.0),
            out: Default::default(),
        })
    }

    /// A permit for a call on the ledger's thread, waited for until `until`: callers take turns, and so do the classes of
    /// calls. A quarter of the permits is for gating calls alone. `waits` is given the place in the queue, if it takes one.
    ///
    /// # Errors
    /// Too many wait, or none came free in time; admission is closed or the module's incarnation `retired`, at once for
    /// those who wait.
    ///
    /// # Cancellation
    /// Dropping the future gives the place up.
    pub(crate) async fn admit(
        &self,
        ledger: &Arc<Ledger>,
        class: CallClass,
        caller: Caller,
        until: Instant,
        retired: &CancellationToken,
        waits: impl FnOnce(Arc<dyn Reclaim>),
    ) -> Result<Permit, Refusal> {
        let permits = &self.0;
        let gating = class == CallClass::Gating;
        if self.is_open() && permits.take(gating) {
            return ledger.lend(gating);
        }
        let place = Arc::new(permits.enqueue(class, caller)?);
        if let Some(thread) = ModuleThread::here() {
            thread.keep(Arc::clone(&place) as Arc<dyn Reclaim>);
        }
        waits(Arc::clone(&place) as Arc<dyn Reclaim>);
        let queue = InQueue(place);
        let granted = timeout_at(until, poll_fn(|cx| queue.0.poll(cx)));
        match retired.run_until_cancelled(granted).await {
            Some(Ok(granted)) => granted.and_then(|slot| ledger.lend(slot.take())),
            Some(Err(_elapsed)) => Err(Refusal::Late),
            None => Err(Refusal::NotRunning),
        }
    }

    /// Whether who finds a permit in the stock may take it: nobody waits for one. It is counted by a
    /// [ledger](Ledger::lend), or comes [back](Self::came_back) to the stock.
    pub(crate) fn is_open(&self) -> bool {
        !self.0.closed.load(Ordering::Acquire) && self.0.waiting.load(Ordering::SeqCst) == 0
    }

    /// A permit came back to the stock.
    pub(crate) fn came_back(&self) {
        self.0.came_back();
    }

    /// Admits nobody any more, and sends away those who wait.
    pub(crate) fn close(&self) {
        let mut queue = self.0.lock();
        self.0.closed.store(true, Ordering::SeqCst);
        let waited: Vec<_> = queue.drain().collect();
        self.0.waiting.store(0, Ordering::SeqCst);
        drop(queue);
        for grant in waited {
            let _ = grant.send(Err(Refusal::NotRunning));
        }
    }

    /// How many calls run, and how many wait; those that run on threads that were given up do not count.
    pub(crate) fn load(&self) -> (usize, usize) {
        // Under the lock, so that nobody is in both, or in neither, who is just given a permit.
        let queue = self.0.lock();
        (self.0.stock.permits_out(), queue.len())
    }

    /// How many calls gave way to others since the start.
    pub(crate) fn shed(&self) -> u64 {
        self.0.shed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
