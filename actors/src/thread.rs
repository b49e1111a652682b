//! Threads that run module code: dispatch workers, the own threads of modules, and those that make or drop instances.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Builder;

use actix::{Arbiter, ArbiterHandle, System};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::admission::Reclaim;
use crate::module_id::ModuleId;
use crate::probe::{Probe, Site};
use crate::stock::Taken;

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
    static NUMBER: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Unique in the process.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A number for this thread, unique in the process. Those of workers that are started together follow on each other.
#[must_use]
pub fn thread_number() -> u64 {
    let number = NUMBER.try_with(|number| {
        let given = number.get().unwrap_or_else(next_number);
        number.set(Some(given));
        given
    });
    // At the thread's end it has none any more.
    number.unwrap_or_default()
}

/// What a thread knows of itself.
struct Here {
    watched: Arc<Watched>,
    thread: Option<Arc<ModuleThread>>,
}

/// The lowest priority: an abandoned thread that spins gets what the others leave.
#[cfg(target_os = "linux")]
const LOWEST_PRIORITY: i32 = 19;

/// A thread as the watchdog sees it.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Unique in the process.
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) probe: Probe,
    /// The visit to module code that something was [`Taken`] for, with that, or 0. Whoever takes it from here gives that
    /// back.
    holding: AtomicU64,
    #[cfg(target_os = "linux")]
    os_id: OnceLock<rustix::process::Pid>,
    retired: AtomicBool,
    ended: AtomicBool,
    /// It has not come back from module code for some time.
    is_suspect: AtomicBool,
    suspected: Notify,
    given_up: CancellationToken,
}

impl Watched {
    fn new(name: String) -> Arc<Self> {
        Arc::new(Self {
            number: next_number(),
            name,
            probe: Probe::default(),
            holding: AtomicU64::new(0),
            #[cfg(target_os = "linux")]
            os_id: OnceLock::new(),
            retired: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            is_suspect: AtomicBool::new(false),
            suspected: Notify::new(),
            given_up: CancellationToken::new(),
        })
    }

    /// Runs a function on a thread of its own, which ends with it.
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub(crate) fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<Arc<Self>> {
        let watched = Self::new(name);
        let own = Arc::clone(&watched);
        Builder::new().name(watched.name.clone()).spawn(move || {
            let _ended = Ended(Arc::clone(&own));
            own.begin(None);
            run();
            own.retire();
        })?;
        Ok(watched)
    }

    /// Makes the current thread this one.
    fn begin(self: &Arc<Self>, thread: Option<Arc<ModuleThread>>) {
        #[cfg(target_os = "linux")]
        let _ = self.os_id.set(rustix::thread::gettid());
        let watched = Arc::clone(self);
        NUMBER.set(Some(self.number));
        HERE.with_borrow_mut(|here| *here = Some(Here { watched, thread }));
    }

    /// It is no longer needed: its end will be no surprise.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Cancelled when it is given up: it is stuck, or has ended.
    pub(crate) fn given_up(&self) -> &CancellationToken {
        &self.given_up
    }

    /// It may be blocked, or may not be after all.
    pub(crate) fn set_suspect(&self, suspect: bool) {
        if self.is_suspect.swap(suspect, Ordering::SeqCst) != suspect && suspect {
            self.suspected.notify_waiters();
        }
    }

    /// Its own thread took something for this visit, which a watchdog that gives the thread up gives back.
    pub(crate) fn hold(&self, visit: u64, taken: Taken) {
        self.holding
            .store(visit << Taken::BITS | taken.to_bits(), Ordering::Release);
    }

    /// Its own thread is about to give back what it took for this visit: what is left of that.
    pub(crate) fn let_go(&self) -> Taken {
        Taken::from_bits(self.holding.swap(0, Ordering::AcqRel))
    }

