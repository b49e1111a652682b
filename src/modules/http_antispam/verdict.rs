//! What an answer of the server means. Pure.

use ganglion_api::{Denial, Verdict};
use serde::Deserialize;
use serde_json::Value;

use super::super::http_client::{Answer, ServiceError};

/// What the client is told where `fail_open` is false.
const NO_ANSWER: &str = "the antispam server gave no answer";

/// Which answers are denials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// Every JSON object that is no success, as synapse-http-antispam takes it.
    #[default]
    Compat,
    /// Only 400 and 403, and only with an error code.
    Strict,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoVerdict {
    /// There was no answer.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The answer is no verdict.
    #[error("{service} answered {status} with a body that is no verdict")]
    Other {
        /// The origin of the server.
        service: String,
        /// The HTTP status.
        status: u16,
    },
}

/// The verdict of an answer; `None` if it is none.
pub(super) fn read(mode: Mode, answer: &Answer) -> Option<Verdict> {
    if answer.is_success() {
        // What is in it does not count, but that it is JSON does: the login page of a proxy in between passes nothing.
        let is_verdict = answer.body.trim_ascii().is_empty() || answer.json().is_some();
        return is_verdict.then_some(Verdict::Pass);
    }
    let Some(Value::Object(mut fields)) = answer.json() else {
        return None;
    };
    let has_errcode = fields.get("errcode").is_some_and(Value::is_string);
    if mode == Mode::Strict && !(has_errcode && matches!(answer.status, 400 | 403)) {
        return None;
    }
    let mut text = |key: &str| match fields.remove(key) {
        Some(Value::String(text)) => Some(text),
        Some(other) => {
            // Whoever passes the denial on drops it, and says so.
            fields.insert(key.to_owned(), other);
            None
        }
        None => None,
    };
    let mut denial = text("errcode").map_or_else(Denial::forbidden, Denial::new);
    denial.error = text("error");
    denial.fields = fields;
    Some(Verdict::Deny(denial))
}

/// What a question comes to, where `fail_open` says what a failure counts as. Where it does not, a failure is one.
pub(super) fn settle<E>(asked: Result<Verdict, E>, fail_open: Option<bool>) -> Result<Verdict, E> {
    asked.or_else(|failed| match fail_open {
        None => Err(failed),
        Some(true) => Ok(Verdict::Pass),
        Some(false) => Ok(Verdict::Deny(Denial::new("M_UNKNOWN").with_error(NO_ANSWER))),
    })
}

/// Whether this is the answer to the ping with this id.
pub(super) fn is_pong(answer: &Answer, id: &str) -> bool {
    let pong = answer.json().filter(|_| answer.is_success());
    pong.is_some_and(|pong| pong["id"] == id && pong["status"] == "ok")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What the body of an answer is.
    #[derive(Debug, Clone, Copy)]
    enum Body {
        Nothing,
        Text,
        List,
        Object,
        WithErrcode,
        WithOddErrcode,
    }

    impl Body {
        fn text(self) -> String {
            match self {
                Self::Nothing => String::new(),
                Self::Text => "Missing access token".to_owned(),
                Self::List => "[]".to_owned(),
                Self::Object => json!({"error": "no", "org.x": 1}).to_string(),
                Self::WithErrcode => json!({"errcode": "ORG_X", "error": "no", "org.x": 1}).to_string(),
                Self::WithOddErrcode => json!({"errcode": 7, "error": "no", "org.x": 1}).to_string(),
            }
        }
    }

    /// What comes of a question: a pass, a denial with this code, or a failure.
    #[derive(Debug, PartialEq)]
    enum Comes {
        Pass,
        Deny(String),
        Failure,
    }

    /// The tables of the documents, row by row.
    fn expected(mode: Mode, status: u16, body: Body, fail_open: Option<bool>) -> Comes {
        let failure = || match fail_open {
            Some(true) => Comes::Pass,
            Some(false) => Comes::Deny("M_UNKNOWN".into()),
            None => Comes::Failure,
        };
        match (mode, status, body) {
            (_, 200..=299, Body::Text) => failure(),
            (_, 200..=299, _) => Comes::Pass,
            (_, _, Body::Nothing | Body::Text | Body::List) => failure(),
            (_, 400 | 403, Body::WithErrcode) | (Mode::Compat, _, Body::WithErrcode) => Comes::Deny("ORG_X".into()),
            (Mode::Compat, _, Body::Object | Body::WithOddErrcode) => Comes::Deny("M_FORBIDDEN".into()),
            (Mode::Strict, _, _) => failure(),
        }
    }

    proptest! {
        #[test]
        fn an_answer_is_what_the_tables_say(
            mode in prop_oneof![Just(Mode::Compat), Just(Mode::Strict)],
            status in prop_oneof![Just(200_u16), Just(400), Just(401), Just(403), Just(500), 200_u16..600],
            body in prop_oneof![
                Just(Body::Nothing), Just(Body::Text), Just(Body::List),
                Just(Body::Object), Just(Body::WithErrcode), Just(Body::WithOddErrcode),
            ],
            fail_open: Option<bool>,
        ) {
            let answer = Answer { status, body: body.text().into() };
            let read = read(mode, &answer);
            if let Some(Verdict::Deny(denial)) = &read {
                prop_assert_eq!(denial.error.as_deref(), Some("no"));
                prop_assert_eq!(&denial.fields["org.x"], &json!(1));
                prop_assert_eq!(denial.fields.contains_key("errcode"), matches!(body, Body::WithOddErrcode));
            }
            let found = match settle(read.ok_or(()), fail_open) {
                Ok(Verdict::Pass) => Comes::Pass,
                Ok(Verdict::Deny(denial)) => Comes::Deny(denial.errcode.to_string()),
                Err(()) => Comes::Failure,
            };
            prop_assert_eq!(found, expected(mode, status, body, fail_open));
        }
    }

    #[test]
    fn a_pong_has_the_id_of_its_ping() {
        let pong = |status, body: Value| Answer {
            status,
            body: body.to_string().into(),
        };
        assert!(is_pong(&pong(200, json!({"id": "abc", "status": "ok"})), "abc"));
        for wrong in [
            pong(200, json!({"id": "abd", "status": "ok"})),
            pong(200, json!({"id": "abc"})),
            pong(200, json!([])),
            pong(403, json!({"id": "abc", "status": "ok"})),
        ] {
            assert!(!is_pong(&wrong, "abc"));
        }
    }
}
