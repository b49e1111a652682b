//! A module as everybody else sees it, through all its incarnations.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use actix::{Addr, Handler, Message};
use ganglion_api::{FailureKind, Then, reference};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::breaker::{Breaker, TripReason};
use crate::gate::Gate;
use crate::load::ModuleSpec;
use crate::module_id::ModuleId;
use crate::poison::Poison;
use crate::probe::{Operation, Visit};
use crate::said::Said;
use crate::snapshot::{Counters, ModuleSnapshot, above_zero};
use crate::state::{ModuleCommand, ModuleState, Refused, StateCell};
use crate::stock::{Stock, Taken};
use crate::supervisor::{Explained, Lost, Order, Supervisor};
use crate::thread::Watched;
use crate::tier::Tier;

/// How long a command waits for what it causes, such as a constructor, before it answers with what there is.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a module may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleLimits {
    /// The budget of one call, the wait for a permit included.
    pub call_timeout: Duration,
    /// How many calls may run, over all workers.
    pub max_in_flight: usize,
    /// How many calls may wait, over all workers.
    pub mailbox: usize,
    /// How long its constructor may take.
    pub start_timeout: Duration,
}

/// What is known of a module's state beyond its name.
pub(crate) struct Status {
    pub(crate) since: SystemTime,
    pub(crate) reason: Option<String>,
    pub(crate) restarts: u64,
}

struct Shared {
    id: ModuleId,
    index: usize,
    path: String,
    tier: Tier,
    limits: ModuleLimits,
    state: StateCell,
    /// The number of the incarnation that takes calls, or took them last.
    current: AtomicU32,
    status: Mutex<Status>,
    stock: Arc<Stock>,
    admission: Admission,
    breakers: Box<[Breaker]>,
    /// `None` if it has a thread of its own, or there is one worker.
    gate: Option<Gate>,
    poison: Poison,
    said: Said,
    counters: Counters,
    stop: CancellationToken,
    stuck: Mutex<Vec<Arc<Watched>>>,
    blocked: AtomicU64,
    supervisor: OnceLock<Addr<Supervisor>>,
}

/// A module. Clones are the same one.
#[derive(Clone)]
pub struct ModuleHandle {
    shared: Arc<Shared>,
}

