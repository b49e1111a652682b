//! Events and state maps.

use ruma_common::{OwnedRoomId, OwnedUserId};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::json::{ArrayItem, Fields, FromJson, JsonError, JsonObject, JsonPath};

/// An event: the keys that every event has, typed, and all others as they came.
///
/// The JSON is one object: the PDU, and beside its keys what Synapse knows about it (`event_id`, `room_version`,
/// `internal_metadata`, `membership`, `rejected_reason`).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// The type, for example `m.room.message`.
    pub event_type: String,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// The room.
    pub room_id: OwnedRoomId,
    /// The state key; `None` if this is not a state event.
    pub state_key: Option<String>,
    /// The content.
    pub content: JsonObject,
    /// Every other key, unchecked.
    pub other: JsonObject,
}

impl Event {
    /// An event with no other keys.
    pub fn new(
        event_type: impl Into<String>,
        sender: OwnedUserId,
        room_id: OwnedRoomId,
        state_key: Option<String>,
        content: JsonObject,
    ) -> Self {
        Self {
            event_type: event_type.into(),
            sender,
            room_id,
            state_key,
            content,
            other: JsonObject::new(),
        }
    }

    /// The event's id, if the caller sent it. Since room version 3 it is not part of the PDU.
    #[must_use]
    pub fn event_id(&self) -> Option<&str> {
        self.other.get("event_id").and_then(Value::as_str)
    }

    /// The room's version, if the caller sent it.
    #[must_use]
    pub fn room_version(&self) -> Option<&str> {
        self.other.get("room_version").and_then(Value::as_str)
    }

    /// The membership of an `m.room.member`: what the caller sent beside the PDU, else the content's.
    #[must_use]
    pub fn membership(&self) -> Option<&str> {
        if let Some(sent) = self.other.get("membership").and_then(Value::as_str) {
            return Some(sent);
        }
        (self.event_type == "m.room.member")
            .then(|| self.content.get("membership")?.as_str())
            .flatten()
    }
}

impl FromJson for Event {
    const TYPE: &'static str = "Event";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        let mut fields = Fields::new(value, at)?;
        Ok(Self {
            event_type: fields.required("type")?,
            sender: fields.required("sender")?,
            room_id: fields.required("room_id")?,
            state_key: fields
                .take("state_key")
                .map(|key| String::from_json(key, &JsonPath::Key(at, "state_key")))
                .transpose()?,
            content: fields.required("content")?,
            other: fields.rest(),
        })
    }
}

impl ArrayItem for Event {
    const ARRAY_TYPE: &'static str = "[Event]";
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Keys<'a> {
            r#type: &'a str,
            sender: &'a OwnedUserId,
            room_id: &'a OwnedRoomId,
            #[serde(skip_serializing_if = "Option::is_none")]
            state_key: Option<&'a str>,
            content: &'a JsonObject,
            #[serde(flatten)]
            other: &'a JsonObject,
        }
        Keys {
            r#type: &self.event_type,
            sender: &self.sender,
            room_id: &self.room_id,
            state_key: self.state_key.as_deref(),
            content: &self.content,
            other: &self.other,
        }
        .serialize(serializer)
    }
}

/// The state of a room: at most one event for each type and state key. Source: Synapse's `StateMap`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct StateEvents(Vec<Event>);

impl StateEvents {
    /// The event with this type and state key.
    #[must_use]
    pub fn get(&self, event_type: &str, state_key: &str) -> Option<&Event> {
        self.0
            .iter()
            .find(|event| event.event_type == event_type && event.state_key.as_deref() == Some(state_key))
    }

    /// All events, in the order in which they came.
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.0.iter()
    }

    /// Makes a state map.
    ///
    /// # Errors
    /// An event has no state key, or two share their type and state key.
    pub fn new(events: Vec<Event>) -> Result<Self, JsonError> {
        Self::checked(events, &JsonPath::Root)
    }

    fn checked(events: Vec<Event>, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        let mut seen = std::collections::BTreeSet::new();
        for (index, event) in events.iter().enumerate() {
            let at = JsonPath::Index(at, index);
            let Some(state_key) = &event.state_key else {
                return Err(JsonError::invalid(&at, "expected a state event, found no state_key"));
            };
            if !seen.insert((&event.event_type, state_key)) {
                return Err(JsonError::invalid(&at, "a second event for one type and state_key"));
            }
        }
        Ok(Self(events))
    }
}

impl<'a> IntoIterator for &'a StateEvents {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromJson for StateEvents {
    const TYPE: &'static str = "State";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        Self::checked(Vec::from_json(value, at)?, at)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(extra: &Value) -> Result<Event, JsonError> {
        let mut value =
            json!({"type": "m.room.member", "sender": "@a:b", "room_id": "!r:b", "content": {"membership": "join"}});
        value
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        Event::from_json(value, &JsonPath::Root)
    }

    #[test]
    fn unknown_keys_of_an_event_are_kept() {
        let value = json!({"type": "x", "sender": "@a:b", "room_id": "!r:b", "content": {}, "org.x": {"a": [1]}});
        let event = Event::from_json(value.clone(), &JsonPath::Root).unwrap();
        assert_eq!(serde_json::to_value(event).unwrap(), value);
    }

    #[test]
    fn a_null_state_key_is_invalid_and_an_absent_one_is_no_state() {
        let error = event(&json!({"state_key": null})).unwrap_err();
        assert_eq!(error.to_string(), "state_key: expected a string, found null");
        assert_eq!(event(&json!({})).unwrap().state_key, None);
    }

    #[test]
    fn the_membership_is_the_content_s_unless_it_was_sent() {
        assert_eq!(event(&json!({})).unwrap().membership(), Some("join"));
        assert_eq!(event(&json!({"membership": "ban"})).unwrap().membership(), Some("ban"));
        assert_eq!(event(&json!({"type": "m.room.topic"})).unwrap().membership(), None);
    }

    #[test]
    fn a_state_map_holds_one_event_for_each_key() {
        let create = event(&json!({"type": "m.room.create", "state_key": ""})).unwrap();
        assert!(
            StateEvents::new(vec![create.clone()])
                .unwrap()
                .get("m.room.create", "")
                .is_some()
        );
        assert_eq!(
            StateEvents::new(vec![create.clone(), create]).unwrap_err().to_string(),
            "[1]: a second event for one type and state_key"
        );
        assert!(StateEvents::new(vec![event(&json!({})).unwrap()]).is_err());
    }
}
