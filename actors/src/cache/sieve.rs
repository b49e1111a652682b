//! The order in which results go when there is no room: SIEVE (Zhang and others, NSDI 2024).
//!
//! Results stand in a queue by when they came, and whoever asks for one only marks it, under a lock that others share. A
//! hand goes from the oldest to the newest and round again: it takes the marks away, and stops at the first result that has
//! none. Pure: the moment is an argument.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ganglion_api::CacheKey;
use hashbrown::HashTable;

use crate::clock::{AtomicMoment, Moment, nanos};

/// How old results get, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ages {
    ttl: Option<u64>,
    idle: Option<u64>,
}

impl Ages {
    pub(super) fn new(ttl: Option<Duration>, idle: Option<Duration>) -> Self {
        Self {
            ttl: ttl.map(nanos),
            idle: idle.map(nanos),
        }
    }

    /// Whether there is an age that is too old.
    pub(super) fn are_limited(self) -> bool {
        self.ttl.is_some() || self.idle.is_some()
    }

    fn is_too_old<T>(self, slot: &Slot<T>, now: Moment) -> bool {
        let over = |most: Option<u64>, since| most.is_some_and(|most| now.nanos_since(since) >= most);
        over(self.ttl, slot.made) || over(self.idle, slot.asked_at.get())
    }
}

/// One result and its place.
struct Slot<T> {
    key: CacheKey,
    hash: u64,
    value: T,
    weight: u32,
    made: Moment,
    asked_at: AtomicMoment,
    is_marked: AtomicBool,
    newer: Option<u32>,
    older: Option<u32>,
}

/// A result that had to go.
pub(super) struct Gone<T> {
    pub(super) value: T,
    pub(super) weight: u32,
    pub(super) was_too_old: bool,
}

/// Results in their queue. What limits them is known to its owner.
pub(super) struct Sieve<T> {
    ages: Ages,
    table: HashTable<u32>,
    slots: Vec<Option<Slot<T>>>,
    free: Vec<u32>,
    newest: Option<u32>,
    oldest: Option<u32>,
    hand: Option<u32>,
    /// Where the next look for what is too old begins.
    broom: usize,
    weight: u64,
}

impl<T> Sieve<T> {
    pub(super) fn new(ages: Ages) -> Self {
        Self {
            ages,
            table: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: None,
            oldest: None,
            hand: None,
            broom: 0,
            weight: 0,
        }
    }

