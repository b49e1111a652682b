//! `/_ganglion/admin/v1/caches`: looking at modules' cached functions, and telling them to forget.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use ganglion_actors::{CacheStatistics, NotForgotten};
use serde::Serialize;

use super::Surface;
use super::body::read;
use super::error::{HttpError, use_get, use_post};
use super::modules;
use crate::config::near;
use crate::ganglion::Ganglion;

const SCOPE: &str = "/_ganglion/admin/v1/caches";

pub(super) fn mount(config: &mut web::ServiceConfig) {
    let all = web::resource(SCOPE)
        .route(web::get().to(list))
        .route(web::head().to(list))
        .default_service(web::to(use_get));
    let invalidate = web::resource(format!("{SCOPE}/{{module}}/{{function}}/invalidate"))
        .route(web::post().to(invalidate))
        .default_service(web::to(use_post));
    config.service(all).service(invalidate);
}

#[derive(Serialize)]
struct Caches {
    caches: Vec<CacheStatistics>,
}

/// Every cached function, by module and name.
async fn list(surface: web::Data<Surface>) -> Result<HttpResponse, HttpError> {
    let caches = statistics(&surface.ganglion).await?;
    Ok(HttpResponse::Ok().json(Caches { caches }))
}

/// The statistics of every cache. To read them is to look for what is too old among all results, so it is done where nobody
/// else waits.
pub(super) async fn statistics(ganglion: &Ganglion) -> Result<Vec<CacheStatistics>, HttpError> {
    let ganglion = ganglion.clone();
    let read = web::block(move || ganglion.dispatch().caches().statistics()).await;
    read.map_err(|_| HttpError::internal("the statistics of the caches cannot be read"))
}

/// Forgets all results of a function.
async fn invalidate(
    path: web::Path<(String, String)>,
    payload: web::Payload,
    surface: web::Data<Surface>,
) -> Result<HttpResponse, HttpError> {
    let (module, function) = path.into_inner();
    // Nothing is in it, but a connection goes on only after it.
    read(payload, surface.max_body).await?;
    let dispatch = surface.ganglion.dispatch();
    if dispatch.module(&module).is_none() {
        return Err(modules::unknown(&module, &surface));
    }
    let (ganglion, names) = (surface.ganglion.clone(), (module.clone(), function.clone()));
    let forgotten = web::block(move || ganglion.dispatch().caches().forget_all(&names.0, &names.1)).await;
    match forgotten.map_err(|_| HttpError::internal("the results cannot be forgotten"))? {
        Ok(statistics) => Ok(HttpResponse::Ok().json(statistics)),
        Err(refused @ NotForgotten::Unknown) => {
            let known = statistics(&surface.ganglion).await?;
            let known = known.iter().filter(|cache| cache.module == module);
            let hint = near(&function, known.map(|cache| cache.name.as_str()));
            Err(not_found(format!("{refused}{hint}")))
        }
        Err(refused @ NotForgotten::NotAnnounced) => Err(not_found(refused.to_string())),
    }
}

fn not_found(error: String) -> HttpError {
    HttpError::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", error)
}
