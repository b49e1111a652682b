//! A caller that floods, in one scene and one tier.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ganglion::actors::{Caller, Tier};
use ganglion::api::{FailureKind, OnLoggedOut, OwnedRoomId, RoomId, Secret, UserMayPublishRoom};
use ganglion::dispatcher::{Decision, Routed, Step, StepResult};
use ganglion::{Config, Ganglion, registry};
use ganglion_benches::machine;
use tokio::runtime::Handle;

use crate::calls::{Calls, OWN, during, lock, runtime, steady};
use crate::cell::GOAL;
use crate::samples::{Compared, Phase, phase};
use crate::{Durations, Mark};

/// The time between two calls of the steady caller.
pub(crate) const STEADY_PERIOD: Duration = Duration::from_millis(2);

/// The time between two calls of the flooding one.
pub(crate) const FLOOD_PERIOD: Duration = Duration::from_micros(50);

/// How many calls of the flood may be open; one more is not made.
pub(crate) const MOST_OPEN: usize = 4096;

/// How long a call of the flooded module waits before it answers.
pub(crate) const DELAY: Duration = Duration::from_millis(2);

/// How many of them run at once.
pub(crate) const MAX_IN_FLIGHT: u32 = 8;

/// The deadline of a chain: longer than a full mailbox takes.
const DEADLINE: Duration = Duration::from_secs(4);

/// A call that has no decision so long after its deadline is lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// The bound of a steady call's wait where the flood is for the same module, in calls.
const TURNS: u32 = 2;

/// What the flood is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// The callback that the steady caller asks.
    SameModule,
    /// The module that the steady caller asks, as notifications.
    Notifications,
    /// Another module than the steady caller asks.
    AnotherModule,
}

impl Scene {
    pub(crate) const ALL: [Self; 3] = [Self::SameModule, Self::Notifications, Self::AnotherModule];

    fn yaml(self, tier: Tier) -> String {
        let deny = |callback| format!("{callback}: {{verdict: deny, errcode: {OWN}}}");
        let (own, others) = (deny("user_may_create_room"), deny("user_may_publish_room"));
        let (flooded, healthy) = match self {
            Self::SameModule => (own, String::new()),
            Self::Notifications => (format!("{own}, on_logged_out: {{value: null}}"), String::new()),
            Self::AnotherModule => (
                others,
                format!("- {{id: healthy, module: ganglion.modules.Canned, config: {{answers: {{{own}}}}}}}\n"),
            ),
        };
        let (deadline, delay) = (humantime::format_duration(DEADLINE), humantime::format_duration(DELAY));
        format!(
            "server_name: example.com\n\
             dispatch: {{deadline: {deadline}}}\n\
             modules:\n\
             - {{id: flooded, module: ganglion.modules.Canned, tier: {tier}, max_in_flight: {MAX_IN_FLIGHT}, \
             config: {{delay: {delay}, answers: {{{flooded}}}}}}}\n\
             {healthy}"
        )
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameModule => "same module",
            Self::Notifications => "same module, notifications",
            Self::AnotherModule => "another module",
        })
    }
}

/// What became of the flood's calls.
#[derive(Debug, Default)]
pub(crate) struct Flooded {
    pub(crate) offered: AtomicUsize,
    pub(crate) answered: AtomicUsize,
    /// At once, since nobody else had to give way, or since no permit came free in time.
    pub(crate) overloaded: AtomicUsize,
    /// After a wait, to make room for another call.
    pub(crate) shed: AtomicUsize,
    /// What else came of them, as far as there was a decision.
    pub(crate) otherwise: Mutex<Vec<String>>,
    /// Those that were not made: too many were open.
    pub(crate) held_back: AtomicUsize,
    open: AtomicUsize,
}

