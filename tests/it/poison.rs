//! Poison input: args that make a module panic or hang three times bypass it.

use std::time::Duration;

use ganglion::actors::{ModuleHandle, ModuleState, Tier};
use ganglion::api::testing::{Misbehave, Misbehaviour};
use ganglion::registry;
use serde_json::{Value, json};

use crate::admin::{MODULES, follow, get};
use crate::metrics::scrape;
use crate::support::{TestServer, canned, config_with, poll_until, refused, results, with_modules};

const TIERS: [&str; 3] = ["inline", "actor", "thread"];
const EVENT: &str = "check_event_for_spam";

/// A module `m` that misbehaves, and after it on its routes one that does not. What `m` fails with passes, but for
/// poison input, which is denied. There is one worker, if a test does not say.
struct Scene {
    server: TestServer,
    misbehaviour: Misbehaviour,
}

impl Scene {
    /// It misbehaves for every event with the body `bad`.
    fn new(tier: &str, misbehave: Misbehave) -> Self {
        let misbehaviour = Misbehaviour::new(misbehave).for_key("bad");
        let nothing = Misbehaviour::new(misbehave).every(0);
        // The first panic of a process takes its time, to print where it was.
        let budget = if misbehave == Misbehave::Panic { "20s" } else { "400ms" };
        Self::with(tier, misbehaviour, nothing, &json!({"call_timeout": budget}))
    }

    /// It misbehaves in two ways, and has these keys.
    fn with(tier: &str, misbehaviour: Misbehaviour, other: Misbehaviour, keys: &Value) -> Self {
        Self::on_workers(1, tier, misbehaviour, other, keys)
    }

    fn on_workers(workers: usize, tier: &str, misbehaviour: Misbehaviour, other: Misbehaviour, keys: &Value) -> Self {
        let passes = json!({"verdict": "pass"});
        let answers = json!({EVENT: passes, "should_drop_federated_event": passes});
        let mut m = canned("m", &answers);
        m["module"] = "test.M".into();
        m["tier"] = tier.into();
        m["breaker"] = json!({"mode": "disabled"});
        m["call_timeout"] = "400ms".into();
        m["restart"] = json!({"max": 1000, "backoff": ["1ms", "2ms"]});
        m["on_failure"] = json!([{"kind": "quarantined", "then": "deny"}, {"then": "pass"}]);
        for (key, value) in keys.as_object().unwrap() {
            m[key] = value.clone();
        }
        let modules = json!([m, canned("after", &answers)]);
        let registry = registry()
            .misbehaving("test.Other", "ganglion.modules.Canned", other)
            .misbehaving("test.M", "test.Other", misbehaviour.clone());
        let yaml = with_modules(&modules.to_string()).replace("workers: 2", &format!("workers: {workers}"));
        Self {
            server: TestServer::serve(config_with(&yaml, &registry)),
            misbehaviour,
        }
    }

    /// Asks about an event with this body. It is another event each time, as far as the homeserver is concerned.
    fn ask(&self, callback: &str, body: &str, attempt: u64) -> Value {
        let event = json!({
            "type": "m.room.message", "sender": "@bob:example.com", "room_id": "!r:example.com",
            "content": {"body": body}, "event_id": format!("$e{attempt}"), "origin_server_ts": 1_766_000_000_000 + attempt,
            "depth": attempt, "unsigned": {"age": attempt},
        });
        self.server.decide(callback, &json!({"event": event}))
    }

    fn module(&self) -> &ModuleHandle {
        self.server.ganglion.dispatch().module("m").unwrap()
    }

    /// What it did is over, after this many threads that were given up, and it takes calls again.
    fn recover(&self, blocked: u64) {
        poll_until(|| {
            let snapshot = self.module().snapshot();
            let restarted = snapshot.tier != Tier::Thread || snapshot.restarts >= blocked;
            snapshot.blocked == blocked && restarted
        });
        self.misbehaviour.calm();
        poll_until(|| self.module().stuck_threads() == 0 && self.module().state() == ModuleState::Running);
        self.misbehaviour.resume();
    }

