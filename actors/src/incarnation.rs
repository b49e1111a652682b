//! One life of a module, from its constructor to its next restart: the way of a call to it, by tier.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use actix::{Actor as _, Addr, MailboxError};
use futures_util::future::{Either, select};
use ganglion_api::{CallFailure, Callback, FailureKind, MatrixError, Subscriber, WebRequest, WebResource, WebResponse};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::admission::{Ledger, Reclaim, Refusal};
use crate::background::Pace;
use crate::breaker::{Judged, Pass};
use crate::course::{Course, at_once};
use crate::gate::Entrance;
use crate::handle::ModuleHandle;
use crate::module_actor::{Asking, Call, Ended, Invoke, ModuleActor, Respond, Work};
use crate::nesting::{Asker, Held};
use crate::probe::{Operation, Site};
use crate::queue::CallClass;
use crate::state::ModuleState;
use crate::supervisor::Lost;
use crate::thread::ModuleThread;
use crate::tier::Tier;
use crate::worker::{Pool, WorkerIndex};

/// Where a module's calls run.
enum Place {
    /// In the task of whoever calls, on their worker.
    Inline,
    /// In a replica of its actor on the caller's worker.
    Actor,
    /// In its actor on a thread of its own.
    Thread {
        thread: Arc<ModuleThread>,
        actor: Addr<ModuleActor>,
        ledger: Arc<Ledger>,
    },
    /// Nowhere: it keeps the place of a module that is not there.
    Vacant,
}

/// The time that one call has, from the moment that it is made.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    now: Instant,
    until: Instant,
}

impl Budget {
    /// Its end.
    #[must_use]
    pub fn until(self) -> Instant {
        self.until
    }
}

/// One life of a module.
pub struct Incarnation {
    module: ModuleHandle,
    number: u32,
    place: Place,
    pool: Arc<Pool>,
    live: AtomicBool,
    retired: CancellationToken,
    ended: CancellationToken,
    /// How many of its background calls there are.
    pub(crate) background_calls: AtomicUsize,
    /// When their next run may begin.
    pub(crate) pace: Pace,
    /// That there were too many was said.
    pub(crate) flooded: AtomicBool,
    this: Weak<Self>,
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({} {})", self.module.id(), self.number)
    }
}

impl Incarnation {
    /// A life that has not begun. Its own thread, if its tier has one, is started.
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub(crate) fn new(module: &ModuleHandle, pool: &Arc<Pool>) -> std::io::Result<Arc<Self>> {
        let ended = module.stopped().child_token();
        let own = match module.tier() {
            Tier::Inline | Tier::Actor => None,
            Tier::Thread => {
                let thread = pool.start_own(module.id())?;
                let ledger = module.admission().ledger();
                thread.keep(Arc::clone(&ledger) as Arc<dyn Reclaim>);
                Some((thread, ledger))
            }
        };
        let incarnation = Arc::new_cyclic(|this: &Weak<Self>| {
            let place = match (module.tier(), own) {
                (_, Some((thread, ledger))) => {
                    let actor = ModuleActor::new(this.clone(), ended.clone());
                    let actor = ModuleActor::start_in_arbiter(thread.arbiter(), |_| actor);
                    Place::Thread { thread, actor, ledger }
                }
                (Tier::Inline, None) => Place::Inline,
                (Tier::Actor | Tier::Thread, None) => Place::Actor,
            };
            Self {
                module: module.clone(),
                number: pool.next_number(),
                place,
                pool: Arc::clone(pool),
                live: AtomicBool::new(false),
                retired: ended.child_token(),
                ended,
                background_calls: AtomicUsize::new(0),
                pace: Pace::new(),
                flooded: AtomicBool::new(false),
                this: this.clone(),
            }
        });
        pool.enrol(&incarnation);
        Ok(incarnation)
    }

