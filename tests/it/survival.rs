//! What each tier survives: a row of the table in docs/semantics.md, a test or more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ganglion::actors::{ModuleState, most_stuck_threads};
use ganglion::api::testing::{Misbehave, Misbehaviour};
use ganglion::api::{
    Cached, Module, ModuleApi, ModuleError, NoConfig, SpamCheckerCallbacks, UserMayCreateRoom, UserMayPublishRoom,
    Verdict, WebRequest, WebResponse, json_response,
};
use ganglion::registry;
use serde_json::{Value, json};

use crate::support::{TestServer, canned, config_with, poll_until, request, results, with_modules};

const TIERS: [&str; 3] = ["inline", "actor", "thread"];

/// How often a scene was asked.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// A module `m` that answers `user_may_publish_room` and misbehaves, and beside it one that denies `user_may_create_room`
/// and one that is after `m` on its route. There is one worker, so whoever blocks it blocks all, but for its replacement.
struct Scene {
    server: TestServer,
    misbehaviour: Misbehaviour,
}

impl Scene {
    fn new(tier: &str, misbehaviour: Misbehaviour) -> Self {
        Self::with(tier, misbehaviour, &json!({}))
    }

    /// With these keys of the module.
    fn with(tier: &str, misbehaviour: Misbehaviour, keys: &Value) -> Self {
        Self::on_workers(1, tier, misbehaviour, keys)
    }

    fn on_workers(workers: usize, tier: &str, misbehaviour: Misbehaviour, keys: &Value) -> Self {
        let mut m = canned("m", &json!({"user_may_publish_room": {"verdict": "pass"}}));
        m["module"] = "test.M".into();
        m["tier"] = tier.into();
        m["call_timeout"] = "100ms".into();
        for (key, value) in keys.as_object().unwrap() {
            m[key] = value.clone();
        }
        let modules = json!([
            m,
            canned("healthy", &json!({"user_may_create_room": {"verdict": "deny"}})),
            canned("after", &json!({"user_may_publish_room": {"verdict": "deny"}})),
        ]);
        let registry = registry().misbehaving("test.M", "ganglion.modules.Canned", misbehaviour.clone());
        let yaml = with_modules(&modules.to_string()).replace("workers: 2", &format!("workers: {workers}"));
        Self {
            server: TestServer::serve(config_with(&yaml, &registry)),
            misbehaviour,
        }
    }

    /// Asks `m`, and `after`. Each call has other args: they are no poison input.
    fn ask(&self) -> Value {
        let user = format!("@u{}:example.com", ASKED.fetch_add(1, Ordering::SeqCst));
        let publish = json!({"user_id": user, "room_id": "!r:example.com"});
        self.server.decide("user_may_publish_room", &publish)
    }

    /// What `m` did.
    fn result(&self) -> Value {
        self.ask()["steps"][0]["result"].clone()
    }

    /// The healthy module is asked, and decides.
    fn neighbour_decides(&self) {
        let decision = self
            .server
            .decide("user_may_create_room", &json!({"user_id": "@bob:example.com"}));
        assert_eq!(decision["decided_by"], "healthy", "{decision}");
        assert_eq!(decision["steps"][0]["result"], "deny", "{decision}");
    }

    fn module(&self) -> &ganglion::actors::ModuleHandle {
        self.server.ganglion.dispatch().module("m").unwrap()
    }

    fn breaker(&self) -> Value {
        json!(self.module().snapshot())["breakers"]["user_may_publish_room"].clone()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Also when a test fails: its threads end.
        self.misbehaviour.calm();
    }
}

#[test]
fn a_panic_is_contained_and_the_module_is_made_anew() {
    for tier in TIERS {
        let scene = Scene::new(tier, Misbehaviour::new(Misbehave::Panic).on_call(1));
        let decision = scene.ask();
        assert_eq!(decision["steps"][0]["result"], "panicked", "{tier}: {decision}");
        scene.neighbour_decides();
        poll_until(|| scene.module().state() == ModuleState::Running);
        assert_eq!(scene.module().snapshot().restarts, 1, "{tier}");
        assert_eq!(scene.result(), "pass", "{tier}");
    }
}