    fn poison(&self) -> Value {
        get(&self.server, &format!("{MODULES}/m")).json()["poison"].clone()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Also when a test fails: its threads end.
        self.misbehaviour.calm();
    }
}

/// After three calls that end with this failure, the fourth does not reach the module.
fn three_strikes(tier: &str, misbehave: Misbehave, cause: &str) {
    let scene = Scene::new(tier, misbehave);
    for attempt in 1..=3 {
        assert_eq!(scene.poison(), json!([]), "{tier} {misbehave}");
        let decision = scene.ask(EVENT, "bad", attempt);
        assert_eq!(
            results(&decision),
            [("m", cause), ("after", "pass")],
            "{tier} {misbehave}: {decision}"
        );
        scene.recover(if misbehave == Misbehave::Block { attempt } else { 0 });
    }
    let (calls, restarts) = (scene.misbehaviour.calls(), scene.module().snapshot().restarts);
    let decision = scene.ask(EVENT, "bad", 4);
    assert_eq!(
        results(&decision),
        [("m", "quarantined")],
        "{tier} {misbehave}: {decision}"
    );
    let (step, outcome) = (&decision["steps"][0], &decision["outcome"]);
    assert_eq!(
        (&step["policy"], &outcome["verdict"]),
        (&json!("deny"), &json!("deny")),
        "{decision}"
    );
    let detail = step["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("poison input: these args made the module "),
        "{detail}"
    );
    assert_eq!(
        scene.misbehaviour.calls(),
        calls,
        "{tier} {misbehave}: it reached the module"
    );

    // Other args and other callbacks get there, and nothing is restarted.
    for (callback, body) in [(EVENT, "good"), ("should_drop_federated_event", "good")] {
        let decision = scene.ask(callback, body, 5);
        assert_eq!(
            results(&decision),
            [("m", "pass"), ("after", "pass")],
            "{tier} {misbehave}: {decision}"
        );
    }
    scene.misbehaviour.calm();
    let decision = scene.ask("should_drop_federated_event", "bad", 6);
    assert_eq!(
        results(&decision),
        [("m", "pass"), ("after", "pass")],
        "{tier} {misbehave}: {decision}"
    );
    let snapshot = scene.module().snapshot();
    assert_eq!(
        (snapshot.state, snapshot.restarts),
        (ModuleState::Running, restarts),
        "{tier} {misbehave}"
    );
    listed_and_cleared(&scene, cause);
}

/// It is listed without its args, and reaches the module again once that is cleared.
fn listed_and_cleared(scene: &Scene, cause: &str) {
    let poison = scene.poison();
    let listed = &poison[0];
    assert_eq!(
        (
            &listed["callback"],
            &listed["cause"],
            &listed["strikes"],
            &listed["bypassed"]
        ),
        (&json!(EVENT), &json!(cause), &json!(3), &json!(1)),
        "{poison}"
    );
    let time = |key: &str| humantime::parse_rfc3339(listed[key].as_str().unwrap()).unwrap();
    assert_eq!(
        time("expires").duration_since(time("last")).unwrap().as_secs(),
        600,
        "{poison}"
    );
    let fingerprint = listed["fingerprint"].as_str().unwrap();
    assert!(
        fingerprint.len() == 16 && fingerprint.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "{poison}"
    );
    assert!(!poison.to_string().contains("bad"), "{poison}");
    let metric = |name| scrape(&scene.server).of(name, &[("module", "m")]);
    let counts = || {
        (
            metric("ganglion_module_poison_inputs"),
            metric("ganglion_module_poison_bypasses_total"),
        )
    };
    assert_eq!(counts(), (Some(1), Some(1)));
    let failures = scene.module().snapshot().failures;
    assert_eq!(
        failures.get(&ganglion::api::FailureKind::Quarantined),
        Some(&1),
        "{failures:?}"
    );

    let cleared = follow(&scene.server, "m", "clear_poison");
    assert_eq!((&cleared["id"], &cleared["poison"]), (&json!("m"), &json!([])));
    assert_eq!(counts(), (Some(0), Some(1)));
    let decision = scene.ask(EVENT, "bad", 7);
    assert_eq!(results(&decision), [("m", "pass"), ("after", "pass")], "{decision}");
}

