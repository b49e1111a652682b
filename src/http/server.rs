//! Both listeners as one server.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::HttpServer;
use actix_web::dev::ServerHandle;

use super::listener::Listeners;
use super::{Listener, Surface, app};
use crate::bind::BindError;
use crate::config::Config;
use crate::ganglion::Ganglion;
use crate::wire::Bridges;

/// Both listeners, serving.
pub struct Server {
    http: (SocketAddr, ServerHandle),
    admin: (SocketAddr, ServerHandle),
}

impl Server {
    /// Listens and serves, in the current actix system. `bridges` are those of the wire, for the metrics.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub fn start(
        config: &Config,
        listeners: Listeners,
        ganglion: &Ganglion,
        bridges: &Arc<Bridges>,
    ) -> Result<Self, BindError> {
        let (http, admin) = listeners.listen()?;
        let http_surface = Surface {
            listener: Listener::Http,
            ganglion: ganglion.clone(),
            bridges: Arc::clone(bridges),
            token: None,
            max_body: config.http.max_body,
        };
        let admin_surface = Surface {
            listener: Listener::Admin,
            ganglion: ganglion.clone(),
            bridges: Arc::clone(bridges),
            token: config.admin.token.clone(),
            max_body: config.admin.max_body,
        };
        // In-flight requests may take a whole chain.
        let patience = config.dispatch.deadline.as_secs() + 1;
        Ok(Self {
            http: serve(http, http_surface, patience).map_err(BindError::at("http.bind", config.http.bind))?,
            admin: serve(admin, admin_surface, patience).map_err(BindError::at("admin.bind", config.admin.bind))?,
        })
    }

    /// Where the public listener listens.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http.0
    }

    /// Where the admin listener listens.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin.0
    }

    /// Accepts nothing any more and waits for requests that are under way, at most the deadline of a chain.
    pub async fn drain(&self) {
        futures_util::future::join(self.http.1.stop(true), self.admin.1.stop(true)).await;
    }
}

fn serve(listener: TcpListener, surface: Surface, patience: u64) -> io::Result<(SocketAddr, ServerHandle)> {
    let address = listener.local_addr()?;
    // Signals are the command line's.
    let server = HttpServer::new(move || app(surface.clone()))
        .disable_signals()
        .shutdown_timeout(patience)
        .listen(listener)?
        .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok((address, handle))
}
