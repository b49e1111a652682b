//! The threads of the wire, and who is accepted.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ganglion_api::OwnedServerName;
use ganglion_api::wire::Announcement;
use socket2::{SockRef, TcpKeepalive};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::bridges::Bridges;
use super::connection;
use super::listener::{Listening, SocketFile, WireListeners};
use crate::bind::BindError;
use crate::config::{Config, Token};
use crate::ganglion::Ganglion;

/// How many connections there may be. A homeserver has one for each of its processes.
const MAX_CONNECTIONS: usize = 512;

/// The most threads. Reading and writing JSON is all that they do.
const MAX_THREADS: usize = 4;

/// How long the system is left alone when it has no more file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// What all connections know.
pub(super) struct Shared {
    pub(super) ganglion: Ganglion,
    pub(super) bridges: Arc<Bridges>,
    pub(super) server_name: OwnedServerName,
    pub(super) token: Option<Token>,
    pub(super) max_frame: usize,
    pub(super) announcements: watch::Receiver<Announcement>,
    pub(super) stopping: CancellationToken,
    connections: AtomicUsize,
}

/// A connection that was accepted, on its way to its thread.
enum Accepted {
    Unix(std::os::unix::net::UnixStream),
    Tcp(std::net::TcpStream),
}

/// The wire, serving. It ends when this is dropped.
pub struct WireServer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    ended: CancellationToken,
    socket: Option<PathBuf>,
    tcp: Option<SocketAddr>,
    #[expect(dead_code, reason = "held for its drop")]
    file: Option<SocketFile>,
}

impl WireServer {
    /// Listens and serves, on threads of its own. `bridges` are whom the modules of this Ganglion have for their
    /// homeserver: see [`Ganglion::start_with`].
    ///
    /// # Errors
    /// What was bound cannot be listened on, or the system has no threads to give.
    pub fn start(
        config: &Config,
        listeners: WireListeners,
        ganglion: &Ganglion,
        bridges: &Arc<Bridges>,
    ) -> Result<Self, BindError> {
        let Listening { unix, tcp } = listeners.listen()?;
        let (unix, file) = unix.unzip();
        let (announce, announcements) = watch::channel(announcement(ganglion));
        let shared = Arc::new(Shared {
            ganglion: ganglion.clone(),
            bridges: Arc::clone(bridges),
            server_name: config.server_name.clone(),
            token: config.wire.token.clone(),
            max_frame: config.wire.max_frame,
            announcements,
            stopping: CancellationToken::new(),
            connections: AtomicUsize::new(0),
        });
        let mut server = Self {
            tcp: tcp.as_ref().and_then(|tcp| tcp.local_addr().ok()),
            socket: unix.is_some().then(|| config.wire.socket.clone()).flatten(),
            shared,
            threads: Vec::new(),
            ended: CancellationToken::new(),
            file,
        };
        if unix.is_none() && tcp.is_none() {
            return Ok(server);
        }
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut serving = Vec::new();
        for number in 0..(cores / 2).clamp(1, MAX_THREADS) {
            let (sender, accepted) = mpsc::unbounded_channel();
            let shared = Arc::clone(&server.shared);
            server.spawn(format!("wire-{number}"), serve(accepted, shared))?;
            serving.push(sender);
        }
        let accept = accept(unix, tcp, serving, Arc::clone(&server.shared), announce);
        server.spawn("wire-accept".to_owned(), accept)?;
        Ok(server)
    }

