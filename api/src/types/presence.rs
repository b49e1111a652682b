//! Presence, and who is told about it.

use std::collections::{BTreeMap, BTreeSet};

use ruma_common::OwnedUserId;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::callback::Merging;
use crate::json::{FromJson, JsonError, JsonObject, JsonPath, json_object};

json_object! {
    /// The presence of a user. Timestamps are milliseconds since the Unix epoch, 0 for never.
    #[derive(Eq, PartialOrd, Ord)]
    Presence, array "[Presence]" {
        /// The user.
        user_id: OwnedUserId,
        /// `online`, `unavailable`, `offline` or `busy`.
        state: String,
        /// When the user was last active.
        last_active_ts [optional]: i64,
        /// When other servers were last told.
        last_federation_update_ts [optional]: i64,
        /// When the user last synced.
        last_user_sync_ts [optional]: i64,
        /// The status message.
        status_msg [optional]: Option<String>,
        /// Whether the user is active right now.
        currently_active [optional]: bool,
    }
}

/// The answer of `get_users_for_states`: which presence updates each user is told, beyond those of shared rooms.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct UsersForStates {
    /// The updates, by the user who is told.
    pub users: BTreeMap<OwnedUserId, BTreeSet<Presence>>,
    /// Keys that are no user ids: dropped with a warning, where Synapse would fail the request.
    pub dropped: Vec<String>,
}

impl UsersForStates {
    /// Tells these users these updates.
    #[must_use]
    pub fn new(users: BTreeMap<OwnedUserId, BTreeSet<Presence>>) -> Self {
        Self {
            users,
            dropped: Vec::new(),
        }
    }
}

impl Merging for UsersForStates {
    fn absorb(&mut self, next: Self) {
        for (user, updates) in next.users {
            self.users.entry(user).or_default().extend(updates);
        }
    }

    fn take_dropped(&mut self) -> Vec<String> {
        std::mem::take(&mut self.dropped)
    }
}

impl FromJson for UsersForStates {
    const TYPE: &'static str = "{mxid: [Presence]}";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        let mut answer = Self::default();
        for (key, updates) in JsonObject::from_json(value, at)? {
            let at = JsonPath::Key(at, &key);
            let updates = Vec::<Presence>::from_json(updates, &at)?;
            match OwnedUserId::from_json(Value::String(key.clone()), &at) {
                Ok(user) => answer.users.entry(user).or_default().extend(updates),
                Err(_) => answer.dropped.push(key),
            }
        }
        Ok(answer)
    }
}

impl Serialize for UsersForStates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.users.serialize(serializer)
    }
}

/// The answer of `get_interested_users`: whose presence a user is told, beyond that of shared rooms.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum InterestedUsers {
    /// Everybody's, `"ALL"`.
    All,
    /// That of these users.
    Users {
        /// The users.
        users: BTreeSet<OwnedUserId>,
        /// Entries that are no user ids: dropped with a warning.
        dropped: Vec<String>,
    },
}

impl InterestedUsers {
    /// These users.
    pub fn new(users: impl IntoIterator<Item = OwnedUserId>) -> Self {
        Self::Users {
            users: users.into_iter().collect(),
            dropped: Vec::new(),
        }
    }
}

impl Merging for InterestedUsers {
    fn absorb(&mut self, next: Self) {
        match (self, next) {
            (Self::Users { users, .. }, Self::Users { users: more, .. }) => users.extend(more),
            (whole, Self::All) => *whole = Self::All,
            (Self::All, Self::Users { .. }) => {}
        }
    }

    fn is_final(&self) -> bool {
        matches!(self, Self::All)
    }

    fn take_dropped(&mut self) -> Vec<String> {
        match self {
            Self::All => Vec::new(),
            Self::Users { dropped, .. } => std::mem::take(dropped),
        }
    }
}

impl FromJson for InterestedUsers {
    const TYPE: &'static str = "[mxid]|\"ALL\"";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        if value == "ALL" {
            return Ok(Self::All);
        }
        let (mut users, mut dropped) = (BTreeSet::new(), Vec::new());
        for text in Vec::<String>::from_json(value, at)? {
            match ruma_common::UserId::parse(&text) {
                Ok(user) => {
                    users.insert(user);
                }
                Err(_) => dropped.push(text),
            }
        }
        Ok(Self::Users { users, dropped })
    }
}

impl Serialize for InterestedUsers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("ALL"),
            Self::Users { users, .. } => users.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_are_no_user_ids_are_set_aside() {
        let answer = UsersForStates::from_json(json!({"@a:b": [], "nobody": []}), &JsonPath::Root).unwrap();
        assert_eq!(answer.dropped, ["nobody"]);
        assert_eq!(serde_json::to_value(answer).unwrap(), json!({"@a:b": []}));
    }
}
