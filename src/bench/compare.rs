//! A result beside an earlier one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::result::{CallbackResult, LatencyResult, RunResult};
use super::text::{NAME, cell, change, rate, signed, us};
use crate::plain::plain;

/// One line of a comparison.
#[derive(Debug, Clone, Copy)]
struct Row<'a> {
    per_s: f64,
    latency: &'a LatencyResult,
}

/// What changed from `before` to `after`, by row.
pub(crate) fn compare(before: &RunResult, after: &RunResult, name: &str) -> String {
    let mut text = String::new();
    let date = plain(&before.date);
    let _ = writeln!(
        text,
        "change from {} ({date}, ganglion {})",
        plain(name),
        plain(&before.ganglion)
    );
    for difference in differences(before, after) {
        let _ = writeln!(text, "warning  not alike: {difference}");
    }
    let _ = writeln!(
        text,
        "{:NAME$}{:>22}{:>22}{:>22}{:>22}",
        "times in µs", "per s", "p50", "p99", "p99.9"
    );
    let earlier: BTreeMap<&str, &CallbackResult> = by_name(before);
    for callback in &after.callbacks {
        match earlier.get(&*callback.callback) {
            Some(before) => changed(&mut text, before, callback),
            None => {
                let _ = writeln!(text, "{} new", cell(&callback.callback, NAME));
            }
        }
    }
    let later = by_name(after);
    for gone in before
        .callbacks
        .iter()
        .filter(|callback| !later.contains_key(&*callback.callback))
    {
        let _ = writeln!(text, "{} gone", cell(&gone.callback, NAME));
    }
    text.push_str(
        "=: less than half a percent. Run both twice: what differs between two runs of one config is noise.\n",
    );
    text
}

fn by_name(result: &RunResult) -> BTreeMap<&str, &CallbackResult> {
    result
        .callbacks
        .iter()
        .map(|callback| (&*callback.callback, callback))
        .collect()
}

/// The rows of a callback that both have.
fn changed(text: &mut String, before: &CallbackResult, after: &CallbackResult) {
    let (before, after) = (rows(before), rows(after));
    for (name, row) in &after {
        let cell = name.cell();
        match before.iter().find(|(other, _)| other == name) {
            Some((_, before)) => line(text, &cell, before, row),
            None => {
                let _ = writeln!(text, "{cell} new");
            }
        }
    }
    for (name, _) in before
        .iter()
        .filter(|(name, _)| after.iter().all(|(other, _)| other != name))
    {
        let _ = writeln!(text, "{} gone", name.cell());
    }
}

/// What a row is about: a module may be called as anything.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    Chain(String),
    Module(String),
    Dispatch,
}

impl Name {
    fn cell(&self) -> String {
        match self {
            Self::Chain(callback) => cell(callback, NAME),
            Self::Module(id) => format!("  {}", cell(id, NAME - 2)),
            Self::Dispatch => cell("  dispatch", NAME),
        }
    }
}

/// The chain, each module, and what is between them.
fn rows(callback: &CallbackResult) -> Vec<(Name, Row<'_>)> {
    let CallbackResult {
        per_s,
        latency,
        dispatch,
        ..
    } = callback;
    let chain = (Name::Chain(callback.callback.clone()), Row { per_s: *per_s, latency });
    let modules = callback.modules.iter().map(|module| {
        let row = Row {
            per_s: module.per_s,
            latency: &module.latency,
        };
        (Name::Module(module.module.clone()), row)
    });
    let dispatch = (
        Name::Dispatch,
        Row {
            per_s: *per_s,
            latency: dispatch,
        },
    );
    std::iter::once(chain).chain(modules).chain([dispatch]).collect()
}

