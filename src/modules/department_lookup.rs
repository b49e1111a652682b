//! `ganglion.modules.DepartmentLookup`: which department a user belongs to, asked of a service and cached. The example to
//! copy for a module that caches.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ganglion_api::{
    CacheOptions, Cached, ConfigError, MatrixError, Module, ModuleApi, ModuleError, OnUserDeactivationStatusChanged,
    OwnedUserId, ThirdPartyRulesCallbacks, UserId, WebRequest, WebResponse, json_response, query_parameter,
};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::duration;
use super::http_client::{BaseUrl, Limits, Service};
use super::secret::{Secret, authorize};
use crate::config::Token;

/// Where the module answers.
const PATH: &str = "/_synapse/client/department";

/// The longest answer of the service, in bytes.
const MAX_ANSWER: usize = 4 * 1024;

/// Tells which department a user belongs to.
#[derive(Debug)]
pub struct DepartmentLookup {
    api: ModuleApi<Self>,
    service: Service,
    token: Token,
    /// The name of a user's department; `None` for a user who has none.
    department: Cached<OwnedUserId, Option<String>>,
    /// Whether it was said that the service refuses a question.
    has_told_refusal: AtomicBool,
}

/// The config of [`DepartmentLookup`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepartmentLookupConfig {
    /// What is asked, with `?user_id=`.
    url: BaseUrl,
    /// What callers show who forget an entry.
    token: Option<Token>,
    /// The file that it is in.
    token_path: Option<PathBuf>,
    /// How many users are remembered; else what the section `cache` says.
    max_entries: Option<u64>,
    /// For how long; else what the section `cache` says.
    #[serde(default, deserialize_with = "duration::read_some")]
    ttl: Option<Duration>,
}

impl DepartmentLookupConfig {
    fn secret(&self) -> Secret {
        Secret::new(("token", "token_path"), self.token.as_ref(), self.token_path.as_ref())
    }
}

/// The service answered something else than a department, or that there is none.
#[derive(Debug, thiserror::Error)]
#[error("{service} answered {status} without a department")]
struct NoDepartment {
    service: String,
    status: u16,
}

impl Module for DepartmentLookup {
    type Config = DepartmentLookupConfig;

    fn parse_config(config: Value) -> Result<DepartmentLookupConfig, ConfigError> {
        let config: DepartmentLookupConfig = ganglion_api::read_config(config)?;
        config.secret().check_required()?;
        if config.max_entries == Some(0) {
            return Err(ConfigError::at("max_entries", "expected at least 1"));
        }
        if config.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Err(ConfigError::at("ttl", "expected more than zero"));
        }
        Ok(config)
    }

    fn new(config: DepartmentLookupConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let token = config.secret().read_required(api)?;
        let mut options = CacheOptions::new();
        options.max_entries = config.max_entries;
        options.ttl = config.ttl;
        let department = api.cached("department", options, Self::look_up)?;
        api.register_cached_function(&department);
        api.register_web_resource(PATH, Self::answer)?;
        api.register_third_party_rules_callbacks(
            ThirdPartyRulesCallbacks::new().on_user_deactivation_status_changed(Self::status_changed),
        )?;
        Ok(Self {
            api: api.clone(),
            service: Service::new(config.url, None)?,
            token,
            department,
            has_told_refusal: AtomicBool::new(false),
        })
    }
}

impl DepartmentLookup {
    /// Asks the service; runs once for a user, until the entry is forgotten or too old. An error is not kept.
    async fn look_up(&self, user: OwnedUserId) -> Result<Option<String>, ModuleError> {
        // It belongs to all who wait for it and has no budget, so it needs a limit of its own.
        let limits = Limits::within(self.api.remaining_budget(), MAX_ANSWER);
        let answer = self.service.get("user_id", user.as_str(), limits).await?;
        let department = answer.json().filter(|_| answer.status == 200);
        match department.as_ref().and_then(|answer| answer["department"].as_str()) {
            Some(department) => Ok(Some(department.to_owned())),
            None if answer.status == 404 => Ok(None),
            // It says something of this user's name, which anybody may have invented, and nothing of the service. It may be
            // mended tomorrow, so it is not kept.
            None if is_about_the_question(answer.status) => {
                if !self.has_told_refusal.swap(true, Ordering::Relaxed) {
                    let (service, status) = (self.service.origin(), answer.status);
                    tracing::warn!(
                        service,
                        status,
                        "DepartmentLookup: the service refuses a question; said once"
                    );
                }
                Err(no_department().into())
            }
            None => Err(NoDepartment {
                service: self.service.origin().to_owned(),
                status: answer.status,
            }
            .into()),
        }
    }

