//! The callers' side: finds the route, picks a worker, holds the deadline.

use std::fmt;
use std::future::{poll_fn, ready};
use std::ops::ControlFlow;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use actix::{Actor as _, Addr, MailboxError};
use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use ganglion_actors::{
    Asker, CacheService, CallClass, Caller, ModuleHandle, ModuleState, ModuleThread, TooDeep, Worker, WorkerIndex,
    WorkerListener,
};
use ganglion_api::{CallFailure, FailureKind, MatrixError, WebRequest};
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::chain::{Chain, Displaced, neutral};
use crate::context::AskContext;
use crate::continuations::Continuations;
use crate::decision::{Decision, Outcome};
use crate::dispatcher::{Dispatch, Dispatcher, Requester, Serve, Served, Turn};
use crate::drive::{Decided, Drive};
use crate::fold::Routed;
use crate::intake::Intake;
use crate::resources::{MountedResource, ResourceTable};
use crate::route::{Route, RoutingTable};
use crate::routing::Routing;
use crate::shared_chain::SharedChain;
use crate::turns::{BegunHere, Turns};

/// A worker as its callers see it.
pub(crate) struct DispatchWorker {
    thread: Arc<ModuleThread>,
    dispatcher: Addr<Dispatcher>,
    intake: Arc<Intake>,
}

impl DispatchWorker {
    /// Starts the dispatcher of a thread.
    fn start(thread: &Arc<ModuleThread>, refused: &Arc<AtomicU64>) -> Arc<Self> {
        let intake = Arc::new(Intake::new(Arc::clone(refused)));
        let (own, own_intake) = (Arc::clone(thread), Arc::clone(&intake));
        Arc::new(Self {
            thread: Arc::clone(thread),
            dispatcher: Dispatcher::start_in_arbiter(thread.arbiter(), move |_| Dispatcher::new(own, own_intake)),
            intake,
        })
    }
}

/// The workers of this moment.
pub(crate) struct DispatchWorkers {
    workers: ArcSwap<Vec<Arc<DispatchWorker>>>,
    refused: Arc<AtomicU64>,
}

impl DispatchWorkers {
    pub(crate) fn start<'a>(threads: impl IntoIterator<Item = &'a Arc<ModuleThread>>) -> Self {
        let refused = Arc::default();
        let workers = threads
            .into_iter()
            .map(|thread| DispatchWorker::start(thread, &refused));
        Self {
            workers: ArcSwap::from_pointee(workers.collect()),
            refused,
        }
    }
}

impl WorkerListener for DispatchWorkers {
    fn replaced(&self, worker: WorkerIndex, thread: &Arc<ModuleThread>) {
        let fresh = DispatchWorker::start(thread, &self.refused);
        let before = self.workers.rcu(|workers| {
            let mut workers = Vec::clone(workers);
            if let Some(worker) = workers.get_mut(worker.get()) {
                *worker = Arc::clone(&fresh);
            }
            workers
        });
        // What waits there goes elsewhere, and is not kept by a thread that may be stuck for ever.
        if let Some(before) = before.get(worker.get()) {
            before.intake.close();
        }
    }
}

/// What happened to questions as a whole since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DispatchCounts {
    /// Those that no worker had room for.
    pub refused: u64,
    /// Those that were refused because callbacks nested too deeply.
    pub too_deep: u64,
}

/// How a worker let its caller go.
enum LetGo<T> {
    /// It is done.
    Done(T),
    /// The deadline has passed, or Ganglion was stopped.
    Over,
    /// It was given up.
    GivenUp,
    /// It may be blocked, and what it had not begun was withdrawn.
    Withdrawn,
}

/// How a question goes on that began without a message.
enum AskedHere<C: Routed> {
    /// It is decided.
    Decided(Decision<C>),
    /// It waits: this chain, until it is finished, on this worker, unless that was given up.
    Waits(
        SharedChain<C>,
        oneshot::Receiver<Decided<C>>,
        Option<Arc<DispatchWorker>>,
    ),
}

pub(crate) struct Shared {
    pub(crate) routing: Arc<Routing>,
    pub(crate) modules: Vec<ModuleHandle>,
    pub(crate) workers: Arc<DispatchWorkers>,
    pub(crate) turn: AtomicUsize,
    pub(crate) deadline: Duration,
    pub(crate) max_depth: usize,
    pub(crate) too_deep: AtomicU64,
    pub(crate) caches: Arc<CacheService>,
    pub(crate) continuations: Continuations,
    pub(crate) stopped: CancellationToken,
}