#[test]
fn a_call_that_never_ends_is_left_at_its_budget_and_the_next_module_asked() {
    for tier in TIERS {
        let policy = json!({"on_failure": [{"then": "pass"}]});
        let scene = Scene::with(tier, Misbehaviour::new(Misbehave::Hang), &policy);
        let decision = scene.ask();
        assert_eq!(
            decision["steps"][0]["result"], "deadline_exceeded",
            "{tier}: {decision}"
        );
        assert_eq!(decision["decided_by"], "after", "{tier}: {decision}");
        scene.neighbour_decides();
        assert_eq!(
            (scene.module().state(), scene.module().snapshot().blocked),
            (ModuleState::Running, 0)
        );
    }
}

#[test]
fn a_worker_that_a_module_blocks_is_replaced_and_its_breaker_opens() {
    for (tier, misbehave) in [
        ("inline", Misbehave::Block),
        ("actor", Misbehave::Block),
        ("actor", Misbehave::Spin),
    ] {
        let policy = json!({"on_failure": [{"then": "pass"}]});
        let scene = Scene::with(tier, Misbehaviour::new(misbehave).on_call(1), &policy);
        // The chain goes on with the fresh worker.
        let decision = scene.ask();
        let expected = [("m", "deadline_exceeded"), ("after", "deny")];
        assert_eq!(results(&decision), expected, "{tier}: {decision}");
        assert_eq!(decision["decided_by"], "after", "{tier}: {decision}");
        scene.neighbour_decides();
        let snapshot = scene.module().snapshot();
        assert_eq!(
            (snapshot.blocked, snapshot.stuck_threads, snapshot.in_flight),
            (1, 1, 0),
            "{tier}"
        );
        let breaker = scene.breaker();
        assert_eq!(
            (&breaker["state"], &breaker["reason"]),
            (&json!("open"), &json!("blocked_thread")),
            "{tier}"
        );
        assert_eq!(scene.result(), "breaker_open", "{tier}");
        // The stuck thread ends as soon as it can.
        scene.misbehaviour.calm();
        poll_until(|| scene.module().stuck_threads() == 0);
        assert_eq!(scene.module().state(), ModuleState::Running, "{tier}");
    }
}

#[test]
fn calls_that_wait_for_a_blocked_worker_are_answered_by_the_fresh_one() {
    for tier in ["inline", "actor"] {
        let scene = Scene::new(tier, Misbehaviour::new(Misbehave::Block).on_call(1));
        std::thread::scope(|scope| {
            let blocks = scope.spawn(|| scene.result());
            poll_until(|| scene.misbehaviour.running() == 1);
            // The one worker is blocked now.
            let waits: Vec<_> = (0..10).map(|_| scope.spawn(|| scene.neighbour_decides())).collect();
            for waits in waits {
                waits.join().unwrap();
            }
            assert_eq!(blocks.join().unwrap(), "deadline_exceeded", "{tier}");
        });
        assert_eq!(scene.misbehaviour.misbehaved(), 1, "{tier}: the call was made twice");
    }
}

#[test]
fn a_module_that_blocks_whatever_it_gets_leaves_a_worker_to_the_others() {
    for tier in ["inline", "actor"] {
        // Long enough that the neighbour is asked while no thread is given up yet.
        let keys = json!({"call_timeout": "3s"});
        let scene = Scene::on_workers(2, tier, Misbehaviour::new(Misbehave::Block), &keys);
        std::thread::scope(|scope| {
            let blocks: Vec<_> = (0..4).map(|_| scope.spawn(|| scene.result())).collect();
            poll_until(|| scene.misbehaviour.running() == 1);
            for _ in 0..50 {
                scene.neighbour_decides();
            }
            let snapshot = scene.module().snapshot();
            assert_eq!(
                (snapshot.blocked, scene.misbehaviour.running()),
                (0, 1),
                "{tier}: others waited"
            );
            scene.misbehaviour.calm();
            for blocks in blocks {
                assert_eq!(blocks.join().unwrap(), "pass", "{tier}");
            }
        });
    }
}

