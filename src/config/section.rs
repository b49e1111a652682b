//! Reads a mapping key by key, and gathers what is wrong instead of stopping at it.

use std::cell::RefCell;

use serde_yaml::{Mapping, Value};

use super::Problem;
use super::value::{kind, near};

/// Said of a mapping with other keys.
pub(super) const KEYS_ARE_TEXT: &str = "keys are text: put a number or true and false in quotes";

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn push(&self, path: impl Into<String>, message: impl Into<String>) {
        self.0.borrow_mut().push(Problem {
            path: path.into(),
            message: message.into(),
        });
    }

    pub(super) fn into_inner(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// A mapping of the config. A null is the same as an absent key everywhere.
#[derive(Debug)]
pub(super) struct Section<'p> {
    path: String,
    entries: Mapping,
    known: Vec<&'static str>,
    /// It is no mapping at all: what it lacks need not be said too.
    broken: bool,
    problems: &'p Problems,
}

impl<'p> Section<'p> {
    /// Opens a mapping; null is an empty one.
    pub(super) fn open(value: Value, path: String, problems: &'p Problems) -> Self {
        let (entries, broken) = match value {
            Value::Mapping(entries) => (entries, false),
            Value::Null => (Mapping::new(), false),
            other => {
                problems.push(path.clone(), format!("expected a mapping, found {}", kind(&other)));
                (Mapping::new(), true)
            }
        };
        Self {
            path,
            entries,
            known: Vec::new(),
            broken,
            problems,
        }
    }

    /// The place of a key.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub(super) fn problems(&self) -> &'p Problems {
        self.problems
    }

    /// Takes a key's value; `None` if it is absent or null.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.entries.remove(key).filter(|value| !value.is_null())
    }

    /// Reads a key that may be absent.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(key)?;
        match read(&value) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problems.push(self.path(key), message);
                None
            }
        }
    }

    /// Reads a key that has a default.
    pub(super) fn or<T>(&mut self, key: &'static str, default: T, read: impl FnOnce(&Value) -> Result<T, String>) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// Reads a key that has a default; `None` if it is refused, so that what depends on it need not be said too.
    pub(super) fn checked<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let mut refused = false;
        let value = self.optional(key, |value| read(value).inspect_err(|_| refused = true));
        if refused { None } else { Some(value.unwrap_or(default)) }
    }

    /// Reads a key that must be there; `None` is a problem that was noted.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        if self.entries.get(key).is_none_or(Value::is_null) {
            self.known.push(key);
            self.entries.remove(key);
            if !self.broken {
                self.problems.push(self.path(key), "missing");
            }
            return None;
        }
        self.optional(key, read)
    }

    /// Opens a mapping below.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'p> {
        let value = self.take(key).unwrap_or(Value::Null);
        Section::open(value, self.path(key), self.problems)
    }

    /// Takes a list below, each element with its place; absent is empty.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<(String, Value)> {
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Sequence(items)) => {
                let path = self.path(key);
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| (format!("{path}[{index}]"), item))
                    .collect()
            }
            Some(other) => {
                let message = format!("expected a list, found {}", kind(&other));
                self.problems.push(self.path(key), message);
                Vec::new()
            }
        }
    }

    /// A key that the design has and this version does not; no misspelt one is told to be it.
    pub(super) fn later(&mut self, key: &'static str, what: &str) {
        if self.entries.remove(key).is_some_and(|value| !value.is_null()) {
            self.problems
                .push(self.path(key), format!("not in this version: it will come with {what}"));
        }
    }

    /// What is left are keys that nobody knows.
    pub(super) fn finish(self) {
        for key in self.entries.keys() {
            match key {
                Value::String(key) => {
                    let hint = near(key, self.known.iter().copied());
                    self.problems.push(self.path(key), format!("unknown key{hint}"));
                }
                _ => self.problems.push(self.path.clone(), KEYS_ARE_TEXT),
            }
        }
    }
}
