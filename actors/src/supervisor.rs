//! The supervisor of one module: makes it, makes it anew when it failed, and follows an operator's commands.
//!
//! Supervisors are actors on the control thread, where no module code runs. So neither calls nor a stuck constructor can
//! keep a command waiting.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseFuture, SpawnHandle};
use ganglion_api::ModuleFactory;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::handle::ModuleHandle;
use crate::incarnation::Incarnation;
use crate::load::{LoadError, Made, ModuleSpec, Surroundings, load};
use crate::restart::{NextRestart, RestartHistory, RestartSettings};
use crate::state::{ModuleCommand, ModuleEvent, ModuleState, Refused};
use crate::worker::{Pool, WorkerThreads};

/// How often a draining module is looked at.
const DRAIN_TICK: Duration = Duration::from_millis(2);

/// The reason of what an operator's command caused.
const BY_COMMAND: &str = "an operator said so";

/// An incarnation is lost.
#[derive(Debug)]
pub(crate) enum Lost {
    /// It failed. The module is re-created, unless that happens too often.
    Failed { incarnation: u32, reason: String },
    /// The module goes into quarantine.
    GaveUp { reason: String },
    /// Ganglion is stopped.
    Stopped,
}

impl Message for Lost {
    type Result = ();
}

/// So many of the last failures had a cause that is gone: they do not lead to quarantine.
#[derive(Debug)]
pub(crate) struct Explained(pub(crate) usize);

impl Message for Explained {
    type Result = ();
}

/// An operator's command; answered when what it causes has happened.
#[derive(Debug)]
pub(crate) struct Order(pub(crate) ModuleCommand);

impl Message for Order {
    type Result = Result<(), Refused>;
}

/// What becomes of a draining module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterDrain {
    Restart,
    Disable,
}

/// The supervisor of one module.
pub(crate) struct Supervisor {
    module: ModuleHandle,
    factory: Option<Arc<dyn ModuleFactory>>,
    config: serde_json::Value,
    surroundings: Surroundings,
    pool: Arc<Pool>,
    history: RestartHistory,
    /// The incarnation that takes calls or drains.
    current: Option<Arc<Incarnation>>,
    /// The one that is being made.
    making: Option<Arc<Incarnation>>,
    /// The next attempt, after a pause.
    due: Option<SpawnHandle>,
    draining: Option<SpawnHandle>,
    after_drain: AfterDrain,
    /// Who waits for the first attempt.
    first: Option<oneshot::Sender<Result<(), LoadError>>>,
    /// Who waits for what a command caused.
    waiting: Vec<oneshot::Sender<()>>,
}

impl ModuleHandle {
    /// Starts a module at its place among all, under its supervisor.
    ///
    /// The first attempt's result: the start of Ganglion fails with its error, and nothing is retried. A module that is
    /// not enabled is `Ok` at once.
    pub fn start(
        spec: ModuleSpec,
        index: usize,
        surroundings: &Surroundings,
        workers: &WorkerThreads,
    ) -> (Self, oneshot::Receiver<Result<(), LoadError>>) {
        let module = Self::new(&spec, index, workers.workers().len());
        let (first, made) = oneshot::channel();
        let supervisor = Supervisor {
            module: module.clone(),
            factory: spec.factory,
            config: spec.config,
            surroundings: surroundings.clone(),
            pool: Arc::clone(&workers.pool),
            history: RestartHistory::new(spec.restart),
            current: None,
            making: None,
            due: None,
            draining: None,
            after_drain: AfterDrain::Restart,
            first: Some(first),
            waiting: Vec::new(),
        };
        let supervisor = Supervisor::start_in_arbiter(workers.pool.control(), |_| supervisor);
        module.supervise(supervisor);
        (module, made)
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // No bound: each message is a rare event, and none may be lost.
        ctx.set_mailbox_capacity(0);
        if self.module.state() == ModuleState::Starting {
            self.make(ctx);
        } else if let Some(first) = self.first.take() {
            let _ = first.send(Ok(()));
        }
    }
}

