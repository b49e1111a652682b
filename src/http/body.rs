//! Reads request bodies, up to a limit of size and of time.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::Deserialize as _;
use serde_json::Value;

use super::error::HttpError;

/// How long a client may take to send a body; who is slower holds a connection for nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// How deeply a body may be nested: twice what Synapse accepts of an event, and far from what a stack holds.
const MAX_NESTING: usize = 256;

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
    let not_json = |error| HttpError::bad_request("M_NOT_JSON", format!("the body is not JSON: {error}"));
    if brackets(&body) > MAX_NESTING && nesting(&body) > MAX_NESTING {
        return Err(HttpError::bad_request("M_BAD_JSON", "the body is nested too deeply"));
    }
    // serde_json's own limit is that of a bare event in Synapse; an event inside of args lies deeper, and one that was
    // refused here could pass by its sender's `fail_open`.
    let mut json = serde_json::Deserializer::from_slice(&body);
    json.disable_recursion_limit();
    let value = Value::deserialize(&mut json).map_err(not_json)?;
    json.end().map_err(not_json)?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(HttpError::bad_request(
            "M_BAD_JSON",
            "the body is JSON, but not an object",
        ))
    }
}

/// How many brackets open, those in strings too: no body is nested more deeply, and most have so few that nobody need look
/// closer.
fn brackets(json: &[u8]) -> usize {
    json.iter().filter(|byte| matches!(byte, b'[' | b'{')).count()
}

/// How deeply brackets outside of strings are nested.
fn nesting(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_nest_nothing() {
        assert_eq!(nesting(br#"{"a": ["[[", "\"[{", {}], "b": []}"#), 3);
        assert_eq!(nesting(b"]]]["), 1);
        assert_eq!(brackets(br#"{"a": ["[[", "\"[{", {}], "b": []}"#), 8);
    }
}