impl fmt::Debug for ModuleHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModuleHandle")
            .field("id", &self.id())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl ModuleHandle {
    /// The module at this place of the file, before its supervisor is started.
    pub(crate) fn new(spec: &ModuleSpec, index: usize, workers: usize) -> Self {
        let breakers = (0..=reference().len()).map(|_| Breaker::new(spec.breaker));
        let state = if spec.enabled {
            ModuleState::Starting
        } else {
            ModuleState::Disabled
        };
        let places = Gate::places(workers).filter(|_| spec.tier != Tier::Thread);
        let stock = Arc::new(Stock::new(spec.limits.max_in_flight, places));
        Self {
            shared: Arc::new(Shared {
                id: ModuleId::new(&spec.id),
                index,
                path: spec.path.clone(),
                tier: spec.tier,
                limits: spec.limits,
                state: StateCell::new(state),
                current: AtomicU32::new(0),
                status: Mutex::new(Status {
                    since: SystemTime::now(),
                    reason: (!spec.enabled).then(|| "disabled in the config".to_owned()),
                    restarts: 0,
                }),
                admission: Admission::new(&stock, spec.limits.mailbox),
                breakers: breakers.collect(),
                gate: places.map(|_| Gate::new(&stock)),
                stock,
                poison: Poison::default(),
                said: Said::default(),
                counters: Counters::default(),
                stop: CancellationToken::new(),
                stuck: Mutex::default(),
                blocked: AtomicU64::new(0),
                supervisor: OnceLock::new(),
            }),
        }
    }

    pub(crate) fn supervise(&self, supervisor: Addr<Supervisor>) {
        let first = self.shared.supervisor.set(supervisor);
        debug_assert!(first.is_ok(), "a module has one supervisor");
    }

    /// The module's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// The module's id, to keep.
    #[must_use]
    pub fn module_id(&self) -> ModuleId {
        self.shared.id
    }

    /// Whether the two are one module: places are counted anew in each Ganglion of a process.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Its place among all modules, counted from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.shared.index
    }

    /// How it is isolated.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.shared.tier
    }

    /// What it may use.
    #[must_use]
    pub fn limits(&self) -> &ModuleLimits {
        &self.shared.limits
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> ModuleState {
        self.shared.state.get()
    }

    pub(crate) fn set_state(&self, state: ModuleState, reason: Option<String>) {
        let mut status = self.status();
        status.since = SystemTime::now();
        status.reason = reason;
        self.shared.state.set(state);
    }

    /// This incarnation takes calls from now on.
    pub(crate) fn set_current(&self, incarnation: u32) {
        self.shared.current.store(incarnation, Ordering::Release);
    }

    /// An incarnation takes no calls any more. If nobody told it so, the module is `Restarting` from this moment on; the
    /// supervisor learns of it soon.
    pub(crate) fn left(&self, incarnation: u32) {
        if self.shared.current.load(Ordering::Acquire) == incarnation {
            self.shared.state.fail();
        }
    }

    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.shared.admission
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Its places on the workers.
    pub(crate) fn gate(&self) -> Option<&Gate> {
        self.shared.gate.as_ref()
    }

    /// The breaker of an operation; background work has none. The callbacks' come first, then that of web resources.
    pub(crate) fn breaker(&self, operation: Operation) -> Option<&Breaker> {
        let (web_resource, callbacks) = self.shared.breakers.split_last()?;
        if operation.is_web_resource() {
            return Some(web_resource);
        }
        callbacks.get(operation.index())
    }

    /// Its breakers begin anew.
    pub(crate) fn reset_breakers(&self) {
        self.shared.breakers.iter().for_each(Breaker::reset);
    }

    /// Whether a failure of this kind is to be logged now; if so, how many of its kind were not since the last that was.
    #[must_use]
    pub fn says(&self, kind: FailureKind) -> Option<u64> {
        self.shared.said.say(kind)
    }

    /// The args that bypass it.
    pub(crate) fn poison(&self) -> &Poison {
        &self.shared.poison
    }

    /// Forgets its poison input: all args get to it again. In every state.
    pub fn clear_poison(&self) {
        self.shared.poison.clear();
    }

    /// Cancelled when Ganglion is stopped.
    pub(crate) fn stopped(&self) -> &CancellationToken {
        &self.shared.stop
    }

    fn stuck(&self) -> MutexGuard<'_, Vec<Arc<Watched>>> {
        let mut stuck = self.shared.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        stuck.retain(|thread| !thread.has_ended());
        stuck
    }

    /// How many threads its code is stuck on that were given up.
    #[must_use]
    pub fn stuck_threads(&self) -> usize {
        self.stuck().len()
    }

    /// It blocked a thread, which is stuck from now on.
    pub(crate) fn blocked(&self, thread: &Arc<Watched>) {
        self.shared.blocked.fetch_add(1, Ordering::Relaxed);
        self.stuck().push(Arc::clone(thread));
    }

    /// It blocked a worker: what it took for that visit is free again.
    pub(crate) fn lost_worker(&self, thread: &Watched, visit: Visit) {
        self.give_back(thread.forfeit(visit.number));
    }

    /// What a visit to its code takes, if it is there without a wait.
    pub(crate) fn take_at_once(&self, gating: bool) -> Option<Taken> {
        let mut taken = Taken::of_permit(gating);
        if self.shared.gate.is_some() {
            taken = taken.and_place();
        }
        let took = self.shared.admission.is_open() && self.shared.stock.take_soon(taken).is_ok();
        took.then_some(taken)
    }

    /// What was taken for a visit to its code comes back.
    pub(crate) fn give_back(&self, taken: Taken) {
        self.shared.stock.give(taken);
        if taken.permit().is_some() {
            self.shared.admission.came_back();
        }
        if let Some(gate) = &self.shared.gate
            && taken.has_place()
        {
            gate.came_back();
        }
    }

    /// It blocked a worker: the breaker of what it was doing opens, so that the next worker is not blocked too.
    pub(crate) fn trip(&self, operation: Operation) {
        if let Some(breaker) = self.breaker(operation) {
            breaker.trip(Instant::now(), TripReason::BlockedThread);
        }
    }

    /// A failure of this kind counted as `then`: to be said once for each failure that met its policy.
    pub fn policy_used(&self, kind: FailureKind, then: Then) {
        self.shared.counters.count_policy(kind, then);
    }

    /// What can be seen of it.
    #[must_use]
    pub fn snapshot(&self) -> ModuleSnapshot {
        let shared = &self.shared;
        let operations = reference()
            .iter()
            .map(|spec| spec.name)
            .chain([Operation::WEB_RESOURCE.as_str()]);
        let breakers = operations
            .zip(&shared.breakers)
            .map(|(operation, breaker)| (operation, breaker.snapshot()))
            .filter(|(_, breaker)| breaker.calls > 0 || breaker.trips > 0);
        let (in_flight, queued) = shared.admission.load();
        let totals = shared.counters.totals();
        let status = self.status();
        ModuleSnapshot {
            id: shared.id.to_string(),
            path: shared.path.clone(),
            tier: shared.tier,
            state: self.state(),
            since: status.since,
            reason: status.reason.clone(),
            restarts: status.restarts,
            breakers: breakers.collect(),
            in_flight,
            queued,
            shed: shared.admission.shed(),
            calls: totals.calls,
            failures: above_zero(FailureKind::ALL, totals.failures),
            durations: totals.durations,
            policies: shared.counters.policies(),
            blocked: shared.blocked.load(Ordering::Relaxed),
            stuck_threads: self.stuck_threads(),
            poison: shared.poison.snapshot(),
            poison_bypasses: shared.poison.count(),
        }
    }

    /// Tells its supervisor something.
    fn tell<M: Message<Result = ()> + Send + 'static>(&self, message: M)
    where
        Supervisor: Handler<M>,
    {
        if let Some(supervisor) = self.shared.supervisor.get() {
            // Its mailbox has no bound, and it is told a few things at most. A supervisor that has ended has nothing to
            // re-create.
            let _ = supervisor.try_send(message);
        }
    }

    /// Tells its supervisor that an incarnation is lost.
    pub(crate) fn lost(&self, lost: Lost) {
        self.tell(lost);
    }

    /// Tells its supervisor that so many of its last failures had a cause that is gone.
    pub(crate) fn explained(&self, failures: usize) {
        self.tell(Explained(failures));
    }

    /// Lets an operator's command act, and answers with what has become of the module. A command never waits behind calls;
    /// the answer waits until the module is made or its last calls have ended, ten seconds at most.
    ///
    /// # Errors
    /// The command cannot be followed in the module's state.
    pub async fn command(&self, command: ModuleCommand) -> Result<ModuleSnapshot, Refused> {
        let stopping = Refused {
            state: ModuleState::Stopped,
            hint: "Ganglion is stopping",
        };
        let supervisor = self.shared.supervisor.get().ok_or(stopping)?;
        match timeout(PATIENCE, supervisor.send(Order(command))).await {
            Ok(Ok(Err(refused))) => Err(refused),
            Ok(Err(_ended)) => Err(stopping),
            Ok(Ok(Ok(()))) | Err(_) => Ok(self.snapshot()),
        }
    }

    /// Stops the module at once and for good: calls that wait or run fail as `not_running`, background calls end at
    /// their next await.
    pub fn stop(&self) {
        self.set_state(ModuleState::Stopped, None);
        self.shared.admission.close();
        self.shared.stop.cancel();
        self.lost(Lost::Stopped);
    }
}
