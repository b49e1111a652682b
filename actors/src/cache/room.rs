//! How many results several functions may keep together: those of a module, or all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::function_cache::FunctionCache;

/// Which part of the room is made free when it is exceeded: to look for what can go costs as much as there are results, so
/// it is not done for one.
const SPARE: u64 = 16;

/// Room that functions share. If they need more, those that take most give way.
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

    /// Lets results go until there is room for the others, and a little more. Only one thread at a time does, so that none
    /// goes too many.
    pub(super) fn shrink(&self) {
        if !self.is_exceeded() {
            return;
        }
        // Dropped after the lock is let go.
        let mut alive: Vec<Arc<FunctionCache>> = Vec::new();
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        alive.extend(members.iter().filter_map(Weak::upgrade));
        // Some of them may be over their own limits.
        for function in &alive {
            function.settle();
        }
        if self.is_exceeded() {
            let counts: Vec<u64> = alive.iter().map(|function| function.entries()).collect();
            for (function, excess) in alive.iter().zip(excess(&counts, self.most - self.most / SPARE)) {
                function.give_way(excess);
            }
        }
        drop(members);
    }
}

/// How many each has to give so that all have `most` together: those that have most are brought down to one height.
fn excess(counts: &[u64], most: u64) -> Vec<u64> {
    let mut falling = counts.to_vec();
    falling.sort_unstable();
    // What those below the height have is theirs; the others share the rest.
    let (mut rest, mut sharing) = (most, falling.len() as u64);
    for count in falling {
        if count > rest / sharing {
            break;
        }
        rest -= count;
        sharing -= 1;
    }
    let height = rest.checked_div(sharing).unwrap_or(u64::MAX);
    counts.iter().map(|count| count.saturating_sub(height)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn those_that_have_most_give_way() {
        assert_eq!(excess(&[90, 30], 100), [20, 0]);
        assert_eq!(excess(&[60, 60, 10], 100), [15, 15, 0]);
        assert_eq!(excess(&[3, 4], 100), [0, 0]);
        assert!(excess(&[], 0).is_empty());
        assert_eq!(excess(&[2, 1], 0), [2, 1]);
    }

    proptest! {
        #[test]
        fn all_come_down_to_one_height_and_no_lower_than_they_must(
            counts in prop::collection::vec(0..1000_u64, 0..8),
            most in 0..4000_u64,
        ) {
            let excess = excess(&counts, most);
            let left: Vec<u64> = counts.iter().zip(&excess).map(|(count, excess)| count - excess).collect();
            let (before, after): (u64, u64) = (counts.iter().sum(), left.iter().sum());
            prop_assert!(after <= most);
            // What cannot be shared evenly stays free.
            prop_assert!(after == before || after + counts.len() as u64 > most);
            let highest = left.iter().copied().max().unwrap_or_default();
            for (left, excess) in left.iter().zip(&excess) {
                prop_assert!(*excess == 0 || *left == highest);
            }
        }
    }
}
