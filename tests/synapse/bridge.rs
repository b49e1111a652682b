//! One module, written for Synapse in Python and for Ganglion in Rust, and clients who cannot tell which of them answers.
//!
//! Each scenario says what Synapse's contract promises, and is played on two homeservers whose answers must then be the
//! same to the byte, as must be what the module was told.

mod accounts;
mod events;
mod logins;
mod media;
mod rooms;

use serde_json::{Value, json};

use crate::client::Reply;

/// The words by which the module refuses: what the client gets, and the whole body where the module words it.
const WORDS: [&str; 7] = [
    "deny",
    "deny-code",
    "deny-fields",
    "deny-text",
    "deny-own",
    "raise-matrix",
    "raise-plain",
];

/// What a client gets for a word of [`WORDS`]; the text is the homeserver's own where it is null.
fn refusal(word: &str) -> (u16, Value) {
    match word {
        "deny" => (403, json!({ "errcode": "M_FORBIDDEN", "error": null })),
        "deny-code" => (403, json!({ "errcode": "M_RESOURCE_LIMIT_EXCEEDED", "error": null })),
        "deny-fields" => (
            403,
            json!({ "errcode": "M_USER_LOCKED", "error": null, "soft_logout": true }),
        ),
        "deny-text" => {
            let why = json!({ "rule": 7 });
            (
                403,
                json!({ "errcode": "M_FORBIDDEN", "error": "not on my server", "org.example.why": why }),
            )
        }
        "deny-own" => (
            403,
            json!({ "errcode": "ORG.EXAMPLE.DENIED", "error": "by a rule of our own" }),
        ),
        "raise-matrix" => (
            429,
            json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "slow down", "retry_after_ms": 2000 }),
        ),
        _ => (500, json!({ "errcode": "M_UNKNOWN", "error": "Internal server error" })),
    }
}

/// Shows that a reply is the refusal of a word of [`WORDS`].
#[track_caller]
fn assert_refused(reply: &Reply, word: &str) {
    let (status, mut body) = refusal(word);
    if body["error"].is_null() {
        assert!(reply.body["error"].is_string(), "{reply:?}");
        body["error"] = reply.body["error"].clone();
    }
    assert_eq!((reply.status, &reply.body), (status, &body), "{word}");
}

/// Shows that a reply is this refusal, whatever its text.
#[track_caller]
fn assert_error(reply: &Reply, status: u16, errcode: &str) {
    assert_eq!(reply.refusal(), (status, errcode), "{reply:?}");
}

/// Shows that a reply is a success.
#[track_caller]
fn assert_ok(reply: &Reply) {
    assert_eq!(reply.status, 200, "{reply:?}");
}
