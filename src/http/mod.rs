//! The two listeners: `http` for modules' web resources, `admin` for the homeserver and for operators.
//!
//! HTTP threads parse, ask and answer; they never run module code.

mod access;
pub(crate) mod antispam;
mod body;
mod caches;
mod callbacks;
mod context;
mod error;
mod health;
mod listener;
mod metrics;
mod modules;
mod resources;
mod server;

pub use self::error::HttpError;
pub use self::listener::Listeners;
#[cfg(feature = "testing")]
pub(crate) use self::resources::seen_by_client;
pub use self::server::Server;

use std::sync::Arc;

use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::from_fn;
use actix_web::{App, Error, web};

use crate::config::Token;
use crate::ganglion::Ganglion;
use crate::wire::Bridges;

/// Which listener an application is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listener {
    Http,
    Admin,
}

/// What handlers need.
#[derive(Debug, Clone)]
struct Surface {
    listener: Listener,
    ganglion: Ganglion,
    /// Who is connected to the wire.
    bridges: Arc<Bridges>,
    /// What callers of `admin` must give, if anything.
    token: Option<Token>,
    /// The largest body, in bytes.
    max_body: usize,
}

/// The application of a listener.
fn app(
    surface: Surface,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl actix_web::body::MessageBody>,
        Error = Error,
        InitError = (),
    >,
> {
    let listener = surface.listener;
    App::new()
        .app_data(web::Data::new(surface))
        .configure(move |config| {
            health::mount(config);
            match listener {
                Listener::Http => resources::mount(config),
                Listener::Admin => {
                    callbacks::mount(config);
                    antispam::mount(config);
                    modules::mount(config);
                    caches::mount(config);
                    metrics::mount(config);
                    config.default_service(web::to(error::nothing_here));
                }
            }
        })
        .wrap(from_fn(access::check))
}

/// Runs in a task of its own: a client that goes away does not take it with it.
async fn detached<T: 'static>(work: impl Future<Output = T> + 'static) -> T {
    match actix_web::rt::spawn(work).await {
        Ok(done) => done,
        // A panic of our own: let it reach this connection, as it would without the task.
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
