//! `ganglion serve`.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::future::join;
use ganglion_api::{Homeserver, Registry};
use tokio::signal::unix::{SignalKind, signal};

use super::print;
use crate::config::Config;
use crate::ganglion::Ganglion;
use crate::http::{Listeners, Server};
use crate::wire::{Bridges, WireListeners, WireServer};

/// Serves until a signal says stop. Nothing listens before all modules run.
pub(super) fn serve(file: &Path, registry: &Registry) -> anyhow::Result<()> {
    let config = Config::from_file(file, registry)?;
    actix_web::rt::System::new().block_on(run(&config))
}

async fn run(config: &Config) -> anyhow::Result<()> {
    let listeners = Listeners::bind(config)?;
    let wire_listeners = WireListeners::bind(&config.wire)?;
    let bridges = Arc::<Bridges>::default();
    let ganglion = Ganglion::start_with(config, Arc::clone(&bridges) as Arc<dyn Homeserver>).await?;
    for warning in ganglion.warnings() {
        tracing::warn!("{warning}");
    }
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let server = Server::start(config, listeners, &ganglion, &bridges)?;
    let wire = WireServer::start(config, wire_listeners, &ganglion, &bridges)?;
    print(&banner(config, &ganglion, &server, &wire))?;

    tokio::select! {
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
    }
    tokio::select! {
        _ = join(server.drain(), wire.drain()) => {}
        _ = interrupt.recv() => tracing::warn!("SIGINT again: calls that are under way are cut off"),
        _ = terminate.recv() => tracing::warn!("SIGTERM again: calls that are under way are cut off"),
    }
    ganglion.shutdown();
    tracing::info!("stopped");
    Ok(())
}

/// What listens where, and which modules serve which callbacks.
fn banner(config: &Config, ganglion: &Ganglion, server: &Server, wire: &WireServer) -> String {
    let mut text = format!("ganglion {} for {}\n", env!("CARGO_PKG_VERSION"), config.server_name);
    for module in &config.modules {
        let _ = writeln!(
            text,
            "module {}: {}",
            module.id,
            serves(&module.id, module.is_enabled(), ganglion)
        );
    }
    let token = if config.admin.token.is_some() {
        "with a token"
    } else {
        "without a token, for loopback names only"
    };
    let _ = writeln!(text, "http listening on {}", server.http());
    let _ = writeln!(text, "admin listening on {}", server.admin());
    if let Some(socket) = wire.socket() {
        let _ = writeln!(text, "wire listening on {}", socket.display());
    }
    if let Some(address) = wire.tcp() {
        let _ = writeln!(text, "wire listening on {address}");
    }
    let _ = writeln!(
        text,
        "ready: {} modules, admin {token}",
        config.modules.iter().filter(|module| module.is_enabled()).count()
    );
    text
}

/// The callbacks and web resources of a module.
fn serves(id: &str, enabled: bool, ganglion: &Ganglion) -> String {
    if !enabled {
        return "disabled".into();
    }
    let dispatch = ganglion.dispatch();
    let on_route = |modules: &[ganglion_actors::ModuleHandle]| modules.iter().any(|module| module.id() == id);
    let (routes, resources) = (dispatch.routes(), dispatch.resources());
    let callbacks = routes
        .overview()
        .filter(|(_, modules)| on_route(modules))
        .map(|(spec, _)| spec.name.to_owned());
    let resources = resources.mounted().filter(|mounted| mounted.module().id() == id);
    let all: Vec<String> = callbacks
        .chain(resources.map(|mounted| mounted.path.to_string()))
        .collect();
    if all.is_empty() {
        "nothing".into()
    } else {
        all.join(", ")
    }
}
