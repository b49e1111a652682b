//! The results of one cached function.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_util::future::{Either, select};
use ganglion_api::{CacheChanges, CacheKey, CacheStore, CachedValue, Computed, Fill, ModuleError};
use tokio::time::Instant;

use super::InvalidationPublisher;
use super::flight::{Filled, Flight, Underway, lost};
use super::kept::Kept;
use super::prefixes::{Generation, Prefixes};
use super::results::{Limits, Results};
use super::room::Room;
use super::statistics::CacheStatistics;
use crate::clock::Moment;
use crate::guard::contained;
use crate::incarnation::Incarnation;
use crate::nesting::Lineage;
use crate::probe::Operation;
use crate::thread::ModuleThread;

/// What a function's cache is opened with.
pub(super) struct Opening {
    pub(super) name: Arc<str>,
    pub(super) limits: Limits,
    /// How many parts a full key has.
    pub(super) key_length: usize,
    /// Whether a shorter one is a prefix.
    pub(super) prefix_keys: bool,
    /// What it shares with other functions.
    pub(super) rooms: Vec<Arc<Room>>,
    pub(super) publisher: Arc<dyn InvalidationPublisher>,
}

/// The results of one cached function.
pub(super) struct FunctionCache {
    incarnation: Arc<Incarnation>,
    name: Arc<str>,
    key_length: usize,
    results: Results<Kept>,
    prefixes: Option<Prefixes>,
    flights: DashMap<CacheKey, Arc<Flight>>,
    rooms: Vec<Arc<Room>>,
    publisher: Arc<dyn InvalidationPublisher>,
    announced: AtomicBool,
    hits: AtomicU64,
    misses: AtomicU64,
    failures: AtomicU64,
    invalidations: AtomicU64,
    /// Invalidations, counted before they begin, and results that were put.
    changes: AtomicU64,
    // Computations outlive their callers, so they hold the cache.
    this: std::sync::Weak<Self>,
}

/// What a caller waits for.
enum Wait {
    Found(CachedValue),
    Flight(Arc<Flight>),
}

impl FunctionCache {
    pub(super) fn open(incarnation: &Arc<Incarnation>, opening: Opening) -> Arc<Self> {
        let cache = Arc::new_cyclic(|this| Self {
            incarnation: Arc::clone(incarnation),
            name: opening.name,
            key_length: opening.key_length,
            results: Results::new(opening.limits, opening.rooms.clone()),
            prefixes: opening.prefix_keys.then(Prefixes::default),
            flights: DashMap::new(),
            rooms: opening.rooms,
            publisher: opening.publisher,
            announced: AtomicBool::new(false),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            invalidations: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            this: this.clone(),
        });
        for room in &cache.rooms {
            room.join(&cache);
        }
        cache
    }

    pub(super) fn is_of(&self, incarnation: &Incarnation) -> bool {
        self.incarnation.number() == incarnation.number()
    }

    pub(super) fn is_newer_than(&self, incarnation: &Incarnation) -> bool {
        self.incarnation.number() > incarnation.number()
    }

    fn module(&self) -> &str {
        self.incarnation.module().id()
    }

