//! One misbehaviour in one tier.

use std::time::{Duration, Instant};

use ganglion::actors::{BreakerState, ModuleCommand, ModuleSnapshot, ModuleState, Tier};
use ganglion::api::testing::{Misbehave, Misbehaviour};
use ganglion::{Config, Ganglion, registry};
use ganglion_benches::machine;
use tokio::runtime::Runtime;

use crate::calls::{Calls, OWN, runtime};
use crate::load::{Load, NEIGHBOUR, Neighbour};
use crate::samples::{Compared, Phase, phase};
use crate::{Durations, Mark};

/// The deadline of a chain.
const DEADLINE: Duration = Duration::from_secs(1);

/// A call that has no decision so long after its deadline is lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// The neighbour's.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_millis(100);

/// The neighbour's further settings; the healthy module has the defaults.
pub(crate) const SETTINGS: &str = "call_timeout: 100ms, breaker: {open_for: 500ms}, \
                                   restart: {max: 5, within: 60s, backoff: [50ms, 500ms]}";

/// The most that a p99 may grow.
pub(crate) const GOAL: f64 = 1.2;

/// How long a neighbour may take to get well.
const RECOVERY: Duration = Duration::from_secs(10);

const LOOK: Duration = Duration::from_millis(2);

/// What came of one cell.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) misbehave: Misbehave,
    pub(crate) tier: Tier,
    pub(crate) latencies: Compared,
    pub(crate) lost: usize,
    pub(crate) wrong: Vec<String>,
    pub(crate) grown_kib: Option<i64>,
    pub(crate) contained: Option<Duration>,
    pub(crate) serves_again: Option<Duration>,
    pub(crate) released: bool,
    /// The neighbour at the end of the misbehaviour.
    pub(crate) end: ModuleSnapshot,
    /// The healthy module when all was over.
    pub(crate) healthy: ModuleSnapshot,
    pub(crate) threads_left: usize,
}

/// What was seen while the load went on.
struct Seen {
    before: Phase,
    with: Phase,
    after: Phase,
    grown_kib: Option<i64>,
    contained: Option<Duration>,
    serves_again: Option<Duration>,
    released: bool,
    end: ModuleSnapshot,
}

impl Cell {
    /// Runs a cell.
    pub(crate) fn run(misbehave: Misbehave, tier: Tier, durations: Durations) -> Self {
        let runtime = runtime();
        let misbehaviour = Misbehaviour::new(misbehave);
        let _calm = misbehaviour.calm_on_drop();
        misbehaviour.calm();
        let threads = machine::threads();
        let registry = registry().misbehaving("bench.Neighbour", "ganglion.modules.Canned", misbehaviour.clone());
        let config = Config::from_yaml(&yaml(tier), "isolation.yaml", &registry).expect("a config");
        let ganglion = runtime.block_on(Ganglion::start(&config)).expect("a start");

        let load = Load::new(Calls::new(&ganglion, runtime.handle(), DEADLINE + PATIENCE));
        let observer = Observer {
            misbehave,
            misbehaviour: &misbehaviour,
            ganglion: &ganglion,
            runtime: &runtime,
            neighbour: load.neighbour(),
        };
        let seen = load.during(|| observer.observe(durations));
        let calls = load.calls().measured();
        let (lost, wrong) = (load.calls().lost(), load.calls().wrong());
        let healthy = module(&ganglion, "healthy");
        ganglion.shutdown();
        drop((load, ganglion));

        Self {
            misbehave,
            tier,
            latencies: Compared::of(&calls, seen.before, seen.with, seen.after),
            lost,
            wrong,
            grown_kib: seen.grown_kib,
            contained: seen.contained,
            serves_again: seen.serves_again,
            released: seen.released,
            end: seen.end,
            healthy,
            threads_left: machine::threads_left(threads),
        }
    }

    /// A call got no decision, or a wrong one.
    pub(crate) fn is_broken(&self) -> bool {
        self.lost > 0 || !self.wrong.is_empty()
    }

    /// No thread, and no failure that is put down to the healthy module.
    fn leaves_nothing(&self) -> bool {
        self.threads_left == 0 && self.healthy.failures.is_empty()
    }

    pub(crate) fn mark(&self) -> Mark {
        let contained = self.contained.is_some() || !needs_containment(self.misbehave);
        let kept = !self.is_broken() && contained && self.serves_again.is_some() && self.leaves_nothing();
        let capped = self.end.state == ModuleState::Quarantined;
        match self.misbehave {
            _ if !kept => Mark::Miss,
            Misbehave::Block | Misbehave::Spin if !capped => Mark::Miss,
            Misbehave::Spin if may_take_half() => Mark::NoGoal,
            Misbehave::Leak => Mark::NoGoal,
            _ if self.latencies.ratio() <= GOAL => Mark::Ok,
            _ => Mark::Miss,
        }
    }
}

