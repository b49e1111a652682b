//! Real Synapses, with SQLite, and what their clients see of Ganglion: through the published module synapse-http-antispam,
//! and through the bridge.

mod antispam;
mod bridge;
mod burst;
mod client;
mod failures;
mod ganglion;
mod homeserver;
mod modules;
mod process;
mod scripted;
#[cfg(feature = "http-client")]
#[path = "../it/service.rs"]
#[expect(dead_code, reason = "the integration tests have it do more")]
mod service;
mod sides;
mod transcript;
