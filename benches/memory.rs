//! What memory Ganglion takes, and how long modules take to load.
//!
//! `cargo xtask bench memory [--quick]`; `cargo bench -p ganglion-benches --bench memory` prints the tables only.
//!
//! Each number is measured in a process of its own, which this program starts, so that no row finds memory that another
//! has left; and several times over, of which the median counts. It is what the process takes more when so many of a
//! thing are there, by their number:
//!
//! - module: one that has registered one callback, and was not called yet. Of the tier `thread` it has a thread;
//! - worker: a dispatch worker that waits, with its thread;
//! - call: a question whose module waits for something, its args included; the floor is a task with a boxed future and args;
//! - result: a result of a cached function, by number; the floor is one in bare moka.

use std::env;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ganglion::actors::Tier;
use ganglion::api::{
    CheckEventForSpam, Module, ModuleApi, ModuleError, NoConfig, Registry, SpamCheckerCallbacks, Verdict,
};
use ganglion_benches::driver::Driver;
use ganglion_benches::group::Group;
use ganglion_benches::host::{Host, yaml_of};
use ganglion_benches::report::{Comparison, ratio, table, time};
use ganglion_benches::rounds::Series;
use ganglion_benches::work::args;
use ganglion_benches::{caching, machine};

/// The most that the modules may take to load, in seconds.
const LOAD: f64 = 1.0;

/// How often each is measured, but for a quick run.
const ROUNDS: usize = 5;

/// The word before the name of what a process is to measure.
const CHILD: &str = "--measure";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Thing {
    Modules(Tier),
    Workers,
    Calls(Tier),
    Tasks,
    Results,
    Moka,
}

impl Thing {
    const ALL: [Self; 10] = [
        Self::Modules(Tier::Inline),
        Self::Modules(Tier::Actor),
        Self::Modules(Tier::Thread),
        Self::Workers,
        Self::Calls(Tier::Inline),
        Self::Calls(Tier::Actor),
        Self::Calls(Tier::Thread),
        Self::Tasks,
        Self::Results,
        Self::Moka,
    ];

    fn name(self) -> String {
        match self {
            Self::Modules(tier) => format!("module, {tier}"),
            Self::Workers => "worker that waits".into(),
            Self::Calls(tier) => format!("call in flight, {tier}"),
            Self::Tasks => "floor: task with a boxed future".into(),
            Self::Results => "result of a cached function".into(),
            Self::Moka => "floor: result in moka".into(),
        }
    }

    /// How many there are.
    const fn count(self) -> usize {
        match self {
            Self::Modules(Tier::Inline | Tier::Actor) => 1000,
            // Each has a thread, and a thread some files.
            Self::Modules(Tier::Thread) => 100,
            Self::Workers => 64,
            Self::Calls(_) | Self::Tasks => 5000,
            Self::Results | Self::Moka => 100_000,
        }
    }