#[test]
fn args_that_make_a_module_panic_three_times_bypass_it() {
    for tier in TIERS {
        three_strikes(tier, Misbehave::Panic, "panicked");
    }
}

#[test]
fn args_that_a_module_never_answers_three_times_bypass_it() {
    for tier in TIERS {
        three_strikes(tier, Misbehave::Hang, "deadline_exceeded");
    }
}

#[test]
fn args_that_make_a_module_block_three_times_bypass_it() {
    for tier in TIERS {
        three_strikes(tier, Misbehave::Block, "deadline_exceeded");
    }
}

/// Asks with innocent args, and when that has begun with bad ones, which block; what was decided about both.
fn innocent_beside_bad(scene: &Scene, innocents: &Misbehaviour, attempt: u64) -> [Value; 2] {
    let before = innocents.misbehaved();
    let decisions = std::thread::scope(|scope| {
        let innocent = scope.spawn(|| scene.ask(EVENT, "innocent", attempt));
        poll_until(|| innocents.misbehaved() > before);
        let bad = scene.ask(EVENT, "bad", attempt);
        [innocent.join().unwrap(), bad]
    });
    scene.recover(attempt);
    decisions
}

#[test]
fn calls_that_share_a_thread_with_one_that_blocks_it_are_no_poison() {
    for tier in TIERS {
        let waits = Misbehaviour::new(Misbehave::Hang).for_key("innocent");
        let blocks = Misbehaviour::new(Misbehave::Block).for_key("bad");
        let scene = Scene::with(tier, blocks, waits.clone(), &json!({}));
        for attempt in 1..=3 {
            let [innocent, blocked] = innocent_beside_bad(&scene, &waits, attempt);
            assert_eq!(blocked["steps"][0]["result"], "deadline_exceeded", "{tier}: {blocked}");
            let result = innocent["steps"][0]["result"].as_str().unwrap();
            assert!(
                ["deadline_exceeded", "not_running"].contains(&result),
                "{tier}: {innocent}"
            );
        }
        let poison = scene.poison();
        assert_eq!(poison.as_array().unwrap().len(), 1, "{tier}: {poison}");
        assert_eq!(
            scene.ask(EVENT, "bad", 4)["steps"][0]["result"],
            "quarantined",
            "{tier}"
        );
        waits.calm();
        assert_eq!(scene.ask(EVENT, "innocent", 4)["steps"][0]["result"], "pass", "{tier}");
    }
}

#[test]
fn a_call_that_may_not_go_on_beside_one_that_blocks_is_no_poison() {
    for tier in ["inline", "actor"] {
        // With two workers the module runs on one of them at a time.
        let slow = Misbehaviour::new(Misbehave::Slow(Duration::from_millis(50))).for_key("innocent");
        let blocks = Misbehaviour::new(Misbehave::Block).for_key("bad");
        let scene = Scene::on_workers(2, tier, blocks, slow.clone(), &json!({}));
        for attempt in 1..=3 {
            innocent_beside_bad(&scene, &slow, attempt);
        }
        slow.calm();
        assert_eq!(scene.ask(EVENT, "innocent", 4)["steps"][0]["result"], "pass", "{tier}");
    }
}

#[test]
fn a_module_that_hangs_whatever_it_gets_is_its_breaker_s_business() {
    for tier in TIERS {
        let hangs = Misbehaviour::new(Misbehave::Hang);
        let breaker = json!({"breaker": {"window": 4, "minimum": 4, "open_for": "1h"}});
        let nothing = Misbehaviour::new(Misbehave::Hang).every(0);
        let scene = Scene::with(tier, hangs, nothing, &breaker);
        for (attempt, body) in ["bad", "bad", "x", "y"].into_iter().enumerate() {
            let decision = scene.ask(EVENT, body, attempt as u64);
            assert_eq!(
                decision["steps"][0]["result"], "deadline_exceeded",
                "{tier}: {decision}"
            );
        }
        assert_eq!(
            scene.ask(EVENT, "bad", 5)["steps"][0]["result"],
            "breaker_open",
            "{tier}"
        );
        follow(&scene.server, "m", "restart");
        // It would be the third time.
        let decision = scene.ask(EVENT, "bad", 6);
        assert_eq!(
            decision["steps"][0]["result"], "deadline_exceeded",
            "{tier}: {decision}"
        );
        assert_eq!(scene.poison(), json!([]), "{tier}");
    }
}

