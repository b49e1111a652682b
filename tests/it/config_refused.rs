//! In which words the config loader refuses what it does not accept.

use std::path::Path;

use ganglion::Config;
use insta::assert_snapshot;

use crate::config::{accepted, modules, read};
use crate::support::write;

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

#[test]
fn what_is_no_yaml_is_refused_with_line_and_column() {
    assert_snapshot!(
        refused("server_name: example.com\nmodules: [{module: demo.DemoModule]\n"),
        @"g.yaml:2:35: did not find expected ',' or '}'"
    );
    assert_snapshot!(
        refused("server_name: example.com\n\thttp: {}\n"),
        @"g.yaml:2:1: found a tab character that violates indentation"
    );
    assert_snapshot!(refused("server_name: example.com\nmodules: *nowhere\n"), @"g.yaml:2:10: unknown anchor");
    assert_snapshot!(refused("server_name: \"example.com\n"), @"g.yaml:2:1: found unexpected end of stream");
    assert_snapshot!(
        refused("server_name: example.com\nserver_name: example.org\n"),
        @r#"g.yaml:1:1: duplicate entry with key "server_name""#
    );
    assert_snapshot!(
        refused_with("modules:\n  - module: test.Kept\n    config: {a: 1, b: {c: 1, c: 2}}\n"),
        @r#"g.yaml:4:23: modules[0].config.b: duplicate entry with key "c""#
    );
}

#[test]
fn a_file_holds_one_mapping() {
    assert_snapshot!(refused(""), @"g.yaml: server_name: missing");
    assert_snapshot!(refused("- server_name: example.com\n"), @"g.yaml: expected a mapping, found a list");
    assert_snapshot!(refused("example.com"), @"g.yaml: expected a mapping, found text");
    assert_snapshot!(
        refused("server_name: example.com\n---\nserver_name: example.org\n"),
        @"g.yaml: expected one YAML document, found several"
    );
    assert_snapshot!(refused_with("1: one\n"), @"g.yaml: keys are text: put a number or true and false in quotes");
}

#[test]
fn the_server_s_name_is_needed() {
    assert_snapshot!(refused("modules: []"), @"g.yaml: server_name: missing");
    assert_snapshot!(refused("server_name:"), @"g.yaml: server_name: missing");
    assert_snapshot!(
        refused("server_name: https://example.com/"),
        @"g.yaml: server_name: expected the homeserver's name: server name is not a valid IP address or domain name"
    );
    assert_snapshot!(refused("server_name: 7"), @"g.yaml: server_name: expected text, found a number");
    assert_snapshot!(
        refused("server_name: !name example.com"),
        @"g.yaml: server_name: expected text, found a tagged value"
    );
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
"), @r"
    g.yaml: http.bnid: unknown key, did you mean bind?
    g.yaml: admin.token: unknown key
    g.yaml: dispatch.deadlin: unknown key, did you mean deadline?
    g.yaml: on_failure[0].catgory: unknown key, did you mean category?
    g.yaml: cache.max_entrys: unknown key, did you mean max_entries?
    g.yaml: modules[1].on_failure[0].than: unknown key, did you mean then?
    g.yaml: modules[1].call_timeot: unknown key, did you mean call_timeout?
    g.yaml: modules[2].config.keyword: unknown field `keyword`, expected `keywords` or `case_sensitive`
    g.yaml: moduls: unknown key, did you mean modules?
    ");
}

