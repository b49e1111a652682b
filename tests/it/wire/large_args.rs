//! Large args that stay with the caller until a module looks at them.

use ganglion::api::{
    CheckEventAllowed, CheckMediaFileForSpam, Denial, EventVerdict, Module, ModuleApi, ModuleError, NoConfig,
    SpamCheckerCallbacks, ThirdPartyRulesCallbacks, Verdict, wire,
};
use ganglion::registry;
use serde_json::{Value, json};

use super::Wired;
use crate::support::refused;
use crate::wire_client::{WireClient, hello};

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
