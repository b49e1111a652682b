//! The threads of a host: dispatch workers, the control thread, and what the watchdog looks after.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use actix::ArbiterHandle;
use arc_swap::ArcSwap;
use dashmap::DashMap;
use ganglion_api::Registered;

use crate::guard::guarded_now;
use crate::incarnation::Incarnation;
use crate::probe::{Operation, Site};
use crate::thread::{ModuleThread, Watched};
use crate::watchdog;

/// The position of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerIndex(pub(crate) usize);

impl WorkerIndex {
    /// The position, counted from 0.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

/// Is told when another thread takes a worker's place.
pub trait WorkerListener: Send + Sync {
    /// From now on this thread is the worker. Called before those who wait for the old one are told.
    fn replaced(&self, worker: WorkerIndex, thread: &Arc<ModuleThread>);
}

/// What a thread is for, which says what to do when it is stuck.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    /// A dispatch worker.
    Worker(WorkerIndex, Arc<ModuleThread>),
    /// The own thread of a module.
    Own(Arc<ModuleThread>),
    /// Makes or drops one instance.
    Short,
}

impl Role {
    /// Tells its thread to end, if it does not do so by itself.
    fn stop(&self) {
        if let Self::Worker(_, thread) | Self::Own(thread) = self {
            thread.stop();
        }
    }
}

/// The instance of a module and its functions. The pool holds them as long as anybody else does, so that nobody else drops
/// them last: their drops are the module's code.
struct Instance {
    instance: Arc<dyn Any + Send + Sync>,
    registered: Arc<Registered>,
    /// Its incarnation is over.
    released: bool,
}

impl Instance {
    /// A route, a path, a call or a chain uses its functions.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.registered) > 1 || self.registered.is_shared()
    }
}

/// Something of an incarnation that nobody uses any more, to be dropped where it can harm nobody.
type Discarded = Box<dyn Any + Send>;

/// What is discarded of one incarnation, which the watchdog finds as long as this is there.
#[derive(Default)]
struct Discards {
    incarnation: Option<Arc<Incarnation>>,
    what: Vec<Discarded>,
}

/// The threads and what runs on them, as the watchdog sees them.
pub(crate) struct Pool {
    workers: ArcSwap<Vec<Arc<ModuleThread>>>,
    control: Arc<ModuleThread>,
    /// Nothing is watched: the threads are those of a host that runs actix itself.
    current: bool,
    stopped: AtomicBool,
    watched: Mutex<Vec<(Role, Arc<Watched>)>>,
    incarnations: DashMap<u32, Weak<Incarnation>>,
    instances: Mutex<HashMap<u32, Instance>>,
    /// `None` when the host has stopped.
    discarded: Mutex<Option<HashMap<u32, Discards>>>,
    listener: OnceLock<Weak<dyn WorkerListener>>,
    numbers: AtomicU32,
}

impl Pool {
    fn watched(&self) -> MutexGuard<'_, Vec<(Role, Arc<Watched>)>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn instances(&self) -> MutexGuard<'_, HashMap<u32, Instance>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn discarded(&self) -> MutexGuard<'_, Option<HashMap<u32, Discards>>> {
        self.discarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every thread that is watched; those that ended as they should are forgotten.
    pub(crate) fn threads(&self) -> Vec<(Role, Arc<Watched>)> {
        let mut watched = self.watched();
        watched.retain(|(_, thread)| !(thread.has_ended() && thread.is_retired()));
        watched.clone()
    }

    /// Looks after a thread no more.
    pub(crate) fn forget(&self, thread: &Watched) {
        self.watched().retain(|(_, watched)| watched.number != thread.number);
    }

    fn watch(&self, role: Role, thread: &Arc<Watched>) {
        let told = role.clone();
        self.watched().push((role, Arc::clone(thread)));
        // The flag is set before the threads are told, so one that comes later is told here.
        if self.stopped.load(Ordering::SeqCst) {
            told.stop();
        }
    }

    /// The thread that is this worker now.
    pub(crate) fn worker(&self, worker: WorkerIndex) -> Arc<ModuleThread> {
        let workers = self.workers.load();
        Arc::clone(&workers[worker.0 % workers.len()])
    }

    /// Starts a thread to take a worker's place.
    pub(crate) fn start_worker(&self, worker: WorkerIndex) -> io::Result<Arc<ModuleThread>> {
        let fresh = ModuleThread::start(worker_name(worker))?;
        self.watch(Role::Worker(worker, Arc::clone(&fresh)), &fresh.watched);
        Ok(fresh)
    }