#[test]
fn modules_are_a_list_of_mappings() {
    assert_snapshot!(
        refused_with("modules: 5"),
        @"g.yaml: modules: expected a list of mappings, each with a module: path, found a number"
    );
    assert_snapshot!(
        refused_with("modules: true"),
        @"g.yaml: modules: expected a list of mappings, each with a module: path, found a boolean"
    );
    assert_snapshot!(
        refused_with("modules: demo.DemoModule"),
        @"g.yaml: modules: expected a list of mappings, each with a module: path, found text"
    );
    assert_snapshot!(
        refused_with("modules: {module: demo.DemoModule}"),
        @"g.yaml: modules: expected a list of mappings, each with a module: path, found a mapping"
    );
    assert_snapshot!(refused_with("modules: [demo.DemoModule, null, {module: demo.DemoModule}, []]"), @r"
    g.yaml: modules[0]: expected a mapping with a module: path, found text
    g.yaml: modules[1]: expected a mapping with a module: path, found nothing
    g.yaml: modules[3]: expected a mapping with a module: path, found a list
    ");
}

#[test]
fn a_module_has_a_path_that_is_known() {
    assert_snapshot!(refused_module("{config: {}}"), @"g.yaml: modules[1].module: missing");
    assert_snapshot!(refused_module("{module: null}"), @"g.yaml: modules[1].module: missing");
    assert_snapshot!(refused_module("{module: 7}"), @"g.yaml: modules[1].module: expected text, found a number");
    assert_snapshot!(
        refused_module("{module: DemoModule}"),
        @r#"g.yaml: modules[1].module: expected a path such as package.Class, found "DemoModule""#
    );
    assert_snapshot!(
        refused_module("{module: ''}"),
        @r#"g.yaml: modules[1].module: expected a path such as package.Class, found """#
    );
    assert_snapshot!(
        refused_module("{module: demo.DemoModul}"),
        @r#"g.yaml: modules[1].module: no module is known by "demo.DemoModul", did you mean demo.DemoModule?"#
    );
    assert_snapshot!(
        refused_module("{module: some.other.Thing}"),
        @r#"g.yaml: modules[1].module: no module is known by "some.other.Thing""#
    );
}

#[test]
fn a_module_refuses_its_config_with_its_place() {
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, config: ['@eve:example.com']}"),
        @"g.yaml: modules[1].config: invalid type: sequence, expected a mapping"
    );
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, config: '@eve:example.com'}"),
        @r#"g.yaml: modules[1].config: invalid type: string "@eve:example.com", expected a mapping"#
    );
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, config: {deny_user: 7}}"),
        @"g.yaml: modules[1].config.deny_user: invalid type: integer `7`, expected a string"
    );
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, config: {deny_user: '@evilguy'}}"),
        @"g.yaml: modules[1].config.deny_user: required colon is missing"
    );
    assert_snapshot!(
        refused_module("{module: ganglion.modules.KeywordFilter, config: {keywords: [[]]}}"),
        @"g.yaml: modules[1].config.keywords[0]: invalid type: sequence, expected a string"
    );
    assert_snapshot!(
        refused_module("{module: ganglion.modules.KeywordFilter, config: {keywords: ['']}}"),
        @"g.yaml: modules[1].config.keywords[0]: an empty keyword is part of every text"
    );
    assert_snapshot!(
        refused_module("{module: ganglion.modules.Canned, config: {answers: {on_new_evnt: {}}}}"),
        @"g.yaml: modules[1].config.answers.on_new_evnt: unknown callback, did you mean on_new_event?"
    );
    assert_snapshot!(
        refused_module("{module: ganglion.modules.Canned, config: {answers: {is_user_expired: {value: maybe}}}}"),
        @"g.yaml: modules[1].config.answers.is_user_expired: value: expected a boolean, found a string"
    );
    assert_snapshot!(
        refused_module("{module: ganglion.modules.Canned, config: {answers: {is_user_expired: {fail: loudly}}}}"),
        @"g.yaml: modules[1].config.answers.is_user_expired: fail: expected error, panic or hang"
    );
    assert_snapshot!(
        refused_module("{module: ganglion.modules.Canned, config: {delay: 5}}"),
        @"g.yaml: modules[1].config.delay: invalid type: integer `5`, expected a string"
    );
    assert_snapshot!(
        refused_module("{module: test.Panics}"),
        @"g.yaml: modules[1].config: the module panicked while it read its config"
    );
}

