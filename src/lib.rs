//! Hosts the third-party modules of Matrix homeservers: a config with a `modules:` section becomes decisions.
//!
//! The binary `ganglion` serves decisions over HTTP. This library is the same for those who embed it:
//!
//! ```
//! use ganglion::{Config, Ganglion, api, registry};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let yaml = "{server_name: example.com, modules: [{module: demo.DemoModule}]}";
//! let config = Config::from_yaml(yaml, "ganglion.yaml", &registry())?;
//! let ganglion = Ganglion::start(&config).await?;
//!
//! let eve = api::UserId::parse("@evilguy:example.com")?;
//! let decision = ganglion.ask(api::UserMayCreateRoom::new(eve, api::JsonObject::new())).await;
//! assert_eq!(decision.decided_by.as_deref(), Some("demo.DemoModule"));
//! # Ok(())
//! # }
//! ```
//!
//! # Core concepts
//! - [`api`] is what module authors import: the [`Module`](api::Module) trait, a type for every callback, verdicts.
//! - [`registry`] knows the modules that ship; add your own with [`Registry::with`](api::Registry::with).
//! - [`Ganglion`] is the handle that asks; it owns the worker threads and is cheap to clone.

#[cfg(feature = "bench")]
mod bench;
mod bind;
pub mod cli;
pub mod config;
mod ganglion;
pub mod http;
mod json;
pub mod modules;
mod plain;
#[cfg(feature = "testing")]
pub mod testing;
mod warnings;
pub mod wire;

pub use ganglion_actors as actors;
pub use ganglion_api as api;
pub use ganglion_dispatcher as dispatcher;

pub use self::bind::BindError;
pub use self::config::{Config, ConfigProblems, Problem};
pub use self::ganglion::{CommandError, Ganglion, plan};
pub use self::modules::registry;

/// The examples of the documents are compiled and run.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/writing-a-module.md")]
    struct WritingAModule;
}
