//! The sockets of both listeners.

use std::net::TcpListener;

use crate::bind::{BindError, Bound};
use crate::config::Config;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// The sockets of both listeners, bound and not yet listening.
pub struct Listeners {
    http: Bound,
    admin: Bound,
}

impl Listeners {
    /// Binds both.
    ///
    /// # Errors
    /// An address is in use or not this machine's.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        Ok(Self {
            http: Bound::new("http.bind", config.http.bind)?,
            admin: Bound::new("admin.bind", config.admin.bind)?,
        })
    }

    /// Listens on both: `http`, then `admin`.
    pub(super) fn listen(self) -> Result<(TcpListener, TcpListener), BindError> {
        Ok((self.http.listen(BACKLOG)?, self.admin.listen(BACKLOG)?))
    }
}
