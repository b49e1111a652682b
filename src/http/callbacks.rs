//! `POST /_ganglion/v1/callbacks/{callback}`: arguments in, a decision out.

use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use ganglion_api::JsonError;
use ganglion_dispatcher::{AskContext, AskError, ContinueError, JsonDecision};
use serde_json::Value;

use super::Surface;
use super::body::read_object;
use super::context::context;
use super::detached;
use super::error::{HttpError, nothing_here, use_post};
use crate::config::unknown_callback;

pub(super) fn mount(config: &mut web::ServiceConfig) {
    let callbacks = web::scope("/_ganglion/v1/callbacks");
    config.service(callbacks.default_service(web::to(ask)));
}

async fn ask(
    request: HttpRequest,
    payload: web::Payload,
    surface: web::Data<Surface>,
) -> Result<HttpResponse, HttpError> {
    let (callback, goes_on) = match name(&request) {
        Some(callback) => (callback, false),
        None => match to_continue(&request) {
            Some(callback) => (callback, true),
            None => return Err(nothing_here().await),
        },
    };
    if request.method() != Method::POST {
        return Err(use_post().await);
    }
    if ganglion_api::spec(callback).is_none() {
        return Err(unknown(callback));
    }
    let context = context(&request)?;
    let args = read_object(payload, surface.max_body).await?;
    if goes_on {
        return continue_detached(&surface, context, callback, args).await;
    }
    match ask_detached(&surface, context, callback, args).await {
        Ok(decision) => Ok(HttpResponse::Ok().json(decision)),
        Err(AskError::Args(error)) => Err(args_error(&error)),
        Err(_) => Err(unknown(callback)),
    }
}

/// The callback that the path names below its scope. A pattern in the scope would do the same with a regular expression, which
/// took an eighth of the time of a request.
pub(super) fn name(request: &HttpRequest) -> Option<&str> {
    let name = request.match_info().unprocessed().strip_prefix('/')?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// The callback whose work for later goes on: `{callback}/continue`.
fn to_continue(request: &HttpRequest) -> Option<&str> {
    let path = request.match_info().unprocessed().strip_prefix('/')?;
    let callback = path.strip_suffix("/continue")?;
    (!callback.is_empty() && !callback.contains('/')).then_some(callback)
}

/// Lets work for later go on, in a task of its own.
async fn continue_detached(
    surface: &Surface,
    context: AskContext,
    callback: &str,
    mut input: Value,
) -> Result<HttpResponse, HttpError> {
    let token = match input.as_object_mut().and_then(|input| input.remove("token")) {
        None | Some(Value::Null) => return Err(HttpError::bad_request("M_MISSING_PARAM", "token: missing")),
        Some(Value::String(token)) => token,
        Some(_) => {
            return Err(HttpError::bad_request("M_INVALID_PARAM", "token: expected a string"));
        }
    };
    let (ganglion, callback) = (surface.ganglion.clone(), callback.to_owned());
    let continued = detached(async move { ganglion.continue_json_in(context, &callback, &token, input).await });
    match continued.await {
        Ok(decision) => Ok(HttpResponse::Ok().json(decision)),
        Err(ContinueError::Args(error)) => Err(args_error(&error)),
        Err(error @ ContinueError::Gone) => {
            Err(HttpError::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", error.to_string()))
        }
        Err(error) => Err(HttpError::unrecognized(error.to_string())),
    }
}

/// Asks in a task of its own: a client that goes away does not take the question with it.
pub(super) async fn ask_detached(
    surface: &Surface,
    context: AskContext,
    callback: &str,
    args: Value,
) -> Result<JsonDecision, AskError> {
    let (ganglion, callback) = (surface.ganglion.clone(), callback.to_owned());
    detached(async move { ganglion.ask_json_in(context, &callback, args).await }).await
}

fn unknown(callback: &str) -> HttpError {
    HttpError::unrecognized(unknown_callback(callback))
}

/// What is wrong with the arguments.
pub(super) fn args_error(error: &JsonError) -> HttpError {
    HttpError::bad_request(error.errcode(), error.to_string())
}
