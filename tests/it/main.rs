//! The integration suite: Ganglion as its users see it, over HTTP, the command line and the embedding API.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod combine;
mod golden;
mod isolation;
mod order;
mod support;
