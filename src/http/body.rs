//! Reads request bodies, up to a limit of size and of time.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde_json::Value;

use super::error::HttpError;
use crate::json::{self, ReadError};

/// How long a client may take to send a body; who is slower holds a connection for nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads a whole body.
pub(super) async fn read(payload: web::Payload, limit: usize) -> Result<Bytes, HttpError> {
    let read = tokio::time::timeout(PATIENCE, gather(payload, limit)).await;
    read.unwrap_or_else(|_elapsed| {
        Err(HttpError::new(
            StatusCode::REQUEST_TIMEOUT,
            "M_UNKNOWN",
            "the body took too long to arrive",
        ))
    })
}

async fn gather(mut payload: web::Payload, limit: usize) -> Result<Bytes, HttpError> {
    // Most bodies come in one piece, which need not be copied.
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| HttpError::bad_request("M_UNKNOWN", "the body did not arrive whole"))?;
        if first.len().max(whole.len()) + chunk.len() > limit {
            let error = format!("the body is larger than {limit} bytes");
            return Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", error));
        }
        if first.is_empty() {
            first = chunk;
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// Reads a body that is a JSON object, whatever its Content-Type says.
pub(super) async fn read_object(payload: web::Payload, limit: usize) -> Result<Value, HttpError> {
    let body = read(payload, limit).await?;
    let value: Value = json::read(&body).map_err(|error| match error {
        ReadError::TooDeep => HttpError::bad_request("M_BAD_JSON", "the body is nested too deeply"),
        ReadError::NotJson(error) => HttpError::bad_request("M_NOT_JSON", format!("the body is not JSON: {error}")),
    })?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(HttpError::bad_request(
            "M_BAD_JSON",
            "the body is JSON, but not an object",
        ))
    }
}