    /// Puts a thread in a worker's place.
    pub(crate) fn replace(&self, worker: WorkerIndex, fresh: &Arc<ModuleThread>) {
        self.workers.rcu(|workers| {
            let mut workers = Vec::clone(workers);
            workers[worker.0] = Arc::clone(fresh);
            workers
        });
        if let Some(listener) = self.listener.get().and_then(Weak::upgrade) {
            listener.replaced(worker, fresh);
        }
    }

    /// The incarnation that a thread runs the code of.
    pub(crate) fn incarnation(&self, number: u32) -> Option<Arc<Incarnation>> {
        self.incarnations.get(&number)?.upgrade()
    }

    /// A number for an incarnation, unique in the process.
    pub(crate) fn next_number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Lets the watchdog find an incarnation by its number.
    pub(crate) fn enrol(&self, incarnation: &Arc<Incarnation>) {
        self.incarnations.retain(|_, known| known.strong_count() > 0);
        self.incarnations
            .insert(incarnation.number(), Arc::downgrade(incarnation));
    }

    /// Holds an instance until its incarnation is over and nobody else holds it.
    pub(crate) fn hold(&self, number: u32, instance: Arc<dyn Any + Send + Sync>, registered: Arc<Registered>) {
        let held = Instance {
            instance,
            registered,
            released: false,
        };
        self.instances().insert(number, held);
    }

    /// An incarnation is over: its instance is dropped when nobody uses it any more.
    pub(crate) fn release(&self, number: u32) {
        if self.current {
            let instance = self.instances().remove(&number);
            return drop(instance);
        }
        if let Some(instance) = self.instances().get_mut(&number) {
            instance.released = true;
        }
    }

    /// Whether no route, call or chain uses an instance.
    pub(crate) fn is_unused(&self, number: u32) -> bool {
        self.instances().get(&number).is_none_or(|held| !held.is_in_use())
    }

    /// Drops something of an incarnation on a thread of its own, soon.
    pub(crate) fn discard(&self, number: u32, incarnation: Option<Arc<Incarnation>>, what: Discarded) {
        if self.current {
            // Not here: whoever discards something may hold a lock that the drop wants.
            self.control.arbiter().spawn_fn(move || drop(what));
            return;
        }
        match &mut *self.discarded() {
            Some(discarded) => {
                let discards = discarded.entry(number).or_default();
                discards.incarnation = incarnation.or(discards.incarnation.take());
                discards.what.push(what);
            }
            // Nobody is left who would drop it.
            None => std::mem::forget(what),
        }
    }

    /// Drops what is discarded, and released instances that nobody uses, on threads of their own: a drop is the module's
    /// code, and may block or panic.
    pub(crate) fn drop_unused(&self) {
        let unused: Vec<_> = self
            .instances()
            .extract_if(|_, held| held.released && !held.is_in_use())
            .collect();
        for (number, held) in unused {
            let incarnation = self.incarnation(number);
            // The functions hold the instance, so they go first. Each by itself: a drop during a panic may not panic.
            self.discard(number, incarnation.clone(), Box::new(held.registered));
            self.discard(number, incarnation, Box::new(held.instance));
        }
        let discarded = self.discarded().as_mut().map(std::mem::take);
        for (number, discards) in discarded.into_iter().flatten() {
            self.drop_on_thread(number, discards);
        }
    }

    fn drop_on_thread(&self, incarnation: u32, discards: Discards) {
        let operation = Operation::DROP;
        let discards = Arc::new(Mutex::new(Some(discards)));
        let own = Arc::clone(&discards);
        let dropping = self.spawn("drop".into(), move || {
            let discards = own.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(Discards {
                incarnation: known,
                what,
            }) = discards
            else {
                return;
            };
            for what in what {
                if let Err(panic) = guarded_now(Site { incarnation, operation }, || drop(what)) {
                    let module = known.as_ref().map_or("unknown", |known| known.module().id());
                    tracing::error!(module, reason = panic.text(), "a module panicked while it was dropped");
                }
            }
        });
        if let Err(error) = dropping {
            tracing::error!(%error, "no thread to drop a module on: it stays in memory");
            std::mem::forget(discards);
        }
    }

    /// Whether nothing waits for its drop, and nothing more will come.
    pub(crate) fn is_empty(&self) -> bool {
        let no_instances = self.instances().is_empty();
        no_instances && self.discarded().as_ref().is_none_or(HashMap::is_empty) && self.control.has_ended()
    }

    /// Leaves what is still used by stuck threads alone for ever, and what comes later too.
    pub(crate) fn leak_rest(&self) {
        std::mem::forget(self.discarded().take());
        for (_, held) in self.instances().drain() {
            std::mem::forget((held.instance, held.registered));
        }
    }

