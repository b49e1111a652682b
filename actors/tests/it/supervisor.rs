//! The supervisor, on a paused clock: restarts, drains, quarantine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ganglion_actors::{ModuleCommand, ModuleLimits, ModuleSpec, ModuleState, RestartSettings, Tier, WorkerThreads};
use ganglion_api::testing::{Misbehave, Misbehaviour};
use ganglion_api::{
    CallFailure, FailureKind, JsonObject, Module, ModuleApi, ModuleError, NoConfig, SpamCheckerCallbacks, UserId,
    UserMayCreateRoom, Verdict,
};
use tokio::time::Instant;

use crate::support::{LIMITS, Started, caches, factory, spec, start};

/// Passes after a second.
struct Slow {
    api: ModuleApi<Self>,
}

static MADE: AtomicUsize = AtomicUsize::new(0);

impl Module for Slow {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        MADE.fetch_add(1, Ordering::SeqCst);
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(Self::pass))?;
        Ok(Self { api: api.clone() })
    }
}

impl Slow {
    async fn pass(&self, _: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        self.api.sleep(Duration::from_secs(1)).await;
        Ok(Verdict::Pass)
    }
}

/// Starts [`Slow`] with a budget of ten seconds on the test's own arbiter, whose clock stands.
async fn started(misbehaviour: &Misbehaviour, change: impl FnOnce(&mut ModuleSpec)) -> Started {
    let limits = ModuleLimits {
        call_timeout: Duration::from_secs(10),
        ..LIMITS
    };
    let mut spec = spec(misbehaviour.clone().wrap(factory::<Slow>()), limits);
    change(&mut spec);
    let workers = WorkerThreads::current();
    let started = start(spec, &workers, &caches()).await.unwrap();
    std::mem::forget(workers);
    started
}

fn healthy() -> Misbehaviour {
    let misbehaviour = Misbehaviour::new(Misbehave::Panic);
    misbehaviour.calm();
    misbehaviour
}

async fn ask(module: &Started) -> Result<Verdict, CallFailure> {
    let create = UserMayCreateRoom::new(UserId::parse("@a:b").unwrap(), JsonObject::new());
    module.ask(create, Instant::now() + Duration::from_secs(60)).await
}

async fn kind(module: &Started) -> FailureKind {
    ask(module).await.unwrap_err().kind
}

/// Waits until something holds, for an hour of the paused clock at most, and says how long that took.
async fn until(holds: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(3600), "it never came to hold");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    begun.elapsed()
}

/// Waits until the module is in this state.
async fn until_state(module: &Started, state: ModuleState) {
    until(|| module.handle.state() == state).await;
}

/// Waits until the module runs again, and says how long that took.
async fn until_restarted(module: &Started, restarts: u64) -> Duration {
    until(|| module.handle.snapshot().restarts == restarts && module.handle.state() == ModuleState::Running).await
}

#[actix::test]
async fn the_first_restart_is_made_at_once_then_after_pauses_that_double_then_no_more() {
    tokio::time::pause();
    let panics = Misbehaviour::new(Misbehave::Panic);
    let module = started(&panics, |spec| {
        spec.restart = RestartSettings {
            max: 4,
            ..RestartSettings::default()
        };
    })
    .await;
    let mut pauses = Vec::new();
    for restarts in 1..=4 {
        assert_eq!(kind(&module).await, FailureKind::Panicked);
        pauses.push(until_restarted(&module, restarts).await.as_millis());
    }
    let expected = [0..=2, 50..=102, 100..=202, 200..=402];
    for (pause, expected) in pauses.iter().zip(expected) {
        assert!(expected.contains(pause), "{pauses:?}");
    }
    assert_eq!(kind(&module).await, FailureKind::Panicked);
    until_state(&module, ModuleState::Quarantined).await;
    assert_eq!(kind(&module).await, FailureKind::Quarantined);
    let snapshot = module.handle.snapshot();
    assert_eq!(snapshot.restarts, 4);
    let reason = snapshot.reason.unwrap();
    assert!(
        reason.starts_with("4 restarts within 1m were not enough: panicked in user_may_create_room: misbehaviour"),
        "{reason}"
    );

    // Released, it has its restarts again.
    let released = module.handle.command(ModuleCommand::Release).await.unwrap();
    assert_eq!((released.state, released.reason), (ModuleState::Running, None));
    assert_eq!(kind(&module).await, FailureKind::Panicked);
    assert!(until_restarted(&module, 5).await < Duration::from_millis(5));
}

#[actix::test]
async fn failures_that_are_far_apart_are_each_the_first() {
    tokio::time::pause();
    let module = started(&Misbehaviour::new(Misbehave::Panic), |_| {}).await;
    for restarts in 1..=10 {
        assert_eq!(kind(&module).await, FailureKind::Panicked);
        assert!(until_restarted(&module, restarts).await < Duration::from_millis(5));
        tokio::time::sleep(Duration::from_secs(61)).await;
    }
}

#[actix::test]
async fn calls_that_run_when_another_panics_go_on_to_their_end() {
    tokio::time::pause();
    for tier in Tier::ALL {
        let module = started(&Misbehaviour::new(Misbehave::Panic).on_call(2), |spec| spec.tier = tier).await;
        let (runs, panics) = tokio::join!(ask(&module), async {
            while module.handle.snapshot().in_flight == 0 {
                tokio::task::yield_now().await;
            }
            kind(&module).await
        });
        assert_eq!((runs, panics), (Ok(Verdict::Pass), FailureKind::Panicked), "{tier}");
        assert_eq!(module.handle.state(), ModuleState::Running, "{tier}");
    }
}

