//! Lists in the configs of modules: written there, or in a file that may change while Ganglion runs.
//!
//! A file is UTF-8 text with one entry a line. It is looked at every [`LOOK_EVERY`], and read again when its time of
//! modification or its size is another one. What cannot be used is said in the log, once for each change, and the last good
//! list stays.

mod watch;

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ganglion_api::{ConfigError, ModuleApi};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use self::watch::Watch;

/// The longest entry, in bytes.
const MAX_ENTRY: usize = 1 << 10;

/// How often a file is looked at. A change is taken at the second look that finds the file the same: one that is being
/// written is not read in the middle.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A list as it stands in a config: texts, or `{file: path}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListConfig {
    /// The entries themselves.
    Inline(Vec<String>),
    /// Where the entries are; a relative path is relative to the config file.
    File(PathBuf),
}

/// One entry of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// The text, without the blanks around it.
    pub(crate) text: &'a str,
    /// In a file the line, counted from 1; else the index, counted from 0.
    place: usize,
}

/// Why a list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadList {
    /// The place of the entry; `None` if it is about the whole list.
    place: Option<usize>,
    reason: String,
}

/// A list that is there to be used, and that changes with its file.
pub(crate) struct List<T>(Arc<ArcSwap<T>>);

impl BadList {
    /// About the list as a whole.
    pub(crate) fn whole(reason: impl Into<String>) -> Self {
        Self {
            place: None,
            reason: reason.into(),
        }
    }
}

impl Entry<'_> {
    /// About this entry.
    pub(crate) fn refuse(self, reason: impl Into<String>) -> BadList {
        BadList {
            place: Some(self.place),
            reason: reason.into(),
        }
    }
}

impl Default for ListConfig {
    fn default() -> Self {
        Self::Inline(Vec::new())
    }
}

impl ListConfig {
    /// Whether it has no entries and never will.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Inline(entries) if entries.is_empty())
    }

    /// Checks what can be checked without reading a file; `key` is where the list stands in the config.
    ///
    /// # Errors
    /// An entry is refused by `parse`, empty or too long; the error names its key, such as `deny[3]`.
    pub(crate) fn check<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&[Entry<'_>]) -> Result<T, BadList>,
    ) -> Result<(), ConfigError> {
        match self {
            Self::Inline(texts) => read_inline(key, texts, parse).map(drop),
            Self::File(file) if file.as_os_str().is_empty() => {
                Err(ConfigError::at(format!("{key}.file"), "expected the path of a file"))
            }
            Self::File(_) => Ok(()),
        }
    }

    /// Makes the list. A file is read now, and whenever it has changed, by a background call of the module.
    ///
    /// # Errors
    /// As for [`check`](Self::check); or the file cannot be read, or has a line that is refused: the error names the key,
    /// the file and the line.
    pub(crate) fn open<M, T, P>(&self, key: &str, api: &ModuleApi<M>, parse: P) -> Result<List<T>, ConfigError>
    where
        M: Send + Sync + 'static,
        T: Send + Sync + 'static,
        P: Fn(&[Entry<'_>]) -> Result<T, BadList> + Send + Sync + 'static,
    {
        let file = match self {
            Self::Inline(texts) => return read_inline(key, texts, parse).map(List::of),
            Self::File(file) => api.resolve_path(file),
        };
        let (list, watch) =
            Watch::begin(file, parse).map_err(|error| ConfigError::at(format!("{key}.file"), error.to_string()))?;
        let watch = Arc::new(watch);
        api.looping_background_call(LOOK_EVERY, format!("look at the file of {key}"), async move |_: &M| {
            let watch = Arc::clone(&watch);
            // A disk that is slow, or gone, must not hold a worker.
            Ok(tokio::task::spawn_blocking(move || watch.look()).await?)
        });
        Ok(list)
    }
}

impl<'de> Deserialize<'de> for ListConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = ListConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts or {file: path}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<ListConfig, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = entries.next_element()? {
            texts.push(text);
        }
        Ok(ListConfig::Inline(texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut keys: A) -> Result<ListConfig, A::Error> {
        let mut file = None;
        while let Some(key) = keys.next_key::<String>()? {
            if key != "file" {
                return Err(A::Error::custom(format!("unknown key {key}, expected {{file: path}}")));
            }
            file = Some(keys.next_value::<PathBuf>()?);
        }
        file.map(ListConfig::File)
            .ok_or_else(|| A::Error::custom("expected a list of texts or {file: path}"))
    }
}

impl<T> List<T> {
    fn of(list: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(list)))
    }

    /// The list as it is now. Not for keeping over an `await`.
    pub(crate) fn now(&self) -> impl Deref<Target = Arc<T>> {
        self.0.load()
    }
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("List")
    }
}

fn read_inline<T>(
    key: &str,
    texts: &[String],
    parse: impl FnOnce(&[Entry<'_>]) -> Result<T, BadList>,
) -> Result<T, ConfigError> {
    let entries = texts.iter().enumerate().map(|(place, text)| {
        let entry = Entry {
            text: text.trim(),
            place,
        };
        match entry.text {
            "" => Err(entry.refuse("an empty entry")),
            _ => entry.bounded(),
        }
    });
    let list = entries
        .collect::<Result<Vec<_>, _>>()
        .and_then(|entries| parse(&entries));
    list.map_err(|BadList { place, reason }| match place {
        Some(place) => ConfigError::at(format!("{key}[{place}]"), reason),
        None => ConfigError::at(key, reason),
    })
}

impl<'a> Entry<'a> {
    fn bounded(self) -> Result<Self, BadList> {
        if self.text.len() > MAX_ENTRY {
            return Err(self.refuse(format!("an entry of more than {MAX_ENTRY} bytes")));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
