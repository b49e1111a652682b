//! The homeserver, as modules see it.

use serde_json::Value;

use crate::failure::MatrixError;
use crate::registration::LocalFuture;

/// Why the homeserver did not do what a module asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HomeserverError {
    /// No homeserver is connected.
    #[error("no homeserver connected: {method} needs one")]
    NotConnected {
        /// What the module asked for.
        method: &'static str,
    },
    /// The homeserver answered with an error for a client. `?` passes it on, as in Synapse.
    #[error(transparent)]
    Matrix(Box<MatrixError>),
    /// The bridge that is connected does not have this method.
    #[error("{method}: the homeserver's bridge does not have it")]
    Unsupported {
        /// What the module asked for.
        method: &'static str,
    },
    /// There was no answer, or none that could be read.
    #[error("{method}: {reason}")]
    Failed {
        /// What the module asked for.
        method: &'static str,
        /// Why.
        reason: String,
    },
    /// What the module asked for made the homeserver ask the modules again, and so on, deeper than `dispatch.max_depth`.
    /// The innermost of these callbacks was refused.
    #[error("callbacks nest deeper than {max_depth}: {cycle}")]
    NestedTooDeep {
        /// How deep they may nest.
        max_depth: usize,
        /// The calls that repeat, as `callback (module) > ...`, the refused callback last.
        cycle: String,
    },
}

/// What modules ask of the homeserver. Every method of `ModuleApi` that needs it goes through here.
pub trait Homeserver: Send + Sync {
    /// Calls a method of Synapse's `ModuleApi`, with its arguments by name.
    fn call(&self, method: &'static str, arguments: Value) -> LocalFuture<'_, Result<Value, HomeserverError>>;
}

/// No homeserver.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotConnected;

impl Homeserver for NotConnected {
    fn call(&self, method: &'static str, _arguments: Value) -> LocalFuture<'_, Result<Value, HomeserverError>> {
        Box::pin(async move { Err(HomeserverError::NotConnected { method }) })
    }
}