#[test]
fn a_config_that_is_no_json_is_refused_with_its_place() {
    assert_snapshot!(
        refused_module("{module: test.Kept, config: {a: [1, .nan]}}"),
        @"g.yaml: modules[1].config.a[1]: infinity and not-a-number cannot be given to a module"
    );
    assert_snapshot!(
        refused_module("{module: test.Kept, config: {a: {b: -.inf}}}"),
        @"g.yaml: modules[1].config.a.b: infinity and not-a-number cannot be given to a module"
    );
    assert_snapshot!(
        refused_module("{module: test.Kept, config: {a: {1: x}}}"),
        @"g.yaml: modules[1].config.a: keys are text: put a number or true and false in quotes"
    );
    assert_snapshot!(
        refused_module("{module: test.Kept, config: {a: !secret x}}"),
        @"g.yaml: modules[1].config.a: the tag !secret is not known"
    );
    assert_snapshot!(
        refused_module("!thing {module: test.Kept}"),
        @"g.yaml: modules[1]: expected a mapping with a module: path, found a tagged value"
    );
}

#[test]
fn yes_and_no_are_text_and_that_is_said_where_a_boolean_is_wanted() {
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, enabled: yes}"),
        @r#"g.yaml: modules[1].enabled: write true or false: "yes" is text in YAML 1.2"#
    );
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, enabled: Off}"),
        @r#"g.yaml: modules[1].enabled: write true or false: "Off" is text in YAML 1.2"#
    );
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, enabled: 1}"),
        @"g.yaml: modules[1].enabled: expected true or false, found a number"
    );
    assert_snapshot!(
        refused_module("{module: ganglion.modules.KeywordFilter, config: {case_sensitive: on}}"),
        @r#"g.yaml: modules[1].config.case_sensitive: invalid type: string "on", expected a boolean: write true or false, "on" is text in YAML 1.2"#
    );
    assert_snapshot!(
        refused_module("{module: test.Switched, config: {switches: [true, No]}}"),
        @r#"g.yaml: modules[1].config.switches[1]: invalid type: string "No", expected a boolean: write true or false, "No" is text in YAML 1.2"#
    );
}

