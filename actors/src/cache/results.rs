//! The results of one function that are kept, in moka: how many or how heavy, how old.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ganglion_api::CacheKey;
use moka::notification::RemovalCause;
use moka::sync::Cache;

use super::ages::Ages;
use super::room::Room;
use crate::clock::{AtomicMoment, Moment};

/// moka's clock is its own, which tests cannot pause; so ages are looked at here, and moka only lets go, so much later, of
/// what nobody asked for any more.
const REAPED_AFTER: Duration = Duration::from_secs(60);

/// moka takes no longer times than a thousand years, and this is longer than anybody waits.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What limits the results of a function.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) most: Most,
    pub(super) ages: Ages,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Most {
    /// So many results.
    Entries(u64),
    /// As many as weigh so much together.
    Weight(u64),
}

impl Most {
    pub(super) fn entries(self) -> Option<u64> {
        match self {
            Self::Entries(entries) => Some(entries),
            Self::Weight(_) => None,
        }
    }

    pub(super) fn weight(self) -> Option<u64> {
        match self {
            Self::Entries(_) => None,
            Self::Weight(weight) => Some(weight),
        }
    }
}

/// A result and what is known of it.
struct Slot<T> {
    value: T,
    weight: u32,
    made: Moment,
    asked_at: AtomicMoment,
    /// Asked for, or added, since somebody looked for room.
    is_marked: AtomicBool,
    was_too_old: AtomicBool,
    gave_way: AtomicBool,
}

/// What there is, and what became of the rest. moka tells as it lets go.
struct Counts {
    entries: AtomicU64,
    weight: AtomicU64,
    evictions: AtomicU64,
    expired: AtomicU64,
    rooms: Vec<Arc<Room>>,
}

impl Counts {
    fn came(&self, weight: u32) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.weight.fetch_add(weight.into(), Ordering::Relaxed);
        for room in &self.rooms {
            room.add(1);
        }
    }

    fn went<T>(&self, slot: &Slot<T>, cause: RemovalCause) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.weight.fetch_sub(slot.weight.into(), Ordering::Relaxed);
        for room in &self.rooms {
            room.give_back(1);
        }
        let was_too_old = cause == RemovalCause::Expired || slot.was_too_old.load(Ordering::Relaxed);
        let was_dropped = was_too_old || cause == RemovalCause::Size || slot.gave_way.load(Ordering::Relaxed);
        self.expired.fetch_add(was_too_old.into(), Ordering::Relaxed);
        self.evictions.fetch_add(was_dropped.into(), Ordering::Relaxed);
    }
}

/// The results of one function.
///
/// moka holds the limit: which result goes is its choice, and for a moment there may be more.
pub(super) struct Results<T> {
    limits: Limits,
    slots: Cache<CacheKey, Arc<Slot<T>>>,
    counts: Arc<Counts>,
    clearing: Mutex<()>,
}