/// Asks the modules. Clones are the same dispatcher; they may be used from every thread of a tokio runtime.
#[derive(Clone)]
pub struct DispatchHandle {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for DispatchHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DispatchHandle")
            .field("modules", &self.shared.modules)
            .finish_non_exhaustive()
    }
}

impl DispatchHandle {
    /// Asks the modules on the callback's route, in order, until one decides or the configured deadline passes.
    ///
    /// Asked from a module's code, the question is below that call: see [`AskContext`].
    ///
    /// On the thread of a worker that has nothing else to do, modules are asked right in this future's poll, as long as they need
    /// not wait; from everywhere else, and as soon as one waits, a worker asks them.
    ///
    /// There is always a decision: a module that gives no answer meets its failure policy. The deadline holds on the
    /// caller's side, so it holds even if a module blocks its worker, but for callers on that worker's own thread.
    ///
    /// # Cancellation
    /// Dropping the future withdraws a call that no worker has begun; one that was begun runs to its end or its
    /// deadline. Spawn the future where a call must not be withdrawn.
    ///
    /// # Panics
    /// Outside of a tokio runtime with a timer.
    pub async fn ask<C: Routed>(&self, args: C) -> Decision<C> {
        match self.route() {
            Some(route) => self.ask_route(route, AskContext::new(), Arc::new(args)).await,
            None => neutral(&args),
        }
    }

    /// Asks for a caller, until a deadline or below a call of a module; otherwise like [`ask`](Self::ask). The args may be
    /// asked with again. Below too many calls (`dispatch.max_depth`) nobody is asked: the decision is the constant error,
    /// without steps.
    pub async fn ask_in<C: Routed>(&self, context: AskContext, args: Arc<C>) -> Decision<C> {
        match self.route() {
            Some(route) => self.ask_route(route, context, args).await,
            None => neutral(&args),
        }
    }

    /// The route of a callback, if anybody has subscribed to it.
    fn route<C: Routed>(&self) -> Option<Arc<Route<C>>> {
        let tables = self.shared.routing.tables();
        let route = tables.routes.route::<C>()?;
        (!route.subscriptions().is_empty()).then(|| Arc::clone(route))
    }

    pub(crate) async fn ask_route<C: Routed>(
        &self,
        route: Arc<Route<C>>,
        context: AskContext,
        args: Arc<C>,
    ) -> Decision<C> {
        let now = Turns::here(&self.shared.workers.refused).map(|turns| turns.worker().now());
        let (asker, deadline) = context.begin(now.map_or_else(Instant::now, Into::into), self.shared.deadline);
        if self.refused(&asker, C::SPEC.name).is_some() {
            return undecided();
        }
        let chain = match self.ask_here(&route, &args, &asker, deadline) {
            Some(AskedHere::Decided(decision)) => return decision,
            Some(AskedHere::Waits(chain, finished, worker)) => {
                let waited = Box::pin(self.wait_here(&chain, finished, worker, deadline)).await;
                if waited.is_break() {
                    return conclude(&chain, deadline);
                }
                chain
            }
            None => SharedChain::new(Chain::new(route, args)),
        };
        while self.leg(&chain, &asker, deadline).await.is_continue() {}
        conclude(&chain, deadline)
    }

    /// Asks without a message, if this is the thread of a worker that has nothing else to do.
    fn ask_here<C: Routed>(
        &self,
        route: &Arc<Route<C>>,
        args: &Arc<C>,
        asker: &Asker,
        deadline: Instant,
    ) -> Option<AskedHere<C>> {
        let turns = Turns::here(&self.shared.workers.refused)?;
        let begun = turns.begin_here(|| {
            let (turns, worker) = (Rc::clone(&turns), Rc::clone(turns.worker()));
            let (route, args, asker) = (Arc::clone(route), Arc::clone(args), asker.clone());
            Box::pin(async move {
                let chain = Chain::new(Arc::clone(&route), args);
                let drive = Drive::new(&worker, route, asker, deadline);
                drive
                    .decide(chain, worker.now(), |chain| turns.hand(chain.clone()))
                    .await
            })
        });
        let handed = turns.handed();
        Some(match begun? {
            BegunHere::Done(decided) => AskedHere::Decided(decision(decided, deadline)),
            BegunHere::Waits(finished) => {
                let workers = self.shared.workers.workers.load();
                let worker = workers
                    .iter()
                    .find(|worker| Arc::ptr_eq(&worker.intake, turns.intake()));
                match handed {
                    Some(chain) => AskedHere::Waits(chain, finished, worker.cloned()),
                    // What waits has always handed its chain over.
                    None => AskedHere::Decided(undecided()),
                }
            }
            BegunHere::Lost => AskedHere::Decided(undecided()),
        })
    }

