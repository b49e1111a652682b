//! Modules under their supervisors, with real actors.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admission;
mod background;
mod cache;
mod supervisor;
mod support;