impl<T: Send + Sync + 'static> Results<T> {
    pub(super) fn new(limits: Limits, rooms: Vec<Arc<Room>>) -> Self {
        let counts = Arc::new(Counts {
            entries: AtomicU64::new(0),
            weight: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            rooms,
        });
        let counted = Arc::clone(&counts);
        let mut builder =
            Cache::builder().eviction_listener(move |_key, slot: Arc<Slot<T>>, cause| counted.went(&slot, cause));
        builder = match limits.most {
            Most::Entries(entries) => builder.max_capacity(entries),
            Most::Weight(weight) => builder.max_capacity(weight).weigher(|_key, slot| slot.weight),
        };
        // Who asks for a result before it is too old keeps it; so a time without asking is enough to know.
        if let Some(longest) = limits.ages.longest().filter(|longest| *longest < NEVER) {
            builder = builder.time_to_idle(longest + REAPED_AFTER);
        }
        Self {
            limits,
            slots: builder.build(),
            counts,
            clearing: Mutex::new(()),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// How many there are, those that moka has not let go yet among them.
    pub(super) fn entries(&self) -> u64 {
        self.counts.entries.load(Ordering::Relaxed)
    }

    pub(super) fn weight(&self) -> u64 {
        self.counts.weight.load(Ordering::Relaxed)
    }

    /// How many were dropped for room or for age.
    pub(super) fn evictions(&self) -> u64 {
        self.counts.evictions.load(Ordering::Relaxed)
    }

    /// How many of them were dropped for age.
    pub(super) fn expired(&self) -> u64 {
        self.counts.expired.load(Ordering::Relaxed)
    }

    /// A result that is not too old; it counts as asked for if `read` gives something.
    pub(super) fn get<R>(&self, key: &CacheKey, now: Moment, read: impl FnOnce(&T) -> Option<R>) -> Option<R> {
        let slot = self.slots.get(key)?;
        if self.is_too_old(&slot, now) {
            self.expire(key, &slot);
            return None;
        }
        let read = read(&slot.value)?;
        if self.limits.ages.depend_on_asking() {
            slot.asked_at.set(now);
        }
        // Only shared room looks at marks. To write what is written already would take the memory away from other cores.
        if !self.counts.rooms.is_empty() && !slot.is_marked.load(Ordering::Relaxed) {
            slot.is_marked.store(true, Ordering::Relaxed);
        }
        Some(read)
    }

    /// Keeps a result, in the place of the one that its key has. One that is heavier than all may be is not kept.
    pub(super) fn insert(&self, key: CacheKey, weight: u32, now: Moment, value: T) {
        if self.limits.most.weight().is_some_and(|most| u64::from(weight) > most) {
            self.slots.invalidate(&key);
            self.counts.evictions.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let slot = Slot {
            value,
            weight,
            made: now,
            asked_at: AtomicMoment::new(now),
            is_marked: AtomicBool::new(true),
            was_too_old: AtomicBool::new(false),
            gave_way: AtomicBool::new(false),
        };
        self.counts.came(weight);
        self.slots.insert(key, Arc::new(slot));
    }

    /// Forgets one result.
    pub(super) fn remove(&self, key: &CacheKey) {
        self.slots.invalidate(key);
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        // moka keeps the moment of the last one, and a slow one must not set an earlier moment.
        let one_at_a_time = self.clearing.lock().unwrap_or_else(PoisonError::into_inner);
        self.slots.invalidate_all();
        let mut before = self.entries();
        self.settle();
        // moka stops after a while, and what it has not let go yet takes room of others.
        while !self.counts.rooms.is_empty() && self.entries() < before {
            before = self.entries();
            self.settle();
        }
        drop(one_at_a_time);
    }

    /// Lets moka do what it has put off: what it has no room for goes now.
    pub(super) fn settle(&self) {
        self.slots.run_pending_tasks();
    }

    /// Drops what is too old, and forgets what is not to be kept.
    pub(super) fn retain(&self, now: Moment, keep: impl Fn(&CacheKey, &T) -> bool) {
        for (key, slot) in &self.slots {
            if self.is_too_old(&slot, now) {
                self.expire(&key, &slot);
            } else if !keep(&key, &slot.value) {
                self.slots.invalidate(&*key);
            }
        }
        self.settle();
    }

    /// Drops so many results for room, if there are as many: first those that were neither asked for nor added since the last
    /// time.
    pub(super) fn give_way(&self, mut count: u64) {
        for _ in 0..2 {
            // From another place each time: else it would always be the same ones that are looked at.
            let first = usize::try_from(fastrand::u64(..=self.entries())).unwrap_or_default();
            for (key, slot) in self.slots.iter().skip(first).chain(self.slots.iter().take(first)) {
                if count == 0 {
                    return;
                }
                if !slot.is_marked.swap(false, Ordering::Relaxed) {
                    slot.gave_way.store(true, Ordering::Relaxed);
                    self.slots.invalidate(&*key);
                    count -= 1;
                }
            }
        }
    }

    fn is_too_old(&self, slot: &Slot<T>, now: Moment) -> bool {
        self.limits.ages.are_over(slot.made, slot.asked_at.get(), now)
    }

    /// Another result that came to this key meanwhile goes too: it is computed again.
    fn expire(&self, key: &CacheKey, slot: &Slot<T>) {
        slot.was_too_old.store(true, Ordering::Relaxed);
        self.slots.invalidate(key);
    }
}

impl<T> Drop for Results<T> {
    fn drop(&mut self) {
        // moka tells nobody what it drops with itself.
        let entries = self.counts.entries.load(Ordering::Relaxed);
        for room in &self.counts.rooms {
            room.give_back(entries);
        }
    }
}

#[cfg(test)]
mod tests;
