//! Servers on threads of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;

use ganglion::Ganglion;
use ganglion::actors::Tier;
use ganglion::http::{Listeners, Server};
use ganglion_benches::host::{config, yaml};
use ganglion_benches::machine;
use ganglion_benches::work::{self, MODULES};
use tokio::sync::oneshot;

/// A server in this process, until this is dropped.
pub(crate) struct Served {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Served {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts one on a thread with an actix system of its own. `start` says where it listens, and with what it lives.
    pub(crate) fn start<T: 'static>(start: impl AsyncFnOnce() -> (SocketAddr, T) + Send + 'static) -> Self {
        let (told, tell) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let (address, _lives) = start().await;
                let _ = told.send(address);
                let _: Result<(), _> = stopped.await;
            });
        });
        Self {
            address: tell.recv().expect("the server starts"),
            _stop: stop,
        }
    }
}

/// The admin listener of a Ganglion with modules.
pub(crate) fn ours() -> Served {
    Served::start(async || {
        let config = config(&yaml(Tier::Actor, MODULES, machine::cores()), &work::registry());
        let listeners = Listeners::bind(&config).expect("free ports");
        let ganglion = Ganglion::start(&config).await.expect("modules");
        let server = Server::start(&config, listeners, &ganglion, &Arc::default()).expect("a server");
        (server.admin(), (server, ganglion))
    })
}
