//! Extra fields of a denial or a Matrix error: what may go out beside `errcode` and `error`.
//!
//! Synapse lets extra fields override the standard ones, and never answers a request whose error has a field `msg` or
//! `code`. The first is kept and said; the second is dropped.

use ganglion_api::{Denial, ErrorCode, JsonObject, MatrixError};
use serde_json::Value;

/// Cleans a denial; says what was changed.
pub(crate) fn clean_denial(denial: &mut Denial) -> Vec<String> {
    let mut notes = Vec::new();
    drop_reserved(&mut denial.fields, &mut notes);
    if let Some(errcode) = take_text(&mut denial.fields, "errcode", &mut notes) {
        denial.errcode = ErrorCode::from(errcode);
    }
    if let Some(error) = take_text(&mut denial.fields, "error", &mut notes) {
        denial.error = Some(error);
    }
    notes
}

/// Cleans a module's own error for the client; says what was changed.
pub fn clean_error(matrix: &mut MatrixError) -> Vec<String> {
    let mut notes = Vec::new();
    drop_reserved(&mut matrix.fields, &mut notes);
    if let Some(errcode) = take_text(&mut matrix.fields, "errcode", &mut notes) {
        matrix.errcode = ErrorCode::from(errcode);
    }
    if let Some(error) = take_text(&mut matrix.fields, "error", &mut notes) {
        matrix.error = error;
    }
    notes
}

fn drop_reserved(fields: &mut JsonObject, notes: &mut Vec<String>) {
    for key in ["msg", "code"] {
        if fields.remove(key).is_some() {
            notes.push(format!("field {key} dropped: Synapse would never answer the request"));
        }
    }
}

fn take_text(fields: &mut JsonObject, key: &str, notes: &mut Vec<String>) -> Option<String> {
    match fields.remove(key)? {
        Value::String(text) => {
            notes.push(format!("{key} replaced by the field of this name"));
            Some(text)
        }
        _ => {
            notes.push(format!("field {key} dropped: it is no string"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_overrides_and_the_rest_of_the_reserved_is_dropped() {
        let mut denial = Denial::forbidden()
            .with_field("errcode", "M_OTHER")
            .with_field("error", json!(7))
            .with_field("msg", "x")
            .with_field("org.x", 1);
        assert_eq!(clean_denial(&mut denial).len(), 3);
        assert_eq!(denial, Denial::new("M_OTHER").with_field("org.x", 1));
    }
}