    fn spawn(
        &mut self,
        name: String,
        work: impl Future<Output = io::Result<()>> + Send + 'static,
    ) -> Result<(), BindError> {
        let failed = || BindError::at("wire", "its threads");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed())?;
        let ended = self.ended.clone();
        let thread = thread::Builder::new().name(name).spawn(move || {
            let local = LocalSet::new();
            let run = ended.run_until_cancelled(work);
            if let Some(Err(error)) = local.block_on(&runtime, run) {
                tracing::error!(%error, "wire: a thread ended");
            }
        });
        self.threads.push(thread.map_err(failed())?);
        Ok(())
    }

    /// The path of the Unix socket, if there is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// The TCP address, if there is one.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// Says goodbye to all, begins nothing any more, and waits for what is in flight: at most the deadline of a chain.
    pub async fn drain(&self) {
        self.shared.stopping.cancel();
        let patience = self.shared.ganglion.dispatch().deadline() + Duration::from_secs(1);
        let _ = tokio::time::timeout(patience, async {
            while self.shared.connections.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

impl Drop for WireServer {
    fn drop(&mut self) {
        self.ended.cancel();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Serves the connections that it is given, each in a task of its own.
async fn serve(mut accepted: mpsc::UnboundedReceiver<Accepted>, shared: Arc<Shared>) -> io::Result<()> {
    while let Some(accepted) = accepted.recv().await {
        let counted = Counted(Arc::clone(&shared));
        let served = connect(accepted, Arc::clone(&shared));
        tokio::task::spawn_local(async move {
            let _counted = counted;
            if let Err(error) = served.await {
                tracing::warn!(%error, "wire: a connection could not be served");
            }
        });
    }
    // Nobody is accepted any more; who is connected is served until the server ends.
    std::future::pending().await
}

async fn connect(accepted: Accepted, shared: Arc<Shared>) -> io::Result<()> {
    match accepted {
        Accepted::Unix(stream) => {
            let stream = tokio::net::UnixStream::from_std(stream)?;
            connection::serve(stream.into_split(), shared).await;
        }
        Accepted::Tcp(stream) => {
            stream.set_nodelay(true)?;
            // A peer whose machine is gone would stay for ever.
            let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(30));
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            let stream = tokio::net::TcpStream::from_std(stream)?;
            connection::serve(stream.into_split(), shared).await;
        }
    }
    Ok(())
}

/// A connection, as long as it lasts.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Accepts connections and hands them out in turn, and tells all of them when other callbacks are on the routes.
async fn accept(
    unix: Option<std::os::unix::net::UnixListener>,
    tcp: Option<std::net::TcpListener>,
    serving: Vec<mpsc::UnboundedSender<Accepted>>,
    shared: Arc<Shared>,
    announce: watch::Sender<Announcement>,
) -> io::Result<()> {
    let unix = unix.map(tokio::net::UnixListener::from_std).transpose()?;
    let tcp = tcp.map(tokio::net::TcpListener::from_std).transpose()?;
    let mut routes = shared.ganglion.dispatch().routes_changed();
    let mut turns = serving.iter().cycle();
    loop {
        let accepted = tokio::select! {
            changed = routes.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let now = announcement(&shared.ganglion);
                announce.send_if_modified(|before| {
                    let differs = *before != now;
                    *before = now;
                    differs
                });
                continue;
            }
            accepted = accept_unix(unix.as_ref()) => accepted,
            accepted = accept_tcp(tcp.as_ref()) => accepted,
            () = shared.stopping.cancelled() => return Ok(()),
        };
        match accepted {
            Ok(_) if shared.connections.load(Ordering::Acquire) >= MAX_CONNECTIONS => {
                tracing::warn!("wire: a connection was refused, there are {MAX_CONNECTIONS}");
            }
            Ok(accepted) => {
                shared.connections.fetch_add(1, Ordering::AcqRel);
                if let Some(thread) = turns.next()
                    && thread.send(accepted).is_err()
                {
                    shared.connections.fetch_sub(1, Ordering::AcqRel);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "wire: cannot accept a connection");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

async fn accept_unix(listener: Option<&tokio::net::UnixListener>) -> io::Result<Accepted> {
    match listener {
        Some(listener) => Ok(Accepted::Unix(listener.accept().await?.0.into_std()?)),
        None => std::future::pending().await,
    }
}

async fn accept_tcp(listener: Option<&tokio::net::TcpListener>) -> io::Result<Accepted> {
    match listener {
        Some(listener) => Ok(Accepted::Tcp(listener.accept().await?.0.into_std()?)),
        None => std::future::pending().await,
    }
}

/// What is on the routes now.
fn announcement(ganglion: &Ganglion) -> Announcement {
    let routes = ganglion.dispatch().routes();
    let subscribed = routes.overview().filter(|(_, modules)| !modules.is_empty());
    Announcement {
        callbacks: subscribed.map(|(spec, _)| Cow::Borrowed(spec.name)).collect(),
        login_types: routes.login_types().cloned().collect(),
    }
}
