//! A healthy module beside one that misbehaves, in every way and every tier: each of its calls is decided, and rightly;
//! and the neighbour serves again when it is calm. Counts and states only, no time: benches/isolation has that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ganglion::actors::{ModuleCommand, ModuleHandle, ModuleSnapshot, ModuleState, Tier};
use ganglion::api::testing::{Misbehave, Misbehaviour};
use ganglion::api::{Denial, FailureKind, JsonObject, RoomId, UserId, UserMayCreateRoom, UserMayPublishRoom, Verdict};
use ganglion::dispatcher::{Decision, Outcome};
use ganglion::{Ganglion, registry};

use crate::support::config_with;

/// How often each is asked in a round, and how many rounds there are.
const HEALTHY: usize = 10;
const NEIGHBOUR: usize = 6;
const ROUNDS: usize = 5;

/// Long past what a busy machine takes, and short of a test that hangs.
const BOUND: Duration = Duration::from_secs(20);

/// Ganglion with the two modules. A neighbour that keeps its calls waiting has a short budget, so that tests are short.
async fn start(misbehaviour: &Misbehaviour, waits: bool, tier: Tier) -> Ganglion {
    let budget = if waits { "30ms" } else { "20s" };
    let yaml = format!(
        "
server_name: example.com
dispatch: {{workers: 2, deadline: 20s}}
modules:
  - id: healthy
    module: ganglion.modules.Canned
    call_timeout: 20s
    config: {{answers: {{user_may_create_room: {{verdict: deny, errcode: HEALTHY}}}}}}
  - id: neighbour
    module: test.Neighbour
    tier: {tier}
    call_timeout: {budget}
    breaker: {{minimum: 5, window: 10, open_for: 20ms}}
    restart: {{max: 3, within: 60s, backoff: [1ms, 5ms]}}
    config: {{answers: {{user_may_publish_room: {{verdict: deny, errcode: NEIGHBOUR}}}}}}
"
    );
    let registry = registry().misbehaving("test.Neighbour", "ganglion.modules.Canned", misbehaviour.clone());
    Ganglion::start(&config_with(&yaml, &registry)).await.unwrap()
}

async fn ask_healthy(ganglion: &Ganglion) -> Decision<UserMayCreateRoom> {
    let bob = UserId::parse("@bob:example.com").unwrap();
    ganglion.ask(UserMayCreateRoom::new(bob, JsonObject::new())).await
}

/// Each call has other args: they are no poison input.
async fn ask_neighbour(ganglion: &Ganglion) -> Decision<UserMayPublishRoom> {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let user = format!("@u{}:example.com", ASKED.fetch_add(1, Ordering::Relaxed));
    let (user, room) = (
        UserId::parse(user).unwrap(),
        RoomId::parse("!room:example.com").unwrap(),
    );
    ganglion.ask(UserMayPublishRoom::new(user, room)).await
}

fn denied_by(errcode: &str) -> Verdict {
    Verdict::Deny(Denial::new(errcode))
}

/// Asks both at once, a few times; gives how many calls of the healthy module were decided rightly.
async fn ask_both(ganglion: &Ganglion, cell: &str) -> usize {
    let mut right = 0;
    for _ in 0..ROUNDS {
        let neighbour = (0..NEIGHBOUR).map(|_| {
            let ganglion = ganglion.clone();
            tokio::spawn(async move { ask_neighbour(&ganglion).await })
        });
        let neighbour: Vec<_> = neighbour.collect();
        let healthy = (0..HEALTHY).map(|_| ask_healthy(ganglion));
        for decision in join_all(healthy).await {
            let expected = Outcome::Decided(denied_by("HEALTHY"));
            assert_eq!(decision.outcome, expected, "{cell}: {decision:?}");
            right += 1;
        }
        for decision in join_all(neighbour).await {
            assert_eq!(decision.unwrap().decided_by.as_deref(), Some("neighbour"));
        }
    }
    right
}

/// Asks a calm neighbour until it answers; out of quarantine it is released.
async fn serves_again(ganglion: &Ganglion, neighbour: &ModuleHandle) {
    let begun = Instant::now();
    loop {
        if neighbour.state() == ModuleState::Quarantined {
            ganglion.command("neighbour", ModuleCommand::Release).await.unwrap();
        }
        let decision = ask_neighbour(ganglion).await;
        if decision.outcome == Outcome::Decided(denied_by("NEIGHBOUR")) {
            return;
        }
        assert!(begun.elapsed() < BOUND, "{decision:?}\n{:?}", neighbour.snapshot());
        tokio::task::yield_now().await;
    }
}

/// What must be seen of the neighbour after it misbehaved.
fn has_misbehaved(misbehave: Misbehave, neighbour: &ModuleSnapshot) -> bool {
    let failures = |kind| neighbour.failures.get(&kind).copied().unwrap_or(0);
    let tripped = neighbour.breakers.values().any(|breaker| breaker.trips > 0);
    match misbehave {
        Misbehave::Panic => failures(FailureKind::Panicked) > 0 && (neighbour.restarts > 0 || tripped),
        Misbehave::Error => failures(FailureKind::ModuleError) > 0 && tripped,
        Misbehave::Hang | Misbehave::Slow(_) => failures(FailureKind::DeadlineExceeded) > 0 && tripped,
        Misbehave::Block | Misbehave::Spin => neighbour.blocked > 0 && tripped,
        Misbehave::Leak | Misbehave::Flood => neighbour.failures.is_empty() && neighbour.restarts == 0,
        Misbehave::Garbage => neighbour.failures.keys().eq([&FailureKind::ModuleError]) && !tripped,
    }
}

/// Every misbehaviour in this tier.
async fn survives(tier: Tier) {
    for misbehave in Misbehave::ALL {
        let waits = matches!(
            misbehave,
            Misbehave::Hang | Misbehave::Slow(_) | Misbehave::Block | Misbehave::Spin
        );
        let misbehaviour = Misbehaviour::new(misbehave);
        let _calm = misbehaviour.calm_on_drop();
        let ganglion = start(&misbehaviour, waits, tier).await;
        let neighbour = ganglion.dispatch().module("neighbour").unwrap().clone();

        let both = tokio::time::timeout(BOUND, ask_both(&ganglion, &format!("{misbehave} x {tier}"))).await;
        assert_eq!(
            both,
            Ok(HEALTHY * ROUNDS),
            "{misbehave} x {tier}: every call is decided"
        );
        assert!(misbehaviour.misbehaved() > 0, "{misbehave} x {tier}");
        let begun = Instant::now();
        // The watchdog may come after the last decision.
        while !has_misbehaved(misbehave, &neighbour.snapshot()) {
            let snapshot = neighbour.snapshot();
            assert!(begun.elapsed() < BOUND, "{misbehave} x {tier}: {snapshot:?}");
            tokio::task::yield_now().await;
        }

        misbehaviour.calm();
        serves_again(&ganglion, &neighbour).await;
        let healthy = ganglion.dispatch().module("healthy").unwrap().snapshot();
        let spotless = healthy.failures.is_empty() && healthy.restarts == 0 && healthy.state == ModuleState::Running;
        assert!(spotless, "{misbehave} x {tier}: {healthy:?}");
        ganglion.shutdown();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_module_survives_every_inline_neighbour() {
    survives(Tier::Inline).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_module_survives_every_actor_neighbour() {
    survives(Tier::Actor).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_module_survives_every_neighbour_on_a_thread_of_its_own() {
    survives(Tier::Thread).await;
}