impl Supervisor {
    /// Goes to the next state, if the event has one here.
    fn enter(&self, event: ModuleEvent, reason: Option<String>) -> Result<(ModuleState, ModuleState), Refused> {
        let before = self.module.state();
        let next = before.next(event)?;
        if next != before {
            self.module.set_state(next, reason.clone());
            let (module, reason) = (self.module.id(), reason.unwrap_or_default());
            match next {
                ModuleState::Quarantined => tracing::error!(module, reason, "module is in quarantine"),
                // The start says itself which modules run.
                ModuleState::Running if self.first.is_some() => {}
                _ => tracing::info!(module, state = next.as_str(), "module changes its state"),
            }
        }
        Ok((before, next))
    }

    /// Makes an incarnation; the result comes as an event.
    fn make(&mut self, ctx: &mut Context<Self>) {
        self.cancel_due(ctx);
        let Some(factory) = self.factory.clone() else {
            return;
        };
        if self.module.state() == ModuleState::Restarting {
            self.module.status().restarts += 1;
        }
        let incarnation = match Incarnation::new(&self.module, &self.pool) {
            Ok(incarnation) => incarnation,
            Err(error) => return self.not_made(LoadError::NoThread(error.to_string()), ctx),
        };
        self.making = Some(Arc::clone(&incarnation));
        if let Some(thread) = incarnation.own_thread() {
            let (lost, thread) = (Arc::clone(&incarnation), Arc::clone(thread));
            ctx.spawn(wrap_future(async move {
                if lost
                    .ended()
                    .run_until_cancelled(thread.given_up().cancelled())
                    .await
                    .is_some()
                {
                    lost.lost_its_thread(&thread);
                }
            }));
        }
        let made = load(
            Arc::clone(&incarnation),
            factory,
            self.config.clone(),
            self.surroundings.clone(),
        );
        ctx.spawn(
            wrap_future(made).map(move |made, supervisor: &mut Self, ctx: &mut Context<Self>| {
                supervisor.made(&incarnation, made, ctx);
            }),
        );
    }

    /// An attempt has ended.
    fn made(&mut self, incarnation: &Arc<Incarnation>, made: Result<Made, LoadError>, ctx: &mut Context<Self>) {
        let made = made.map(|Made { registered, instance }| {
            let registered = Arc::new(registered);
            self.pool.hold(incarnation.number(), instance, Arc::clone(&registered));
            registered
        });
        let wanted = self
            .making
            .as_ref()
            .is_some_and(|making| Arc::ptr_eq(making, incarnation));
        if !wanted {
            // Something else was decided meanwhile.
            drop(made);
            return self.end(incarnation);
        }
        self.making = None;
        let routed = made.and_then(|registered| {
            incarnation.go_live();
            let routed = self.surroundings.router.route(incarnation, registered);
            routed.map_err(LoadError::Routes)
        });
        match routed {
            Ok(()) => {
                self.current = Some(Arc::clone(incarnation));
                // A panic in the background may have come first.
                let _ = self.enter(ModuleEvent::Made, None);
                if let Some(first) = self.first.take() {
                    let _ = first.send(Ok(()));
                }
                self.settled();
            }
            Err(error) => {
                self.end(incarnation);
                self.not_made(error, ctx);
            }
        }
    }

    fn not_made(&mut self, error: LoadError, ctx: &mut Context<Self>) {
        match self.first.take() {
            // The start fails with it.
            Some(first) => {
                let _ = first.send(Err(error));
            }
            None => self.failed(error.to_string(), ctx),
        }
    }

    /// The module failed: it is made anew, after a pause, or not any more.
    fn failed(&mut self, reason: String, ctx: &mut Context<Self>) {
        if self.module.state().next(ModuleEvent::Failed) != Ok(ModuleState::Restarting) {
            return;
        }
        let next = self.history.failed(Instant::now(), fastrand::f64());
        if next == NextRestart::GiveUp {
            let RestartSettings { max, within, .. } = self.history.settings();
            let within = humantime::format_duration(*within);
            let reason = format!("{max} restarts within {within} were not enough: {reason}");
            return self.quarantine(ModuleEvent::GaveUp, reason, ctx);
        }
        tracing::warn!(module = self.module.id(), reason, "module is restarted");
        self.module.set_state(ModuleState::Restarting, Some(reason));
        match next {
            NextRestart::After(pause) => {
                let due = wrap_future(sleep(pause)).map(|(), supervisor: &mut Self, ctx: &mut Context<Self>| {
                    supervisor.due = None;
                    supervisor.make(ctx);
                });
                self.due = Some(ctx.spawn(due));
                self.settled();
            }
            _ => self.make(ctx),
        }
    }

