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
use crate::thread::ModuleThread;

/// Which part of the permits is for gating calls alone: a quarter, rounded down.
const RESERVED: u32 = 4;

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
    fn lend(self: &Arc<Self>, slot: Slot) -> Result<Permit, Refusal> {
        let out = &self.out[usize::from(slot.gating)];
        let reclaimed = out.fetch_add(1, Ordering::AcqRel) & Self::RECLAIMED != 0;
        if reclaimed {
            return Err(Refusal::NotRunning);
        }
        Ok(Permit {
            ledger: Arc::clone(self),
            slot: Some(slot),
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
    slot: Option<Slot>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let out = &self.ledger.out[usize::from(slot.gating)];
        let reclaimed = out.fetch_sub(1, Ordering::AcqRel) & Ledger::RECLAIMED != 0;
        if reclaimed {
            slot.forget();
        }
    }
}

/// One of a module's permits, wherever it is held. It goes back when it is dropped.
#[derive(Debug)]
struct Slot {
    permits: Option<Arc<Permits>>,
    gating: bool,
}

impl Slot {
    /// It was given back already.
    fn forget(mut self) {
        self.permits = None;
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

/// How many permits are free, and how many more of them calls may take that are not gating; in one number, so that both
/// are taken at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Free {
    all: u32,
    others: u32,
}

impl Free {
    fn new(max_in_flight: usize) -> Self {
        let all = u32::try_from(max_in_flight).unwrap_or(u32::MAX);
        Self {
            all,
            others: all - all / RESERVED,
        }
    }

    fn from_bits(bits: u64) -> Self {
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
        Self {
            all: half(bits),
            others: half(bits >> 32),
        }
    }

    fn to_bits(self) -> u64 {
        u64::from(self.others) << 32 | u64::from(self.all)
    }

    fn less(self, gating: bool) -> Option<Self> {
        Some(Self {
            all: self.all.checked_sub(1)?,
            others: self.others.checked_sub(u32::from(!gating))?,
        })
    }

    /// What one permit is in bits.
    fn one(gating: bool) -> u64 {
        let one = Self {
            all: 1,
            others: u32::from(!gating),
        };
        one.to_bits()
    }
}

type Grant = oneshot::Sender<Result<Slot, Refusal>>;

/// The permits of one module, over all threads, and those who wait for one.
#[derive(Debug)]
struct Permits {
    max_in_flight: usize,
    mailbox: usize,
    /// [`Free`].
    free: AtomicU64,
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

    fn free(&self) -> Free {
        Free::from_bits(self.free.load(Ordering::SeqCst))
    }

    /// Takes a permit, if one is free for such a call.
    fn take(self: &Arc<Self>, class: CallClass) -> Option<Slot> {
        let gating = class == CallClass::Gating;
        let less = |bits| Free::from_bits(bits).less(gating).map(Free::to_bits);
        self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).ok()?;
        Some(Slot {
            permits: Some(Arc::clone(self)),
            gating,
        })
    }

    fn put_back(self: &Arc<Self>, gating: bool) {
        self.free.fetch_add(Free::one(gating), Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.serve(&mut self.lock());
        }
    }

    /// Gives what is free to those whose turn it is.
    fn serve(self: &Arc<Self>, queue: &mut FairQueue<Grant>) {
        loop {
            let free = self.free();
            let class = queue.turn(free.others == 0).filter(|_| free.all > 0);
            let Some(class) = class else { break };
            // Somebody who found nobody waiting may take it first.
            let Some(slot) = self.take(class) else { continue };
            let refused = match queue.pop(class) {
                Some(grant) => grant.send(Ok(slot)).err(),
                None => Some(Ok(slot)),
            };
            if let Some(Ok(slot)) = refused {
                // Who waited is gone. Given back by hand, since its drop would lock again.
                self.free.fetch_add(Free::one(slot.gating), Ordering::SeqCst);
                slot.forget();
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
    /// At most `max_in_flight` calls run and at most `mailbox` wait.
    pub(crate) fn new(max_in_flight: usize, mailbox: usize) -> Self {
        Self(Arc::new(Permits {
            max_in_flight,
            mailbox,
            free: AtomicU64::new(Free::new(max_in_flight).to_bits()),
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
        if permits.closed.load(Ordering::Acquire) {
            return Err(Refusal::NotRunning);
        }
        if permits.waiting.load(Ordering::SeqCst) == 0
            && let Some(slot) = permits.take(class)
        {
            return ledger.lend(slot);
        }
        let place = Arc::new(permits.enqueue(class, caller)?);
        if let Some(thread) = ModuleThread::here() {
            thread.keep(Arc::clone(&place) as Arc<dyn Reclaim>);
        }
        waits(Arc::clone(&place) as Arc<dyn Reclaim>);
        let queue = InQueue(place);
        let granted = timeout_at(until, poll_fn(|cx| queue.0.poll(cx)));
        match retired.run_until_cancelled(granted).await {
            Some(Ok(granted)) => granted.and_then(|slot| ledger.lend(slot)),
            Some(Err(_elapsed)) => Err(Refusal::Late),
            None => Err(Refusal::NotRunning),
        }
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

    /// How many calls run; those on threads that were given up do not count.
    pub(crate) fn in_flight(&self) -> usize {
        self.0.max_in_flight.saturating_sub(self.0.free().all as usize)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        // One more for the moment in which somebody gives way.
        self.0.waiting.load(Ordering::Relaxed).min(self.0.mailbox)
    }

    /// How many calls gave way to others since the start.
    pub(crate) fn shed(&self) -> u64 {
        self.0.shed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// An admission with one thread.
    struct One(Admission, Arc<Ledger>, CancellationToken);

    impl One {
        fn new(max_in_flight: usize, mailbox: usize) -> Self {
            let admission = Admission::new(max_in_flight, mailbox);
            let ledger = admission.ledger();
            Self(admission, ledger, CancellationToken::new())
        }

        async fn admit(&self) -> Result<Permit, Refusal> {
            self.admit_for(CallClass::Gating, Caller::Unnamed).await
        }

        async fn admit_for(&self, class: CallClass, caller: Caller) -> Result<Permit, Refusal> {
            let soon = Instant::now() + Duration::from_secs(1);
            self.0.admit(&self.1, class, caller, soon, &self.2, drop).await
        }

        async fn admit_on(&self, ledger: &Arc<Ledger>) -> Result<Permit, Refusal> {
            let soon = Instant::now() + Duration::from_secs(1);
            self.0
                .admit(ledger, CallClass::Gating, Caller::Unnamed, soon, &self.2, drop)
                .await
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
        assert_eq!(refused.unwrap_err(), Refusal::Full);
        assert_eq!(waits.unwrap_err(), Refusal::Late);
        drop(permit);
        assert_eq!((admission.0.in_flight(), admission.0.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_sends_away_those_who_wait() {
        let admission = One::new(1, 10);
        let _permit = admission.admit().await.unwrap();
        let (waits, ()) = tokio::join!(admission.admit(), async { admission.0.close() });
        assert_eq!(waits.unwrap_err(), Refusal::NotRunning);
        assert_eq!(admission.admit().await.unwrap_err(), Refusal::NotRunning);
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
        assert_eq!(waits.unwrap_err(), Refusal::NotRunning);
    }

    #[tokio::test(start_paused = true)]
    async fn permits_on_a_thread_that_is_given_up_come_back_once() {
        let admission = One::new(3, 0);
        let elsewhere = admission.0.ledger();
        let kept = admission.admit_on(&elsewhere).await.unwrap();
        let ended = admission.admit().await.unwrap();
        let stuck = admission.admit().await.unwrap();
        drop(ended);
        admission.1.reclaim();
        admission.1.reclaim();
        assert_eq!(admission.0.in_flight(), 1);
        // One more is not sent there, and the stuck call ends after all: neither changes the count.
        assert_eq!(admission.admit().await.unwrap_err(), Refusal::NotRunning);
        assert_eq!(admission.0.in_flight(), 1);
        drop(stuck);
        assert_eq!(admission.0.in_flight(), 1);
        drop(kept);
        assert_eq!(admission.0.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_on_a_thread_that_is_given_up_is_given_no_permit() {
        let admission = One::new(1, 1);
        let permit = admission.admit().await.unwrap();
        // Waits on a thread that never polls it again.
        let place = admission.0.0.enqueue(CallClass::Gating, Caller::Unnamed).unwrap();
        assert!(futures_util::poll!(poll_fn(|cx| place.poll(cx))).is_pending());
        admission.1.reclaim();
        assert_eq!(admission.0.in_flight(), 1);
        place.reclaim();
        assert_eq!((admission.0.in_flight(), admission.0.waiting()), (0, 0));
        assert!(futures_util::poll!(poll_fn(|cx| place.poll(cx))).is_ready());
        drop(permit);
        let elsewhere = admission.0.ledger();
        assert!(admission.admit_on(&elsewhere).await.is_ok());
    }

    /// Those who wait, one by one in this order; each says its name when it has its permit, and keeps it until the end.
    async fn served(
        admission: &One,
        waiting: &[(&'static str, CallClass, Caller)],
        permits: Vec<Permit>,
    ) -> Vec<String> {
        let order = std::cell::RefCell::new(Vec::new());
        let all = waiting.iter().map(|(name, class, caller)| {
            let order = &order;
            async move {
                let admitted = admission.admit_for(*class, *caller).await;
                let said = match &admitted {
                    Ok(_) => (*name).to_owned(),
                    Err(refusal) => format!("{name} {refusal:?}"),
                };
                order.borrow_mut().push(said);
            }
        });
        let all = futures_util::future::join_all(all);
        let (_, ()) = tokio::join!(all, async { drop(permits) });
        order.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn a_quarter_of_the_permits_is_for_gating_calls_alone() {
        let admission = One::new(8, 0);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(
                admission
                    .admit_for(CallClass::Notifying, Caller::Unnamed)
                    .await
                    .unwrap(),
            );
            held.push(admission.admit_for(CallClass::Asking, Caller::Unnamed).await.unwrap());
        }
        for (class, refusal) in [
            (CallClass::Notifying, Refusal::Shed),
            (CallClass::Asking, Refusal::Full),
        ] {
            let refused = admission.admit_for(class, Caller::Unnamed).await;
            assert_eq!(refused.unwrap_err(), refusal);
        }
        for _ in 0..2 {
            held.push(admission.admit().await.unwrap());
        }
        assert_eq!(admission.admit().await.unwrap_err(), Refusal::Full);
        // What a gating call gives back is not for others, who have their share.
        drop(held.pop());
        assert!(admission.admit_for(CallClass::Asking, Caller::Unnamed).await.is_err());
        drop(held.remove(0));
        assert!(admission.admit_for(CallClass::Asking, Caller::Unnamed).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn notifications_are_shed_first_and_the_oldest_of_them() {
        let admission = One::new(1, 3);
        let permit = admission.admit().await.unwrap();
        let one = Caller::Unnamed;
        let waiting = [
            ("n1", CallClass::Notifying, one),
            ("g1", CallClass::Gating, one),
            ("n2", CallClass::Notifying, one),
            ("g2", CallClass::Gating, one),
            ("n3", CallClass::Notifying, one),
            ("g3", CallClass::Gating, one),
            ("g4", CallClass::Gating, one),
        ];
        let served = served(&admission, &waiting, vec![permit]).await;
        let expected = ["g4 Full", "n1 Shed", "n2 Shed", "n3 Shed", "g1", "g2", "g3"];
        let mut sorted = served.clone();
        sorted.sort_unstable();
        let mut expected_sorted = expected;
        expected_sorted.sort_unstable();
        assert_eq!(sorted, expected_sorted);
        assert_eq!(
            served.iter().filter(|said| !said.contains(' ')).collect::<Vec<_>>(),
            ["g1", "g2", "g3"]
        );
        assert_eq!(admission.0.shed(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flooding_caller_waits_behind_itself_and_gives_way_to_others() {
        let admission = One::new(1, 4);
        let permit = admission.admit().await.unwrap();
        let (flood, other) = (Caller::link(), Caller::link());
        let mut waiting = vec![("flood", CallClass::Gating, flood); 6];
        waiting.extend([("other", CallClass::Gating, other); 2]);
        let served = served(&admission, &waiting, vec![permit]).await;
        let (refused, served): (Vec<_>, Vec<_>) = served.into_iter().partition(|said| said.contains(' '));
        assert_eq!(served, ["flood", "other", "flood", "other"]);
        assert_eq!(refused, ["flood Full", "flood Full", "flood Shed", "flood Shed"]);
        assert_eq!(
            (admission.0.shed(), admission.0.waiting(), admission.0.in_flight()),
            (2, 0, 0)
        );
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Come(usize, u64),
        Leave(usize),
        End(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..CallClass::ALL.len(), 0..3_u64).prop_map(|(class, caller)| Step::Come(class, caller)),
            1 => (0..8_usize).prop_map(Step::Leave),
            3 => (0..8_usize).prop_map(Step::End),
        ]
    }

    /// Those who wait and run, as the admission gives it.
    struct Crowd {
        admission: Admission,
        waiting: Vec<(CallClass, Place)>,
        running: Vec<(CallClass, Slot)>,
        refused: usize,
    }

    impl Crowd {
        fn new(max_in_flight: usize, mailbox: usize) -> Self {
            Self {
                admission: Admission::new(max_in_flight, mailbox),
                waiting: Vec::new(),
                running: Vec::new(),
                refused: 0,
            }
        }

        fn take(&mut self, step: Step) {
            match step {
                Step::Come(class, caller) => {
                    let class = CallClass::ALL[class];
                    let place = self.admission.0.enqueue(class, Caller::Link(caller)).unwrap();
                    self.waiting.push((class, place));
                }
                Step::Leave(index) if index < self.waiting.len() => self.waiting.remove(index).1.reclaim(),
                Step::End(index) if index < self.running.len() => drop(self.running.remove(index)),
                _ => {}
            }
            let mut cx = Context::from_waker(Waker::noop());
            for (class, place) in std::mem::take(&mut self.waiting) {
                match place.poll(&mut cx) {
                    Poll::Ready(Ok(slot)) => self.running.push((class, slot)),
                    Poll::Ready(Err(_refused)) => self.refused += 1,
                    Poll::Pending => self.waiting.push((class, place)),
                }
            }
        }
    }

    #[test]
    fn gating_calls_that_have_all_permits_leave_turns_to_others() {
        let mut crowd = Crowd::new(8, 100);
        let come = |crowd: &mut Crowd, class: CallClass, count| {
            (0..count).for_each(|_| crowd.take(Step::Come(class as usize, 0)));
        };
        come(&mut crowd, CallClass::Gating, 8 + 3);
        come(&mut crowd, CallClass::Asking, 2);
        come(&mut crowd, CallClass::Notifying, 2);
        let next = |_| {
            crowd.take(Step::End(0));
            crowd.running.last().expect("somebody runs").0
        };
        let (gating, asking, notifying) = (CallClass::Gating, CallClass::Asking, CallClass::Notifying);
        let order: Vec<_> = (0..7).map(next).collect();
        assert_eq!(order, [asking, notifying, gating, asking, notifying, gating, gating]);
    }

    proptest! {
        /// Whoever comes, leaves and ends, in whatever order: nobody waits while there is a permit for them, and there are
        /// never too many.
        #[test]
        fn nobody_waits_for_a_permit_that_is_free(
            max_in_flight in 1..10_usize,
            mailbox in 0..5_usize,
            steps in proptest::collection::vec(step(), 0..100),
        ) {
            let mut crowd = Crowd::new(max_in_flight, mailbox);
            let came = steps.iter().filter(|step| matches!(step, Step::Come(..))).count();
            let (mut left, mut ended) = (0, 0);
            for step in steps {
                left += usize::from(matches!(step, Step::Leave(index) if index < crowd.waiting.len()));
                ended += usize::from(matches!(step, Step::End(index) if index < crowd.running.len()));
                crowd.take(step);
                let free = max_in_flight - crowd.running.len();
                prop_assert_eq!(crowd.admission.in_flight(), crowd.running.len());
                prop_assert_eq!(crowd.admission.waiting(), crowd.waiting.len());
                prop_assert!(crowd.waiting.len() <= mailbox);
                let others = crowd.running.iter().filter(|(class, _)| *class != CallClass::Gating).count();
                let share = max_in_flight - max_in_flight / RESERVED as usize;
                prop_assert!(others <= share);
                for (class, _) in &crowd.waiting {
                    let has_share = *class == CallClass::Gating || others < share;
                    prop_assert!(free == 0 || !has_share, "{:?} waits beside {} free permits", class, free);
                }
            }
            prop_assert_eq!(came, crowd.waiting.len() + crowd.running.len() + crowd.refused + left + ended);
        }
    }
}
