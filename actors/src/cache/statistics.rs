//! What can be seen of a cached function.

use serde::Serialize;

/// What happened in one cache since its module was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheStatistics {
    /// The module's id.
    pub module: String,
    /// The function's name.
    pub name: String,
    /// Whether the module registered it for invalidations from afar.
    pub announced: bool,
    /// How many results are kept.
    pub entries: u64,
    /// How many may be kept, unless they are weighed.
    pub max_entries: Option<u64>,
    /// What they weigh together, in the unit of the function's weigher; 0 if they are not weighed.
    pub weight: u64,
    /// What they may weigh together, if they are weighed.
    pub max_weight: Option<u64>,
    /// Results that were there.
    pub hits: u64,
    /// Results that were not, those that another call was computing already among them.
    pub misses: u64,
    /// Computations that failed.
    pub failures: u64,
    /// Results that were dropped for room or for age.
    pub evictions: u64,
    /// Results of these that were dropped for age.
    pub expired: u64,
    /// Invalidations: of one key, by a prefix, or of all.
    pub invalidations: u64,
}
