//! Calls on a schedule, and what became of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ganglion::Ganglion;
use ganglion::actors::Caller;
use ganglion::api::{Denial, JsonObject, OwnedUserId, UserId, UserMayCreateRoom, Verdict};
use ganglion::dispatcher::{AskContext, Decision, Outcome, Routed};
use tokio::runtime::{Handle, Runtime};

use ganglion_benches::machine::{wait, wait_exactly, wait_until};

/// The longest cell that the list of samples has room for from the start: it must not grow in a phase whose memory is
/// measured.
const LONGEST: usize = 60;

/// What the module whose calls are measured denies with.
pub(crate) const OWN: &str = "BENCH_HEALTHY";

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What callers run on.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// What became of the calls.
#[derive(Debug)]
struct Tally {
    /// The calls that are measured: when they were due, and how long after that they were decided.
    measured: Mutex<Vec<(Instant, Duration)>>,
    /// Decisions of these that are not their module's own.
    wrong: Mutex<Vec<String>>,
    /// Calls without a decision, of all callers.
    lost: AtomicUsize,
    open: AtomicUsize,
    /// How much later than it was due a measured call was made, at most.
    latest: Mutex<Duration>,
}

impl Tally {
    fn new() -> Self {
        // Touched, too: pages that nobody has touched are no memory.
        let mut measured = vec![(Instant::now(), Duration::ZERO); LONGEST * 1000];
        measured.clear();
        Self {
            measured: Mutex::new(measured),
            wrong: Mutex::default(),
            lost: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            latest: Mutex::default(),
        }
    }
}

/// Calls of one caller.
#[derive(Clone)]
pub(crate) struct Calls {
    ganglion: Ganglion,
    runtime: Handle,
    context: AskContext,
    /// A call without a decision after this time is lost.
    patience: Duration,
    tally: Arc<Tally>,
    user: OwnedUserId,
}

impl Calls {
    /// Those of nobody in particular.
    pub(crate) fn new(ganglion: &Ganglion, runtime: &Handle, patience: Duration) -> Self {
        Self {
            ganglion: ganglion.clone(),
            runtime: runtime.clone(),
            context: AskContext::new(),
            patience,
            tally: Arc::new(Tally::new()),
            user: UserId::parse("@bob:example.com").expect("a user id"),
        }
    }

    /// Those of another caller, in the same tally.
    pub(crate) fn of(&self, caller: Caller) -> Self {
        Self {
            context: AskContext::new().caller(caller),
            ..self.clone()
        }
    }

    pub(crate) fn user(&self) -> OwnedUserId {
        self.user.clone()
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// The calls that were measured.
    pub(crate) fn measured(&self) -> Vec<(Instant, Duration)> {
        lock(&self.tally.measured).clone()
    }

    /// The decisions that are not the measured module's own.
    pub(crate) fn wrong(&self) -> Vec<String> {
        lock(&self.tally.wrong).clone()
    }

    /// How much later than it was due a measured call was made, at most: that is the machine's part of a latency.
    pub(crate) fn latest(&self) -> Duration {
        *lock(&self.tally.latest)
    }

    /// How many calls got no decision.
    pub(crate) fn lost(&self) -> usize {
        self.tally.lost.load(Ordering::SeqCst)
    }

    /// Asks, and does something with the decision; one that is lost is `None`.
    pub(crate) fn ask<C: Routed>(&self, args: C, then: impl FnOnce(Option<Decision<C>>) + Send + 'static) {
        let (ganglion, context, patience) = (self.ganglion.clone(), self.context.clone(), self.patience);
        let tally = Arc::clone(&self.tally);
        tally.open.fetch_add(1, Ordering::SeqCst);
        self.runtime.spawn(async move {
            let asked = ganglion.ask_in(context, Arc::new(args));
            let decision = tokio::time::timeout(patience, asked).await.ok();
            if decision.is_none() {
                tally.lost.fetch_add(1, Ordering::SeqCst);
            }
            then(decision);
            tally.open.fetch_sub(1, Ordering::SeqCst);
        });
    }

    /// The args of a call that is measured.
    pub(crate) fn may_create_room(&self) -> UserMayCreateRoom {
        UserMayCreateRoom::new(self.user(), JsonObject::new())
    }

    /// Asks the module whose calls are measured.
    pub(crate) fn measure(&self, due: Instant) {
        let tally = Arc::clone(&self.tally);
        {
            let mut latest = lock(&tally.latest);
            *latest = due.elapsed().max(*latest);
        }
        self.ask(self.may_create_room(), move |decision| {
            let Some(decision) = decision else { return };
            let latency = due.elapsed();
            lock(&tally.measured).push((due, latency));
            if decision.outcome != Outcome::Decided(Verdict::Deny(Denial::new(OWN))) {
                lock(&tally.wrong).push(format!("{:?}", decision.into_json()));
            }
        });
    }

    /// Waits for the calls that are open, of all callers. Those that do not even run out of patience are lost.
    pub(crate) fn settle(&self) {
        let until = Instant::now() + self.patience * 2;
        let open = || self.tally.open.load(Ordering::SeqCst);
        while open() > 0 && Instant::now() < until {
            wait(Duration::from_millis(2));
        }
        self.tally.lost.fetch_add(open(), Ordering::SeqCst);
    }
}

/// Ends a loop, also if the observer panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs a loop on a thread of its own until `observe` returns.
pub(crate) fn during<T>(run: impl FnOnce(&AtomicBool) + Send, observe: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| run(&over));
        observe()
    })
}

/// Calls on a schedule that waits for nobody: what is late is made at once, and is late.
pub(crate) fn steady(begin: Instant, period: Duration, over: &AtomicBool, mut call: impl FnMut(Instant)) {
    wait_exactly();
    let mut due = begin;
    while !over.load(Ordering::SeqCst) {
        wait_until(due);
        call(due);
        due += period;
    }
}