#[test]
fn a_hang_after_a_wait_for_a_permit_is_no_strike() {
    for tier in TIERS {
        let hangs = Misbehaviour::new(Misbehave::Hang).for_key("bad");
        let slow = Misbehaviour::new(Misbehave::Slow(Duration::from_millis(50))).for_key("slow");
        let scene = Scene::with(tier, hangs, slow, &json!({"max_in_flight": 1}));
        for attempt in 1..=3 {
            std::thread::scope(|scope| {
                let slow = scope.spawn(|| scene.ask(EVENT, "slow", attempt));
                poll_until(|| scene.module().snapshot().in_flight == 1);
                let waited = scene.ask(EVENT, "bad", attempt);
                let result = waited["steps"][0]["result"].as_str().unwrap();
                // The permit comes too late, perhaps.
                assert!(
                    ["deadline_exceeded", "overloaded"].contains(&result),
                    "{tier}: {waited}"
                );
                slow.join().unwrap();
            });
        }
        let decision = scene.ask(EVENT, "bad", 4);
        assert_eq!(
            decision["steps"][0]["result"], "deadline_exceeded",
            "{tier}: {decision}"
        );
        assert_eq!(scene.poison(), json!([]), "{tier}");
    }
}

#[test]
fn one_poison_input_after_the_other_leads_to_no_quarantine() {
    let panics = Misbehaviour::new(Misbehave::Panic);
    let nothing = Misbehaviour::new(Misbehave::Panic).every(0);
    // The defaults, but for pauses that the test would wait for.
    let keys = json!({"call_timeout": "20s", "restart": {"backoff": ["1ms", "2ms"]}});
    let scene = Scene::with("actor", panics, nothing, &keys);
    for body in ["one", "two", "three", "four"] {
        for attempt in 1..=3 {
            assert_eq!(
                scene.ask(EVENT, body, attempt)["steps"][0]["result"],
                "panicked",
                "{body}"
            );
            scene.recover(0);
        }
        assert_eq!(scene.ask(EVENT, body, 4)["steps"][0]["result"], "quarantined", "{body}");
    }
    let snapshot = scene.module().snapshot();
    assert_eq!((snapshot.state, snapshot.restarts), (ModuleState::Running, 12));
}

#[test]
fn panics_are_not_forgotten_by_restarts_and_commands() {
    let scene = Scene::new("actor", Misbehave::Panic);
    for attempt in 1..=3 {
        scene.ask(EVENT, "bad", attempt);
        scene.recover(0);
        follow(&scene.server, "m", "restart");
    }
    assert_eq!(scene.ask(EVENT, "bad", 4)["steps"][0]["result"], "quarantined");
}

#[test]
fn poison_can_be_cleared_in_every_state() {
    let scene = Scene::new("actor", Misbehave::Panic);
    for command in ["disable", "enable", "quarantine", "release"] {
        follow(&scene.server, "m", command);
        let before = get(&scene.server, &format!("{MODULES}/m")).json();
        assert_eq!(follow(&scene.server, "m", "clear_poison"), before, "{command}");
    }
    let clear = |id: &str| scene.server.post(&format!("{MODULES}/{id}/clear_poison"), b"");
    assert!(refused(&clear("nobody"), 404, "M_NOT_FOUND").starts_with("no module has this id"));
    let looked_at = get(&scene.server, &format!("{MODULES}/m/clear_poison"));
    assert_eq!(refused(&looked_at, 405, "M_UNRECOGNIZED"), "use POST");
}
