//! `ganglion.modules.Canned`: answers what its config says. A maintenance switch for operators, a stand-in for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ganglion_api::{
    AuthCheckers, AuthenticatedUser, Callback, CallbackSet, ConfigError, JsonObject, LoginTypes, MatrixError, Module,
    ModuleApi, ModuleError, spec, visit_all, visit_each_callback,
};
use serde::Deserialize;
use serde_json::Value;

use super::duration;
use crate::config::{near, unknown_callback};

/// Answers what its config says.
#[derive(Debug)]
pub struct Canned {
    api: ModuleApi<Self>,
    delay: Duration,
}

/// The config of [`Canned`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CannedConfig {
    /// The answers by callback, each in the form of an outcome, or `{fail: error|panic|hang}`.
    #[serde(default)]
    answers: BTreeMap<String, Value>,
    /// How long it waits before each answer.
    #[serde(default, deserialize_with = "duration::read")]
    delay: Duration,
    /// The login types of `auth_checkers` with their fields.
    #[serde(default = "password_login")]
    login_types: BTreeMap<String, BTreeSet<String>>,
}

fn password_login() -> BTreeMap<String, BTreeSet<String>> {
    [("m.login.password".to_owned(), ["password".to_owned()].into())].into()
}

/// What one callback is answered with.
#[derive(Debug, Clone)]
enum Answer<A> {
    Value(A),
    Error(ModuleError),
    Panic,
    Hang,
}

impl Module for Canned {
    type Config = CannedConfig;

    fn parse_config(config: Value) -> Result<CannedConfig, ConfigError> {
        let config: CannedConfig = ganglion_api::read_config(config)?;
        if let Some(unknown) = config.answers.keys().find(|name| spec(name).is_none()) {
            return Err(ConfigError::at(format!("answers.{unknown}"), unknown_callback(unknown)));
        }
        callbacks(&config)?;
        Ok(config)
    }

    fn new(config: CannedConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let callbacks = callbacks(&config)?;
        api.register_callbacks(callbacks)?;
        Ok(Self {
            api: api.clone(),
            delay: config.delay,
        })
    }
}

impl Canned {
    async fn give<A: Clone>(&self, answer: &Answer<A>) -> Result<A, ModuleError> {
        if !self.delay.is_zero() {
            self.api.sleep(self.delay).await;
        }
        match answer {
            Answer::Value(value) => Ok(value.clone()),
            Answer::Error(error) => Err(error.clone()),
            Answer::Panic => panic!("canned panic"),
            Answer::Hang => std::future::pending().await,
        }
    }
}

/// The callbacks of a config; an answer that cannot be understood is an error.
fn callbacks(config: &CannedConfig) -> Result<CallbackSet<Canned>, ConfigError> {
    let mut read = ReadAnswers {
        config,
        callbacks: CallbackSet::new(),
        error: None,
    };
    visit_all(&mut read);
    if let Some(error) = read.error {
        return Err(error);
    }
    let Some(answer) = answer::<AuthCheckers>(config)? else {
        return Ok(read.callbacks);
    };
    let mut login_types = LoginTypes::new();
    for (name, fields) in &config.login_types {
        let answer: Answer<Option<AuthenticatedUser>> = answer.clone();
        login_types = login_types.login_type(name, fields.clone(), async move |canned: &Canned, _: &AuthCheckers| {
            canned.give(&answer).await
        });
    }
    Ok(read.callbacks.auth_checkers(login_types))
}

struct ReadAnswers<'a> {
    config: &'a CannedConfig,
    callbacks: CallbackSet<Canned>,
    error: Option<ConfigError>,
}

impl ReadAnswers<'_> {
    fn read<C: Callback>(&mut self) {
        // Login types belong to these, see `callbacks`.
        if C::INDEX == AuthCheckers::INDEX {
            return;
        }
        match answer::<C>(self.config) {
            Ok(None) => {}
            Ok(Some(answer)) => {
                let callbacks = std::mem::take(&mut self.callbacks);
                self.callbacks =
                    callbacks.answer::<C, _>(async move |canned: &Canned, _: &C| canned.give(&answer).await);
            }
            Err(error) => self.error = self.error.take().or(Some(error)),
        }
    }
}

visit_each_callback!(ReadAnswers<'_>, |self, C| self.read::<C>());

/// The answer that the config has for a callback.
fn answer<C: Callback>(config: &CannedConfig) -> Result<Option<Answer<C::Answer>>, ConfigError> {
    let Some(answer) = config.answers.get(C::SPEC.name) else {
        return Ok(None);
    };
    let refuse = |message: String| ConfigError::at(format!("answers.{}", C::SPEC.name), message);
    if let Some(keys) = answer.as_object() {
        let known = known_keys::<C>(answer);
        if let Some(unknown) = keys.keys().find(|key| !known.contains(&key.as_str())) {
            // Read as absent, a slip would turn a denial into a pass.
            return Err(refuse(format!(
                "unknown key {unknown}{}",
                near(unknown, known.iter().copied())
            )));
        }
    }
    if let Some(fail) = answer.get("fail") {
        return failure(fail, answer)
            .map(Some)
            .map_err(|message| refuse(message.into()));
    }
    C::read_answer(answer.clone())
        .map(|value| Some(Answer::Value(value)))
        .map_err(|error| refuse(error.to_string()))
}

/// The keys that an answer may have.
fn known_keys<C: Callback>(answer: &Value) -> &'static [&'static str] {
    if answer.get("status").is_some() {
        &["fail", "status", "errcode", "error", "fields"]
    } else if answer.get("fail").is_some() {
        &["fail", "status"]
    } else if C::SPEC.combine.has_deny_verdict() {
        &["verdict", "errcode", "error", "fields", "event", "request_content"]
    } else {
        &["value"]
    }
}

fn failure<A>(fail: &Value, answer: &Value) -> Result<Answer<A>, &'static str> {
    match fail.as_str() {
        Some("panic") => Ok(Answer::Panic),
        Some("hang") => Ok(Answer::Hang),
        Some("error") => match answer.get("status") {
            None => Ok(Answer::Error(ModuleError::message("canned error"))),
            Some(status) => matrix_error(status, answer).map(|error| Answer::Error(error.into())),
        },
        _ => Err("fail: expected error, panic or hang"),
    }
}

fn matrix_error(status: &Value, answer: &Value) -> Result<MatrixError, &'static str> {
    let status = status
        .as_u64()
        .and_then(|status| u16::try_from(status).ok())
        .filter(|s| (400..=599).contains(s));
    let text = |key, default| match answer.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value.as_str().ok_or("errcode and error: expected text"),
    };
    let mut error = MatrixError::new(
        status.ok_or("status: expected 400 to 599")?,
        text("errcode", "M_UNKNOWN")?,
        text("error", "")?,
    );
    error.fields = match answer.get("fields") {
        None | Some(Value::Null) => JsonObject::new(),
        Some(fields) => fields.as_object().ok_or("fields: expected a mapping")?.clone(),
    };
    Ok(error)
}
