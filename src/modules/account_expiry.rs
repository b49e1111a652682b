//! `ganglion.modules.AccountExpiry`: accounts end some time after their registration, unless an admin gives them more.

mod admin;
mod store;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ganglion_api::{
    AccountValidityCallbacks, CacheOptions, Cached, ConfigError, Expiry, IsUserExpired, MAX_INT, Module, ModuleApi,
    ModuleError, OnUserRegistration, OwnedUserId,
};
use serde::Deserialize;
use serde_json::Value;

use self::store::{Change, ExpiryStore, StoreError};
use super::duration;
use super::secret::Secret;
use crate::config::Token;

/// How long an end is known without asking the database, which another process may have changed meanwhile.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// How many ends are known.
const KNOWN: u64 = 100_000;

/// How long a call waits for the database. Well within a call's usual budget of a second, so that it can say why it failed.
/// In tests what is locked stays locked.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 200 });

/// The longest period.
const MAX_PERIOD: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Lets accounts end.
pub struct AccountExpiry {
    api: ModuleApi<Self>,
    period: Duration,
    token: Token,
    store: ExpiryStore,
    ends: Cached<OwnedUserId, Option<i64>>,
}

/// The config of [`AccountExpiry`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountExpiryConfig {
    /// The file with the ends; a relative path is relative to the config file.
    database: PathBuf,
    /// How long an account lasts that is registered from now on.
    #[serde(deserialize_with = "duration::read")]
    period: Duration,
    /// The secret of the admin resource.
    token: Option<Token>,
    /// The file with that secret.
    token_path: Option<PathBuf>,
}

impl AccountExpiryConfig {
    fn secret(&self) -> Secret {
        Secret::new(("token", "token_path"), self.token.as_ref(), self.token_path.as_ref())
    }
}

impl Module for AccountExpiry {
    type Config = AccountExpiryConfig;

    fn parse_config(config: Value) -> Result<AccountExpiryConfig, ConfigError> {
        let config: AccountExpiryConfig = ganglion_api::read_config(config)?;
        if config.database.as_os_str().is_empty() {
            return Err(ConfigError::at("database", "expected the path of a file"));
        }
        // Shorter than what it is written in, a period would be none.
        if config.period < Duration::from_millis(1) || config.period > MAX_PERIOD {
            return Err(ConfigError::at("period", "expected at least 1ms and at most 100 years"));
        }
        config.secret().check_required()?;
        Ok(config)
    }

    fn new(config: AccountExpiryConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let token = config.secret().read_required(api)?;
        let store = ExpiryStore::open(api.resolve_path(&config.database), PATIENCE)
            .map_err(|error| ConfigError::at("database", error.to_string()))?;
        let options = CacheOptions::new().max_entries(KNOWN).ttl(KNOWN_FOR);
        let ends = api.cached("ends", options, Self::read_end)?;
        api.register_cached_function(&ends);
        api.register_account_validity_callbacks(
            AccountValidityCallbacks::new()
                .is_user_expired(Self::is_user_expired)
                .on_user_registration(Self::on_user_registration),
        )?;
        api.register_web_resource(admin::PATH, Self::administer)?;
        Ok(Self {
            api: api.clone(),
            period: config.period,
            token,
            store,
            ends,
        })
    }
}

impl AccountExpiry {
    async fn is_user_expired(&self, args: &IsUserExpired) -> Result<Option<Expiry>, ModuleError> {
        let end = *self.ends.get(args.user_id.clone()).await?;
        Ok(end.map(|end| if end <= now() { Expiry::Expired } else { Expiry::Valid }))
    }

    async fn on_user_registration(&self, args: &OnUserRegistration) -> Result<(), ModuleError> {
        let end = now().saturating_add(millis(self.period));
        self.change(args.user_id.clone(), Change::Register(end), |_| {}).await?;
        Ok(())
    }

    async fn read_end(&self, user: OwnedUserId) -> Result<Option<i64>, ModuleError> {
        Ok(self.store.end(user).await?)
    }

    /// Changes an end, and lets nobody be told the one before. `done` is told the new one if it was.
    async fn change(
        &self,
        user: OwnedUserId,
        change: Change,
        done: impl FnOnce(Option<i64>) + Send + 'static,
    ) -> Result<Option<i64>, StoreError> {
        let (api, ends, key) = (self.api.clone(), self.ends.clone(), user.clone());
        // Not after the await: whoever waits there may go away.
        let then = move |end: &Result<_, _>| {
            let forgotten = api.invalidate_cache(&ends, &key);
            debug_assert!(forgotten.is_ok(), "the key is the one argument");
            if let Ok(end) = end {
                done(*end);
            }
        };
        self.store.change(user, change, then).await
    }
}

/// Now, in milliseconds since the Unix epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, millis)
}

/// A duration in milliseconds, at most what JSON can hold.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).map_or(MAX_INT, |millis| millis.min(MAX_INT))
}

impl std::fmt::Debug for AccountExpiry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountExpiry")
            .field("period", &self.period)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
