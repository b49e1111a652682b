//! `/_ganglion/admin/v1/modules`: looking at modules, and telling them what to do.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use ganglion_actors::{ModuleCommand, ModuleHandle, ModuleSnapshot};
use serde::Serialize;

use super::Surface;
use super::body::read;
use super::detached;
use super::error::{HttpError, use_get, use_post};
use crate::config::near;
use crate::ganglion::CommandError;

const SCOPE: &str = "/_ganglion/admin/v1/modules";

/// A command that is no event in the module's life, and is never refused.
const CLEAR_POISON: &str = "clear_poison";

pub(super) fn mount(config: &mut web::ServiceConfig) {
    let all = web::resource(SCOPE)
        .route(web::get().to(list))
        .route(web::head().to(list))
        .default_service(web::to(use_get));
    let one = web::resource(format!("{SCOPE}/{{id}}"))
        .route(web::get().to(show))
        .route(web::head().to(show))
        .default_service(web::to(use_get));
    let clear_poison = web::resource(format!("{SCOPE}/{{id}}/{CLEAR_POISON}"))
        .route(web::post().to(clear_poison))
        .default_service(web::to(use_post));
    let command = web::resource(format!("{SCOPE}/{{id}}/{{command}}"))
        .route(web::post().to(order))
        .default_service(web::to(use_post));
    config.service(all).service(one).service(clear_poison).service(command);
}

#[derive(Serialize)]
struct Modules {
    modules: Vec<ModuleSnapshot>,
}

/// Every module, in the order of the file.
async fn list(surface: web::Data<Surface>) -> HttpResponse {
    let modules = surface.ganglion.dispatch().modules();
    HttpResponse::Ok().json(Modules {
        modules: modules.iter().map(ModuleHandle::snapshot).collect(),
    })
}

async fn show(id: web::Path<String>, surface: web::Data<Surface>) -> Result<HttpResponse, HttpError> {
    let module = surface.ganglion.dispatch().module(&id);
    let module = module.ok_or_else(|| unknown(&id, &surface))?;
    Ok(HttpResponse::Ok().json(module.snapshot()))
}

async fn order(
    path: web::Path<(String, String)>,
    payload: web::Payload,
    surface: web::Data<Surface>,
) -> Result<HttpResponse, HttpError> {
    let (id, word) = path.into_inner();
    let Some(command) = ModuleCommand::from_word(&word) else {
        let mut commands = ModuleCommand::ALL.map(ModuleCommand::as_str).to_vec();
        commands.push(CLEAR_POISON);
        let (hint, commands) = (near(&word, commands.iter().copied()), commands.join(", "));
        return Err(HttpError::unrecognized(format!(
            "unknown command{hint}; the commands are {commands}"
        )));
    };
    // Nothing is in it, but a connection goes on only after it.
    read(payload, surface.max_body).await?;
    let (ganglion, module) = (surface.ganglion.clone(), id.clone());
    match detached(async move { ganglion.command(&module, command).await }).await {
        Ok(snapshot) => Ok(HttpResponse::Ok().json(snapshot)),
        Err(error) => Err(not_followed(&error, &id, &surface)),
    }
}

async fn clear_poison(
    id: web::Path<String>,
    payload: web::Payload,
    surface: web::Data<Surface>,
) -> Result<HttpResponse, HttpError> {
    read(payload, surface.max_body).await?;
    match surface.ganglion.clear_poison(&id) {
        Ok(snapshot) => Ok(HttpResponse::Ok().json(snapshot)),
        Err(error) => Err(not_followed(&error, &id, &surface)),
    }
}

fn not_followed(error: &CommandError, id: &str, surface: &Surface) -> HttpError {
    match error {
        CommandError::UnknownModule => unknown(id, surface),
        CommandError::Refused(refused) => HttpError::new(StatusCode::CONFLICT, "M_BAD_STATE", refused.to_string()),
    }
}

pub(super) fn unknown(id: &str, surface: &Surface) -> HttpError {
    let modules = surface.ganglion.dispatch().modules();
    let hint = near(id, modules.iter().map(ModuleHandle::id));
    let error = format!("{}{hint}", CommandError::UnknownModule);
    HttpError::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", error)
}
