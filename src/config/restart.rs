//! The key `restart` of a module: how often it is made again after a failure.

use std::time::Duration;

use ganglion_actors::RestartSettings;
use serde_yaml::Value;

use super::section::Section;
use super::value;

/// Reads the section.
pub(super) fn read(mut section: Section<'_>) -> RestartSettings {
    let default = RestartSettings::default();
    let settings = RestartSettings {
        max: section.or("max", default.max, value::count(0..=1000)),
        within: section.or("within", default.within, value::duration),
        backoff: section.or("backoff", default.backoff, backoff),
    };
    section.finish();
    settings
}

/// The first pause and the longest one.
fn backoff(value: &Value) -> Result<(Duration, Duration), String> {
    let form = "expected the first and the longest pause, such as [100ms, 30s]";
    let Value::Sequence(pauses) = value else {
        return Err(format!("{form}, found {}", value::kind(value)));
    };
    let [first, longest] = &pauses[..] else {
        return Err(format!("{form}, found a list of {}", pauses.len()));
    };
    let (first, longest) = (value::duration(first)?, value::duration(longest)?);
    if first > longest {
        return Err("expected the shorter pause first".into());
    }
    Ok((first, longest))
}
