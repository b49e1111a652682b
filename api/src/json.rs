//! Reading JSON from callers that we do not trust: every error names the place and never repeats the value.
//!
//! Serde's derive cannot tell "missing" from "wrong" without looking into its error texts, and callers get different
//! error codes for the two; so arguments are read from a parsed [`Value`] by [`FromJson`].

use std::fmt;

use serde_json::{Map, Value};

/// An object of any content: the type word `obj`.
pub type JsonObject = Map<String, Value>;

/// The largest integer that Matrix allows in JSON, 2^53 - 1. The smallest is its negative.
pub const MAX_INT: i64 = (1 << 53) - 1;

/// Where in a document a value stands, kept on the stack and rendered only for an error.
#[derive(Debug, Clone, Copy)]
pub enum JsonPath<'a> {
    /// The document itself.
    Root,
    /// A key of an object.
    Key(&'a JsonPath<'a>, &'a str),
    /// An element of an array, counted from 0.
    Index(&'a JsonPath<'a>, usize),
}

impl fmt::Display for JsonPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Why a JSON value was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// A required value is absent or null.
    #[error("{path}: missing")]
    Missing {
        /// The place, for example `event.sender`.
        path: String,
    },
    /// A value has the wrong type or form.
    #[error("{}{reason}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
    Invalid {
        /// The place; empty for the document itself.
        path: String,
        /// What was expected; never the value itself, which may be secret.
        reason: String,
    },
}

impl JsonError {
    /// A value at `at` is not what was expected.
    pub fn invalid(at: &JsonPath<'_>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            path: at.to_string(),
            reason: reason.into(),
        }
    }

    /// A required value at `at` is absent.
    #[must_use]
    pub fn missing(at: &JsonPath<'_>) -> Self {
        Self::Missing { path: at.to_string() }
    }

    /// The place of the error; empty for the document itself.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Missing { path } | Self::Invalid { path, .. } => path,
        }
    }

    /// The Matrix error code for a caller who sent it.
    #[must_use]
    pub fn errcode(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "M_MISSING_PARAM",
            Self::Invalid { .. } => "M_INVALID_PARAM",
        }
    }

    fn wrong_type(at: &JsonPath<'_>, expected: &str, found: &Value) -> Self {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        Self::invalid(at, format!("expected {expected}, found {found}"))
    }
}

/// A type that can be read from JSON that a caller sent.
pub trait FromJson: Sized {
    /// The type word of the callback reference, for example `mxid`.
    const TYPE: &'static str;

    /// Reads the value, which stands at `at`.
    ///
    /// # Errors
    /// A required part is missing, or something has the wrong type or form.
    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError>;
}

/// The keys of one object, taken one by one.
#[derive(Debug)]
pub struct Fields<'p> {
    object: JsonObject,
    at: &'p JsonPath<'p>,
}

impl<'p> Fields<'p> {
    /// Opens the object at `at`.
    ///
    /// # Errors
    /// The value is not an object.
    pub fn new(value: Value, at: &'p JsonPath<'p>) -> Result<Self, JsonError> {
        match value {
            Value::Object(object) => Ok(Self { object, at }),
            other => Err(JsonError::wrong_type(at, "an object", &other)),
        }
    }

    /// Takes a key that must be there and must not be null.
    ///
    /// # Errors
    /// The key is absent or null, or its value is not a `T`.
    pub fn required<T: FromJson>(&mut self, key: &str) -> Result<T, JsonError> {
        let at = JsonPath::Key(self.at, key);
        match self.object.remove(key) {
            None | Some(Value::Null) => Err(JsonError::missing(&at)),
            Some(value) => T::from_json(value, &at),
        }
    }

    /// Takes a key that may be absent or null, which gives the default.
    ///
    /// # Errors
    /// The key is there and its value is not a `T`.
    pub fn optional<T: FromJson + Default>(&mut self, key: &str) -> Result<T, JsonError> {
        match self.object.remove(key) {
            None | Some(Value::Null) => Ok(T::default()),
            Some(value) => T::from_json(value, &JsonPath::Key(self.at, key)),
        }
    }

    /// Takes a key as it is; null is a value here.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.object.remove(key)
    }

    /// What is left after the known keys were taken.
    #[must_use]
    pub fn rest(self) -> JsonObject {
        self.object
    }
}

macro_rules! from_json {
    ($($type:ty, $word:literal, $expected:literal, $pattern:pat => $result:expr;)+) => {$(
        impl FromJson for $type {
            const TYPE: &'static str = $word;

            fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
                match value {
                    $pattern => Ok($result),
                    other => Err(JsonError::wrong_type(at, $expected, &other)),
                }
            }
        }
    )+};
}

from_json! {
    String, "str", "a string", Value::String(text) => text;
    bool, "bool", "a boolean", Value::Bool(flag) => flag;
    JsonObject, "obj", "an object", Value::Object(object) => object;
}

impl FromJson for Value {
    const TYPE: &'static str = "any";

    fn from_json(value: Value, _at: &JsonPath<'_>) -> Result<Self, JsonError> {
        Ok(value)
    }
}

/// The answer of a notification: only null is one.
#[derive(Debug, Default)]
pub(crate) struct Nothing;

impl FromJson for Nothing {
    const TYPE: &'static str = "null";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        Err(JsonError::wrong_type(at, "null", &value))
    }
}

impl FromJson for i64 {
    const TYPE: &'static str = "int";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        let Value::Number(number) = &value else {
            return Err(JsonError::wrong_type(at, "an integer", &value));
        };
        match number.as_i64() {
            Some(int) if (-MAX_INT..=MAX_INT).contains(&int) => Ok(int),
            _ => Err(JsonError::invalid(at, "expected an integer within ±(2^53-1)")),
        }
    }
}

