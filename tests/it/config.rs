//! What the config loader accepts, and what it makes of it.

use std::time::Duration;

use ganglion::actors::{BreakerMode, BreakerSettings, ModuleHandle, ModuleState, RestartSettings, Tier};
use ganglion::api::{ConfigError, Module, ModuleApi, ModuleError, NoConfig, Registry};
use ganglion::{Config, Ganglion, registry};
use insta::assert_snapshot;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::config;

const SECOND: Duration = Duration::from_secs(1);

struct Kept;

impl Module for Kept {
    type Config = Value;

    fn new(_: Value, _: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        Ok(Self)
    }
}

/// Has a switch in its config.
struct Switched;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchedConfig {
    #[expect(dead_code, reason = "only read")]
    switches: Vec<bool>,
}

impl Module for Switched {
    type Config = SwitchedConfig;

    fn new(_: SwitchedConfig, _: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        Ok(Self)
    }
}

/// Cannot stand any config.
struct Panics;

impl Module for Panics {
    type Config = NoConfig;

    fn parse_config(_: Value) -> Result<NoConfig, ConfigError> {
        panic!("no config is good enough")
    }

    fn new(_: NoConfig, _: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        Ok(Self)
    }
}

pub(crate) fn modules() -> Registry {
    registry()
        .with::<Kept>("test.Kept")
        .with::<Switched>("test.Switched")
        .with::<Panics>("test.Panics")
}

pub(crate) fn read(yaml: &str) -> Result<Config, ganglion::ConfigProblems> {
    Config::from_yaml(yaml, "g.yaml", &modules())
}

#[track_caller]
pub(crate) fn accepted(yaml: &str) -> Config {
    read(yaml).unwrap_or_else(|problems| panic!("{problems}\n{yaml}"))
}

#[test]
fn a_modules_section_of_a_homeserver_loads_as_it_is() {
    for modules in [
        "",
        "modules:",
        "modules: null",
        "modules: []",
        "modules: {}",
        "modules: ''",
        "modules: 0",
    ] {
        let config = accepted(&format!("server_name: example.com\n{modules}\n"));
        assert_eq!(config.modules.len(), 0, "{modules}");
    }
    let config = accepted(
        r#"
server_name: "example.com"
modules:
  # no config
  - module: demo.DemoModule
  - module: "demo.DemoModule"
    config: {}
  - module: demo.DemoModule
    config:
      deny_user: "@eve:example.com"
      something_of_a_later_version: yes
  - module: ganglion.modules.KeywordFilter
    config:
      keywords:
        - viagra
"#,
    );
    let ids: Vec<_> = config.modules.iter().map(|module| module.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "demo.DemoModule",
            "demo.DemoModule#2",
            "demo.DemoModule#3",
            "ganglion.modules.KeywordFilter"
        ]
    );
    assert_eq!(
        config.modules[2].config,
        json!({"deny_user": "@eve:example.com", "something_of_a_later_version": "yes"})
    );
}

#[test]
fn every_falsy_config_of_a_module_is_an_empty_one() {
    for falsy in ["null", "~", "", "{}", "[]", "''", "0", "0.0", "false"] {
        let config = accepted(&format!(
            "{{server_name: example.com, modules: [{{module: test.Kept, config: {falsy}}}]}}"
        ));
        assert_eq!(config.modules[0].config, json!({}), "{falsy:?}");
    }
    for (given, kept) in [
        ("text", json!("text")),
        ("[0]", json!([0])),
        ("7", json!(7)),
        ("true", json!(true)),
    ] {
        let config = accepted(&format!(
            "{{server_name: example.com, modules: [{{module: test.Kept, config: {given}}}]}}"
        ));
        assert_eq!(config.modules[0].config, kept, "{given:?}");
    }
}

#[test]
fn an_id_is_the_path_unless_it_is_given_or_taken() {
    let config = accepted(
        "
server_name: example.com
modules:
  - {module: test.Kept}
  - {module: test.Kept, id: mine}
  - {module: test.Kept, enabled: false}
  - {module: test.Kept, id: 'test.Kept#3'}
  - {module: test.Kept}
  - {module: demo.DemoModule}
  - {module: test.Kept, id: demo.DemoModule}
",
    );
    let ids: Vec<_> = config.modules.iter().map(|module| module.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "test.Kept",
            "mine",
            "test.Kept#2",
            "test.Kept#3",
            "test.Kept#4",
            "demo.DemoModule#2",
            "demo.DemoModule"
        ]
    );
}