    /// Keeps the places of a module that is not there.
    pub(crate) fn vacant(module: &ModuleHandle, pool: &Arc<Pool>) -> Arc<Self> {
        Arc::new(Self {
            module: module.clone(),
            number: 0,
            place: Place::Vacant,
            pool: Arc::clone(pool),
            live: AtomicBool::new(false),
            retired: CancellationToken::new(),
            ended: CancellationToken::new(),
            background_calls: AtomicUsize::new(0),
            pace: Pace::new(),
            flooded: AtomicBool::new(false),
            this: Weak::new(),
        })
    }

    /// The module.
    #[must_use]
    pub fn module(&self) -> &ModuleHandle {
        &self.module
    }

    /// Its number, unique in the process.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Cancelled when it takes no calls any more: its background calls end.
    pub(crate) fn retired(&self) -> &CancellationToken {
        &self.retired
    }

    /// Cancelled when what still runs of it ends too.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Where its constructor, its background calls, and computations without a caller's thread run.
    pub(crate) fn home(&self) -> Arc<ModuleThread> {
        match &self.place {
            Place::Thread { thread, .. } => Arc::clone(thread),
            _ => self.pool.worker(WorkerIndex(self.module.index())),
        }
    }

    /// Its own thread, if its tier has one.
    pub(crate) fn own_thread(&self) -> Option<&Arc<ModuleThread>> {
        match &self.place {
            Place::Thread { thread, .. } => Some(thread),
            _ => None,
        }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Drops something of it on a thread of its own, soon.
    pub(crate) fn discard(&self, what: Box<dyn Any + Send>) {
        self.pool.discard(self.number, self.this.upgrade(), what);
    }

    /// Code of it, for the watchdog.
    pub(crate) fn site(&self, operation: Operation) -> Site {
        Site {
            incarnation: self.number,
            operation,
        }
    }

    /// The way into its code.
    pub(crate) fn entrance(&self, operation: Operation) -> Entrance<'_> {
        Entrance {
            site: self.site(operation),
            gate: self.module.gate(),
            held_up: None,
        }
    }

    /// From now on it takes calls.
    pub(crate) fn go_live(&self) {
        self.module.set_current(self.number);
        self.live.store(true, Ordering::Release);
    }

    /// From now on it takes no calls. Those that run go on.
    pub(crate) fn retire(&self) {
        self.live.store(false, Ordering::Release);
        self.module.left(self.number);
        self.retired.cancel();
    }

    /// Ends what still runs of it, and its thread.
    pub(crate) fn end(&self) {
        self.retire();
        self.ended.cancel();
        if let Some(thread) = self.own_thread()
            && !self.pool.is_current()
        {
            thread.stop();
        }
        self.pool.release(self.number);
    }

    /// Whether a call that the breaker let pass may still begin.
    pub(crate) fn still_passes(&self, operation: Operation, pass: Option<Pass>) -> bool {
        let breaker = self.module.breaker(operation);
        match (breaker, pass) {
            (Some(breaker), Some(pass)) => breaker.still_passes(pass),
            _ => true,
        }
    }

    /// A call of it gave no answer. After a panic it takes no calls any more.
    pub(crate) fn failed(&self, operation: Operation, failure: &mut CallFailure) {
        match failure.kind {
            FailureKind::Panicked => self.panicked(operation, failure.detail.as_deref().unwrap_or("no message")),
            FailureKind::NotRunning => failure.kind = self.absence(),
            _ => {}
        }
    }

    /// Its code panicked: it takes no calls any more, and the supervisor makes another.
    pub(crate) fn panicked(&self, operation: Operation, reason: &str) {
        let module = self.module.id();
        tracing::error!(module, operation = operation.as_str(), reason, "module panicked");
        self.retire();
        let reason = format!("panicked in {}: {reason}", operation.as_str());
        self.module.lost(Lost::Failed {
            incarnation: self.number,
            reason,
        });
    }

    /// Its own thread was given up: it takes no calls any more, and the supervisor makes another.
    pub(crate) fn lost_its_thread(&self, thread: &ModuleThread) {
        self.retire();
        // What waits for the thread waits for nothing.
        self.ended.cancel();
        let reason = if thread.is_blocked() {
            "blocked its thread"
        } else {
            "its thread ended"
        };
        self.module.lost(Lost::Failed {
            incarnation: self.number,
            reason: reason.into(),
        });
    }