    /// The module goes into quarantine: what runs of it ends, its calls fail.
    fn quarantine(&mut self, event: ModuleEvent, reason: String, ctx: &mut Context<Self>) {
        if let Ok((before, ModuleState::Quarantined)) = self.enter(event, Some(reason))
            && before != ModuleState::Quarantined
        {
            self.clear(ctx);
            self.vacate();
            if let Some(first) = self.first.take() {
                // The start fails with it.
                let _ = first.send(Err(LoadError::Blocked));
            }
            self.settled();
        }
    }

    /// Nothing of the module is left, and nothing is under way.
    fn clear(&mut self, ctx: &mut Context<Self>) {
        self.cancel_due(ctx);
        if let Some(draining) = self.draining.take() {
            ctx.cancel_future(draining);
        }
        // What is being made finds that it is not wanted any more.
        if let Some(making) = self.making.take() {
            self.end(&making);
        }
        if let Some(current) = self.current.take() {
            self.end(&current);
        }
    }

    /// The module keeps its places on the routes, and nobody is there.
    fn vacate(&self) {
        let vacant = Incarnation::vacant(&self.module, &self.pool);
        self.surroundings.router.vacate(&vacant);
    }

    fn end(&self, incarnation: &Incarnation) {
        // In this order: one that is over opens none.
        incarnation.end();
        self.close_caches(incarnation);
    }

    /// The next incarnation begins with empty caches. What they kept is dropped like the instance.
    fn close_caches(&self, incarnation: &Incarnation) {
        let closed = self.surroundings.caches.close(incarnation);
        incarnation.discard(Box::new(closed));
    }

    fn cancel_due(&mut self, ctx: &mut Context<Self>) {
        if let Some(due) = self.due.take() {
            ctx.cancel_future(due);
        }
    }

    /// An incarnation failed while it was in service. Its calls that run go on to their end or their budget.
    fn lost(&mut self, number: u32, reason: String, ctx: &mut Context<Self>) {
        if let Some(making) = self.making.take_if(|making| making.number() == number) {
            // Its background work panicked before its constructor returned.
            self.end(&making);
            return self.not_made(LoadError::Panicked(reason), ctx);
        }
        let Some(old) = self.current.take_if(|current| current.number() == number) else {
            return self.heal();
        };
        if self.module.state() == ModuleState::Draining {
            // It is on its way out already.
            self.current = Some(old);
            return;
        }
        old.retire();
        self.close_caches(&old);
        self.vacate();
        let budget = self.module.limits().call_timeout;
        ctx.spawn(wrap_future(async move {
            sleep(budget).await;
            old.end();
        }));
        self.failed(reason, ctx);
    }

    /// A call of an incarnation before may have marked the module as failed while the next one went into service.
    fn heal(&self) {
        let serves = self
            .current
            .as_ref()
            .is_some_and(|current| !current.retired().is_cancelled());
        if serves && self.module.state() == ModuleState::Restarting {
            self.module.set_state(ModuleState::Running, None);
        }
    }

    /// Waits for the last calls.
    fn drain(&mut self, after: AfterDrain, ctx: &mut Context<Self>) {
        self.after_drain = after;
        match after {
            AfterDrain::Restart => self.vacate(),
            AfterDrain::Disable => self.surroundings.router.unroute(self.module.index()),
        }
        if self.draining.is_some() {
            return;
        }
        let number = self.current.as_ref().map_or(0, |current| current.number());
        let (pool, patience) = (Arc::clone(&self.pool), self.module.limits().call_timeout);
        let drained = async move {
            let until = Instant::now() + patience;
            while !pool.is_unused(number) && Instant::now() < until {
                sleep(DRAIN_TICK).await;
            }
        };
        let drained = wrap_future(drained).map(|(), supervisor: &mut Self, ctx: &mut Context<Self>| {
            supervisor.draining = None;
            supervisor.drained(ctx);
        });
        self.draining = Some(ctx.spawn(drained));
    }