#[test]
fn who_waits_for_a_permit_on_a_blocked_worker_does_not_take_it_along() {
    let slow = Misbehaviour::new(Misbehave::Slow(Duration::from_millis(50)));
    let blocks = Misbehaviour::new(Misbehave::Block).on_call(1);
    let _calm = blocks.calm_on_drop();
    let mut innocent = canned("innocent", &json!({"user_may_create_room": {"verdict": "deny"}}));
    (innocent["module"], innocent["max_in_flight"]) = ("test.Slow".into(), 1.into());
    let mut m = canned("m", &json!({"user_may_publish_room": {"verdict": "pass"}}));
    (m["module"], m["call_timeout"]) = ("test.Blocks".into(), "100ms".into());
    let registry = registry()
        .misbehaving("test.Slow", "ganglion.modules.Canned", slow.clone())
        .misbehaving("test.Blocks", "ganglion.modules.Canned", blocks.clone());
    let yaml = with_modules(&json!([innocent, m]).to_string()).replace("workers: 2", "workers: 1");
    let server = TestServer::serve(config_with(&yaml, &registry));
    let create = json!({"user_id": "@bob:example.com"});
    let module = server.ganglion.dispatch().module("innocent").unwrap();
    std::thread::scope(|scope| {
        let (server, create) = (&server, &create);
        for _ in 0..4 {
            scope.spawn(move || server.decide("user_may_create_room", create));
        }
        // One is at an await, the others wait for its permit, all on the one worker.
        poll_until(|| module.snapshot().in_flight == 1 && module.snapshot().queued == 3);
        let publish = json!({"user_id": "@bob:example.com", "room_id": "!r:example.com"});
        server.decide("user_may_publish_room", &publish);
    });
    poll_until(|| server.ganglion.dispatch().module("m").unwrap().snapshot().blocked == 1);
    let decision = server.decide("user_may_create_room", &create);
    assert_eq!(decision["decided_by"], "innocent", "{decision}");
    assert_eq!((module.snapshot().in_flight, module.snapshot().queued), (0, 0));
}

#[test]
fn a_module_with_too_many_stuck_threads_goes_into_quarantine() {
    for tier in TIERS {
        let keys = json!({"breaker": {"mode": "disabled"}, "restart": {"max": 1000}});
        let scene = Scene::with(tier, Misbehaviour::new(Misbehave::Block), &keys);
        for stuck in 1..=most_stuck_threads() {
            assert_eq!(scene.result(), "deadline_exceeded", "{tier}");
            let restarts = if tier == "thread" { stuck } else { 0 };
            poll_until(|| {
                let snapshot = scene.module().snapshot();
                let counts = (snapshot.stuck_threads, usize::try_from(snapshot.restarts).unwrap());
                counts == (stuck, restarts) && snapshot.state == ModuleState::Running
            });
            scene.neighbour_decides();
        }
        let last = scene.result();
        assert!(last == "deadline_exceeded" || last == "quarantined", "{tier}: {last}");
        poll_until(|| scene.module().state() == ModuleState::Quarantined);
        let reason = scene.module().snapshot().reason.unwrap();
        assert!(reason.contains("of its threads are stuck"), "{tier}: {reason}");
        assert_eq!(scene.result(), "quarantined", "{tier}");
        scene.neighbour_decides();
    }
}