#[actix::test]
async fn a_restart_waits_for_calls_that_run_and_takes_no_new_ones() {
    tokio::time::pause();
    for tier in Tier::ALL {
        let module = started(&healthy(), |spec| spec.tier = tier).await;
        let (runs, ()) = tokio::join!(ask(&module), async {
            while module.handle.snapshot().in_flight == 0 {
                tokio::task::yield_now().await;
            }
            let made = MADE.load(Ordering::SeqCst);
            let (restarted, ()) = tokio::join!(module.handle.command(ModuleCommand::Restart), async {
                until_state(&module, ModuleState::Draining).await;
                assert_eq!(kind(&module).await, FailureKind::NotRunning, "{tier}");
            });
            assert_eq!(restarted.unwrap().state, ModuleState::Running, "{tier}");
            assert!(MADE.load(Ordering::SeqCst) > made, "{tier}");
        });
        assert_eq!(runs, Ok(Verdict::Pass), "{tier}");
        assert_eq!(module.handle.snapshot().restarts, 1, "{tier}");
        assert_eq!(ask(&module).await, Ok(Verdict::Pass), "{tier}");
    }
}

#[actix::test]
async fn a_drain_waits_no_longer_than_the_budget_of_a_call() {
    tokio::time::pause();
    let hangs = Misbehaviour::new(Misbehave::Hang).on_call(1);
    let module = started(&hangs, |_| {}).await;
    let begun = Instant::now();
    let (hangs, disabled) = tokio::join!(ask(&module), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        module.handle.command(ModuleCommand::Disable).await
    });
    // Its own budget ends first: the drain began a second later.
    assert_eq!(hangs.unwrap_err().kind, FailureKind::DeadlineExceeded);
    assert_eq!(disabled.unwrap().state, ModuleState::Disabled);
    assert!(
        begun.elapsed() <= Duration::from_millis(10_100),
        "{:?}",
        begun.elapsed()
    );
    assert!(module.subscriber::<UserMayCreateRoom>().is_none());
    let enabled = module.handle.command(ModuleCommand::Enable).await.unwrap();
    assert_eq!(enabled.state, ModuleState::Running);
    assert_eq!(ask(&module).await, Ok(Verdict::Pass));
}

#[actix::test]
async fn quarantine_ends_calls_that_run_at_once() {
    tokio::time::pause();
    let module = started(&healthy(), |_| {}).await;
    let begun = Instant::now();
    let (runs, quarantined) = tokio::join!(ask(&module), async {
        while module.handle.snapshot().in_flight == 0 {
            tokio::task::yield_now().await;
        }
        module.handle.command(ModuleCommand::Quarantine).await
    });
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(runs.unwrap_err().kind, FailureKind::Quarantined);
    let snapshot = quarantined.unwrap();
    assert_eq!(snapshot.state, ModuleState::Quarantined);
    assert_eq!(snapshot.reason.as_deref(), Some("an operator said so"));
    assert_eq!(kind(&module).await, FailureKind::Quarantined);
    // Once more changes nothing, and is answered at once.
    let again = module.handle.command(ModuleCommand::Quarantine).await.unwrap();
    assert_eq!((again.since, begun.elapsed()), (snapshot.since, Duration::ZERO));
    for command in [ModuleCommand::Enable, ModuleCommand::Restart] {
        let refused = module.handle.command(command).await.unwrap_err();
        assert_eq!(refused.to_string(), "the module is quarantined: release it");
    }
}

#[actix::test]
async fn a_command_to_restart_does_not_wait_for_the_pause() {
    tokio::time::pause();
    let module = started(&Misbehaviour::new(Misbehave::Panic), |spec| {
        spec.restart.backoff = (Duration::from_secs(1000), Duration::from_secs(1000));
        spec.restart.within = Duration::from_secs(10_000);
    })
    .await;
    assert_eq!(kind(&module).await, FailureKind::Panicked);
    until_restarted(&module, 1).await;
    assert_eq!(kind(&module).await, FailureKind::Panicked);
    until_state(&module, ModuleState::Restarting).await;
    let begun = Instant::now();
    let restarted = module.handle.command(ModuleCommand::Restart).await.unwrap();
    assert_eq!(
        (restarted.state, begun.elapsed()),
        (ModuleState::Running, Duration::ZERO)
    );
    assert_eq!(restarted.restarts, 2);
}

#[actix::test]
async fn a_module_that_is_not_enabled_is_made_when_it_is() {
    tokio::time::pause();
    let module = started(&healthy(), |spec| spec.enabled = false).await;
    assert!(module.subscriber::<UserMayCreateRoom>().is_none());
    let snapshot = module.handle.snapshot();
    assert_eq!(
        (snapshot.state, snapshot.reason.as_deref()),
        (ModuleState::Disabled, Some("disabled in the config"))
    );
    module.handle.command(ModuleCommand::Enable).await.unwrap();
    assert_eq!(ask(&module).await, Ok(Verdict::Pass));

    let unknown = started(&healthy(), |spec| (spec.enabled, spec.factory) = (false, None)).await;
    let refused = unknown.handle.command(ModuleCommand::Enable).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the module is disabled: its path is not known, or its config is not readable"
    );
}
