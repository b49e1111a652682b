//! The section `dispatch`: workers and deadlines.

use std::time::Duration;

use super::section::Section;
use super::value;

/// Workers and deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DispatchConfig {
    /// How many threads run modules; the number of cores by default.
    pub workers: usize,
    /// How long a whole chain may take.
    pub deadline: Duration,
}

impl DispatchConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let config = Self {
            workers: section.or("workers", cores, value::count(1..=1024)),
            deadline: section.or("deadline", Duration::from_secs(5), value::duration),
        };
        section.later("max_depth", "modules that cause callbacks themselves");
        section.finish();
        config
    }
}
