//! The guard as a homeserver asks it.

use std::fs;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::testing::{ModuleTest, RunningModule};

fn test(config: &str) -> ModuleTest {
    ModuleTest::new::<RegistrationGuard>(config)
}

/// What becomes of a registration, as one word; `-` if nobody was asked.
async fn register(module: &RunningModule, args: Value) -> String {
    result(&module.ask_json("check_registration_for_spam", args).await)
}

fn result(decision: &Value) -> String {
    decision["steps"][0]["result"].as_str().unwrap_or("-").to_owned()
}

async fn register_from(module: &RunningModule, addresses: &[&str]) -> String {
    let requests: Vec<Value> = addresses.iter().map(|address| json!(["curl/8", address])).collect();
    register(module, json!({"username": "bob", "request_info": requests})).await
}

#[test]
fn the_first_rule_that_matches_decides_and_all_its_conditions_must_hold() {
    let rules = "rules:
- {addresses: [192.0.2.0/24], then: allow}
- {names: ['*casino*', '/^[a-z]{2}[0-9]{6,}$/'], then: shadow_ban}
- {email_domains: [mailinator.example, '*.mailinator.example'], names: ['a*'], then: deny}
- {providers: ['oidc-*'], addresses: ['2001:db8::/32'], then: deny}";
    test(rules).run(async |module| {
        let email = |address: &str| json!({"medium": "email", "address": address, "validated_at": 1});
        for (args, expected) in [
            (json!({"username": "Casino24", "request_info": [[null, "192.0.2.7"]]}), "pass"),
            (json!({"username": "Casino24", "request_info": [[null, "198.51.100.7"]]}), "shadow_ban"),
            (json!({"username": "ab123456"}), "shadow_ban"),
            (json!({"username": "bob"}), "pass"),
            (json!({"username": null}), "pass"),
            (json!({"username": "anna", "email_threepid": email("a@x.Mailinator.example")}), "deny"),
            (json!({"username": "anna", "email_threepid": email("a@mailinator.example")}), "deny"),
            (json!({"username": "anna", "email_threepid": email("a@mailinator.example.")}), "deny"),
            (json!({"username": "anna", "email_threepid": email("a@x.mailinator.example..")}), "deny"),
            (json!({"username": "anna", "email_threepid": email("a@good.example")}), "pass"),
            (json!({"username": "bob", "email_threepid": email("a@mailinator.example")}), "pass"),
            (json!({"email_threepid": email("a@mailinator.example")}), "pass"),
            (
                json!({"username": "anna", "email_threepid": {"medium": "msisdn", "address": "mailinator.example", "validated_at": 1}}),
                "pass",
            ),
            (json!({"auth_provider_id": "oidc-x", "request_info": [[null, "2001:db8::1"]]}), "deny"),
            (json!({"auth_provider_id": "saml", "request_info": [[null, "2001:db8::1"]]}), "pass"),
            (json!({"request_info": [[null, "2001:db8::1"]]}), "pass"),
        ] {
            assert_eq!(register(module, args.clone()).await, expected, "{args}");
        }
        let denied = module
            .ask_json("check_registration_for_spam", json!({"username": "a", "email_threepid": email("a@mailinator.example")}))
            .await;
        assert_eq!(denied["outcome"], json!({"verdict": "deny", "errcode": "M_FORBIDDEN", "error": null, "fields": {}}));
    });
}

#[test]
fn of_several_addresses_all_must_be_allowed_and_one_is_enough_to_refuse() {
    let rules = "rules:
- {addresses: [192.0.2.0/24], then: allow}
- {addresses: [198.51.100.0/24], then: deny}
- {addresses: [203.0.113.0/24], then: shadow_ban}";
    test(rules).run(async |module| {
        for (addresses, expected) in [
            (&["192.0.2.1", "192.0.2.2"][..], "pass"),
            (&["192.0.2.1", "198.51.100.1"], "deny"),
            (&["203.0.113.1", "10.0.0.1"], "shadow_ban"),
            (&["::ffff:198.51.100.1"], "deny"),
            (&["10.0.0.1"], "pass"),
            // Nobody knows where it comes from, so no condition about addresses holds.
            (&[], "pass"),
        ] {
            assert_eq!(register_from(module, addresses).await, expected, "{addresses:?}");
        }
    });
    test("rules:\n- {addresses: ['0.0.0.0/0', '::/0'], then: allow}\n- {then: deny}").run(async |module| {
        assert_eq!(register_from(module, &["192.0.2.1"]).await, "pass");
        assert_eq!(register_from(module, &[]).await, "deny");
    });
}

