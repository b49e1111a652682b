//! Liveness and readiness.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};

use super::Surface;
use super::error::HttpError;

pub(super) fn mount(config: &mut web::ServiceConfig) {
    config
        .route("/health", web::get().to(health))
        .route("/health", web::head().to(health))
        .route("/ready", web::get().to(ready))
        .route("/ready", web::head().to(ready));
}

/// The process runs.
async fn health() -> &'static str {
    "OK"
}

/// Every module runs that is not disabled.
async fn ready(surface: web::Data<Surface>) -> Result<HttpResponse, HttpError> {
    let dispatch = surface.ganglion.dispatch();
    if dispatch.is_ready() {
        return Ok(HttpResponse::Ok().body("OK"));
    }
    let absent: Vec<_> = dispatch.absent().map(ganglion_actors::ModuleHandle::id).collect();
    let error = format!("not running: {}", absent.join(", "));
    Err(HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", error))
}
