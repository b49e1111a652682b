//! Modules that misbehave on purpose, for tests of what surrounds them. Only with the feature `testing`.
//!
//! Any module can misbehave: a [`Misbehaviour`] says what it does and when, and
//! [`Registry::misbehaving`](crate::Registry::misbehaving) wraps a module that is registered.
//!
//! ```
//! # use ganglion_api::{Module, ModuleApi, ModuleError, NoConfig, Registry};
//! # struct Demo;
//! # impl Module for Demo {
//! #     type Config = NoConfig;
//! #     fn new(_: NoConfig, _: &ModuleApi<Self>) -> Result<Self, ModuleError> {
//! #         Ok(Self)
//! #     }
//! # }
//! use ganglion_api::testing::{Misbehave, Misbehaviour};
//!
//! let blocks = Misbehaviour::new(Misbehave::Block).on_call(3);
//! let registry = Registry::new()
//!     .with::<Demo>("demo.Demo")
//!     .misbehaving("test.Blocks", "demo.Demo", blocks.clone());
//! // Whatever happens, the thread that blocks goes on when the test ends.
//! let _guard = blocks.calm_on_drop();
//! # assert!(registry.factory("test.Blocks").is_some());
//! ```
//!
//! A test waits for what it wants to see with [`Misbehaviour::calls`], [`Misbehaviour::misbehaved`] and
//! [`Misbehaviour::running`], and ends it with [`Misbehaviour::calm`].

mod factory;
mod garbage;
mod misbehave;
mod misbehaviour;
mod switch;
#[cfg(test)]
mod tests;

pub use misbehave::Misbehave;
pub use misbehaviour::{CalmOnDrop, Misbehaviour};
