//! Fingerprints of args, by which the same input is known again when it comes back.

use std::hash::{BuildHasher as _, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use ganglion_api::Callback;
use serde_json::{Map, Value};

/// Of another process: neither is a secret found by guessing, nor are args made that have the fingerprint of others.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What changes when the homeserver makes an event anew, at the top level of an event.
const OF_EVENTS: [&str; 9] = [
    "event_id",
    "origin_server_ts",
    "unsigned",
    "hashes",
    "signatures",
    "depth",
    "prev_events",
    "auth_events",
    "internal_metadata",
];

/// What changes when the same question is asked again, at the top level of args and in their types; so do timestamps,
/// `*_ts`.
const OF_ARGS: [&str; 8] = [
    "access_token",
    "access_token_id",
    "device_id",
    "expires_in_ms",
    "file_id",
    "refresh_token",
    // What surrounds the input, and is not the input.
    "state_events",
    "validated_at",
];

/// The fingerprint of a callback's args: two attempts at the same thing have the same one.
///
/// The rule: what the homeserver makes anew for each attempt is left out, and what a user wrote counts whole.
/// - At the top level of an event (the arg `event`, and `events` of a delivery) its ids, hashes, signatures, timestamp, place
///   in the graph and `unsigned` are left out. All other keys count with everything in them, `content` above all.
/// - `content`, `request_content`, `room_config`, `login_dict`, `uia_results` and `params` count whole.
/// - Everywhere else (other args, and the types in them such as a `Requester` or a `Presence`) the keys of devices,
///   tokens, timestamps and files are left out, and `state_events`.
///
/// It takes all of the args to make one, a whole file perhaps. So it is made only after a panic or a hang, and for the
/// calls of a callback that has strikes. The order of keys does not matter, that of arrays does. It is keyed, and means
/// nothing in another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fingerprint(pub(crate) u64);

impl Fingerprint {
    /// That of these args; `None` if they cannot be written as JSON.
    pub(crate) fn of<C: Callback>(args: &C) -> Option<Self> {
        let args = serde_json::to_value(args).ok()?;
        Some(Self::of_json(C::INDEX, &args))
    }

    fn of_json(callback: usize, args: &Value) -> Self {
        let mut hasher = KEY.build_hasher();
        callback.hash(&mut hasher);
        hash(args, Place::Args, &mut hasher);
        Self(hasher.finish())
    }
}

/// Where a value stands in args.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In args, or in a type of theirs.
    Args,
    /// Where an event stands, or an array of events.
    Event,
    /// In what counts whole.
    Whole,
}

impl Place {
    /// The place of the value of a key; `None` if it is left out.
    fn of_key(self, key: &str) -> Option<Self> {
        match self {
            Self::Args if OF_ARGS.contains(&key) || key.ends_with("_ts") => None,
            Self::Event if OF_EVENTS.contains(&key) => None,
            Self::Args => Some(match key {
                "event" | "events" => Self::Event,
                "content" | "request_content" | "room_config" | "login_dict" | "uia_results" | "params" => Self::Whole,
                _ => Self::Args,
            }),
            Self::Event | Self::Whole => Some(Self::Whole),
        }
    }
}

/// The kind of a value goes before it and the length before its parts, so that no two values give the same bytes.
fn hash(value: &Value, place: Place, hasher: &mut impl Hasher) {
    match value {
        Value::Null => 0_u8.hash(hasher),
        Value::Bool(flag) => (1_u8, flag).hash(hasher),
        Value::Number(number) => (2_u8, number).hash(hasher),
        Value::String(text) => (3_u8, text).hash(hasher),
        Value::Array(items) => {
            (4_u8, items.len()).hash(hasher);
            items.iter().for_each(|item| hash(item, place, hasher));
        }
        Value::Object(object) => hash_object(object, place, hasher),
    }
}

fn hash_object(object: &Map<String, Value>, place: Place, hasher: &mut impl Hasher) {
    let kept = object
        .iter()
        .filter_map(|(key, value)| Some((key, value, place.of_key(key)?)));
    let mut kept: Vec<_> = kept.collect();
    kept.sort_unstable_by_key(|(key, ..)| *key);
    (5_u8, kept.len()).hash(hasher);
    for (key, value, place) in kept {
        key.hash(hasher);
        hash(value, place, hasher);
    }
}

#[cfg(test)]
mod tests {
    use ganglion_api::{
        AuthCheckers, CheckEventAllowed, CheckEventForSpam, CheckMediaFileForSpam, CheckRegistrationForSpam,
        GetUsersForStates, JsonPath, OnCreateRoom, OnEventDeliveredOverFederation, OnLoggedOut, OnNewEvent,
        ShouldDropFederatedEvent, UserMayCreateRoom, UserMaySendStateEvent,
    };
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of<C: Callback>(args: &Value) -> Fingerprint {
        let args = C::from_json(args.clone(), &JsonPath::Root).unwrap_or_else(|error| panic!("{error}: {args}"));
        Fingerprint::of(&args).unwrap()
    }

