//! The integration suite: Ganglion as its users see it, over HTTP, the command line and the embedding API.

mod combine;
mod golden;
mod isolation;
mod order;
mod support;
