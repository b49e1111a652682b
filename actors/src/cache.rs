//! The cache service: results of modules' cached functions, kept by moka.
//!
//! moka's own `get_with` keeps a value whose key was invalidated while it was computed. So computations are flights of
//! our own: an invalidation takes the flight away, and a computation stores its result only while its flight is there.

mod function_cache;

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use ganglion_api::{CacheKey, CacheOptions, CacheStore, RegistrationError};
use serde::Serialize;

use self::function_cache::FunctionCache;
use crate::incarnation::Incarnation;
use crate::module_id::ModuleId;

/// What a cached function has if it does not say otherwise: the section `cache` of the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheDefaults {
    /// How many results are kept.
    pub max_entries: u64,
    /// How long a result is kept.
    pub ttl: Option<Duration>,
}

impl Default for CacheDefaults {
    fn default() -> Self {
        Self {
            max_entries: 1000,
            ttl: None,
        }
    }
}

/// What happened in one cache since its module was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheStatistics {
    /// The module's id.
    pub module: String,
    /// The function's name.
    pub name: String,
    /// How many results are kept.
    pub entries: u64,
    /// How many may be kept.
    pub max_entries: u64,
    /// Results that were there.
    pub hits: u64,
    /// Results that were not, those that another call was computing already among them.
    pub misses: u64,
    /// Results that were dropped for room or for age.
    pub evictions: u64,
}

/// Tells other nodes about an invalidation.
pub trait InvalidationPublisher: Send + Sync {
    /// The result for this key of a registered function, or all results, are out of date.
    fn publish(&self, module: &str, function: &str, key: Option<&CacheKey>);
}

/// There are no other nodes.
struct NoOtherNodes;

impl InvalidationPublisher for NoOtherNodes {
    fn publish(&self, _module: &str, _function: &str, _key: Option<&CacheKey>) {}
}

/// The caches of all modules.
pub struct CacheService {
    defaults: CacheDefaults,
    caches: DashMap<(ModuleId, Arc<str>), Arc<FunctionCache>>,
    publisher: Arc<dyn InvalidationPublisher>,
}

impl CacheService {
    /// A service without other nodes.
    #[must_use]
    pub fn new(defaults: CacheDefaults) -> Self {
        Self::with_publisher(defaults, Arc::new(NoOtherNodes))
    }

    /// A service that tells other nodes about invalidations.
    #[must_use]
    pub fn with_publisher(defaults: CacheDefaults, publisher: Arc<dyn InvalidationPublisher>) -> Self {
        Self {
            defaults,
            caches: DashMap::new(),
            publisher,
        }
    }

    /// Opens the cache of a module's function.
    ///
    /// # Errors
    /// The incarnation has one of this name.
    pub(crate) fn open(
        &self,
        incarnation: &Arc<Incarnation>,
        name: &str,
        options: &CacheOptions,
    ) -> Result<Arc<dyn CacheStore>, RegistrationError> {
        let name: Arc<str> = name.into();
        let module = incarnation.module().module_id();
        match self.caches.entry((module, Arc::clone(&name))) {
            Entry::Occupied(taken) if taken.get().is_of(incarnation) => Err(RegistrationError::CachedFunction {
                name: name.to_string(),
                reason: "the name is taken",
            }),
            entry => {
                let limits = CacheDefaults {
                    max_entries: options.max_entries.unwrap_or(self.defaults.max_entries),
                    ttl: options.ttl.or(self.defaults.ttl),
                };
                let publisher = Arc::clone(&self.publisher);
                let cache = FunctionCache::new(incarnation, name, limits, publisher);
                // One of an incarnation before is replaced. An incarnation that is over, whose constructor was too slow, is
                // given a cache that nobody else knows.
                let outdated = matches!(&entry, Entry::Occupied(taken) if taken.get().is_newer_than(incarnation));
                if !outdated && !incarnation.retired().is_cancelled() {
                    entry.insert(Arc::clone(&cache));
                }
                Ok(cache)
            }
        }
    }

    /// Gives up all cached functions of an incarnation: the next one begins with none.
    pub(crate) fn close(&self, incarnation: &Incarnation) -> impl Send + use<> {
        let own = self.caches.iter().filter(|cache| cache.is_of(incarnation));
        let names: Vec<_> = own.map(|cache| cache.key().clone()).collect();
        let closed = names
            .iter()
            .filter_map(|name| self.caches.remove_if(name, |_, cache| cache.is_of(incarnation)));
        closed.map(|(_, cache)| cache).collect::<Vec<Arc<FunctionCache>>>()
    }

    /// Forgets the result for a key of a registered function, or all, because another node said so. It is not
    /// published again. Says whether there is such a function.
    pub fn invalidate(&self, module: &str, function: &str, key: Option<&CacheKey>) -> bool {
        let cache = ModuleId::find(module).and_then(|module| self.caches.get(&(module, Arc::from(function))));
        match cache.filter(|cache| cache.is_announced()) {
            None => false,
            Some(cache) => {
                cache.forget(key);
                true
            }
        }
    }

    /// The statistics of every cache, by module and name.
    #[must_use]
    pub fn statistics(&self) -> Vec<CacheStatistics> {
        let mut all: Vec<_> = self.caches.iter().map(|cache| cache.statistics()).collect();
        all.sort_by(|a, b| (&a.module, &a.name).cmp(&(&b.module, &b.name)));
        all
    }
}

impl std::fmt::Debug for CacheService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheService")
            .field("defaults", &self.defaults)
            .finish_non_exhaustive()
    }
}
