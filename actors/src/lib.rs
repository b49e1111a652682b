//! Runs modules: each has a supervisor, and lives as an [`Incarnation`] from its constructor to its next restart.
//!
//! # Core concepts
//! - A [`ModuleHandle`] is a module through all its incarnations: its state, its limits, its breakers, its commands.
//! - An [`Incarnation`] takes calls: a breaker may refuse them, a bounded number runs, a bounded number waits, the rest is
//!   `overloaded`. A call runs where the module's [`Tier`] says, under a panic guard and a budget, and its answer goes
//!   straight to who [asks](Asking).
//! - [`WorkerThreads`] run module code and nothing else. A watchdog sees which module blocks which of them, gives the
//!   thread up and puts a fresh one in its place.
//! - Control never waits behind calls: supervisors are actors on a thread of their own.
//! - The [`CacheService`] keeps the results of modules' cached functions.

mod admission;
mod background;
mod breaker;
mod budget;
mod cache;
mod clock;
mod course;
mod fingerprint;
mod gate;
mod guard;
mod handle;
mod host;
mod incarnation;
mod load;
mod module_actor;
mod module_id;
mod nesting;
mod poison;
mod probe;
mod queue;
mod restart;
mod said;
mod snapshot;
mod state;
mod stock;
mod supervisor;
mod tally;
mod thread;
mod tier;
mod watchdog;
mod worker;

pub use admission::Reclaim;
pub use breaker::{BreakerMode, BreakerSettings, BreakerSnapshot, BreakerState, TripReason};
pub use budget::Budget;
pub use cache::{CacheDefaults, CacheService, CacheStatistics, InvalidationPublisher, NotForgotten};
pub use clock::Moment;
pub use course::Course;
pub use handle::{ModuleHandle, ModuleLimits};
pub use incarnation::{AtOnce, Done, Entry, Incarnation, Questioner, Waiting, Worker, most_stuck_threads};
pub use load::{LoadError, ModuleSpec, Router, Surroundings};
pub use module_actor::{Asking, ModuleActor};
pub use module_id::ModuleId;
pub use nesting::{Asker, Lineage, Modules, TooDeep};
pub use poison::PoisonSnapshot;
pub use queue::{CallClass, Caller, FairQueue, Ticket};
pub use restart::RestartSettings;
pub use snapshot::ModuleSnapshot;
pub use state::{ModuleCommand, ModuleEvent, ModuleState, Refused};
pub use tally::DurationHistogram;
pub use thread::{Blame, ModuleThread, thread_number};
pub use tier::Tier;
pub use worker::{WorkerIndex, WorkerListener, WorkerThreads};
