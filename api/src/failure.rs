//! Calls that gave no answer: causes, a module's own errors, and what a failure may count as.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::homeserver::HomeserverError;
use crate::json::JsonObject;
use crate::verdict::ErrorCode;

/// Why a call gave no answer. The words are those of JSON, config and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The module's mailbox was full, or no permit came free within its budget.
    Overloaded,
    /// The module's budget or the chain's deadline ran out.
    DeadlineExceeded,
    /// The module panicked.
    Panicked,
    /// The module returned an error.
    ModuleError,
    /// The breaker refuses calls after too many failures.
    BreakerOpen,
    /// The module is out of service until it is released.
    Quarantined,
    /// The module is not there: still starting, or stopped.
    NotRunning,
    /// The other process answered something that is no answer.
    Protocol,
}

impl FailureKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Overloaded,
        Self::DeadlineExceeded,
        Self::Panicked,
        Self::ModuleError,
        Self::BreakerOpen,
        Self::Quarantined,
        Self::NotRunning,
        Self::Protocol,
    ];

    /// The word in JSON, config and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Panicked => "panicked",
            Self::ModuleError => "module_error",
            Self::BreakerOpen => "breaker_open",
            Self::Quarantined => "quarantined",
            Self::NotRunning => "not_running",
            Self::Protocol => "protocol",
        }
    }

    /// The kind with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error that a module wants the client to see as it is. Source: Synapse's `SynapseError`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MatrixError {
    /// The HTTP status.
    pub status: u16,
    /// The error code.
    pub errcode: ErrorCode,
    /// The text.
    pub error: String,
    /// Further fields of the JSON body.
    pub fields: JsonObject,
}

impl MatrixError {
    /// An error without further fields.
    pub fn new(status: u16, errcode: impl Into<ErrorCode>, error: impl Into<String>) -> Self {
        Self {
            status,
            errcode: errcode.into(),
            error: error.into(),
            fields: JsonObject::new(),
        }
    }

    /// What a failure becomes whose policy says error. The text is constant, so that no cause reaches a client or a
    /// remote server; the reason stands in the decision's step.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(500, ErrorCode::unknown(), "Internal server error")
    }

    /// Adds a field of the body, with the same rules as [`Denial::with_field`](crate::Denial::with_field).
    #[must_use]
    pub fn with_field(mut self, key: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.fields.insert(key.into(), value.into());
        self
    }
}

impl fmt::Display for MatrixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.errcode)
    }
}

impl Error for MatrixError {}

/// What a module's function returns when it has no answer.
///
/// `?` turns every error into one; its text stands in the decision's step and never reaches a client.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ModuleError {
    /// An error for the client. Synapse passes it on from the callbacks whose `on_failure` is `error` or `deny`.
    Matrix(Box<MatrixError>),
    /// Any other error.
    Other(Arc<dyn Error + Send + Sync>),
}

impl ModuleError {
    /// An error with this text.
    pub fn message(text: impl Into<String>) -> Self {
        Self::Other(Arc::from(Box::<dyn Error + Send + Sync>::from(text.into())))
    }

    /// The module's instance is not there.
    pub(crate) fn not_running() -> Self {
        Self::message("the module is not running")
    }
}

impl fmt::Display for ModuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matrix(error) => error.fmt(f),
            Self::Other(error) => error.fmt(f),
        }
    }
}

// `ModuleError` itself is no `std::error::Error`, so that this conversion can exist, as in `anyhow::Error`.
impl<E: Error + Send + Sync + 'static> From<E> for ModuleError {
    fn from(error: E) -> Self {
        let boxed: Box<dyn Error + Send + Sync> = Box::new(error);
        let boxed = match boxed.downcast::<MatrixError>() {
            Ok(matrix) => return Self::Matrix(matrix),
            Err(other) => other,
        };
        match boxed.downcast::<HomeserverError>() {
            // What the homeserver said is for the client, as when a module of Synapse lets it through.
            Ok(error) => match *error {
                HomeserverError::Matrix(matrix) => Self::Matrix(matrix),
                other => Self::Other(Arc::new(other)),
            },
            Err(other) => Self::Other(Arc::from(other)),
        }
    }
}

/// A call that gave no answer, with its cause.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CallFailure {
    /// The cause.
    pub kind: FailureKind,
    /// The reason for people; `None` where the kind says it all.
    pub detail: Option<String>,
    /// The error that a module returned for the client; only with [`FailureKind::ModuleError`].
    pub matrix: Option<Box<MatrixError>>,
}

impl CallFailure {
    /// A failure of this kind with a reason for people.
    pub fn new(kind: FailureKind, detail: impl Into<Option<String>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            matrix: None,
        }
    }
}

impl From<FailureKind> for CallFailure {
    fn from(kind: FailureKind) -> Self {
        Self::new(kind, None)
    }
}

impl From<ModuleError> for CallFailure {
    fn from(error: ModuleError) -> Self {
        let detail = Some(error.to_string());
        let matrix = match error {
            ModuleError::Matrix(matrix) => Some(matrix),
            ModuleError::Other(_) => None,
        };
        Self {
            kind: FailureKind::ModuleError,
            detail,
            matrix,
        }
    }
}

/// What `synapse` means as a failure policy, for one callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The operation fails: 500, or the module's own Matrix error.
    Error,
    /// The operation fails with 500 even for a Matrix error.
    InternalError,
    /// The module is skipped: allowed, or not contributing.
    Pass,
    /// The operation is denied with `M_UNKNOWN`, worded by the homeserver; a Matrix error passes as it is.
    Deny,
}

impl OnFailure {
    /// The word of the reference.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error | Self::InternalError => "error",
            Self::Pass => "pass",
            Self::Deny => "deny",
        }
    }

    /// Whether a module's own Matrix error reaches the client as it is.
    #[must_use]
    pub const fn passes_matrix_errors(self) -> bool {
        matches!(self, Self::Error | Self::Deny)
    }
}

/// What a failure counts as, by a rule of an operator. The words are those of JSON, config and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// As if the module had been neutral.
    Pass,
    /// A denial.
    Deny,
    /// The operation fails with 500.
    Error,
    /// What Synapse would do, which depends on the callback.
    Synapse,
}

impl Then {
    /// Every word.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Deny, Self::Error, Self::Synapse];

    /// The word in JSON, config and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Deny => "deny",
            Self::Error => "error",
            Self::Synapse => "synapse",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_kinds_are_their_json() {
        for kind in FailureKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(FailureKind::from_word(kind.as_str()), Some(kind));
        }
    }

    #[test]
    fn the_question_mark_keeps_a_matrix_error_and_wraps_others() {
        fn fails(matrix: bool) -> Result<(), ModuleError> {
            if matrix {
                Err(MatrixError::new(429, "M_LIMIT_EXCEEDED", "slow down"))?;
            }
            "x".parse::<u8>()?;
            Ok(())
        }
        assert!(matches!(fails(true), Err(ModuleError::Matrix(error)) if error.status == 429));
        assert!(matches!(fails(false), Err(ModuleError::Other(_))));
    }
}