    /// A thread was given up because of it. With too many of them stuck, the module goes into quarantine.
    pub(crate) fn left_thread(&self) {
        let stuck = self.module.stuck_threads();
        let most = most_stuck_threads();
        if stuck > most {
            self.retire();
            let reason = format!("{stuck} of its threads are stuck, at most {most} are replaced");
            self.module.lost(Lost::GaveUp { reason });
        }
    }

    /// The budget of a call that is made now, in a chain with this deadline.
    #[must_use]
    pub fn budget(&self, now: Instant, deadline: Instant) -> Budget {
        let until = deadline.min(now + self.module.limits().call_timeout);
        Budget { now, until }
    }

    /// These args made the module panic, or hang for its whole budget. The third time they are poison: they bypass it.
    pub fn harmed<C: Callback>(&self, args: &C, cause: FailureKind) {
        if let Some(panics) = self.module.poison().strike(args, cause) {
            let (module, callback) = (self.module.id(), C::SPEC.name);
            tracing::warn!(module, callback, %cause, "poison input: these args bypass the module from now on");
            // It was restarted for them, and will not be any more.
            self.module.explained(panics);
        }
    }

    /// Asks a subscriber of the module, until its budget runs out. `asking` is told how that ended: with an
    /// answer, or with a failure, see [`FailureKind`]. Args that are poison bypass the module, as `quarantined`.
    ///
    /// # Cancellation
    /// A call that waits is withdrawn; one that runs goes on to its end or its budget, but for the tier `inline`.
    pub async fn call<C: Callback>(
        &self,
        worker: &Worker,
        subscriber: Arc<dyn Subscriber<C>>,
        args: Arc<C>,
        budget: Budget,
        asker: Asker,
        asking: impl Asking<C::Answer>,
    ) {
        if let Some(why) = self.module.poison().bypasses(&*args) {
            self.module.counters().count(Some(FailureKind::Quarantined));
            return asking.end(Err(CallFailure::new(FailureKind::Quarantined, why)));
        }
        let work = Invoke { subscriber, args };
        self.admit(worker, Operation::callback::<C>(), work, budget, asker, asking)
            .await;
    }

    /// Lets a web resource of the module answer a request, until its budget runs out; else as [`call`](Self::call). A Matrix
    /// error is an answer.
    pub async fn respond(
        &self,
        worker: &Worker,
        resource: Arc<dyn WebResource>,
        request: WebRequest,
        budget: Budget,
        asker: Asker,
        asking: impl Asking<Result<WebResponse, MatrixError>>,
    ) {
        let work = Respond { resource, request };
        self.admit(worker, Operation::WEB_RESOURCE, work, budget, asker, asking)
            .await;
    }

    async fn admit<W: Work, A: Asking<W::Output>>(
        &self,
        worker: &Worker,
        operation: Operation,
        work: W,
        budget: Budget,
        asker: Asker,
        asking: A,
    ) {
        let counters = self.module.counters();
        match self.send(worker, operation, work, budget, asker, asking.clone()).await {
            Ok(Ended::Answered) => counters.count(None),
            Ok(Ended::Failed { kind, .. }) => counters.count(Some(kind)),
            Ok(Ended::Refused) => counters.count(Some(FailureKind::BreakerOpen)),
            Ok(Ended::Withdrawn) => {}
            Err(failure) => {
                counters.count(Some(failure.kind));
                asking.end(Err(failure));
            }
        }
    }

