//! What the config loader accepts, and in which words it refuses the rest.

use std::path::Path;

use ganglion::api::{
    ConfigError, JsonPath, Module, ModuleApi, ModuleError, NoConfig, Registry, reference, visit_all,
    visit_each_callback,
};
use ganglion::{Config, Ganglion, registry};
use insta::assert_snapshot;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{config, write};

/// Keeps its config, so that a test sees what a module gets.
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

fn modules() -> Registry {
    registry()
        .with::<Kept>("test.Kept")
        .with::<Switched>("test.Switched")
        .with::<Panics>("test.Panics")
}

fn read(yaml: &str) -> Result<Config, ganglion::ConfigProblems> {
    Config::from_yaml(yaml, "g.yaml", &modules())
}

/// The problems of a whole config.
#[track_caller]
fn refused(yaml: &str) -> String {
    match read(yaml) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(problems) => problems.to_string(),
    }
}

/// The problems of a config that has a server name, and this.
#[track_caller]
fn refused_with(yaml: &str) -> String {
    refused(&format!("server_name: example.com\n{yaml}"))
}

/// The problems of one entry of `modules`, the second one.
#[track_caller]
fn refused_module(entry: &str) -> String {
    refused_with(&format!("modules: [{{module: demo.DemoModule}}, {entry}]"))
}

#[track_caller]
fn accepted(yaml: &str) -> Config {
    read(yaml).unwrap_or_else(|problems| panic!("{problems}\n{yaml}"))
}

#[test]
fn what_is_no_yaml_is_refused_with_line_and_column() {
    assert_snapshot!(refused("server_name: example.com\nmodules: [{module: demo.DemoModule]\n"), @"");
    assert_snapshot!(refused("server_name: example.com\n\thttp: {}\n"), @"");
    assert_snapshot!(refused("server_name: example.com\nmodules: *nowhere\n"), @"");
    assert_snapshot!(refused("server_name: \"example.com\n"), @"");
    assert_snapshot!(refused("server_name: example.com\nserver_name: example.org\n"), @"");
    assert_snapshot!(refused_with("modules:\n  - module: test.Kept\n    config: {a: 1, b: {c: 1, c: 2}}\n"), @"");
}

#[test]
fn a_file_holds_one_mapping() {
    assert_snapshot!(refused(""), @"");
    assert_snapshot!(refused("- server_name: example.com\n"), @"");
    assert_snapshot!(refused("example.com"), @"");
    assert_snapshot!(refused("server_name: example.com\n---\nserver_name: example.org\n"), @"");
    assert_snapshot!(refused_with("1: one\n"), @"");
}

#[test]
fn the_server_s_name_is_needed() {
    assert_snapshot!(refused("modules: []"), @"");
    assert_snapshot!(refused("server_name:"), @"");
    assert_snapshot!(refused("server_name: https://example.com/"), @"");
    assert_snapshot!(refused("server_name: 7"), @"");
    assert_snapshot!(refused("server_name: !name example.com"), @"");
}

