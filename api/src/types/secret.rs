//! Values that never reach a log.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::json::{FromJson, JsonError, JsonPath, json_object};

/// A value whose `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value. Do not log it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<T: FromJson> FromJson for Secret<T> {
    const TYPE: &'static str = T::TYPE;

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        T::from_json(value, at).map(Self)
    }
}

/// A header of an HTTP request: name and value.
pub type Header = (String, String);

impl FromJson for Header {
    const TYPE: &'static str = "[name, value]";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        let items = Vec::<String>::from_json(value, at)?;
        let Ok([name, value]) = <[String; 2]>::try_from(items) else {
            return Err(JsonError::invalid(at, "expected [name, value]"));
        };
        Ok((name, value))
    }
}

impl crate::json::ArrayItem for Header {
    const ARRAY_TYPE: &'static str = "[[name, value]]";
}

json_object! {
    /// An HTTP request to the homeserver that a module answers.
    HttpRequest {
        /// The method.
        method: String,
        /// The path, without the query.
        path: String,
        /// The query, without `?`; empty if there is none.
        query: String,
        /// The headers, in their order.
        headers: Vec<Header>,
        /// The body; base64 in JSON.
        body_base64: super::Base64,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_not_shown_and_goes_out_as_it_is() {
        let args = json!({"username": "bob", "login_type": "m.login.password", "login_dict": {"password": "hunter2"}});
        let args = crate::AuthCheckers::from_json(args, &JsonPath::Root).unwrap();
        assert!(!format!("{args:?}").contains("hunter2"), "{args:?}");
        assert_eq!(json!(args)["login_dict"]["password"], "hunter2");
    }
}