    /// Breaker, permit, then the tier.
    ///
    /// # Errors
    /// The module's code was not reached, or says nothing in time: who asked was not told.
    async fn send<W: Work, A: Asking<W::Output>>(
        &self,
        worker: &Worker,
        operation: Operation,
        work: W,
        budget: Budget,
        asker: Asker,
        asking: A,
    ) -> Result<Ended, CallFailure> {
        if !self.live.load(Ordering::Acquire) {
            return Err(self.absence().into());
        }
        let Budget { now, until } = budget;
        let breaker = self.module.breaker(operation);
        let pass = match breaker.map(|breaker| (breaker, breaker.admit(now))) {
            Some((_, None)) => return Err(FailureKind::BreakerOpen.into()),
            Some((breaker, Some(pass))) => Some((breaker, pass)),
            None => None,
        };
        let (replica, ledger) = worker.part(self);
        let whole = until - now >= self.module.limits().call_timeout;
        let hurried = asker.hurried && !whole;
        let course = Arc::new(Course::new(now, until, whole));
        let permit = self.permit(&ledger, W::CLASS, &asker, until, |place| asking.waits(place));
        let (permitted, permitted_at_once) = at_once(permit).await;
        if !permitted_at_once {
            course.spare();
        }
        let permit = match permitted {
            Ok(permit) => permit,
            Err(refusal) => {
                if let Some((breaker, pass)) = pass {
                    breaker.withdraw(pass);
                }
                if refusal == Refusal::Withdrawn {
                    return Ok(Ended::Withdrawn);
                }
                return Err(refusal.failure(self.absence()));
            }
        };
        let call = Call {
            operation,
            pass: pass.map(|(_, pass)| pass),
            work,
            asking,
            course,
            until,
            asker,
            permit,
        };
        let begun = Instant::now();
        let result = self.run(replica, call).await;
        if let Some((breaker, pass)) = pass {
            let ended = Instant::now();
            let took = ended.saturating_duration_since(begun);
            // Else others had the time that it lacked.
            let had_time = !hurried && took >= (until - now) / 2;
            match judge(result, had_time) {
                Some(judged) => {
                    if breaker.record(pass, judged, took, ended) {
                        // It fails whatever it gets, such as one whose backend is down.
                        self.module.poison().forget_hangs(operation);
                    }
                }
                None => breaker.withdraw(pass),
            }
        }
        Ok(result?)
    }

    /// The right to have a call running: that of the call of this module above it, if there is one and nobody uses it, else
    /// a permit of its own.
    async fn permit(
        &self,
        ledger: &Arc<Ledger>,
        class: CallClass,
        asker: &Asker,
        until: Instant,
        waits: impl FnOnce(Arc<dyn Reclaim>),
    ) -> Result<Held, Refusal> {
        let admission = self.module.admission();
        let admitted = admission.admit(ledger, class, asker.caller, until, &self.retired, waits);
        let lent = asker.above.as_ref().and_then(|above| above.lent_by(&self.module));
        let Some(lent) = lent else {
            return admitted.await.map(Held::Own);
        };
        let lent = pin!(async {
            match self.retired.run_until_cancelled(timeout_at(until, lent.borrow())).await {
                Some(Ok(Some(lent))) => {
                    if let Some(thread) = self.own_thread().cloned().or_else(ModuleThread::here) {
                        lent.run_on(&thread);
                    }
                    Ok(Held::Lent(lent))
                }
                Some(Ok(None)) => Err(Refusal::Full),
                Some(Err(_elapsed)) => Err(Refusal::Late),
                None => Err(Refusal::NotRunning),
            }
        });
        // Whichever comes first. Where there is no room to wait for one, there still is the other.
        match select(lent, pin!(admitted)).await {
            Either::Left((Ok(held), _)) => Ok(held),
            Either::Left((Err(_), admitted)) => admitted.await.map(Held::Own),
            Either::Right((Ok(permit), _)) => Ok(Held::Own(permit)),
            Either::Right((Err(refusal @ (Refusal::NotRunning | Refusal::Withdrawn)), _)) => Err(refusal),
            Either::Right((Err(_), lent)) => lent.await,
        }
    }

