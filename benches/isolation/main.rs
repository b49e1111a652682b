//! What a neighbour that misbehaves costs a healthy module, for every misbehaviour and every tier; and what a caller that
//! floods costs another one.
//!
//! `cargo bench -p ganglion-benches --bench isolation [-- [--quick] [MISBEHAVIOUR|caller|TIER]...]`; `cargo xtask bench isolation` also writes
//! the tables into docs/performance.md.
//!
//! # A neighbour that misbehaves
//!
//! A cell is one [`Ganglion`](ganglion::Ganglion) with two modules, each under a steady load of its own: `healthy`, tier
//! `actor` with default settings, and `neighbour`, in the cell's tier, on another callback. The load is open: calls have
//! a schedule that waits for nobody, and latencies count from the scheduled moment, so that what a stall keeps waiting
//! is counted too. The load goes on through all phases of a cell:
//!
//! 1. calm: the neighbour answers at once, as in 4;
//! 2. every call of the neighbour misbehaves;
//! 3. it is calm again and gets well; a neighbour in quarantine is released, which `r` marks. Its latencies are not counted;
//! 4. calm. The baseline is 1 and 4 together; *drift* is the larger p99 of the two by the smaller one: where it is not
//!    near 1, the machine was busy with something else, and the ratio says little.
//!
//! What *contained* means, counted from the first call that misbehaves, looked at every 2 ms:
//!
//! - panic, error, hang, block, spin, slow (twice the call timeout): the neighbour's breaker has opened, or the module has
//!   left the state `running`, whichever is first;
//! - leak, flood, garbage: `-`. These calls do answer. What garbage must not go out is dropped from each answer by
//!   itself, floods meet the bound of background calls, and leaked memory is for the tier `process`.
//!
//! Goals: no call without a decision, no wrong decision, no failure that is put down to the healthy module, no thread left
//! after the shutdown; containment, and service again; quarantine at the cap of stuck threads for a neighbour that blocks
//! or spins; and a p99 of at most 1.2 times the baseline, but for what a tier does not claim to survive:
//!
//! - a leak;
//! - spinning where the threads that are stuck in it can take half of the cores or more: threads cannot be killed.
//!
//! # A caller that floods
//!
//! A cell is one Ganglion with two callers, each with its own link and an open schedule: a steady one, whose latencies are
//! measured, and one that offers far more calls than a module takes. That module, in the cell's tier, runs few calls at
//! once, and each waits a little; its mailbox is full all through the flood. The phases are calm, flood, calm, and between
//! the last two what is left of the flood ends. The scenes:
//!
//! - same module: both callers ask the same callback of that module;
//! - same module, notifications: the flood notifies that module, the steady caller asks it something that gates;
//! - another module: the flood asks that module, the steady caller a healthy one, tier `actor` with default settings.
//!
//! *Not answered* are decisions of the steady caller that are not its module's own answer, for example since the module
//! was overloaded. What the flood's calls became: *answered*; *overloaded*, refused on their arrival; *shed*, that is
//! refused after a wait, to make room for another call.
//!
//! Goals: no call without a decision, also none of the flood; each call of the steady caller answered by its module; no
//! thread left after the shutdown; and
//!
//! - another module: a p99 of at most 1.2 times the baseline, as above;
//! - same module: a p99 of at most the baseline's and twice the time that the module waits in a call. Callers take turns:
//!   who comes waits for a permit to come free, and for one call of the flood whose turn may come first.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench shows its results and how far it is"
)]

mod caller;
mod calls;
mod cell;
mod load;
mod report;
mod samples;

use std::process::ExitCode;
use std::time::Duration;

use ganglion::actors::Tier;
use ganglion::api::testing::Misbehave;

use crate::caller::{CallerCell, Scene};
use crate::cell::{CALL_TIMEOUT, Cell};
use crate::report::COMMAND;

/// How long the phases last.
#[derive(Debug, Clone, Copy)]
struct Durations {
    warm_up: Duration,
    calm: Duration,
    misbehaving: Duration,
}

/// Whether a cell is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Ok,
    Miss,
    NoGoal,
}

