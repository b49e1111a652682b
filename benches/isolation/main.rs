//! What a neighbour that misbehaves costs a healthy module: for every misbehaviour and every tier.
//!
//! `cargo bench --bench isolation [-- [--quick] [MISBEHAVIOUR|TIER]...]`; `cargo xtask bench isolation` also writes the
//! table into docs/performance.md.
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

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench shows its results and how far it is"
)]

mod cell;
mod load;
mod machine;
mod report;
mod samples;

use std::process::ExitCode;
use std::time::Duration;

use ganglion::actors::Tier;
use ganglion::api::testing::Misbehave;

use crate::cell::{CALL_TIMEOUT, Cell};

/// How long the phases last.
#[derive(Debug, Clone, Copy)]
struct Durations {
    warm_up: Duration,
    calm: Duration,
    misbehaving: Duration,
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

fn main() -> ExitCode {
    // Cargo gives `--bench` of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let (options, chosen): (Vec<_>, Vec<_>) = words.iter().map(String::as_str).partition(|word| word.starts_with('-'));
    if options.iter().any(|option| *option != "--quick") {
        eprintln!("usage: cargo bench --bench isolation [-- [--quick] [MISBEHAVIOUR|TIER]...]");
        return ExitCode::from(2);
    }
    quiet_panics();
    let durations = if options.is_empty() { FULL } else { QUICK };
    println!("{}", report::head(durations, &words));
    let mut cells = Vec::new();
    for (misbehave, tier) in cells_of(&chosen) {
        eprintln!("{misbehave} x {tier}");
        let cell = Cell::run(misbehave, tier, durations);
        println!("{}", report::row(&cell));
        cells.push(cell);
    }
    print!("{}", report::foot(&cells));
    if cells.iter().any(Cell::is_broken) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The cells of the named misbehaviours and tiers; of those that are not named all.
fn cells_of(chosen: &[&str]) -> Vec<(Misbehave, Tier)> {
    let is_chosen = |word: &str, all: &[&str]| {
        let none = !chosen.iter().any(|chosen| all.contains(chosen));
        none || chosen.contains(&word)
    };
    let (misbehaviours, tiers) = (Misbehave::ALL.map(Misbehave::as_str), Tier::ALL.map(Tier::as_str));
    let mut cells = Vec::new();
    for misbehave in Misbehave::ALL {
        for tier in Tier::ALL {
            if is_chosen(misbehave.as_str(), &misbehaviours) && is_chosen(tier.as_str(), &tiers) {
                let misbehave = match misbehave {
                    // Well over the budget: at its edge some calls would be in time.
                    Misbehave::Slow(_) => Misbehave::Slow(CALL_TIMEOUT * 2),
                    other => other,
                };
                cells.push((misbehave, tier));
            }
        }
    }
    cells
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
