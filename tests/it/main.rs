//! The integration suite: Ganglion as its users see it, over HTTP, the command line and the embedding API.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod admin;
mod antispam;
#[cfg(feature = "bench")]
mod bench;
mod caches;
mod call;
mod callbacks_endpoint;
mod cli;
mod combine;
mod commands;
mod config;
mod config_refused;
mod deadline;
#[cfg(feature = "http-client")]
mod department_lookup;
mod fuzz;
mod golden;
#[cfg(feature = "http-client")]
mod http_antispam;
#[cfg(feature = "http-client")]
mod https;
mod isolation;
mod metrics;
mod module_pages;
mod module_test;
mod neighbours;
mod nesting;
mod order;
mod overload;
mod poison;
mod policy;
#[cfg(feature = "http-client")]
mod service;
mod support;
mod survival;
mod web_resources;
mod wire;
mod wire_client;
