//! Poison input: args that made a module panic or hang again and again, and that do not reach it any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ganglion_api::{Callback, FailureKind};
use serde::Serialize;
use tokio::time::Instant;

use crate::fingerprint::Fingerprint;
use crate::probe::Operation;
use crate::snapshot::rfc3339;

/// How often args make a module panic or hang before they bypass it. Once may be chance, and the second time may be the
/// homeserver's own retry of it.
const STRIKES: u32 = 3;

/// How long strikes count, from the last one. Then the args get to the module again: it may have been mended meanwhile.
const EXPIRY: Duration = Duration::from_mins(10);

/// How many different args a module's table holds. A module that fails on more of them fails on everything.
const ENTRIES: usize = 256;

/// Args that bypass a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PoisonSnapshot {
    /// What they are known by, 16 hexadecimal digits. It says nothing about them, and changes with the process.
    pub fingerprint: String,
    /// The callback that they were given to.
    pub callback: &'static str,
    /// What they did last: `panicked`, or `deadline_exceeded` for a hang.
    pub cause: FailureKind,
    /// How often they did.
    pub strikes: u32,
    /// When they last did, in RFC 3339 with milliseconds, UTC.
    #[serde(serialize_with = "rfc3339")]
    pub last: SystemTime,
    /// When they get to the module again.
    #[serde(serialize_with = "rfc3339")]
    pub expires: SystemTime,
    /// How many calls bypassed the module for them.
    pub bypassed: u64,
}

/// The poison input of one module. With nothing in it, a call pays one atomic load.
#[derive(Debug, Default)]
pub(crate) struct Poison {
    /// A bit for each callback with entries: the others need no fingerprints. Two may share one.
    struck: AtomicU64,
    bypasses: AtomicU64,
    table: Mutex<Table>,
}

impl Poison {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the table as it is now, without what is over.
    fn with_table<T>(&self, work: impl FnOnce(&mut Table, Instant) -> T) -> T {
        let (mut table, now) = (self.lock(), Instant::now());
        table.forget_old(now);
        let done = work(&mut table, now);
        self.struck.store(table.struck(), Ordering::Relaxed);
        done
    }

    /// Whether args of this callback may bypass the module.
    pub(crate) fn is_struck(&self, operation: Operation) -> bool {
        self.struck.load(Ordering::Relaxed) & bit(operation) != 0
    }

    /// These args made the module panic or hang. If they are poison from now on: how often they made it panic.
    pub(crate) fn strike<C: Callback>(&self, args: &C, cause: FailureKind) -> Option<usize> {
        let fingerprint = Fingerprint::of(args)?;
        let struck = Struck {
            operation: Operation::callback::<C>(),
            cause,
            time: SystemTime::now(),
        };
        self.with_table(|table, now| table.strike(fingerprint, struck, now))
    }

    /// Why these args bypass the module, if they do; counted.
    pub(crate) fn bypasses<C: Callback>(&self, args: &C) -> Option<String> {
        if !self.is_struck(Operation::callback::<C>()) {
            return None;
        }
        let fingerprint = Fingerprint::of(args)?;
        let why = self.with_table(|table, now| table.bypass(fingerprint, now))?;
        self.bypasses.fetch_add(1, Ordering::Relaxed);
        Some(why)
    }

    /// Hangs of this callback were the module's fault, and not that of its args.
    pub(crate) fn forget_hangs(&self, operation: Operation) {
        if self.is_struck(operation) {
            self.with_table(|table, _| table.forget_hangs(operation));
        }
    }

    /// Forgets everything. Bypasses stay counted.
    pub(crate) fn clear(&self) {
        self.with_table(|table, _| table.0.clear());
    }

    /// What bypasses the module, those that struck last at the end.
    pub(crate) fn snapshot(&self) -> Vec<PoisonSnapshot> {
        if self.struck.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        self.with_table(|table, _| table.snapshot())
    }

    /// How many calls bypassed the module since the start.
    pub(crate) fn count(&self) -> u64 {
        self.bypasses.load(Ordering::Relaxed)
    }
}

fn bit(operation: Operation) -> u64 {
    1 << (operation.index() % 64)
}

/// Something that args did.
#[derive(Debug, Clone, Copy)]
struct Struck {
    operation: Operation,
    cause: FailureKind,
    time: SystemTime,
}

/// Strikes of one sort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Strikes {
    count: u32,
    /// The last one.
    last: Option<(Instant, SystemTime)>,
}

