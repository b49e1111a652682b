//! The load of a cell with a neighbour: two open loops.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ganglion::api::{Denial, OwnedRoomId, RoomId, UserId, UserMayPublishRoom, Verdict};
use ganglion::dispatcher::Outcome;

use crate::calls::{Calls, during, lock, steady};

/// The time between two calls of the healthy module.
pub(crate) const HEALTHY_PERIOD: Duration = Duration::from_millis(1);

/// The time between two calls of the neighbour.
pub(crate) const NEIGHBOUR_PERIOD: Duration = Duration::from_millis(5);

/// So that the two do not always come together.
const OFFSET: Duration = Duration::from_micros(370);

/// How many calls of the neighbour may be open; one more is not made.
pub(crate) const MOST_OPEN: usize = 64;

/// What the neighbour denies with.
pub(crate) const NEIGHBOUR: &str = "BENCH_NEIGHBOUR";

/// What became of the neighbour's calls.
#[derive(Debug, Default)]
pub(crate) struct Neighbour {
    open: AtomicUsize,
    /// Calls that were made from then on are awaited; the first good one is noted.
    calm: Mutex<(Option<Instant>, Option<Instant>)>,
}

impl Neighbour {
    /// From now on it is calm.
    pub(crate) fn calm_since(&self, now: Instant) {
        *lock(&self.calm) = (Some(now), None);
    }

    /// When a call made in the calm was answered first.
    pub(crate) fn serves_since(&self) -> Option<Instant> {
        lock(&self.calm).1
    }

    fn answered(&self, made: Instant) {
        let mut calm = lock(&self.calm);
        if calm.0.is_some_and(|calm| calm <= made) && calm.1.is_none() {
            calm.1 = Some(Instant::now());
        }
    }
}

/// Both loops of a cell.
pub(crate) struct Load {
    calls: Calls,
    neighbour: Arc<Neighbour>,
    room: OwnedRoomId,
    /// Calls of the neighbour that were made. Each has other args: they are no poison input.
    asked: AtomicUsize,
}

impl Load {
    pub(crate) fn new(calls: Calls) -> Self {
        Self {
            calls,
            neighbour: Arc::default(),
            room: RoomId::parse("!room:example.com").expect("a room id"),
            asked: AtomicUsize::new(0),
        }
    }

    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    pub(crate) fn neighbour(&self) -> &Neighbour {
        &self.neighbour
    }

    /// Loads both modules until `observe` returns; then waits for the calls that are open.
    pub(crate) fn during<T>(&self, observe: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let observed = during(
            |over| steady(begin, HEALTHY_PERIOD, over, |due| self.calls.measure(due)),
            || {
                during(
                    |over| steady(begin + OFFSET, NEIGHBOUR_PERIOD, over, |_| self.ask_neighbour()),
                    observe,
                )
            },
        );
        self.calls.settle();
        observed
    }

    fn ask_neighbour(&self) {
        if self.neighbour.open.load(Ordering::SeqCst) >= MOST_OPEN {
            return;
        }
        self.neighbour.open.fetch_add(1, Ordering::SeqCst);
        let made = Instant::now();
        let neighbour = Arc::clone(&self.neighbour);
        let user = format!("@u{}:example.com", self.asked.fetch_add(1, Ordering::Relaxed));
        let user = UserId::parse(user).expect("a user id");
        let args = UserMayPublishRoom::new(user, self.room.clone());
        self.calls.ask(args, move |decision| {
            neighbour.open.fetch_sub(1, Ordering::SeqCst);
            let good = Outcome::Decided(Verdict::Deny(Denial::new(NEIGHBOUR)));
            if decision.is_some_and(|decision| decision.outcome == good) {
                neighbour.answered(made);
            }
        });
    }
}