    pub(super) fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Relaxed)
    }

    /// What is too old or forgotten goes first.
    pub(super) fn statistics(&self) -> CacheStatistics {
        self.tidy();
        let limits = self.results.limits();
        CacheStatistics {
            module: self.module().to_owned(),
            name: self.name.to_string(),
            announced: self.is_announced(),
            entries: self.results.entries(),
            max_entries: limits.most.entries(),
            weight: self.results.weight(),
            max_weight: limits.most.weight(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            evictions: self.results.evictions(),
            expired: self.results.expired(),
            invalidations: self.invalidations.load(Ordering::Relaxed),
        }
    }

    /// How many results there are, those that are being added too.
    pub(super) fn entries(&self) -> u64 {
        self.results.entries()
    }

    /// Lets what is over the function's own limit go at once.
    pub(super) fn settle(&self) {
        self.results.settle();
    }

    /// Lets so many results go, because others need the room.
    pub(super) fn give_way(&self, count: u64) {
        if count > 0 {
            self.results.give_way(count);
        }
    }

    /// The moment, if it matters. It is tokio's, which tests pause.
    fn now(&self) -> Moment {
        if self.results.limits().ages.are_limited() {
            Instant::now().into()
        } else {
            Moment::ORIGIN
        }
    }

    /// Whether a key fits: a full one, or a prefix if there are prefixes.
    pub(super) fn takes(&self, key: &CacheKey) -> bool {
        let length = key.parts().len();
        length == self.key_length || self.prefixes.is_some() && (1..self.key_length).contains(&length)
    }

    /// Forgets one result, all that begin with a prefix, or all.
    ///
    /// The count goes first, so that no batch that was begun before puts a result there after. The flights go next: a
    /// computation that ends in between finds its flight gone and stores nothing. What was stored before is forgotten last.
    pub(super) fn forget(&self, key: Option<&CacheKey>) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.invalidations.fetch_add(1, Ordering::Relaxed);
        match (key, &self.prefixes) {
            (Some(prefix), Some(prefixes)) if prefix.parts().len() < self.key_length => {
                self.flights.retain(|key, _| !key.parts().starts_with(prefix.parts()));
                prefixes.forget(prefix.clone());
                if prefixes.are_many(self.results.entries()) {
                    self.tidy();
                }
            }
            (Some(key), _) => {
                self.flights.remove(key);
                self.results.remove(key);
            }
            (None, _) => {
                self.flights.clear();
                self.results.clear();
            }
        }
    }

    /// Drops what is too old or was forgotten by a prefix: until then it takes room. Then no prefix need be remembered.
    fn tidy(&self) {
        let Some(prefixes) = self.prefixes.as_ref().filter(|prefixes| !prefixes.are_none()) else {
            if self.results.limits().ages.are_limited() {
                self.results.retain(self.now(), |_, _| true);
            } else {
                self.results.settle();
            }
            return;
        };
        // Whoever comes second has nothing to do.
        if let Ok(tidying) = prefixes.tidying.try_lock() {
            let settling = prefixes.settle();
            self.results
                .retain(self.now(), |key, kept| !prefixes.have_forgotten(key, kept.generation));
            prefixes.settled(settling);
            drop(tidying);
        }
    }

    fn kept(&self, key: &CacheKey) -> Option<CachedValue> {
        let Some(prefixes) = &self.prefixes else {
            return self.results.get(key, self.now(), Kept::value);
        };
        loop {
            let tidied = prefixes.tidied();
            let found = self.results.get(key, self.now(), |kept| {
                let is_forgotten = prefixes.have_forgotten(key, kept.generation);
                (!is_forgotten).then(|| kept.value()).flatten()
            });
            // A prefix that was forgotten before may not have been remembered any more.
            if found.is_none() || prefixes.tidied() == tidied {
                return found;
            }
        }
    }

    /// Keeps a result, while the flights of its key are locked.
    fn keep(&self, key: CacheKey, Computed { value, weight }: Computed) {
        let (now, kept) = (self.now(), |generation| Kept::new(value, &self.incarnation, generation));
        match &self.prefixes {
            None => self.results.insert(key, weight, now, kept(Generation::default())),
            Some(prefixes) => prefixes.in_present(|present| self.results.insert(key, weight, now, kept(present))),
        }
    }

    /// A result was kept: if there are too many for what functions share, others go. No lock may be held.
    fn make_room(&self) {
        for room in &self.rooms {
            room.shrink();
        }
    }

    /// The result, or the flight that will bring it, started if there is none.
    fn board(&self, key: &CacheKey, fill: Fill) -> Wait {
        let flight = match self.flights.entry(key.clone()) {
            Entry::Occupied(flight) => Arc::clone(flight.get()),
            Entry::Vacant(vacant) => {
                // A flight may have landed since the caller looked; it stores under this entry's lock.
                if let Some(value) = CacheStore::get(self, key) {
                    return Wait::Found(value);
                }
                // The caller's thread, else the module's own.
                let thread = ModuleThread::here().unwrap_or_else(|| self.incarnation.home());
                let flight = Arc::new(Flight::on(thread));
                vacant.insert(Arc::clone(&flight));
                self.take_off(key.clone(), Arc::clone(&flight), fill);
                flight
            }
        };
        self.misses.fetch_add(1, Ordering::Relaxed);
        Wait::Flight(flight)
    }

    /// Computes on the flight's thread; the caller may go away.
    fn take_off(&self, key: CacheKey, flight: Arc<Flight>, fill: Fill) {
        let Some(cache) = self.this.upgrade() else {
            return;
        };
        let thread = Arc::clone(&flight.thread);
        let underway = Underway::new(cache, key, flight);
        // What is asked for it is asked below the call that needs it first, though others may wait for it too.
        let below = Lineage::here().map(Lineage::without_deadline);
        // A thread that has ended drops it, and so tells those who wait.
        thread.arbiter().spawn_fn(move || {
            actix::spawn(async move {
                let filled = match below {
                    Some(below) => below.scope(underway.cache().compute(fill)).await,
                    None => underway.cache().compute(fill).await,
                };
                underway.land(filled);
            });
        });
    }

    /// Runs the module's function, until its incarnation ends.
    async fn compute(&self, fill: Fill) -> Result<Computed, ModuleError> {
        let incarnation = &self.incarnation;
        let entrance = incarnation.entrance(Operation::CACHED_FUNCTION);
        let filled = contained(entrance, async { fill().await }, async |polled| {
            let stopped = || ModuleError::message("the module was stopped");
            incarnation
                .ended()
                .run_until_cancelled(polled)
                .await
                .ok_or_else(stopped)
        });
        match filled.await {
            Ok(filled) => filled.flatten(),
            Err(panic) => {
                incarnation.panicked(Operation::CACHED_FUNCTION, panic.text());
                let text = panic.text();
                Err(ModuleError::message(format!("the cached function panicked: {text}")))
            }
        }
    }

    /// Stores a result, unless its flight was taken away, and tells those who wait.
    pub(super) fn land(&self, key: CacheKey, flight: &Arc<Flight>, computed: Result<Computed, ModuleError>) {
        let filled = computed.as_ref().map(|computed| Arc::clone(&computed.value));
        let filled: Filled = filled.map_err(Clone::clone);
        let (has_failed, mut is_kept) = (filled.is_err(), false);
        if let Entry::Occupied(current) = self.flights.entry(key)
            && Arc::ptr_eq(current.get(), flight)
        {
            if let Ok(computed) = computed {
                self.keep(current.key().clone(), computed);
                is_kept = true;
            }
            current.remove();
        }
        if is_kept {
            self.make_room();
        }
        if flight.land(filled) && has_failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl CacheStore for FunctionCache {
    fn get(&self, key: &CacheKey) -> Option<CachedValue> {
        let value = self.kept(key)?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(value)
    }

    fn get_or_fill(&self, key: CacheKey, fill: Fill) -> Pin<Box<dyn Future<Output = Filled> + Send + '_>> {
        Box::pin(async move {
            let flight = match self.board(&key, fill) {
                Wait::Found(value) => return Ok(value),
                Wait::Flight(flight) => flight,
            };
            let given_up = pin!(flight.thread.given_up().cancelled());
            match select(pin!(flight.landed()), given_up).await {
                Either::Left((filled, _)) => filled,
                Either::Right(_given_up) => {
                    // A later call computes anew.
                    self.land(key, &flight, Err(lost()));
                    Err(lost())
                }
            }
        })
    }

    fn changes(&self) -> CacheChanges {
        CacheChanges(self.changes.load(Ordering::Acquire))
    }

    fn put(&self, key: CacheKey, result: Computed, read_at: CacheChanges) -> Option<CacheChanges> {
        let entry = self.flights.entry(key);
        // While the flights of the key are locked, which an invalidation locks after it was counted.
        let CacheChanges(before) = read_at;
        let counted = self
            .changes
            .compare_exchange(before, before + 1, Ordering::AcqRel, Ordering::Relaxed);
        counted.ok()?;
        match entry {
            Entry::Occupied(flight) => {
                self.keep(flight.key().clone(), result);
                flight.remove();
            }
            Entry::Vacant(vacant) => self.keep(vacant.key().clone(), result),
        }
        self.make_room();
        Some(CacheChanges(before + 1))
    }

    fn invalidate(&self, key: &CacheKey) {
        self.forget(Some(key));
        if self.is_announced() {
            self.publisher.publish(self.module(), &self.name, Some(key));
        }
    }

    fn invalidate_all(&self) {
        self.forget(None);
        if self.is_announced() {
            self.publisher.publish(self.module(), &self.name, None);
        }
    }

    fn announce(&self) {
        self.announced.store(true, Ordering::Relaxed);
    }
}
