//! `ganglion bench`: what the modules of a config cost.
//!
//! ```text
//!   mix ──> which callback, how often ──┐
//!   samples ──> args, made before ──────┴─> questions ──> load ──> record ──> result ──> report, compare
//! ```
//!
//! The load has threads of its own, as the listeners of `serve` have. What they ask is fixed before the first question:
//! the seed says all of it.

mod compare;
mod histogram;
mod load;
mod machine;
mod misbehave;
mod mix;
mod pace;
mod questions;
mod record;
mod report;
mod result;
mod samples;
mod text;

pub(crate) use self::compare::compare;
pub(crate) use self::load::{Callers, Load, Phase};
pub(crate) use self::misbehave::{Misbehaves, Misbehaving};
pub(crate) use self::mix::Mix;
pub(crate) use self::pace::Pace;
pub(crate) use self::questions::{Homeserver, Questions};
pub(crate) use self::report::report;
pub(crate) use self::result::{Ended, Options, ResultFile, RunResult};
