//! `ganglion::testing`: what tests of module authors stand on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ganglion::actors::{ModuleCommand, ModuleState};
use ganglion::api::{
    ConfigError, Denial, HomeserverError, JsonObject, MatrixError, Module, ModuleApi, ModuleError,
    SpamCheckerCallbacks, UserId, UserMayCreateRoom, Verdict, WebRequest, WebResponse, json_response,
};
use ganglion::dispatcher::Outcome;
use ganglion::modules::{Canned, DemoModule};
use ganglion::testing::{MODULE, ModuleTest};
use serde::Deserialize;
use serde_json::{Value, json};

/// Lets rooms be made at most so often an hour, and asks the homeserver who is an admin.
struct Quota {
    api: ModuleApi<Self>,
    per_hour: u64,
    made: AtomicU64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotaConfig {
    per_hour: u64,
    list: Option<String>,
}

impl Module for Quota {
    type Config = QuotaConfig;

    fn new(config: QuotaConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        if let Some(list) = config.list {
            let list = api.resolve_path(list);
            std::fs::read_to_string(&list)
                .map_err(|error| ConfigError::at("list", format!("{}: {error}", list.display())))?;
        }
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(Self::may_create))?;
        api.register_web_resource("/_synapse/client/quota", Self::show)?;
        api.looping_background_call(Duration::from_secs(3600), "new hour", async |quota: &Self| {
            quota.made.store(0, Ordering::Relaxed);
            Ok(())
        });
        let (api, made) = (api.clone(), AtomicU64::new(0));
        Ok(Self {
            api,
            per_hour: config.per_hour,
            made,
        })
    }
}

impl Quota {
    async fn may_create(&self, args: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        let method = "is_user_admin";
        let admin = self
            .api
            .homeserver()
            .call(method, json!({"user_id": args.user_id}))
            .await;
        let admin = match admin {
            Err(HomeserverError::NotConnected { .. }) => false,
            other => other? == true,
        };
        if !admin && self.made.fetch_add(1, Ordering::Relaxed) >= self.per_hour {
            return Ok(Verdict::Deny(Denial::new("M_LIMIT_EXCEEDED")));
        }
        Ok(Verdict::Pass)
    }

    async fn show(&self, request: WebRequest) -> Result<WebResponse, ModuleError> {
        match request.uri().path() {
            "/_synapse/client/quota" => json_response(200, &json!({"made": self.made.load(Ordering::Relaxed)})),
            "/_synapse/client/quota/panic" => panic!("asked to"),
            _ => Err(MatrixError::new(404, "M_NOT_FOUND", "nothing here"))?,
        }
    }
}

fn may_create(name: &str) -> UserMayCreateRoom {
    UserMayCreateRoom::new(
        UserId::parse(format!("@{name}:example.com")).unwrap(),
        JsonObject::new(),
    )
}

fn get(path: &str) -> WebRequest {
    ganglion::api::http::Request::get(path).body(Vec::new().into()).unwrap()
}

#[test]
fn a_module_is_asked_and_an_hour_passes_at_once() {
    ModuleTest::new::<Quota>("per_hour: 1").run(async |module| {
        let outcome = async || module.ask(may_create("bob")).await.outcome;
        let denied = Outcome::Decided(Verdict::Deny(Denial::new("M_LIMIT_EXCEEDED")));
        assert_eq!(outcome().await, Outcome::Decided(Verdict::Pass));
        assert_eq!(outcome().await, denied);
        module.advance(Duration::from_secs(3599)).await;
        assert_eq!(outcome().await, denied);
        module.advance(Duration::from_secs(1)).await;
        assert_eq!(outcome().await, Outcome::Decided(Verdict::Pass));
    });
}