#[test]
fn a_module_with_a_thread_of_its_own_blocks_or_spins_without_taking_a_worker() {
    for misbehave in [Misbehave::Block, Misbehave::Spin] {
        // Long enough that the neighbour is asked while the thread is not given up yet.
        let keys = json!({"call_timeout": "2s"});
        let scene = Scene::with("thread", Misbehaviour::new(misbehave).on_call(1), &keys);
        std::thread::scope(|scope| {
            let blocks = scope.spawn(|| scene.result());
            poll_until(|| scene.misbehaviour.running() == 1);
            for _ in 0..10 {
                scene.neighbour_decides();
            }
            assert_eq!(
                scene.module().stuck_threads(),
                0,
                "{misbehave}: the neighbour waited for the watchdog"
            );
            assert_eq!(blocks.join().unwrap(), "deadline_exceeded", "{misbehave}");
        });
        // Its thread is replaced, and it is made anew there.
        poll_until(|| scene.module().snapshot().restarts == 1 && scene.module().state() == ModuleState::Running);
        let snapshot = scene.module().snapshot();
        assert_eq!(
            (snapshot.stuck_threads, snapshot.blocked, snapshot.in_flight),
            (1, 1, 0),
            "{misbehave}"
        );
        assert_eq!(scene.result(), "pass", "{misbehave}");
    }
}

#[test]
fn a_breaker_refuses_calls_after_too_many_failures_and_closes_after_a_good_probe() {
    for tier in TIERS {
        let breaker = json!({"breaker": {"window": 4, "minimum": 4, "open_for": "50ms"}});
        let scene = Scene::with(tier, Misbehaviour::new(Misbehave::Error), &breaker);
        for _ in 0..4 {
            assert_eq!(scene.result(), "module_error", "{tier}");
        }
        assert_eq!(scene.result(), "breaker_open", "{tier}");
        assert_eq!(scene.breaker()["reason"], "failure_rate", "{tier}");
        // A probe that fails opens it again.
        poll_until(|| scene.result() == "module_error");
        assert_eq!(scene.breaker()["reason"], "probe_failed", "{tier}");
        scene.misbehaviour.calm();
        poll_until(|| scene.result() == "pass");
        assert_eq!(scene.breaker()["state"], "closed", "{tier}");
        // Nothing of this concerns the module's state.
        assert_eq!(
            (scene.module().state(), scene.module().snapshot().restarts),
            (ModuleState::Running, 0)
        );
    }
}

#[test]
fn a_module_that_panics_too_often_goes_into_quarantine_until_it_is_released() {
    for tier in TIERS {
        let keys = json!({"restart": {"max": 2, "backoff": ["1ms", "2ms"]}, "breaker": {"mode": "disabled"}});
        let scene = Scene::with(tier, Misbehaviour::new(Misbehave::Panic), &keys);
        poll_until(|| scene.result() == "quarantined");
        let snapshot = json!(scene.module().snapshot());
        let reason = snapshot["reason"].as_str().unwrap();
        assert!(
            reason.starts_with("2 restarts within 1m were not enough: panicked in "),
            "{tier}: {reason}"
        );
        assert_eq!(
            (&snapshot["state"], &snapshot["restarts"]),
            (&json!("quarantined"), &json!(2)),
            "{tier}"
        );
        assert_eq!(snapshot["failures"]["panicked"], 3, "{tier}");
        scene.misbehaviour.calm();
        assert_eq!(scene.result(), "quarantined", "{tier}");
        let released = scene.server.post("/_ganglion/admin/v1/modules/m/release", b"");
        assert_eq!(
            (released.status, &released.json()["state"]),
            (200, &json!("running")),
            "{tier}"
        );
        assert_eq!(scene.result(), "pass", "{tier}");
    }
}

#[test]
fn a_constructor_that_panics_or_fails_or_blocks_is_another_failed_attempt() {
    for tier in TIERS {
        for misbehave in [Misbehave::Panic, Misbehave::Error, Misbehave::Block] {
            let keys = json!({"restart": {"max": 3, "backoff": ["1ms", "2ms"]}, "start_timeout": "50ms"});
            // The second time, when it is made anew.
            let scene = Scene::with(tier, Misbehaviour::new(misbehave).on_call(2).in_constructor(), &keys);
            let restarted = scene.server.post("/_ganglion/admin/v1/modules/m/restart", b"");
            assert_eq!(restarted.status, 200, "{tier} {misbehave}: {restarted:?}");
            scene.neighbour_decides();
            poll_until(|| scene.module().state() == ModuleState::Running);
            assert_eq!(scene.misbehaviour.misbehaved(), 1, "{tier} {misbehave}");
            assert_eq!(scene.module().snapshot().restarts, 2, "{tier} {misbehave}");
            assert_eq!(scene.result(), "pass", "{tier} {misbehave}");
        }
    }
}

