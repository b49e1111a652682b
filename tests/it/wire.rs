//! The wire, as the other side sees it.

mod golden;
mod homeserver;
mod large_args;
mod later;
mod sockets;

use std::path::PathBuf;

use ganglion::api::{
    Module, ModuleApi, ModuleError, NoConfig, Registry, SpamCheckerCallbacks, UserMayCreateRoom, Verdict, wire,
};
use ganglion::registry;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{TestServer, canned, config_with, poll_until, with_modules, write};
use crate::wire_client::{WireClient, hello};

/// A server with a socket, in a directory of its own.
struct Wired {
    server: TestServer,
    socket: PathBuf,
    _directory: TempDir,
}

impl Wired {
    fn start(modules: &Value) -> Self {
        Self::with(modules, "", &registry())
    }

    /// With these modules, other keys of `wire`, and these kinds of modules.
    fn with(modules: &Value, wire: &str, registry: &Registry) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("ganglion.sock");
        let yaml = with_modules(&modules.to_string());
        let yaml = format!("{yaml}wire: {{socket: '{}'{wire}}}\n", socket.display());
        let server = TestServer::serve(config_with(&yaml, registry));
        Self {
            server,
            socket,
            _directory: directory,
        }
    }

    fn bridge(&self) -> WireClient {
        WireClient::bridge(&self.socket).0
    }
}

fn pass_and_deny() -> Value {
    json!([canned(
        "a",
        &json!({"user_may_create_room": {"verdict": "deny", "error": "no"}, "check_event_for_spam": {"verdict": "pass"}})
    )])
}

fn create() -> Value {
    json!({"user_id": "@bob:example.com", "room_config": {}})
}

/// The connection ends after an error with this number.
#[track_caller]
fn ends_with(client: &mut WireClient, code: i64) -> Value {
    let error = client.receive().expect("an error");
    assert_eq!(error["error"]["code"], code, "{error}");
    assert_eq!(client.receive(), None);
    error
}

#[test]
fn a_bridge_is_welcomed_with_what_is_subscribed_to() {
    let wired = Wired::start(&json!([canned(
        "a",
        &json!({"user_may_create_room": {"verdict": "pass"}, "auth_checkers": {"value": null}})
    ),]));
    let (mut client, welcome) = WireClient::bridge(&wired.socket);
    assert_eq!(welcome["role"], "ganglion");
    assert_eq!(welcome["callbacks"], json!(["user_may_create_room", "auth_checkers"]));
    assert_eq!(
        welcome["login_types"],
        json!([{"name": "m.login.password", "fields": ["password"]}])
    );
    let decision = client.decide("user_may_create_room", &create());
    assert_eq!(decision["outcome"], json!({"verdict": "pass"}));
    assert_eq!(decision["steps"][0]["module"], "a");
}

#[test]
fn a_decision_over_the_wire_is_that_over_http() {
    let wired = Wired::start(&pass_and_deny());
    let over_http = wired.server.decide("user_may_create_room", &create());
    let mut client = wired.bridge();
    let mut over_wire = client.decide("user_may_create_room", &create());
    assert_eq!(over_wire["outcome"], over_http["outcome"]);
    assert_eq!(over_wire["decided_by"], over_http["decided_by"]);
    let id = client.request(
        "callback",
        &json!({"callback": "user_may_create_room", "args": create(), "steps": false}),
    );
    over_wire.as_object_mut().unwrap().remove("steps");
    assert_eq!(client.answer(id)["result"], over_wire);
}

#[test]
fn a_hello_that_does_not_fit_is_refused_and_the_connection_ends() {
    let wired = Wired::start(&json!([]));
    for (other, code) in [
        (
            json!({"version": 2, "role": {"new": "form"}}),
            wire::code::OTHER_VERSION,
        ),
        (json!({"server_name": "example.org"}), wire::code::OTHER_SERVER),
        (json!({"role": "ganglion"}), wire::code::INVALID_REQUEST),
        (json!({"role": "dog"}), wire::code::INVALID_PARAMS),
        (json!({"max_frame": 1024}), wire::code::INVALID_PARAMS),
        (json!({"version": null}), wire::code::INVALID_PARAMS),
    ] {
        let mut client = WireClient::silent(&wired.socket);
        client.send(&hello(&other));
        let error = ends_with(&mut client, code);
        assert_eq!(error["id"], 0, "{other}");
    }
    let mut client = WireClient::silent(&wired.socket);
    client.request(
        "callback",
        &json!({"callback": "user_may_create_room", "args": create()}),
    );
    ends_with(&mut client, wire::code::INVALID_REQUEST);
}