    /// How many results there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// What they weigh together.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    fn slot(&self, at: u32) -> &Slot<T> {
        let slot = self.slots.get(at as usize).and_then(Option::as_ref);
        slot.expect("what the table and the queue name is there: both forget it before it goes")
    }

    fn slot_mut(&mut self, at: u32) -> &mut Slot<T> {
        let slot = self.slots.get_mut(at as usize).and_then(Option::as_mut);
        slot.expect("what the table and the queue name is there: both forget it before it goes")
    }

    fn find(&self, hash: u64, key: &CacheKey) -> Option<u32> {
        let is_it = |at: &u32| {
            let slot = self.slot(*at);
            slot.hash == hash && slot.key == *key
        };
        self.table.find(hash, is_it).copied()
    }

    /// Asks for a result that is not too old. It is marked if `read` gives something.
    pub(super) fn get<R>(
        &self,
        hash: u64,
        key: &CacheKey,
        now: Moment,
        read: impl FnOnce(&T) -> Option<R>,
    ) -> Option<R> {
        let slot = self.slot(self.find(hash, key)?);
        if self.ages.is_too_old(slot, now) {
            return None;
        }
        let read = read(&slot.value)?;
        if self.ages.idle.is_some() {
            slot.asked_at.set(now);
        }
        // To write what is written already would take the memory away from other cores.
        if !slot.is_marked.load(Ordering::Relaxed) {
            slot.is_marked.store(true, Ordering::Relaxed);
        }
        Some(read)
    }

    /// Adds a result, whose key is not there.
    pub(super) fn push(&mut self, hash: u64, key: CacheKey, value: T, weight: u32, now: Moment) {
        let slot = Slot {
            key,
            hash,
            value,
            weight,
            made: now,
            asked_at: AtomicMoment::new(now),
            is_marked: AtomicBool::new(false),
            newer: None,
            older: self.newest,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(slot);
                at
            }
            None => {
                self.slots.push(Some(slot));
                u32::try_from(self.slots.len() - 1).expect("no cache is allowed as many entries")
            }
        };
        match self.newest.replace(at) {
            Some(newest) => self.slot_mut(newest).newer = Some(at),
            None => self.oldest = Some(at),
        }
        self.weight += u64::from(weight);
        let Self { table, slots, .. } = self;
        table.insert_unique(hash, at, |at| slots[*at as usize].as_ref().map_or(0, |slot| slot.hash));
    }

    /// Takes a result out.
    pub(super) fn remove(&mut self, hash: u64, key: &CacheKey, now: Moment) -> Option<Gone<T>> {
        let at = self.find(hash, key)?;
        Some(self.take(at, now))
    }

    /// Lets the result go that the hand finds.
    pub(super) fn evict(&mut self, now: Moment) -> Option<Gone<T>> {
        let mut at = self.hand.or(self.oldest)?;
        let (ages, oldest) = (self.ages, self.oldest?);
        loop {
            let slot = self.slot_mut(at);
            if !*slot.is_marked.get_mut() || ages.is_too_old(slot, now) {
                break;
            }
            *slot.is_marked.get_mut() = false;
            at = slot.newer.unwrap_or(oldest);
        }
        self.hand = Some(at);
        // This moves the hand on.
        Some(self.take(at, now))
    }

    /// Looks at the next few places, and takes out what is too old: after as many insertions as there are results, all
    /// were looked at.
    pub(super) fn sweep(&mut self, now: Moment) -> [Option<Gone<T>>; 2] {
        if !self.ages.are_limited() {
            return [None, None];
        }
        [(); 2].map(|()| {
            let at = self.broom;
            self.broom = if at + 1 < self.slots.len() { at + 1 } else { 0 };
            let slot = self.slots.get(at)?.as_ref()?;
            let is_too_old = self.ages.is_too_old(slot, now);
            let at = u32::try_from(at).ok().filter(|_| is_too_old)?;
            Some(self.take(at, now))
        })
    }

    /// Takes out what is too old, and what is not to be kept.
    pub(super) fn retain(&mut self, now: Moment, keep: impl Fn(&CacheKey, &T) -> bool) -> Vec<Gone<T>> {
        let (mut gone, mut next) = (Vec::new(), self.oldest);
        while let Some(at) = next {
            let slot = self.slot(at);
            next = slot.newer;
            if self.ages.is_too_old(slot, now) || !keep(&slot.key, &slot.value) {
                gone.push(self.take(at, now));
            }
        }
        gone
    }

    fn take(&mut self, at: u32, now: Moment) -> Gone<T> {
        let slot = self.slots[at as usize].take();
        let slot = slot.expect("what the table and the queue name is there: both forget it before it goes");
        if let Ok(entry) = self.table.find_entry(slot.hash, |other| *other == at) {
            entry.remove();
        }
        match slot.newer {
            Some(newer) => self.slot_mut(newer).older = slot.older,
            None => self.newest = slot.older,
        }
        match slot.older {
            Some(older) => self.slot_mut(older).newer = slot.newer,
            None => self.oldest = slot.newer,
        }
        if self.hand == Some(at) {
            self.hand = slot.newer;
        }
        self.free.push(at);
        self.weight -= u64::from(slot.weight);
        Gone {
            was_too_old: self.ages.is_too_old(&slot, now),
            value: slot.value,
            weight: slot.weight,
        }
    }
}

#[cfg(test)]
mod tests;
