//! The deadline of a caller: given with a question, capped by the config, told to modules.

use std::time::Duration;

use ganglion::api::{
    AddExtraFieldsToUnsignedClientEventCallbacks, AddFieldToUnsigned, JsonObject, Module, ModuleApi, ModuleError,
    NoConfig,
};
use ganglion::registry;
use serde_json::{Value, json};

use crate::support::{Answer, TestServer, canned, config_with, refused, request, results, with_modules};

const HEADER: &str = "X-Ganglion-Deadline-Ms";

/// Says what is left of its budget, in microseconds.
struct Tells {
    api: ModuleApi<Self>,
}

impl Module for Tells {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let callbacks = AddExtraFieldsToUnsignedClientEventCallbacks::new().add_field_to_unsigned(Self::tell);
        api.register_add_extra_fields_to_unsigned_client_event_callbacks(callbacks)?;
        assert_eq!(api.remaining_budget(), None, "a constructor has no budget");
        Ok(Self { api: api.clone() })
    }
}

impl Tells {
    async fn tell(&self, _: &AddFieldToUnsigned) -> Result<JsonObject, ModuleError> {
        let remaining = self
            .api
            .remaining_budget()
            .ok_or_else(|| ModuleError::message("no budget"))?;
        let remaining = u64::try_from(remaining.as_micros())?;
        Ok([("remaining".to_owned(), remaining.into())].into_iter().collect())
    }
}

fn server(tells: &Value) -> TestServer {
    let mut tells = tells.clone();
    tells["module"] = "test.Tells".into();
    let mut hangs = canned("hangs", &json!({"user_may_create_room": {"fail": "hang"}}));
    hangs["call_timeout"] = "60s".into();
    let yaml = with_modules(&json!([tells, hangs]).to_string()).replace("workers: 2", "workers: 2, deadline: 30s");
    TestServer::serve(config_with(&yaml, &registry().with::<Tells>("test.Tells")))
}

fn post(server: &TestServer, path: &str, deadline: &str, args: &Value) -> Answer {
    let headers = [(HEADER, deadline)];
    request("POST", server.admin, path, &headers, args.to_string().as_bytes())
}

fn remaining(server: &TestServer, deadline: &str) -> Duration {
    let event = json!({"type": "x", "sender": "@bob:example.com", "room_id": "!r:example.com", "content": {}});
    let answer = post(
        server,
        "/_ganglion/v1/callbacks/add_field_to_unsigned",
        deadline,
        &json!({"event": event}),
    );
    let micros = answer.json()["outcome"]["value"]["remaining"].as_u64();
    Duration::from_micros(micros.unwrap_or_else(|| panic!("{answer:?}")))
}

fn bob() -> Value {
    json!({"user_id": "@bob:example.com"})
}

#[test]
fn a_module_is_told_what_is_left_of_the_least_of_the_three() {
    let second = Duration::from_secs;
    // The caller's, the module's, the configured one.
    let cases = [
        ("20000", "60s", 20),
        ("60000", "25s", 25),
        ("60000", "60s", 30),
        (" 20000 ", "60s", 20),
    ];
    for (deadline, call_timeout, most) in cases {
        for tier in ["inline", "actor", "thread"] {
            let server = server(&json!({"call_timeout": call_timeout, "tier": tier}));
            let remaining = remaining(&server, deadline);
            assert!(
                remaining <= second(most),
                "{deadline} {call_timeout} {tier} {remaining:?}"
            );
            // None of the others: a test that takes five seconds here has other troubles.
            assert!(
                remaining > second(most - 5),
                "{deadline} {call_timeout} {tier} {remaining:?}"
            );
        }
    }
    let server = server(&json!({"call_timeout": "60s"}));
    for endless in [u64::MAX.to_string(), "9".repeat(100)] {
        assert!(remaining(&server, &endless) <= second(30));
    }
}

#[test]
fn after_the_caller_s_deadline_there_is_a_decision() {
    let server = server(&json!({}));
    for deadline in ["1", "0", "30"] {
        let decision = post(
            &server,
            "/_ganglion/v1/callbacks/user_may_create_room",
            deadline,
            &bob(),
        )
        .json();
        assert_eq!(results(&decision), [("hangs", "deadline_exceeded")], "{decision}");
        assert_eq!(decision["outcome"]["verdict"], "error", "{decision}");
        // The same in the other dialect, where a failure is text.
        let answer = post(&server, "/_ganglion/antispam/user_may_create_room", deadline, &bob());
        assert_eq!(
            (answer.status, answer.content_type.as_str()),
            (500, "text/plain; charset=utf-8")
        );
    }
}

#[test]
fn a_caller_in_a_hurry_does_not_open_the_breaker_for_others() {
    let mut slow = canned("slow", &json!({"user_may_create_room": {"verdict": "pass"}}));
    slow["config"]["delay"] = "100ms".into();
    slow["call_timeout"] = "20s".into();
    let yaml = with_modules(&json!([slow]).to_string()).replace("workers: 2", "workers: 2, deadline: 20s");
    let server = TestServer::start(&yaml);
    for _ in 0..30 {
        let decision = post(&server, "/_ganglion/v1/callbacks/user_may_create_room", "5", &bob()).json();
        assert_eq!(results(&decision), [("slow", "deadline_exceeded")], "{decision}");
    }
    assert_eq!(
        results(&server.decide("user_may_create_room", &bob())),
        [("slow", "pass")]
    );
    let snapshot = server.ganglion.dispatch().module("slow").unwrap().snapshot();
    let breaker = &snapshot.breakers["user_may_create_room"];
    assert_eq!((breaker.calls, breaker.failures, breaker.trips), (1, 0, 0));
}

#[test]
fn a_deadline_that_is_no_whole_number_is_refused() {
    let server = server(&json!({}));
    for deadline in ["", "soon", "-1", "1.5", "5s", "+5", "1, 2"] {
        let answer = post(
            &server,
            "/_ganglion/v1/callbacks/user_may_create_room",
            deadline,
            &bob(),
        );
        let text = refused(&answer, 400, "M_INVALID_PARAM");
        assert_eq!(
            text, "X-Ganglion-Deadline-Ms: expected a whole number of milliseconds",
            "{deadline:?}"
        );
        let answer = post(&server, "/_ganglion/antispam/user_may_create_room", deadline, &bob());
        assert_eq!(
            (answer.status, answer.content_type.as_str()),
            (400, "text/plain; charset=utf-8")
        );
        assert_eq!(answer.text, text);
    }
}
