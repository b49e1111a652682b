//! Large arguments that stay where they are until a module looks at them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::failure::ModuleError;
use crate::json::{JsonError, JsonPath};
use crate::registration::LocalFuture;
use crate::types::Event;

/// Some of a room's state, and where the rest begins.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StatePage {
    /// The events.
    pub events: Vec<Event>,
    /// The position of the next page; `None` at the end.
    pub next: Option<u64>,
}

impl StatePage {
    /// A page.
    #[must_use]
    pub fn new(events: Vec<Event>, next: Option<u64>) -> Self {
        Self { events, next }
    }
}

/// Some of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MediaChunk {
    /// The contents.
    pub contents: Bytes,
    /// Whether none follows.
    pub end: bool,
}

impl MediaChunk {
    /// A chunk.
    #[must_use]
    pub fn new(contents: Bytes, end: bool) -> Self {
        Self { contents, end }
    }
}

/// Where large arguments are, by the handles that the caller gave them. They are there until the callback is answered.
///
/// Every method fails once the handle or the caller is gone, and when the caller does not answer in time. Dropping a future
/// gives its question up.
pub trait ArgSource: Send + Sync {
    /// One event of a room's state, if there is one.
    fn state_event<'a>(
        &'a self,
        handle: &'a str,
        event_type: &'a str,
        state_key: &'a str,
    ) -> LocalFuture<'a, Result<Option<Event>, ModuleError>>;

    /// A part of a room's state, from a position on; 0 is the begin.
    fn state_page<'a>(&'a self, handle: &'a str, from: u64) -> LocalFuture<'a, Result<StatePage, ModuleError>>;

    /// A part of a file, from an offset on.
    fn media_chunk<'a>(&'a self, handle: &'a str, offset: u64) -> LocalFuture<'a, Result<MediaChunk, ModuleError>>;
}

/// An argument that may have a handle in the place of its contents.
pub(crate) trait LazyArg {
    /// Tells it where its contents are.
    ///
    /// # Errors
    /// It has a handle, and there is nowhere to ask.
    fn connect(&mut self, source: Option<&Arc<dyn ArgSource>>, key: &str) -> Result<(), JsonError>;
}

/// A handle, and whom to ask with it.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) handle: String,
    source: Option<Arc<dyn ArgSource>>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.handle)
    }
}

impl PartialEq for Remote {
    fn eq(&self, other: &Self) -> bool {
        self.handle == other.handle
    }
}

impl Remote {
    pub(crate) fn new(handle: String) -> Self {
        Self { handle, source: None }
    }

    pub(crate) fn connect(&mut self, source: Option<&Arc<dyn ArgSource>>, key: &str) -> Result<(), JsonError> {
        let at = JsonPath::Key(&JsonPath::Root, key);
        let source = source.ok_or_else(|| JsonError::invalid(&at, "a handle means something on the wire only"))?;
        self.source = Some(Arc::clone(source));
        Ok(())
    }

    /// Whom to ask.
    ///
    /// # Errors
    /// It was never connected.
    pub(crate) fn source(&self) -> Result<&dyn ArgSource, ModuleError> {
        let source = self.source.as_deref();
        source.ok_or_else(|| ModuleError::message("the argument is not connected to its caller"))
    }
}
