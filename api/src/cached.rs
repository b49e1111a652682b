//! Cached functions of a module. Source: Synapse's `cached`, `register_cached_function` and `invalidate_cache`.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use crate::failure::ModuleError;
use crate::registration::{LocalFuture, RegistrationError};

/// One argument in a key. Tagged by type, so that `1` and `"1"` are two keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum KeyPart {
    /// Text, identifiers too.
    Text(Box<str>),
    /// An integer.
    Int(i64),
    /// A flag.
    Flag(bool),
    /// An absent value.
    None,
}

/// The arguments of a cached function that tell its results apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(SmallVec<[KeyPart; FEW]>);

/// So many parts need no allocation: most functions have no more arguments.
const FEW: usize = 2;

impl CacheKey {
    /// The parts, in the order of the arguments.
    #[must_use]
    pub fn parts(&self) -> &[KeyPart] {
        &self.0
    }
}

impl FromIterator<KeyPart> for CacheKey {
    fn from_iter<T: IntoIterator<Item = KeyPart>>(parts: T) -> Self {
        Self(parts.into_iter().collect())
    }
}

/// A key that has not the length of a cached function's keys: nothing was invalidated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key of {function:?} has {expected} parts, this one has {found}")]
#[non_exhaustive]
pub struct KeyLengthError {
    /// The function's name.
    pub function: String,
    /// How many arguments form its key.
    pub expected: usize,
    /// How many parts the key has.
    pub found: usize,
}

/// A value that can be part of a key.
pub trait AsKeyPart {
    /// The part.
    fn key_part(&self) -> KeyPart;
}

macro_rules! key_parts {
    ($($type:ty => |$value:ident| $part:expr;)+) => {$(
        impl AsKeyPart for $type {
            fn key_part(&self) -> KeyPart {
                let $value = self;
                $part
            }
        }

        impl CacheArgs for $type {
            const COUNT: usize = 1;

            fn key(&self) -> CacheKey {
                CacheKey(smallvec![self.key_part()])
            }
        }
    )+};
}

key_parts! {
    String => |text| KeyPart::Text(text.as_str().into());
    &str => |text| KeyPart::Text((*text).into());
    ruma_common::OwnedUserId => |id| KeyPart::Text(id.as_str().into());
    ruma_common::OwnedRoomId => |id| KeyPart::Text(id.as_str().into());
    ruma_common::OwnedRoomAliasId => |id| KeyPart::Text(id.as_str().into());
    ruma_common::OwnedServerName => |id| KeyPart::Text(id.as_str().into());
    i64 => |int| KeyPart::Int(*int);
    i32 => |int| KeyPart::Int((*int).into());
    u32 => |int| KeyPart::Int((*int).into());
    bool => |flag| KeyPart::Flag(*flag);
}

impl<T: AsKeyPart> AsKeyPart for Option<T> {
    fn key_part(&self) -> KeyPart {
        self.as_ref().map_or(KeyPart::None, AsKeyPart::key_part)
    }
}

/// The arguments of a cached function: one value or a tuple.
pub trait CacheArgs {
    /// How many arguments there are.
    const COUNT: usize;

    /// All arguments as a key.
    fn key(&self) -> CacheKey;
}

macro_rules! cache_args {
    ($(($($name:ident $index:tt),+))+) => {$(
        impl<$($name: AsKeyPart),+> CacheArgs for ($($name,)+) {
            const COUNT: usize = [$($index),+].len();

            fn key(&self) -> CacheKey {
                CacheKey(smallvec![$(self.$index.key_part()),+])
            }
        }
    )+};
}
cache_args! { (A 0) (A 0, B 1) (A 0, B 1, C 2) (A 0, B 1, C 2, D 3) (A 0, B 1, C 2, D 3, E 4) }

/// How a function is cached. What is not set comes from the section `cache` of the config.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CacheOptions {
    /// How many results are kept.
    pub max_entries: Option<u64>,
    /// How long a result is kept.
    pub ttl: Option<Duration>,
    /// How many leading arguments form the key; all by default.
    pub num_args: Option<usize>,
    /// Positions of arguments that are left out of the key, counted from 0. Excludes `num_args`.
    pub uncached_args: BTreeSet<usize>,
}

