//! The section `admin`: the listener for the homeserver and for operators.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::section::Section;
use super::token::Token;
use super::value;

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
            Token::read(&directory.join(value::text(value)?))
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