#[test]
fn with_a_token_nobody_gets_past_the_hello_without_it() {
    let files = tempfile::tempdir().unwrap();
    let token = write(files.path(), "token", "s3cret\n");
    let wired = Wired::with(&json!([]), &format!(", token_file: '{}'", token.display()), &registry());
    for token in [json!(null), json!("s3cre"), json!("")] {
        let mut client = WireClient::silent(&wired.socket);
        client.send(&hello(&json!({ "token": token })));
        let error = ends_with(&mut client, wire::code::UNAUTHORIZED);
        assert!(!error.to_string().contains("s3cre"), "{error}");
    }
    let mut client = WireClient::silent(&wired.socket);
    client.send(&hello(&json!({"token": "s3cret"})));
    assert!(client.receive().unwrap()["result"].is_object());
}

#[test]
fn many_requests_are_in_flight_and_each_has_one_answer() {
    let wired = Wired::start(&pass_and_deny());
    let mut client = wired.bridge();
    let ids: Vec<_> = (0..1000)
        .map(|number| {
            // Every other one is about a callback that nobody has, so answers overtake each other.
            let callback = if number % 2 == 0 {
                "user_may_create_room"
            } else {
                "user_may_publish_room"
            };
            let args = json!({"user_id": "@bob:example.com", "room_id": "!r:example.com"});
            (
                client.request("callback", &json!({"callback": callback, "args": args})),
                number % 2 == 0,
            )
        })
        .collect();
    for (id, denied) in ids.into_iter().rev() {
        let answer = client.answer(id);
        let verdict = if denied { "deny" } else { "pass" };
        assert_eq!(answer["result"]["outcome"]["verdict"], verdict, "{answer}");
    }
    let id = client.request(
        "callback",
        &json!({"callback": "user_may_create_room", "args": create()}),
    );
    assert_eq!(client.answer(id)["id"], id);
}

#[test]
fn what_is_not_understood_is_an_error_for_its_request_alone() {
    let wired = Wired::start(&pass_and_deny());
    let mut client = wired.bridge();
    let error = |client: &mut WireClient, method: &str, params: &Value| {
        let id = client.request(method, params);
        client.answer(id)["error"].clone()
    };
    assert_eq!(
        error(&mut client, "callbacks", &json!({}))["code"],
        wire::code::UNKNOWN_METHOD
    );
    let unknown = error(
        &mut client,
        "callback",
        &json!({"callback": "user_may_create_rom", "args": {}}),
    );
    assert_eq!(unknown["data"]["errcode"], "M_UNRECOGNIZED");
    assert_eq!(
        unknown["message"],
        "unknown callback, did you mean user_may_create_room?"
    );
    let missing = error(
        &mut client,
        "callback",
        &json!({"callback": "user_may_create_room", "args": {}}),
    );
    assert_eq!(missing["data"]["errcode"], "M_MISSING_PARAM");
    let invalid = error(
        &mut client,
        "callback",
        &json!({"callback": "user_may_create_room", "args": {"user_id": 7}}),
    );
    assert_eq!(invalid["data"]["errcode"], "M_INVALID_PARAM");
    assert_eq!(
        error(&mut client, "callback", &json!(7))["code"],
        wire::code::INVALID_PARAMS
    );
    let deep = "[".repeat(300) + &"]".repeat(300);
    let message = format!(
        r#"{{"jsonrpc":"2.0","id":900,"method":"callback","params":{{"callback":"user_may_create_room","args":{{"user_id":"@b:c","room_config":{{"x":{deep}}}}}}}}}"#
    );
    client.send_bytes(message.as_bytes());
    assert_eq!(client.answer(900)["error"]["code"], wire::code::INVALID_PARAMS);
    // Notifications that are not known, fields that are not known, and answers that nobody waits for are ignored.
    client.send(&json!({"jsonrpc": "2.0", "method": "dance", "params": {}}));
    client.send(&json!({"jsonrpc": "2.0", "id": 12345, "result": null}));
    let id = client.request(
        "callback",
        &json!({"callback": "user_may_create_room", "args": create(), "new": 1}),
    );
    assert_eq!(client.answer(id)["result"]["decided_by"], "a");
}