    /// Its own thread keeps a permit beyond this visit. False if it was given back already.
    pub(crate) fn keep_permit(&self) -> bool {
        let keep = |held| {
            let taken = Taken::from_bits(held);
            let kept = held - taken.to_bits() + taken.without_permit().to_bits();
            taken.permit().map(|_| kept)
        };
        let kept = self.holding.fetch_update(Ordering::AcqRel, Ordering::Acquire, keep);
        kept.is_ok()
    }

    /// What was taken for this visit to module code is to be given back: what is left of that.
    pub(crate) fn forfeit(&self, visit: u64) -> Taken {
        let forfeit = |held| (held >> Taken::BITS == visit).then_some(0);
        let held = self.holding.fetch_update(Ordering::AcqRel, Ordering::Acquire, forfeit);
        held.map(Taken::from_bits).unwrap_or_default()
    }

    /// Gives it up: its end is awaited no more, and everybody who waits for it is told.
    pub(crate) fn give_up(&self) {
        self.retire();
        self.lower_priority();
        self.given_up.cancel();
    }

    /// Lets every other thread go first. It helps where a stuck thread spins, and changes nothing where it blocks; so
    /// one that cannot be changed is no error.
    fn lower_priority(&self) {
        #[cfg(target_os = "linux")]
        if let Some(os_id) = self.os_id.get()
            && let Err(error) = rustix::process::setpriority_process(Some(*os_id), LOWEST_PRIORITY)
        {
            tracing::debug!(thread = self.name, %error, "the priority of a stuck thread stays as it is");
        }
    }
}

/// Says that a thread has ended, in whatever way.
struct Ended(Arc<Watched>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

/// Module code runs on this thread until this is dropped.
#[derive(Debug)]
pub(crate) struct Inside {
    /// The number of the visit; `None` on a thread that nobody watches.
    visit: Option<u64>,
}

impl Inside {
    /// A place at the gate was taken for this visit.
    pub(crate) fn hold_place(&self) {
        if let Some(visit) = self.visit {
            with_watched(|watched| watched.hold(visit, Taken::place()));
        }
    }

    /// The place is to be given back. False if that was done.
    pub(crate) fn let_go_of_place(&self) -> bool {
        let taken = with_watched(Watched::let_go);
        self.visit.is_none() || taken.is_some_and(Taken::has_place)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        with_watched(|watched| watched.probe.leave());
    }
}

/// Marks the current thread as one that runs module code, if it is one that is watched.
pub(crate) fn inside(site: Site) -> Inside {
    Inside {
        visit: with_watched(|watched| watched.probe.enter(site)),
    }
}

/// Does something with the current thread, if it is one that is watched. At its end there is nobody to tell.
fn with_watched<T>(work: impl FnOnce(&Watched) -> T) -> Option<T> {
    let here = HERE.try_with(|here| {
        let here = here.try_borrow().ok()?;
        Some(work(&here.as_ref()?.watched))
    });
    here.ok().flatten()
}

/// Why a thread was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// The id of the module that blocked it; `None` if the thread ended.
    pub module: Option<ModuleId>,
}

/// A thread with an actix system of its own, so that a module that stops the system stops this thread and no other.
pub struct ModuleThread {
    pub(crate) watched: Arc<Watched>,
    arbiter: ArbiterHandle,
    // `None` for the current arbiter of a host that runs actix itself.
    system: Option<System>,
    runtime: Handle,
    blame: OnceLock<Blame>,
    // `None` once it is given up.
    held: Mutex<Option<Vec<Arc<dyn Reclaim>>>>,
}

impl fmt::Debug for ModuleThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModuleThread({})", self.watched.name)
    }
}

