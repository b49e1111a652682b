//! Cached functions of a module. Source: Synapse's `cached`, `register_cached_function` and `invalidate_cache`.

mod key;
mod options;

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

pub use self::key::{AsKeyPart, CacheArgs, CacheKey, KeyLengthError, KeyPart};
pub use self::options::CacheOptions;
use crate::failure::ModuleError;
use crate::registration::LocalFuture;

/// A result, its type forgotten.
pub type CachedValue = Arc<dyn Any + Send + Sync>;

/// A result that was computed, as it is kept.
#[derive(Debug, Clone)]
pub struct Computed {
    /// The result.
    pub value: CachedValue,
    /// What it weighs, in the unit of its function's weigher; 0 if results are not weighed.
    pub weight: u32,
}

impl Computed {
    /// A result, weighed as it is kept.
    pub(crate) fn new<V: Send + Sync + 'static>(value: V, weigher: Option<&Weigher<V>>) -> Self {
        // Weight is all that limits results that are weighed, so each has some.
        let weight = weigher.map_or(0, |weigh| weigh(&value).max(1));
        let value = Arc::new(value);
        Self { value, weight }
    }
}

/// Computes a result that was not there.
pub type Fill = Box<dyn FnOnce() -> LocalFuture<'static, Result<Computed, ModuleError>> + Send>;

/// How many times a cached function was told something: to forget results, or what a result is. What was read before that
/// may be out of date after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheChanges(pub u64);

/// Where the results of one cached function are kept.
pub trait CacheStore: Send + Sync {
    /// The result for this key, if it is there.
    fn get(&self, key: &CacheKey) -> Option<CachedValue>;

    /// The result for this key, computed if it is not there. Concurrent calls for one key share one computation, its
    /// error too; errors are not kept. A caller who stops waiting does not stop the computation.
    fn get_or_fill(
        &self,
        key: CacheKey,
        fill: Fill,
    ) -> Pin<Box<dyn Future<Output = Result<CachedValue, ModuleError>> + Send + '_>>;

    /// How many changes there were: invalidations, and results that were put.
    fn changes(&self) -> CacheChanges;

    /// Keeps a result that was read when there had been so many changes, and gives the number with this one; `None` if there
    /// was another since: then nothing is kept. A computation of this key that is under way still answers those who wait for
    /// it, but is not kept.
    fn put(&self, key: CacheKey, result: Computed, read_at: CacheChanges) -> Option<CacheChanges>;

    /// Forgets the result for this key, or with a shorter key all that begin with it. A computation that is under way
    /// still answers those who wait for it, but is not kept, and a later call computes anew.
    fn invalidate(&self, key: &CacheKey);

    /// Forgets all results, in the same way.
    fn invalidate_all(&self);

    /// Lets others name this function, to invalidate from afar.
    fn announce(&self);
}

/// What a result weighs.
pub(crate) type Weigher<V> = Arc<dyn Fn(&V) -> u32 + Send + Sync>;

/// A function of a module whose results are cached.
///
/// Made by [`ModuleApi::cached`](crate::ModuleApi::cached). Clones share the results.
pub struct Cached<A, V> {
    pub(crate) name: Arc<str>,
    pub(crate) options: Arc<CacheOptions>,
    pub(crate) store: Arc<dyn CacheStore>,
    pub(crate) function: Arc<dyn Fn(A) -> Fill + Send + Sync>,
    pub(crate) weigher: Option<Weigher<V>>,
    pub(crate) value: PhantomData<fn() -> V>,
}

impl<A: CacheArgs + Send + 'static, V: Send + Sync + 'static> Cached<A, V> {
    /// The result for these arguments, computed by the module's function if it is not there. All callers share one
    /// value.
    ///
    /// # Errors
    /// Those of the function, to every caller that waited for it. A function that panicked is one.
    ///
    /// # Cancellation
    /// The computation goes on without the caller.
    pub async fn get(&self, args: A) -> Result<Arc<V>, ModuleError> {
        let key = self.options.key(args.key());
        // Most results are there, and those need no computation to be made ready.
        let value = match self.store.get(&key) {
            Some(value) => value,
            None => self.store.get_or_fill(key, (self.function)(args)).await?,
        };
        value
            .downcast()
            .map_err(|_| ModuleError::message("a cached value has another type"))
    }