#[test]
fn merge_keys_and_aliases_are_applied() {
    let config = accepted(
        "
server_name: example.com
modules:
  - &first {module: test.Kept, priority: 3, call_timeout: 2s, config: &shared {a: 1, b: 2}}
  - {<<: *first, priority: 4, config: {<<: *shared, b: 3}}
",
    );
    let [first, second] = &config.modules[..] else {
        panic!("{config:?}")
    };
    assert_eq!((first.priority, second.priority), (3, 4));
    assert_eq!(first.limits, second.limits);
    assert_eq!(second.config, json!({"a": 1, "b": 3}));
}

#[test]
fn a_disabled_module_may_be_one_that_does_not_load() {
    for config in ["{x: 1}", "{x: .nan}", "{1: x}"] {
        for path in ["gone.Module", "gone"] {
            let module = format!("{{module: {path}, enabled: false, config: {config}}}");
            let config = accepted(&format!("{{server_name: a.b, modules: [{module}]}}"));
            assert!(!config.modules[0].is_enabled() && config.modules[0].factory.is_none());
        }
    }
}

#[tokio::test]
async fn a_disabled_module_is_kept_with_its_config_unchecked_and_not_started() {
    let config = accepted(
        "
server_name: example.com
modules:
  - {module: demo.DemoModule}
  - {module: test.Panics, enabled: false}
  - {module: test.Switched, enabled: false, config: {switches: 7}}
  - {module: test.Kept, enabled: false, config: {x: .nan}}
  - {module: test.Kept, enabled: false, config: false, tier: thread}
",
    );
    let disabled = &config.modules[1..];
    assert!(disabled.iter().all(|module| !module.enabled),);
    // One whose config cannot be read could not be made as it is written.
    let known: Vec<_> = disabled.iter().map(|module| module.factory.is_some()).collect();
    assert_eq!(known, [true, true, false, true]);
    let configs: Vec<_> = disabled.iter().map(|module| module.config.clone()).collect();
    assert_eq!(configs, [json!({}), json!({"switches": 7}), json!({}), json!({})]);
    assert_eq!(disabled[3].tier, Tier::Thread);
    let ganglion = Ganglion::start(&config).await.unwrap();
    let started = ganglion.dispatch().modules().iter();
    let started = started.filter(|module| module.state() != ModuleState::Disabled);
    assert_eq!(started.map(ModuleHandle::id).collect::<Vec<_>>(), ["demo.DemoModule"]);
}

#[test]
fn a_module_s_tier_breaker_and_restarts_are_what_is_written() {
    let config = accepted(
        "
server_name: example.com
modules:
  - module: demo.DemoModule
    tier: inline
    call_timeout: 2s
    breaker:
      mode: metrics_only
      window: 10000
      minimum: 10000
      failure_rate: 0.25
      slow_rate: 1e-3
      slow_after: 2s
      open_for: 1m
    restart: {max: 0, within: 1h, backoff: [1s, 1s]}
  - {module: demo.DemoModule, tier: actor, breaker: {mode: disabled, failure_rate: 1, slow_rate: 1.0}}
  - {module: demo.DemoModule, tier: thread, breaker: {mode: enabled, window: 1, minimum: 1}, restart: {max: 1000}}
",
    );
    let [first, second, third] = &config.modules[..] else {
        panic!("{config:?}")
    };
    assert_eq!([first, second, third].map(|module| module.tier), Tier::ALL);
    assert_eq!(
        first.breaker,
        BreakerSettings {
            mode: BreakerMode::MetricsOnly,
            window: 10_000,
            minimum: 10_000,
            failure_rate: 0.25,
            slow_rate: 0.001,
            slow_after: Some(2 * SECOND),
            open_for: 60 * SECOND,
        }
    );
    assert_eq!(
        first.restart,
        RestartSettings {
            max: 0,
            within: 3600 * SECOND,
            backoff: (SECOND, SECOND),
        }
    );
    assert_eq!(second.breaker.mode, BreakerMode::Disabled);
    assert_eq!((second.breaker.failure_rate, second.breaker.slow_rate), (1.0, 1.0));
    assert_eq!((third.breaker.window, third.breaker.minimum), (1, 1));
    assert_eq!(third.restart.max, 1000);
}

