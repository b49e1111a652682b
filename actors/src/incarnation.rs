//! One life of a module, from its constructor to its next restart.

mod at_once;
mod call;
mod worker;

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use actix::{Actor as _, Addr};
use ganglion_api::{CallFailure, Callback, FailureKind};
use tokio_util::sync::CancellationToken;

pub use self::at_once::{AtOnce, Done, Entry, Questioner, Waiting};
pub(crate) use self::worker::Parts;
pub use self::worker::Worker;
use crate::admission::{Ledger, Reclaim};
use crate::background::Pace;
use crate::breaker::Pass;
use crate::gate::Entrance;
use crate::handle::ModuleHandle;
use crate::module_actor::ModuleActor;
use crate::probe::{Operation, Site};
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
    pub fn discard(&self, what: Box<dyn Any + Send>) {
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

    /// These args made the module panic, or hang for its whole budget. The third time they are poison: they bypass it.
    pub fn harmed<C: Callback>(&self, args: &C, cause: FailureKind) {
        if let Some(panics) = self.module.poison().strike(args, cause) {
            let (module, callback) = (self.module.id(), C::SPEC.name);
            tracing::warn!(module, callback, %cause, "poison input: these args bypass the module from now on");
            // It was restarted for them, and will not be any more.
            self.module.explained(panics);
        }
    }

    /// Why it takes no calls.
    fn absence(&self) -> FailureKind {
        match self.module.state() {
            ModuleState::Quarantined => FailureKind::Quarantined,
            _ => FailureKind::NotRunning,
        }
    }
}

/// How many threads of one module may be stuck before it goes into quarantine: one less than there are cores, and at
/// least one.
#[must_use]
pub fn most_stuck_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}
