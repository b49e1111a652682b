//! The wire, as the other side sees it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use ganglion::api::wire::{self, Incoming};
use ganglion::api::{
    AuthenticatedUser, CheckEventAllowed, CheckMediaFileForSpam, Denial, EventVerdict, Login, LoginTypes, Module,
    ModuleApi, ModuleError, NoConfig, OnUpdate, PasswordAuthProviderCallbacks, SpamCheckerCallbacks,
    ThirdPartyRulesCallbacks, UpdateWindow, UserMayCreateRoom, Verdict,
};
use ganglion::api::{BackgroundUpdateControllerCallbacks, Registry};
use ganglion::dispatcher::AskContext;
use ganglion::registry;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{TestServer, canned, config_with, poll_until, refused, runtime, with_modules, write};
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

/// Looks at the room's state: denies with the topic, and with how many events there are.
struct LooksAtState;

impl Module for LooksAtState {
    type Config = NoConfig;

    fn new(_config: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_third_party_rules_callbacks(ThirdPartyRulesCallbacks::new().check_event_allowed(Self::look))?;
        Ok(Self)
    }
}

impl LooksAtState {
    async fn look(&self, args: &CheckEventAllowed) -> Result<EventVerdict, ModuleError> {
        let state = &args.state_events;
        let create = state.get("m.room.create", "").await?;
        let topic = state.get("m.room.topic", "").await?;
        // Asked once, whether there is one or not.
        for _ in 0..2 {
            assert!(state.get("m.room.name", "").await?.is_none());
        }
        let all = state.all().await?.len();
        let name = state.get("m.room.avatar", "").await?.is_some();
        let topic = topic
            .and_then(|topic| topic.content.get("topic").cloned())
            .unwrap_or_default();
        let text = format!("{} {topic} {all} {name}", create.is_some());
        Ok(EventVerdict::Deny(Denial::forbidden().with_error(text)))
    }
}

fn state(event_type: &str, content: &Value) -> Value {
    json!({"type": event_type, "state_key": "", "sender": "@bob:example.com", "room_id": "!r:example.com", "content": content})
}

fn allowed(state_events: &Value) -> Value {
    json!({"event": state("m.room.topic", &json!({})), "state_events": state_events})
}

#[test]
fn state_stays_with_the_caller_until_a_module_asks_for_it() {
    let registry = registry().with::<LooksAtState>("test.LooksAtState");
    let wired = Wired::with(&json!([{"module": "test.LooksAtState"}]), "", &registry);
    let mut client = wired.bridge();
    let args = allowed(&json!({"handle": "s1", "events": [state("m.room.create", &json!({}))]}));
    let id = client.request("callback", &json!({"callback": "check_event_allowed", "args": args}));
    let topic = state("m.room.topic", &json!({"topic": "tea"}));
    let get = client.receive().unwrap();
    assert_eq!(get["method"], "state.get");
    assert_eq!(
        get["params"],
        json!({"handle": "s1", "type": "m.room.topic", "state_key": ""})
    );
    client.reply(&get, &json!({"event": topic}));
    let name = client.receive().unwrap();
    assert_eq!(name["params"]["type"], "m.room.name");
    client.reply(&name, &json!({"event": null}));
    let page = client.receive().unwrap();
    assert_eq!(
        (&page["method"], &page["params"]),
        (&json!("state.page"), &json!({"handle": "s1", "from": 0}))
    );
    client.reply(
        &page,
        &json!({"events": [state("m.room.create", &json!({})), topic], "next": 2}),
    );
    let page = client.receive().unwrap();
    assert_eq!(page["params"]["from"], 2);
    client.reply(
        &page,
        &json!({"events": [state("m.room.avatar", &json!({}))], "next": null}),
    );
    let answer = client.answer(id);
    assert_eq!(answer["result"]["outcome"]["error"], "true \"tea\" 3 true", "{answer}");

    // All of it inline, as over HTTP, where a handle means nothing.
    let inline = allowed(&json!([state("m.room.topic", &json!({"topic": "tea"}))]));
    assert_eq!(
        client.decide("check_event_allowed", &inline)["outcome"]["error"],
        "false \"tea\" 1 false"
    );
    let error = refused(&wired.server.ask("check_event_allowed", &args), 400, "M_INVALID_PARAM");
    assert_eq!(error, "state_events: a handle means something on the wire only");
}