#[test]
fn an_address_that_cannot_be_read_is_an_error_for_the_client_where_addresses_matter() {
    let config = "rules:\n- {names: [eve], then: deny}\n- {names: ['b*'], addresses: [192.0.2.1], then: deny}";
    test(config).run(async |module| {
        let with = |name: &str| json!({"username": name, "request_info": [[null, "192.0.2.1"], [null, "nowhere"]]});
        assert_eq!(register(module, with("eve")).await, "deny");
        assert_eq!(register(module, with("carl")).await, "pass");
        let decision = module.ask_json("check_registration_for_spam", with("bob")).await;
        assert_eq!(result(&decision), "module_error");
        assert_eq!(decision["outcome"], unreadable());
        assert!(!decision.to_string().contains("nowhere"), "{decision}");
    });
    test("rate: {registrations: 1, per: 1h, then: deny}").run(async |module| {
        assert_eq!(register_from(module, &["nowhere"]).await, "module_error");
    });
}

/// What becomes of a registration whose address cannot be read.
fn unreadable() -> Value {
    json!({"verdict": "error", "status": 400, "errcode": "M_UNKNOWN", "fields": {},
        "error": "it cannot be told which address this registration comes from"})
}

#[test]
fn a_client_with_addresses_that_cannot_be_read_gets_past_nothing_and_closes_nothing_for_others() {
    for config in [
        "rate: {registrations: 100, per: 1h, then: deny}",
        "rules: [{addresses: [198.51.100.1], then: deny}]",
    ] {
        // Not even where failures pass.
        let test = test(config).entry("on_failure: [{then: pass}]");
        test.run(async |module| {
            for _ in 0..20 {
                let args = json!({"username": "eve", "request_info": [[null, "; DROP TABLE"]]});
                let decision = module.ask_json("check_registration_for_spam", args).await;
                assert_eq!(decision["outcome"], unreadable(), "{config}");
            }
            assert_eq!(register_from(module, &["192.0.2.1"]).await, "pass", "{config}");
        });
    }
}

#[test]
fn registrations_that_no_rule_decides_are_counted_by_where_they_come_from() {
    let config = "rules:
- {names: [friend], then: allow}
rate: {registrations: 2, per: 1h, then: shadow_ban, ipv4_prefix: 24}";
    test(config).run(async |module| {
        for _ in 0..3 {
            let args = json!({"username": "friend", "request_info": [[null, "192.0.2.1"]]});
            assert_eq!(register(module, args).await, "pass");
        }
        assert_eq!(register_from(module, &["192.0.2.1"]).await, "pass");
        assert_eq!(register_from(module, &["192.0.2.200"]).await, "pass");
        assert_eq!(register_from(module, &["192.0.2.77"]).await, "shadow_ban");
        assert_eq!(register_from(module, &["198.51.100.1"]).await, "pass");
        module.advance(Duration::from_secs(1800)).await;
        assert_eq!(register_from(module, &["192.0.2.1"]).await, "pass");
        assert_eq!(register_from(module, &["192.0.2.1"]).await, "shadow_ban");
        for _ in 0..3 {
            assert_eq!(register_from(module, &[]).await, "pass");
        }
    });
}

#[test]
fn a_profile_is_hidden_by_its_localpart_or_its_display_name() {
    test("hide: {names: ['*casino*', '/^ab/']}").run(async |module| {
        for (user, name, expected) in [
            ("@bob:casino.example", json!(null), "pass"),
            ("@Casino24:x.example", json!("Bob"), "deny"),
            ("@bob:x.example", json!("The CASINO"), "deny"),
            ("@bob:x.example", json!("abc"), "deny"),
            ("@bob:x.example", json!("Bob"), "pass"),
        ] {
            let args = json!({
                "user_profile": {"user_id": user, "display_name": name}, "requester_id": "@eve:example.com",
            });
            let decision = module.ask_json("check_username_for_spam", args).await;
            assert_eq!(result(&decision), expected, "{user} {name}");
        }
        // It is not asked what it has nothing to say about.
        assert_eq!(register_from(module, &["nowhere"]).await, "-");
    });
}

