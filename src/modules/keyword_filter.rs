//! `ganglion.modules.KeywordFilter`: refuses events that contain a keyword.

use ganglion_api::{
    CheckEventForSpam, ConfigError, Denial, Module, ModuleApi, ModuleError, SpamCheckerCallbacks, Verdict,
};
use serde::Deserialize;
use serde_json::Value;

/// Refuses events with a keyword in any string value of their content.
#[derive(Debug)]
pub struct KeywordFilter {
    config: KeywordConfig,
}

/// The config of [`KeywordFilter`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeywordConfig {
    /// What is looked for, as part of a value.
    #[serde(default)]
    keywords: Vec<String>,
    /// Whether upper and lower case are told apart.
    #[serde(default)]
    case_sensitive: bool,
}

impl Module for KeywordFilter {
    type Config = KeywordConfig;

    fn parse_config(config: Value) -> Result<KeywordConfig, ConfigError> {
        let mut config: KeywordConfig = ganglion_api::read_config(config)?;
        if let Some(empty) = config.keywords.iter().position(String::is_empty) {
            return Err(ConfigError::at(
                format!("keywords[{empty}]"),
                "an empty keyword is part of every text",
            ));
        }
        if !config.case_sensitive {
            config.keywords = config.keywords.iter().map(|keyword| keyword.to_lowercase()).collect();
        }
        Ok(config)
    }

    fn new(config: KeywordConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(
            SpamCheckerCallbacks::new().check_event_for_spam(Self::check_event_for_spam),
        )?;
        Ok(Self { config })
    }
}

impl KeywordFilter {
    async fn check_event_for_spam(&self, args: &CheckEventForSpam) -> Result<Verdict, ModuleError> {
        if args.event.content.values().any(|value| self.is_hit(value)) {
            return Ok(Verdict::Deny(Denial::forbidden()));
        }
        Ok(Verdict::Pass)
    }

    fn is_hit(&self, value: &Value) -> bool {
        match value {
            Value::String(text) if self.config.case_sensitive => self.contains_keyword(text),
            Value::String(text) => self.contains_keyword(&text.to_lowercase()),
            Value::Array(items) => items.iter().any(|item| self.is_hit(item)),
            Value::Object(object) => object.values().any(|value| self.is_hit(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    fn contains_keyword(&self, text: &str) -> bool {
        self.config
            .keywords
            .iter()
            .any(|keyword| text.contains(keyword.as_str()))
    }
}
