//! A chain of five modules beside Synapse's own, each asked in its own process, without a network.
//!
//! `cargo xtask bench synapse [--quick]`, which also installs Synapse.
//!
//! Synapse's modules are Python, asked through its own classes by benches/ask_synapse.py, which says how; ours are Rust.
//! Both look at the same two fields of the same event. Rounds take turns: Synapse, then ours, each in every way that the
//! table names.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ganglion::actors::{Tier, Worker};
use ganglion::api::CheckEventForSpam;
use ganglion::dispatcher::{AskContext, DispatchHandle};
use ganglion_benches::driver::Driver;
use ganglion_benches::group::Group;
use ganglion_benches::host::Host;
use ganglion_benches::report::{Comparison, Goal, cells, rate, table};
use ganglion_benches::rounds::Series;
use ganglion_benches::work::{MODULES, args, assert_passed, json_args};
use serde::Deserialize;

/// The script that asks Synapse, beside this file.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ask_synapse.py");

/// How often each asks at least, before times count.
const WARM_UP: u64 = 1000;

/// A way to ask ours.
struct Way {
    name: &'static str,
    driver: Driver,
    rounds: Vec<f64>,
}

/// What the script found.
#[derive(Debug, Deserialize)]
struct Found {
    synapse: String,
    seconds: f64,
}

fn main() -> ExitCode {
    let Some(mut group) = Group::begin("synapse") else {
        return ExitCode::from(2);
    };
    let Some(python) = group.python.clone() else {
        group.progress("it needs an interpreter that has Synapse: run `cargo xtask bench synapse`");
        return ExitCode::from(2);
    };
    let (rounds, seconds) = if group.quick { (2, 0.2) } else { (7, 1.0) };
    let hosts = [Tier::Inline, Tier::Actor].map(|tier| Host::of(tier, MODULES, 1));
    let mut ways = ways(&hosts);
    let (mut theirs, mut version) = (Vec::new(), String::new());
    for round in 1..=rounds {
        group.progress(&format!("round {round}"));
        match ask_synapse(&python, seconds) {
            Ok(found) => {
                theirs.push(found.seconds);
                version = found.synapse;
            }
            Err(error) => {
                group.progress(&format!("Synapse gave no answer: {error}"));
                return ExitCode::FAILURE;
            }
        }
        for way in &mut ways {
            way.rounds
                .push(measured(&way.driver, Duration::from_secs_f64(seconds / 4.0)));
        }
    }
    let theirs = Series::new(theirs);
    let ours: Vec<_> = ways
        .into_iter()
        .map(|way| (way.name, Series::new(way.rounds)))
        .collect();
    group.place(
        &[],
        &format!("Synapse {version}. {rounds} rounds of {seconds} s for Synapse and for all of ours"),
    );
    group.say("Both are given the same event each time.");
    group.say(&written(&theirs, &ours));
    for (name, series) in &ours {
        let what = format!("a chain of five, {name}");
        group.compare(Comparison::faster(
            &what,
            // Between threads nearly all of the time is the system's, which wakes one and then the other.
            (*name != FROM_AFAR).then_some(Goal::AtLeast(200.0)),
            series,
            ("Synapse", &theirs),
        ));
    }
    group.end()
}

fn ask_synapse(python: &Path, seconds: f64) -> Result<Found, Box<dyn std::error::Error>> {
    let mut command = Command::new(python);
    command.args([
        SCRIPT,
        "--modules",
        &MODULES.to_string(),
        "--seconds",
        &seconds.to_string(),
    ]);
    let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    // Taken, so that it is closed.
    if let Some(mut stdin) = script.stdin.take() {
        stdin.write_all(json_args().to_string().as_bytes())?;
    }
    let output = script.wait_with_output()?;
    if !output.status.success() {
        return Err(output.status.to_string().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The way that is not in process in Synapse's sense: its callbacks run on the thread that asks.
const FROM_AFAR: &str = "actor, `ask` from another thread";

/// The ways to ask ours.
fn ways([inline, actor]: &[Host; 2]) -> Vec<Way> {
    let way = |name, driver| Way {
        name,
        driver,
        rounds: Vec::new(),
    };
    let far = ganglion_benches::host::Threads::start(1);
    let from_afar = ask(actor, &far.arbiter(0));
    // They end with the process.
    std::mem::forget(far);
    vec![
        way("inline, `ask_on`", ask_on(inline)),
        way("actor, `ask_on`", ask_on(actor)),
        way("actor, `ask` on the worker", ask(actor, actor.threads()[0].arbiter())),
        way(FROM_AFAR, from_afar),
    ]
}

fn ask_on(host: &Host) -> Driver {
    let (thread, handle) = (Arc::clone(&host.threads()[0]), host.handle());
    let place = thread.arbiter().clone();
    let set_up = async move || (Worker::new(thread), handle, Arc::new(args()));
    type On = (Worker, DispatchHandle, Arc<CheckEventForSpam>);
    Driver::start(&place, set_up, async |(worker, handle, args): &On| {
        assert_passed(&handle.ask_on(worker, Arc::clone(args)).await, MODULES);
    })
}

fn ask(host: &Host, place: &actix::ArbiterHandle) -> Driver {
    let handle = host.handle();
    let set_up = async move || (handle, Arc::new(args()));
    type On = (DispatchHandle, Arc<CheckEventForSpam>);
    Driver::start(place, set_up, async |(handle, args): &On| {
        assert_passed(&handle.ask_in(AskContext::new(), Arc::clone(args)).await, MODULES);
    })
}

/// Seconds a chain, over about this time.
fn measured(driver: &Driver, time: Duration) -> f64 {
    let warm = driver.run(WARM_UP, 1).as_secs_f64() / WARM_UP as f64;
    let count = ((time.as_secs_f64() / warm) as u64).max(WARM_UP);
    driver.run(count, 1).as_secs_f64() / count as f64
}

fn written(theirs: &Series, ours: &[(&str, Series)]) -> String {
    let row = |name: &str, series: &Series| {
        let [median, spread] = cells(series);
        vec![name.to_owned(), median, spread, rate(series.median())]
    };
    let mut rows = vec![row("Synapse", theirs)];
    rows.extend(ours.iter().map(|(name, series)| row(name, series)));
    table(&["way to ask", "a chain", "spread", "chains"], &rows)
}
