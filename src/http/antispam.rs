//! `POST /_ganglion/antispam/{callback}`: the protocol of synapse-http-antispam.
//!
//! Its client takes every JSON answer that is no success for a denial, so only a denial is JSON here; everything that
//! went wrong is plain text, and the client's own `fail_open` applies.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use ganglion_dispatcher::AskError;
use serde_json::{Value, json};

use super::Surface;
use super::body::read_object;
use super::callbacks::{args_error, ask_detached, name};
use super::context::context;
use super::error::{HttpError, matrix_body, nothing_here, use_post};

/// Where the dialect is spoken.
pub(super) const SCOPE: &str = "/_ganglion/antispam";

/// The callbacks of the dialect.
pub(crate) const CALLBACKS: [&str; 11] = [
    "check_event_for_spam",
    "federated_user_may_invite",
    "user_may_join_room",
    "accept_make_join",
    "user_may_create_room",
    "user_may_invite",
    "user_may_send_3pid_invite",
    "user_may_create_room_alias",
    "user_may_publish_room",
    "check_username_for_spam",
    "check_login_for_spam",
];

/// How many unknown names are warned about; a caller may make up any number of them.
const MAX_WARNED: usize = 64;

pub(super) fn mount(config: &mut web::ServiceConfig) {
    config.service(web::scope(SCOPE).default_service(web::to(ask)));
}

async fn ask(request: HttpRequest, payload: web::Payload, surface: web::Data<Surface>) -> HttpResponse {
    let Some(callback) = name(&request) else {
        // In text: a slash too many in the client's URL must not deny everything.
        return nothing_here().await.to_text();
    };
    if request.method() != Method::POST {
        return use_post().await.to_text();
    }
    let answered = match callback {
        "ping" => ping(payload, &surface).await,
        name if CALLBACKS.contains(&name) => decide(name, &request, payload, &surface).await,
        name => {
            warn_once(name);
            Ok(pass())
        }
    };
    answered.unwrap_or_else(|error| error.to_text())
}

async fn ping(payload: web::Payload, surface: &Surface) -> Result<HttpResponse, HttpError> {
    let body = read_object(payload, surface.max_body).await?;
    match body.get("id") {
        Some(Value::String(id)) => Ok(HttpResponse::Ok().json(json!({"id": id, "status": "ok"}))),
        _ => Err(HttpError::bad_request("M_MISSING_PARAM", "id: missing")),
    }
}

async fn decide(
    callback: &str,
    request: &HttpRequest,
    payload: web::Payload,
    surface: &Surface,
) -> Result<HttpResponse, HttpError> {
    let context = context(request)?;
    let mut args = read_object(payload, surface.max_body).await?;
    if callback == "user_may_join_room" && args["is_invited"].is_null() {
        // The only argument that callers of the dialect may leave out and the callback itself needs.
        args["is_invited"] = Value::Bool(false);
    }
    match ask_detached(surface, context, callback, args).await {
        Ok(decision) => Ok(answer(&decision.outcome)),
        Err(AskError::Args(error)) => Err(args_error(&error)),
        Err(error) => Err(HttpError::unrecognized(error.to_string())),
    }
}

fn pass() -> HttpResponse {
    HttpResponse::Ok().json(json!({}))
}

/// A decision in the words of the dialect.
fn answer(outcome: &Value) -> HttpResponse {
    let own_error = outcome["status"]
        .as_u64()
        .is_some_and(|status| (400..500).contains(&status));
    match outcome["verdict"].as_str() {
        Some("pass") => pass(),
        Some("deny") => deny(outcome),
        // A module's own error for the client; its status is lost.
        Some("error") if own_error => deny(outcome),
        _ => HttpError::internal("Internal server error").to_text(),
    }
}

fn deny(outcome: &Value) -> HttpResponse {
    let errcode = outcome["errcode"].as_str().unwrap_or("M_FORBIDDEN");
    let none = ganglion_api::JsonObject::new();
    let fields = outcome["fields"].as_object().unwrap_or(&none);
    HttpResponse::Forbidden().json(matrix_body(errcode, outcome["error"].as_str(), fields))
}

/// Says once that a name is unknown; it passes all the same, as its senders expect.
fn warn_once(name: &str) {
    static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.len() < MAX_WARNED && warned.insert(name.to_owned()) {
        tracing::warn!(callback = name, "the antispam dialect has no such callback: it passes");
    }
}