#[test]
fn a_null_is_the_default_in_a_breaker_and_in_restarts() {
    let nulls = "
      breaker: {mode: null, window: ~, minimum: null, failure_rate: , slow_rate: null, slow_after: null, open_for: null}
      restart: {max: null, within: null, backoff: null}
      tier: null
";
    for keys in [
        nulls,
        "      breaker: null\n      restart:\n",
        "      breaker: {}\n      restart: {}\n",
    ] {
        let config = accepted(&format!(
            "server_name: a.b\nmodules:\n    - module: demo.DemoModule\n{keys}"
        ));
        let module = &config.modules[0];
        assert_eq!(module.tier, Tier::Actor);
        assert_eq!(module.breaker, BreakerSettings::default());
        assert_eq!(module.restart, RestartSettings::default());
    }
}

#[test]
fn what_a_config_leaves_out_has_its_documented_default() {
    let config = accepted("{server_name: example.com, modules: [{module: demo.DemoModule}]}");
    assert_eq!(config.http.bind.to_string(), "127.0.0.1:8009");
    assert_eq!(config.admin.bind.to_string(), "127.0.0.1:9009");
    assert_eq!((config.http.max_body, config.admin.max_body), (1 << 20, 16 << 20));
    let wire = &config.wire;
    assert!(wire.socket.is_none() && wire.tcp.is_none() && wire.token.is_none());
    assert_eq!((wire.mode, wire.max_frame), (0o660, 16 << 20));
    assert!(config.admin.token.is_none() && config.on_failure.is_empty());
    assert_eq!((config.dispatch.deadline.as_secs(), config.dispatch.max_depth), (5, 8));
    assert_eq!((config.cache.max_entries, config.cache.ttl), (1000, None));
    let shared = (config.cache.max_per_module, config.cache.max_total);
    assert_eq!((config.cache.idle, shared), (None, (None, None)));
    let module = &config.modules[0];
    assert_eq!(module.priority, 0);
    let limits = module.limits;
    assert_eq!(
        (limits.call_timeout.as_secs(), limits.max_in_flight, limits.mailbox),
        (1, 64, 1024)
    );
    assert!(module.enabled);
    assert_eq!(module.tier, Tier::Actor);
    let breaker = module.breaker;
    assert_eq!((breaker.mode, breaker.slow_after), (BreakerMode::Enabled, None));
    assert_eq!((breaker.window, breaker.minimum), (100, 20));
    assert_eq!((breaker.failure_rate, breaker.slow_rate), (0.5, 1.0));
    assert_eq!(breaker.open_for.as_secs(), 10);
    let (restart, [first, longest]) = (module.restart, [100, 30_000].map(Duration::from_millis));
    assert_eq!((restart.max, restart.within.as_secs()), (5, 60));
    assert_eq!(restart.backoff, (first, longest));
}

#[test]
fn a_module_s_config_is_not_shown_with_the_config() {
    let config = accepted("{server_name: a.b, modules: [{module: test.Kept, config: {password: hunter2}}]}");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[tokio::test]
async fn modules_that_do_not_go_together_stop_the_start() {
    let modules = |answers: &str| {
        let entry = format!("{{module: ganglion.modules.Canned, config: {answers}}}");
        config(&format!("{{server_name: example.com, modules: [{entry}, {entry}]}}"))
    };
    let start = async |answers: &str| {
        Ganglion::start(&modules(answers))
            .await
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    assert_snapshot!(
        start("{answers: {on_legacy_renew: {value: {valid: true, stale: false, expiration_ts: 1}}}}").await,
        @"on_legacy_renew is registered by ganglion.modules.Canned and by ganglion.modules.Canned#2: only one module may have it"
    );
    assert_snapshot!(
        start("{answers: {get_interested_users: {value: []}}}").await,
        @"module ganglion.modules.Canned: get_interested_users was registered without get_users_for_states: they belong together"
    );
    assert_snapshot!(
        start("{answers: {min_batch_size: {value: 1}}}").await,
        @"module ganglion.modules.Canned: on_update is required of a module that registers its category"
    );
}
