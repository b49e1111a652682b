//! The work of every row: `check_event_for_spam` for an event of about 1 kB, asked of modules that look at two of its
//! fields and let it pass.

use ganglion::api::{
    Callback, CheckEventForSpam, Denial, FromJson as _, JsonPath, Module, ModuleApi, ModuleError, Registry,
    SpamCheckerCallbacks, Verdict, VerdictKind,
};
use ganglion::dispatcher::{Decision, Outcome, StepResult};
use serde::Deserialize;
use serde_json::{Value, json};

/// How many modules are asked, unless a row says otherwise.
pub const MODULES: usize = 5;

/// The path of [`Looks`] in a config.
pub const LOOKS: &str = "bench.Looks";

/// The sender whose events would be spam.
const SPAMMER: &str = "@spammer:example.com";

/// A text that begins so would be spam.
const SPAM: &str = "Buy now";

/// The args as JSON: a message of about 1 kB, as a homeserver sends it.
#[must_use]
pub fn json_args() -> Value {
    let body = "The quick brown fox jumps over the lazy dog. ".repeat(8);
    json!({
        "event": {
            "type": "m.room.message",
            "event_id": "$Yq3mGqv0nG8bU0lM0Jr7wTnqMJ0mH0q1G4hWq2cXb1E",
            "room_id": "!VqxHyMXHcwOEFLTqGc:example.com",
            "room_version": "11",
            "sender": "@alice:example.com",
            "origin_server_ts": 1_766_000_000_000_u64,
            "depth": 4711,
            "auth_events": ["$Zq8mGqv0nG8bU0lM0Jr7wTnqMJ0mH0q1G4hWq2cXb1E", "$Xq8mGqv0nG8bU0lM0Jr7wTnqMJ0mH0q1G4hWq2cXb1E"],
            "prev_events": ["$Wq8mGqv0nG8bU0lM0Jr7wTnqMJ0mH0q1G4hWq2cXb1E"],
            "hashes": {"sha256": "W2m0Jr7wTnqMJ0mH0q1G4hWq2cXb1EqGqv0nG8bU0l8"},
            "content": {"msgtype": "m.text", "body": body},
            "unsigned": {"age_ts": 1_766_000_000_000_u64},
        }
    })
}

/// The args.
#[must_use]
pub fn args() -> CheckEventForSpam {
    CheckEventForSpam::from_json(json_args(), &JsonPath::Root).expect("args of the callback")
}

/// What every module does: whether an event is spam, by its sender and its text.
#[must_use]
pub fn is_spam(args: &CheckEventForSpam) -> bool {
    let event = &args.event;
    let body = event.content.get("body").and_then(Value::as_str);
    event.sender == SPAMMER || body.is_some_and(|body| body.starts_with(SPAM))
}

/// The module.
#[derive(Debug)]
pub struct Looks {
    config: LooksConfig,
}

/// The config of [`Looks`].
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct LooksConfig {
    /// Whether it takes everything for spam.
    #[serde(default)]
    denies: bool,
}

impl Module for Looks {
    type Config = LooksConfig;

    fn new(config: LooksConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().check_event_for_spam(Self::check))?;
        Ok(Self { config })
    }
}

impl Looks {
    async fn check(&self, args: &CheckEventForSpam) -> Result<Verdict, ModuleError> {
        if is_spam(args) || self.config.denies {
            return Ok(Verdict::Deny(Denial::forbidden()));
        }
        Ok(Verdict::Pass)
    }
}

/// The modules that ship, and the one that looks.
#[must_use]
pub fn registry() -> Registry {
    ganglion::registry().with::<Looks>(LOOKS)
}

/// All of so many modules were asked, and let it pass.
///
/// # Panics
/// It is not so.
pub fn assert_passed(decision: &Decision<CheckEventForSpam>, modules: usize) {
    let passed = |step: &ganglion::dispatcher::Step| step.result == StepResult::Verdict(VerdictKind::Pass);
    let right = matches!(decision.outcome, Outcome::Decided(Verdict::Pass))
        && decision.steps.len() == modules
        && decision.steps.iter().all(passed);
    assert!(right, "{}: {decision:?}", CheckEventForSpam::SPEC.name);
}

/// The first module denied.
///
/// # Panics
/// It is not so.
pub fn assert_denied(decision: &Decision<CheckEventForSpam>) {
    let right = matches!(decision.outcome, Outcome::Decided(Verdict::Deny(_))) && decision.steps.len() == 1;
    assert!(right, "{}: {decision:?}", CheckEventForSpam::SPEC.name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_has_about_a_kilobyte_and_is_no_spam() {
        let length = json_args().to_string().len();
        assert!((900..1100).contains(&length), "{length}");
        assert!(!is_spam(&args()));
    }
}