    async fn run<W: Work, A: Asking<W::Output>>(
        &self,
        replica: Option<Addr<ModuleActor>>,
        call: Call<W, A>,
    ) -> Result<Ended, FailureKind> {
        let sent = match (&self.place, replica) {
            (Place::Inline, _) => return Ok(call.run(self).await),
            (Place::Actor, Some(replica)) => replica.send(call).await,
            (Place::Thread { thread, actor, .. }, _) => {
                // The thread may be stuck: the budget is held on this side too.
                let course = Arc::clone(&call.course);
                let answer = timeout_at(call.until, actor.send(call));
                match self.ended.run_until_cancelled(answer).await {
                    Some(Ok(sent)) => sent,
                    Some(Err(_elapsed)) => {
                        if thread.is_busy() {
                            // It may be about to say so itself.
                            tokio::task::yield_now().await;
                        }
                        course.is_over(thread.is_busy() || thread.has_ended());
                        return Err(FailureKind::DeadlineExceeded);
                    }
                    // The thread was given up for this very call.
                    None if thread.is_blocked() && course.holds_thread() => return Err(FailureKind::DeadlineExceeded),
                    None => return Err(self.absence()),
                }
            }
            (Place::Actor | Place::Vacant, _) => return Err(self.absence()),
        };
        sent.map_err(|error| match error {
            MailboxError::Closed => self.absence(),
            MailboxError::Timeout => FailureKind::DeadlineExceeded,
        })
    }

    /// Why it takes no calls.
    fn absence(&self) -> FailureKind {
        match self.module.state() {
            ModuleState::Quarantined => FailureKind::Quarantined,
            _ => FailureKind::NotRunning,
        }
    }
}

/// What a call says about the health of its module; nothing, if the module was not reached, or did not answer in a time that
/// was not its own. A Matrix error is what a module means to say, so it speaks for its health.
fn judge(result: Result<Ended, FailureKind>, had_time: bool) -> Option<Judged> {
    match result {
        Ok(Ended::Failed {
            kind: FailureKind::DeadlineExceeded,
            ..
        })
        | Err(FailureKind::DeadlineExceeded)
            if !had_time =>
        {
            None
        }
        Ok(Ended::Answered | Ended::Failed { meant: true, .. }) => Some(Judged::Success),
        Ok(Ended::Failed { kind, .. }) | Err(kind) => match kind {
            FailureKind::ModuleError
            | FailureKind::Panicked
            | FailureKind::DeadlineExceeded
            | FailureKind::Protocol => Some(Judged::Failure),
            _ => None,
        },
        Ok(Ended::Withdrawn | Ended::Refused) => None,
    }
}

/// How many threads of one module may be stuck before it goes into quarantine: one less than there are cores, and at
/// least one.
#[must_use]
pub fn most_stuck_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

/// A module's part on one worker.
struct Part {
    incarnation: u32,
    replica: Option<Addr<ModuleActor>>,
    ledger: Arc<Ledger>,
}

/// All modules' parts on one worker. It stays on its thread.
pub struct Worker {
    thread: Arc<ModuleThread>,
    parts: RefCell<Vec<Option<Part>>>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker({:?})", self.thread)
    }
}

impl Worker {
    /// The modules' parts on this thread, which is the current one.
    #[must_use]
    pub fn new(thread: Arc<ModuleThread>) -> Self {
        Self {
            thread,
            parts: RefCell::default(),
        }
    }

    /// The part of a module, begun anew with each incarnation.
    fn part(&self, incarnation: &Incarnation) -> (Option<Addr<ModuleActor>>, Arc<Ledger>) {
        if let Place::Thread { ledger, .. } = &incarnation.place {
            return (None, Arc::clone(ledger));
        }
        let mut parts = self.parts.borrow_mut();
        let index = incarnation.module.index();
        if parts.len() <= index {
            parts.resize_with(index + 1, || None);
        }
        let part = parts[index]
            .take()
            .filter(|part| part.incarnation == incarnation.number);
        let part = part.unwrap_or_else(|| self.begin(incarnation));
        let found = (part.replica.clone(), Arc::clone(&part.ledger));
        parts[index] = Some(part);
        found
    }

    fn begin(&self, incarnation: &Incarnation) -> Part {
        let ledger = incarnation.module.admission().ledger();
        self.thread.keep(Arc::clone(&ledger) as Arc<dyn Reclaim>);
        let replica = matches!(incarnation.place, Place::Actor)
            .then(|| ModuleActor::new(incarnation.this.clone(), incarnation.ended.clone()).start());
        Part {
            incarnation: incarnation.number,
            replica,
            ledger,
        }
    }
}