#[test]
fn durations_sizes_addresses_and_numbers_have_their_form() {
    assert_snapshot!(refused_with("
http: {bind: 'localhost:8009', max_body: lots}
admin: {bind: 127.0.0.1, max_body: 0}
dispatch: {deadline: 5, workers: 0, max_depth: 0}
cache: {max_entries: -1, max_per_module: 0, max_total: many, ttl: 0s, idle: 0s}
"), @r"
    g.yaml: http.bind: expected an IP address and a port, such as 127.0.0.1:8009 or [::1]:8009
    g.yaml: http.max_body: write a size such as 64KiB or 1MiB
    g.yaml: admin.bind: expected an IP address and a port, such as 127.0.0.1:8009 or [::1]:8009
    g.yaml: admin.max_body: expected 1 byte to 1GiB
    g.yaml: dispatch.workers: expected 1 to 1024, found 0
    g.yaml: dispatch.deadline: write a duration such as 500ms, 5s or 2m, found a number
    g.yaml: dispatch.max_depth: expected 1 to 64, found 0
    g.yaml: cache.max_entries: expected 1 to 1000000000, found -1
    g.yaml: cache.max_per_module: expected 1 to 1000000000, found 0
    g.yaml: cache.max_total: expected an integer, found text
    g.yaml: cache.ttl: expected more than zero and at most 365 days
    g.yaml: cache.idle: expected more than zero and at most 365 days
    ");
    assert_snapshot!(refused_with("
http: {bind: 8009, max_body: 1.5}
admin: {bind: ['127.0.0.1:1'], max_body: 2GiB}
dispatch: {deadline: 5 parsecs, workers: two}
cache: {max_entries: 1e3, ttl: 400days}
"), @r#"
    g.yaml: http.bind: expected text, found a number
    g.yaml: http.max_body: write a size such as 64KiB or 1MiB
    g.yaml: admin.bind: expected text, found a list
    g.yaml: admin.max_body: expected 1 byte to 1GiB
    g.yaml: dispatch.workers: expected an integer, found text
    g.yaml: dispatch.deadline: write a duration such as 500ms, 5s or 2m: unknown time unit "parsecs", supported units: ns, us/µs, ms, sec, min, hours, days, weeks, months, years (and few variations)
    g.yaml: cache.max_entries: expected an integer, found 1000.0
    g.yaml: cache.ttl: expected more than zero and at most 365 days
    "#);
    assert_snapshot!(refused_module(
        "{module: demo.DemoModule, priority: high, call_timeout: -1s, max_in_flight: 0, mailbox: 1.5}"), @r"
    g.yaml: modules[1].priority: expected an integer, found text
    g.yaml: modules[1].call_timeout: write a duration such as 500ms, 5s or 2m: expected number at 0
    g.yaml: modules[1].max_in_flight: expected 1 to 1000000, found 0
    g.yaml: modules[1].mailbox: expected an integer, found 1.5
    ");
    assert_snapshot!(refused_module(
        "{module: demo.DemoModule, priority: 9223372036854775808, max_in_flight: 1000001, id: 'a b'}"), @r"
    g.yaml: modules[1].id: expected 1 to 255 letters, digits, dots, dashes, underscores or #
    g.yaml: modules[1].priority: expected an integer, found 9223372036854775808
    g.yaml: modules[1].max_in_flight: expected 1 to 1000000, found 1000001
    ");
}

#[test]
fn a_section_of_another_type_is_refused() {
    assert_snapshot!(refused_with("http: []\nadmin: x\ndispatch: 5\ncache: true\non_failure: {then: pass}"), @r"
    g.yaml: http: expected a mapping, found a list
    g.yaml: admin: expected a mapping, found text
    g.yaml: dispatch: expected a mapping, found a number
    g.yaml: on_failure: expected a list, found a mapping
    g.yaml: cache: expected a mapping, found a boolean
    ");
    assert_snapshot!(refused_with("on_failure: [pass]"), @"g.yaml: on_failure[0]: expected a mapping, found text");
}

#[test]
fn what_is_still_to_come_is_not_in_this_version() {
    assert_snapshot!(refused_with("
admin: {tokens: []}
modules:
  - {module: demo.DemoModule, tier: process}
  - {module: demo.DemoModule, tier: wasm}
"), @r"
    g.yaml: admin.tokens: not in this version: it will come with tokens that have scopes
    g.yaml: modules[0].tier: not in this version: process is still to come; use inline, actor or thread
    g.yaml: modules[1].tier: not in this version: wasm is still to come; use inline, actor or thread
    ");
}

#[test]
fn a_tier_is_one_that_there_is() {
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, tier: cloud}"),
        @r#"g.yaml: modules[1].tier: expected inline, actor or thread, found "cloud""#
    );
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, tier: Thread}"),
        @r#"g.yaml: modules[1].tier: expected inline, actor or thread, found "Thread", did you mean thread?"#
    );
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, tier: inlien}"),
        @r#"g.yaml: modules[1].tier: expected inline, actor or thread, found "inlien", did you mean inline?"#
    );
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, tier: 2}"),
        @"g.yaml: modules[1].tier: expected text, found a number"
    );
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, teir: actor}"),
        @"g.yaml: modules[1].teir: unknown key, did you mean tier?"
    );
}