#[test]
fn what_is_no_message_ends_the_connection_and_no_other() {
    let wired = Wired::start(&pass_and_deny());
    let mut other = wired.bridge();
    for (contents, code) in [
        (&b"hello"[..], wire::code::NOT_JSON),
        (b"", wire::code::NOT_JSON),
        (b"[]", wire::code::INVALID_REQUEST),
        (b"{}", wire::code::INVALID_REQUEST),
        (
            br#"{"jsonrpc":"1.0","id":1,"method":"callback"}"#,
            wire::code::INVALID_REQUEST,
        ),
        (
            br#"{"jsonrpc":"2.0","id":-1,"method":"callback"}"#,
            wire::code::INVALID_REQUEST,
        ),
        (
            br#"{"jsonrpc":"2.0","id":"x","method":"callback"}"#,
            wire::code::INVALID_REQUEST,
        ),
        (b"\xff\xfe", wire::code::NOT_JSON),
    ] {
        let mut client = wired.bridge();
        client.send_bytes(contents);
        ends_with(&mut client, code);
        let mut silent = WireClient::silent(&wired.socket);
        silent.send_bytes(contents);
        ends_with(&mut silent, code);
    }
    // A frame that is larger than was agreed is not even read.
    let mut client = wired.bridge();
    client.send_raw(&u32::MAX.to_be_bytes());
    ends_with(&mut client, wire::code::INVALID_REQUEST);
    assert_eq!(other.decide("user_may_create_room", &create())["decided_by"], "a");
}

#[test]
fn an_answer_that_is_too_large_for_the_other_side_becomes_an_error() {
    let long = "x".repeat(1 << 16);
    let wired = Wired::start(&json!([canned(
        "a",
        &json!({"get_media_config_for_user": {"value": {"text": long}}})
    )]));
    let mut client = WireClient::silent(&wired.socket);
    client.send(&hello(&json!({"max_frame": 1 << 16})));
    client.receive().unwrap();
    let args = json!({"user_id": "@bob:example.com"});
    let id = client.request(
        "callback",
        &json!({"callback": "get_media_config_for_user", "args": args}),
    );
    assert_eq!(client.answer(id)["error"]["code"], wire::code::TOO_LARGE);
    assert_eq!(
        wired.bridge().decide("get_media_config_for_user", &args)["decided_by"],
        "a"
    );
}

#[test]
fn a_deadline_is_counted_from_the_arrival_on() {
    let wired = Wired::start(&json!([canned(
        "a",
        &json!({"user_may_create_room": {"fail": "hang"}})
    )]));
    let mut client = wired.bridge();
    let params = json!({"callback": "user_may_create_room", "args": create(), "deadline_ms": 1});
    let id = client.request("callback", &params);
    let answer = client.answer(id);
    assert_eq!(answer["result"]["steps"][0]["result"], "deadline_exceeded", "{answer}");
}

#[test]
fn a_cancelled_request_is_answered_so_and_its_number_may_be_used_again() {
    let wired = Wired::start(&json!([canned(
        "a",
        &json!({"user_may_create_room": {"fail": "hang"}})
    )]));
    let mut client = wired.bridge();
    let id = client.request(
        "callback",
        &json!({"callback": "user_may_create_room", "args": create()}),
    );
    // An id that is in flight cannot be told from itself.
    client.send(&json!({"jsonrpc": "2.0", "method": "cancel", "params": {"id": id}}));
    assert_eq!(client.answer(id)["error"]["code"], wire::code::CANCELLED);
    client.send(&json!({"jsonrpc": "2.0", "method": "cancel", "params": {"id": id}}));
    let args = json!({"user_id": "@bob:example.com", "room_id": "!r:example.com"});
    let again = json!({"jsonrpc": "2.0", "id": id, "method": "callback",
        "params": {"callback": "user_may_publish_room", "args": args}});
    client.send(&again);
    assert_eq!(client.answer(id)["result"]["outcome"]["verdict"], "pass");
    // Even at once, in one piece with the cancelling.
    let ask = json!({"jsonrpc": "2.0", "id": id, "method": "callback",
        "params": {"callback": "user_may_create_room", "args": create()}});
    let cancel = json!({"jsonrpc": "2.0", "method": "cancel", "params": {"id": id}});
    let frames = [&ask, &cancel, &again].map(|message| {
        let contents = message.to_string().into_bytes();
        [&u32::try_from(contents.len()).unwrap().to_be_bytes()[..], &contents].concat()
    });
    client.send_raw(&frames.concat());
    assert_eq!(client.answer(id)["error"]["code"], wire::code::CANCELLED);
    assert_eq!(client.answer(id)["result"]["outcome"]["verdict"], "pass");
    // Twice in flight is one too many.
    let hangs = json!({"jsonrpc": "2.0", "id": id, "method": "callback",
        "params": {"callback": "user_may_create_room", "args": create()}});
    client.send(&hangs);
    client.send(&hangs);
    ends_with(&mut client, wire::code::INVALID_REQUEST);
}

