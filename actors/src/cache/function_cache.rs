//! The results of one cached function.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use actix::{Arbiter, ArbiterHandle};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_util::FutureExt as _;
use ganglion_api::{CacheKey, CacheStore, CachedValue, Fill, ModuleError};
use moka::notification::RemovalCause;
use tokio::sync::watch;

use super::{CacheDefaults, CacheStatistics, InvalidationPublisher};
use crate::guard::panic_text;

type Filled = Result<CachedValue, ModuleError>;

/// A computation that is under way, with those who wait for it.
struct Flight(watch::Sender<Option<Filled>>);

/// The results of one cached function.
pub(super) struct FunctionCache {
    module: Arc<str>,
    name: Arc<str>,
    max_entries: u64,
    entries: moka::sync::Cache<CacheKey, CachedValue>,
    flights: DashMap<CacheKey, Arc<Flight>>,
    home: ArbiterHandle,
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
    Flight(watch::Receiver<Option<Filled>>),
}

impl FunctionCache {
    pub(super) fn new(
        module: Arc<str>,
        name: Arc<str>,
        limits: CacheDefaults,
        home: ArbiterHandle,
        publisher: Arc<dyn InvalidationPublisher>,
    ) -> Arc<Self> {
        let evictions = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&evictions);
        let builder = moka::sync::Cache::builder()
            .max_capacity(limits.max_entries)
            .eviction_listener(move |_key, _value, cause: RemovalCause| {
                if cause.was_evicted() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
        let entries = match limits.ttl {
            Some(ttl) => builder.time_to_live(ttl).build(),
            None => builder.build(),
        };
        Arc::new_cyclic(|this| Self {
            module,
            name,
            max_entries: limits.max_entries,
            entries,
            flights: DashMap::new(),
            home,
            publisher,
            announced: AtomicBool::new(false),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions,
            this: this.clone(),
        })
    }

    pub(super) fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Relaxed)
    }

    pub(super) fn statistics(&self) -> CacheStatistics {
        self.entries.run_pending_tasks();
        CacheStatistics {
            module: self.module.to_string(),
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

    /// The result, or the flight that will bring it, started if there is none.
    fn board(&self, key: &CacheKey, fill: Fill) -> Wait {
        if let Some(value) = self.entries.get(key) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Wait::Found(value);
        }
        let flight = match self.flights.entry(key.clone()) {
            Entry::Occupied(flight) => Arc::clone(flight.get()),
            Entry::Vacant(vacant) => {
                // A flight may have landed since the look above; it stores under this entry's lock.
                if let Some(value) = self.entries.get(key) {
                    self.hits.fetch_add(1, Ordering::Relaxed);
                    return Wait::Found(value);
                }
                let flight = Arc::new(Flight(watch::channel(None).0));
                vacant.insert(Arc::clone(&flight));
                self.take_off(key.clone(), Arc::clone(&flight), fill);
                flight
            }
        };
        self.misses.fetch_add(1, Ordering::Relaxed);
        Wait::Flight(flight.0.subscribe())
    }

    /// Computes on the caller's worker, or on the module's own if the caller has none; the caller may go away.
    fn take_off(&self, key: CacheKey, flight: Arc<Flight>, fill: Fill) {
        let Some(cache) = self.this.upgrade() else {
            return;
        };
        let worker = Arbiter::try_current().unwrap_or_else(|| self.home.clone());
        let (lost, unmanned) = (key.clone(), Arc::clone(&flight));
        let taken = worker.spawn_fn(move || {
            actix::spawn(async move {
                let filled = AssertUnwindSafe(async { fill().await }).catch_unwind().await;
                let filled = filled.unwrap_or_else(|panic| {
                    let text = panic_text(&*panic).unwrap_or_default();
                    Err(ModuleError::message(format!("the cached function panicked: {text}")))
                });
                cache.land(key, &flight, filled);
            });
        });
        if !taken {
            self.land(
                lost,
                &unmanned,
                Err(ModuleError::message("the worker of a cached function has ended")),
            );
        }
    }

    /// Stores a result, unless its flight was taken away, and tells those who wait.
    fn land(&self, key: CacheKey, flight: &Arc<Flight>, filled: Filled) {
        if let Entry::Occupied(current) = self.flights.entry(key)
            && Arc::ptr_eq(current.get(), flight)
        {
            if let Ok(value) = &filled {
                self.entries.insert(current.key().clone(), Arc::clone(value));
            }
            current.remove();
        }
        flight.0.send_replace(Some(filled));
    }
}

impl CacheStore for FunctionCache {
    fn get_or_fill(&self, key: CacheKey, fill: Fill) -> Pin<Box<dyn Future<Output = Filled> + Send + '_>> {
        Box::pin(async move {
            let mut flight = match self.board(&key, fill) {
                Wait::Found(value) => return Ok(value),
                Wait::Flight(flight) => flight,
            };
            let landed = flight
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|filled| filled.clone());
            landed.unwrap_or_else(|| {
                Err(ModuleError::message(
                    "the worker that computed a cached value has ended",
                ))
            })
        })
    }

    fn invalidate(&self, key: &CacheKey) {
        self.forget(Some(key));
        if self.is_announced() {
            self.publisher.publish(&self.module, &self.name, Some(key));
        }
    }

    fn invalidate_all(&self) {
        self.forget(None);
        if self.is_announced() {
            self.publisher.publish(&self.module, &self.name, None);
        }
    }

    fn announce(&self) {
        self.announced.store(true, Ordering::Relaxed);
    }
}
