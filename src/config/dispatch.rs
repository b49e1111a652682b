//! The section `dispatch`: workers, deadlines and depth.

use std::time::Duration;

use super::section::Section;
use super::value;

/// Workers, deadlines and depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DispatchConfig {
    /// How many threads run modules; the number of cores by default.
    pub workers: usize,
    /// How long a whole chain may take.
    pub deadline: Duration,
    /// How deep callbacks may nest that modules cause themselves.
    pub max_depth: usize,
}

impl DispatchConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let config = Self {
            workers: section.or("workers", cores, value::count(1..=1024)),
            deadline: section.or("deadline", Duration::from_secs(5), value::duration),
            max_depth: section.or("max_depth", 8, value::count(1..=64)),
        };
        section.finish();
        config
    }
}
