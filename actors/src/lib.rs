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
mod breaker;
mod cache;
mod gate;
mod guard;
mod handle;
mod host;
mod incarnation;
mod load;
mod module_actor;
mod probe;
mod restart;
mod snapshot;
mod state;
mod supervisor;
mod thread;
mod tier;
mod watchdog;
mod worker;

pub use breaker::{BreakerMode, BreakerSettings, BreakerSnapshot, BreakerState, TripReason};
pub use cache::{CacheDefaults, CacheService, CacheStatistics, InvalidationPublisher};
pub use handle::{ModuleHandle, ModuleLimits};
pub use incarnation::{Incarnation, Worker, most_stuck_threads};
pub use load::{LoadError, ModuleSpec, Router, Surroundings};
pub use module_actor::{Asking, ModuleActor};
pub use restart::RestartSettings;
pub use snapshot::ModuleSnapshot;
pub use state::{ModuleCommand, ModuleEvent, ModuleState, Refused};
pub use thread::{Blame, ModuleThread};
pub use tier::Tier;
pub use worker::{WorkerEnded, WorkerIndex, WorkerListener, WorkerThreads};
