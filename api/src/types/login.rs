//! Who a checker authenticated.

use serde::Serialize;
use serde_json::Value;

use crate::callback::Candidate;
use crate::json::{Fields, FromJson, JsonError, JsonPath};

/// Stands for work that a module wants done after a login. Modules cannot make one in this version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ContinuationToken(String);

/// The answer of `auth_checkers` and `check_3pid_auth`: who this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuthenticatedUser {
    /// The full user id. It is not validated: Synapse answers 404 for a user who does not exist.
    pub user_id: String,
    /// What to run when the login is complete.
    pub login_callback: Option<ContinuationToken>,
}

impl AuthenticatedUser {
    /// This user, with nothing to run afterwards.
    pub fn new(user_id: impl Into<String>) -> Self {
        Self {
            user_id: user_id.into(),
            login_callback: None,
        }
    }
}

impl Candidate for AuthenticatedUser {}

impl FromJson for AuthenticatedUser {
    const TYPE: &'static str = "AuthenticatedUser";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        let mut fields = Fields::new(value, at)?;
        let user = Self::new(fields.required::<String>("user_id")?);
        match fields.take("login_callback") {
            None | Some(Value::Null) => Ok(user),
            Some(_) => Err(JsonError::invalid(
                &JsonPath::Key(at, "login_callback"),
                "only null in this version",
            )),
        }
    }
}
