//! The results of one cached function.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_util::future::{Either, select};
use ganglion_api::{CacheKey, CacheStore, CachedValue, Fill, ModuleError};
use moka::notification::RemovalCause;
use tokio::sync::watch;

use super::{CacheDefaults, CacheStatistics, InvalidationPublisher};
use crate::guard::contained;
use crate::incarnation::Incarnation;
use crate::nesting::Lineage;
use crate::probe::Operation;
use crate::thread::ModuleThread;

type Filled = Result<CachedValue, ModuleError>;

/// A value that is kept. moka drops it on whichever thread tidies up, and its drop is the module's code: so it is handed to
/// a thread where it harms nobody.
struct Kept {
    value: Option<CachedValue>,
    incarnation: Arc<Incarnation>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.incarnation.discard(Box::new(value));
        }
    }
}

/// A computation that is under way, with those who wait for it.
struct Flight {
    landed: watch::Sender<Option<Filled>>,
    /// Where it is computed.
    thread: Arc<ModuleThread>,
}

/// A computation on its way: if it is dropped with its thread, those who wait are told.
struct Underway {
    cache: Arc<FunctionCache>,
    key: CacheKey,
    flight: Arc<Flight>,
}

impl Underway {
    fn land(self, filled: Filled) {
        self.cache.land(self.key.clone(), &self.flight, filled);
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.flight.landed.borrow().is_none() {
            self.cache.land(self.key.clone(), &self.flight, Err(lost()));
        }
    }
}

/// The results of one cached function.
pub(super) struct FunctionCache {
    incarnation: Arc<Incarnation>,
    name: Arc<str>,
    max_entries: u64,
    entries: moka::sync::Cache<CacheKey, Arc<Kept>>,
    flights: DashMap<CacheKey, Arc<Flight>>,
    publisher: Arc<dyn InvalidationPublisher>,
    announced: AtomicBool,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: Arc<AtomicU64>,
    // Computations outlive their callers, so they hold the cache.
    this: std::sync::Weak<Self>,
}

/// What a caller waits for.
enum Wait {
    Found(CachedValue),
    Flight(Arc<Flight>),
}

impl FunctionCache {
    pub(super) fn new(
        incarnation: &Arc<Incarnation>,
        name: Arc<str>,
        limits: CacheDefaults,
        publisher: Arc<dyn InvalidationPublisher>,
    ) -> Arc<Self> {
        let evictions = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&evictions);
        let builder = moka::sync::Cache::builder()
            .max_capacity(limits.max_entries)
            .eviction_listener(move |_key, _kept, cause: RemovalCause| {
                if cause.was_evicted() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
        let entries = match limits.ttl {
            Some(ttl) => builder.time_to_live(ttl).build(),
            None => builder.build(),
        };
        Arc::new_cyclic(|this| Self {
            incarnation: Arc::clone(incarnation),
            name,
            max_entries: limits.max_entries,
            entries,
            flights: DashMap::new(),
            publisher,
            announced: AtomicBool::new(false),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions,
            this: this.clone(),
        })
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

    pub(super) fn statistics(&self) -> CacheStatistics {
        self.entries.run_pending_tasks();
        CacheStatistics {
            module: self.module().to_owned(),
            name: self.name.to_string(),
            entries: self.entries.entry_count(),
            max_entries: self.max_entries,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }

    /// Forgets one result or all. The flight goes first: a computation that ends in between finds it gone and stores
    /// nothing, and one that stored before is forgotten after.
    pub(super) fn forget(&self, key: Option<&CacheKey>) {
        match key {
            Some(key) => {
                self.flights.remove(key);
                self.entries.invalidate(key);
            }
            None => {
                self.flights.clear();
                self.entries.invalidate_all();
            }
        }
    }

    fn kept(&self, key: &CacheKey) -> Option<CachedValue> {
        self.entries.get(key)?.value.clone()
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
                let flight = Arc::new(Flight {
                    landed: watch::channel(None).0,
                    thread: ModuleThread::here().unwrap_or_else(|| self.incarnation.home()),
                });
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
        let underway = Underway { cache, key, flight };
        // What is asked for it is asked below the call that needs it first, though others may wait for it too.
        let below = Lineage::here().map(Lineage::without_deadline);
        // A thread that has ended drops it, and so tells those who wait.
        thread.arbiter().spawn_fn(move || {
            actix::spawn(async move {
                let filled = match below {
                    Some(below) => below.scope(underway.cache.compute(fill)).await,
                    None => underway.cache.compute(fill).await,
                };
                underway.land(filled);
            });
        });
    }

    /// Runs the module's function, until its incarnation ends.
    async fn compute(&self, fill: Fill) -> Filled {
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
    fn land(&self, key: CacheKey, flight: &Arc<Flight>, filled: Filled) {
        if let Entry::Occupied(current) = self.flights.entry(key)
            && Arc::ptr_eq(current.get(), flight)
        {
            if let Ok(value) = &filled {
                let kept = Kept {
                    value: Some(Arc::clone(value)),
                    incarnation: Arc::clone(&self.incarnation),
                };
                self.entries.insert(current.key().clone(), Arc::new(kept));
            }
            current.remove();
        }
        flight.landed.send_replace(Some(filled));
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
            let mut landed = flight.landed.subscribe();
            let landed = pin!(landed.wait_for(Option::is_some));
            match select(landed, pin!(flight.thread.given_up().cancelled())).await {
                Either::Left((landed, _)) => {
                    let filled = landed.ok().and_then(|filled| filled.clone());
                    filled.unwrap_or_else(|| Err(lost()))
                }
                Either::Right(_given_up) => {
                    // A later call computes anew.
                    self.land(key, &flight, Err(lost()));
                    Err(lost())
                }
            }
        })
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

fn lost() -> ModuleError {
    ModuleError::message("the computation of a cached value is lost with its thread")
}