#[test]
fn state_that_the_caller_does_not_give_is_a_failure_of_the_call() {
    let registry = registry().with::<LooksAtState>("test.LooksAtState");
    let wired = Wired::with(&json!([{"module": "test.LooksAtState"}]), "", &registry);
    let args = allowed(&json!({"handle": "s1"}));
    let params = json!({"callback": "check_event_allowed", "args": args});
    let mut client = wired.bridge();
    for answer in [
        json!({"error": {"code": wire::code::GONE, "message": "gone"}}),
        json!({"result": {"event": 7}}),
        json!({"result": {}}),
        json!({"result": null}),
    ] {
        let id = client.request("callback", &params);
        let get = client.receive().unwrap();
        let mut message = json!({"jsonrpc": "2.0", "id": get["id"]});
        message
            .as_object_mut()
            .unwrap()
            .extend(answer.as_object().unwrap().clone());
        client.send(&message);
        let answer = client.answer(id);
        assert_eq!(answer["result"]["steps"][0]["result"], "module_error", "{answer}");
    }
    // Who said that it cannot be asked is not.
    let mut client = WireClient::silent(&wired.socket);
    client.send(&hello(&json!({"features": []})));
    client.receive().unwrap();
    let decision = client.decide("check_event_allowed", &args);
    assert_eq!(decision["steps"][0]["result"], "module_error", "{decision}");
    // With the budget of the module the question ends too, which the caller is told.
    let mut client = wired.bridge();
    let params = json!({"callback": "check_event_allowed", "args": args, "deadline_ms": 50});
    let id = client.request("callback", &params);
    let get = client.receive().unwrap();
    let (first, second) = (client.receive().unwrap(), client.receive().unwrap());
    let (cancel, answer) = if first.get("method").is_some() {
        (first, second)
    } else {
        (second, first)
    };
    assert_eq!(cancel["method"], "cancel");
    assert_eq!(cancel["params"]["id"], get["id"]);
    assert_eq!(
        (&answer["id"], &answer["result"]["steps"][0]["result"]),
        (&json!(id), &json!("deadline_exceeded"))
    );
}

/// Denies files that hold a word, and reads no further than to it.
struct LooksAtMedia;

impl Module for LooksAtMedia {
    type Config = NoConfig;

    fn new(_config: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().check_media_file_for_spam(Self::look))?;
        Ok(Self)
    }
}

impl LooksAtMedia {
    async fn look(&self, args: &CheckMediaFileForSpam) -> Result<Verdict, ModuleError> {
        if args.file_info.file_id == "whole" {
            let length = args.file_base64.contents().await?.len();
            return Ok(Verdict::Deny(Denial::forbidden().with_error(length.to_string())));
        }
        let mut offset = 0;
        loop {
            let chunk = args.file_base64.chunk(offset).await?;
            if chunk.contents.windows(4).any(|window| window == b"spam") {
                return Ok(Verdict::Deny(Denial::forbidden()));
            }
            if chunk.end {
                return Ok(Verdict::Pass);
            }
            offset += chunk.contents.len() as u64;
        }
    }
}

#[test]
fn a_media_file_comes_in_chunks_and_no_further_than_it_is_read() {
    let registry = registry().with::<LooksAtMedia>("test.LooksAtMedia");
    let wired = Wired::with(&json!([{"module": "test.LooksAtMedia"}]), "", &registry);
    let mut client = wired.bridge();
    let args = |file_id: &str| json!({"file_wrapper": {"handle": "m1"}, "file_info": {"file_id": file_id}});
    let ask = |file_id: &str| json!({"callback": "check_media_file_for_spam", "args": args(file_id)});
    let id = client.request("callback", &ask("f"));
    let read = client.receive().unwrap();
    assert_eq!(
        (&read["method"], &read["params"]),
        (&json!("media.read"), &json!({"handle": "m1", "offset": 0}))
    );
    client.reply(&read, &json!({"chunk_base64": "aGVsbG8=", "end": false}));
    let read = client.receive().unwrap();
    assert_eq!(read["params"]["offset"], 5);
    client.reply(&read, &json!({"chunk_base64": "c3BhbQ==", "end": false}));
    assert_eq!(client.answer(id)["result"]["outcome"]["verdict"], "deny");

    let id = client.request("callback", &ask("whole"));
    for end in [false, true] {
        let read = client.receive().unwrap();
        client.reply(&read, &json!({"chunk_base64": "aGVsbG8=", "end": end}));
    }
    assert_eq!(client.answer(id)["result"]["outcome"]["error"], "10");

    // One that never ends, and chunks that are none.
    for part in [
        json!({"chunk_base64": "", "end": false}),
        json!({"chunk_base64": "?", "end": true}),
        json!({"chunk_base64": "A".repeat(4 * 6000), "end": true}),
        json!({"end": true}),
    ] {
        let id = client.request("callback", &ask("whole"));
        let read = client.receive().unwrap();
        client.reply(&read, &part);
        assert_eq!(
            client.answer(id)["result"]["steps"][0]["result"],
            "module_error",
            "{part}"
        );
    }
    let inline = json!({"file_base64": "c3BhbQ==", "file_info": {"file_id": "f"}});
    assert_eq!(
        client.decide("check_media_file_for_spam", &inline)["outcome"]["verdict"],
        "deny"
    );
    assert_eq!(
        wired.server.decide("check_media_file_for_spam", &inline)["outcome"]["verdict"],
        "deny"
    );
}

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