    /// Runs a function on a watched thread of its own.
    pub(crate) fn spawn(&self, name: String, run: impl FnOnce() + Send + 'static) -> io::Result<Arc<Watched>> {
        let thread = Watched::spawn(name, run)?;
        self.watch(Role::Short, &thread);
        Ok(thread)
    }

    /// Starts the own thread of a module.
    pub(crate) fn start_own(&self, module: &str) -> io::Result<Arc<ModuleThread>> {
        if self.current {
            return Ok(self.worker(WorkerIndex(0)));
        }
        let thread = ModuleThread::start(format!("module {module}"))?;
        self.watch(Role::Own(Arc::clone(&thread)), &thread.watched);
        Ok(thread)
    }

    /// Where supervisors and the clocks of background calls run, and no module code.
    pub(crate) fn control(&self) -> &ArbiterHandle {
        self.control.arbiter()
    }

    /// Whether module code may only run on the current arbiter.
    pub(crate) fn is_current(&self) -> bool {
        self.current
    }

    fn stop(&self) {
        for instance in self.instances().values_mut() {
            instance.released = true;
        }
        if self.current {
            let instances = std::mem::take(&mut *self.instances());
            return drop(instances);
        }
        self.stopped.store(true, Ordering::SeqCst);
        for (role, _) in self.threads() {
            role.stop();
        }
        self.control.stop();
    }
}

fn worker_name(worker: WorkerIndex) -> String {
    format!("worker {}", worker.0)
}

/// The threads of a host: dispatch workers, which run module code, and a control thread, which runs none. Each has an
/// actix system of its own, so they work beside any runtime. A watchdog replaces a worker that a module blocks.
pub struct WorkerThreads {
    pub(crate) pool: Arc<Pool>,
    watchdog: Option<Sender<()>>,
}

impl fmt::Debug for WorkerThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WorkerThreads")
            .field(&**self.pool.workers.load())
            .finish()
    }
}

impl WorkerThreads {
    /// Starts `count` workers, at least one.
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub fn start(count: usize) -> io::Result<Self> {
        let control = ModuleThread::start("ganglion control".into())?;
        let workers: io::Result<Vec<_>> = (0..count.max(1))
            .map(|worker| ModuleThread::start(worker_name(WorkerIndex(worker))))
            .collect();
        let pool = Arc::new(Pool::new(workers?, control, false));
        for (worker, thread) in pool.workers.load().iter().enumerate() {
            pool.watch(Role::Worker(WorkerIndex(worker), Arc::clone(thread)), &thread.watched);
        }
        let (stop, stopped): (Sender<()>, Receiver<()>) = channel();
        watchdog::start(Arc::clone(&pool), stopped)?;
        Ok(Self {
            pool,
            watchdog: Some(stop),
        })
    }

    /// One worker: the current arbiter, which is control thread too and is not watched. For hosts that run an actix system
    /// themselves, and for paused clocks in tests.
    ///
    /// # Panics
    /// Outside of an actix system.
    #[must_use]
    pub fn current() -> Self {
        let thread = ModuleThread::current();
        let pool = Pool::new(vec![Arc::clone(&thread)], thread, true);
        Self {
            pool: Arc::new(pool),
            watchdog: None,
        }
    }

    /// Tells this one about replaced workers, from now on.
    pub fn listen(&self, listener: Weak<dyn WorkerListener>) {
        let first = self.pool.listener.set(listener);
        debug_assert!(first.is_ok(), "one listener");
    }

    /// Every worker with the thread that it is now.
    #[must_use]
    pub fn workers(&self) -> Vec<(WorkerIndex, Arc<ModuleThread>)> {
        let workers = self.pool.workers.load();
        let numbered = workers.iter().enumerate();
        numbered
            .map(|(worker, thread)| (WorkerIndex(worker), Arc::clone(thread)))
            .collect()
    }

    /// Ends the threads. What runs on them is dropped at its next await; a stuck one ends when it gets unstuck.
    pub fn stop(&mut self) {
        self.pool.stop();
        // It goes on until the instances are dropped, for a while.
        self.watchdog = None;
    }
}

impl Pool {
    fn new(workers: Vec<Arc<ModuleThread>>, control: Arc<ModuleThread>, current: bool) -> Self {
        Self {
            workers: ArcSwap::from_pointee(workers),
            control,
            current,
            stopped: AtomicBool::new(false),
            watched: Mutex::default(),
            incarnations: DashMap::new(),
            instances: Mutex::default(),
            discarded: Mutex::new(Some(HashMap::new())),
            listener: OnceLock::new(),
            numbers: AtomicU32::new(0),
        }
    }
}

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        self.stop();
    }
}
