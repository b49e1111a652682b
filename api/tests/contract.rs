//! The contract as a whole: the reference, and what must not compile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ganglion_api::{Callback, JsonPath, reference, visit_all, visit_each_callback};
use serde_json::{Value, json};

#[test]
fn the_reference_is_the_documented_one() {
    let documented: Value = serde_json::from_str(include_str!("../../tests/golden/reference.json")).unwrap();
    let documented = documented.as_array().unwrap();
    assert_eq!(documented.len(), 52);
    for (spec, documented) in reference().iter().zip(documented) {
        assert_eq!(&json!(spec), documented);
    }
    assert_eq!(reference().len(), documented.len());
}

/// Reads each callback's golden args.
struct Acting;

impl Acting {
    fn check<C: Callback>() {
        let name = C::SPEC.name;
        let file = format!("{}/../tests/golden/callbacks/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let args = &golden["args"];
        let expected = match name {
            "user_may_join_room" | "accept_make_join" => &args["user"],
            "user_may_invite" | "user_may_send_3pid_invite" => &args["inviter"],
            "check_username_for_spam" => &args["requester_id"],
            "on_create_room" => &args["requester"]["user_id"],
            _ if C::SPEC.args.iter().any(|arg| arg.name == "event") => &args["event"]["sender"],
            _ if C::SPEC.args.iter().any(|arg| arg.name == "user_id") => &args["user_id"],
            _ => &Value::Null,
        };
        let read = C::from_json(args.clone(), &JsonPath::Root).unwrap();
        assert_eq!(json!(read.acting_user()), *expected, "{name}");
        if !expected.is_null() {
            let acting = C::SPEC.acting.expect(name);
            assert!(C::SPEC.args.iter().any(|arg| arg.name == acting), "{name}");
        }
    }
}

visit_each_callback!(Acting, |self, C| Self::check::<C>());

#[test]
fn every_callback_knows_who_acts() {
    visit_all(&mut Acting);
    assert_eq!(reference().iter().filter(|spec| spec.acting.is_some()).count(), 36);
}

#[test]
fn mistakes_of_module_authors_do_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}

#[test]
fn the_crate_of_module_authors_has_no_runtime_and_no_web_framework() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "ganglion-api",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("serde_json"), "{tree}");
    for runtime in ["tokio", "actix", "actix-web", "futures-executor"] {
        assert!(
            !tree.lines().any(|line| line.starts_with(&format!("{runtime} "))),
            "{runtime}"
        );
    }
}