#[test]
fn an_unknown_key_is_refused_with_a_near_name_wherever_it_is() {
    assert_snapshot!(refused_with("
moduls: []
http: {bnid: '127.0.0.1:1'}
admin: {token: x}
dispatch: {deadlin: 5s}
cache: {max_entrys: 5}
on_failure: [{catgory: spam_checker, then: pass}]
modules:
  - {module: demo.DemoModule}
  - {module: demo.DemoModule, call_timeot: 1s, on_failure: [{callback: on_new_event, than: pass, then: pass}]}
  - {module: ganglion.modules.KeywordFilter, config: {keyword: [x]}}
"), @"");
}

#[test]
fn modules_are_a_list_of_mappings() {
    assert_snapshot!(refused_with("modules: 5"), @"");
    assert_snapshot!(refused_with("modules: true"), @"");
    assert_snapshot!(refused_with("modules: demo.DemoModule"), @"");
    assert_snapshot!(refused_with("modules: {module: demo.DemoModule}"), @"");
    assert_snapshot!(refused_with("modules: [demo.DemoModule, null, {module: demo.DemoModule}, []]"), @"");
}

#[test]
fn a_module_has_a_path_that_is_known() {
    assert_snapshot!(refused_module("{config: {}}"), @"");
    assert_snapshot!(refused_module("{module: null}"), @"");
    assert_snapshot!(refused_module("{module: 7}"), @"");
    assert_snapshot!(refused_module("{module: DemoModule}"), @"");
    assert_snapshot!(refused_module("{module: ''}"), @"");
    assert_snapshot!(refused_module("{module: demo.DemoModul}"), @"");
    assert_snapshot!(refused_module("{module: some.other.Thing}"), @"");
}

#[test]
fn a_module_refuses_its_config_with_its_place() {
    assert_snapshot!(refused_module("{module: demo.DemoModule, config: [1, 2]}"), @"");
    assert_snapshot!(refused_module("{module: demo.DemoModule, config: {deny_user: 7}}"), @"");
    assert_snapshot!(refused_module("{module: ganglion.modules.KeywordFilter, config: {keywords: [[]]}}"), @"");
    assert_snapshot!(refused_module("{module: ganglion.modules.KeywordFilter, config: {keywords: ['']}}"), @"");
    assert_snapshot!(refused_module("{module: ganglion.modules.Canned, config: {answers: {on_new_evnt: {}}}}"), @"");
    assert_snapshot!(
        refused_module("{module: ganglion.modules.Canned, config: {answers: {is_user_expired: {value: maybe}}}}"), @"");
    assert_snapshot!(
        refused_module("{module: ganglion.modules.Canned, config: {answers: {is_user_expired: {fail: loudly}}}}"), @"");
    assert_snapshot!(refused_module("{module: ganglion.modules.Canned, config: {delay: 5}}"), @"");
    assert_snapshot!(refused_module("{module: test.Panics}"), @"");
}

#[test]
fn a_config_that_is_no_json_is_refused_with_its_place() {
    assert_snapshot!(refused_module("{module: test.Kept, config: {a: [1, .nan]}}"), @"");
    assert_snapshot!(refused_module("{module: test.Kept, config: {a: {b: -.inf}}}"), @"");
    assert_snapshot!(refused_module("{module: test.Kept, config: {a: {1: x}}}"), @"");
    assert_snapshot!(refused_module("{module: test.Kept, config: {a: !secret x}}"), @"");
    assert_snapshot!(refused_module("!thing {module: test.Kept}"), @"");
}

#[test]
fn yes_and_no_are_text_and_that_is_said_where_a_boolean_is_wanted() {
    assert_snapshot!(refused_module("{module: demo.DemoModule, enabled: yes}"), @"");
    assert_snapshot!(refused_module("{module: demo.DemoModule, enabled: Off}"), @"");
    assert_snapshot!(refused_module("{module: demo.DemoModule, enabled: 1}"), @"");
    assert_snapshot!(refused_module("{module: ganglion.modules.KeywordFilter, config: {case_sensitive: on}}"), @"");
    assert_snapshot!(refused_module("{module: test.Switched, config: {switches: [true, No]}}"), @"");
}

#[test]
fn durations_sizes_addresses_and_numbers_have_their_form() {
    assert_snapshot!(refused_with("
http: {bind: 'localhost:8009', max_body: lots}
admin: {bind: 127.0.0.1, max_body: 0}
dispatch: {deadline: 5, workers: 0}
cache: {max_entries: -1, ttl: 0s}
"), @"");
    assert_snapshot!(refused_with("
http: {bind: 8009, max_body: 1.5}
admin: {bind: ['127.0.0.1:1'], max_body: 2GiB}
dispatch: {deadline: 5 parsecs, workers: two}
cache: {max_entries: 1e3, ttl: 400days}
"), @"");
    assert_snapshot!(refused_module(
        "{module: demo.DemoModule, priority: high, call_timeout: -1s, max_in_flight: 0, mailbox: 1.5}"), @"");
    assert_snapshot!(refused_module(
        "{module: demo.DemoModule, priority: 9223372036854775808, max_in_flight: 1000001, id: 'a b'}"), @"");
}

#[test]
fn a_section_of_another_type_is_refused() {
    assert_snapshot!(refused_with("http: []\nadmin: x\ndispatch: 5\ncache: true\non_failure: {then: pass}"), @"");
    assert_snapshot!(refused_with("on_failure: [pass]"), @"");
}

#[test]
fn what_is_still_to_come_is_not_in_this_version() {
    assert_snapshot!(refused_with("
admin: {tokens: []}
dispatch: {max_depth: 8}
cache: {idle: null}
wire: {socket: x}
on_failure: [{origin: federated, then: pass}]
modules:
  - {module: demo.DemoModule, breaker: {mode: enabled}, restart: {max: 5}}
  - {module: demo.DemoModule, tier: inline}
  - {module: demo.DemoModule, tier: thread}
  - {module: demo.DemoModule, tier: process}
  - {module: demo.DemoModule, tier: wasm}
  - {module: demo.DemoModule, tier: cloud}
"), @"");
}

#[test]
fn a_failure_rule_has_words_that_mean_something() {
    assert_snapshot!(refused_with("
on_failure:
  - {callback: check_evnt_for_spam, then: pass}
  - {category: spam, then: pass}
  - {kind: [panicked, timeout], then: pass}
  - {callback: 7, then: pass}
  - {then: ignore}
  - {callback: on_new_event}
  - {callback: [user_may_create_room, is_user_expired], then: deny}
"), @"");
    assert_snapshot!(refused_module("{module: demo.DemoModule, on_failure: [{callback: on_new_event, then: deny}]}"), @"");
}

#[test]
fn nobody_decides_from_afar_without_a_token() {
    assert_snapshot!(refused_with("admin: {bind: '0.0.0.0:9009'}"), @"");
    assert_snapshot!(refused_with("admin: {bind: '[2001:db8::1]:9009'}"), @"");
}

#[test]
fn a_token_comes_from_a_file_that_holds_one() {
    let directory = tempfile::tempdir().unwrap();
    let problems = |token: &str| {
        write(directory.path(), "g.token", token);
        let yaml = "{server_name: example.com, admin: {bind: '0.0.0.0:9009', token_file: g.token}}";
        let file = write(directory.path(), "g.yaml", yaml);
        let config = Config::from_file(file, &modules());
        config
            .map(|config| assert!(config.admin.token.unwrap().matches("s3cret")))
            .map_err(|problems| {
                problems
                    .to_string()
                    .replace(directory.path().to_str().unwrap(), "[dir]")
            })
    };
    assert_snapshot!(problems("").unwrap_err(), @"");
    assert_snapshot!(problems(" \n\n").unwrap_err(), @"");
    assert_snapshot!(problems("two words\n").unwrap_err(), @"");
    assert_snapshot!(problems("one\ntwo\n").unwrap_err(), @"");
    assert_eq!(problems(" s3cret\r\n"), Ok(()));
    assert_snapshot!(refused_with("admin: {token_file: no/such.token}"), @"");
    assert_snapshot!(refused_with("admin: {token_file: [x]}"), @"");
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let read = |path: &Path| {
        let problems = Config::from_file(path, &modules()).unwrap_err().to_string();
        problems.replace(directory.path().to_str().unwrap(), "[dir]")
    };
    assert_snapshot!(read(&directory.path().join("none.yaml")), @"");
    assert_snapshot!(read(directory.path()), @"");
    let file = directory.path().join("latin1.yaml");
    std::fs::write(&file, b"server_name: \xe9xample.com\n").unwrap();
    assert_snapshot!(read(&file), @"");
}

#[test]
fn two_listeners_have_two_addresses_and_two_modules_two_ids() {
    assert_snapshot!(refused_with("http: {bind: '127.0.0.1:9009'}"), @"");
    assert_snapshot!(refused_with("http: {bind: '[::1]:80'}\nadmin: {bind: '[::1]:80'}"), @"");
    assert_snapshot!(refused_with("
modules:
  - {module: demo.DemoModule, id: a}
  - {module: demo.DemoModule}
  - {module: test.Kept, id: a}
"), @"");
    accepted("{server_name: example.com, http: {bind: '127.0.0.1:0'}, admin: {bind: '127.0.0.1:0'}}");
}

#[test]
fn a_document_that_grows_without_end_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{below}]\n");
    }
    assert_snapshot!(refused(&bomb), @"");
    assert_snapshot!(refused("server_name: &a [*a]"), @"");
    assert_snapshot!(refused_module(&format!("{{module: test.Kept, config: {}}}", "[".repeat(5000))), @"");
}

#[test]
fn every_problem_is_said_at_once() {
    let problems = read("{http: {bind: x}, modules: [{module: x}, {module: 7}], what: 1}").unwrap_err();
    let paths: Vec<_> = problems.problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "server_name",
            "http.bind",
            "modules[0].module",
            "modules[1].module",
            "what"
        ]
    );
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
    let config = accepted("{server_name: a.b, modules: [{module: gone.Module, enabled: false, config: {x: 1}}]}");
    assert!(!config.modules[0].is_enabled());
    assert_snapshot!(refused_module("{module: gone.Module, enabled: false, config: {x: .nan}}"), @"");
}

#[test]
fn what_a_config_leaves_out_has_its_documented_default() {
    let config = accepted("{server_name: example.com, modules: [{module: demo.DemoModule}]}");
    assert_eq!(config.http.bind.to_string(), "127.0.0.1:8009");
    assert_eq!(config.admin.bind.to_string(), "127.0.0.1:9009");
    assert_eq!((config.http.max_body, config.admin.max_body), (1 << 20, 16 << 20));
    assert!(config.admin.token.is_none() && config.on_failure.is_empty());
    assert_eq!(config.dispatch.deadline.as_secs(), 5);
    assert_eq!((config.cache.max_entries, config.cache.ttl), (1000, None));
    let module = &config.modules[0];
    assert_eq!(module.priority, 0);
    let limits = module.limits;
    assert_eq!(
        (limits.call_timeout.as_secs(), limits.max_in_flight, limits.mailbox),
        (1, 64, 1024)
    );
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
    assert_snapshot!(start("{answers: {on_legacy_renew: {value: {valid: true, stale: false, expiration_ts: 1}}}}").await, @"");
    assert_snapshot!(start("{answers: {get_interested_users: {value: []}}}").await, @"");
    assert_snapshot!(start("{answers: {min_batch_size: {value: 1}}}").await, @"");
}

/// Pieces of YAML, half of them of ours.
fn pieces() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "server_name: example.com",
        "modules:",
        "- module: demo.DemoModule",
        "config:",
        "http:",
        "admin:",
        "bind:",
        "'127.0.0.1:0'",
        "on_failure:",
        "then: pass",
        "callback: on_new_event",
        "priority: ",
        "call_timeout: 1s",
        "dispatch: {",
        "}",
        "[",
        "]",
        "&a",
        "*a",
        "<<: *a",
        "!t",
        "!!int",
        "---",
        "...",
        "? ",
        ": ",
        "- ",
        "|",
        ">",
        "\"",
        "'",
        "#",
        "%YAML 1.2",
        "null",
        "~",
        "yes",
        ".nan",
        "0x1F",
        "1e999",
        "-",
        ",",
        "\t",
        "\u{feff}",
        "\0",
        "\u{85}",
        "ganglion.modules.Canned",
        "answers: {on_new_event: {value: null}}",
    ]);
    let space = prop::sample::select(vec!["", " ", "\n", "\n  ", "\n    "]);
    let piece = prop_oneof![8 => words.prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec((piece, space), 0..24)
        .prop_map(|pieces| pieces.iter().map(|(piece, space)| format!("{piece}{space}")).collect())
}

const VALID: &str = r"
server_name: example.com
http: {bind: '127.0.0.1:8009', max_body: 1MiB}
admin: {bind: '127.0.0.1:9009', max_body: 16MiB}
dispatch: {workers: 2, deadline: 5s}
on_failure: [{category: spam_checker, kind: [panicked, overloaded], then: pass}]
cache: {max_entries: 1000, ttl: 10m}
modules:
  - &first
    module: demo.DemoModule
    id: demo
    priority: -3
    call_timeout: 500ms
    max_in_flight: 8
    mailbox: 0
    config: {deny_user: '@eve:example.com', other: [1, 2.5, null, {a: true}]}
  - module: ganglion.modules.Canned
    enabled: true
    config:
      answers: {user_may_create_room: {verdict: deny}, is_user_expired: {value: false}}
      delay: 5ms
  - {<<: *first, id: again, config: {}}
";

/// The valid config with some places replaced.
fn mutated() -> impl Strategy<Value = String> {
    let insert = prop_oneof![
        prop::sample::select(vec![
            "", ":", "\n", "  ", "- ", "{", "]", "'", "&", "*first", "0", "null", "!x ", "#"
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    let edit = (any::<prop::sample::Index>(), 0..12_usize, insert);
    prop::collection::vec(edit, 1..6).prop_map(|edits| {
        let mut text: Vec<char> = VALID.chars().collect();
        for (at, length, insert) in edits {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, insert.chars());
        }
        text.into_iter().collect()
    })
}

/// Either it loads, or there is at least one problem, with words.
fn loads_or_says_why(yaml: &str) -> Result<(), TestCaseError> {
    if let Err(problems) = read(yaml) {
        prop_assert!(!problems.problems.is_empty(), "{yaml}");
        prop_assert!(
            problems.problems.iter().all(|problem| !problem.message.is_empty()),
            "{yaml}"
        );
        prop_assert!(problems.to_string().starts_with("g.yaml:"), "{yaml}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_loads_or_is_refused_with_a_reason(yaml in pieces()) {
        loads_or_says_why(&yaml)?;
    }

    #[test]
    fn a_valid_config_with_any_damage_loads_or_is_refused_with_a_reason(yaml in mutated()) {
        loads_or_says_why(&yaml)?;
    }

    #[test]
    fn any_json_given_to_any_callback_is_read_or_refused(value in any_json()) {
        let mut read = ReadAs { args: value, read: Vec::new() };
        visit_all(&mut read);
    }

    #[test]
    fn damaged_arguments_are_read_or_refused(
        index in 0..reference().len(), at in any::<prop::sample::Index>(), value in any_json()
    ) {
        let mut args = golden_args(reference()[index].name);
        let mut places = Vec::new();
        pointers(&args, &mut String::new(), &mut places);
        *args.pointer_mut(&places[at.index(places.len())]).unwrap() = value;
        visit_all(&mut ReadAs { args, read: Vec::new() });
    }
}

#[test]
fn the_config_that_is_damaged_is_valid() {
    accepted(VALID);
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        prop::sample::select(vec![
            "@bob:example.com",
            "!r:example.com",
            "#a:example.com",
            "aGk=",
            "@:",
            "!",
            "m.room.member"
        ])
        .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let names: Vec<_> = reference()
        .iter()
        .flat_map(|spec| spec.args)
        .map(|arg| arg.name)
        .collect();
    let key = prop_oneof![
        prop::sample::select(names).prop_map(str::to_owned),
        prop::sample::select(vec![
            "type",
            "sender",
            "content",
            "state_key",
            "medium",
            "address",
            "headers"
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::hash_map(key.clone(), inner, 0..6).prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

/// Reads the args as every callback's. What was read is written and read again without a change.
struct ReadAs {
    args: Value,
    read: Vec<&'static str>,
}

visit_each_callback!(ReadAs, |self, C| {
    match C::from_json(self.args.clone(), &JsonPath::Root) {
        Ok(args) => {
            let written = serde_json::to_value(&args).unwrap();
            let again = C::from_json(written.clone(), &JsonPath::Root).unwrap();
            assert_eq!(serde_json::to_value(&again).unwrap(), written, "{}", C::SPEC.name);
            self.read.push(C::SPEC.name);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn golden_args(callback: &str) -> Value {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/callbacks");
    let text = std::fs::read_to_string(directory.join(callback).with_extension("json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    golden["args"].clone()
}

/// The JSON pointer of every place in a value.
fn pointers(value: &Value, at: &mut String, places: &mut Vec<String>) {
    places.push(at.clone());
    let mut below = |key: &str, value: &Value| {
        let length = at.len();
        at.push('/');
        at.push_str(&key.replace('~', "~0").replace('/', "~1"));
        pointers(value, at, places);
        at.truncate(length);
    };
    match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, item)| below(&index.to_string(), item)),
        Value::Object(entries) => entries.iter().for_each(|(key, value)| below(key, value)),
        _ => {}
    }
}

#[test]
fn golden_arguments_are_read_and_written_without_a_change() {
    for spec in reference() {
        let mut read = ReadAs {
            args: golden_args(spec.name),
            read: Vec::new(),
        };
        visit_all(&mut read);
        assert!(read.read.contains(&spec.name), "{}: {:?}", spec.name, read.read);
    }
}
