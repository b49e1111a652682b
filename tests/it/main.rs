//! The integration suite: Ganglion as its users see it, over HTTP, the command line and the embedding API.

mod support;
