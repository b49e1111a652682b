//! A secret in a module's config: given there, or in a file; and whether a request shows it.

use std::path::PathBuf;

use ganglion_api::{ConfigError, MatrixError, ModuleApi, WebRequest};
use http::header::AUTHORIZATION;

use crate::config::{Token, bearer};

/// A secret that stands in a config under one key, or in the file that another key names.
#[derive(Debug)]
pub(super) struct Secret {
    keys: (&'static str, &'static str),
    given: Option<Token>,
    file: Option<PathBuf>,
}

impl Secret {
    /// The secret of these two keys: its own, and that of its file.
    pub(super) fn new(keys: (&'static str, &'static str), given: Option<&Token>, file: Option<&PathBuf>) -> Self {
        let (given, file) = (given.cloned(), file.cloned());
        Self { keys, given, file }
    }

    /// Checks what can be checked without reading the file.
    ///
    /// # Errors
    /// It is given in both ways.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let (key, file_key) = self.keys;
        if self.given.is_some() && self.file.is_some() {
            let reason = format!("give {key} or {file_key}, not both");
            return Err(ConfigError::at(file_key, reason));
        }
        Ok(())
    }

    /// The same, for a secret that must be there.
    ///
    /// # Errors
    /// It is given in both ways, or in none.
    pub(super) fn check_required(&self) -> Result<(), ConfigError> {
        let (key, file_key) = self.keys;
        if self.given.is_none() && self.file.is_none() {
            let reason = format!("missing; give it here, or a file as {file_key}");
            return Err(ConfigError::at(key, reason));
        }
        self.check()
    }

    /// Reads the secret; `None` if it is given in no way.
    ///
    /// # Errors
    /// Its file cannot be read, or holds something else.
    pub(super) fn read<M: Send + Sync + 'static>(self, api: &ModuleApi<M>) -> Result<Option<Token>, ConfigError> {
        let Some(file) = self.file else {
            return Ok(self.given);
        };
        let token = Token::read(&api.resolve_path(file));
        token.map(Some).map_err(|reason| ConfigError::at(self.keys.1, reason))
    }

    /// Reads a secret that must be there.
    ///
    /// # Errors
    /// It is given in no way; its file cannot be read, or holds something else.
    pub(super) fn read_required<M: Send + Sync + 'static>(self, api: &ModuleApi<M>) -> Result<Token, ConfigError> {
        let key = self.keys.0;
        self.read(api)?.ok_or_else(|| ConfigError::at(key, "missing"))
    }
}

/// Lets a request in that shows the token.
///
/// # Errors
/// It shows none, or another one: 401.
pub(super) fn authorize(token: &Token, request: &WebRequest) -> Result<(), MatrixError> {
    let unauthorized = |errcode, error| Err(MatrixError::new(401, errcode, error));
    let authorization = request.headers().get(AUTHORIZATION);
    // A value that is no text is no token of ours.
    match authorization.and_then(|value| bearer(value.to_str().unwrap_or("bearer "))) {
        None => unauthorized(
            "M_MISSING_TOKEN",
            "an Authorization header with a Bearer token is needed",
        ),
        Some(given) if token.matches(given) => Ok(()),
        Some(_) => unauthorized("M_UNKNOWN_TOKEN", "the token is not known"),
    }
}