#[test]
fn a_drop_that_panics_or_blocks_holds_nobody_up() {
    for tier in TIERS {
        for misbehave in [Misbehave::Panic, Misbehave::Block, Misbehave::Spin] {
            let scene = Scene::new(tier, Misbehaviour::new(misbehave).on_call(1).in_drop());
            let restarted = scene.server.post("/_ganglion/admin/v1/modules/m/restart", b"");
            assert_eq!(restarted.json()["state"], "running", "{tier} {misbehave}");
            poll_until(|| scene.misbehaviour.misbehaved() == 1);
            scene.neighbour_decides();
            assert_eq!(scene.result(), "pass", "{tier} {misbehave}");
        }
    }
}

#[test]
fn a_background_call_that_panics_or_blocks_is_contained() {
    for tier in TIERS {
        let scene = Scene::new(tier, Misbehaviour::new(Misbehave::Panic).on_call(1).in_background());
        poll_until(|| scene.module().snapshot().restarts == 1 && scene.module().state() == ModuleState::Running);
        scene.neighbour_decides();
        assert_eq!(scene.result(), "pass", "{tier}");

        let scene = Scene::new(tier, Misbehaviour::new(Misbehave::Block).on_call(1).in_background());
        poll_until(|| scene.module().snapshot().blocked == 1);
        let restarts = u64::from(tier == "thread");
        poll_until(|| scene.module().snapshot().restarts == restarts && scene.module().state() == ModuleState::Running);
        scene.neighbour_decides();
        assert_eq!(scene.result(), "pass", "{tier}");
    }
}

/// Ends the actix system of its thread.
struct EndsItsThread;

impl Module for EndsItsThread {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let ends = async |_: &Self, _: &UserMayPublishRoom| {
            actix_web::rt::System::current().stop();
            std::future::pending().await
        };
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_publish_room(ends))?;
        api.register_web_resource("/_synapse/client/ends", async |_: &Self, _| {
            actix_web::rt::System::current().stop();
            std::future::pending().await
        })?;
        Ok(Self)
    }
}

#[test]
fn a_thread_that_a_module_ends_is_replaced() {
    for tier in TIERS {
        let modules = json!([
            {"module": "test.Ends", "id": "m", "tier": tier, "call_timeout": "200ms"},
            canned("healthy", &json!({"user_may_create_room": {"verdict": "deny"}})),
        ]);
        let yaml = with_modules(&modules.to_string()).replace("workers: 2", "workers: 1");
        let server = TestServer::serve(config_with(&yaml, &registry().with::<EndsItsThread>("test.Ends")));
        let publish = json!({"user_id": "@bob:example.com", "room_id": "!r:example.com"});
        for _ in 0..3 {
            let decision = server.decide("user_may_publish_room", &publish);
            let result = decision["steps"][0]["result"].as_str().unwrap();
            assert!(
                ["deadline_exceeded", "not_running"].contains(&result),
                "{tier}: {decision}"
            );
            let create = server.decide("user_may_create_room", &json!({"user_id": "@bob:example.com"}));
            assert_eq!(create["decided_by"], "healthy", "{tier}: {create}");
            poll_until(|| server.ganglion.dispatch().is_ready());
        }
    }
}

/// Answers a web resource, counts in the background, and caches.
struct Bystander {
    api: ModuleApi<Self>,
}

static TICKS: AtomicUsize = AtomicUsize::new(0);

