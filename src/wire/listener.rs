//! The sockets of the wire: bound first, so that an address in use stops the start, and there to connect to when all modules
//! run.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::WireConfig;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// Why the wire could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}")]
pub struct WireBindError {
    /// The key of the config.
    pub key: &'static str,
    /// The address.
    pub address: String,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// A socket file that is made where nobody sees it, and put in its place when it is listened on: so nobody connects to
/// one with another mode, and one that a killed process left is replaced at once.
struct Hidden {
    socket: Socket,
    directory: PathBuf,
    file: PathBuf,
    path: PathBuf,
}

impl Hidden {
    fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        refuse_if_taken(path)?;
        let directory = path.with_extension(format!("{}.new", std::process::id()));
        // A process that was killed at this point may have left one, and in a container its number was ours.
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&directory)?;
        let file = directory.join("s");
        let bind = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SockAddr::unix(&file)?)?;
            fs::set_permissions(&file, Permissions::from_mode(mode))?;
            Ok(socket)
        };
        match bind() {
            Ok(socket) => Ok(Self {
                socket,
                directory,
                file,
                path: path.to_owned(),
            }),
            Err(error) => {
                let _ = fs::remove_dir_all(&directory);
                Err(error)
            }
        }
    }

    fn listen(self) -> io::Result<(UnixListener, SocketFile)> {
        self.socket.listen(BACKLOG)?;
        let socket: UnixListener = self.socket.try_clone()?.into();
        // Again: another process may have come meanwhile.
        refuse_if_taken(&self.path)?;
        let inode = fs::metadata(&self.file)?.ino();
        fs::rename(&self.file, &self.path)?;
        let path = self.path.clone();
        Ok((socket, SocketFile { path, inode }))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Whether somebody listens there, or something else is in the place.
fn refuse_if_taken(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        )),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(error) => Err(error),
        },
    }
}

/// The socket file in its place. It is removed when this is dropped, unless another process has replaced it.
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The sockets of the wire, bound and not yet to connect to; none if the wire is off.
pub struct WireListeners {
    unix: Option<Hidden>,
    tcp: Option<Socket>,
    address: Option<SocketAddr>,
}

/// What is listened on.
pub(super) struct Listening {
    pub(super) unix: Option<(UnixListener, SocketFile)>,
    pub(super) tcp: Option<TcpListener>,
}

impl WireListeners {
    /// Binds what the config names.
    ///
    /// # Errors
    /// An address or a path is in use, or cannot be made.
    pub fn bind(config: &WireConfig) -> Result<Self, WireBindError> {
        let unix = config.socket.as_deref().map(|path| {
            Hidden::bind(path, config.mode).map_err(|source| WireBindError {
                key: "wire.socket",
                address: path.display().to_string(),
                source,
            })
        });
        let tcp = config.tcp.map(|address| {
            bind_tcp(address).map_err(|source| WireBindError {
                key: "wire.tcp",
                address: address.to_string(),
                source,
            })
        });
        Ok(Self {
            unix: unix.transpose()?,
            tcp: tcp.transpose()?,
            address: config.tcp,
        })
    }

    pub(super) fn listen(self) -> Result<Listening, WireBindError> {
        let unix = self.unix.map(|hidden| {
            let address = hidden.path.display().to_string();
            hidden.listen().map_err(|source| WireBindError {
                key: "wire.socket",
                address,
                source,
            })
        });
        let tcp = self.tcp.map(|socket| match socket.listen(BACKLOG) {
            Ok(()) => Ok(socket.into()),
            Err(source) => Err(WireBindError {
                key: "wire.tcp",
                address: self.address.map(|address| address.to_string()).unwrap_or_default(),
                source,
            }),
        });
        Ok(Listening {
            unix: unix.transpose()?,
            tcp: tcp.transpose()?,
        })
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart need not wait for connections of the process before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