const FULL: Durations = Durations {
    warm_up: Duration::from_millis(300),
    calm: Duration::from_millis(2500),
    misbehaving: Duration::from_secs(5),
};

const QUICK: Durations = Durations {
    warm_up: Duration::from_millis(100),
    calm: Duration::from_millis(400),
    misbehaving: Duration::from_millis(1000),
};

/// The word for the cells with a caller that floods.
const CALLER: &str = "caller";

fn main() -> ExitCode {
    // Cargo gives `--bench` of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let (options, named): (Vec<_>, Vec<_>) = words.iter().map(String::as_str).partition(|word| word.starts_with('-'));
    let chosen = Chosen::of(&named).filter(|_| options.iter().all(|option| *option == "--quick"));
    let Some(chosen) = chosen else {
        eprintln!("usage: {COMMAND} [-- [--quick] [MISBEHAVIOUR|{CALLER}|TIER]...]");
        return ExitCode::from(2);
    };
    quiet_panics();
    let durations = if options.is_empty() { FULL } else { QUICK };
    println!("{}", report::place(&words));
    let mut broken = false;
    if chosen.misbehaviours().next().is_some() {
        broken |= neighbours(&chosen, durations);
    }
    if chosen.has(CALLER) {
        broken |= callers(&chosen, durations);
    }
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The table of neighbours that misbehave. Whether a cell is broken.
fn neighbours(chosen: &Chosen, durations: Durations) -> bool {
    println!("{}", report::neighbour::head(durations));
    let mut cells = Vec::new();
    for misbehave in chosen.misbehaviours() {
        for tier in chosen.tiers() {
            eprintln!("{misbehave} x {tier}");
            let cell = Cell::run(misbehave, tier, durations);
            println!("{}", report::neighbour::row(&cell));
            cells.push(cell);
        }
    }
    println!("{}", report::neighbour::foot(&cells));
    cells.iter().any(Cell::is_broken)
}

/// The table of callers that flood. Whether a cell is broken.
fn callers(chosen: &Chosen, durations: Durations) -> bool {
    println!("{}", report::caller::head(durations));
    let mut cells = Vec::new();
    for scene in Scene::ALL {
        for tier in chosen.tiers() {
            eprintln!("{scene} x {tier}");
            let cell = CallerCell::run(scene, tier, durations);
            println!("{}", report::caller::row(&cell));
            cells.push(cell);
        }
    }
    println!("{}", report::caller::foot(&cells));
    cells.iter().any(CallerCell::is_broken)
}

/// What is run: what is named, of tiers and of everything else; of those that are not named all.
struct Chosen<'a> {
    kinds: Vec<&'a str>,
    tiers: Vec<&'a str>,
}

impl<'a> Chosen<'a> {
    /// `None` if there is no such thing.
    fn of(named: &[&'a str]) -> Option<Self> {
        let is_tier = |word: &&str| Tier::ALL.iter().any(|tier| tier.as_str() == *word);
        let is_kind = |word: &&str| *word == CALLER || Misbehave::ALL.iter().any(|kind| kind.as_str() == *word);
        let (tiers, kinds): (Vec<_>, Vec<_>) = named.iter().copied().partition(is_tier);
        kinds.iter().all(is_kind).then_some(Self { kinds, tiers })
    }

    fn has(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    fn tiers(&self) -> impl Iterator<Item = Tier> {
        let all = Tier::ALL.into_iter();
        all.filter(|tier| self.tiers.is_empty() || self.tiers.contains(&tier.as_str()))
    }

    fn misbehaviours(&self) -> impl Iterator<Item = Misbehave> {
        let all = Misbehave::ALL.into_iter().filter(|kind| self.has(kind.as_str()));
        all.map(|kind| match kind {
            // Well over the budget: at its edge some calls would be in time.
            Misbehave::Slow(_) => Misbehave::Slow(CALL_TIMEOUT * 2),
            other => other,
        })
    }
}

/// Panics on purpose are not printed; all others are.
fn quiet_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let on_purpose = panic
            .payload_as_str()
            .is_some_and(|text| text.starts_with("misbehaviour: "));
        if !on_purpose {
            print(panic);
        }
    }));
}
