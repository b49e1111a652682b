//! The section `cache`: what cached functions have by default, and what they share.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::section::Section;
use super::value;

/// How many results may be kept.
const ENTRIES: RangeInclusive<usize> = 1..=1_000_000_000;

/// What cached functions have by default, and what they share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheConfig {
    /// How many results are kept for each function.
    pub max_entries: u64,
    /// How many results are kept for all functions of one module.
    pub max_per_module: Option<u64>,
    /// How many results are kept for all functions of all modules.
    pub max_total: Option<u64>,
    /// How long a result is kept.
    pub ttl: Option<Duration>,
    /// How long a result is kept that nobody asks for.
    pub idle: Option<Duration>,
}

impl CacheConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let mut entries = |key| section.optional(key, value::count(ENTRIES)).map(|count| count as u64);
        let config = Self {
            max_entries: entries("max_entries").unwrap_or(1000),
            max_per_module: entries("max_per_module"),
            max_total: entries("max_total"),
            ttl: section.optional("ttl", value::duration),
            idle: section.optional("idle", value::duration),
        };
        section.finish();
        config
    }
}
