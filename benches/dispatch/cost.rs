//! One scene of asking, run so often, for a machine that counts instructions: `cargo xtask cost`.
//!
//! Prints how often it allocated. What a chain costs is the difference between two runs of different length, so that what a
//! run does once is no part of it.

use std::alloc::System;
use std::process::ExitCode;
use std::sync::Arc;

use ganglion::actors::{Tier, Worker};
use ganglion::api::{CheckEventForSpam, CheckRegistrationForSpam};
use ganglion::dispatcher::DispatchHandle;
use ganglion_benches::driver::Driver;
use ganglion_benches::host::Host;
use ganglion_benches::work::{self, MODULES};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Enough for what changes while modules warm up, such as a breaker's window.
const WARM_UP: u64 = 300;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "what it counted is its result")]
fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let chains = |word: Option<String>| word?.parse().ok();
    let (Some(scene), Some(chains)) = (words.next(), chains(words.next())) else {
        eprintln!("usage: cost SCENE CHAINS");
        return ExitCode::from(2);
    };
    let tier = if scene == "inline" { Tier::Inline } else { Tier::Actor };
    let host = Host::of(tier, MODULES, 1);
    let Some(driver) = driver(&scene, &host) else {
        eprintln!("no scene has the name {scene:?}");
        return ExitCode::from(2);
    };
    let _ = driver.run(WARM_UP, 1);
    let region = Region::new(ALLOCATOR);
    let _ = driver.run(chains, 1);
    let change = region.change();
    println!("{}", change.allocations + change.reallocations);
    ExitCode::SUCCESS
}

/// Asks on the worker's own thread.
fn driver(scene: &str, host: &Host) -> Option<Driver> {
    let (handle, thread) = (host.handle(), Arc::clone(&host.threads()[0]));
    let place = thread.arbiter().clone();
    let driver = match scene {
        "args" => Driver::start(
            &place,
            async || work::args(),
            async |args: &CheckEventForSpam| {
                drop(std::hint::black_box(args.clone()));
            },
        ),
        "no_subscriber" => {
            let asked = async |handle: &DispatchHandle| {
                let args = CheckRegistrationForSpam::new(None, None, Vec::new(), None);
                assert!(handle.ask(args).await.steps.is_empty(), "nobody is asked");
            };
            Driver::start(&place, async move || handle, asked)
        }
        "inline" | "actor" => {
            let set_up = async move || (Worker::new(thread), work::args());
            let asked = async move |(worker, args): &(Worker, CheckEventForSpam)| {
                work::assert_passed(&handle.ask_on(worker, args.clone()).await, MODULES);
            };
            Driver::start(&place, set_up, asked)
        }
        "actor_ask" => {
            let asked = async move |args: &CheckEventForSpam| {
                work::assert_passed(&handle.ask(args.clone()).await, MODULES);
            };
            Driver::start(&place, async || work::args(), asked)
        }
        _ => return None,
    };
    Some(driver)
}