impl FromJson for f64 {
    const TYPE: &'static str = "num";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        value
            .as_f64()
            .ok_or_else(|| JsonError::wrong_type(at, "a number", &value))
    }
}

impl<T: FromJson> FromJson for Option<T> {
    const TYPE: &'static str = T::TYPE;

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        match value {
            Value::Null => Ok(None),
            value => T::from_json(value, at).map(Some),
        }
    }
}

/// Names the type word of an array of this type.
pub trait ArrayItem: FromJson {
    /// The type word of the array, for example `[Presence]`.
    const ARRAY_TYPE: &'static str;
}

impl<T: ArrayItem> FromJson for Vec<T> {
    const TYPE: &'static str = T::ARRAY_TYPE;

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        match value {
            Value::Array(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| T::from_json(item, &JsonPath::Index(at, index)))
                .collect(),
            other => Err(JsonError::wrong_type(at, "an array", &other)),
        }
    }
}

impl ArrayItem for String {
    const ARRAY_TYPE: &'static str = "[str]";
}

macro_rules! identifiers {
    ($($owned:ty, $borrowed:ty, $word:literal, $array:literal, $form:literal;)+) => {$(
        impl FromJson for $owned {
            const TYPE: &'static str = $word;

            fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
                let text = String::from_json(value, at)?;
                <$borrowed>::parse(text).map_err(|error| {
                    JsonError::invalid(at, format!(concat!("expected ", $form, ": {}"), error))
                })
            }
        }

        impl ArrayItem for $owned {
            const ARRAY_TYPE: &'static str = $array;
        }
    )+};
}

identifiers! {
    ruma_common::OwnedUserId, ruma_common::UserId, "mxid", "[mxid]", "a user id, @localpart:server";
    ruma_common::OwnedRoomId, ruma_common::RoomId, "room", "[room]", "a room id, !opaque:server or !opaque";
    ruma_common::OwnedRoomAliasId, ruma_common::RoomAliasId, "alias", "[alias]", "a room alias, #local:server";
}

/// The key of a field with this name: a keyword of Rust is written as `r#type`.
pub(crate) fn key(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// Declares a struct that is one JSON object: its documentation, its fields, how it is read and how it is written.
macro_rules! json_object {
    (
        $(#[$meta:meta])*
        $name:ident $(as $word:literal)? $(, array $array:literal)? {
            $($(#[$field_meta:meta])* $field:ident $([$optional:ident])? : $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $name {
            /// All fields, in the order of the declaration.
            pub fn new($($field: impl Into<$type>),*) -> Self {
                Self { $($field: $field.into()),* }
            }
        }

        impl $crate::json::FromJson for $name {
            const TYPE: &'static str = $crate::json::json_object!(@word $name $(, $word)?);

            fn from_json(
                value: serde_json::Value,
                at: &$crate::json::JsonPath<'_>,
            ) -> Result<Self, $crate::json::JsonError> {
                let mut fields = $crate::json::Fields::new(value, at)?;
                Ok(Self {
                    $($field: $crate::json::json_object!(@take fields, $crate::json::key(stringify!($field)) $(, $optional)?)?,)*
                })
            }
        }

        $(impl $crate::json::ArrayItem for $name {
            const ARRAY_TYPE: &'static str = $array;
        })?
    };
    (@word $name:ident) => { stringify!($name) };
    (@word $name:ident, $word:literal) => { $word };
    (@take $fields:ident, $key:expr) => { $fields.required($key) };
    (@take $fields:ident, $key:expr, optional) => { $fields.optional($key) };
}
pub(crate) use json_object;

#[cfg(test)]
mod tests {
    use ruma_common::{OwnedRoomId, OwnedUserId};
    use serde_json::json;

    use super::*;

    fn read<T: FromJson>(value: Value) -> Result<T, JsonError> {
        T::from_json(value, &JsonPath::Key(&JsonPath::Root, "x"))
    }

    #[test]
    fn an_absent_and_a_null_required_key_are_missing() {
        for value in [json!({}), json!({"a": null})] {
            let mut fields = Fields::new(value, &JsonPath::Root).unwrap();
            assert_eq!(
                fields.required::<String>("a"),
                Err(JsonError::Missing { path: "a".into() })
            );
        }
    }

    #[test]
    fn an_error_names_the_place_and_not_the_value() {
        let error =
            Vec::<String>::from_json(json!(["a", {"secret": 1}]), &JsonPath::Key(&JsonPath::Root, "x")).unwrap_err();
        assert_eq!(error.to_string(), "x[1]: expected a string, found an object");
    }

    #[test]
    fn integers_outside_of_matrix_bounds_are_refused() {
        assert_eq!(read::<i64>(json!(MAX_INT)), Ok(MAX_INT));
        assert!(read::<i64>(json!(MAX_INT + 1)).is_err());
        assert!(read::<i64>(json!(1.5)).is_err());
        assert!(read::<i64>(json!(u64::MAX)).is_err());
    }

    #[test]
    fn identifiers_of_every_room_version_are_read() {
        assert!(read::<OwnedUserId>(json!("@Hist/orical!:example.com")).is_ok());
        assert!(read::<OwnedRoomId>(json!("!r:example.com")).is_ok());
        assert!(read::<OwnedRoomId>(json!("!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM")).is_ok());
        for bad in ["", "eve", "@eve", "#eve:example.com"] {
            assert!(read::<OwnedUserId>(json!(bad)).is_err(), "{bad:?}");
        }
    }
}