impl Flooded {
    fn note<C: Routed>(&self, decision: Option<Decision<C>>) {
        self.open.fetch_sub(1, Ordering::SeqCst);
        let Some(decision) = decision else { return };
        let count = match decision.steps.first() {
            Some(Step {
                result: StepResult::Failed(FailureKind::Overloaded),
                detail,
                ..
            }) => match detail {
                Some(detail) if detail.starts_with("shed: ") => &self.shed,
                _ => &self.overloaded,
            },
            Some(step) if !matches!(step.result, StepResult::Failed(_)) => &self.answered,
            _ => {
                lock(&self.otherwise).push(format!("{:?}", decision.into_json()));
                return;
            }
        };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

/// What came of one cell.
#[derive(Debug)]
pub(crate) struct CallerCell {
    pub(crate) scene: Scene,
    pub(crate) tier: Tier,
    pub(crate) latencies: Compared,
    pub(crate) lost: usize,
    pub(crate) not_answered: Vec<String>,
    /// How much later than it was due a call of the steady caller was made, at most.
    pub(crate) latest: Duration,
    pub(crate) flood: Arc<Flooded>,
    /// How many cores were busy in the flood, and which part of that is the thread that offers it.
    pub(crate) busy: (f64, f64),
    pub(crate) grown_kib: Option<i64>,
    pub(crate) threads_left: usize,
}

/// What was seen while the steady caller went on.
struct Seen {
    before: Phase,
    with: Phase,
    after: Phase,
    busy: (f64, f64),
    grown_kib: Option<i64>,
}

impl CallerCell {
    /// Runs a cell.
    pub(crate) fn run(scene: Scene, tier: Tier, durations: Durations) -> Self {
        let runtime = runtime();
        let threads = machine::threads();
        let config = Config::from_yaml(&scene.yaml(tier), "isolation.yaml", &registry()).expect("a config");
        let ganglion = runtime.block_on(Ganglion::start(&config)).expect("a start");

        let callers = Callers::new(scene, &ganglion, runtime.handle());
        let seen = callers.observe(durations);
        let Callers { steady, flooded, .. } = &callers;
        let (measured, lost, not_answered) = (steady.measured(), steady.lost(), steady.wrong());
        let (latest, flood) = (steady.latest(), Arc::clone(flooded));
        ganglion.shutdown();
        drop((callers, ganglion));
        Self {
            scene,
            tier,
            latencies: Compared::of(&measured, seen.before, seen.with, seen.after),
            lost,
            not_answered,
            latest,
            flood,
            busy: seen.busy,
            grown_kib: seen.grown_kib,
            threads_left: machine::threads_left(threads),
        }
    }

    /// A call got no decision, or one of the steady caller not its module's own.
    pub(crate) fn is_broken(&self) -> bool {
        self.lost > 0 || !self.not_answered.is_empty()
    }

    pub(crate) fn mark(&self) -> Mark {
        let Compared { without, with, .. } = &self.latencies;
        let kept = match self.scene {
            Scene::AnotherModule => self.latencies.ratio() <= GOAL,
            Scene::SameModule | Scene::Notifications => with.p99() <= without.p99() + DELAY * TURNS,
        };
        if kept && !self.is_broken() && self.threads_left == 0 {
            Mark::Ok
        } else {
            Mark::Miss
        }
    }
}

/// Both callers of a cell.
struct Callers {
    scene: Scene,
    steady: Calls,
    flooding: Calls,
    flooded: Arc<Flooded>,
    room: OwnedRoomId,
}

impl Callers {
    fn new(scene: Scene, ganglion: &Ganglion, runtime: &Handle) -> Self {
        let steady = Calls::new(ganglion, runtime, DEADLINE + PATIENCE).of(Caller::link());
        Self {
            scene,
            flooding: steady.of(Caller::link()),
            steady,
            flooded: Arc::default(),
            room: RoomId::parse("!room:example.com").expect("a room id"),
        }
    }

    /// Leads the cell through its phases; then waits for the calls that are open.
    fn observe(&self, durations: Durations) -> Seen {
        let begin = Instant::now();
        let observed = during(
            |over| steady(begin, STEADY_PERIOD, over, |due| self.steady.measure(due)),
            || {
                machine::wait(durations.warm_up);
                let before = phase(durations.calm);
                let memory = machine::resident_kib();
                let (with, busy) = self.flood(durations.misbehaving);
                let grown_kib = memory.and_then(|memory| Some(machine::resident_kib()? - memory));
                self.ebb();
                Seen {
                    before,
                    with,
                    after: phase(durations.calm),
                    busy,
                    grown_kib,
                }
            },
        );
        self.steady.settle();
        observed
    }

    /// Floods for so long. Says when that was, and how many cores it took.
    fn flood(&self, duration: Duration) -> (Phase, (f64, f64)) {
        let offering = Mutex::new(Duration::ZERO);
        let before = machine::process_time();
        let with = during(
            |over| {
                steady(Instant::now(), FLOOD_PERIOD, over, |_| self.offer());
                *lock(&offering) = machine::thread_time();
            },
            || phase(duration),
        );
        let cores = |time: Duration| time.as_secs_f64() / (with.1 - with.0).as_secs_f64();
        let all = machine::process_time().saturating_sub(before);
        (with, (cores(all), cores(*lock(&offering))))
    }

    fn offer(&self) {
        if self.flooded.open.load(Ordering::SeqCst) >= MOST_OPEN {
            self.flooded.held_back.fetch_add(1, Ordering::SeqCst);
            return;
        }
        self.flooded.offered.fetch_add(1, Ordering::SeqCst);
        self.flooded.open.fetch_add(1, Ordering::SeqCst);
        let (calls, flooded) = (&self.flooding, Arc::clone(&self.flooded));
        match self.scene {
            Scene::SameModule => calls.ask(calls.may_create_room(), move |decision| flooded.note(decision)),
            Scene::Notifications => {
                let args = OnLoggedOut::new(calls.user(), None, Secret::new("token".to_owned()));
                calls.ask(args, move |decision| flooded.note(decision));
            }
            Scene::AnotherModule => {
                let args = UserMayPublishRoom::new(calls.user(), self.room.clone());
                calls.ask(args, move |decision| flooded.note(decision));
            }
        }
    }

    /// Waits until nothing of the flood is open.
    fn ebb(&self) {
        let until = Instant::now() + self.flooding.patience();
        while self.flooded.open.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            machine::wait(Duration::from_millis(2));
        }
    }
}
