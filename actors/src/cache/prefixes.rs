//! What was forgotten by a prefix of its key: generations, which a result is compared with when somebody asks for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use dashmap::DashMap;
use ganglion_api::{CacheKey, KeyPart};

/// So many prefixes are remembered at least, before the results are looked through to forget them.
const REMEMBERED: u64 = 1024;

/// In which generation a result was kept; each invalidation by a prefix begins the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(u64);

/// The prefixes that were forgotten, each with the generation that began then.
#[derive(Default)]
pub(super) struct Prefixes {
    latest: AtomicU64,
    forgotten: DashMap<CacheKey, Generation>,
    /// How often prefixes ceased to be remembered.
    tidied: AtomicU64,
    /// Whoever looks through the results.
    pub(super) tidying: Mutex<()>,
    /// Held by all who keep a result, from the look at the generation on.
    keeping: RwLock<()>,
}

impl Prefixes {
    /// The present generation.
    pub(super) fn generation(&self) -> Generation {
        Generation(self.latest.load(Ordering::Acquire))
    }

    /// Keeps a result in the present generation. Nothing begins to look through the results in between.
    pub(super) fn in_present(&self, keep: impl FnOnce(Generation)) {
        let _keeping = self.keeping.read().unwrap_or_else(PoisonError::into_inner);
        keep(self.generation());
    }

    /// Before the results are looked through: whatever is kept in an earlier generation than this is among them.
    pub(super) fn settle(&self) -> Generation {
        let _nobody_keeps = self.keeping.write().unwrap_or_else(PoisonError::into_inner);
        self.generation()
    }

    /// Forgets what begins with a prefix and was kept in the generations until now.
    pub(super) fn forget(&self, prefix: CacheKey) {
        let mut forgotten = self.forgotten.entry(prefix).or_default();
        // While the entry is locked: whoever sees the new generation finds the prefix, or waits for it.
        *forgotten = Generation(self.latest.fetch_add(1, Ordering::AcqRel) + 1);
    }

    /// Whether a result was forgotten since it was kept. No prefix is looked up if none was forgotten since.
    pub(super) fn have_forgotten(&self, key: &CacheKey, kept: Generation) -> bool {
        if self.generation() <= kept {
            return false;
        }
        let parts = key.parts();
        (1..parts.len()).any(|length| self.since(&parts[..length]).is_some_and(|since| since > kept))
    }

    fn since(&self, prefix: &[KeyPart]) -> Option<Generation> {
        self.forgotten.get(prefix).map(|since| *since)
    }

    /// Whether the results should be looked through, of which there are so many. A quarter of their number may be
    /// remembered, so that an invalidation costs a look at four results in the long run.
    pub(super) fn are_many(&self, entries: u64) -> bool {
        self.forgotten.len() as u64 > REMEMBERED.max(entries / 4)
    }

    pub(super) fn are_none(&self) -> bool {
        self.forgotten.is_empty()
    }

    /// Nothing is left that was kept before this generation and forgotten since.
    pub(super) fn settled(&self, generation: Generation) {
        // Counted first: who looked a prefix up that was taken away meanwhile, looks again.
        self.tidied.fetch_add(1, Ordering::AcqRel);
        self.forgotten.retain(|_, since| *since > generation);
    }

    /// How often prefixes ceased to be remembered: while it is the same, each that was forgotten is known.
    pub(super) fn tidied(&self) -> u64 {
        self.tidied.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.forgotten.len()
    }
}

#[cfg(test)]
mod tests {
    use ganglion_api::CacheArgs as _;

    use super::*;

    #[test]
    fn a_prefix_forgets_what_was_kept_before_and_begins_with_it() {
        let prefixes = Prefixes::default();
        let first = prefixes.generation();
        let key = ("a", 1_i64, true).key();
        assert!(!prefixes.have_forgotten(&key, first));
        prefixes.forget(("a", 2_i64).key());
        prefixes.forget("b".key());
        assert!(!prefixes.have_forgotten(&key, first));
        prefixes.forget(("a", 1_i64).key());
        assert!(prefixes.have_forgotten(&key, first));
        let later = prefixes.generation();
        assert!(!prefixes.have_forgotten(&key, later));
        prefixes.forget("a".key());
        assert!(prefixes.have_forgotten(&key, later));
        // Only what is shorter is a prefix.
        assert!(!prefixes.have_forgotten(&"a".key(), first));
    }

    #[test]
    fn settled_prefixes_are_not_remembered() {
        let prefixes = Prefixes::default();
        prefixes.forget("a".key());
        let settled = prefixes.generation();
        prefixes.forget("b".key());
        prefixes.settled(settled);
        assert_eq!(prefixes.remembered(), 1);
        assert!(prefixes.have_forgotten(&("b", 1_i64).key(), settled));
    }
}
