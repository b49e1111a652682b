//! The section `admin`: the listener for the homeserver and for operators.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use subtle::ConstantTimeEq as _;

use super::section::Section;
use super::value;

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

/// The listener for the homeserver and for operators.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AdminConfig {
    /// Where it listens; only on loopback without a token.
    pub bind: SocketAddr,
    /// What callers must give, if anything.
    pub token: Option<Token>,
    /// The largest body that a request may have, in bytes.
    pub max_body: usize,
}

impl AdminConfig {
    pub(super) fn read(mut section: Section<'_>, directory: &Path) -> Self {
        let bind = section.or("bind", SocketAddr::from((Ipv4Addr::LOCALHOST, 9009)), value::address);
        let mut token_given = false;
        let token = section.optional("token_file", |value| {
            token_given = true;
            read_token(&directory.join(value::text(value)?))
        });
        let max_body = section.or("max_body", 16 << 20, value::size);
        section.later("tokens", "tokens that have scopes");
        if !token_given && !bind.ip().is_loopback() {
            section.problems().push(
                section.path("bind"),
                format!("{bind} is not a loopback address: set token_file, or everybody who reaches it decides"),
            );
        }
        section.finish();
        Self { bind, token, max_body }
    }
}

fn read_token(file: &Path) -> Result<Token, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let token = Token::new(text.trim());
    token.ok_or_else(|| {
        format!(
            "{} holds no token: write one line of printable ASCII without spaces",
            file.display()
        )
    })
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