impl Module for Bystander {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_web_resource("/_synapse/client/bystander", Self::respond)?;
        api.looping_background_call(Duration::from_millis(1), "tick", async |_: &Self| {
            TICKS.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        Ok(Self { api: api.clone() })
    }
}

impl Bystander {
    async fn respond(&self, _: WebRequest) -> Result<WebResponse, ModuleError> {
        json_response(200, &self.api.server_name())
    }
}

#[test]
fn web_resources_and_background_calls_of_others_go_on_when_a_worker_is_blocked() {
    let misbehaviour = Misbehaviour::new(Misbehave::Block).on_call(1);
    let mut m = canned("m", &json!({"user_may_publish_room": {"verdict": "pass"}}));
    m["module"] = "test.M".into();
    m["call_timeout"] = "100ms".into();
    let modules = json!([m, {"module": "test.Bystander"}]);
    let registry = registry().with::<Bystander>("test.Bystander").misbehaving(
        "test.M",
        "ganglion.modules.Canned",
        misbehaviour.clone(),
    );
    let yaml = with_modules(&modules.to_string()).replace("workers: 2", "workers: 1");
    let server = TestServer::serve(config_with(&yaml, &registry));
    let _calm = misbehaviour.calm_on_drop();
    std::thread::scope(|scope| {
        let publish = json!({"user_id": "@bob:example.com", "room_id": "!r:example.com"});
        let server = &server;
        scope.spawn(move || server.decide("user_may_publish_room", &publish));
        poll_until(|| misbehaviour.running() == 1);
        // The one worker is blocked: the request waits for it, and is answered by the fresh one.
        let answer = request("GET", server.http, "/_synapse/client/bystander", &[], b"");
        assert_eq!((answer.status, answer.text.as_str()), (200, "\"example.com\""));
        let ticks = TICKS.load(Ordering::SeqCst);
        poll_until(|| TICKS.load(Ordering::SeqCst) > ticks + 3);
    });
}

/// Blocks in its cached function, on the first call, until it is released.
struct Computes {
    value: Cached<String, usize>,
}

static RELEASED: AtomicBool = AtomicBool::new(false);

impl Module for Computes {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        static FIRST: AtomicUsize = AtomicUsize::new(0);
        let value = api.cached(
            "value",
            ganglion::api::CacheOptions::new(),
            async |_: &Self, key: String| {
                if FIRST.fetch_add(1, Ordering::SeqCst) == 0 {
                    while !RELEASED.load(Ordering::SeqCst) {
                        std::thread::park_timeout(Duration::from_millis(1));
                    }
                }
                Ok(key.len())
            },
        )?;
        let create = async |m: &Self, create: &UserMayCreateRoom| {
            m.value.get(create.user_id.to_string()).await?;
            Ok(Verdict::Pass)
        };
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(create))?;
        Ok(Self { value })
    }
}

#[test]
fn a_cached_function_that_blocks_its_thread_is_computed_anew() {
    let modules = json!([{"module": "test.Computes", "id": "m", "call_timeout": "100ms"}]);
    let yaml = with_modules(&modules.to_string()).replace("workers: 2", "workers: 1");
    let server = TestServer::serve(config_with(&yaml, &registry().with::<Computes>("test.Computes")));
    let create = json!({"user_id": "@bob:example.com"});
    let blocked = server.decide("user_may_create_room", &create);
    assert_ne!(blocked["steps"][0]["result"], "pass", "{blocked}");
    poll_until(|| server.decide("user_may_create_room", &create)["steps"][0]["result"] == "pass");
    let snapshot = server.ganglion.dispatch().module("m").unwrap().snapshot();
    assert_eq!((snapshot.blocked, snapshot.stuck_threads), (1, 1));
    RELEASED.store(true, Ordering::SeqCst);
}

#[test]
fn a_flood_of_background_calls_is_bounded() {
    for tier in TIERS {
        let scene = Scene::new(tier, Misbehaviour::new(Misbehave::Flood));
        for _ in 0..20 {
            scene.ask();
            scene.neighbour_decides();
        }
        assert_eq!(scene.module().state(), ModuleState::Running, "{tier}");
    }
}

/// Where the code of [`Everywhere`] ran.
static RAN: Mutex<BTreeMap<&str, BTreeSet<String>>> = Mutex::new(BTreeMap::new());

fn ran(what: &'static str) {
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    RAN.lock().unwrap().entry(what).or_default().insert(thread);
}

