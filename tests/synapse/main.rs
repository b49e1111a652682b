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
mod sides;
mod transcript;