    async fn status_changed(&self, args: &OnUserDeactivationStatusChanged) -> Result<(), ModuleError> {
        self.api.invalidate_cache(&self.department, &args.user_id)?;
        Ok(())
    }

    async fn answer(&self, request: WebRequest) -> Result<WebResponse, ModuleError> {
        if request.uri().path().trim_end_matches('/') != PATH {
            Err(MatrixError::new(404, "M_UNRECOGNIZED", "nothing is here"))?;
        }
        match *request.method() {
            Method::GET => self.tell(&user(&request)?).await,
            Method::DELETE => {
                authorize(&self.token, &request)?;
                self.api.invalidate_cache(&self.department, &user(&request)?)?;
                json_response(200, &json!({}))
            }
            _ => Err(MatrixError::new(405, "M_UNRECOGNIZED", "use GET or DELETE"))?,
        }
    }

    async fn tell(&self, user: &OwnedUserId) -> Result<WebResponse, ModuleError> {
        // The service knows the users of this homeserver only.
        let known = if user.server_name() == self.api.server_name() {
            self.department.get(user.clone()).await?
        } else {
            Arc::new(None)
        };
        match &*known {
            Some(department) => json_response(200, &json!({"user_id": user, "department": department})),
            None => Err(no_department())?,
        }
    }
}

/// Whether a status says that this question is wrong, and not that the service or this module is.
fn is_about_the_question(status: u16) -> bool {
    // Those four are about who asks, when and how often.
    (400..500).contains(&status) && !matches!(status, 401 | 403 | 408 | 429)
}

fn no_department() -> MatrixError {
    MatrixError::new(404, "M_NOT_FOUND", "no department is known for this user")
}

/// The user whom a request is about.
fn user(request: &WebRequest) -> Result<OwnedUserId, MatrixError> {
    let user = UserId::parse(query_parameter(request, "user_id")?);
    user.map_err(|_| {
        MatrixError::new(
            400,
            "M_INVALID_PARAM",
            "user_id: expected a user id such as @bob:example.com",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_error_names_the_key() {
        let url = "http://127.0.0.1:1/";
        for (config, path, message) in [
            (json!({"token": "a"}), "", "missing field `url`"),
            (
                json!({"url": url}),
                "token",
                "missing; give it here, or a file as token_path",
            ),
            (
                json!({"url": url, "token": 4711}),
                "token",
                "expected text, printable ASCII without spaces",
            ),
            (
                json!({"url": url, "token": "a", "token_path": "b"}),
                "token_path",
                "give token or token_path, not both",
            ),
            (
                json!({"url": url, "token": "a", "max_entries": 0}),
                "max_entries",
                "expected at least 1",
            ),
            (
                json!({"url": url, "token": "a", "ttl": "0s"}),
                "ttl",
                "expected more than zero",
            ),
            (
                json!({"url": "http://bob:4711@host/", "token": "a"}),
                "url",
                "a URL has no user and no password here",
            ),
        ] {
            let error = DepartmentLookup::parse_config(config).err().unwrap();
            assert_eq!((error.path.as_str(), error.message.as_str()), (path, message));
        }
        let config = json!({"url": url, "token_path": "b", "max_entries": 1, "ttl": "5m"});
        let config = DepartmentLookup::parse_config(config).unwrap();
        assert_eq!(
            (config.max_entries, config.ttl),
            (Some(1), Some(Duration::from_secs(300)))
        );
        assert!(DepartmentLookup::parse_config(json!({"url": url, "token": "a", "ttl": 5})).is_err());
    }
}
