//! The id of a module, as cheap to copy as a number: it stands in every step of every decision.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::sync::{LazyLock, Mutex, PoisonError};

use serde::{Serialize, Serializer};

static KNOWN: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);

/// The id of a module. Ids are kept once in the process, for as long as it lives: there are as many as the configs name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(&'static str);

impl ModuleId {
    /// The id with this text.
    #[must_use]
    pub fn new(id: &str) -> Self {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let id = known.get(id).copied().unwrap_or_else(|| {
            let id: &'static str = Box::leak(id.into());
            known.insert(id);
            id
        });
        Self(id)
    }

    /// The id with this text, if some module has it.
    pub(crate) fn find(id: &str) -> Option<Self> {
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(id).copied().map(Self)
    }

    /// The text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl Deref for ModuleId {
    type Target = str;

    fn deref(&self) -> &str {
        self.0
    }
}

impl Borrow<str> for ModuleId {
    fn borrow(&self) -> &str {
        self.0
    }
}

impl From<&str> for ModuleId {
    fn from(id: &str) -> Self {
        Self::new(id)
    }
}

impl fmt::Debug for ModuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ModuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl Serialize for ModuleId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once() {
        let (one, same, other) = (
            ModuleId::new("a"),
            ModuleId::new(&String::from("a")),
            ModuleId::new("b"),
        );
        assert!(std::ptr::eq(one.as_str(), same.as_str()));
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert_eq!(format!("{one:>3}|{one:?}"), "  a|\"a\"");
    }
}