    #[track_caller]
    fn same<C: Callback>(one: &Value, other: &Value) {
        assert_eq!(of::<C>(one), of::<C>(other), "{one}\n{other}");
    }

    #[track_caller]
    fn differ<C: Callback>(one: &Value, other: &Value) {
        assert_ne!(of::<C>(one), of::<C>(other), "{one}\n{other}");
    }

    /// An event with other keys.
    fn event(with: &Value) -> Value {
        let mut event =
            json!({"type": "m.room.message", "sender": "@a:b", "room_id": "!r:b", "content": {"body": "x"}});
        event.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        event
    }

    #[test]
    fn an_event_that_is_sent_again_is_the_same() {
        let again = json!({
            "event_id": "$x", "origin_server_ts": 7, "unsigned": {"age": 1}, "hashes": {"sha256": "x"},
            "signatures": {"b": {}}, "depth": 3, "prev_events": ["$y"], "auth_events": ["$z"],
            "internal_metadata": {"stream": 1},
        });
        let (first, again) = (json!({"event": event(&json!({}))}), json!({"event": event(&again)}));
        same::<CheckEventForSpam>(&first, &again);
        for other in [
            json!({"content": {"body": "y"}}),
            json!({"content": {"body": "x", "event_id": "$x"}}),
            json!({"content": {"body": "x", "origin_server_ts": 7}}),
            json!({"sender": "@c:b"}),
            json!({"state_key": ""}),
            json!({"redacts": "$x"}),
            json!({"org.x": {"depth": 1}}),
        ] {
            differ::<CheckEventForSpam>(&first, &json!({"event": event(&other)}));
        }
        let delivered = |with: &Value, server: &str| {
            let delivery = json!({"server_name": server, "events": [event(with)], "method": "/send"});
            json!({ "delivery": delivery })
        };
        let first = delivered(&json!({}), "b");
        same::<OnEventDeliveredOverFederation>(&first, &delivered(&json!({"event_id": "$x"}), "b"));
        differ::<OnEventDeliveredOverFederation>(&first, &delivered(&json!({}), "c"));
        differ::<OnEventDeliveredOverFederation>(&first, &delivered(&json!({"content": {}}), "b"));
    }

    #[test]
    fn a_media_file_that_is_not_here_is_like_no_other() {
        let args = |file: Value| json!({"file_base64": file, "file_info": {"file_id": "f"}});
        let there = |handle: &str| args(json!({ "handle": handle }));
        differ::<CheckMediaFileForSpam>(&there("m1"), &there("m2"));
        same::<CheckMediaFileForSpam>(&args(json!("aGk=")), &args(json!("aGk=")));
        differ::<CheckMediaFileForSpam>(&args(json!("aGk=")), &args(json!("aG8=")));
    }

    #[test]
    fn the_state_around_an_event_does_not_count() {
        let state = event(&json!({"type": "m.room.name", "state_key": ""}));
        let (bare, with_state) = (
            json!({"event": event(&json!({}))}),
            json!({"event": event(&json!({})), "state_events": [state]}),
        );
        same::<CheckEventAllowed>(&bare, &with_state);
        same::<OnNewEvent>(&bare, &with_state);
    }

    #[test]
    fn the_same_args_of_another_callback_are_another_input() {
        let args = json!({"event": event(&json!({}))});
        assert_ne!(of::<CheckEventForSpam>(&args), of::<ShouldDropFederatedEvent>(&args));
    }

    #[test]
    fn devices_tokens_and_timestamps_do_not_count() {
        let registration = |username: &str, at: i64, ip: &str| {
            let threepid = json!({"medium": "email", "address": "a@b", "validated_at": at});
            json!({"email_threepid": threepid, "username": username, "request_info": [[null, ip]]})
        };
        let first = registration("x", 1, "192.0.2.1");
        same::<CheckRegistrationForSpam>(&first, &registration("x", 2, "192.0.2.1"));
        // It may be all that there is of a registration, and anybody chooses their user agent.
        differ::<CheckRegistrationForSpam>(&first, &registration("x", 1, "192.0.2.2"));
        differ::<CheckRegistrationForSpam>(&first, &registration("y", 1, "192.0.2.1"));
        let out = |user: &str, device: Option<&str>, token: &str| {
            let device = json!(device);
            json!({"user_id": user, "device_id": device, "access_token": token})
        };
        let first = out("@a:b", None, "x");
        same::<OnLoggedOut>(&first, &out("@a:b", Some("D"), "y"));
        differ::<OnLoggedOut>(&first, &out("@b:b", None, "x"));
        let presence = |state: &str, at: i64| {
            let update = json!({"user_id": "@a:b", "state": state, "last_active_ts": at, "last_user_sync_ts": at});
            json!({"state_updates": [update]})
        };
        same::<GetUsersForStates>(&presence("online", 1), &presence("online", 2));
        differ::<GetUsersForStates>(&presence("online", 1), &presence("offline", 1));
    }

