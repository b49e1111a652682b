//! Who may use the admin listener: no foreign web page, and nobody without the token.

use std::net::IpAddr;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use actix_web::http::{StatusCode, Uri};
use actix_web::middleware::Next;
use actix_web::{Error, ResponseError as _, web};
use ganglion_api::is_at_or_below;

use super::error::HttpError;
use super::{Listener, Surface, antispam};
use crate::config::{Token, bearer};

/// Lets a request pass, or answers it.
pub(super) async fn check(
    surface: web::Data<Surface>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody + 'static>>, Error> {
    let allowed = match surface.listener {
        // actix takes the body of such a request for a stream without an end.
        _ if request.head().upgrade() => Err(HttpError::bad_request("M_UNKNOWN", "upgrades are not supported")),
        Listener::Http => Ok(()),
        Listener::Admin => allow(&request, surface.token.as_ref()),
    };
    match allowed {
        Ok(()) => next.call(request).await.map(ServiceResponse::map_into_left_body),
        Err(error) => {
            let antispam = is_at_or_below(request.path(), antispam::SCOPE);
            let response = if antispam {
                error.to_text()
            } else {
                error.error_response()
            };
            Ok(request.into_response(response).map_into_right_body())
        }
    }
}

fn allow(request: &ServiceRequest, token: Option<&Token>) -> Result<(), HttpError> {
    let host = header(request, &HOST);
    if let Some(origin) = header(request, &ORIGIN)
        && !is_own_origin(origin, host)
    {
        return Err(forbidden("a web page of another origin may not ask here"));
    }
    let Some(token) = token else {
        // A page that makes its own name point to loopback is foreign too. Without a Host it is no browser.
        return match host {
            Some(host) if !is_loopback(host) => Err(forbidden(
                "without a token only a loopback name may be in the Host header",
            )),
            _ => Ok(()),
        };
    };
    if matches!(request.path(), "/health" | "/ready") {
        return Ok(());
    }
    let unauthorized = |errcode, error| Err(HttpError::new(StatusCode::UNAUTHORIZED, errcode, error));
    match header(request, &AUTHORIZATION).and_then(bearer) {
        None => unauthorized(
            "M_MISSING_TOKEN",
            "an Authorization header with a Bearer token is needed",
        ),
        Some(given) if token.matches(given) => Ok(()),
        Some(_) => unauthorized("M_UNKNOWN_TOKEN", "the token is not known"),
    }
}

fn forbidden(error: &str) -> HttpError {
    HttpError::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", error)
}

fn header<'a>(request: &'a ServiceRequest, name: &HeaderName) -> Option<&'a str> {
    // A value that is no text matches nothing.
    request.headers().get(name).map(|value| value.to_str().unwrap_or(""))
}

/// Whether an origin names the very host that the request went to.
fn is_own_origin(origin: &str, host: Option<&str>) -> bool {
    let (Ok(origin), Some(host)) = (origin.parse::<Uri>(), host) else {
        return false;
    };
    origin
        .authority()
        .is_some_and(|authority| authority.as_str().eq_ignore_ascii_case(host))
}

/// Whether a Host header names this machine itself.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<actix_web::http::uri::Authority>() else {
        return false;
    };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in [
            "localhost",
            "localhost:9009",
            "127.0.0.1:9009",
            "127.8.9.1",
            "[::1]:9009",
            "LOCALHOST",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "10.0.0.1",
            "[::2]:80",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn an_origin_is_our_own_only_with_the_same_host_and_port() {
        assert!(is_own_origin("http://localhost:9009", Some("localhost:9009")));
        for origin in [
            "null",
            "http://localhost",
            "http://evil.example",
            "http://localhost:9009.evil.example",
            "",
        ] {
            assert!(!is_own_origin(origin, Some("localhost:9009")), "{origin}");
        }
    }
}