#[test]
fn after_a_goodbye_what_is_in_flight_is_answered_and_nothing_begins() {
    let answers = json!({"user_may_create_room": {"verdict": "pass"}, "user_may_publish_room": {"fail": "hang"}});
    let mut module = canned("a", &answers);
    module["call_timeout"] = json!("300ms");
    let wired = Wired::start(&json!([module]));
    let (mut client, mut idle) = (wired.bridge(), wired.bridge());
    let args = json!({"user_id": "@bob:example.com", "room_id": "!r:example.com"});
    let in_flight = client.request("callback", &json!({"callback": "user_may_publish_room", "args": args}));
    poll_until(|| wired.server.ganglion.dispatch().modules()[0].snapshot().in_flight == 1);
    let Wired { server, socket, .. } = wired;
    let stopping = std::thread::spawn(move || server.drain());
    assert_eq!(client.receive().unwrap()["method"], "goodbye");
    let late = client.request(
        "callback",
        &json!({"callback": "user_may_create_room", "args": create()}),
    );
    assert_eq!(client.answer(late)["error"]["code"], wire::code::STOPPING);
    let answer = client.answer(in_flight);
    assert_eq!(answer["result"]["steps"][0]["result"], "deadline_exceeded");
    assert_eq!(client.receive(), None);
    assert_eq!(idle.receive().unwrap()["method"], "goodbye");
    assert_eq!(idle.receive(), None);
    stopping.join().unwrap();
    assert!(!socket.exists());
}

#[test]
fn other_routes_are_announced() {
    let wired = Wired::start(&json!([
        canned("a", &json!({"user_may_create_room": {"verdict": "pass"}})),
        canned("b", &json!({"user_may_invite": {"verdict": "pass"}})),
    ]));
    let (mut client, welcome) = WireClient::bridge(&wired.socket);
    assert_eq!(welcome["callbacks"], json!(["user_may_invite", "user_may_create_room"]));
    wired.server.post("/_ganglion/admin/v1/modules/b/disable", b"");
    let announced = client.receive().unwrap();
    assert_eq!(announced["method"], "announce");
    assert_eq!(announced["params"]["callbacks"], json!(["user_may_create_room"]));
    // A restart changes nothing of it.
    wired.server.post("/_ganglion/admin/v1/modules/a/restart", b"");
    wired.server.post("/_ganglion/admin/v1/modules/b/enable", b"");
    assert_eq!(client.receive().unwrap()["params"]["callbacks"], welcome["callbacks"]);
}

/// Blocks its thread for as long as the other end of a channel says nothing.
struct Blocks;

static UNBLOCK: std::sync::Mutex<Option<std::sync::mpsc::Receiver<()>>> = std::sync::Mutex::new(None);

impl Module for Blocks {
    type Config = NoConfig;

    fn new(_config: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let callbacks = SpamCheckerCallbacks::new().user_may_create_room(async |_: &Self, _: &UserMayCreateRoom| {
            let unblock = UNBLOCK.lock().unwrap().take();
            let _ = unblock.map(|unblock| unblock.recv());
            Ok(Verdict::Pass)
        });
        api.register_spam_checker_callbacks(callbacks)?;
        Ok(Self)
    }
}

#[test]
fn while_a_module_blocks_a_worker_its_connection_and_others_are_served() {
    let (unblock, blocked) = std::sync::mpsc::channel();
    *UNBLOCK.lock().unwrap() = Some(blocked);
    let registry = registry().with::<Blocks>("test.Blocks");
    let publish = canned("a", &json!({"user_may_publish_room": {"verdict": "deny"}}));
    let wired = Wired::with(&json!([{"module": "test.Blocks"}, publish]), "", &registry);
    let (mut client, mut other) = (wired.bridge(), wired.bridge());
    let blocks = client.request(
        "callback",
        &json!({"callback": "user_may_create_room", "args": create()}),
    );
    poll_until(|| UNBLOCK.lock().unwrap().is_none());
    let args = json!({"user_id": "@bob:example.com", "room_id": "!r:example.com"});
    for client in [&mut client, &mut other] {
        assert_eq!(client.decide("user_may_publish_room", &args)["decided_by"], "a");
        let neutral = client.decide(
            "user_may_invite",
            &json!({"inviter": "@b:c", "invitee": "@d:e", "room_id": "!r:c"}),
        );
        assert_eq!(neutral["outcome"]["verdict"], "pass");
    }
    unblock.send(()).unwrap();
    assert!(client.answer(blocks)["result"].is_object());
}
