//! What a request says about its question beside the arguments: who asks, and for how long.

use std::time::Duration;

use actix_web::HttpRequest;
use ganglion_actors::Caller;
use ganglion_dispatcher::AskContext;

use super::error::HttpError;

/// How long the caller waits, in milliseconds from the arrival of the headers on.
const DEADLINE: &str = "x-ganglion-deadline-ms";

/// Who asks: callers are told apart by their address.
pub(super) fn caller(request: &HttpRequest) -> Caller {
    let peer = request.peer_addr();
    peer.map_or(Caller::Unnamed, |peer| Caller::Address(peer.ip().to_canonical()))
}

/// The context of a question. Its deadline begins now, so it is made before the body is read.
///
/// # Errors
/// The header `X-Ganglion-Deadline-Ms` is no whole number.
pub(super) fn context(request: &HttpRequest) -> Result<AskContext, HttpError> {
    let context = AskContext::new().caller(caller(request));
    let Some(deadline) = request.headers().get(DEADLINE) else {
        return Ok(context);
    };
    let milliseconds = deadline.to_str().ok().and_then(|text| text.trim().parse().ok());
    let milliseconds = milliseconds.ok_or_else(|| {
        let error = "X-Ganglion-Deadline-Ms: expected a whole number of milliseconds";
        HttpError::bad_request("M_INVALID_PARAM", error)
    })?;
    Ok(context.deadline(Duration::from_millis(milliseconds)))
}
