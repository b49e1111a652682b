//! What modules ask of the homeserver, and what that causes.

use ganglion::api::{
    Denial, Module, ModuleApi, ModuleError, NoConfig, SpamCheckerCallbacks, UserMayCreateRoom, Verdict, wire,
};
use ganglion::registry;
use serde_json::json;

use super::{Wired, create};
use crate::support::poll_until;
use crate::wire_client::{WireClient, hello};

/// Asks the homeserver whether users are administrators, and lets only those create rooms.
struct AsksTheHomeserver {
    api: ModuleApi<Self>,
}

impl Module for AsksTheHomeserver {
    type Config = NoConfig;

    fn new(_config: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let callbacks = SpamCheckerCallbacks::new().user_may_create_room(Self::may_create);
        api.register_spam_checker_callbacks(callbacks)?;
        Ok(Self { api: api.clone() })
    }
}

impl AsksTheHomeserver {
    async fn may_create(&self, args: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        let admin = self
            .api
            .homeserver()
            .call("is_user_admin", json!({"user_id": args.user_id}))
            .await?;
        Ok(if admin == true {
            Verdict::Pass
        } else {
            Verdict::Deny(Denial::forbidden())
        })
    }
}

fn asks_the_homeserver() -> Wired {
    let registry = registry().with::<AsksTheHomeserver>("test.AsksTheHomeserver");
    let modules = json!([{"module": "test.AsksTheHomeserver", "max_in_flight": 1}]);
    Wired::with(&modules, "", &registry)
}

#[test]
fn a_module_asks_the_process_of_the_homeserver_that_asked_it() {
    let wired = asks_the_homeserver();
    let mut main = wired.bridge();
    let mut worker = WireClient::silent(&wired.socket);
    worker.send(&hello(&json!({"worker_name": "w1"})));
    worker.receive().unwrap();
    let ask = json!({"callback": "user_may_create_room", "args": create(), "deadline_ms": 20_000});
    for (client, admin) in [(&mut worker, true), (&mut main, false)] {
        let id = client.request("callback", &ask);
        let asked = client.receive().unwrap();
        assert_eq!(asked["method"], "module_api");
        let params = &asked["params"];
        assert_eq!(
            (&params["method"], &params["args"]),
            (&json!("is_user_admin"), &json!({"user_id": "@bob:example.com"}))
        );
        assert_eq!(params["depth"], 1);
        assert!(params["deadline_ms"].as_u64().unwrap() <= 1000, "{params}");
        client.reply(&asked, &json!(admin));
        let verdict = if admin { "pass" } else { "deny" };
        assert_eq!(client.answer(id)["result"]["outcome"]["verdict"], verdict);
    }
    // Over HTTP nobody of the homeserver asked: it is the main process.
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| wired.server.decide("user_may_create_room", &create()));
        let request = main.receive().unwrap();
        main.reply(&request, &json!(true));
        assert_eq!(asked.join().unwrap()["outcome"]["verdict"], "pass");
    });
}

#[test]
fn a_callback_that_a_module_s_request_causes_is_below_it() {
    let wired = asks_the_homeserver();
    let mut client = wired.bridge();
    let id = client.request(
        "callback",
        &json!({"callback": "user_may_create_room", "args": create()}),
    );
    // With one permit, what is not below the call could not run before it ends. The depth ends at eight.
    let mut calls = Vec::new();
    loop {
        let message = client.receive().unwrap();
        if message.get("method").is_none() {
            assert_eq!(message["result"]["outcome"]["verdict"], "error", "{message}");
            assert_eq!(message["result"]["steps"], json!([]));
            break;
        }
        let below = message["params"]["call"].clone();
        assert_eq!(message["params"]["depth"], json!(calls.len() + 1));
        calls.push(message);
        client.request(
            "callback",
            &json!({"callback": "user_may_create_room", "args": create(), "below": below}),
        );
    }
    assert_eq!(calls.len(), 8);
    // The one that caused the refused one is told; what the homeserver makes of it is its own affair.
    let innermost = calls.pop().unwrap();
    client.reply(&innermost, &json!(true));
    let told = client.receive().unwrap();
    let detail = told["result"]["steps"][0]["detail"].as_str().unwrap();
    assert!(detail.starts_with("callbacks nest deeper than 8: "), "{told}");
    for call in calls.iter().rev() {
        client.reply(call, &json!(true));
    }
    let first = client.answer(id);
    assert_eq!(first["result"]["outcome"]["verdict"], "pass", "{first}");
}

#[test]
fn an_error_of_the_homeserver_is_for_the_client_and_a_missing_homeserver_is_not() {
    let wired = asks_the_homeserver();
    let mut client = wired.bridge();
    let ask = json!({"callback": "user_may_create_room", "args": create()});
    let id = client.request("callback", &ask);
    let asked = client.receive().unwrap();
    let data = json!({"status": 404, "errcode": "M_NOT_FOUND", "error": "no such user", "fields": {"x": 1}});
    let error = json!({"code": wire::code::MATRIX, "message": "M_NOT_FOUND", "data": data});
    client.send(&json!({"jsonrpc": "2.0", "id": asked["id"], "error": error}));
    let outcome = client.answer(id)["result"]["outcome"].clone();
    let expected = json!({"verdict": "error", "status": 404, "errcode": "M_NOT_FOUND", "error": "no such user", "fields": {"x": 1}});
    assert_eq!(outcome, expected);
    for (error, detail) in [
        (
            json!({"code": wire::code::UNKNOWN_METHOD, "message": "unknown"}),
            "is_user_admin: the homeserver's bridge does not have it",
        ),
        (
            json!({"code": wire::code::INTERNAL, "message": "internal error"}),
            "is_user_admin: the other side answered -32603 internal error",
        ),
    ] {
        let id = client.request("callback", &ask);
        let asked = client.receive().unwrap();
        client.send(&json!({"jsonrpc": "2.0", "id": asked["id"], "error": error}));
        let answer = client.answer(id);
        assert_eq!(answer["result"]["steps"][0]["detail"], detail, "{answer}");
        assert_eq!(answer["result"]["outcome"]["error"], "Internal server error");
    }
    // A bridge that says goodbye is not asked any more.
    client.send(&json!({"jsonrpc": "2.0", "method": "goodbye", "params": {"reason": "test"}}));
    let decision = client.decide("user_may_create_room", &create());
    assert_eq!(
        decision["steps"][0]["detail"],
        "no homeserver connected: is_user_admin needs one"
    );
}

#[test]
fn a_call_goes_on_when_the_connection_that_asked_ends() {
    let wired = asks_the_homeserver();
    let mut client = wired.bridge();
    client.request(
        "callback",
        &json!({"callback": "user_may_create_room", "args": create()}),
    );
    let asked = client.receive().unwrap();
    assert_eq!(asked["method"], "module_api");
    drop(client);
    // The module learns that nobody answers, and its call ends: as a failure that counts.
    poll_until(|| {
        let snapshot = wired.server.ganglion.dispatch().modules()[0].snapshot();
        snapshot.in_flight == 0 && snapshot.calls == 1
    });
}
