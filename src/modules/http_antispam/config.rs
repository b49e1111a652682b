//! The config of the module, in the keys of synapse-http-antispam.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ganglion_api::ConfigError;
use serde::Deserialize;

use super::super::http_client::BaseUrl;
use super::super::secret::Secret;
use super::verdict::Mode;
use crate::config::{Token, near};
use crate::http::antispam::CALLBACKS;

/// The config of [`HttpAntispam`](super::HttpAntispam).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpAntispamConfig {
    /// What comes before the name of a callback.
    pub(super) base_url: BaseUrl,
    /// What the server is shown.
    authorization: Option<Token>,
    /// The file that it is in.
    authorization_path: Option<PathBuf>,
    /// Whether the server is asked at the start if it is there.
    #[serde(default = "yes")]
    pub(super) do_ping: bool,
    /// The callbacks that it is asked about; all if absent.
    enabled_callbacks: Option<Vec<String>>,
    /// The callbacks that pass before the server is asked.
    #[serde(default, rename = "async")]
    pub(super) asynchronous: BTreeMap<String, bool>,
    /// What a failure counts as.
    #[serde(default)]
    pub(super) fail_open: BTreeMap<String, bool>,
    /// Which answers are denials.
    #[serde(default)]
    pub(super) mode: Mode,
}

fn yes() -> bool {
    true
}

impl HttpAntispamConfig {
    /// Checks what Serde cannot.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.secret().check()?;
        let enabled = self.enabled_callbacks.as_deref();
        if enabled.is_some_and(<[String]>::is_empty) {
            let reason = "expected at least one callback; leave the key out for all";
            return Err(ConfigError::at("enabled_callbacks", reason));
        }
        let enabled = enabled.unwrap_or_default().iter().enumerate();
        for (index, name) in enabled {
            known(name, || format!("enabled_callbacks[{index}]"))?;
        }
        for name in self.asynchronous.keys() {
            self.asked(name, || format!("async.{name}"))?;
        }
        for name in self.fail_open.keys() {
            let place = || format!("fail_open.{name}");
            self.asked(name, place)?;
            if self.asynchronous.get(name) == Some(&true) {
                let reason = "the callback is async and passes before the server is asked: leave this out";
                return Err(ConfigError::at(place(), reason));
            }
        }
        Ok(())
    }

    /// Refuses what is said of a callback that the server is never asked about.
    fn asked(&self, name: &str, place: impl Fn() -> String) -> Result<(), ConfigError> {
        known(name, &place)?;
        if self.is_enabled(name) {
            return Ok(());
        }
        let reason = "the callback is not in enabled_callbacks: add it there, or leave this out";
        Err(ConfigError::at(place(), reason))
    }

    /// Whether the server is asked about this callback.
    pub(super) fn is_enabled(&self, callback: &str) -> bool {
        let enabled = self.enabled_callbacks.as_ref();
        enabled.is_none_or(|enabled| enabled.iter().any(|name| name == callback))
    }

    /// What the server is shown.
    pub(super) fn secret(&self) -> Secret {
        let keys = ("authorization", "authorization_path");
        Secret::new(keys, self.authorization.as_ref(), self.authorization_path.as_ref())
    }
}

fn known(name: &str, place: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if CALLBACKS.contains(&name) {
        return Ok(());
    }
    let near = near(name, CALLBACKS);
    let reason = format!("the antispam protocol has no such callback{near}");
    Err(ConfigError::at(place(), reason))
}