    /// Waits for the end of a chain that began without a message. `Continue`: its worker was given up, and another is to go on.
    async fn wait_here<C: Routed>(
        &self,
        chain: &SharedChain<C>,
        finished: oneshot::Receiver<Decided<C>>,
        worker: Option<Arc<DispatchWorker>>,
        deadline: Instant,
    ) -> ControlFlow<()> {
        let Some(worker) = worker else {
            // Another is about to take its place, or has: it goes on, and nobody else may.
            let _ = timeout_at(deadline, finished).await;
            return ControlFlow::Break(());
        };
        let finished = finished.map(|finished| match finished {
            Ok(_decided) => Ok(()),
            Err(_lost) => Err(MailboxError::Closed),
        });
        self.wait_leg(&worker, finished, chain, deadline).await
    }

    /// Asks in the current task, on the worker's own thread: what its dispatcher does with a message, without the message.
    /// For who runs there already, and has nothing else to wait for: nobody holds the deadline while a module blocks the
    /// thread. The args may be asked with again.
    ///
    /// # Cancellation
    /// As if its dispatcher were dropped: a call that runs in this task ends at its next await.
    pub async fn ask_on<C: Routed>(&self, worker: &Worker, args: Arc<C>) -> Decision<C> {
        let Some(route) = self.route() else {
            return neutral(&args);
        };
        let now = worker.now();
        let (asker, deadline) = AskContext::new().begin(now.into(), self.shared.deadline);
        if self.refused(&asker, C::SPEC.name).is_some() {
            return undecided();
        }
        let drive = Drive::new(worker, Arc::clone(&route), asker, deadline);
        decision(drive.decide(Chain::new(route, args), now, |_| ()).await, deadline)
    }

    /// Refuses what would be below too many calls; that is counted, and who asks is told.
    fn refused(&self, asker: &Asker, operation: &'static str) -> Option<TooDeep> {
        let max = self.shared.max_depth;
        let above = asker.above.as_ref().filter(|above| above.depth() >= max)?;
        let too_deep = above.refuse(operation, max);
        let TooDeep { max_depth, cycle } = &too_deep;
        tracing::error!(max_depth, cycle, "callbacks nest too deeply: the last one is an error");
        self.shared.too_deep.fetch_add(1, Ordering::Relaxed);
        Some(too_deep)
    }

    /// Lets one worker drive the chain. `Continue`: the worker was given up, and another is to go on.
    async fn leg<C: Routed>(&self, chain: &SharedChain<C>, asker: &Asker, deadline: Instant) -> ControlFlow<()> {
        let leg = {
            let chain = chain.lock();
            if chain.is_decided() {
                // The way back of the last answer was blocked.
                return ControlFlow::Break(());
            }
            chain.leg()
        };
        let worker = self.least_loaded();
        let dispatch = |loaded| Dispatch {
            chain: chain.clone(),
            leg,
            deadline,
            asker: asker.clone(),
            loaded,
        };
        let whose = (CallClass::of(C::SPEC.combine), asker.caller);
        let sent = worker.intake.send(&worker.dispatcher, whose, dispatch);
        Box::pin(self.wait_leg(&worker, sent, chain, deadline)).await
    }

