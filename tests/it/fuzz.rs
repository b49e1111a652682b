//! Input of every kind, given to the config loader and to the args decoders.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ganglion::api::{JsonPath, reference, visit_all, visit_each_callback};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::config::{accepted, read};
use crate::support::{TestServer, canned, with_modules};
use crate::wire_client::WireClient;

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
on_failure: [{category: spam_checker, kind: [panicked, overloaded], origin: local, then: pass}]
cache: {max_entries: 1000, max_per_module: 5000, max_total: 20000, ttl: 10m, idle: 1m}
modules:
  - &first
    module: demo.DemoModule
    id: demo
    priority: -3
    call_timeout: 500ms
    max_in_flight: 8
    mailbox: 0
    tier: thread
    breaker: {mode: metrics_only, window: 50, minimum: 5, failure_rate: 0.25, slow_rate: 0.9, slow_after: 400ms}
    restart: {max: 3, within: 10m, backoff: [200ms, 1m]}
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

/// A server with a socket, for all cases.
fn wired() -> &'static Path {
    static SERVER: OnceLock<(TestServer, TempDir, PathBuf)> = OnceLock::new();
    let (_, _, socket) = SERVER.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let answers = json!({"user_may_create_room": {"verdict": "deny"}, "auth_checkers": {"value": null}});
        let modules = with_modules(&json!([canned("a", &answers)]).to_string());
        let server = TestServer::start(&format!("{modules}wire: {{socket: '{}'}}\n", socket.display()));
        (server, directory, socket)
    });
    socket
}

/// The golden messages of a bridge.
fn golden_messages() -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wire.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    golden
        .as_array()
        .unwrap()
        .iter()
        .map(|golden| golden["message"].clone())
        .collect()
}

/// What a peer may send: bytes that are no frame, frames that are no message, messages of either side with damage.
fn sent() -> impl Strategy<Value = Vec<u8>> {
    let framed = |contents: Vec<u8>| {
        let length = u32::try_from(contents.len()).unwrap().to_be_bytes();
        [&length[..], &contents].concat()
    };
    let golden = golden_messages();
    let damaged = (
        prop::sample::select(golden),
        any::<prop::sample::Index>(),
        any_json(),
        any::<bool>(),
    );
    let damaged = damaged.prop_map(|(mut message, at, value, damage)| {
        let mut places = Vec::new();
        pointers(&message, &mut String::new(), &mut places);
        if damage {
            *message.pointer_mut(&places[at.index(places.len())]).unwrap() = value;
        }
        message.to_string().into_bytes()
    });
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(framed),
        1 => any_json().prop_map(move |json| framed(json.to_string().into_bytes())),
        8 => damaged.prop_map(framed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_peer_sends_others_are_answered(greets in any::<bool>(), sent in prop::collection::vec(sent(), 1..12)) {
        let socket = wired();
        let mut peer = if greets { WireClient::bridge(socket).0 } else { WireClient::silent(socket) };
        for bytes in sent {
            peer.send_raw(&bytes);
        }
        let mut other = WireClient::bridge(socket).0;
        let decision = other.decide("user_may_create_room", &json!({"user_id": "@bob:example.com"}));
        prop_assert_eq!(&decision["decided_by"], "a");
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