impl CacheOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`Self::max_entries`].
    #[must_use]
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.max_entries = Some(entries);
        self
    }

    /// Sets [`Self::ttl`].
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets [`Self::num_args`].
    #[must_use]
    pub fn num_args(mut self, count: usize) -> Self {
        self.num_args = Some(count);
        self
    }

    /// Adds to [`Self::uncached_args`].
    #[must_use]
    pub fn uncached_arg(mut self, position: usize) -> Self {
        self.uncached_args.insert(position);
        self
    }

    /// Whether the options fit a function of `count` arguments.
    pub(crate) fn check(&self, name: &str, count: usize) -> Result<(), RegistrationError> {
        let refuse = |reason| {
            Err(RegistrationError::CachedFunction {
                name: name.into(),
                reason,
            })
        };
        if self.num_args.is_some() && !self.uncached_args.is_empty() {
            return refuse("num_args and uncached_args exclude each other");
        }
        if self.num_args.is_some_and(|args| args > count) || self.uncached_args.iter().any(|arg| *arg >= count) {
            return refuse("num_args or uncached_args name an argument that it does not have");
        }
        if self.key_length(count) == 0 {
            return refuse("no argument is left for the key");
        }
        if self.max_entries == Some(0) {
            return refuse("max_entries is at least 1");
        }
        Ok(())
    }

    /// How many of `count` arguments form the key.
    fn key_length(&self, count: usize) -> usize {
        self.num_args.unwrap_or(count).saturating_sub(self.uncached_args.len())
    }

    /// Which of a call's arguments form the key.
    fn key(&self, all: CacheKey) -> CacheKey {
        if self.num_args.is_none() && self.uncached_args.is_empty() {
            return all;
        }
        let count = self.num_args.unwrap_or(all.0.len());
        let parts = all.0.into_iter().take(count).enumerate();
        parts
            .filter(|(position, _)| !self.uncached_args.contains(position))
            .map(|(_, part)| part)
            .collect()
    }
}

/// A result, its type forgotten.
pub type CachedValue = Arc<dyn Any + Send + Sync>;

/// Computes a result that was not there.
pub type Fill = Box<dyn FnOnce() -> LocalFuture<'static, Result<CachedValue, ModuleError>> + Send>;

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
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<CachedValue, ModuleError>> + Send + '_>>;

    /// Forgets the result for this key. A computation that is under way still answers those who wait for it, but is
    /// not kept, and a later call computes anew.
    fn invalidate(&self, key: &CacheKey);

    /// Forgets all results, in the same way.
    fn invalidate_all(&self);

    /// Lets others name this function, to invalidate from afar and to show its statistics.
    fn announce(&self);
}

/// A function of a module whose results are cached.
///
/// Made by [`ModuleApi::cached`](crate::ModuleApi::cached). Clones share the results.
pub struct Cached<A, V> {
    pub(crate) name: Arc<str>,
    pub(crate) options: Arc<CacheOptions>,
    pub(crate) store: Arc<dyn CacheStore>,
    pub(crate) function: Arc<dyn Fn(A) -> Fill + Send + Sync>,
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

    pub(crate) fn invalidate<K: CacheArgs>(&self, key: &K) -> Result<(), KeyLengthError> {
        let expected = self.options.key_length(A::COUNT);
        if K::COUNT != expected {
            let function = self.name.to_string();
            return Err(KeyLengthError {
                function,
                expected,
                found: K::COUNT,
            });
        }
        self.store.invalidate(&key.key());
        Ok(())
    }

    /// Forgets all results.
    pub fn invalidate_all(&self) {
        self.store.invalidate_all();
    }
}

impl<A, V> Clone for Cached<A, V> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            options: Arc::clone(&self.options),
            store: Arc::clone(&self.store),
            function: Arc::clone(&self.function),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_types_apart() {
        assert_ne!(("1",).key(), (1_i64,).key());
        assert_ne!((Some("x"), None::<String>).key(), (None::<String>, Some("x")).key());
        assert_eq!("x".key(), (String::from("x"),).key());
    }

    #[test]
    fn uncached_arguments_are_not_in_the_key() {
        let parts = || ("a", 1_i64, true).key();
        assert_eq!(CacheOptions::new().num_args(2).key(parts()), ("a", 1_i64).key());
        assert_eq!(CacheOptions::new().uncached_arg(1).key(parts()), ("a", true).key());
        for bad in [
            CacheOptions::new().num_args(1).uncached_arg(0),
            CacheOptions::new().num_args(4),
            CacheOptions::new().uncached_arg(3),
            CacheOptions::new().num_args(0),
            CacheOptions::new().max_entries(0),
        ] {
            assert!(bad.check("f", 3).is_err(), "{bad:?}");
        }
        assert_eq!(CacheOptions::new().uncached_arg(1).check("f", 3), Ok(()));
    }
}
