//! Reading a module's config with Serde, with an error that names the key.

use serde::Deserializer;
use serde::de::{DeserializeOwned, Error as _, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use crate::module::ConfigError;

/// Reads a module's config with Serde, as [`Module::parse_config`](crate::Module::parse_config) does by default; an error
/// names the key that is wrong.
///
/// # Errors
/// The config is not a `T`.
pub fn read<T: DeserializeOwned>(config: Value) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(Keyed(config)).map_err(|error| {
        let path = error.path().to_string();
        let message = hint(&error.into_inner().to_string());
        ConfigError {
            message,
            path: if path == "." { String::new() } else { path },
        }
    })
}

/// A config whose struct is read from keys only: Serde would take a list for the fields in their order, and name the
/// struct where people know only their file.
struct Keyed(Value);

impl<'de> Deserializer<'de> for Keyed {
    type Error = serde_json::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        let found = match &self.0 {
            Value::Object(_) => return self.0.deserialize_struct(name, fields, visitor),
            Value::Array(_) => Unexpected::Seq,
            Value::String(text) => Unexpected::Str(text),
            Value::Bool(flag) => Unexpected::Bool(*flag),
            Value::Number(_) => Unexpected::Other("number"),
            Value::Null => Unexpected::Unit,
        };
        Err(Self::Error::invalid_type(found, &"a mapping"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.0.deserialize_option(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// YAML 1.2 reads a plain yes, no, on or off as text, YAML 1.1 as a boolean; say so where it matters.
fn hint(message: &str) -> String {
    let words = ["yes", "no", "on", "off"];
    let text = message
        .strip_prefix("invalid type: string \"")
        .and_then(|rest| rest.split_once('"'));
    match text {
        Some((word, rest)) if rest.contains("a boolean") && words.contains(&word.to_lowercase().as_str()) => {
            format!("{message}: write true or false, {word:?} is text in YAML 1.2")
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Config {
        #[expect(dead_code, reason = "only read")]
        flags: Vec<bool>,
    }

    #[test]
    fn a_list_is_no_struct_and_may_be_a_list() {
        let error = read::<Config>(json!([[true]])).unwrap_err();
        assert_eq!(error.message, "invalid type: sequence, expected a mapping");
        assert_eq!(error.path, "");
        assert_eq!(read::<Vec<u8>>(json!([1, 2])), Ok(vec![1, 2]));
        assert_eq!(read::<Option<Value>>(json!({"a": 1})), Ok(Some(json!({"a": 1}))));
    }

    #[test]
    fn an_error_names_the_key_and_explains_yes() {
        let error = read::<Config>(json!({"flags": [true, "yes"]})).unwrap_err();
        assert_eq!(error.path, "flags[1]");
        assert!(error.message.contains("write true or false"), "{error}");
    }
}
