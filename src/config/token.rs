//! Secrets that callers prove who they are with, each in a file of its own.

use std::fmt;
use std::path::Path;

use subtle::ConstantTimeEq as _;

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
        token.ok_or_else(|| {
            format!(
                "{} holds no token: write one line of printable ASCII without spaces",
                file.display()
            )
        })
    }

    /// Whether a caller gave this token. The time that this takes tells nothing but the length.
    #[must_use]
    pub fn matches(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
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
}
