//! Modules' web resources.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use bytes::Bytes;
use ganglion_api::{FailureKind, WebRequest, WebResponse, add_cors_headers};
use ganglion_dispatcher::{MountedResource, Served};
use serde_json::json;

use super::Surface;
use super::body::read;
use super::context::client;
use super::error::{HttpError, matrix_error};

/// Headers that speak of one connection, not of the answer.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn mount(config: &mut web::ServiceConfig) {
    config.default_service(web::to(answer));
}

async fn answer(request: HttpRequest, payload: web::Payload, surface: web::Data<Surface>) -> HttpResponse {
    if request.method() == actix_web::http::Method::OPTIONS {
        return with_cors(HttpResponse::NoContent().finish());
    }
    respond(&request, payload, &surface)
        .await
        .unwrap_or_else(|error| with_cors(error.error_response()))
}

async fn respond(request: &HttpRequest, payload: web::Payload, surface: &Surface) -> Result<HttpResponse, HttpError> {
    let dispatch = surface.ganglion.dispatch();
    let nothing = || HttpError::unrecognized("nothing is here");
    dispatch.resources().find(request.path()).ok_or_else(nothing)?;
    // A module may keep it, and with a piece of the connection's buffer all of that.
    let body = Bytes::copy_from_slice(&read(payload, surface.max_body).await?);
    // Looked up again: a body may take its time, and the module may have been made anew meanwhile.
    let resources = dispatch.resources();
    let mounted = resources.find(request.path()).ok_or_else(nothing)?;
    let client = client(request);
    let request = to_module(request, body)
        .ok_or_else(|| HttpError::bad_request("M_UNKNOWN", "the request cannot be passed on"))?;
    let served = dispatch.respond(mounted, request, client).await;
    from_module(seen_by_client(mounted, served)).ok_or_else(|| HttpError::internal("the module's answer has no status"))
}

/// What a client sees of what a module answered, or of its failure: the reason stays in the log.
pub(crate) fn seen_by_client(mounted: &MountedResource, served: Served) -> WebResponse {
    let module = mounted.module().id();
    let (status, body) = match served {
        Ok(Ok(response)) => return response,
        Ok(Err(error)) => matrix_error(module, error),
        Err(failure) => {
            let detail = failure.detail.as_deref().unwrap_or_default();
            tracing::warn!(module, kind = %failure.kind, detail, path = %mounted.path, "web resource failed");
            (
                status_of(failure.kind),
                json!({"errcode": "M_UNKNOWN", "error": "the module that answers here failed"}),
            )
        }
    };
    let mut response = WebResponse::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    add_cors_headers(response.headers_mut());
    response
}

/// The status of a failure.
fn status_of(failure: FailureKind) -> http::StatusCode {
    match failure {
        FailureKind::Overloaded | FailureKind::NotRunning | FailureKind::BreakerOpen | FailureKind::Quarantined => {
            http::StatusCode::SERVICE_UNAVAILABLE
        }
        FailureKind::DeadlineExceeded => http::StatusCode::GATEWAY_TIMEOUT,
        _ => http::StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// actix-web has request types of its own, from an older version of the `http` crate.
fn to_module(request: &HttpRequest, body: bytes::Bytes) -> Option<WebRequest> {
    let uri = request.uri().path_and_query()?.as_str();
    let mut converted = http::Request::builder().method(request.method().as_str()).uri(uri);
    for (name, value) in request.headers() {
        converted = converted.header(name.as_str(), value.as_bytes());
    }
    converted.body(body).ok()
}

fn from_module(response: WebResponse) -> Option<HttpResponse> {
    let status = StatusCode::from_u16(response.status().as_u16())
        .ok()
        .filter(|status| status.as_u16() >= 200)?;
    let mut converted = HttpResponse::build(status);
    for (name, value) in response.headers() {
        if !HOP_BY_HOP.contains(&name.as_str()) {
            converted.append_header((name.as_str(), value.as_bytes()));
        }
    }
    Some(converted.body(response.into_body()))
}

fn with_cors(mut response: HttpResponse) -> HttpResponse {
    let mut cors = http::HeaderMap::new();
    add_cors_headers(&mut cors);
    let headers: &mut HeaderMap = response.headers_mut();
    for (name, value) in &cors {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.insert(name, value);
        }
    }
    response
}
