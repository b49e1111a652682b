//! Addresses that are bound first, so that one in use stops the start, and listened on when all modules run.

use std::fmt::Display;
use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}")]
pub struct BindError {
    /// The key of the config.
    pub key: &'static str,
    /// The address, or the path.
    pub address: String,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl BindError {
    /// Says so of an address.
    pub(crate) fn at(key: &'static str, address: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            key,
            address: address.to_string(),
            source,
        }
    }
}

/// A TCP socket that is bound and not yet listening.
pub(crate) struct Bound {
    key: &'static str,
    address: SocketAddr,
    socket: Socket,
}

impl Bound {
    pub(crate) fn new(key: &'static str, address: SocketAddr) -> Result<Self, BindError> {
        let bind = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            // A restart need not wait for connections of the process before.
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            Ok(socket)
        };
        let socket = bind().map_err(BindError::at(key, address))?;
        Ok(Self { key, address, socket })
    }

    /// Lets so many connections wait to be accepted.
    pub(crate) fn listen(self, backlog: i32) -> Result<TcpListener, BindError> {
        let listening = self.socket.listen(backlog);
        listening.map_err(BindError::at(self.key, self.address))?;
        Ok(self.socket.into())
    }
}
