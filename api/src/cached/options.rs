//! How a function is cached.

use std::collections::BTreeSet;
use std::time::Duration;

use super::key::CacheKey;
use crate::registration::RegistrationError;

/// How a function is cached. What is not set comes from the section `cache` of the config.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CacheOptions {
    /// How many results are kept. Excludes `max_weight`.
    pub max_entries: Option<u64>,
    /// How much all results together may weigh, in the unit of the weigher that
    /// [`ModuleApi::cached_weighed`](crate::ModuleApi::cached_weighed) takes. Their number is not limited then, so each
    /// weighs at least 1; keys are not weighed by themselves.
    pub max_weight: Option<u64>,
    /// How long a result is kept.
    pub ttl: Option<Duration>,
    /// How long a result is kept that nobody asks for.
    pub idle: Option<Duration>,
    /// How many leading arguments form the key; all by default.
    pub num_args: Option<usize>,
    /// Positions of arguments that are left out of the key, counted from 0. Excludes `num_args`.
    pub uncached_args: BTreeSet<usize>,
    /// Whether an invalidation with the leading parts of a key forgets every result below them.
    pub prefix_keys: bool,
}

impl CacheOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`Self::max_entries`].
    #[must_use]
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.max_entries = Some(entries);
        self
    }

    /// Sets [`Self::max_weight`].
    #[must_use]
    pub fn max_weight(mut self, weight: u64) -> Self {
        self.max_weight = Some(weight);
        self
    }

    /// Sets [`Self::ttl`].
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets [`Self::idle`].
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = Some(idle);
        self
    }

    /// Sets [`Self::num_args`].
    #[must_use]
    pub fn num_args(mut self, count: usize) -> Self {
        self.num_args = Some(count);
        self
    }

    /// Adds to [`Self::uncached_args`].
    #[must_use]
    pub fn uncached_arg(mut self, position: usize) -> Self {
        self.uncached_args.insert(position);
        self
    }

    /// Sets [`Self::prefix_keys`].
    #[must_use]
    pub fn prefix_keys(mut self) -> Self {
        self.prefix_keys = true;
        self
    }

    /// Whether the options fit a function of `count` arguments, whose results are weighed or not.
    pub(crate) fn check(&self, name: &str, count: usize, weighed: bool) -> Result<(), RegistrationError> {
        let refuse = |reason| {
            Err(RegistrationError::CachedFunction {
                name: name.into(),
                reason,
            })
        };
        if self.num_args.is_some() && !self.uncached_args.is_empty() {
            return refuse("num_args and uncached_args exclude each other");
        }
        if self.num_args.is_some_and(|args| args > count) || self.uncached_args.iter().any(|arg| *arg >= count) {
            return refuse("num_args or uncached_args name an argument that it does not have");
        }
        if self.key_length(count) == 0 {
            return refuse("no argument is left for the key");
        }
        if self.prefix_keys && self.key_length(count) == 1 {
            return refuse("prefix_keys needs a key of two parts or more");
        }
        if self.max_entries == Some(0) {
            return refuse("max_entries is at least 1");
        }
        if self.max_entries.is_some() && self.max_weight.is_some() {
            return refuse("max_entries and max_weight exclude each other");
        }
        if self.max_weight == Some(0) {
            return refuse("max_weight is at least 1");
        }
        if self.max_weight.is_some() != weighed {
            return refuse("max_weight and a weigher need each other: use both, with cached_weighed");
        }
        if self.ttl.is_some_and(|ttl| ttl.is_zero()) || self.idle.is_some_and(|idle| idle.is_zero()) {
            return refuse("ttl and idle are longer than zero");
        }
        Ok(())
    }

    /// How many of `count` arguments form the key.
    pub(crate) fn key_length(&self, count: usize) -> usize {
        self.num_args.unwrap_or(count).saturating_sub(self.uncached_args.len())
    }

    /// Which of a call's arguments form the key.
    pub(crate) fn key(&self, all: CacheKey) -> CacheKey {
        if self.num_args.is_none() && self.uncached_args.is_empty() {
            return all;
        }
        let count = self.num_args.unwrap_or(all.parts().len());
        let parts = all.into_parts().take(count).enumerate();
        parts
            .filter(|(position, _)| !self.uncached_args.contains(position))
            .map(|(_, part)| part)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::CacheArgs as _;
    use super::*;

    #[test]
    fn uncached_arguments_are_not_in_the_key() {
        let parts = || ("a", 1_i64, true).key();
        let key = |options: CacheOptions| options.key(parts());
        assert_eq!(key(CacheOptions::new().num_args(2)), ("a", 1_i64).key());
        assert_eq!(key(CacheOptions::new().uncached_arg(1)), ("a", true).key());
        // In any order, and twice is once.
        let both = CacheOptions::new().uncached_arg(2).uncached_arg(0).uncached_arg(2);
        assert_eq!((both.key_length(3), key(both)), (1, 1_i64.key()));
    }

    #[test]
    fn options_that_contradict_each_other_or_the_function_are_refused() {
        let new = CacheOptions::new;
        let refused = |options: CacheOptions, weighed| options.check("f", 3, weighed).unwrap_err().to_string();
        for (bad, reason) in [
            (
                new().num_args(1).uncached_arg(0),
                "num_args and uncached_args exclude each other",
            ),
            (
                new().num_args(4),
                "num_args or uncached_args name an argument that it does not have",
            ),
            (
                new().uncached_arg(3),
                "num_args or uncached_args name an argument that it does not have",
            ),
            (new().num_args(0), "no argument is left for the key"),
            (
                new().uncached_arg(0).uncached_arg(1).uncached_arg(2),
                "no argument is left for the key",
            ),
            (
                new().num_args(1).prefix_keys(),
                "prefix_keys needs a key of two parts or more",
            ),
            (new().max_entries(0), "max_entries is at least 1"),
            (new().max_weight(0), "max_weight is at least 1"),
            (
                new().max_weight(1),
                "max_weight and a weigher need each other: use both, with cached_weighed",
            ),
            (
                new().max_entries(1).max_weight(1),
                "max_entries and max_weight exclude each other",
            ),
            (new().ttl(Duration::ZERO), "ttl and idle are longer than zero"),
            (new().idle(Duration::ZERO), "ttl and idle are longer than zero"),
        ] {
            assert_eq!(refused(bad, false), format!("cached function \"f\": {reason}"));
        }
        assert!(refused(new(), true).ends_with("use both, with cached_weighed"));
        assert_eq!(new().uncached_arg(1).prefix_keys().check("f", 3, false), Ok(()));
        assert_eq!(new().max_weight(1).check("f", 3, true), Ok(()));
    }
}
