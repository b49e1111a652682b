//! Work that a module wants done later, over the wire and over HTTP.

use ganglion::api::{
    AuthenticatedUser, BackgroundUpdateControllerCallbacks, Login, LoginTypes, Module, ModuleApi, ModuleError,
    NoConfig, OnUpdate, PasswordAuthProviderCallbacks, UpdateWindow, wire,
};
use ganglion::dispatcher::AskContext;
use ganglion::registry;
use serde_json::{Value, json};

use super::Wired;
use crate::support::{config_with, refused, runtime, with_modules};

/// Adds a field to logins, and fails those of `@bad:example.com`; says at the end of an update whether it failed.
struct DoesMoreLater;

impl Module for DoesMoreLater {
    type Config = NoConfig;

    fn new(_config: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let logins = LoginTypes::new().login_type("m.login.password", ["password"], async |_: &Self, args| {
            let user = AuthenticatedUser::new(format!("@{}:example.com", args.username));
            let bad = args.username == "bad";
            Ok(Some(user.on_login(async move |mut login: Login| {
                if bad {
                    return Err(ganglion::api::MatrixError::new(429, "M_LIMIT_EXCEEDED", "slow down").into());
                }
                login.insert("org.x", 1);
                Ok(login)
            })))
        });
        let callbacks = PasswordAuthProviderCallbacks::new().auth_checkers(logins);
        api.register_password_auth_provider_callbacks(callbacks)?;
        let controller = BackgroundUpdateControllerCallbacks::new().on_update(async |_: &Self, args: &OnUpdate| {
            let fails = args.update_name == "fails";
            Ok(UpdateWindow::new(100, None).on_exit(async move |failed| {
                assert!(!fails && !failed);
                Ok(())
            }))
        });
        api.register_background_update_controller_callbacks(controller)?;
        Ok(Self)
    }
}

fn login() -> Value {
    json!({"user_id": "@bob:example.com", "access_token": "t", "home_server": "example.com", "device_id": "D"})
}

fn does_more_later() -> Wired {
    let registry = registry().with::<DoesMoreLater>("test.DoesMoreLater");
    Wired::with(&json!([{"module": "test.DoesMoreLater"}]), "", &registry)
}

