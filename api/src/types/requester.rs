//! Who makes a request.

use ruma_common::OwnedUserId;
use serde::Serialize;
use serde_json::Value;

use crate::json::{Fields, FromJson, JsonError, JsonPath};

/// Who makes a request, as Synapse serialises its `Requester`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Requester {
    /// The user.
    pub user_id: OwnedUserId,
    /// The row of the access token, if one was used.
    pub access_token_id: Option<i64>,
    /// Whether the user is a guest.
    pub is_guest: bool,
    /// The scopes of the token.
    pub scope: Vec<String>,
    /// Whether the user is shadow-banned.
    pub shadow_banned: bool,
    /// The device.
    pub device_id: Option<String>,
    /// The application service that acts for the user.
    pub app_server_id: Option<String>,
    /// Who authenticated; another user where an administrator acts for one.
    pub authenticated_entity: String,
}

impl Requester {
    /// A user who acts for themselves, without a token.
    #[must_use]
    pub fn new(user_id: OwnedUserId) -> Self {
        Self {
            authenticated_entity: user_id.to_string(),
            user_id,
            access_token_id: None,
            is_guest: false,
            scope: Vec::new(),
            shadow_banned: false,
            device_id: None,
            app_server_id: None,
        }
    }
}

impl FromJson for Requester {
    const TYPE: &'static str = "Requester";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        let mut fields = Fields::new(value, at)?;
        let mut requester = Self::new(fields.required("user_id")?);
        requester.access_token_id = fields.optional("access_token_id")?;
        requester.is_guest = fields.optional("is_guest")?;
        requester.scope = fields.optional("scope")?;
        requester.shadow_banned = fields.optional("shadow_banned")?;
        requester.device_id = fields.optional("device_id")?;
        requester.app_server_id = fields.optional("app_server_id")?;
        if let Some(entity) = fields.optional("authenticated_entity")? {
            requester.authenticated_entity = entity;
        }
        Ok(requester)
    }
}