    fn drained(&mut self, ctx: &mut Context<Self>) {
        self.clear(ctx);
        match self.after_drain {
            AfterDrain::Restart => {
                let _ = self.enter(ModuleEvent::DrainedToRestart, Some(BY_COMMAND.into()));
                self.make(ctx);
            }
            AfterDrain::Disable => {
                let _ = self.enter(ModuleEvent::DrainedToDisable, Some(BY_COMMAND.into()));
                self.settled();
            }
        }
    }

    /// Follows a command.
    fn obey(&mut self, command: ModuleCommand, ctx: &mut Context<Self>) -> Result<(), Refused> {
        let state = self.module.state();
        if command == ModuleCommand::Enable && self.factory.is_none() {
            let hint = "its path is not known, or its config is not readable";
            return Err(Refused { state, hint });
        }
        if command == ModuleCommand::Quarantine {
            state.next(ModuleEvent::Command(command))?;
            self.quarantine(ModuleEvent::Command(command), BY_COMMAND.into(), ctx);
            return Ok(());
        }
        let (before, next) = self.enter(ModuleEvent::Command(command), Some(BY_COMMAND.into()))?;
        match (before, next, command) {
            (_, ModuleState::Draining, ModuleCommand::Disable) => self.drain(AfterDrain::Disable, ctx),
            (_, ModuleState::Draining, ModuleCommand::Restart | ModuleCommand::Enable) => {
                self.begin_anew();
                self.drain(AfterDrain::Restart, ctx);
            }
            (ModuleState::Disabled | ModuleState::Quarantined, ModuleState::Starting, _) => {
                self.begin_anew();
                self.make(ctx);
            }
            (ModuleState::Restarting, ModuleState::Restarting, ModuleCommand::Restart) => {
                self.begin_anew();
                // With a current one the news of its failure is on its way, and then it is made anew.
                if self.making.is_none() && self.current.is_none() {
                    self.make(ctx);
                }
            }
            (_, ModuleState::Disabled, _) if before != next => {
                self.clear(ctx);
                self.surroundings.router.unroute(self.module.index());
            }
            _ => {}
        }
        Ok(())
    }

    /// Former failures no longer count.
    fn begin_anew(&mut self) {
        self.history.clear();
        self.module.reset_breakers();
    }

    /// Tells those who wait, if nothing is under way any more that ends by itself soon.
    fn settled(&mut self) {
        let failing = self
            .current
            .as_ref()
            .is_some_and(|current| current.retired().is_cancelled());
        if self.making.is_none() && self.draining.is_none() && !failing {
            for waiting in self.waiting.drain(..) {
                let _ = waiting.send(());
            }
        }
    }
}

impl Handler<Lost> for Supervisor {
    type Result = ();

    fn handle(&mut self, lost: Lost, ctx: &mut Self::Context) {
        match lost {
            Lost::Failed { incarnation, reason } => self.lost(incarnation, reason, ctx),
            Lost::GaveUp { reason } => self.quarantine(ModuleEvent::GaveUp, reason, ctx),
            Lost::Stopped => {
                self.clear(ctx);
                self.settled();
            }
        }
    }
}

impl Handler<Explained> for Supervisor {
    type Result = ();

    fn handle(&mut self, Explained(failures): Explained, _ctx: &mut Self::Context) {
        self.history.forgive(failures);
    }
}

impl Handler<Order> for Supervisor {
    type Result = ResponseFuture<Result<(), Refused>>;

    fn handle(&mut self, Order(command): Order, ctx: &mut Self::Context) -> Self::Result {
        let (settled, settle) = oneshot::channel();
        if let Err(refused) = self.obey(command, ctx) {
            return Box::pin(async move { Err(refused) });
        }
        self.waiting.push(settled);
        self.settled();
        Box::pin(async move {
            // The supervisor ends with Ganglion.
            let _ = settle.await;
            Ok(())
        })
    }
}