#[test]
fn the_socket_has_its_mode_and_takes_the_place_of_one_that_nobody_listens_on() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ganglion.sock");
    let yaml = |wire: &str| format!("{}wire: {{socket: '{}'{wire}}}\n", with_modules("[]"), socket.display());
    let mode = || std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    let server = TestServer::start(&yaml(""));
    assert_eq!(mode(), 0o660);
    // Somebody listens there already.
    let bind = |yaml: &str| {
        let config = config_with(yaml, &registry());
        ganglion::wire::WireListeners::bind(&config.wire)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let refused = format!("wire.socket: cannot listen on {}", socket.display());
    assert_eq!(bind(&yaml("")), Err(refused.clone()));
    drop(server);
    assert!(!socket.exists());
    // A process that was killed leaves its socket, and perhaps what it was about to put there.
    drop(UnixListener::bind(&socket).unwrap());
    let half_made = socket.with_extension(format!("{}.new", std::process::id()));
    std::fs::create_dir(&half_made).unwrap();
    drop(UnixListener::bind(half_made.join("s")).unwrap());
    let server = TestServer::start(&yaml(", mode: '0600'"));
    assert_eq!(mode(), 0o600);
    drop(server);
    // What is no socket is nobody's to remove.
    std::fs::write(&socket, "precious").unwrap();
    assert_eq!(bind(&yaml("")), Err(refused));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
    assert_eq!(entries(directory.path()), 1);
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn over_tcp_the_token_decides() {
    let files = tempfile::tempdir().unwrap();
    let token = write(files.path(), "token", "s3cret");
    let yaml = format!(
        "{}wire: {{tcp: '127.0.0.1:0', token_file: '{}'}}\n",
        with_modules(&pass_and_deny().to_string()),
        token.display()
    );
    let server = TestServer::start(&yaml);
    let address = server.wire.unwrap();
    let say = |message: &Value| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let contents = message.to_string();
        stream
            .write_all(&u32::try_from(contents.len()).unwrap().to_be_bytes())
            .unwrap();
        stream.write_all(contents.as_bytes()).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut frame).unwrap();
        serde_json::from_slice::<Value>(&frame).unwrap()
    };
    assert_eq!(say(&hello(&json!({})))["error"]["code"], wire::code::UNAUTHORIZED);
    assert_eq!(say(&hello(&json!({"token": "s3cret"})))["result"]["role"], "ganglion");
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

#[test]
fn the_golden_messages_are_read_and_written_as_they_are() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wire.json");
    let golden: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for golden in &golden {
        let (name, message) = (golden["name"].as_str().unwrap(), &golden["message"]);
        let text = message.to_string();
        let written = match Incoming::read(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}")) {
            Incoming::Request { id, method, params } => {
                let params = again(&method, params.unwrap().get());
                wire::request(id, &method, &params)
            }
            Incoming::Notification { method, params } => {
                wire::notification(&method, &again(&method, params.unwrap().get()))
            }
            Incoming::Answer { id, result: Err(error) } => wire::error(id, &error),
            Incoming::Answer { id, result: Ok(result) } => {
                let result = result.unwrap().get();
                let id = id.unwrap();
                match name {
                    "hello_answer" => wire::result(id, &serde_json::from_str::<wire::Welcome>(result).unwrap()),
                    "state_get_answer" => wire::result(id, &serde_json::from_str::<wire::StateGot>(result).unwrap()),
                    "state_page_answer" => {
                        wire::result(id, &serde_json::from_str::<wire::StateEventsPage>(result).unwrap())
                    }
                    "media_read_answer" => wire::result(id, &serde_json::from_str::<wire::MediaPart>(result).unwrap()),
                    _ => wire::result(id, &serde_json::from_str::<Value>(result).unwrap()),
                }
            }
        };
        let written: Value = serde_json::from_slice(&written.unwrap()).unwrap();
        assert_eq!(&written, message, "{name}");
    }
    assert_eq!(golden.len(), 28);
}

/// The params of a method, read into their type and written again.
fn again(method: &str, params: &str) -> Value {
    fn through<'a, T: serde::Deserialize<'a> + serde::Serialize>(params: &'a str) -> Value {
        json!(serde_json::from_str::<T>(params).unwrap())
    }
    match method {
        wire::method::HELLO => through::<wire::Hello>(params),
        wire::method::ANNOUNCE => through::<wire::Announcement>(params),
        wire::method::CALLBACK => through::<wire::Ask<'_>>(params),
        wire::method::CONTINUE => through::<wire::GoOn>(params),
        wire::method::STATE_GET => through::<wire::StateGet<'_>>(params),
        wire::method::STATE_PAGE => through::<wire::StateFrom<'_>>(params),
        wire::method::MEDIA_READ => through::<wire::MediaRead<'_>>(params),
        wire::method::MODULE_API => through::<wire::ModuleApiCall<'_>>(params),
        wire::method::CANCEL => through::<wire::Cancel>(params),
        wire::method::GOODBYE => through::<wire::Goodbye<'_>>(params),
        other => panic!("{other} is in no golden message"),
    }
}
