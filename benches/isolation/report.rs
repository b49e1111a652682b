//! The table.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cell::{Cell, Mark, SETTINGS, needs_containment};
use crate::load::{HEALTHY_PERIOD, MOST_OPEN, NEIGHBOUR_PERIOD};
use crate::{Durations, machine};

const COLUMNS: [&str; 18] = [
    "misbehaviour",
    "tier",
    "p50 without",
    "p50 with",
    "p99 without",
    "p99 with",
    "p99.9 without",
    "p99.9 with",
    "p99 ratio",
    "drift",
    "lost",
    "wrong",
    "memory, MiB",
    "contained, ms",
    "serves again, ms",
    "state at the end",
    "restarts, stuck",
    "goal",
];

/// What was measured, where, and the head of the table.
pub(crate) fn head(durations: Durations, words: &[String]) -> String {
    let command = match words {
        [] => "cargo bench --bench isolation".to_owned(),
        words => format!("cargo bench --bench isolation -- {}", words.join(" ")),
    };
    let per_second = |period: Duration| 1.0 / period.as_secs_f64();
    let Durations { calm, misbehaving, .. } = durations;
    format!(
        "`{command}`, {date}, {cores} cores, {processor}, {compiler}.\n\
         \n\
         A healthy module (tier `actor`, default settings) gets {healthy} calls a second, its neighbour {neighbour} on \
         another callback, {MOST_OPEN} open at most; both from the same process and on a schedule that waits for nobody, \
         and latencies count from the scheduled moment. *with* is {misbehaving:?} in which every call of the neighbour \
         misbehaves; *without* is two times {calm:?}, before and after, with the neighbour calm under the same load, and \
         *drift* is how far the p99 of these two are apart. Workers: one a core. The neighbour's settings: \
         `{SETTINGS}`. benches/isolation/main.rs says what the columns mean.\n\
         \n\
         Latencies of the healthy module, in \u{b5}s:\n\
         \n\
         | {titles} |\n|{rules}",
        date = machine::date(),
        cores = machine::cores(),
        processor = machine::processor(),
        compiler = machine::compiler(),
        healthy = per_second(HEALTHY_PERIOD),
        neighbour = per_second(NEIGHBOUR_PERIOD),
        titles = COLUMNS.join(" | "),
        rules = "---|".repeat(COLUMNS.len()),
    )
}

/// One cell.
pub(crate) fn row(cell: &Cell) -> String {
    let micros = |latency: Duration| format!("{}", latency.as_micros());
    let millis = |time: Option<Duration>, none: &str| time.map_or(none.to_owned(), |time| time.as_millis().to_string());
    let uncontained = if needs_containment(cell.misbehave) {
        "never"
    } else {
        "-"
    };
    let release = if cell.released { " r" } else { "" };
    let end = &cell.end;
    let cells = [
        cell.misbehave.to_string(),
        cell.tier.to_string(),
        micros(cell.without.p50()),
        micros(cell.with.p50()),
        micros(cell.without.p99()),
        micros(cell.with.p99()),
        micros(cell.without.p999()),
        micros(cell.with.p999()),
        format!("{:.2}", cell.ratio()),
        format!("{:.2}", cell.drift),
        cell.lost.to_string(),
        cell.wrong.len().to_string(),
        cell.grown_kib.map_or("-".to_owned(), |kib| format!("{:+}", kib / 1024)),
        millis(cell.contained, uncontained),
        millis(cell.serves_again, "never") + release,
        end.state.to_string(),
        format!("{}, {}", end.restarts, end.stuck_threads),
        match cell.mark() {
            Mark::Ok => "ok".to_owned(),
            Mark::Miss => "**miss**".to_owned(),
            Mark::NoGoal => "no goal".to_owned(),
        },
    ];
    format!("| {} |", cells.join(" | "))
}

/// The sum, and what does not fit in a row.
pub(crate) fn foot(cells: &[Cell]) -> String {
    let marked = |mark| cells.iter().filter(|cell| cell.mark() == mark).count();
    let calls: usize = cells.iter().map(|cell| cell.without.count() + cell.with.count()).sum();
    let lost: usize = cells.iter().map(|cell| cell.lost).sum();
    let wrong: usize = cells.iter().map(|cell| cell.wrong.len()).sum();
    let mut foot = format!(
        "\n{} ok, {} missed, {} without a goal. Of {calls} measured calls of the healthy module {lost} got no decision \
         and {wrong} a wrong one.\n",
        marked(Mark::Ok),
        marked(Mark::Miss),
        marked(Mark::NoGoal),
    );
    for cell in cells {
        let Cell {
            misbehave,
            tier,
            threads_left,
            ..
        } = cell;
        if *threads_left > 0 {
            // A text has no errors to write.
            let _ = write!(
                foot,
                "\n{misbehave} x {tier}: {threads_left} threads were left after the shutdown.\n"
            );
        }
        if !cell.healthy.failures.is_empty() {
            let failures = &cell.healthy.failures;
            let _ = write!(
                foot,
                "\n{misbehave} x {tier}: the healthy module counts failures: {failures:?}.\n"
            );
        }
        if let Some(first) = cell.wrong.first() {
            let _ = write!(foot, "\n{misbehave} x {tier}: the first wrong decision is `{first}`.\n");
        }
    }
    foot
}