    /// Waits for the end of a leg that has begun or was sent.
    async fn wait_leg<C: Routed>(
        &self,
        worker: &DispatchWorker,
        sent: impl Future<Output = Result<(), MailboxError>>,
        chain: &SharedChain<C>,
        deadline: Instant,
    ) -> ControlFlow<()> {
        let mut sent = pin!(sent);
        let sent = match on_its_thread(&worker.thread, sent.as_mut()).await {
            Some(Ok(())) => return ControlFlow::Break(()),
            Some(ended) => Either::Left(ready(ended)),
            None => Either::Right(sent),
        };
        match self.wait(worker, sent, deadline, || chain.lock().withdraw()).await {
            LetGo::Done(()) | LetGo::Over => return ControlFlow::Break(()),
            LetGo::Withdrawn => return ControlFlow::Continue(()),
            LetGo::GivenUp => {}
        }
        let blamed = worker.thread.blame().and_then(|blame| blame.module);
        let displaced = chain.lock().displace(blamed.as_deref(), Instant::now());
        if let Displaced::WaitUntil(question, until) = displaced {
            chain.answered(until.min(deadline)).await;
            chain.lock().overrun(question, Instant::now());
        }
        // Whatever happens to workers, it ends with the deadline.
        if Instant::now() < deadline {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }

    /// Waits for a worker's answer, for the deadline, or until the worker is given up; or until it may be blocked, if there
    /// is another and `withdraw` can take back what was sent.
    async fn wait<T>(
        &self,
        worker: &DispatchWorker,
        sent: impl Future<Output = Result<T, MailboxError>>,
        deadline: Instant,
        withdraw: impl Fn() -> bool,
    ) -> LetGo<T> {
        let given_up = worker.thread.given_up();
        let suspected = async {
            worker.thread.suspected().await;
            let elsewhere = !self.least_loaded().thread.is_suspect();
            if !(elsewhere && withdraw()) {
                std::future::pending::<()>().await;
            }
        };
        let (sent, suspected) = (pin!(timeout_at(deadline, sent)), pin!(suspected));
        match given_up.run_until_cancelled(select(sent, suspected)).await {
            Some(Either::Left((Ok(Ok(done)), _))) => return LetGo::Done(done),
            Some(Either::Left((Err(_) | Ok(Err(MailboxError::Timeout)), _))) => return LetGo::Over,
            Some(Either::Left((Ok(Err(MailboxError::Closed)), _))) => {
                // The thread has ended, and another takes its place.
                let noticed = timeout_at(deadline, given_up.cancelled());
                let noticed = self.shared.stopped.run_until_cancelled(noticed).await;
                if !matches!(noticed, Some(Ok(()))) {
                    return LetGo::Over;
                }
            }
            Some(Either::Right(_)) => return LetGo::Withdrawn,
            None => {}
        }
        LetGo::GivenUp
    }

    /// Lets a web resource answer a request; its module's budget holds on the caller's side. A Matrix error is an
    /// answer.
    ///
    /// # Errors
    /// The module gave no answer.
    ///
    /// # Cancellation
    /// As for [`ask`](Self::ask).
    pub async fn respond(&self, mounted: &MountedResource, request: WebRequest, caller: Caller) -> Served {
        let context = AskContext::new().caller(caller);
        let (asker, deadline) = context.begin(Instant::now(), mounted.module().limits().call_timeout);
        if let Some(too_deep) = self.refused(&asker, "web_resource") {
            return Err(CallFailure::new(FailureKind::ModuleError, too_deep.to_string()));
        }
        let whose = (CallClass::Asking, asker.caller);
        loop {
            let worker = self.least_loaded();
            let turn = Arc::<Turn>::default();
            let (requester, mut answered) = Requester::new(Arc::clone(&turn));
            let serve = |loaded| Serve {
                incarnation: Arc::clone(&mounted.incarnation),
                resource: Arc::clone(&mounted.resource),
                request: request.clone(),
                deadline,
                requester,
                asker: asker.clone(),
                loaded,
            };
            let sent = worker.intake.send(&worker.dispatcher, whose, serve);
            let answer = async {
                // Whichever is first: the answer does not take the way of the message.
                match select(&mut answered, pin!(sent)).await {
                    Either::Left((served, _)) => Ok(served),
                    Either::Right((Ok(()), answered)) => Ok(answered.await),
                    Either::Right((Err(error), _)) => Err(error),
                }
            };
            match self.wait(&worker, answer, deadline, || turn.withdraw()).await {
                LetGo::Done(Ok(served)) => return served,
                LetGo::Done(Err(_)) | LetGo::Over => return Err(self.silence(deadline).into()),
                // It has not begun: another worker makes it.
                LetGo::Withdrawn => {}
                LetGo::GivenUp if turn.withdraw() && Instant::now() < deadline => {}
                LetGo::GivenUp => {
                    return match timeout_at(deadline, answered).await {
                        Ok(Ok(served)) => served,
                        _ => Err(self.silence(deadline).into()),
                    };
                }
            }
        }
    }

    /// Why nobody answers.
    fn silence(&self, deadline: Instant) -> FailureKind {
        if Instant::now() < deadline {
            FailureKind::NotRunning
        } else {
            FailureKind::DeadlineExceeded
        }
    }

    /// The worker that the fewest dispatches wait for; one that runs module code right now has one more. Among equals it is
    /// the one whose thread this is, else they take turns. One that may be blocked, or that has ended, is passed over as long
    /// as there is another.
    fn least_loaded(&self) -> Arc<DispatchWorker> {
        let workers = self.shared.workers.workers.load();
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed) % workers.len();
        let (before, after) = workers.split_at(turn);
        let load = |worker: &DispatchWorker| {
            let elsewhere = !worker.thread.is_here();
            // Whose code asks here is about to wait.
            let load = worker.intake.load() + usize::from(elsewhere && worker.thread.is_busy());
            (worker.thread.has_ended(), worker.thread.is_suspect(), load, elsewhere)
        };
        let mut best = &workers[turn];
        for worker in after.iter().chain(before) {
            if load(worker) < load(best) {
                best = worker;
            }
        }
        Arc::clone(best)
    }

