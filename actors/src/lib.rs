//! Runs modules: each is an actor with a mailbox on every worker thread, behind a [`ModuleHandle`] that owns admission.
//!
//! # Core concepts
//! - [`WorkerThreads`] are actix arbiters that run module code and nothing else.
//! - A [`ModuleHandle`] admits calls: a bounded number runs, a bounded number waits, the rest is `overloaded`. It sends
//!   an admitted call to the module's [`ModuleActor`] on the caller's worker, where it runs under a panic guard and a
//!   budget.
//! - Control goes past the mailbox: stopping a module fails those who wait and cancels what runs, at once.
//! - The [`CacheService`] keeps the results of modules' cached functions.

mod admission;
mod background;
mod cache;
mod guard;
mod handle;
mod host;
mod load;
mod module_actor;
mod snapshot;
mod state;
mod worker;

pub use admission::{Admission, Permit};
pub use cache::{CacheDefaults, CacheService, CacheStatistics, InvalidationPublisher};
pub use handle::{ModuleHandle, ModuleLimits};
pub use host::Host;
pub use load::{LoadError, LoadedModule, ModuleSpec, Surroundings, load};
pub use module_actor::ModuleActor;
pub use snapshot::ModuleSnapshot;
pub use state::ModuleState;
pub use worker::{WorkerEnded, WorkerIndex, WorkerThreads};
