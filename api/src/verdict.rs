//! The answers of gating callbacks. No boolean decides here: Synapse's `True` means deny in one callback and allow in
//! the next, so its old forms are understood at the Python edge and nowhere else.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::Serialize;
use serde_json::{Value, json};

use crate::json::{Fields, FromJson, JsonError, JsonObject, JsonPath};

/// A Matrix error code, such as `M_FORBIDDEN`. Any string is one: the specification lets servers define their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ErrorCode(String);

impl ErrorCode {
    /// `M_FORBIDDEN`, what a denial carries if the module does not say otherwise.
    #[must_use]
    pub fn forbidden() -> Self {
        Self("M_FORBIDDEN".into())
    }

    /// `M_UNKNOWN`, for errors that no other code describes.
    #[must_use]
    pub fn unknown() -> Self {
        Self("M_UNKNOWN".into())
    }

    /// The code as it goes out.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for ErrorCode {
    fn from(code: T) -> Self {
        Self(code.into())
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why something is denied, as the client will see it.
///
/// Source: what Synapse sends for `Codes`, `(Codes, dict)` and a plain `False`.
#[derive(Clone, PartialEq)]
pub struct Denial(Box<DenialBody>);

/// What a [`Denial`] says, which derefs to it. Most answers are none, so it is apart from them: they stay small.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DenialBody {
    /// The error code for the client; `M_FORBIDDEN` by default.
    pub errcode: ErrorCode,
    /// The text for the client; without one the homeserver words it.
    pub error: Option<String>,
    /// Further fields of the error's JSON body.
    pub fields: JsonObject,
}

impl Deref for Denial {
    type Target = DenialBody;

    fn deref(&self) -> &DenialBody {
        &self.0
    }
}

impl DerefMut for Denial {
    fn deref_mut(&mut self) -> &mut DenialBody {
        &mut self.0
    }
}

impl fmt::Debug for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Denial {
    /// A denial with this code, no text and no further fields.
    pub fn new(errcode: impl Into<ErrorCode>) -> Self {
        Self(Box::new(DenialBody {
            errcode: errcode.into(),
            error: None,
            fields: JsonObject::new(),
        }))
    }

    /// The plain denial: `M_FORBIDDEN`, worded by the homeserver.
    #[must_use]
    pub fn forbidden() -> Self {
        Self::new(ErrorCode::forbidden())
    }

    /// Adds the text for the client.
    #[must_use]
    pub fn with_error(mut self, error: impl Into<String>) -> Self {
        self.error = Some(error.into());
        self
    }

    /// Adds a field of the error's body. Keys `msg` and `code` are dropped on the way out, since Synapse would never
    /// answer the request; `errcode` and `error` replace the denial's own if they are strings.
    #[must_use]
    pub fn with_field(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(key.into(), value.into());
        self
    }

    /// Reads the keys `errcode`, `error` and `fields`, each with its default.
    pub(crate) fn take(fields: &mut Fields<'_>) -> Result<Self, JsonError> {
        Ok(Self(Box::new(DenialBody {
            errcode: fields
                .optional::<Option<String>>("errcode")?
                .map_or_else(ErrorCode::forbidden, ErrorCode::from),
            error: fields.optional("error")?,
            fields: fields.optional("fields")?,
        })))
    }

    fn to_json(&self) -> Value {
        json!({"verdict": "deny", "errcode": self.errcode, "error": self.error, "fields": self.fields})
    }
}

/// Which verdict an answer is, without its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictKind {
    /// No objection; others may still deny.
    Pass,
    /// Denied.
    Deny,
    /// Accepted, but the account sees a server of its own.
    ShadowBan,
    /// Accepted with other contents.
    Replace,
}

/// An answer or outcome that can be a denial.
pub trait Denies: Sized {
    /// A denial.
    fn deny(denial: Denial) -> Self;
    /// The denial, if this is one.
    fn denial_mut(&mut self) -> Option<&mut Denial>;
}

/// An answer that can deny.
pub trait Gate: Denies {
    /// Which verdict this is.
    fn kind(&self) -> VerdictKind;
    /// The neutral answer.
    fn pass() -> Self;
}

/// The answer of most gating callbacks.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// No objection; other modules may still deny.
    Pass,
    /// Denied; nobody else is asked.
    Deny(Denial),
}

/// The answer of `check_registration_for_spam`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RegistrationVerdict {
    /// No objection.
    Pass,
    /// Denied; Synapse answers 429 on purpose.
    Deny(Denial),
    /// The account is made, and what it sends reaches nobody.
    ShadowBan,
}

/// The answer of `check_event_allowed`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum EventVerdict {
    /// No objection.
    Pass,
    /// Denied.
    Deny(Denial),
    /// Accepted, with this event sent instead. Later modules are not asked and do not see it.
    Replace(JsonObject),
}

/// The answer of `on_create_room`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RoomVerdict {
    /// No objection, the request as it is.
    Pass,
    /// No objection, with this whole request instead; later modules see it.
    Edit(JsonObject),
    /// Denied.
    Deny(Denial),
}

/// The outcome of `on_create_room`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RoomOutcome {
    /// The room may be created from this request, edited or not.
    Pass {
        /// The whole request.
        request_content: JsonObject,
    },
    /// Denied.
    Deny(Denial),
}

