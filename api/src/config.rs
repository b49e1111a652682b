//! Reading a module's config with Serde, with an error that names the key.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::module::ConfigError;

/// Reads a module's config with Serde, as [`Module::parse_config`](crate::Module::parse_config) does by default; an error
/// names the key that is wrong.
///
/// # Errors
/// The config is not a `T`.
pub fn read<T: DeserializeOwned>(config: Value) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(config).map_err(|error| {
        let path = error.path().to_string();
        let message = hint(&error.into_inner().to_string());
        ConfigError {
            message,
            path: if path == "." { String::new() } else { path },
        }
    })
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
    fn an_error_names_the_key_and_explains_yes() {
        let error = read::<Config>(json!({"flags": [true, "yes"]})).unwrap_err();
        assert_eq!(error.path, "flags[1]");
        assert!(error.message.contains("write true or false"), "{error}");
    }
}
