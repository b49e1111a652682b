//! The tables.

pub(crate) mod caller;
pub(crate) mod neighbour;

use std::time::Duration;

use ganglion_benches::machine;

use crate::Mark;
use crate::samples::Compared;

/// The columns that the tables have in common, between what a cell is of and what else was seen.
const LATENCIES: [&str; 9] = [
    "tier",
    "p50 without",
    "p50 with",
    "p99 without",
    "p99 with",
    "p99.9 without",
    "p99.9 with",
    "p99 ratio",
    "drift",
];

/// What runs this bench by itself.
pub(crate) const COMMAND: &str = "cargo bench -p ganglion-benches --bench isolation";

/// What was run, and where.
pub(crate) fn place(words: &[String]) -> String {
    let command = match words {
        [] => COMMAND.to_owned(),
        words => format!("{COMMAND} -- {}", words.join(" ")),
    };
    machine::place(&command) + "\n"
}

fn per_second(period: Duration) -> f64 {
    1.0 / period.as_secs_f64()
}

/// The head of a table.
fn table(first: &str, columns: &[&str]) -> String {
    let titles = [&[first], &LATENCIES[..], columns, &["goal"]].concat();
    format!("| {} |\n|{}", titles.join(" | "), "---|".repeat(titles.len()))
}

fn row(first: &[String; 2], latencies: &Compared, own: &[String], mark: Mark) -> String {
    let Compared { without, with, drift } = latencies;
    let micros = |latency: Duration| latency.as_micros().to_string();
    let compared = [
        micros(without.p50()),
        micros(with.p50()),
        micros(without.p99()),
        micros(with.p99()),
        micros(without.p999()),
        micros(with.p999()),
        format!("{:.2}", latencies.ratio()),
        format!("{drift:.2}"),
    ];
    let mark = match mark {
        Mark::Ok => "ok",
        Mark::Miss => "**miss**",
        Mark::NoGoal => "no goal",
    };
    let cells = [&first[..], &compared, own, &[mark.to_owned()]].concat();
    format!("| {} |", cells.join(" | "))
}

fn mebibytes(grown_kib: Option<i64>) -> String {
    grown_kib.map_or("-".to_owned(), |kib| format!("{:+}", kib / 1024))
}

/// How many of each.
fn marks(marks: impl Iterator<Item = Mark>) -> String {
    let (mut ok, mut missed, mut no_goal) = (0, 0, 0);
    for mark in marks {
        *match mark {
            Mark::Ok => &mut ok,
            Mark::Miss => &mut missed,
            Mark::NoGoal => &mut no_goal,
        } += 1;
    }
    format!("{ok} ok, {missed} missed, {no_goal} without a goal")
}