macro_rules! gate {
    ($($type:ident { $($variant:pat => $kind:ident),* })+) => {$(
        impl Gate for $type {
            fn kind(&self) -> VerdictKind {
                match self {
                    Self::Pass => VerdictKind::Pass,
                    Self::Deny(_) => VerdictKind::Deny,
                    $($variant => VerdictKind::$kind,)*
                }
            }

            fn pass() -> Self {
                Self::Pass
            }
        }
    )+};
}

macro_rules! denies {
    ($($type:ident)+) => {$(
        impl Denies for $type {
            fn deny(denial: Denial) -> Self {
                Self::Deny(denial)
            }

            fn denial_mut(&mut self) -> Option<&mut Denial> {
                match self {
                    Self::Deny(denial) => Some(denial),
                    _ => None,
                }
            }
        }
    )+};
}
denies! { Verdict RegistrationVerdict EventVerdict RoomVerdict RoomOutcome }

gate! {
    Verdict {}
    RegistrationVerdict { Self::ShadowBan => ShadowBan }
    EventVerdict { Self::Replace(_) => Replace }
    RoomVerdict { Self::Edit(_) => Replace }
}

/// Reads `{"verdict": word, …}`; `other` reads the words beyond `pass` and `deny`.
fn read_verdict<T: Gate>(
    value: Value,
    at: &JsonPath<'_>,
    words: &str,
    other: impl FnOnce(&str, &mut Fields<'_>) -> Result<Option<T>, JsonError>,
) -> Result<T, JsonError> {
    let mut fields = Fields::new(value, at)?;
    let word: String = fields.required("verdict")?;
    if let Some(verdict) = other(&word, &mut fields)? {
        return Ok(verdict);
    }
    match word.as_str() {
        "pass" => Ok(T::pass()),
        "deny" => Denial::take(&mut fields).map(T::deny),
        _ => Err(JsonError::invalid(
            &JsonPath::Key(at, "verdict"),
            format!("expected {words}"),
        )),
    }
}

macro_rules! verdict_json {
    ($($type:ident, $words:literal, $read:expr, { $($variant:pat => $json:expr),* };)+) => {$(
        impl FromJson for $type {
            const TYPE: &'static str = stringify!($type);

            fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
                read_verdict(value, at, $words, $read)
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    Self::Deny(denial) => denial.to_json(),
                    $($variant => $json,)*
                }
                .serialize(serializer)
            }
        }
    )+};
}

verdict_json! {
    Verdict, "pass or deny", |_, _| Ok(None), { Self::Pass => json!({"verdict": "pass"}) };
    RegistrationVerdict, "pass, deny or shadow_ban",
        |word, _| Ok((word == "shadow_ban").then_some(Self::ShadowBan)),
        { Self::Pass => json!({"verdict": "pass"}), Self::ShadowBan => json!({"verdict": "shadow_ban"}) };
    EventVerdict, "pass, deny or replace",
        |word, fields| (word == "replace").then(|| fields.required("event").map(Self::Replace)).transpose(),
        {
            Self::Pass => json!({"verdict": "pass"}),
            Self::Replace(event) => json!({"verdict": "replace", "event": event})
        };
    RoomVerdict, "pass or deny",
        |word, fields| match word {
            "pass" => fields.optional::<Option<JsonObject>>("request_content").map(|content| content.map(Self::Edit)),
            _ => Ok(None),
        },
        {
            Self::Pass => json!({"verdict": "pass"}),
            Self::Edit(content) => json!({"verdict": "pass", "request_content": content})
        };
}

impl Serialize for RoomOutcome {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Pass { request_content } => {
                json!({"verdict": "pass", "request_content": request_content})
            }
            Self::Deny(denial) => denial.to_json(),
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: FromJson + Serialize>(value: Value) -> Value {
        serde_json::to_value(T::from_json(value, &JsonPath::Root).unwrap()).unwrap()
    }

    #[test]
    fn a_denial_without_details_is_the_plain_one() {
        assert_eq!(
            round_trip::<Verdict>(json!({"verdict": "deny"})),
            json!({"verdict": "deny", "errcode": "M_FORBIDDEN", "error": null, "fields": {}})
        );
    }

    #[test]
    fn every_verdict_is_written_as_it_is_read() {
        let deny = json!({"verdict": "deny", "errcode": "M_X", "error": "no", "fields": {"a": 1}});
        assert_eq!(round_trip::<Verdict>(deny.clone()), deny);
        assert_eq!(round_trip::<RoomVerdict>(deny.clone()), deny);
        for value in [json!({"verdict": "shadow_ban"}), json!({"verdict": "pass"})] {
            assert_eq!(round_trip::<RegistrationVerdict>(value.clone()), value);
        }
        let replace = json!({"verdict": "replace", "event": {"type": "x"}});
        assert_eq!(round_trip::<EventVerdict>(replace.clone()), replace);
        let edit = json!({"verdict": "pass", "request_content": {"name": "x"}});
        assert_eq!(round_trip::<RoomVerdict>(edit.clone()), edit);
    }

    #[test]
    fn an_unknown_word_is_refused_with_those_that_fit() {
        let error = Verdict::from_json(json!({"verdict": "shadow_ban"}), &JsonPath::Root).unwrap_err();
        assert_eq!(error.to_string(), "verdict: expected pass or deny");
    }
}
