//! The cache service: results of modules' cached functions.
//!
//! A computation is a flight: an invalidation takes the flight away, and a computation stores its result only while its
//! flight is there. Results stand in queues with limits of their own, and share the room of their module and of all.

mod ages;
mod flight;
mod function_cache;
mod kept;
mod prefixes;
mod results;
mod room;
mod statistics;

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use ganglion_api::{CacheKey, CacheOptions, CacheStore, RegistrationError};

use self::ages::Ages;
use self::function_cache::{FunctionCache, Opening};
use self::results::{Limits, Most};
use self::room::Room;
pub use self::statistics::CacheStatistics;
use crate::incarnation::Incarnation;
use crate::module_id::ModuleId;

/// What cached functions have if they do not say otherwise, and what they share: the section `cache` of the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheDefaults {
    /// How many results are kept of one function.
    pub max_entries: u64,
    /// How many results are kept of all functions of one module.
    pub max_per_module: Option<u64>,
    /// How many results are kept of all functions of all modules.
    pub max_total: Option<u64>,
    /// How long a result is kept.
    pub ttl: Option<Duration>,
    /// How long a result is kept that nobody asks for.
    pub idle: Option<Duration>,
}

impl Default for CacheDefaults {
    fn default() -> Self {
        Self {
            max_entries: 1000,
            max_per_module: None,
            max_total: None,
            ttl: None,
            idle: None,
        }
    }
}

/// Why a function could not be told to forget its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotForgotten {
    /// The module has no cached function of this name.
    #[error("the module has no cached function of this name")]
    Unknown,
    /// Its module keeps the function to itself.
    #[error("the module has not registered this function for invalidations from afar")]
    NotAnnounced,
}

/// Tells other nodes about an invalidation.
pub trait InvalidationPublisher: Send + Sync {
    /// The result for this key of a registered function, all results whose keys begin with it if it is shorter, or all
    /// results, are out of date.
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
    room: Option<Arc<Room>>,
    rooms: DashMap<ModuleId, Arc<Room>>,
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
            room: defaults.max_total.map(|most| Arc::new(Room::new(most))),
            rooms: DashMap::new(),
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
        key_length: usize,
    ) -> Result<Arc<dyn CacheStore>, RegistrationError> {
        let name: Arc<str> = name.into();
        let module = incarnation.module().module_id();
        match self.caches.entry((module, Arc::clone(&name))) {
            Entry::Occupied(taken) if taken.get().is_of(incarnation) => Err(RegistrationError::CachedFunction {
                name: name.to_string(),
                reason: "the name is taken",
            }),
            entry => {
                let opening = Opening {
                    name,
                    limits: self.limits(options),
                    key_length,
                    prefix_keys: options.prefix_keys,
                    rooms: self.rooms_of(module),
                    publisher: Arc::clone(&self.publisher),
                };
                let cache = FunctionCache::open(incarnation, opening);
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

    fn limits(&self, options: &CacheOptions) -> Limits {
        Limits {
            most: options.max_weight.map_or_else(
                || Most::Entries(options.max_entries.unwrap_or(self.defaults.max_entries)),
                Most::Weight,
            ),
            ages: Ages::new(options.ttl.or(self.defaults.ttl), options.idle.or(self.defaults.idle)),
        }
    }

    /// What a module's functions share: with each other, and with all.
    fn rooms_of(&self, module: ModuleId) -> Vec<Arc<Room>> {
        let own = self.defaults.max_per_module.map(|most| {
            let room = self.rooms.entry(module).or_insert_with(|| Arc::new(Room::new(most)));
            Arc::clone(&room)
        });
        own.into_iter().chain(self.room.clone()).collect()
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

    /// Forgets the result for a key of a registered function, those whose keys begin with a shorter one, or all, because
    /// another node said so. It is not published again. Says whether there is such a function and the key fits it.
    pub fn invalidate(&self, module: &str, function: &str, key: Option<&CacheKey>) -> bool {
        let cache = self.find(module, function).filter(|cache| cache.is_announced());
        match cache.filter(|cache| key.is_none_or(|key| cache.takes(key))) {
            None => false,
            Some(cache) => {
                cache.forget(key);
                true
            }
        }
    }

    /// Forgets all results of a registered function, here and on other nodes, because an operator said so.
    ///
    /// # Errors
    /// There is no such function, or it is not registered.
    pub fn forget_all(&self, module: &str, function: &str) -> Result<CacheStatistics, NotForgotten> {
        let cache = self.find(module, function).ok_or(NotForgotten::Unknown)?;
        if !cache.is_announced() {
            return Err(NotForgotten::NotAnnounced);
        }
        cache.invalidate_all();
        Ok(cache.statistics())
    }

    fn find(&self, module: &str, function: &str) -> Option<Arc<FunctionCache>> {
        let module = ModuleId::find(module)?;
        let cache = self.caches.get(&(module, Arc::from(function)))?;
        // The map is not locked while results are dropped.
        Some(Arc::clone(&cache))
    }

    /// The statistics of every cache, by module and name.
    #[must_use]
    pub fn statistics(&self) -> Vec<CacheStatistics> {
        // The map is not locked while results are dropped.
        let caches: Vec<_> = self.caches.iter().map(|cache| Arc::clone(&cache)).collect();
        let mut all: Vec<_> = caches.iter().map(|cache| cache.statistics()).collect();
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
