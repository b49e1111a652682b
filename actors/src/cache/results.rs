//! The results of one function that are kept: how many, how heavy, how old.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crossbeam_utils::CachePadded;
use ganglion_api::CacheKey;
use smallvec::SmallVec;

use super::room::Room;
use super::sieve::{Ages, Gone, Sieve};
use crate::clock::Moment;

/// Fewer results than that stand in one queue: threads seldom meet there, and the order of all counts more.
const MANY: u64 = 512;

/// The queues of a function with many results.
const QUEUES: usize = 8;

/// The places of results have numbers of 32 bits.
const MOST: u64 = u32::MAX as u64 / 2;

/// What limits the results of a function.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_entries: u64,
    /// If they are weighed.
    pub(super) max_weight: Option<u64>,
    pub(super) ages: Ages,
}

/// What went. It is dropped when no lock is held: its drop is the module's code.
pub(super) type Removed<T> = SmallVec<[T; 2]>;

/// The results of one function. A change counts when its call returns, so that there are never more than the limits say
/// but for those that other threads are adding at this moment.
pub(super) struct Results<T> {
    limits: Limits,
    hasher: RandomState,
    queues: Box<[CachePadded<RwLock<Sieve<T>>>]>,
    /// The queue that gives way next, if another function needs the room.
    turn: AtomicUsize,
    entries: AtomicU64,
    weight: AtomicU64,
    evictions: AtomicU64,
    expired: AtomicU64,
    rooms: Vec<Arc<Room>>,
}

impl<T> Results<T> {
    pub(super) fn new(limits: Limits, rooms: Vec<Arc<Room>>) -> Self {
        // What weighs much gives way to what weighs little only within one queue.
        let is_one = limits.max_weight.is_some() || limits.max_entries < MANY;
        let queues = if is_one { 1 } else { QUEUES };
        Self {
            limits: Limits {
                max_entries: limits.max_entries.min(MOST),
                ..limits
            },
            hasher: RandomState::new(),
            queues: (0..queues)
                .map(|_| CachePadded::new(RwLock::new(Sieve::new(limits.ages))))
                .collect(),
            turn: AtomicUsize::new(0),
            entries: AtomicU64::new(0),
            weight: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            rooms,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight.load(Ordering::Relaxed)
    }

    /// How many were dropped for room or for age.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// How many of them were dropped for age.
    pub(super) fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// The hash of a key, and the queue that it stands in.
    fn place(&self, key: &CacheKey) -> (u64, &RwLock<Sieve<T>>) {
        let hash = self.hasher.hash_one(key);
        // The table within uses the bits at both ends.
        let queue = (hash >> 32) as usize % self.queues.len();
        (hash, &self.queues[queue])
    }

    /// A result that is not too old; it counts as asked for if `read` gives something, which runs under a lock.
    pub(super) fn get<R>(&self, key: &CacheKey, now: Moment, read: impl FnOnce(&T) -> Option<R>) -> Option<R> {
        let (hash, queue) = self.place(key);
        self::read(queue).get(hash, key, now, read)
    }

    /// Keeps a result, in the place of the one that its key has. One that is too heavy for all limits is not kept. The
    /// value is made under a lock.
    pub(super) fn insert(&self, key: CacheKey, weight: u32, now: Moment, make: impl FnOnce() -> T) -> Removed<T> {
        let (hash, queue) = self.place(&key);
        let mut removed = Removed::new();
        let mut own = write(queue);
        for gone in own.sweep(now).into_iter().flatten() {
            removed.push(self.dropped(gone));
        }
        if let Some(replaced) = own.remove(hash, &key, now) {
            removed.push(self.forgotten(replaced));
        }
        if self.limits.max_weight.is_some_and(|most| u64::from(weight) > most) {
            self.evictions.fetch_add(1, Ordering::Relaxed);
            removed.push(make());
            return removed;
        }
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.weight.fetch_add(weight.into(), Ordering::Relaxed);
        for room in &self.rooms {
            room.add(1);
        }
        while self.are_too_many()
            && let Some(gone) = own.evict(now)
        {
            removed.push(self.dropped(gone));
        }
        own.push(hash, key, make(), weight, now);
        drop(own);
        // It stood alone in its queue.
        while self.are_too_many()
            && let Some(gone) = self.evict(now)
        {
            removed.push(gone);
        }
        removed
    }

    /// Forgets one result.
    pub(super) fn remove(&self, key: &CacheKey, now: Moment) -> Option<T> {
        let (hash, queue) = self.place(key);
        let gone = write(queue).remove(hash, key, now)?;
        Some(self.forgotten(gone))
    }

    /// Forgets all.
    pub(super) fn clear(&self) -> Vec<Sieve<T>> {
        let clear = |queue: &CachePadded<RwLock<Sieve<T>>>| {
            let cleared = std::mem::replace(&mut *write(queue), Sieve::new(self.limits.ages));
            self.left(cleared.len() as u64, cleared.weight());
            cleared
        };
        self.queues.iter().map(clear).collect()
    }

    /// Drops what is too old, and forgets what is not to be kept.
    pub(super) fn retain(&self, now: Moment, keep: impl Fn(&CacheKey, &T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for queue in &self.queues {
            let gone = write(queue).retain(now, &keep);
            removed.extend(gone.into_iter().map(|gone| self.forgotten(gone)));
        }
        removed
    }

    /// Drops one result for room, if there is one.
    pub(super) fn evict(&self, now: Moment) -> Option<T> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let gone = (0..self.queues.len()).find_map(|next| {
            let queue = first.wrapping_add(next) % self.queues.len();
            write(&self.queues[queue]).evict(now)
        })?;
        Some(self.dropped(gone))
    }

    fn are_too_many(&self) -> bool {
        self.entries() > self.limits.max_entries || self.limits.max_weight.is_some_and(|most| self.weight() > most)
    }

    /// Counts a result that went for room or for age.
    fn dropped(&self, gone: Gone<T>) -> T {
        self.evictions.fetch_add(1, Ordering::Relaxed);
        self.expired.fetch_add(gone.was_too_old.into(), Ordering::Relaxed);
        self.left(1, gone.weight.into());
        gone.value
    }

    /// Counts a result that was forgotten, or that was found too old when the next one came.
    fn forgotten(&self, gone: Gone<T>) -> T {
        if gone.was_too_old {
            return self.dropped(gone);
        }
        self.left(1, gone.weight.into());
        gone.value
    }

    fn left(&self, entries: u64, weight: u64) {
        self.entries.fetch_sub(entries, Ordering::Relaxed);
        self.weight.fetch_sub(weight, Ordering::Relaxed);
        for room in &self.rooms {
            room.give_back(entries);
        }
    }
}

impl<T> Drop for Results<T> {
    fn drop(&mut self) {
        let entries = self.entries();
        for room in &self.rooms {
            room.give_back(entries);
        }
    }
}

// No code of a module runs under these locks, so nothing is half done behind a poisoned one.

fn read<T>(queue: &RwLock<Sieve<T>>) -> RwLockReadGuard<'_, Sieve<T>> {
    queue.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(queue: &RwLock<Sieve<T>>) -> RwLockWriteGuard<'_, Sieve<T>> {
    queue.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
