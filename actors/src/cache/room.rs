//! How many results several functions may keep together: those of a module, or all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::function_cache::FunctionCache;
use super::kept::Kept;

/// Room that functions share. If they need more, the one that takes most gives way.
pub(super) struct Room {
    most: u64,
    taken: AtomicU64,
    members: Mutex<Vec<Weak<FunctionCache>>>,
}

impl Room {
    pub(super) fn new(most: u64) -> Self {
        Self {
            most,
            taken: AtomicU64::new(0),
            members: Mutex::default(),
        }
    }

    /// From now on this function's results are here.
    pub(super) fn join(&self, function: &Arc<FunctionCache>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(function));
    }

    pub(super) fn add(&self, entries: u64) {
        self.taken.fetch_add(entries, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, entries: u64) {
        self.taken.fetch_sub(entries, Ordering::Relaxed);
    }

    fn is_exceeded(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.most
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Lets results go until there is room for the others. Only one thread at a time does, so that none goes too many.
    pub(super) fn shrink(&self) {
        if !self.is_exceeded() {
            return;
        }
        // Both are dropped after the lock is let go: drops are code of modules.
        let (mut alive, mut gone): (Vec<Arc<FunctionCache>>, Vec<Kept>) = (Vec::new(), Vec::new());
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        alive.extend(members.iter().filter_map(Weak::upgrade));
        while self.is_exceeded() {
            let largest = alive.iter().max_by_key(|function| function.entries());
            match largest.and_then(|function| function.evict()) {
                Some(kept) => gone.push(kept),
                // What is too much is being added, or is gone with its function.
                None => break,
            }
        }
        drop(members);
    }
}
