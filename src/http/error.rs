//! Errors of our own, in the shape that Matrix clients read, or as text where the antispam dialect wants it.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, ResponseError};
use ganglion_api::MatrixError;
use serde_json::{Value, json};

/// An error of the HTTP surface. Its body is `{"errcode","error"}`, and never has a field `code` or `msg`, on which
/// Synapse would hang.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpError {
    status: StatusCode,
    errcode: &'static str,
    error: String,
}

impl HttpError {
    pub(super) fn new(status: StatusCode, errcode: &'static str, error: impl Into<String>) -> Self {
        Self {
            status,
            errcode,
            error: error.into(),
        }
    }

    pub(super) fn bad_request(errcode: &'static str, error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, errcode, error)
    }

    /// There is nothing at this path.
    pub(super) fn unrecognized(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", error)
    }

    /// Something went wrong on our side.
    pub(super) fn internal(error: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", error)
    }

    /// The answer as plain text.
    pub(super) fn to_text(&self) -> HttpResponse {
        HttpResponse::build(self.status)
            .content_type(ContentType::plaintext())
            .body(self.error.clone())
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.errcode, self.error)
    }
}

impl std::error::Error for HttpError {}

impl ResponseError for HttpError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status).json(json!({"errcode": self.errcode, "error": self.error}))
    }
}

/// The body of a module's own error: its fields beside the two standard ones.
pub(super) fn matrix_body(errcode: &str, error: Option<&str>, fields: &ganglion_api::JsonObject) -> Value {
    let mut body = fields.clone();
    body.insert("errcode".into(), errcode.into());
    if let Some(error) = error {
        body.insert("error".into(), error.into());
    }
    Value::Object(body)
}

/// A module's own error for the client of a web resource.
pub(super) fn matrix_error(module: &str, mut error: MatrixError) -> (http::StatusCode, Value) {
    for note in ganglion_dispatcher::clean_error(&mut error) {
        tracing::warn!(module, note, "error of a web resource changed");
    }
    let status = http::StatusCode::from_u16(error.status)
        .ok()
        .filter(|status| status.as_u16() >= 400);
    let body = matrix_body(error.errcode.as_str(), Some(&error.error), &error.fields);
    (status.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR), body)
}

pub(super) async fn nothing_here() -> HttpError {
    HttpError::unrecognized("nothing is here")
}

/// What is here answers to GET and HEAD only.
pub(super) async fn use_get() -> HttpError {
    HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "use GET")
}

/// What is here answers to POST only.
pub(super) async fn use_post() -> HttpError {
    HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "use POST")
}

impl actix_web::Responder for HttpError {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _request: &actix_web::HttpRequest) -> HttpResponse {
        self.error_response()
    }
}
