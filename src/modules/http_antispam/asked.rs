//! What the server is asked: the args of a callback as the protocol has them.

use ganglion_api::Callback;
use serde_json::Value;

/// What servers exchange about an event, or a homeserver notes beside it. The protocol has events as clients see them.
const NOT_FOR_CLIENTS: [&str; 11] = [
    "auth_events",
    "depth",
    "hashes",
    "internal_metadata",
    "membership",
    "origin",
    "prev_events",
    "prev_state",
    "rejected_reason",
    "room_version",
    "signatures",
];

/// The body of a question.
pub(super) fn body(args: &impl Callback) -> Result<Value, serde_json::Error> {
    let mut body = serde_json::to_value(args)?;
    if let Some(args) = body.as_object_mut() {
        // The one arg that the protocol does not have.
        args.remove("room_config");
        if let Some(Value::Object(event)) = args.get_mut("event") {
            event.retain(|key, _| !NOT_FOR_CLIENTS.contains(&key.as_str()));
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use ganglion_api::{CheckEventForSpam, Event, JsonObject, UserMayCreateRoom};
    use ruma_common::{room_id, user_id};
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_goes_out_as_clients_see_it() {
        let (bob, room) = (user_id!("@bob:example.com"), room_id!("!r:example.com"));
        let mut event = Event::new(
            "m.room.member",
            bob.to_owned(),
            room.to_owned(),
            Some(String::new()),
            JsonObject::new(),
        );
        for key in NOT_FOR_CLIENTS
            .into_iter()
            .chain(["event_id", "origin_server_ts", "unsigned", "org.x"])
        {
            event.other.insert(key.into(), json!(1));
        }
        let expected = json!({"event": {"type": "m.room.member", "sender": bob, "room_id": room, "state_key": "",
            "content": {}, "event_id": 1, "origin_server_ts": 1, "unsigned": 1, "org.x": 1}});
        assert_eq!(body(&CheckEventForSpam::new(event)).unwrap(), expected);
    }

    #[test]
    fn the_protocol_has_no_room_config() {
        let config = JsonObject::from_iter([("preset".to_owned(), json!("public_chat"))]);
        let asked = body(&UserMayCreateRoom::new(user_id!("@bob:example.com").to_owned(), config));
        assert_eq!(asked.unwrap(), json!({"user_id": "@bob:example.com"}));
    }
}
