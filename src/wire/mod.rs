//! The wire: other processes connect, ask callbacks, and are asked for what only they have. See `docs/wire.md`.
//!
//! ```text
//! WireListeners ── accept ──> WireServer (threads of its own, which never run module code)
//!                               └── connection: hello, then requests side by side
//!                                     ├── questions: callback, continue ──> Ganglion
//!                                     └── Peer: what Ganglion asks the other side
//!                                           ├── ConnectedArgs (state, media), for modules' large arguments
//!                                           └── Bridges, the Homeserver of modules
//! ```

mod args;
mod bridges;
mod connection;
mod counts;
mod hello;
mod listener;
mod outbox;
mod peer;
mod questions;
mod server;

pub use self::bridges::Bridges;
pub use self::counts::{WireCounts, WireSnapshot};
pub use self::listener::WireListeners;
pub use self::server::WireServer;
