//! Single values: text, numbers, durations, sizes, addresses.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use ganglion_api::reference;
use serde_yaml::Value;

/// The longest duration that is accepted anywhere: deadlines are added to clocks, which end.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The longest word that is compared with names.
const MAX_NEAR: usize = 80;

pub(super) fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("expected text, found {}", kind(other))),
    }
}

pub(super) fn flag(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::String(word) if matches!(word.to_lowercase().as_str(), "yes" | "no" | "on" | "off" | "y" | "n") => {
            Err(format!("write true or false: {word:?} is text in YAML 1.2"))
        }
        other => Err(format!("expected true or false, found {}", kind(other))),
    }
}

pub(super) fn integer(value: &Value) -> Result<i64, String> {
    let number = match value {
        Value::Number(number) => number.as_i64(),
        _ => None,
    };
    number.ok_or_else(|| match value {
        Value::Number(number) => format!("expected an integer, found {number}"),
        other => format!("expected an integer, found {}", kind(other)),
    })
}

/// An integer within bounds.
pub(super) fn count(range: RangeInclusive<usize>) -> impl FnOnce(&Value) -> Result<usize, String> {
    move |value| {
        let number = integer(value)?;
        let count = usize::try_from(number).ok().filter(|count| range.contains(count));
        count.ok_or_else(|| format!("expected {} to {}, found {number}", range.start(), range.end()))
    }
}

/// A share of a whole, such as `0.5`: above zero, at most one.
pub(super) fn rate(value: &Value) -> Result<f64, String> {
    let Value::Number(number) = value else {
        return Err(format!("expected a number such as 0.5, found {}", kind(value)));
    };
    let rate = number.as_f64().filter(|rate| *rate > 0.0 && *rate <= 1.0);
    rate.ok_or_else(|| format!("expected more than 0 and at most 1, found {number}"))
}

/// A duration such as `500ms` or `5s`, longer than zero.
pub(super) fn duration(value: &Value) -> Result<Duration, String> {
    let example = "write a duration such as 500ms, 5s or 2m";
    let Value::String(text) = value else {
        return Err(format!("{example}, found {}", kind(value)));
    };
    let duration = humantime::parse_duration(text).map_err(|error| format!("{example}: {error}"))?;
    if duration.is_zero() || duration > MAX_DURATION {
        return Err("expected more than zero and at most 365 days".into());
    }
    Ok(duration)
}

/// A number of bytes such as `1MiB`, at least one and at most 1 GiB.
pub(super) fn size(value: &Value) -> Result<usize, String> {
    let bytes = bytes_in(value)?;
    let bytes = usize::try_from(bytes)
        .ok()
        .filter(|bytes| (1..=1 << 30).contains(bytes));
    bytes.ok_or_else(|| "expected 1 byte to 1GiB".to_owned())
}

/// A number of bytes such as `1MiB`, at least one and at most 1 PiB.
pub(crate) fn bytes_of(value: &Value) -> Result<NonZeroU64, String> {
    let bytes = NonZeroU64::new(bytes_in(value)?).filter(|bytes| bytes.get() <= 1 << 50);
    bytes.ok_or_else(|| "expected 1 byte to 1PiB".to_owned())
}

fn bytes_in(value: &Value) -> Result<u64, String> {
    let example = "write a size such as 64KiB or 1MiB";
    match value {
        Value::String(text) => text
            .parse()
            .map_err(|_| example.to_owned())
            .map(|size: ByteSize| size.as_u64()),
        Value::Number(number) => number.as_u64().ok_or_else(|| example.to_owned()),
        other => Err(format!("{example}, found {}", kind(other))),
    }
}

/// An IP address and a port.
pub(super) fn address(value: &Value) -> Result<SocketAddr, String> {
    text(value)?
        .parse()
        .map_err(|_| "expected an IP address and a port, such as 127.0.0.1:8009 or [::1]:8009".to_owned())
}

/// One text, or a list of them.
pub(super) fn texts(value: &Value) -> Result<Vec<&str>, String> {
    match value {
        Value::Sequence(items) => items.iter().map(text).collect(),
        other => Ok(vec![text(other)?]),
    }
}

/// `, did you mean …?` if one of the names is near; else nothing.
pub(crate) fn near<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    // The distance takes time with the square of the length, and the word may be a stranger's.
    if word.len() > MAX_NEAR {
        return String::new();
    }
    let lowered = word.to_lowercase();
    let scored = names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lowered, &name.to_lowercase()), name));
    let best = scored.min_by_key(|(distance, _)| *distance);
    match best {
        Some((distance, name)) if distance <= (word.len() / 3).clamp(1, 5) => {
            format!(", did you mean {name}?")
        }
        _ => String::new(),
    }
}

/// Says that there is no callback of this name.
pub(crate) fn unknown_callback(name: &str) -> String {
    let hint = near(name, reference().iter().map(|spec| spec.name));
    format!("unknown callback{hint}")
}

/// What a value is, for an error.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a tagged value",
    }
}