    /// Makes them, and measures.
    fn measure(self) -> Measured {
        match self {
            Self::Modules(tier) => modules(tier, self.count()),
            Self::Workers => workers(self.count()),
            Self::Calls(tier) => calls(tier, self.count()),
            Self::Tasks => tasks(self.count()),
            Self::Results => results(self.count()),
            Self::Moka => moka(self.count()),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
struct Measured {
    bytes: i64,
    took: Duration,
}

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    if words.next().as_deref() == Some(CHILD) {
        return measure(&words.next().unwrap_or_default());
    }
    let Some(mut group) = Group::begin("memory") else {
        return ExitCode::from(2);
    };
    let rounds = if group.quick { 1 } else { ROUNDS };
    group.place(&["moka"], &format!("{rounds} processes a row"));
    let mut found: Vec<(Thing, Vec<Measured>)> = Thing::ALL.map(|thing| (thing, Vec::new())).into();
    for round in 1..=rounds {
        group.progress(&format!("round {round}"));
        for (thing, measured) in &mut found {
            let Some(one) = in_child(*thing) else {
                group.progress(&format!("{} cannot be measured here", thing.name()));
                return ExitCode::FAILURE;
            };
            measured.push(one);
        }
    }
    group.say(&written(&found));
    for tier in Tier::ALL {
        let thing = Thing::Modules(tier);
        let took = median(&found, thing, |one| one.took.as_secs_f64());
        let what = format!("{} modules load, {tier}", thing.count());
        group.compare(Comparison::alone(&what, "< 1 s", &time(took), took < LOAD));
    }
    group.end()
}

#[expect(clippy::print_stdout, reason = "the process that started this one reads it")]
fn measure(name: &str) -> ExitCode {
    let Some(thing) = Thing::ALL.into_iter().find(|thing| thing.name() == name) else {
        return ExitCode::from(2);
    };
    let Measured { bytes, took } = thing.measure();
    println!("{bytes} {}", took.as_nanos());
    ExitCode::SUCCESS
}

fn in_child(thing: Thing) -> Option<Measured> {
    let mut child = Command::new(env::current_exe().ok()?);
    let output = child.args([CHILD, &thing.name()]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (bytes, took) = text.trim().split_once(' ')?;
    Some(Measured {
        bytes: bytes.parse().ok()?,
        took: Duration::from_nanos(took.parse().ok()?),
    })
}

/// What the process takes more when something was made, which stays until then.
fn grown<T>(make: impl FnOnce() -> T) -> (Measured, T) {
    let resident = || machine::resident_kib().expect("resident memory can be seen here");
    let before = resident();
    let begun = Instant::now();
    let made = make();
    let measured = Measured {
        took: begun.elapsed(),
        bytes: (resident() - before) * 1024,
    };
    (measured, made)
}

fn modules(tier: Tier, count: usize) -> Measured {
    let _warm = Host::of(tier, 1, 1);
    let (measured, host) = grown(|| Host::of(tier, count, 1));
    assert_eq!(host.handle().modules().len(), count);
    assert!(host.handle().is_ready(), "all modules run");
    measured
}

fn workers(count: usize) -> Measured {
    let _warm = Host::of(Tier::Inline, 0, 1);
    grown(|| Host::of(Tier::Inline, 0, count)).0
}

/// How many calls have begun.
static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// A module that never answers.
struct Waits;

impl Module for Waits {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().check_event_for_spam(Self::wait))?;
        Ok(Self)
    }
}

impl Waits {
    async fn wait(&self, _: &CheckEventForSpam) -> Result<Verdict, ModuleError> {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

fn until_begun(count: usize) {
    while BEGUN.load(Ordering::SeqCst) < count {
        machine::wait(Duration::from_millis(1));
    }
}

fn calls(tier: Tier, count: usize) -> Measured {
    let registry = Registry::new().with::<Waits>("bench.Waits");
    // A quarter of the permits is for gating calls alone, which these are.
    let module = format!(
        "{{module: bench.Waits, tier: {tier}, call_timeout: 120s, max_in_flight: {}}}",
        2 * count
    );
    let yaml = yaml_of(&[module], 1).replace("workers: 1", "workers: 1, deadline: 120s");
    let host = Host::start(&yaml, &registry);
    let (handle, runtime) = (host.handle(), runtime());
    let ask = |count: usize| {
        let before = BEGUN.load(Ordering::SeqCst);
        for _ in 0..count {
            let handle = handle.clone();
            runtime.spawn(async move { handle.ask(args()).await });
        }
        until_begun(before + count);
    };
    // The tables that grow with the first are there.
    ask(10);
    grown(|| ask(count)).0
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
}

fn tasks(count: usize) -> Measured {
    let runtime = runtime();
    let spawn = |count: usize| {
        let before = BEGUN.load(Ordering::SeqCst);
        for _ in 0..count {
            let waits = async |args: Arc<CheckEventForSpam>| {
                BEGUN.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
                drop(args);
            };
            runtime.spawn(async move { Box::pin(waits(Arc::new(args()))).await });
        }
        until_begun(before + count);
    };
    spawn(10);
    grown(|| spawn(count)).0
}

fn results(count: usize) -> Measured {
    let (host, functions) = caching::start();
    let set_up = async move || (functions, std::cell::Cell::new(0));
    let driver = Driver::start(host.threads()[0].arbiter(), set_up, async |(functions, next)| {
        next.set(next.get() + 1);
        let found = functions.many.get(next.get()).await.expect("a result");
        assert_eq!(*found, next.get());
    });
    let _ = driver.run(100, 1);
    let (measured, _) = grown(|| driver.run(count as u64, 1));
    let kept = host
        .handle()
        .caches()
        .statistics()
        .iter()
        .map(|cache| cache.entries)
        .sum::<u64>();
    assert_eq!(kept, 100 + count as u64, "all results are kept");
    measured
}

fn moka(count: usize) -> Measured {
    let cache = moka::sync::Cache::new(100 * caching::MAX_ENTRIES);
    let fill = |keys: std::ops::Range<i64>| {
        for key in keys {
            cache.insert(key, Arc::new(key));
        }
        cache.run_pending_tasks();
    };
    fill(-100..0);
    let (measured, ()) = grown(|| fill(0..count as i64));
    assert_eq!(cache.entry_count(), 100 + count as u64);
    measured
}

fn median(found: &[(Thing, Vec<Measured>)], thing: Thing, of: impl Fn(&Measured) -> f64) -> f64 {
    let row = found.iter().find(|(other, _)| *other == thing);
    Series::new(
        row.map(|(_, measured)| measured.iter().map(of).collect())
            .unwrap_or_default(),
    )
    .median()
}

fn written(found: &[(Thing, Vec<Measured>)]) -> String {
    let each = |thing: Thing| median(found, thing, |one| one.bytes as f64) / thing.count() as f64;
    let row = |(thing, _): &(Thing, Vec<Measured>)| {
        let floor = match thing {
            Thing::Calls(_) => Some(Thing::Tasks),
            Thing::Results => Some(Thing::Moka),
            _ => None,
        };
        let took = median(found, *thing, |one| one.took.as_secs_f64());
        let loads = matches!(thing, Thing::Modules(_));
        vec![
            thing.name(),
            thing.count().to_string(),
            bytes(each(*thing)),
            floor.map_or_else(|| "-".into(), |floor| ratio(each(*thing) / each(floor))),
            if loads { time(took) } else { "-".into() },
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    table(
        &["", "how many", "resident memory of one", "ours / floor", "all load in"],
        &rows,
    )
}

fn bytes(bytes: f64) -> String {
    if bytes.abs() < 9999.5 {
        format!("{bytes:.0} B")
    } else {
        format!("{:.1} KiB", bytes / 1024.0)
    }
}