/// Says where it is shown and dropped.
#[derive(Debug)]
struct Traced(&'static str);

impl std::fmt::Display for Traced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        ran(self.0);
        f.write_str(self.0)
    }
}

impl std::error::Error for Traced {}

impl Drop for Traced {
    fn drop(&mut self) {
        ran(self.0);
    }
}

/// Code wherever a module can have some: in drops of what it keeps, captures, caches, answers, and in its errors.
struct Everywhere {
    _own: Traced,
    values: Cached<String, Traced>,
}

impl Module for Everywhere {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let captured = Traced("capture of a callback");
        let publish = async move |m: &Self, publish: &UserMayPublishRoom| {
            let _captured = &captured;
            m.values.get(publish.user_id.to_string()).await?;
            Ok(Verdict::Pass)
        };
        let create = async |_: &Self, _: &UserMayCreateRoom| Err(Traced("error of a callback"))?;
        let callbacks = SpamCheckerCallbacks::new();
        api.register_spam_checker_callbacks(callbacks.user_may_publish_room(publish).user_may_create_room(create))?;
        api.register_web_resource("/_synapse/client/everywhere", async |_: &Self, _| {
            let mut response = json_response(200, &"x")?;
            response
                .extensions_mut()
                .insert(Arc::new(Traced("extension of an answer")));
            Ok(response)
        })?;
        let captured = Traced("capture of a loop");
        api.looping_background_call(Duration::from_millis(1), "errors", async move |_: &Self| {
            let _captured = &captured;
            Err(Traced("error of a background call"))?
        });
        let options = ganglion::api::CacheOptions::new().max_entries(1);
        let values = api.cached("values", options, async |_: &Self, _| Ok(Traced("cached value")))?;
        Ok(Self {
            _own: Traced("instance"),
            values,
        })
    }
}

#[test]
fn the_code_of_a_module_runs_on_no_thread_that_others_need() {
    let modules = json!([{"module": "test.Everywhere", "id": "m"}]);
    let registry = registry().with::<Everywhere>("test.Everywhere");
    let server = TestServer::serve(config_with(&with_modules(&modules.to_string()), &registry));
    for round in 0..20 {
        let publish = json!({"user_id": format!("@u{round}:example.com"), "room_id": "!r:example.com"});
        server.decide("user_may_publish_room", &publish);
        server.decide("user_may_create_room", &json!({"user_id": "@bob:example.com"}));
        request("GET", server.http, "/_synapse/client/everywhere", &[], b"");
        request("GET", server.admin, "/metrics", &[], b"");
        if round % 5 == 0 {
            server.post("/_ganglion/admin/v1/modules/m/restart", b"");
        }
    }
    server.post("/_ganglion/admin/v1/modules/m/quarantine", b"");
    let kinds = [
        "cached value",
        "capture of a callback",
        "capture of a loop",
        "error of a background call",
        "error of a callback",
        "extension of an answer",
        "instance",
    ];
    poll_until(|| RAN.lock().unwrap().keys().copied().eq(kinds));
    drop(server);
    for (what, threads) in &*RAN.lock().unwrap() {
        for thread in threads {
            let own = ["worker ", "make ", "drop"].iter().any(|own| thread.starts_with(own));
            assert!(own, "{what} on the thread {thread:?}");
        }
    }
}

#[test]
fn a_web_resource_that_ends_its_thread_is_an_error_answer() {
    for tier in TIERS {
        let modules = json!([{"module": "test.Ends", "id": "m", "tier": tier, "call_timeout": "200ms"}]);
        let registry = registry().with::<EndsItsThread>("test.Ends");
        let server = TestServer::serve(config_with(&with_modules(&modules.to_string()), &registry));
        for _ in 0..2 {
            poll_until(|| server.ganglion.dispatch().is_ready());
            let answer = request("GET", server.http, "/_synapse/client/ends", &[], b"");
            assert!([503, 504].contains(&answer.status), "{tier}: {answer:?}");
        }
    }
}
