//! The section `cache`: what cached functions have by default.

use std::time::Duration;

use super::section::Section;
use super::value;

/// What cached functions have by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheConfig {
    /// How many results are kept for each function.
    pub max_entries: u64,
    /// How long a result is kept.
    pub ttl: Option<Duration>,
}

impl CacheConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let config = Self {
            max_entries: section.or("max_entries", 1000, value::count(1..=1_000_000_000)) as u64,
            ttl: section.optional("ttl", value::duration),
        };
        section.later("idle", "expiry of results that nobody asks for");
        section.finish();
        config
    }
}