#[test]
fn a_breaker_has_rates_and_windows_that_can_be_reached() {
    let breaker = |keys: &str| refused_module(&format!("{{module: demo.DemoModule, breaker: {{{keys}}}}}"));
    assert_snapshot!(
        breaker("mode: of, window: 0, minimum: 10001, failure_rate: 0, slow_rate: 1.01, slow_after: 5, open_for: 0s"), @r#"
        g.yaml: modules[1].breaker.mode: expected enabled, metrics_only or disabled, found "of"
        g.yaml: modules[1].breaker.window: expected 1 to 10000, found 0
        g.yaml: modules[1].breaker.minimum: expected 1 to 10000, found 10001
        g.yaml: modules[1].breaker.failure_rate: expected more than 0 and at most 1, found 0
        g.yaml: modules[1].breaker.slow_rate: expected more than 0 and at most 1, found 1.01
        g.yaml: modules[1].breaker.slow_after: write a duration such as 500ms, 5s or 2m, found a number
        g.yaml: modules[1].breaker.open_for: expected more than zero and at most 365 days
        "#);
    assert_snapshot!(
        breaker("mode: off, window: 10001, minimum: few, failure_rate: -0.5, slow_rate: .nan, slow_after: 0s, open_for: x"), @r#"
        g.yaml: modules[1].breaker.mode: expected enabled, metrics_only or disabled, found "off"
        g.yaml: modules[1].breaker.window: expected 1 to 10000, found 10001
        g.yaml: modules[1].breaker.minimum: expected an integer, found text
        g.yaml: modules[1].breaker.failure_rate: expected more than 0 and at most 1, found -0.5
        g.yaml: modules[1].breaker.slow_rate: expected more than 0 and at most 1, found .nan
        g.yaml: modules[1].breaker.slow_after: expected more than zero and at most 365 days
        g.yaml: modules[1].breaker.open_for: write a duration such as 500ms, 5s or 2m: expected number at 0
        "#);
    assert_snapshot!(breaker("mode: enable, failure_rate: half, slow_rate: 50%, window: [1]"), @r#"
    g.yaml: modules[1].breaker.mode: expected enabled, metrics_only or disabled, found "enable", did you mean enabled?
    g.yaml: modules[1].breaker.window: expected an integer, found a list
    g.yaml: modules[1].breaker.failure_rate: expected a number such as 0.5, found text
    g.yaml: modules[1].breaker.slow_rate: expected a number such as 0.5, found text
    "#);
    assert_snapshot!(breaker("windw: 5, slow_aftr: 1s"), @r"
    g.yaml: modules[1].breaker.windw: unknown key, did you mean window?
    g.yaml: modules[1].breaker.slow_aftr: unknown key, did you mean slow_after?
    ");
    // The minimum is also too large if it is the default one.
    assert_snapshot!(
        breaker("window: 10, minimum: 11"),
        @"g.yaml: modules[1].breaker.minimum: 11 is more than window, which is 10: the rates would never count"
    );
    assert_snapshot!(
        breaker("window: 10"),
        @"g.yaml: modules[1].breaker.minimum: 20 is more than window, which is 10: the rates would never count"
    );
    assert_snapshot!(
        breaker("minimum: 101"),
        @"g.yaml: modules[1].breaker.minimum: 101 is more than window, which is 100: the rates would never count"
    );
    assert_snapshot!(
        breaker("slow_rate: 0.5"),
        @"g.yaml: modules[1].breaker.slow_rate: needs slow_after: without it no call is slow"
    );
    assert_snapshot!(
        breaker("slow_after: 1001ms"),
        @"g.yaml: modules[1].breaker.slow_after: expected at most call_timeout, which is 1s: no call takes longer"
    );
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, call_timeout: 100ms, breaker: {slow_rate: 0.5, slow_after: 200ms}}"),
        @"g.yaml: modules[1].breaker.slow_after: expected at most call_timeout, which is 100ms: no call takes longer"
    );
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, breaker: disabled}"),
        @"g.yaml: modules[1].breaker: expected a mapping, found text"
    );
}

