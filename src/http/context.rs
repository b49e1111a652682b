//! What a request says about its question beside the arguments: who asks, and for how long.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use actix_web::HttpRequest;
use ganglion_actors::Caller;
use ganglion_dispatcher::AskContext;

use super::error::HttpError;

/// How long the caller waits, in milliseconds from the arrival of the headers on.
const DEADLINE: &str = "x-ganglion-deadline-ms";

/// Who asks a web resource.
pub(super) fn client(request: &HttpRequest) -> Caller {
    network(request).map_or(Caller::Unnamed, Caller::Client)
}

/// Callers are told apart by their address. All of an IPv6 network of 64 bits is one, since whoever has one of its addresses
/// has them all.
fn network(request: &HttpRequest) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    Some(match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    })
}

/// The context of a question. Its deadline begins now, so it is made before the body is read.
///
/// # Errors
/// The header `X-Ganglion-Deadline-Ms` is no whole number.
pub(super) fn context(request: &HttpRequest) -> Result<AskContext, HttpError> {
    let caller = network(request).map_or(Caller::Unnamed, Caller::Address);
    let context = AskContext::new().caller(caller);
    let Some(deadline) = request.headers().get(DEADLINE) else {
        return Ok(context);
    };
    let digits = deadline.to_str().map_or("", str::trim);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let error = "X-Ganglion-Deadline-Ms: expected a whole number of milliseconds";
        return Err(HttpError::bad_request("M_INVALID_PARAM", error));
    }
    // One that is too large for a number is longer than any other.
    let milliseconds = digits.parse().unwrap_or(u64::MAX);
    Ok(context.deadline(Duration::from_millis(milliseconds)))
}
