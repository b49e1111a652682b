//! One scene of asking, run so often, for a machine that counts instructions: `cargo xtask cost`.
//!
//! Prints how often it allocated. What a chain costs is the difference between two runs of different length, so that what a
//! run does once is no part of it. All runs on one thread, so two runs of one length count the same.

use std::alloc::System;
use std::process::ExitCode;
use std::sync::Arc;

use ganglion::actors::{Tier, Worker};
use ganglion::api::CheckRegistrationForSpam;
use ganglion::dispatcher::AskContext;
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
    let Some(allocations) = actix::System::new().block_on(run(&scene, chains)) else {
        eprintln!("no scene has the name {scene:?}");
        return ExitCode::from(2);
    };
    println!("{allocations}");
    ExitCode::SUCCESS
}

/// How often a scene allocates; `None` if there is no such scene.
async fn run(scene: &str, chains: u64) -> Option<usize> {
    let tier = if scene == "inline" { Tier::Inline } else { Tier::Actor };
    let host = Host::here(tier, MODULES).await;
    let (handle, worker) = (host.handle(), Worker::new(Arc::clone(&host.threads()[0])));
    let args = Arc::new(work::args());
    let ask = async || {
        match scene {
            "no_subscriber" => {
                let args = CheckRegistrationForSpam::new(None, None, Vec::new(), None);
                assert!(handle.ask(args).await.steps.is_empty(), "nobody is asked");
            }
            "inline" | "actor" => work::assert_passed(&handle.ask_on(&worker, Arc::clone(&args)).await, MODULES),
            "actor_ask" => {
                let asked = handle.ask_in(AskContext::new(), Arc::clone(&args));
                work::assert_passed(&asked.await, MODULES);
            }
            _ => return None,
        }
        Some(())
    };
    for _ in 0..WARM_UP {
        ask().await?;
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..chains {
        ask().await?;
    }
    let change = region.change();
    Some(change.allocations + change.reallocations)
}
