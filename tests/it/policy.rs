//! Failure rules by origin, over HTTP.

use serde_json::{Value, json};

use crate::admin::{MODULES, get};
use crate::metrics::scrape;
use crate::support::{TestServer, canned, results, with_modules};

const SPAM: &str = "check_event_for_spam";

fn event(sender: &str) -> Value {
    json!({"event": {"type": "m.room.message", "sender": sender, "room_id": "!r:example.com", "content": {}}})
}

#[test]
fn one_failure_counts_by_where_the_event_comes_from() {
    let mut fails = canned(
        "fails",
        &json!({SPAM: {"fail": "error"}, "check_can_shutdown_room": {"fail": "error"}}),
    );
    fails["on_failure"] = json!([
        {"callback": SPAM, "origin": "federated", "then": "pass"},
        {"origin": "local", "then": "deny"},
    ]);
    let server = TestServer::start(&with_modules(&json!([fails]).to_string()));
    for (sender, policy) in [
        ("@bob:example.com", "deny"),
        ("@bob:elsewhere.example", "pass"),
        ("@bob:example.com:8448", "pass"),
    ] {
        let decision = server.decide(SPAM, &event(sender));
        assert_eq!(results(&decision), [("fails", "module_error")], "{decision}");
        assert_eq!(decision["steps"][0]["policy"], policy, "{sender}");
        assert_eq!(decision["outcome"]["verdict"], policy, "{sender}");
    }
    // Nobody acts, or a user of another server, for whom there is no rule.
    for (args, policy) in [
        (json!({"room_id": "!r:elsewhere.example"}), "deny"),
        (
            json!({"room_id": "!r:example.com", "user_id": "@bob:elsewhere.example"}),
            "synapse",
        ),
    ] {
        let decision = server.decide("check_can_shutdown_room", &args);
        assert_eq!(decision["steps"][0]["policy"], policy, "{args}");
    }

    let snapshot = &get(&server, &format!("{MODULES}/fails")).json();
    assert_eq!(
        snapshot["policies"],
        json!({"module_error": {"pass": 2, "deny": 2, "synapse": 1}})
    );
    let metrics = scrape(&server);
    for (policy, count) in [
        ("pass", Some(2)),
        ("deny", Some(2)),
        ("synapse", Some(1)),
        ("error", None),
    ] {
        let labels = [("module", "fails"), ("kind", "module_error"), ("policy", policy)];
        assert_eq!(
            metrics.of("ganglion_module_failure_policies_total", &labels),
            count,
            "{policy}"
        );
    }
}

#[test]
fn what_met_no_policy_is_counted_for_none_and_who_was_not_reached_met_one() {
    let matrix = json!({"fail": "error", "status": 429, "errcode": "M_LIMIT_EXCEEDED", "error": "slow down"});
    let hangs = canned("hangs", &json!({"check_can_shutdown_room": {"fail": "hang"}}));
    let later = canned(
        "later",
        &json!({"check_can_shutdown_room": {"verdict": "pass"}, SPAM: matrix}),
    );
    let yaml = with_modules(&json!([hangs, later]).to_string()).replace("workers: 2", "workers: 2, deadline: 50ms");
    let server = TestServer::start(&yaml);
    server.decide("check_can_shutdown_room", &json!({"room_id": "!r:example.com"}));
    let decision = server.decide(SPAM, &event("@bob:example.com"));
    assert_eq!(decision["outcome"]["status"], 429, "{decision}");

    let of = |id: &str| get(&server, &format!("{MODULES}/{id}")).json();
    assert_eq!(of("hangs")["policies"], json!({"deadline_exceeded": {"synapse": 1}}));
    let later = of("later");
    assert_eq!(later["policies"], json!({"deadline_exceeded": {"synapse": 1}}));
    assert_eq!(later["failures"], json!({"module_error": 1}));
}