#[test]
fn what_a_module_wants_done_after_a_login_goes_on_with_its_token_once() {
    let wired = does_more_later();
    let mut client = wired.bridge();
    let args = json!({"username": "bob", "login_type": "m.login.password", "login_dict": {"password": "x"}});
    let mut changed = login();
    changed["org.x"] = json!(1);

    let decision = client.decide("auth_checkers", &args);
    let token = decision["outcome"]["value"]["login_callback"]
        .as_str()
        .unwrap()
        .to_owned();
    let go_on = json!({"callback": "auth_checkers", "token": token, "result": login()});
    // What is refused does not use the token.
    for (wrong, code) in [
        (
            json!({"callback": "check_3pid_auth", "token": token, "result": login()}),
            wire::code::GONE,
        ),
        (
            json!({"callback": "auth_checkers", "token": token, "result": {}}),
            wire::code::INVALID_PARAMS,
        ),
        (
            json!({"callback": "auth_checkers", "token": token}),
            wire::code::INVALID_PARAMS,
        ),
        (
            json!({"callback": "user_may_invite", "token": token, "result": login()}),
            wire::code::INVALID_PARAMS,
        ),
        (
            json!({"callback": "auth_checkers", "token": "x", "result": login()}),
            wire::code::GONE,
        ),
    ] {
        let id = client.request("continue", &wrong);
        assert_eq!(client.answer(id)["error"]["code"], code, "{wrong}");
    }
    let id = client.request("continue", &go_on);
    let decision = client.answer(id);
    assert_eq!(decision["result"]["outcome"], json!({ "value": changed }), "{decision}");
    assert_eq!(decision["result"]["decided_by"], "test.DoesMoreLater");
    assert_eq!(decision["result"]["steps"][0]["result"], "answer");
    let id = client.request("continue", &go_on);
    assert_eq!(client.answer(id)["error"]["code"], wire::code::GONE);

    // The same over HTTP.
    let path = "/_ganglion/v1/callbacks/auth_checkers/continue";
    let decision = wired.server.decide("auth_checkers", &args);
    let token = &decision["outcome"]["value"]["login_callback"];
    let body = json!({"token": token, "result": login()}).to_string();
    let answer = wired.server.post(path, body.as_bytes());
    assert_eq!(answer.json()["outcome"], json!({ "value": changed }), "{answer:?}");
    refused(&wired.server.post(path, body.as_bytes()), 404, "M_NOT_FOUND");
    refused(&wired.server.post(path, b"{}"), 400, "M_MISSING_PARAM");
    refused(&wired.server.post(path, br#"{"token":7}"#), 400, "M_INVALID_PARAM");
    let invite = "/_ganglion/v1/callbacks/user_may_invite/continue";
    refused(&wired.server.post(invite, br#"{"token":"x"}"#), 404, "M_UNRECOGNIZED");
}

#[test]
fn a_module_s_own_error_after_a_login_is_for_the_client() {
    let wired = does_more_later();
    let args = json!({"username": "bad", "login_type": "m.login.password", "login_dict": {"password": "x"}});
    let mut client = wired.bridge();
    let decision = client.decide("auth_checkers", &args);
    let token = &decision["outcome"]["value"]["login_callback"];
    let id = client.request(
        "continue",
        &json!({"callback": "auth_checkers", "token": token, "result": login()}),
    );
    let outcome = client.answer(id)["result"]["outcome"].clone();
    assert_eq!(
        (&outcome["status"], &outcome["errcode"]),
        (&json!(429), &json!("M_LIMIT_EXCEEDED"))
    );
}

#[test]
fn the_end_of_an_update_is_kept_until_the_next_one_of_its_database() {
    let wired = does_more_later();
    let mut client = wired.bridge();
    let args = |name: &str, database: &str| json!({"update_name": name, "database_name": database, "one_shot": false});
    let mut begin = |name: &str, database: &str| {
        let decision = client.decide("on_update", &args(name, database));
        assert_eq!(decision["outcome"]["value"]["duration_ms"], 100);
        decision["outcome"]["value"]["exit_token"].clone()
    };
    let (first, second, other) = (begin("a", "main"), begin("a", "main"), begin("fails", "state"));
    let mut end = |token: &Value, failed: Value| {
        let id = client.request(
            "continue",
            &json!({"callback": "on_update", "token": token, "failed": failed}),
        );
        client.answer(id)
    };
    assert_eq!(end(&first, json!(false))["error"]["code"], wire::code::GONE);
    assert_eq!(end(&second, json!("no"))["error"]["code"], wire::code::INVALID_PARAMS);
    let ended = end(&second, json!(false));
    assert_eq!(ended["result"]["outcome"], json!({"value": null}));
    assert_eq!(ended["result"]["steps"][0]["result"], "notified");
    // A panic there is one of the module.
    let ended = end(&other, json!(false));
    assert_eq!(ended["result"]["steps"][0]["result"], "panicked");
    assert_eq!(ended["result"]["outcome"]["status"], 500);
}

#[test]
fn a_continuation_of_a_rust_caller_is_not_kept_and_runs_nowhere_by_itself() {
    let runtime = runtime();
    let registry = registry().with::<DoesMoreLater>("test.DoesMoreLater");
    let config = config_with(&with_modules("[{module: test.DoesMoreLater}]"), &registry);
    let ganglion = runtime.block_on(ganglion::Ganglion::start(&config)).unwrap();
    let asked = ganglion.ask(OnUpdate::new("a", "main", false));
    let decision = runtime.block_on(asked).into_json();
    assert_eq!(
        decision.outcome["value"],
        json!({"duration_ms": 100, "exit_token": null})
    );
    let gone = ganglion.continue_json_in(AskContext::new(), "on_update", "x", json!({"failed": false}));
    assert!(runtime.block_on(gone).is_err());
}
