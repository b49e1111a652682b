//! Background calls, on a paused clock.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ganglion_actors::{ModuleCommand, ModuleState, WorkerThreads};
use ganglion_api::{BackgroundCall, Module, ModuleApi, ModuleError, NoConfig};
use tokio::time::{Instant, sleep};

use crate::support::{LIMITS, Started, caches, factory, spec, start};

/// When background calls ran, in milliseconds since the instance was made, to the ten; and the api of the last instance.
/// Timers come up to two milliseconds late.
#[derive(Clone, Default)]
struct Log {
    runs: Arc<Mutex<Vec<u128>>>,
    api: Arc<Mutex<Option<ModuleApi<M>>>>,
}

thread_local! {
    // A test has a thread of its own, and so has its module: the current arbiter.
    static LOG: RefCell<Log> = RefCell::default();
}

fn log() -> Log {
    LOG.with(|log| log.borrow().clone())
}

impl Log {
    fn runs(&self) -> Vec<u128> {
        self.runs.lock().unwrap().clone()
    }

    fn api(&self) -> ModuleApi<M> {
        self.api.lock().unwrap().clone().unwrap()
    }
}

struct M {
    begun: Instant,
}

impl Module for M {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        *log().api.lock().unwrap() = Some(api.clone());
        Ok(Self { begun: Instant::now() })
    }
}

impl M {
    async fn run(&self) -> Result<(), ModuleError> {
        log()
            .runs
            .lock()
            .unwrap()
            .push(self.begun.elapsed().as_millis() / 10 * 10);
        Ok(())
    }
}

async fn started() -> (Started, ModuleApi<M>) {
    tokio::time::pause();
    let workers = WorkerThreads::current();
    let module = start(spec(factory::<M>(), LIMITS), &workers, &caches()).await.unwrap();
    std::mem::forget(workers);
    (module, log().api())
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[actix::test]
async fn nothing_runs_before_all_modules_are_loaded() {
    let (module, api) = started().await;
    module.set_loaded(false);
    api.run_as_background_process("now", M::run);
    api.delayed_background_call(millis(500), "later", M::run);
    sleep(millis(1000)).await;
    assert!(log().runs().is_empty());
    module.set_loaded(true);
    sleep(millis(1000)).await;
    // A delay counts from there.
    assert_eq!(log().runs(), [1000, 1500]);
}

#[actix::test]
async fn a_slow_loop_skips_ticks_keeps_its_phase_and_survives_errors() {
    let (_module, api) = started().await;
    let call = api.looping_background_call(millis(1000), "slow", async |m: &M| {
        m.run().await?;
        sleep(millis(2500)).await;
        Err(ModuleError::message("each of them"))
    });
    sleep(millis(8000)).await;
    call.cancel();
    sleep(millis(8000)).await;
    assert_eq!(log().runs(), [1000, 4000, 7000]);
}

#[actix::test]
async fn a_cancelled_call_ends_at_its_next_await() {
    let (_module, api) = started().await;
    let cancels: BackgroundCall = api.run_as_background_process("cancelled", async |m: &M| {
        m.run().await?;
        sleep(millis(100)).await;
        m.run().await
    });
    sleep(millis(50)).await;
    cancels.cancel();
    sleep(millis(1000)).await;
    assert_eq!(log().runs(), [0]);
}

#[actix::test]
async fn the_longest_interval_never_comes_and_none_is_a_millisecond() {
    let (_module, api) = started().await;
    api.looping_background_call(Duration::MAX, "never", M::run);
    api.delayed_background_call(Duration::MAX, "never", M::run);
    let often = api.looping_background_call(Duration::ZERO, "often", M::run);
    sleep(millis(30)).await;
    often.cancel();
    let runs = log().runs().len();
    assert!((2..=30).contains(&runs), "{runs}");
}

#[actix::test]
async fn more_calls_than_a_module_may_have_are_not_started() {
    let (_module, api) = started().await;
    for _ in 0..2000 {
        api.delayed_background_call(millis(10), "one of many", M::run);
    }
    // They have a pace.
    sleep(millis(1000)).await;
    assert_eq!(log().runs().len(), 1024);
    // They are over: there is room again.
    api.run_as_background_process("one more", M::run);
    sleep(millis(1)).await;
    assert_eq!(log().runs().len(), 1025);
}

#[actix::test]
async fn background_calls_end_with_their_incarnation() {
    let (module, api) = started().await;
    api.looping_background_call(millis(10), "loop", M::run);
    sleep(millis(35)).await;
    module.handle.command(ModuleCommand::Restart).await.unwrap();
    let runs = log().runs();
    sleep(millis(1000)).await;
    assert_eq!(log().runs(), runs);
    // The api of an instance that is gone starts nothing.
    api.run_as_background_process("of the old one", M::run);
    log().api().run_as_background_process("of the new one", M::run);
    sleep(millis(10)).await;
    assert_eq!(log().runs().len(), runs.len() + 1);
}

#[actix::test]
async fn a_background_call_that_panics_makes_the_module_anew() {
    let (module, api) = started().await;
    api.run_as_background_process("panics", async |_: &M| panic!("in the background"));
    while module.handle.snapshot().restarts == 0 {
        sleep(millis(1)).await;
    }
    assert_eq!(module.handle.state(), ModuleState::Running);
}