    /// The routes of this moment.
    #[must_use]
    pub fn routes(&self) -> Arc<RoutingTable> {
        Arc::clone(&self.shared.routing.tables().routes)
    }

    /// Tells when there are other routes or web resources.
    #[must_use]
    pub fn routes_changed(&self) -> watch::Receiver<()> {
        self.shared.routing.changed()
    }

    /// The web resources of this moment.
    #[must_use]
    pub fn resources(&self) -> Arc<ResourceTable> {
        Arc::clone(&self.shared.routing.tables().resources)
    }

    /// Every module, in the order of the file, disabled ones too.
    #[must_use]
    pub fn modules(&self) -> &[ModuleHandle] {
        &self.shared.modules
    }

    /// The caches of all modules.
    #[must_use]
    pub fn caches(&self) -> &CacheService {
        &self.shared.caches
    }

    /// The module with this id.
    #[must_use]
    pub fn module(&self, id: &str) -> Option<&ModuleHandle> {
        self.shared.modules.iter().find(|module| module.id() == id)
    }

    /// The modules that should run and do not.
    pub fn absent(&self) -> impl Iterator<Item = &ModuleHandle> {
        let absent = |state| !matches!(state, ModuleState::Running | ModuleState::Disabled);
        self.shared.modules.iter().filter(move |module| absent(module.state()))
    }

    /// Whether every module runs that is not disabled.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.absent().next().is_none()
    }

    /// What happened to questions as a whole since the start.
    #[must_use]
    pub fn counts(&self) -> DispatchCounts {
        DispatchCounts {
            refused: self.shared.workers.refused.load(Ordering::Relaxed),
            too_deep: self.shared.too_deep.load(Ordering::Relaxed),
        }
    }

    /// The deadline of a whole chain.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.shared.deadline
    }
}

/// Waits on the worker's own thread; `None` as soon as it waits elsewhere. While the worker is blocked nobody could act on
/// it here, and while it is not it keeps deadlines itself: so neither a timer nor the watchdog's word is waited for.
fn on_its_thread<F: Future + Unpin>(thread: &ModuleThread, mut future: F) -> impl Future<Output = Option<F::Output>> {
    poll_fn(move |cx| match future.poll_unpin(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if thread.is_here() => Poll::Pending,
        Poll::Pending => Poll::Ready(None),
    })
}

/// The decision of a chain that nobody else knew.
fn decision<C: Routed>(decided: Decided<C>, deadline: Instant) -> Decision<C> {
    match decided {
        Decided::AtOnce(decision) => decision.unwrap_or_else(undecided),
        Decided::Later(chain) => conclude(&chain, deadline),
    }
}

/// Takes the decision of a chain, which is concluded from what is known if its worker did not.
fn conclude<C: Routed>(chain: &SharedChain<C>, deadline: Instant) -> Decision<C> {
    let mut chain = chain.lock();
    if let Some(decision) = chain.take_decision() {
        return decision;
    }
    let now = Instant::now();
    if now >= deadline {
        chain.expire(now);
    } else {
        chain.abandon(&FailureKind::NotRunning.into());
    }
    // A chain that was expired or abandoned is decided, and nobody else takes the decision. Were it otherwise, nobody
    // would have denied and nobody would have allowed: an error.
    chain.take_decision().unwrap_or_else(undecided)
}

/// The decision where nobody is asked and nothing may pass.
fn undecided<C: Routed>() -> Decision<C> {
    Decision {
        outcome: Outcome::Error(MatrixError::internal()),
        decided_by: None,
        steps: Vec::new(),
    }
}
