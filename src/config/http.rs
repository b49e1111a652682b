//! The section `http`: the public listener.

use std::net::{Ipv4Addr, SocketAddr};

use super::section::Section;
use super::value;

/// The public listener: modules' web resources, health and readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Where it listens.
    pub bind: SocketAddr,
    /// The largest body that a request may have, in bytes.
    pub max_body: usize,
}

impl HttpConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let config = Self {
            bind: section.or("bind", SocketAddr::from((Ipv4Addr::LOCALHOST, 8009)), value::address),
            max_body: section.or("max_body", 1 << 20, value::size),
        };
        section.finish();
        config
    }
}
