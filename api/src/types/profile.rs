//! Profiles, third-party identifiers and where requests come from.

use ruma_common::OwnedUserId;
use serde::Serialize;
use serde_json::Value;

use crate::json::{ArrayItem, FromJson, JsonError, JsonPath, json_object};

json_object! {
    /// A row of a user-directory search.
    #[derive(Eq)]
    UserProfile {
        /// The user.
        user_id: OwnedUserId,
        /// The display name.
        display_name [optional]: Option<String>,
        /// The avatar, an `mxc:` URI.
        avatar_url [optional]: Option<String>,
    }
}

json_object! {
    /// A user's profile: the two fields that Synapse gives to modules.
    #[derive(Eq)]
    Profile {
        /// The display name.
        display_name [optional]: Option<String>,
        /// The avatar, an `mxc:` URI.
        avatar_url [optional]: Option<String>,
    }
}

json_object! {
    /// A validated third-party identifier.
    #[derive(Eq)]
    Threepid {
        /// `email` or `msisdn`.
        medium: String,
        /// The address in its canonical form.
        address: String,
        /// When it was validated, milliseconds since the Unix epoch.
        validated_at: i64,
    }
}

/// One user agent and IP address that took part in a registration or a login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RequestInfo(
    /// The user agent; `None` if the client sent none.
    pub Option<String>,
    /// The IP address, as the homeserver saw it.
    pub String,
);

impl RequestInfo {
    /// A user agent and an IP address.
    pub fn new(user_agent: Option<String>, ip: impl Into<String>) -> Self {
        Self(user_agent, ip.into())
    }
}

impl FromJson for RequestInfo {
    const TYPE: &'static str = "[str|null, str]";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        let items = Vec::<Value>::from_json(value, at)?;
        let Ok([user_agent, ip]) = <[Value; 2]>::try_from(items) else {
            return Err(JsonError::invalid(at, "expected [user_agent, ip]"));
        };
        Ok(Self(
            Option::from_json(user_agent, &JsonPath::Index(at, 0))?,
            String::from_json(ip, &JsonPath::Index(at, 1))?,
        ))
    }
}

impl ArrayItem for RequestInfo {
    const ARRAY_TYPE: &'static str = "ReqInfo";
}

impl ArrayItem for Value {
    const ARRAY_TYPE: &'static str = "[any]";
}
