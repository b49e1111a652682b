//! The load of a cell: two open loops, and what became of their calls.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ganglion::Ganglion;
use ganglion::api::{
    Denial, JsonObject, OwnedRoomId, OwnedUserId, RoomId, UserId, UserMayCreateRoom, UserMayPublishRoom, Verdict,
};
use ganglion::dispatcher::{Decision, Outcome, Routed};
use tokio::runtime::Handle;

use crate::machine::{wait, wait_exactly, wait_until};

/// The time between two calls of the healthy module.
pub(crate) const HEALTHY_PERIOD: Duration = Duration::from_millis(1);

/// The time between two calls of the neighbour.
pub(crate) const NEIGHBOUR_PERIOD: Duration = Duration::from_millis(5);

/// So that the two do not always come together.
const OFFSET: Duration = Duration::from_micros(370);

/// How many calls of the neighbour may be open; one more is not made.
pub(crate) const MOST_OPEN: usize = 64;

/// The longest cell that the list of samples has room for from the start: it must not grow in a phase whose memory is
/// measured.
const LONGEST: usize = 60;

/// What each module denies with.
pub(crate) const HEALTHY: &str = "BENCH_HEALTHY";
pub(crate) const NEIGHBOUR: &str = "BENCH_NEIGHBOUR";

/// What became of the calls.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The healthy module's calls: when they were due, and how long after that they were decided.
    healthy: Mutex<Vec<(Instant, Duration)>>,
    /// Calls without a decision, of both.
    lost: AtomicUsize,
    /// Decisions of the healthy module that are not its own.
    wrong: Mutex<Vec<String>>,
    open: AtomicUsize,
    open_neighbour: AtomicUsize,
    /// Calls of the neighbour that were made from then on are awaited; the first good one is noted.
    calm: Mutex<(Option<Instant>, Option<Instant>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    pub(crate) fn healthy(&self) -> Vec<(Instant, Duration)> {
        lock(&self.healthy).clone()
    }

    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }

    /// From now on the neighbour is calm.
    pub(crate) fn calm_since(&self, now: Instant) {
        *lock(&self.calm) = (Some(now), None);
    }

    /// When a call made in the calm was answered first.
    pub(crate) fn serves_since(&self) -> Option<Instant> {
        lock(&self.calm).1
    }

    fn neighbour_answered(&self, made: Instant) {
        let mut calm = lock(&self.calm);
        if calm.0.is_some_and(|calm| calm <= made) && calm.1.is_none() {
            calm.1 = Some(Instant::now());
        }
    }
}

/// Both loops of a cell.
pub(crate) struct Load {
    ganglion: Ganglion,
    runtime: Handle,
    /// A call without a decision after this time is lost.
    patience: Duration,
    tally: Arc<Tally>,
    user: OwnedUserId,
    room: OwnedRoomId,
    /// Calls of the neighbour that were made. Each has other args: they are no poison input.
    neighbour: AtomicUsize,
}

impl Load {
    pub(crate) fn new(ganglion: &Ganglion, runtime: &Handle, patience: Duration) -> Self {
        let tally = Tally::default();
        // Touched, too: pages that nobody has touched are no memory.
        let room = vec![(Instant::now(), Duration::ZERO); LONGEST * 1000];
        *lock(&tally.healthy) = room;
        lock(&tally.healthy).clear();
        Self {
            ganglion: ganglion.clone(),
            runtime: runtime.clone(),
            patience,
            tally: Arc::new(tally),
            user: UserId::parse("@bob:example.com").expect("a user id"),
            room: RoomId::parse("!room:example.com").expect("a room id"),
            neighbour: AtomicUsize::new(0),
        }
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Loads both modules until `observe` returns; then waits for the calls that are open.
    pub(crate) fn during<T>(&self, observe: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        let begin = Instant::now();
        let observed = std::thread::scope(|scope| {
            let _over = Over(&over);
            scope.spawn(|| steady(begin, HEALTHY_PERIOD, &over, |due| self.ask_healthy(due)));
            scope.spawn(|| steady(begin + OFFSET, NEIGHBOUR_PERIOD, &over, |_| self.ask_neighbour()));
            observe()
        });
        let until = Instant::now() + self.patience * 2;
        while self.tally.open.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            wait(Duration::from_millis(2));
        }
        // Those did not even run out of patience.
        let open = self.tally.open.load(Ordering::SeqCst);
        self.tally.lost.fetch_add(open, Ordering::SeqCst);
        observed
    }

    fn ask_healthy(&self, due: Instant) {
        let asked = self.ask(UserMayCreateRoom::new(self.user.clone(), JsonObject::new()));
        let tally = Arc::clone(&self.tally);
        self.runtime.spawn(async move {
            if let Some(decision) = asked.await {
                let latency = due.elapsed();
                lock(&tally.healthy).push((due, latency));
                if decision.outcome != Outcome::Decided(Verdict::Deny(Denial::new(HEALTHY))) {
                    lock(&tally.wrong).push(format!("{:?}", decision.into_json()));
                }
            }
        });
    }

    fn ask_neighbour(&self) {
        if self.tally.open_neighbour.load(Ordering::SeqCst) >= MOST_OPEN {
            return;
        }
        self.tally.open_neighbour.fetch_add(1, Ordering::SeqCst);
        let made = Instant::now();
        let user = format!("@u{}:example.com", self.neighbour.fetch_add(1, Ordering::Relaxed));
        let user = UserId::parse(user).expect("a user id");
        let asked = self.ask(UserMayPublishRoom::new(user, self.room.clone()));
        let tally = Arc::clone(&self.tally);
        self.runtime.spawn(async move {
            let decision = asked.await;
            tally.open_neighbour.fetch_sub(1, Ordering::SeqCst);
            let good = Outcome::Decided(Verdict::Deny(Denial::new(NEIGHBOUR)));
            if decision.is_some_and(|decision| decision.outcome == good) {
                tally.neighbour_answered(made);
            }
        });
    }

    fn ask<C: Routed>(&self, args: C) -> impl Future<Output = Option<Decision<C>>> + Send + 'static {
        let (ganglion, tally, patience) = (self.ganglion.clone(), Arc::clone(&self.tally), self.patience);
        tally.open.fetch_add(1, Ordering::SeqCst);
        async move {
            let decision = tokio::time::timeout(patience, ganglion.ask(args)).await.ok();
            tally.open.fetch_sub(1, Ordering::SeqCst);
            if decision.is_none() {
                tally.lost.fetch_add(1, Ordering::SeqCst);
            }
            decision
        }
    }
}

/// Ends the loops, also if the observer panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Calls on a schedule that waits for nobody: what is late is made at once, and is late.
fn steady(begin: Instant, period: Duration, over: &AtomicBool, mut call: impl FnMut(Instant)) {
    wait_exactly();
    let mut due = begin;
    while !over.load(Ordering::SeqCst) {
        wait_until(due);
        call(due);
        due += period;
    }
}