fn line(text: &mut String, name: &str, before: &Row<'_>, after: &Row<'_>) {
    let per_s = two(Some(before.per_s), Some(after.per_s), |per_s| {
        rate(per_s.unwrap_or_default())
    });
    let mut line = format!("{name}{per_s:>22}");
    let of = |latency: &LatencyResult| [latency.p50_us, latency.p99_us, latency.p999_us];
    for (before, after) in of(before.latency).into_iter().zip(of(after.latency)) {
        let _ = write!(line, "{:>22}", two(before, after, us));
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// `12.3 → 10.1 −18 %`
fn two(before: Option<f64>, after: Option<f64>, show: impl Fn(Option<f64>) -> String) -> String {
    match (before, after) {
        (Some(old), Some(new)) => {
            format!("{} → {} {:>6}", show(before), show(after), signed(change(old, new)))
        }
        (None, None) => format!("-{:>7}", ""),
        _ => format!("{} → {} {:>6}", show(before), show(after), ""),
    }
}

/// What makes two results two different things.
fn differences(before: &RunResult, after: &RunResult) -> Vec<String> {
    let (old, new) = (&before.options, &after.options);
    let pairs = [
        ("machine", before.machine.to_string(), after.machine.to_string()),
        ("build", before.build.clone(), after.build.clone()),
        ("callbacks", old.mix.clone(), new.mix.clone()),
        ("load", old.pace.to_string(), new.pace.to_string()),
        ("in flight", old.in_flight.to_string(), new.in_flight.to_string()),
        (
            "duration",
            format!("{} s", old.duration_s),
            format!("{} s", new.duration_s),
        ),
        ("seed", old.seed.to_string(), new.seed.to_string()),
        ("misbehaves", listed(&old.misbehave), listed(&new.misbehave)),
        (
            "ended early",
            before.run.ended_early.to_string(),
            after.run.ended_early.to_string(),
        ),
    ];
    let differ = pairs.into_iter().filter(|(_, before, after)| before != after);
    differ
        .map(|(what, before, after)| format!("{what}: {} before, {} now", plain(&before), plain(&after)))
        .collect()
}

fn listed(misbehave: &[String]) -> String {
    if misbehave.is_empty() {
        "nobody".to_owned()
    } else {
        misbehave.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::fixture::{callback, result};
    use super::*;

    #[test]
    fn a_result_does_not_differ_from_itself() {
        let result = result(&[callback("on_new_event", &["a", "b"], 12.0)]);
        let text = compare(&result, &result, "x.json");
        let rows: Vec<_> = text.lines().skip(2).take(4).collect();
        assert!(rows.iter().all(|row| row.matches('=').count() == 4), "{text}");
        assert!(
            !["warning", "%", " new", " gone"].iter().any(|word| text.contains(word)),
            "{text}"
        );
    }

    #[test]
    fn a_change_is_shown_by_row_and_what_is_new_or_gone_is_said() {
        let before = result(&[
            callback("on_new_event", &["a", "gone"], 12.3),
            callback("on_update", &["c"], 1.0),
        ]);
        let after = result(&[
            callback("check_event_for_spam", &["a"], 1.0),
            callback("on_new_event", &["a", "b"], 10.1),
        ]);
        let text = compare(&before, &after, "x.json");
        let has = |start: &str, part: &str| {
            assert!(
                text.lines().any(|line| line.starts_with(start) && line.contains(part)),
                "{start} {part}\n{text}"
            );
        };
        has("on_new_event", "12.3 → 10.1  −18 %");
        has("check_event_for_spam", " new");
        has("on_update", " gone");
        has("  b", " new");
        has("  gone", " gone");
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }

    #[test]
    fn what_makes_results_incomparable_is_said() {
        let before = result(&[]);
        let mut after = before.clone();
        after.machine.cores = 64;
        after.options.in_flight = 1;
        after.options.misbehave = vec!["a=hang".into()];
        let text = compare(&before, &after, "x.json");
        for warning in [
            "machine: 2 cores, x, linux before, 64 cores, x, linux now",
            "in flight: 64 before, 1 now",
            "misbehaves: nobody before, a=hang now",
        ] {
            assert!(text.contains(&format!("warning  not alike: {warning}\n")), "{text}");
        }
        assert_eq!(text.matches("warning").count(), 3);
    }

    #[test]
    fn what_a_file_says_is_text() {
        let hostile = result(&[callback("\u{1b}[31mx", &["\u{1b}]0;y\u{7}"], 1.0)]);
        let mut dated = hostile.clone();
        dated.date = "\u{1b}c".into();
        let text = compare(&dated, &hostile, "\u{1b}");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
    }
}
