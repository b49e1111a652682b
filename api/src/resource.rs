//! Web resources: paths of the public listener that a module answers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, header};
use serde::Serialize;

use crate::failure::{MatrixError, ModuleError};
use crate::registration::{LocalFuture, RegistrationError};

/// A request to a web resource, its body read whole.
pub type WebRequest = http::Request<Bytes>;

/// The answer of a web resource.
pub type WebResponse = http::Response<Bytes>;

/// Where modules' resources are expected, as Synapse's documents recommend.
pub const RECOMMENDED_NAMESPACE: &str = "/_synapse/client";

/// Paths that the homeserver or Ganglion answers. Synapse's documents say that a module cannot take them; its code
/// lets it.
const RESERVED: [&str; 8] = [
    "/_matrix/client",
    "/_matrix/federation",
    "/_matrix/key",
    "/_matrix/media",
    "/_synapse/admin",
    "/_ganglion",
    "/health",
    "/ready",
];

/// Whether `path` is `prefix` or below it, compared on whole segments.
#[must_use]
pub fn is_at_or_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a path is one that no module can have.
#[must_use]
pub fn is_reserved(path: &str) -> bool {
    RESERVED.iter().any(|reserved| is_at_or_below(path, reserved))
}

/// A checked path of a web resource: absolute, without a slash at its end; empty for the root.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourcePath(String);

impl ResourcePath {
    /// Checks a path. `/x/` is `/x`.
    ///
    /// # Errors
    /// It is not absolute, reserved, or can never be requested.
    pub fn new(path: &str) -> Result<Self, RegistrationError> {
        let refuse = |reason| {
            Err(RegistrationError::ResourcePath {
                path: path.into(),
                reason,
            })
        };
        if !path.starts_with('/') {
            return refuse("a path is absolute: it starts with /");
        }
        let trimmed = path.trim_end_matches('/');
        if trimmed
            .split('/')
            .skip(1)
            .any(|segment| matches!(segment, "" | "." | ".."))
        {
            return refuse("it has an empty segment, `.` or `..`, which no request reaches");
        }
        if trimmed.contains(['?', '#']) {
            return refuse("a path has no query and no fragment");
        }
        if is_reserved(trimmed) {
            return refuse("the homeserver or Ganglion answers there");
        }
        Ok(Self(trimmed.into()))
    }

    /// The path; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

/// Something that answers requests.
pub trait WebResource: Send + Sync {
    /// Answers a request. Dropping the future cancels it at its next await.
    fn respond(&self, request: WebRequest) -> LocalFuture<'_, Result<WebResponse, ModuleError>>;
}

/// A function of a module that answers requests.
pub(crate) struct ResourceFunction<M, F> {
    pub(crate) module: Arc<M>,
    pub(crate) function: F,
}

impl<M, F> WebResource for ResourceFunction<M, F>
where
    M: Send + Sync,
    F: AsyncFn(&M, WebRequest) -> Result<WebResponse, ModuleError> + Send + Sync,
{
    fn respond(&self, request: WebRequest) -> LocalFuture<'_, Result<WebResponse, ModuleError>> {
        Box::pin(async move { (self.function)(&self.module, request).await })
    }
}

/// A response with a JSON body and the CORS headers that browsers need, as Synapse's `DirectServeJsonResource` sends.
///
/// # Errors
/// The body cannot be serialised, or the status is none.
pub fn json_response(status: u16, body: &impl Serialize) -> Result<WebResponse, ModuleError> {
    let mut response = http::Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(serde_json::to_vec(body)?))?;
    add_cors_headers(response.headers_mut());
    Ok(response)
}

/// Adds the CORS headers that Synapse sends.
pub fn add_cors_headers(headers: &mut http::HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("X-Requested-With, Content-Type, Authorization, Date"),
    );
}

/// The value of a parameter of the request's query, percent-decoded; the first if there are several.
///
/// # Errors
/// It is not there: 400 `M_MISSING_PARAM`.
pub fn query_parameter(request: &WebRequest, name: &str) -> Result<String, MatrixError> {
    form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
        .ok_or_else(|| MatrixError::new(400, "M_MISSING_PARAM", format!("missing query parameter {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_relative_and_unreachable_paths_are_refused() {
        let bad = [
            "x",
            "",
            "/health",
            "/_matrix/client/x",
            "/_synapse/admin",
            "/_ganglion/",
            "/a//b",
            "/a/../b",
            "/a?b",
        ];
        for path in bad {
            assert!(ResourcePath::new(path).is_err(), "{path}");
        }
        for (path, kept) in [
            ("/x/", "/x"),
            ("/", ""),
            ("/_matrix/clientx", "/_matrix/clientx"),
            ("/a/{id}", "/a/{id}"),
        ] {
            assert_eq!(ResourcePath::new(path).unwrap().as_str(), kept);
        }
    }
}
