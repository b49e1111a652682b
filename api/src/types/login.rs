//! Who a checker authenticated, and what the login gave.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::ModuleError;
use crate::callback::Candidate;
use crate::continuation::{Continuation, LoginContinuation};
use crate::json::{Fields, FromJson, JsonError, JsonObject, JsonPath};

/// The answer of `auth_checkers` and `check_3pid_auth`: who this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuthenticatedUser {
    /// The full user id. It is not validated: Synapse answers 404 for a user who does not exist.
    pub user_id: String,
    /// What to run when the login is complete.
    pub login_callback: Option<LoginContinuation>,
}

impl AuthenticatedUser {
    /// This user, with nothing to run afterwards.
    pub fn new(user_id: impl Into<String>) -> Self {
        Self {
            user_id: user_id.into(),
            login_callback: None,
        }
    }

    /// Runs a function when the login is complete. It is given the response, and what it returns goes to the client. An error
    /// fails the login, although the device was made. Not run when an access token is confirmed again. Source: the second
    /// item of what Synapse's checkers return.
    #[must_use]
    pub fn on_login<F>(mut self, function: F) -> Self
    where
        F: AsyncFnOnce(Login) -> Result<Login, ModuleError> + Send + 'static,
    {
        self.login_callback = Some(Continuation::new(function));
        self
    }
}

impl Candidate for AuthenticatedUser {}

impl FromJson for AuthenticatedUser {
    const TYPE: &'static str = "AuthenticatedUser";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        let mut fields = Fields::new(value, at)?;
        Ok(Self {
            user_id: fields.required("user_id")?,
            login_callback: fields.optional("login_callback")?,
        })
    }
}

/// The response of a login: `user_id`, `access_token`, `home_server`, `device_id` and whatever else is there. It is never
/// shown. Source: Synapse's `LoginResponse`.
#[derive(Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Login(JsonObject);

/// What every login has.
const LOGIN_KEYS: [&str; 4] = ["user_id", "access_token", "home_server", "device_id"];

impl Login {
    /// The field with this key. Do not log it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Sets a field, which reaches the client.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(key.into(), value.into());
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(secret)")
    }
}

impl FromJson for Login {
    const TYPE: &'static str = "Login";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        let object = JsonObject::from_json(value, at)?;
        for key in LOGIN_KEYS {
            let at = JsonPath::Key(at, key);
            match object.get(key) {
                None | Some(Value::Null) => return Err(JsonError::missing(&at)),
                Some(Value::String(_)) => {}
                Some(_) => return Err(JsonError::invalid(&at, "expected a string")),
            }
        }
        Ok(Self(object))
    }
}