    #[test]
    fn what_a_user_wrote_counts_whole() {
        let room = |token: i64, content: &Value| {
            let requester = json!({"user_id": "@a:b", "access_token_id": token, "device_id": token.to_string()});
            json!({"requester": requester, "request_content": content, "is_requester_admin": false})
        };
        let first = room(1, &json!({"name": "x"}));
        same::<OnCreateRoom>(&first, &room(2, &json!({"name": "x"})));
        differ::<OnCreateRoom>(&first, &room(1, &json!({"name": "x", "device_id": "D"})));
        let config = |config: &Value| json!({"user_id": "@a:b", "room_config": config});
        differ::<UserMayCreateRoom>(&config(&json!({})), &config(&json!({"made_ts": 1})));
        let state = |content: &Value| json!({"user_id": "@a:b", "room_id": "!r:b", "event_type": "x", "state_key": "", "content": content});
        let login = |token: &str| json!({"username": "a", "login_type": "x", "login_dict": {"access_token": token}});
        differ::<AuthCheckers>(&login("x"), &login("y"));
        differ::<UserMaySendStateEvent>(&state(&json!({})), &state(&json!({"x": [{"file_id": 1}]})));
    }

    /// Keys of every sort, few enough that values are often the same.
    const KEYS: [&str; 10] = [
        "event",
        "events",
        "content",
        "request_content",
        "user_id",
        "device_id",
        "state_events",
        "made_ts",
        "event_id",
        "origin_server_ts",
    ];

    fn some_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            Just(json!(0)),
            Just(json!(0.5)),
            Just(json!("0")),
            any::<bool>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                1 => proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                3 => proptest::collection::btree_map(proptest::sample::select(&KEYS[..]), inner, 0..4)
                    .prop_map(|object| object.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ]
        })
    }

    /// The rule, written down as what is taken away.
    fn stripped(value: &Value, in_event: bool) -> Value {
        match value {
            Value::Array(items) => items.iter().map(|item| stripped(item, in_event)).collect(),
            Value::Object(object) => {
                let mut object = object.clone();
                if in_event {
                    object.retain(|key, _| !OF_EVENTS.contains(&key.as_str()));
                    return object.into();
                }
                object.retain(|key, _| !(OF_ARGS.contains(&key.as_str()) || key.ends_with("_ts")));
                for (key, value) in &mut object {
                    if key != "content" && key != "request_content" {
                        *value = stripped(value, ["event", "events"].contains(&key.as_str()));
                    }
                }
                object.into()
            }
            other => other.clone(),
        }
    }

    /// A value with something put into every object that has a place for it.
    fn with_changes(value: &Value, change: &Value, in_event: bool) -> Value {
        match value {
            Value::Array(items) => items.iter().map(|item| with_changes(item, change, in_event)).collect(),
            Value::Object(object) => {
                let mut object = object.clone();
                for (key, value) in &mut object {
                    if !in_event && key != "content" && key != "request_content" {
                        *value = with_changes(value, change, ["event", "events"].contains(&key.as_str()));
                    }
                }
                let keys: &[&str] = if in_event { &OF_EVENTS } else { &OF_ARGS };
                object.extend(keys.iter().map(|key| ((*key).to_owned(), change.clone())));
                object.into()
            }
            other => other.clone(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn args_have_the_same_fingerprint_if_nothing_else_differs(one in some_json(), other in some_json()) {
            let same = stripped(&one, false) == stripped(&other, false);
            prop_assert_eq!(Fingerprint::of_json(0, &one) == Fingerprint::of_json(0, &other), same);
        }

        #[test]
        fn what_is_left_out_may_be_anything(args in some_json(), change in some_json()) {
            let changed = with_changes(&args, &change, false);
            prop_assert_eq!(Fingerprint::of_json(0, &args), Fingerprint::of_json(0, &changed));
        }

        #[test]
        fn the_order_of_keys_does_not_count(args in some_json()) {
            let reversed = reversed(&args);
            let read = serde_json::from_str(&reversed).unwrap();
            prop_assert_eq!(Fingerprint::of_json(0, &args), Fingerprint::of_json(0, &read));
        }
    }

    /// The text of a value with the keys of its objects from last to first.
    fn reversed(value: &Value) -> String {
        let of_items = |items: Vec<String>| items.join(",");
        match value {
            Value::Array(items) => format!("[{}]", of_items(items.iter().map(reversed).collect())),
            Value::Object(object) => {
                let parts = object
                    .iter()
                    .rev()
                    .map(|(key, value)| format!("{key:?}:{}", reversed(value)));
                format!("{{{}}}", of_items(parts.collect()))
            }
            other => other.to_string(),
        }
    }
}
