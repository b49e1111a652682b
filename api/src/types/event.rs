//! Events and state maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ruma_common::{OwnedRoomId, OwnedUserId};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::failure::ModuleError;
use crate::json::{ArrayItem, Fields, FromJson, JsonError, JsonObject, JsonPath};
use crate::lazy::{ArgSource, LazyArg, Remote};

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

    /// The membership of an `m.room.member`: the content's, else what the caller sent beside the PDU. Not the other way
    /// round: a server may put keys of any name beside those that a PDU has.
    #[must_use]
    pub fn membership(&self) -> Option<&str> {
        if self.event_type != "m.room.member" {
            return None;
        }
        let membership = self.content.get("membership").or_else(|| self.other.get("membership"));
        membership.and_then(Value::as_str)
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
///
/// Over the wire some events come at once, those that modules look at most, and the others when somebody asks for them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StateEvents {
    known: Vec<Arc<Event>>,
    rest: Option<Rest>,
}

/// The events that did not come at once.
#[derive(Debug, Clone)]
struct Rest {
    remote: Remote,
    fetched: Arc<Mutex<Fetched>>,
}

/// What was asked for so far, for all who look at the same map.
#[derive(Debug, Default)]
struct Fetched {
    one: BTreeMap<(String, String), Option<Arc<Event>>>,
    all: Option<Vec<Arc<Event>>>,
}

impl PartialEq for Rest {
    fn eq(&self, other: &Self) -> bool {
        self.remote == other.remote
    }
}

fn find<'a>(events: &'a [Arc<Event>], event_type: &str, state_key: &str) -> Option<&'a Arc<Event>> {
    events
        .iter()
        .find(|event| event.event_type == event_type && event.state_key.as_deref() == Some(state_key))
}

impl Rest {
    fn lock(&self) -> MutexGuard<'_, Fetched> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn get(&self, event_type: &str, state_key: &str) -> Result<Option<Arc<Event>>, ModuleError> {
        let key = (event_type.to_owned(), state_key.to_owned());
        {
            let fetched = self.lock();
            if let Some(all) = &fetched.all {
                return Ok(find(all, event_type, state_key).cloned());
            }
            if let Some(event) = fetched.one.get(&key) {
                return Ok(event.clone());
            }
        }
        let source = self.remote.source()?;
        let event = source.state_event(&self.remote.handle, event_type, state_key).await?;
        let event = event.map(Arc::new);
        self.lock().one.insert(key, event.clone());
        Ok(event)
    }

    async fn all(&self) -> Result<Vec<Arc<Event>>, ModuleError> {
        if let Some(all) = &self.lock().all {
            return Ok(all.clone());
        }
        let source = self.remote.source()?;
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let page = source.state_page(&self.remote.handle, from).await?;
            all.extend(page.events.into_iter().map(Arc::new));
            match page.next {
                None => break,
                Some(next) if next > from => from = next,
                Some(_) => return Err(ModuleError::message("the pages of the state do not come to an end")),
            }
        }
        self.lock().all = Some(all.clone());
        Ok(all)
    }
}

impl StateEvents {
    /// The event with this type and state key. It may have to be fetched, which takes of the call's budget.
    ///
    /// # Errors
    /// It had to be, and could not. `?` makes a failure of it, which meets the failure policy.
    pub async fn get(&self, event_type: &str, state_key: &str) -> Result<Option<Arc<Event>>, ModuleError> {
        match (find(&self.known, event_type, state_key), &self.rest) {
            (Some(event), _) => Ok(Some(Arc::clone(event))),
            (None, None) => Ok(None),
            (None, Some(rest)) => rest.get(event_type, state_key).await,
        }
    }

    /// All events. They may have to be fetched, once for all who look at the same map: of a large room they are many.
    ///
    /// # Errors
    /// They had to be, and could not.
    pub async fn all(&self) -> Result<Vec<Arc<Event>>, ModuleError> {
        match &self.rest {
            None => Ok(self.known.clone()),
            Some(rest) => rest.all().await,
        }
    }

    /// Those that need not be fetched.
    #[must_use]
    pub fn known(&self) -> &[Arc<Event>] {
        &self.known
    }

    /// Makes a state map of all its events.
    ///
    /// # Errors
    /// An event has no state key, or two share their type and state key.
    pub fn new(events: Vec<Event>) -> Result<Self, JsonError> {
        Ok(Self {
            known: checked(events, &JsonPath::Root)?,
            rest: None,
        })
    }
}

/// State events, of which no two share their type and state key.
fn checked(events: Vec<Event>, at: &JsonPath<'_>) -> Result<Vec<Arc<Event>>, JsonError> {
    let mut seen = BTreeSet::new();
    for (index, event) in events.iter().enumerate() {
        let at = JsonPath::Index(at, index);
        let Some(state_key) = &event.state_key else {
            return Err(JsonError::invalid(&at, "expected a state event, found no state_key"));
        };
        if !seen.insert((&event.event_type, state_key)) {
            return Err(JsonError::invalid(&at, "a second event for one type and state_key"));
        }
    }
    Ok(events.into_iter().map(Arc::new).collect())
}

impl Serialize for StateEvents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Lazy<'a> {
            handle: &'a str,
            events: &'a [Arc<Event>],
        }
        match &self.rest {
            None => self.known.serialize(serializer),
            Some(rest) => Lazy {
                handle: &rest.remote.handle,
                events: &self.known,
            }
            .serialize(serializer),
        }
    }
}

impl FromJson for StateEvents {
    const TYPE: &'static str = "State";

    /// An array of events, or `{"handle", "events"}`.
    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        if value.get("handle").is_none() {
            let known = checked(Vec::from_json(value, at)?, at)?;
            return Ok(Self { known, rest: None });
        }
        let mut fields = Fields::new(value, at)?;
        let events = fields.optional("events")?;
        let rest = Rest {
            remote: Remote::new(fields.required("handle")?),
            fetched: Arc::default(),
        };
        Ok(Self {
            known: checked(events, &JsonPath::Key(at, "events"))?,
            rest: Some(rest),
        })
    }
}

impl LazyArg for StateEvents {
    fn connect(&mut self, source: Option<&Arc<dyn ArgSource>>, key: &str) -> Result<(), JsonError> {
        match &mut self.rest {
            None => Ok(()),
            Some(rest) => rest.remote.connect(source, key),
        }
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
    fn the_membership_of_a_member_is_the_content_s_whatever_stands_beside_it() {
        assert_eq!(event(&json!({})).unwrap().membership(), Some("join"));
        assert_eq!(event(&json!({"membership": "ban"})).unwrap().membership(), Some("join"));
        let beside = event(&json!({"content": {}, "membership": "ban"})).unwrap();
        assert_eq!(beside.membership(), Some("ban"));
        let topic = event(&json!({"type": "m.room.topic", "membership": "ban"})).unwrap();
        assert_eq!(topic.membership(), None);
    }

    #[test]
    fn a_state_map_holds_one_event_for_each_key() {
        let create = event(&json!({"type": "m.room.create", "state_key": ""})).unwrap();
        let state = StateEvents::new(vec![create.clone()]).unwrap();
        assert!(find(state.known(), "m.room.create", "").is_some());
        assert_eq!(
            StateEvents::new(vec![create.clone(), create]).unwrap_err().to_string(),
            "[1]: a second event for one type and state_key"
        );
        assert!(StateEvents::new(vec![event(&json!({})).unwrap()]).is_err());
    }
}