#[test]
fn what_a_refused_key_of_a_breaker_would_have_allowed_is_not_refused_too() {
    let breaker = |keys: &str| refused_module(&format!("{{module: demo.DemoModule, {keys}}}"));
    assert_snapshot!(
        breaker("breaker: {window: 0, minimum: 200}"),
        @"g.yaml: modules[1].breaker.window: expected 1 to 10000, found 0"
    );
    assert_snapshot!(
        breaker("breaker: {window: 10, minimum: 0}"),
        @"g.yaml: modules[1].breaker.minimum: expected 1 to 10000, found 0"
    );
    assert_snapshot!(
        breaker("breaker: {slow_rate: 0.5, slow_after: 1}"),
        @"g.yaml: modules[1].breaker.slow_after: write a duration such as 500ms, 5s or 2m, found a number"
    );
    assert_snapshot!(
        breaker("call_timeout: 5, breaker: {slow_after: 3s}"),
        @"g.yaml: modules[1].call_timeout: write a duration such as 500ms, 5s or 2m, found a number"
    );
}

#[test]
fn restarts_have_a_number_a_time_and_two_pauses() {
    let restart = |keys: &str| refused_module(&format!("{{module: demo.DemoModule, restart: {{{keys}}}}}"));
    assert_snapshot!(restart("max: 1001, within: 0s, backoff: 100ms"), @r"
    g.yaml: modules[1].restart.max: expected 0 to 1000, found 1001
    g.yaml: modules[1].restart.within: expected more than zero and at most 365 days
    g.yaml: modules[1].restart.backoff: expected the first and the longest pause, such as [100ms, 30s], found text
    ");
    assert_snapshot!(restart("max: -1, within: 60, backoff: [100ms]"), @r"
    g.yaml: modules[1].restart.max: expected 0 to 1000, found -1
    g.yaml: modules[1].restart.within: write a duration such as 500ms, 5s or 2m, found a number
    g.yaml: modules[1].restart.backoff: expected the first and the longest pause, such as [100ms, 30s], found a list of 1
    ");
    assert_snapshot!(restart("max: many, within: [60s], backoff: [100ms, 1s, 30s]"), @r"
    g.yaml: modules[1].restart.max: expected an integer, found text
    g.yaml: modules[1].restart.within: write a duration such as 500ms, 5s or 2m, found a list
    g.yaml: modules[1].restart.backoff: expected the first and the longest pause, such as [100ms, 30s], found a list of 3
    ");
    assert_snapshot!(
        restart("backoff: [100, 30s]"),
        @"g.yaml: modules[1].restart.backoff: write a duration such as 500ms, 5s or 2m, found a number"
    );
    assert_snapshot!(
        restart("backoff: [100ms, null]"),
        @"g.yaml: modules[1].restart.backoff: write a duration such as 500ms, 5s or 2m, found nothing"
    );
    assert_snapshot!(
        restart("backoff: [0s, 30s]"),
        @"g.yaml: modules[1].restart.backoff: expected more than zero and at most 365 days"
    );
    assert_snapshot!(restart("backof: [100ms, 30s], backoff: []"), @r"
    g.yaml: modules[1].restart.backoff: expected the first and the longest pause, such as [100ms, 30s], found a list of 0
    g.yaml: modules[1].restart.backof: unknown key, did you mean backoff?
    ");
    assert_snapshot!(
        refused_with("modules: [{module: demo.DemoModule, restart: {backoff: [30s, 100ms]}}]"),
        @"g.yaml: modules[0].restart.backoff: expected the shorter pause first"
    );
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, restart: 5}"),
        @"g.yaml: modules[1].restart: expected a mapping, found a number"
    );
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
  - {kind: [], then: pass}
  - {callback: [user_may_create_room, is_user_expired], then: deny}
  - {origin: federatd, then: pass}
  - {origin: [local, federated], then: pass}
  - {orign: local, then: pass}
"), @r#"
    g.yaml: on_failure[0].callback: unknown callback "check_evnt_for_spam", did you mean check_event_for_spam?
    g.yaml: on_failure[1].category: unknown category "spam"
    g.yaml: on_failure[2].kind: unknown kind "timeout"
    g.yaml: on_failure[3].callback: expected text, found a number
    g.yaml: on_failure[4].then: expected pass, deny, error or synapse, found "ignore"
    g.yaml: on_failure[5].then: missing
    g.yaml: on_failure[6].kind: expected at least one; leave the key out to match all
    g.yaml: on_failure[7].then: is_user_expired has no deny verdict: use pass, error or synapse
    g.yaml: on_failure[8].origin: expected local or federated, found "federatd", did you mean federated?
    g.yaml: on_failure[9].origin: expected text, found a list
    g.yaml: on_failure[10].orign: unknown key, did you mean origin?
    "#);
    assert_snapshot!(
        refused_module("{module: demo.DemoModule, on_failure: [{callback: on_new_event, then: deny}]}"),
        @"g.yaml: modules[1].on_failure[0].then: on_new_event has no deny verdict: use pass, error or synapse"
    );
}

#[test]
fn nobody_decides_from_afar_without_a_token() {
    assert_snapshot!(
        refused_with("admin: {bind: '0.0.0.0:9009'}"),
        @"g.yaml: admin.bind: 0.0.0.0:9009 is not a loopback address: set token_file, or everybody who reaches it decides"
    );
    assert_snapshot!(
        refused_with("admin: {bind: '[2001:db8::1]:9009'}"),
        @"g.yaml: admin.bind: [2001:db8::1]:9009 is not a loopback address: set token_file, or everybody who reaches it decides"
    );
}

#[test]
fn nobody_decides_over_tcp_without_a_token() {
    assert_snapshot!(
        refused_with("wire: {tcp: '127.0.0.1:8010'}"),
        @"g.yaml: wire.tcp: set token_file too: over TCP everybody who reaches it could decide"
    );
}

#[test]
fn the_wire_has_a_socket_a_mode_and_a_size_that_there_can_be() {
    let long = "x".repeat(108);
    assert_snapshot!(
        refused_with(&format!("wire: {{socket: {long}, mode: 660, max_frame: 1KiB, tcp: here, sockt: x}}")).replace(&long, "[108]"),
        @r#"
    g.yaml: wire.socket: [108] is longer than the 107 bytes that the path of a socket may have
    g.yaml: wire.mode: write octal digits in quotes, such as "0660", found a number
    g.yaml: wire.tcp: expected an IP address and a port, such as 127.0.0.1:8009 or [::1]:8009
    g.yaml: wire.max_frame: expected at least 64KiB
    g.yaml: wire.sockt: unknown key, did you mean socket?
    "#
    );
    for mode in ["'0888'", "''", "'+77'", "'1777'", "rw"] {
        assert_eq!(
            refused_with(&format!("wire: {{mode: {mode}}}")),
            "g.yaml: wire.mode: write octal digits in quotes, such as \"0660\"",
            "{mode}"
        );
    }
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
    assert_snapshot!(
        problems("").unwrap_err(),
        @"[dir]/g.yaml: admin.token_file: [dir]/g.token holds no token: write one line of printable ASCII without spaces"
    );
    assert_snapshot!(
        problems(" \n\n").unwrap_err(),
        @"[dir]/g.yaml: admin.token_file: [dir]/g.token holds no token: write one line of printable ASCII without spaces"
    );
    assert_snapshot!(
        problems("two words\n").unwrap_err(),
        @"[dir]/g.yaml: admin.token_file: [dir]/g.token holds no token: write one line of printable ASCII without spaces"
    );
    assert_snapshot!(
        problems("one\ntwo\n").unwrap_err(),
        @"[dir]/g.yaml: admin.token_file: [dir]/g.token holds no token: write one line of printable ASCII without spaces"
    );
    assert_eq!(problems(" s3cret\r\n"), Ok(()));
    assert_snapshot!(
        refused_with("admin: {token_file: no/such.token}"),
        @"g.yaml: admin.token_file: cannot read no/such.token: No such file or directory (os error 2)"
    );
    assert_snapshot!(
        refused_with("admin: {token_file: [x]}"),
        @"g.yaml: admin.token_file: expected text, found a list"
    );
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let read = |path: &Path| {
        let problems = Config::from_file(path, &modules()).unwrap_err().to_string();
        problems.replace(directory.path().to_str().unwrap(), "[dir]")
    };
    assert_snapshot!(
        read(&directory.path().join("none.yaml")),
        @"[dir]/none.yaml: cannot read the file: No such file or directory (os error 2)"
    );
    assert_snapshot!(read(directory.path()), @"[dir]: cannot read the file: Is a directory (os error 21)");
    let file = directory.path().join("latin1.yaml");
    std::fs::write(&file, b"server_name: \xe9xample.com\n").unwrap();
    assert_snapshot!(read(&file), @"[dir]/latin1.yaml: cannot read the file: stream did not contain valid UTF-8");
}

#[test]
fn two_listeners_have_two_addresses_and_two_modules_two_ids() {
    assert_snapshot!(
        refused_with("http: {bind: '127.0.0.1:9009'}"),
        @"g.yaml: admin.bind: 127.0.0.1:9009 is http.bind too: two listeners need two addresses"
    );
    assert_snapshot!(
        refused_with("http: {bind: '[::1]:80'}\nadmin: {bind: '[::1]:80'}"),
        @"g.yaml: admin.bind: [::1]:80 is http.bind too: two listeners need two addresses"
    );
    assert_snapshot!(refused_with("
modules:
  - {module: demo.DemoModule, id: a}
  - {module: demo.DemoModule}
  - {module: test.Kept, id: a}
"), @r#"g.yaml: modules[2].id: "a" is the id of another module: ids are unique"#);
    accepted("{server_name: example.com, http: {bind: '127.0.0.1:0'}, admin: {bind: '127.0.0.1:0'}}");
}

#[test]
fn a_document_that_grows_without_end_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{below}]\n");
    }
    assert_snapshot!(refused(&bomb), @"g.yaml: aliases repeat too much");
    assert_snapshot!(refused("server_name: &a [*a]"), @"g.yaml:1:14: nested too deeply, or an alias that holds itself");
    assert_snapshot!(
        refused_module(&format!("{{module: test.Kept, config: {}}}", "[".repeat(5000))),
        @"g.yaml:2:191: nested too deeply, or an alias that holds itself"
    );
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
fn a_slip_in_a_canned_answer_is_no_silent_pass() {
    let answers = |answers: &str| {
        refused_module(&format!(
            "{{module: ganglion.modules.Canned, config: {{answers: {{{answers}}}}}}}"
        ))
    };
    assert_snapshot!(answers("is_user_expired: {verdict: deny}"), @"g.yaml: modules[1].config.answers.is_user_expired: unknown key verdict");
    assert_snapshot!(answers("user_may_invite: {verdict: deny, eror: x}"), @"g.yaml: modules[1].config.answers.user_may_invite: unknown key eror, did you mean error?");
    assert_snapshot!(answers("check_can_shutdown_room: {fail: error, staus: 403}"), @"g.yaml: modules[1].config.answers.check_can_shutdown_room: unknown key staus, did you mean status?");
}

#[test]
fn a_null_is_the_same_as_an_absent_key_for_keys_to_come_too() {
    let config =
        accepted("{server_name: a.b, wire: null, dispatch: {max_depth: null}, modules: [{module: demo.DemoModule}]}");
    assert!(config.modules[0].is_enabled());
}