/// What is known of one fingerprint.
#[derive(Debug)]
struct Entry {
    operation: Operation,
    panics: Strikes,
    hangs: Strikes,
    cause: FailureKind,
    bypassed: u64,
}

impl Entry {
    fn new(struck: Struck) -> Self {
        Self {
            operation: struck.operation,
            panics: Strikes::default(),
            hangs: Strikes::default(),
            cause: struck.cause,
            bypassed: 0,
        }
    }

    fn strike(&mut self, struck: Struck, now: Instant) {
        self.cause = struck.cause;
        let strikes = match struck.cause {
            FailureKind::Panicked => &mut self.panics,
            _ => &mut self.hangs,
        };
        strikes.count = strikes.count.saturating_add(1);
        strikes.last = Some((now, struck.time));
    }

    fn strikes(&self) -> u32 {
        self.panics.count.saturating_add(self.hangs.count)
    }

    fn is_poison(&self) -> bool {
        self.strikes() >= STRIKES
    }

    /// The last strike of either sort.
    fn last(&self) -> Option<(Instant, SystemTime)> {
        self.panics.last.max(self.hangs.last)
    }

    /// How long ago it last struck.
    fn age(&self, now: Instant) -> Duration {
        self.last()
            .map_or(Duration::MAX, |(at, _)| now.saturating_duration_since(at))
    }

    fn why(&self, now: Instant) -> String {
        let did = match (self.panics.count, self.hangs.count) {
            (_, 0) => "panic",
            (0, _) => "hang",
            _ => "panic or hang",
        };
        let (strikes, age) = (self.strikes(), self.age(now));
        let left = EXPIRY.saturating_sub(age).as_secs();
        format!(
            "poison input: these args made the module {did} {strikes} times, last {} s ago; it gets them again in \
             {left} s, or after clear_poison",
            age.as_secs()
        )
    }
}

/// What args did. It knows no clock.
#[derive(Debug, Default)]
struct Table(HashMap<Fingerprint, Entry>);

impl Table {
    /// If it is poison from now on: how often it made the module panic.
    fn strike(&mut self, fingerprint: Fingerprint, struck: Struck, now: Instant) -> Option<usize> {
        if !self.0.contains_key(&fingerprint) {
            self.make_room();
        }
        let entry = self.0.entry(fingerprint).or_insert_with(|| Entry::new(struck));
        let was_poison = entry.is_poison();
        entry.strike(struck, now);
        (entry.is_poison() && !was_poison).then_some(entry.panics.count as usize)
    }

    /// Room for one more: those that struck longest ago go, and poison last.
    fn make_room(&mut self) {
        while self.0.len() >= ENTRIES {
            let oldest = self
                .0
                .iter()
                .min_by_key(|(fingerprint, entry)| (entry.is_poison(), entry.last(), **fingerprint));
            let Some((&oldest, _)) = oldest else { return };
            self.0.remove(&oldest);
        }
    }

    fn bypass(&mut self, fingerprint: Fingerprint, now: Instant) -> Option<String> {
        let entry = self.0.get_mut(&fingerprint).filter(|entry| entry.is_poison())?;
        entry.bypassed += 1;
        Some(entry.why(now))
    }

    fn forget_old(&mut self, now: Instant) {
        self.0.retain(|_, entry| entry.age(now) < EXPIRY);
    }

    fn forget_hangs(&mut self, operation: Operation) {
        self.0.retain(|_, entry| {
            if entry.operation == operation {
                entry.hangs = Strikes::default();
                entry.cause = FailureKind::Panicked;
            }
            entry.strikes() > 0
        });
    }

    /// The bits of the callbacks in it.
    fn struck(&self) -> u64 {
        self.0.values().fold(0, |struck, entry| struck | bit(entry.operation))
    }

    fn snapshot(&self) -> Vec<PoisonSnapshot> {
        let mut poison: Vec<_> = self.0.iter().filter(|(_, entry)| entry.is_poison()).collect();
        poison.sort_unstable_by_key(|(fingerprint, entry)| (entry.last(), **fingerprint));
        let snapshot = poison.into_iter().filter_map(|(fingerprint, entry)| {
            let (_, last) = entry.last()?;
            Some(PoisonSnapshot {
                fingerprint: format!("{:016x}", fingerprint.0),
                callback: entry.operation.as_str(),
                cause: entry.cause,
                strikes: entry.strikes(),
                last,
                expires: last + EXPIRY,
                bypassed: entry.bypassed,
            })
        });
        snapshot.collect()
    }
}

#[cfg(test)]
mod tests;