#[test]
fn every_tick_that_is_due_happens_while_time_moves() {
    struct Ticks(AtomicU64);

    impl Module for Ticks {
        type Config = ganglion::api::NoConfig;

        fn new(_: Self::Config, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
            api.looping_background_call(Duration::from_secs(1), "tick", async |ticks: &Self| {
                ticks.0.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
            api.register_web_resource("/ticks", async |ticks: &Self, _| {
                json_response(200, &ticks.0.load(Ordering::Relaxed))
            })?;
            Ok(Self(AtomicU64::new(0)))
        }
    }

    ModuleTest::new::<Ticks>("").run(async |module| {
        module.advance(Duration::from_millis(10_500)).await;
        assert_eq!(module.request(get("/ticks")).await.body(), "10");
    });
}

#[test]
fn a_callback_is_asked_by_name_and_its_steps_have_no_durations() {
    ModuleTest::new::<DemoModule>("deny_user: '@eve:example.com'").run(async |module| {
        let decision = module
            .ask_json(
                "user_may_create_room",
                json!({"user_id": "@eve:example.com", "room_config": {}}),
            )
            .await;
        let expected = json!({
            "outcome": {"verdict": "deny", "errcode": "M_FORBIDDEN", "error": null, "fields": {}},
            "decided_by": MODULE,
            "steps": [{"module": MODULE, "result": "deny"}],
        });
        assert_eq!(decision, expected);
        // It did not register for this one.
        let decision = module
            .ask_json("is_user_expired", json!({"user_id": "@eve:example.com"}))
            .await;
        assert_eq!(
            decision,
            json!({"outcome": {"value": null}, "decided_by": null, "steps": []})
        );
    });
}

#[test]
fn a_homeserver_is_scripted() {
    let homeserver = |method: &'static str, args: Value| match method {
        "is_user_admin" => Ok(json!(args["user_id"] == "@root:example.com")),
        method => Err(HomeserverError::Unsupported { method }),
    };
    ModuleTest::new::<Quota>("per_hour: 0")
        .homeserver(homeserver)
        .run(async |module| {
            assert_eq!(module.ask(may_create("root")).await.decided_by, None);
            assert_eq!(module.ask(may_create("bob")).await.decided_by.as_deref(), Some(MODULE));
        });
}

#[test]
fn a_web_resource_answers_as_clients_see_it() {
    ModuleTest::new::<Quota>("per_hour: 1").run(async |module| {
        let ask = async |path: &str| {
            let response = module.request(get(path)).await;
            (
                response.status().as_u16(),
                serde_json::from_slice::<Value>(response.body()).unwrap_or_default(),
            )
        };
        assert_eq!(ask("/_synapse/client/quota").await, (200, json!({"made": 0})));
        let not_found = json!({"errcode": "M_NOT_FOUND", "error": "nothing here"});
        assert_eq!(ask("/_synapse/client/quota/x").await, (404, not_found));
        let failed = json!({"errcode": "M_UNKNOWN", "error": "the module that answers here failed"});
        assert_eq!(ask("/_synapse/client/quota/panic").await, (500, failed));
        assert_eq!(ask("/elsewhere").await.0, 404);
    });
}

#[test]
fn a_module_that_hangs_meets_its_deadline_at_once() {
    let hangs = "answers: { user_may_create_room: { fail: hang } }";
    ModuleTest::new::<Canned>(hangs)
        .entry("call_timeout: 20s")
        .run(async |module| {
            let decision = module.ask(may_create("bob")).await;
            assert_eq!(json!(decision.into_json())["steps"][0]["result"], "deadline_exceeded");
        });
}

#[test]
fn a_module_is_restarted_as_an_operator_does_it() {
    ModuleTest::new::<Quota>("per_hour: 1").run(async |module| {
        module.ask(may_create("bob")).await;
        let snapshot = module.command(ModuleCommand::Restart).await.unwrap();
        assert_eq!(snapshot.state, ModuleState::Running);
        let made = module.request(get("/_synapse/client/quota")).await;
        assert_eq!(made.body(), r#"{"made":0}"#);
    });
}

#[test]
fn what_is_wrong_with_a_config_is_told_as_to_an_operator() {
    let refusal = |config: &str| ModuleTest::new::<Quota>(config).refusal();
    let unknown = refusal("per_hour: 1\nper_day: 2");
    assert_eq!(
        unknown,
        "modules[0].config.per_day: unknown field `per_day`, expected `per_hour` or `list`"
    );
    assert!(refusal("per_hour: many").starts_with("modules[0].config.per_hour: "));
    // A constructor's error has the key as well.
    let gone = refusal("per_hour: 1\nlist: gone.txt");
    assert!(
        gone.starts_with("module test.Module: config.list: gone.txt: "),
        "{gone}"
    );
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("here.txt"), "").unwrap();
    let here = ModuleTest::new::<Quota>("{ per_hour: 1, list: here.txt }").directory(directory.path());
    here.run(async |module| assert_eq!(module.snapshot().state, ModuleState::Running));
}
