//! The admin resource of `AccountExpiry`: an account's end is shown, set and forgotten.

use ganglion_api::{
    Fields, JsonError, JsonPath, MatrixError, ModuleError, OwnedUserId, WebRequest, WebResponse, json_response,
    query_parameter,
};
use http::Method;
use serde_json::{Value, json};

use super::super::secret::authorize;
use super::store::{Change, StoreError};
use super::{AccountExpiry, millis, now};

pub(super) const PATH: &str = "/_synapse/client/account_expiry";

impl AccountExpiry {
    /// Answers a request to [`PATH`].
    pub(super) async fn administer(&self, request: WebRequest) -> Result<WebResponse, ModuleError> {
        authorize(&self.token, &request)?;
        if request.uri().path().trim_end_matches('/') != PATH {
            Err(MatrixError::new(404, "M_UNRECOGNIZED", "nothing is here"))?;
        }
        let (user, end) = match *request.method() {
            Method::GET => {
                let user = self.user(&query_parameter(&request, "user_id")?)?;
                // What the database says, and not what another process may have changed since it was read.
                (user.clone(), self.store.end(user).await?)
            }
            Method::POST => {
                let (user, change) = self.read(request.body())?;
                (user.clone(), self.administered(user, change).await?)
            }
            Method::DELETE => {
                let user = self.user(&query_parameter(&request, "user_id")?)?;
                (user.clone(), self.administered(user, Change::Forget).await?)
            }
            _ => Err(MatrixError::new(405, "M_UNRECOGNIZED", "use GET, POST or DELETE"))?,
        };
        json_response(200, &json!({"user_id": user, "expires_at": end}))
    }

    /// An account of this homeserver.
    fn user(&self, text: &str) -> Result<OwnedUserId, MatrixError> {
        let refuse = |reason| MatrixError::new(400, "M_INVALID_PARAM", reason);
        let user = OwnedUserId::try_from(text).map_err(|_| refuse("user_id: expected one such as @user:server"))?;
        if user.server_name() != self.api.server_name() {
            return Err(refuse("user_id: expected an account of this homeserver"));
        }
        Ok(user)
    }

    fn read(&self, body: &[u8]) -> Result<(OwnedUserId, Change), MatrixError> {
        let body: Value = crate::json::read(body)
            .map_err(|error| MatrixError::new(400, "M_NOT_JSON", format!("the body is not JSON: {error}")))?;
        let refuse = |error: JsonError| MatrixError::new(400, error.errcode(), error.to_string());
        let fields = Posted::read(body).map_err(refuse)?;
        let change = match (fields.expires_at, fields.extend_by) {
            (Some(end), None) if end >= 0 => Change::Set(end),
            (Some(_), None) => {
                return Err(MatrixError::new(
                    400,
                    "M_INVALID_PARAM",
                    "expires_at: expected at least 0",
                ));
            }
            (None, Some(by)) => Change::Extend {
                now: now(),
                by: extension(&by)?,
            },
            _ => {
                let reason = "expected either expires_at or extend_by";
                return Err(MatrixError::new(400, "M_MISSING_PARAM", reason));
            }
        };
        Ok((self.user(&fields.user_id)?, change))
    }

    /// Changes an end; the log says so, since nobody else does.
    async fn administered(&self, user: OwnedUserId, change: Change) -> Result<Option<i64>, ModuleError> {
        let (span, name) = (tracing::Span::current(), user.clone());
        let log = move |end: Option<i64>| {
            span.in_scope(|| tracing::info!(user = %name, expires_at = end, "the end of an account was set"));
        };
        match self.change(user, change, log).await {
            Ok(end) => Ok(end),
            Err(error @ StoreError::TooLate) => Err(MatrixError::new(400, "M_INVALID_PARAM", error.to_string()))?,
            Err(error) => Err(error)?,
        }
    }
}

/// The body of a POST.
struct Posted {
    user_id: String,
    expires_at: Option<i64>,
    extend_by: Option<String>,
}

impl Posted {
    fn read(body: Value) -> Result<Self, JsonError> {
        let mut fields = Fields::new(body, &JsonPath::Root)?;
        let posted = Self {
            user_id: fields.required("user_id")?,
            expires_at: fields.optional("expires_at")?,
            extend_by: fields.optional("extend_by")?,
        };
        // A slip would change what nobody meant.
        match fields.rest().is_empty() {
            true => Ok(posted),
            false => Err(JsonError::invalid(
                &JsonPath::Root,
                "expected user_id, expires_at and extend_by, and no other key",
            )),
        }
    }
}

/// How much longer, in milliseconds.
fn extension(text: &str) -> Result<i64, MatrixError> {
    // What humantime says repeats the text.
    let by = humantime::parse_duration(text).ok().map(millis).filter(|by| *by > 0);
    by.ok_or_else(|| {
        MatrixError::new(
            400,
            "M_INVALID_PARAM",
            "extend_by: expected a duration such as 30d, of at least 1ms",
        )
    })
}
