//! The sockets: bound first, so that an address in use stops the start, and listened on when all modules run.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Config;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}")]
pub struct BindError {
    /// The key of the config.
    pub key: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

struct Bound {
    key: &'static str,
    address: SocketAddr,
    socket: Socket,
}

impl Bound {
    fn new(key: &'static str, address: SocketAddr) -> Result<Self, BindError> {
        let bind = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            // A restart need not wait for connections of the process before.
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            Ok(socket)
        };
        let socket = bind().map_err(|source| BindError { key, address, source })?;
        Ok(Self { key, address, socket })
    }

    fn listen(self) -> Result<TcpListener, BindError> {
        match self.socket.listen(BACKLOG) {
            Ok(()) => Ok(self.socket.into()),
            Err(source) => Err(BindError {
                key: self.key,
                address: self.address,
                source,
            }),
        }
    }
}

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
        Ok((self.http.listen()?, self.admin.listen()?))
    }
}
