//! The sockets of the wire.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::bind::{BindError, Bound};
use crate::config::WireConfig;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// The key of the path.
const SOCKET: &str = "wire.socket";

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
    tcp: Option<Bound>,
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
    pub fn bind(config: &WireConfig) -> Result<Self, BindError> {
        let unix = config
            .socket
            .as_deref()
            .map(|path| Hidden::bind(path, config.mode).map_err(BindError::at(SOCKET, path.display())));
        let tcp = config.tcp.map(|address| Bound::new("wire.tcp", address));
        Ok(Self {
            unix: unix.transpose()?,
            tcp: tcp.transpose()?,
        })
    }

    pub(super) fn listen(self) -> Result<Listening, BindError> {
        let unix = self.unix.map(|hidden| {
            let path = hidden.path.clone();
            hidden.listen().map_err(BindError::at(SOCKET, path.display()))
        });
        Ok(Listening {
            unix: unix.transpose()?,
            tcp: self.tcp.map(|bound| bound.listen(BACKLOG)).transpose()?,
        })
    }
}
