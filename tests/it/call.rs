//! `ganglion call`, as an operator sees it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use insta::assert_snapshot;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{ganglion, outcome, run};
use crate::support::write;

/// A config of a module that passes slowly, one that fails, and one that denies.
const MODULES: &str = r#"
server_name: example.com
admin: { max_body: 4KiB }
modules:
  - { module: ganglion.modules.Canned, id: first, config: { answers: { user_may_create_room: { verdict: pass } } } }
  - module: ganglion.modules.Canned
    id: broken
    on_failure: [{ then: pass }]
    config: { answers: { user_may_create_room: { fail: error } } }
  - module: ganglion.modules.Canned
    id: last
    config:
      answers:
        user_may_create_room: { verdict: deny, error: "no\e[2J rooms", fields: { x: 1 } }
        user_may_join_room: { fail: error }
        is_user_expired: { value: true }
"#;

const BOB: &str = r#"{"user_id":"@bob:example.com","room_config":{}}"#;

fn config() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "g.yaml", MODULES);
    (directory, file)
}

/// Calls, and leaves out how long the steps took.
fn call(callback: &str, args: &str) -> (i32, String, String) {
    let (_directory, config) = config();
    let (code, out, err) = run(&["call", callback, args, "-c", config.to_str().unwrap()]);
    let without_time = |line: &str| match line.split_once(" us") {
        Some((before, after)) if before.ends_with(|c: char| c.is_ascii_digit()) => {
            let before = before.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end();
            format!("{before} .. us{after}")
        }
        _ => line.to_owned(),
    };
    (code, out.lines().map(without_time).collect::<Vec<_>>().join("\n"), err)
}

#[test]
fn a_decision_is_shown_with_its_steps() {
    let (code, out, _) = call("user_may_create_room", BOB);
    assert_eq!(code, 0);
    assert_snapshot!(out, @r#"
    deny M_FORBIDDEN
      error: "no\u001b[2J rooms"
      fields: {"x":1}
    decided by last
      first   pass .. us
      broken  module_error .. us  counts as pass
              canned error
      last    deny .. us
    "#);
}

#[test]
fn a_value_and_a_callback_that_nobody_registered_for_are_decided_too() {
    let (code, out, _) = call("is_user_expired", r#"{"user_id":"@bob:example.com"}"#);
    assert_eq!(code, 0);
    assert_snapshot!(out, @r#"
    value true
    decided by last
      last  answer .. us
    "#);
    let (code, out, _) = call(
        "user_may_publish_room",
        r#"{"user_id":"@bob:example.com","room_id":"!r:example.com"}"#,
    );
    assert_eq!(code, 0);
    assert_snapshot!(out, @r#"
    pass
    nobody was asked: no module registered for user_may_publish_room
    "#);
}

#[test]
fn a_call_that_was_not_decided_exits_with_two() {
    let args = r#"{"user":"@bob:example.com","room":"!r:example.com","is_invited":false}"#;
    let (code, out, _) = call("user_may_join_room", args);
    assert_eq!(code, 2);
    assert_snapshot!(out, @r#"
    error 500 M_UNKNOWN
      error: "Internal server error"
    decided by last
      last  module_error .. us  counts as synapse
            canned error
    "#);
}

#[test]
fn the_decision_is_the_json_of_the_endpoint_on_demand() {
    let (_directory, config) = config();
    let (code, out, _) = run(&[
        "call",
        "user_may_create_room",
        BOB,
        "--json",
        "-c",
        config.to_str().unwrap(),
    ]);
    assert_eq!(code, 0);
    let decision: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(decision["outcome"]["error"], "no\u{1b}[2J rooms");
    assert_eq!(decision["decided_by"], "last");
    let results: Vec<_> = decision["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| &step["result"])
        .collect();
    assert_eq!(results, [&json!("pass"), &json!("module_error"), &json!("deny")]);
}

#[test]
fn args_come_from_a_file_or_from_the_standard_input() {
    let (directory, config) = config();
    let file = write(directory.path(), "bob.json", BOB);
    let config = config.to_str().unwrap();
    let from_file = run(&["call", "user_may_create_room", file.to_str().unwrap(), "-c", config]);
    assert_eq!(from_file.0, 0, "{}", from_file.2);
    let mut command = ganglion(&["call", "user_may_create_room", "-", "-c", config]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(BOB.as_bytes()).unwrap();
    let (code, out, _) = outcome(&child.wait_with_output().unwrap());
    assert_eq!((code, out.lines().next()), (0, from_file.1.lines().next()));
}

#[test]
fn what_is_wrong_with_a_call_is_said() {
    let refused = |callback: &str, args: &str| {
        let (code, out, err) = call(callback, args);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        err
    };
    let huge = format!("{{\"user_id\":\"{}\"}}", "x".repeat(5000));
    let (directory, _) = config();
    let too_large = write(directory.path(), "huge.json", &huge);
    let errors = [
        refused("user_may_create_rooms", BOB),
        refused("user_may_create_room", "gone.json"),
        refused("user_may_create_room", "{"),
        refused("user_may_create_room", "{}"),
        refused("user_may_create_room", r#"{"user_id":"secret","room_config":{}}"#),
        refused("user_may_create_room", too_large.to_str().unwrap())
            .replace(directory.path().to_str().unwrap(), "[dir]"),
    ];
    assert_snapshot!(errors.concat(), @r#"
    ganglion: unknown callback, did you mean user_may_create_room?
    ganglion: gone.json is neither a JSON object nor a file that can be read: No such file or directory (os error 2)
    ganglion: the args: EOF while parsing an object at line 1 column 1
    ganglion: the args: user_id: missing
    ganglion: the args: user_id: expected a user id, @localpart:server: leading sigil is incorrect or missing
    ganglion: [dir]/huge.json: more than 4096 bytes, which is what admin.max_body allows
    "#);
}