impl ModuleThread {
    /// Starts a thread.
    ///
    /// # Errors
    /// The operating system gave no thread, or no runtime could be made.
    pub(crate) fn start(name: String) -> io::Result<Arc<Self>> {
        let watched = Watched::new(name);
        let own = Arc::clone(&watched);
        let (started, start) = std::sync::mpsc::channel();
        Builder::new().name(watched.name.clone()).spawn(move || {
            let _ended = Ended(Arc::clone(&own));
            let runner = System::new();
            let thread = Arc::new(Self {
                watched: Arc::clone(&own),
                arbiter: System::current().arbiter().clone(),
                system: Some(System::current()),
                runtime: runner.runtime().tokio_runtime().handle().clone(),
                blame: OnceLock::new(),
                held: Mutex::new(Some(Vec::new())),
            });
            own.begin(Some(Arc::clone(&thread)));
            // The receiver is gone only if the starter panicked; then there is nothing to run.
            if started.send(thread).is_ok() {
                // An error is an exit code, which only a module may have set.
                let _ = runner.run();
            }
        })?;
        start.recv().map_err(io::Error::other)
    }

    /// The current arbiter. It is not watched: its thread is not ours.
    ///
    /// # Panics
    /// Outside of an actix system.
    pub(crate) fn current() -> Arc<Self> {
        Arc::new(Self {
            watched: Watched::new("current".into()),
            arbiter: Arbiter::current(),
            system: None,
            runtime: Handle::current(),
            blame: OnceLock::new(),
            held: Mutex::new(Some(Vec::new())),
        })
    }

    /// Whether it is the current arbiter of a host that runs actix itself.
    pub(crate) fn is_current(&self) -> bool {
        self.system.is_none()
    }

    /// Whether this code runs on it.
    #[must_use]
    pub fn is_here(&self) -> bool {
        with_watched(|watched| std::ptr::eq(watched, &raw const *self.watched)).unwrap_or(false)
    }

    /// The one that this code runs on.
    pub(crate) fn here() -> Option<Arc<Self>> {
        HERE.with_borrow(|here| here.as_ref().and_then(|here| here.thread.clone()))
    }

    /// Where work is sent.
    #[must_use]
    pub fn arbiter(&self) -> &ArbiterHandle {
        &self.arbiter
    }

    /// Its tokio runtime.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.watched.has_ended()
    }

    /// Whether it runs module code at this moment.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.watched.probe.is_visiting()
    }

    /// Whether it may be blocked: it runs the same module code since some time, which is not too long yet.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.watched.is_suspect.load(Ordering::SeqCst)
    }

    /// Waits until it may be blocked.
    pub async fn suspected(&self) {
        let mut suspected = pin!(self.watched.suspected.notified());
        // From now on no notice is missed.
        suspected.as_mut().enable();
        if !self.is_suspect() {
            suspected.await;
        }
    }

    /// Cancelled when the thread is given up: it is stuck, or has ended.
    #[must_use]
    pub fn given_up(&self) -> &CancellationToken {
        self.watched.given_up()
    }

    /// Why it was given up.
    #[must_use]
    pub fn blame(&self) -> Option<&Blame> {
        self.blame.get()
    }

    /// Whether it was given up for a module that blocks it.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blame().is_some_and(|blame| blame.module.is_some())
    }

    /// Keeps what is held on this thread, to give it back when the thread is given up.
    pub(crate) fn keep(&self, held: Arc<dyn Reclaim>) {
        match &mut *self.held.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(kept) => {
                // What nobody else has any more; not each time, since there may be many.
                if kept.len().is_power_of_two() {
                    kept.retain(|held| Arc::strong_count(held) > 1);
                }
                kept.push(held);
            }
            None => held.reclaim(),
        }
    }

    /// Ends it: what runs on it is dropped at its next await; a stuck one ends when it gets unstuck.
    pub(crate) fn stop(&self) {
        self.watched.retire();
        if let Some(system) = &self.system {
            system.stop();
        }
    }

    /// Gives it up, for a module that blocks it or because it ended. Everybody who waits for it is told, and the permits
    /// of calls on it come back.
    pub(crate) fn give_up(&self, blame: Blame) {
        let _ = self.blame.set(blame);
        self.stop();
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        for held in held.into_iter().flatten() {
            held.reclaim();
        }
        self.watched.give_up();
    }
}
