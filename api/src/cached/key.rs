//! Keys of cached functions: the arguments that tell results apart.

use std::borrow::Borrow;

use smallvec::{SmallVec, smallvec};

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

    pub(super) fn into_parts(self) -> impl Iterator<Item = KeyPart> {
        self.0.into_iter()
    }
}

/// A prefix of a key is found by its parts.
impl Borrow<[KeyPart]> for CacheKey {
    fn borrow(&self) -> &[KeyPart] {
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

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    use super::*;

    #[test]
    fn keys_tell_types_apart() {
        assert_ne!(("1",).key(), (1_i64,).key());
        assert_ne!((Some("x"), None::<String>).key(), (None::<String>, Some("x")).key());
        assert_eq!("x".key(), (String::from("x"),).key());
    }

    #[test]
    fn a_key_is_found_by_its_parts() {
        let (key, hasher) = (("a", 1_i64, true).key(), RandomState::new());
        assert_eq!(hasher.hash_one(&key), hasher.hash_one(key.parts()));
        assert_eq!(("a", 1_i64).key().parts(), &key.parts()[..2]);
    }
}
