//! What a module is.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::ModuleError;
use crate::module_api::ModuleApi;

/// Why a module's config was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigError {
    /// What is wrong and what to do.
    pub message: String,
    /// Where, below the module's `config`: for example `keywords[0]`; empty for the whole.
    pub path: String,
}

impl ConfigError {
    /// An error about the whole config.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            path: String::new(),
        }
    }

    /// An error about one key.
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            path: path.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    /// With the key: a constructor may return it with `?`, and then nothing else says where.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "config.{path}: {}", self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The config of a module that needs none; keys that are there are ignored.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct NoConfig {}

/// Third-party code that decides.
///
/// A module reads like one of Synapse's: [`parse_config`](Self::parse_config) checks its config, and
/// [`new`](Self::new) makes the instance and registers its functions. Calls borrow the one instance, from several
/// threads at once, so state that changes needs a lock or an atomic.
///
/// ```
/// use ganglion_api::{
///     Denial, Module, ModuleApi, ModuleError, NoConfig, SpamCheckerCallbacks, UserMayCreateRoom, Verdict,
/// };
///
/// struct NoRooms;
///
/// impl Module for NoRooms {
///     type Config = NoConfig;
///
///     fn new(_config: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
///         api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(Self::may_create))?;
///         Ok(Self)
///     }
/// }
///
/// impl NoRooms {
///     async fn may_create(&self, _: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
///         Ok(Verdict::Deny(Denial::forbidden().with_error("no rooms today")))
///     }
/// }
/// ```
pub trait Module: Sized + Send + Sync + 'static {
    /// The module's config, read from the key `config` of its section.
    type Config: DeserializeOwned;

    /// Reads the config. An absent, null or otherwise falsy one comes as `{}`, as in Synapse.
    ///
    /// # Errors
    /// The config cannot be used; the start fails with the error's message and place.
    fn parse_config(config: Value) -> Result<Self::Config, ConfigError> {
        crate::config::read(config)
    }

    /// Makes the module and registers its callbacks and web resources.
    ///
    /// # Errors
    /// The start fails with the module's id and this error.
    fn new(config: Self::Config, api: &ModuleApi<Self>) -> Result<Self, ModuleError>;
}
