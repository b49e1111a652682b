//! What the benches share: the work that every row does, the rounds that rows are measured in, and how results are told.
//!
//! A bench is a *group* of *rows*. A row is one way to do the group's work: Ganglion's own, the *floor* that does the same
//! with as little as possible, and *peers* that others would use in its place. All rows of a group run in one process, in
//! turns, so that a ratio of two of them compares like with like; see [`rounds`].

pub mod caching;
pub mod driver;
pub mod group;
pub mod host;
pub mod machine;
pub mod report;
pub mod rounds;
pub mod work;
