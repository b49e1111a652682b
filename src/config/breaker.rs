//! The key `breaker` of a module: when its calls are refused.

use std::time::Duration;

use ganglion_actors::{BreakerMode, BreakerSettings};
use serde_yaml::Value;

use super::section::Section;
use super::value;

/// Reads the section. `call_timeout` is the module's, if it is known: no call takes longer.
pub(super) fn read(mut section: Section<'_>, call_timeout: Option<Duration>) -> BreakerSettings {
    let default = BreakerSettings::default();
    let mode = section.or("mode", default.mode, mode);
    let window = section.checked("window", default.window, value::count(1..=10_000));
    let minimum = section.checked("minimum", default.minimum, value::count(1..=10_000));
    let failure_rate = section.or("failure_rate", default.failure_rate, value::rate);
    let slow_rate = section.or("slow_rate", default.slow_rate, value::rate);
    let slow_after = section.checked("slow_after", default.slow_after, |value| {
        value::duration(value).map(Some)
    });
    let open_for = section.or("open_for", default.open_for, value::duration);

    let refuse = |key, message: String| section.problems().push(section.path(key), message);
    if let (Some(window), Some(minimum)) = (window, minimum)
        && minimum > window
    {
        let message = format!("{minimum} is more than window, which is {window}: the rates would never count");
        refuse("minimum", message);
    }
    if slow_after == Some(None) && slow_rate < 1.0 {
        refuse("slow_rate", "needs slow_after: without it no call is slow".into());
    }
    if let (Some(Some(slow_after)), Some(call_timeout)) = (slow_after, call_timeout)
        && slow_after > call_timeout
    {
        let call_timeout = humantime::format_duration(call_timeout);
        let message = format!("expected at most call_timeout, which is {call_timeout}: no call takes longer");
        refuse("slow_after", message);
    }
    section.finish();
    BreakerSettings {
        mode,
        window: window.unwrap_or(default.window),
        minimum: minimum.unwrap_or(default.minimum),
        failure_rate,
        slow_rate,
        slow_after: slow_after.flatten(),
        open_for,
    }
}

fn mode(value: &Value) -> Result<BreakerMode, String> {
    let word = value::text(value)?;
    let found = BreakerMode::ALL.into_iter().find(|mode| mode.as_str() == word);
    found.ok_or_else(|| {
        let near = value::near(word, BreakerMode::ALL.map(BreakerMode::as_str));
        format!("expected enabled, metrics_only or disabled, found {word:?}{near}")
    })
}
