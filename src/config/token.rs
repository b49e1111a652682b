//! Secrets that callers prove who they are with, each in a file of its own.

use std::fmt;
use std::path::Path;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq as _;

/// What a token may be, for those who wrote another one.
const USABLE: &str = "printable ASCII without spaces";

/// A secret that callers prove who they are with. It is never shown.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token; `None` if the text is empty or holds something that no HTTP header can.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let usable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        usable.then(|| Self(text.to_owned()))
    }

    /// Reads a token from a file.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let token = Self::new(text.trim());
        token.ok_or_else(|| format!("{} holds no token: write one line of {USABLE}", file.display()))
    }

    /// Whether a caller gave this token. The time that this takes tells nothing but the length.
    #[must_use]
    pub fn matches(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// The value of an `Authorization` header that shows this token. Do not log it.
    #[cfg(feature = "http-client")]
    pub(crate) fn to_bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

/// The token of an `Authorization` header, if it is of this kind.
pub(crate) fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Serde's own error about a wrong type repeats the value, and a secret may look like a number.
        let value = serde_json::Value::deserialize(deserializer)?;
        let token = value.as_str().and_then(Self::new);
        token.ok_or_else(|| D::Error::custom(format_args!("expected text, {USABLE}")))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_itself_only_and_is_not_shown() {
        let token = Token::new("s3cret").unwrap();
        assert!(token.matches("s3cret"));
        assert!(!token.matches("s3cre") && !token.matches("S3cret") && !token.matches(""));
        assert!(!format!("{token:?}").contains("s3cret"));
        assert!(Token::new("").is_none() && Token::new("a b").is_none());
    }

    #[test]
    fn what_is_no_token_is_not_repeated() {
        for wrong in [
            serde_json::json!(4711),
            "47 11".into(),
            "".into(),
            serde_json::Value::Null,
        ] {
            let error = Token::deserialize(wrong).unwrap_err().to_string();
            assert_eq!(error, "expected text, printable ASCII without spaces");
        }
    }
}