    /// Puts a result there that the module knows without reading or writing it anywhere, such as one that it was told. The
    /// key is as for [`ModuleApi::invalidate_cache`](crate::ModuleApi::invalidate_cache), and full. It takes the place of the
    /// result that is there; a computation that is under way still answers those who wait for it, but is not kept.
    ///
    /// A result that was read or written elsewhere may be out of date by now: for those there is [`Self::batch`], which
    /// begins before that.
    ///
    /// Source: `prefill` of Synapse's own caches, which its modules do not have.
    ///
    /// # Errors
    /// The key has not as many parts as the function's keys have; nothing changes.
    pub fn prefill<K: CacheArgs>(&self, key: &K, value: V) -> Result<(), KeyLengthError> {
        self.check_length::<K>()?;
        let computed = Computed::new(value, self.weigher.as_ref());
        // It is known now, whatever else changes now.
        while self
            .store
            .put(key.key(), computed.clone(), self.store.changes())
            .is_none()
        {}
        Ok(())
    }

    /// Begins to read or write results elsewhere, to put them there with [`CacheBatch::prefill`].
    #[must_use]
    pub fn batch(&self) -> CacheBatch<'_, A, V> {
        CacheBatch {
            function: self,
            read_at: Some(self.store.changes()),
        }
    }

    pub(crate) fn invalidate<K: CacheArgs>(&self, key: &K) -> Result<(), KeyLengthError> {
        let is_prefix = self.options.prefix_keys && K::COUNT < self.key_length();
        if !is_prefix {
            self.check_length::<K>()?;
        }
        self.store.invalidate(&key.key());
        Ok(())
    }

    /// Forgets all results.
    pub fn invalidate_all(&self) {
        self.store.invalidate_all();
    }

    fn key_length(&self) -> usize {
        self.options.key_length(A::COUNT)
    }

    fn check_length<K: CacheArgs>(&self) -> Result<(), KeyLengthError> {
        let (expected, found) = (self.key_length(), K::COUNT);
        if found == expected {
            return Ok(());
        }
        let function = self.name.to_string();
        Err(KeyLengthError {
            function,
            expected,
            found,
        })
    }
}

/// Results of a cached function that are read or written elsewhere. It is made before that: an invalidation that comes
/// after it wins, as during a computation, and so does another batch or a prefill.
#[derive(Debug)]
pub struct CacheBatch<'f, A, V> {
    function: &'f Cached<A, V>,
    /// `None` as soon as somebody else changed something.
    read_at: Option<CacheChanges>,
}

impl<A: CacheArgs + Send + 'static, V: Send + Sync + 'static> CacheBatch<'_, A, V> {
    /// Puts a result there, as [`Cached::prefill`] does. False if something else changed results of the function since the
    /// batch began, of whatever key: then the result may be out of date, and is not kept. Who wrote it elsewhere invalidates
    /// its key then, since an older result may be there.
    ///
    /// # Errors
    /// The key has not as many parts as the function's keys have; nothing changes.
    pub fn prefill<K: CacheArgs>(&mut self, key: &K, value: V) -> Result<bool, KeyLengthError> {
        self.function.check_length::<K>()?;
        if let Some(read_at) = self.read_at {
            let computed = Computed::new(value, self.function.weigher.as_ref());
            self.read_at = self.function.store.put(key.key(), computed, read_at);
        }
        Ok(self.read_at.is_some())
    }
}

impl<A, V> Clone for Cached<A, V> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            options: Arc::clone(&self.options),
            store: Arc::clone(&self.store),
            function: Arc::clone(&self.function),
            weigher: self.weigher.clone(),
            value: PhantomData,
        }
    }
}

impl<A, V> fmt::Debug for Cached<A, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("name", &self.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