#[test]
fn the_lists_of_rules_may_be_files_that_change() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("names.txt");
    fs::write(&file, "# bad names\neve\n").unwrap();
    let config = "{rules: [{names: {file: names.txt}, then: deny}], hide: {names: {file: names.txt}}}";
    test(config).directory(directory.path()).run(async |module| {
        assert_eq!(register(module, json!({"username": "eve"})).await, "deny");
        fs::write(&file, "mallory\n").unwrap();
        module.advance(Duration::from_secs(6)).await;
        assert_eq!(register(module, json!({"username": "eve"})).await, "pass");
        assert_eq!(register(module, json!({"username": "mallory"})).await, "deny");
    });
    fs::write(&file, "bob\n/(/\n").unwrap();
    let error = test(config).directory(directory.path()).refusal();
    assert!(
        error.contains("config.rules[0].names.file: ") && error.contains("names.txt:2: "),
        "{error}"
    );
}

/// Each of these configs is refused with this text.
fn assert_refused(refused: &[(&str, &str)]) {
    for (config, refusal) in refused {
        let error = test(config).refusal();
        assert!(
            error.starts_with("modules[0].") && error.contains(refusal),
            "{config}: {error}"
        );
    }
}

#[test]
fn a_rule_that_cannot_work_is_refused_with_its_key() {
    assert_refused(&[
        ("{}", "config: nothing is ever refused or hidden"),
        (
            "{rules: [{names: [a], then: allow}]}",
            "config: nothing is ever refused or hidden",
        ),
        ("{rules: [{names: [a]}]}", "config.rules[0]: missing field `then`"),
        (
            "{rules: [{names: [a], then: ban}]}",
            "config.rules[0].then: unknown variant `ban`",
        ),
        (
            "{rules: [{names: [], then: deny}]}",
            "config.rules[0].names: an empty list matches nothing",
        ),
        ("{rules: [{names: null, then: deny}]}", "config.rules[0].names: "),
        (
            "{rules: [{name: [a], then: deny}]}",
            "config.rules[0].name: unknown field `name`",
        ),
        (
            "{rules: [{then: deny}, {names: [a], then: deny}]}",
            "config.rules[0]: without a condition",
        ),
        (
            "{rules: [{then: deny}], rate: {registrations: 1, per: 1h, then: deny}}",
            "config.rules[0]: without a condition",
        ),
        (
            "{rules: [{addresses: [a], then: deny}]}",
            "config.rules[0].addresses[0]: expected an address or a network",
        ),
        (
            "{rules: [{names: ['/(/'], then: deny}]}",
            "config.rules[0].names[0]: a regular expression that",
        ),
        (
            "{rules: [{email_domains: ['a@b.example'], then: deny}]}",
            "config.rules[0].email_domains[0]: a domain is",
        ),
        (
            "{rules: [{email_domains: ['b.example.'], then: deny}]}",
            "config.rules[0].email_domains[0]: a dot at the end",
        ),
        (
            "{rules: [{providers: [''], then: deny}]}",
            "config.rules[0].providers[0]: an empty entry",
        ),
    ]);
}

#[test]
fn a_rate_and_hidden_names_that_cannot_work_are_refused_with_their_keys() {
    assert_refused(&[
        (
            "{rate: {registrations: 0, per: 1h, then: deny}}",
            "config.rate.registrations: ",
        ),
        (
            "{rate: {registrations: 2000000, per: 1h, then: deny}}",
            "config.rate.registrations: expected 1 to 1000000",
        ),
        ("{rate: {registrations: 1, per: 1, then: deny}}", "config.rate.per: "),
        (
            "{rate: {registrations: 1, per: 31d, then: deny}}",
            "config.rate.per: expected 1s to 30d",
        ),
        (
            "{rate: {registrations: 1, per: 0s, then: deny}}",
            "config.rate.per: expected 1s to 30d",
        ),
        (
            "{rate: {registrations: 1, per: 1h, then: allow}}",
            "config.rate.then: expected shadow_ban or deny",
        ),
        (
            "{rate: {registrations: 1, per: 1h, then: deny, ipv4_prefix: 33}}",
            "config.rate.ipv4_prefix: expected 1 to 32",
        ),
        (
            "{rate: {registrations: 1, per: 1h, then: deny, ipv6_prefix: 0}}",
            "config.rate.ipv6_prefix: expected 1 to 128",
        ),
        ("{hide: {}}", "config.hide: missing field `names`"),
        (
            "{hide: {names: []}}",
            "config.hide.names: an empty list matches nothing",
        ),
    ]);
}