/// Whether threads that spin can take half of the machine or more before they are too many.
fn may_take_half() -> bool {
    ganglion::actors::most_stuck_threads() * 2 >= machine::cores()
}

fn yaml(tier: Tier) -> String {
    let answers = |callback, errcode| format!("{{answers: {{{callback}: {{verdict: deny, errcode: {errcode}}}}}}}");
    let deadline = humantime::format_duration(DEADLINE);
    format!(
        "server_name: example.com\n\
         dispatch: {{deadline: {deadline}}}\n\
         modules:\n\
         - {{id: healthy, module: ganglion.modules.Canned, config: {}}}\n\
         - {{id: neighbour, module: bench.Neighbour, tier: {tier}, {SETTINGS}, config: {}}}\n",
        answers("user_may_create_room", OWN),
        answers("user_may_publish_room", NEIGHBOUR),
    )
}

/// Whether calls give no answer, so that more than their own budget has to stop them.
pub(crate) fn needs_containment(misbehave: Misbehave) -> bool {
    !matches!(misbehave, Misbehave::Leak | Misbehave::Flood | Misbehave::Garbage)
}

/// Leads a cell through its phases.
struct Observer<'a> {
    misbehave: Misbehave,
    misbehaviour: &'a Misbehaviour,
    ganglion: &'a Ganglion,
    runtime: &'a Runtime,
    neighbour: &'a Neighbour,
}

impl Observer<'_> {
    fn observe(&self, durations: Durations) -> Seen {
        machine::wait(durations.warm_up);
        let before = phase(durations.calm);

        let memory = machine::resident_kib();
        let begin = Instant::now();
        self.misbehaviour.resume();
        let contained = self.contained(begin + durations.misbehaving);
        machine::wait_until(begin + durations.misbehaving);
        let with = (begin, Instant::now());
        let grown_kib = memory.and_then(|memory| Some(machine::resident_kib()? - memory));
        let end = self.snapshot();

        let calm = Instant::now();
        self.misbehaviour.calm();
        self.neighbour.calm_since(Instant::now());
        let (serves_again, released) = self.recovered(calm);
        Seen {
            before,
            with,
            after: phase(durations.calm),
            grown_kib,
            contained,
            serves_again,
            released,
            end,
        }
    }

    fn snapshot(&self) -> ModuleSnapshot {
        module(self.ganglion, "neighbour")
    }

    /// How long it took from the first call that misbehaved until the neighbour was contained.
    fn contained(&self, until: Instant) -> Option<Duration> {
        if !needs_containment(self.misbehave) {
            return None;
        }
        let mut first = None;
        while Instant::now() < until {
            if first.is_none() && self.misbehaviour.misbehaved() > 0 {
                first = Some(Instant::now());
            }
            if let Some(first) = first
                && is_contained(&self.snapshot())
            {
                return Some(first.elapsed());
            }
            machine::wait(LOOK);
        }
        None
    }

    /// How long it took until the neighbour answered again, and whether it had to be released.
    fn recovered(&self, calm: Instant) -> (Option<Duration>, bool) {
        let mut released = false;
        while calm.elapsed() < RECOVERY {
            if let Some(serves) = self.neighbour.serves_since() {
                return (Some(serves.saturating_duration_since(calm)), released);
            }
            if self.snapshot().state == ModuleState::Quarantined {
                released = true;
                // It may be in another state by now; then the next look finds out.
                let _ = self
                    .runtime
                    .block_on(self.ganglion.command("neighbour", ModuleCommand::Release));
            }
            machine::wait(LOOK);
        }
        (None, released)
    }
}

fn module(ganglion: &Ganglion, id: &str) -> ModuleSnapshot {
    let module = ganglion.dispatch().module(id);
    module.expect("the config has it").snapshot()
}

/// Restarts and trips are looked at too: an open breaker or a restart may be over between two looks.
fn is_contained(neighbour: &ModuleSnapshot) -> bool {
    let mut breakers = neighbour.breakers.values();
    let tripped = breakers.any(|breaker| breaker.state == BreakerState::Open || breaker.trips > 0);
    tripped || neighbour.restarts > 0 || neighbour.state != ModuleState::Running
}
