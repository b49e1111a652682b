//! Durations in the configs of modules, as text such as `500ms` or `30d`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Reads a duration, zero too; for `#[serde(deserialize_with)]`.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map_err(|error| serde::de::Error::custom(format!("write a duration such as 500ms or 30d: {error}")))
}

/// The same for a key that may be left out; for `#[serde(default, deserialize_with)]`.
#[cfg(feature = "http-client")]
pub(super) fn read_some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    read(deserializer).map(Some)
}
