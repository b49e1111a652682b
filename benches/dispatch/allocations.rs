//! What the rows of the group `dispatch` allocate.
//!
//! `cargo xtask bench dispatch` runs this after the bench `dispatch`. It is a program of its own, since an allocator that
//! counts takes about as long as the floors.
//!
//! A row runs twice, the second time with twice as many chains; the difference is what that many chains allocate, without
//! what a run does once. Those of all threads are counted.

mod peers;
mod rows;

use std::alloc::System;
use std::process::ExitCode;

use ganglion_benches::group::Group;
use ganglion_benches::report::{Comparison, table};
use ganglion_benches::rounds::Run;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::rows::{Case, Stage, Way};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many chains are counted, and in a quick run.
const CHAINS: [u64; 2] = [500, 200];

/// How often they are counted. The least counts: whatever else goes on in the process can only add to it.
const TIMES: usize = 7;

/// Less than that a chain is the watchdog's, or a vector's that grows once in a while.
const NONE: f64 = 0.05;

/// What one chain allocates: how often, and how many bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Allocated {
    times: f64,
    bytes: f64,
}

fn main() -> ExitCode {
    let Some(mut group) = Group::begin("dispatch") else {
        return ExitCode::from(2);
    };
    let [many, few] = CHAINS;
    let chains = if group.quick { few } else { many };
    let stage = Stage::start();
    let mut rows: Vec<_> = stage.rows().each().collect();
    let found: Vec<(Case, Allocated)> = rows
        .iter_mut()
        .map(|(case, run)| (*case, allocated(run, chains)))
        .collect();
    group.say("### Allocations of a chain\n\nWhat less than one chain in twenty allocates is not counted.");
    group.say(&written(&found));
    let nobody = found.iter().find(|(case, _)| case.way == Way::NoSubscriber);
    if let Some((_, Allocated { times, .. })) = nobody {
        group.compare(Comparison::alone(
            "no subscriber, allocations",
            "0",
            &rounded(*times),
            *times < NONE,
        ));
    }
    group.end()
}

fn allocated(run: &mut Run<'_>, chains: u64) -> Allocated {
    // What is there after the first questions is no part of a chain.
    let _ = run(chains);
    let mut counted = |chains: u64| {
        let region = Region::new(ALLOCATOR);
        let _ = run(chains);
        let change = region.change();
        // A reallocation is one, too.
        (change.allocations + change.reallocations, change.bytes_allocated)
    };
    let mut least = |chains: u64| {
        let counts: Vec<_> = (0..TIMES).map(|_| counted(chains)).collect();
        let of = |part: fn(&(usize, usize)) -> usize| counts.iter().map(part).min().unwrap_or_default() as f64;
        (of(|count| count.0), of(|count| count.1))
    };
    let (once, twice) = (least(chains), least(2 * chains));
    Allocated {
        times: (twice.0 - once.0) / chains as f64,
        bytes: (twice.1 - once.1) / chains as f64,
    }
}

fn rounded(number: f64) -> String {
    if number.abs() < NONE {
        "0".into()
    } else {
        format!("{number:.1}")
    }
}

fn written(found: &[(Case, Allocated)]) -> String {
    let row = |(case, Allocated { times, bytes }): &(Case, Allocated)| {
        vec![
            case.way.to_string(),
            case.modules.to_string(),
            case.in_flight.to_string(),
            case.workers.to_string(),
            rounded(*times),
            format!("{:.0}", bytes.max(0.0)),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    table(
        &["way to ask", "modules", "in flight", "workers", "allocations", "bytes"],
        &rows,
    )
}
