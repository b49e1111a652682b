//! The Ganglion that is asked: in this process, with modules that let everything pass and count what they were asked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use ganglion::actors::Tier;
use ganglion::api::{
    CheckEventForSpam, Homeserver, Module, ModuleApi, ModuleError, NoConfig, SpamCheckerCallbacks, UserMayCreateRoom,
    Verdict,
};
use ganglion::http::{Listeners, Server};
use ganglion::wire::{Bridges, WireListeners, WireServer};
use ganglion::{Config, Ganglion};
use ganglion_benches::host::{config, yaml_of};
use ganglion_benches::machine;
use ganglion_benches::work::MODULES;
use tokio::sync::oneshot;

/// How often modules were asked about an event, all of them together.
static EVENTS: AtomicU64 = AtomicU64::new(0);

/// The same for rooms.
static ROOMS: AtomicU64 = AtomicU64::new(0);

/// How often modules were asked until now: about events, and about rooms.
pub(crate) fn calls() -> (u64, u64) {
    (EVENTS.load(Ordering::SeqCst), ROOMS.load(Ordering::SeqCst))
}

struct Noop;

impl Module for Noop {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let callbacks = SpamCheckerCallbacks::new()
            .check_event_for_spam(Self::check_event)
            .user_may_create_room(Self::may_create_room);
        api.register_spam_checker_callbacks(callbacks)?;
        Ok(Self)
    }
}

impl Noop {
    async fn check_event(&self, _: &CheckEventForSpam) -> Result<Verdict, ModuleError> {
        EVENTS.fetch_add(1, Ordering::SeqCst);
        Ok(Verdict::Pass)
    }

    async fn may_create_room(&self, _: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        ROOMS.fetch_add(1, Ordering::SeqCst);
        Ok(Verdict::Pass)
    }
}

/// A Ganglion that serves, until this is dropped.
pub(crate) struct Serving {
    admin: SocketAddr,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Starts it with its wire on this socket.
    pub(crate) fn start(socket: &Path) -> Self {
        let mut config = config(&modules(), &ganglion::registry().with::<Noop>("bench.Noop"));
        config.wire.socket = Some(socket.to_owned());
        let (told, tell) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let (ganglion, server, _wire) = serve(&config).await;
                let _ = told.send(server.admin());
                let _ = stopped.await;
                ganglion.shutdown();
            });
        });
        Self {
            admin: tell.recv().expect("Ganglion starts"),
            socket: socket.to_owned(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where the bridge connects.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where synapse-http-antispam asks.
    pub(crate) fn antispam(&self) -> String {
        format!("http://{}/_ganglion/antispam", self.admin)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn modules() -> String {
    let module = |index| format!("{{id: m{index}, module: bench.Noop, tier: {}}}", Tier::Actor);
    let modules: Vec<String> = (0..MODULES).map(module).collect();
    yaml_of(&modules, machine::cores())
}

/// As `ganglion serve` does it.
async fn serve(config: &Config) -> (Ganglion, Server, WireServer) {
    let listeners = Listeners::bind(config).expect("free ports");
    let wire_listeners = WireListeners::bind(&config.wire).expect("a socket");
    let bridges = Arc::<Bridges>::default();
    let homeserver = Arc::clone(&bridges) as Arc<dyn Homeserver>;
    let ganglion = Ganglion::start_with(config, homeserver).await.expect("modules");
    let server = Server::start(config, listeners, &ganglion, &bridges).expect("a server");
    let wire = WireServer::start(config, wire_listeners, &ganglion, &bridges).expect("the wire");
    (ganglion, server, wire)
}
