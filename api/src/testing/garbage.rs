//! Answers that are no proper ones.

use serde_json::{Value, json};

use crate::callback::Callback;
use crate::failure::{MatrixError, ModuleError};

/// How long the text is that is too long for any client.
const LONG: usize = 1024 * 1024;

const CONTROL: &str = "M_\0GARBAGE\r\nX-Injected: yes\u{1b}[31m\u{202e}";

/// Statuses that no error has.
const STATUSES: [u16; 2] = [7, 200];

/// The `nth` answer of this kind, from 1: by turns a denial, where the callback has one, and an error.
pub(super) fn answer<C: Callback>(nth: u64) -> Result<C::Answer, ModuleError> {
    if C::SPEC.combine.has_deny_verdict() && !nth.is_multiple_of(2) {
        let denial = json!({
            "verdict": "deny",
            "errcode": CONTROL,
            "error": "x".repeat(LONG),
            "fields": hostile_fields(),
        });
        // A callback may have no denial of this form; the error is garbage enough then.
        if let Ok(answer) = C::read_answer(denial) {
            return Ok(answer);
        }
    }
    Err(error(nth).into())
}

/// The `nth` error of this kind.
pub(super) fn error(nth: u64) -> MatrixError {
    // Every second answer may be a denial: the statuses take turns all the same.
    let status = STATUSES[usize::from((nth / 2).is_multiple_of(2))];
    let mut error = MatrixError::new(status, CONTROL, "x".repeat(LONG));
    if let Value::Object(fields) = hostile_fields() {
        error.fields.extend(fields);
    }
    error
}

/// Fields that must not go out, or not as they are.
fn hostile_fields() -> Value {
    json!({
        "msg": "reserved: a homeserver hangs on it",
        "code": 200,
        "errcode": {"not": "a text"},
        "error": ["not", "a text"],
        "status": 200,
        "retry_after_ms": -1,
        "": "",
        CONTROL: CONTROL,
    })
}
