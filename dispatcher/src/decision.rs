//! What the dispatcher concludes, and who said what on the way.

use std::time::Duration;

use ganglion_actors::ModuleId;
use ganglion_api::{Callback, FailureKind, MatrixError, Then, VerdictKind};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// What one subscriber did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepResult {
    /// It gave a verdict. In a rewriting chain `Replace` is also an edit.
    Verdict(VerdictKind),
    /// It gave no value.
    Neutral,
    /// It gave a value, or contributed one.
    Answer,
    /// A notification ran to its end.
    Notified,
    /// It was on the route and not concerned.
    Skipped,
    /// It gave no answer.
    Failed(FailureKind),
}

impl StepResult {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verdict(VerdictKind::Pass) | Self::Neutral => "pass",
            Self::Verdict(VerdictKind::Deny) => "deny",
            Self::Verdict(VerdictKind::ShadowBan) => "shadow_ban",
            Self::Verdict(VerdictKind::Replace) => "replace",
            Self::Answer => "answer",
            Self::Notified => "notified",
            Self::Skipped => "skipped",
            Self::Failed(kind) => kind.as_str(),
        }
    }
}

impl Serialize for StepResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One subscriber's part of a decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Step {
    /// The module's id.
    pub module: ModuleId,
    /// What it did.
    pub result: StepResult,
    /// How long it took, the wait for a permit included.
    #[serde(rename = "duration_us", serialize_with = "microseconds")]
    pub duration: Duration,
    /// For people: the reason of a failure, what was dropped from a denial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What a failure counted as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Then>,
}

fn microseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// How a callback ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<C: Callback> {
    /// With the modules' verdict or value, or the neutral one.
    Decided(C::Outcome),
    /// With an error: a module's own for the client, or a failure whose policy says error.
    Error(MatrixError),
}

impl<C: Callback> Outcome<C> {
    /// The JSON form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Decided(outcome) => C::outcome_json(outcome),
            Self::Error(error) => json!({
                "verdict": "error",
                "status": error.status,
                "errcode": error.errcode,
                "error": error.error,
                "fields": error.fields,
            }),
        }
    }
}

/// What the dispatcher concluded from a callback.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<C: Callback> {
    /// The outcome.
    pub outcome: Outcome<C>,
    /// The module whose answer, or whose failure under its policy, fixed the outcome; `None` if nobody did.
    pub decided_by: Option<ModuleId>,
    /// Who did what, in order, up to the end of the chain.
    pub steps: Vec<Step>,
}

impl<C: Callback> Decision<C> {
    /// Forgets the callback's type.
    #[must_use]
    pub fn into_json(self) -> JsonDecision {
        JsonDecision {
            outcome: self.outcome.to_json(),
            decided_by: self.decided_by,
            steps: self.steps,
        }
    }
}

/// A decision whose callback is known by name only.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct JsonDecision {
    /// The outcome: an object with `verdict` or with `value`.
    pub outcome: Value,
    /// The module that fixed it.
    pub decided_by: Option<ModuleId>,
    /// Who did what.
    pub steps: Vec<Step>,
}
