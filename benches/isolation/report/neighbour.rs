//! The table of neighbours that misbehave.

use std::fmt::Write as _;
use std::time::Duration;

use super::{marks, mebibytes, per_second, table};
use crate::Durations;
use crate::cell::{Cell, SETTINGS, needs_containment};
use crate::load::{HEALTHY_PERIOD, MOST_OPEN, NEIGHBOUR_PERIOD};

/// Between the latencies and the goal.
const COLUMNS: [&str; 7] = [
    "lost",
    "wrong",
    "memory, MiB",
    "contained, ms",
    "serves again, ms",
    "state at the end",
    "restarts, stuck",
];

/// What was measured, and the head of the table.
pub(crate) fn head(durations: Durations) -> String {
    let Durations { calm, misbehaving, .. } = durations;
    format!(
        "A healthy module (tier `actor`, default settings) gets {healthy} calls a second, its neighbour {neighbour} on \
         another callback, {MOST_OPEN} open at most; both from the same process and on a schedule that waits for nobody, \
         and latencies count from the scheduled moment. *with* is {misbehaving:?} in which every call of the neighbour \
         misbehaves; *without* is two times {calm:?}, before and after, with the neighbour calm under the same load, and \
         *drift* is how far the p99 of these two are apart. Workers: one a core. The neighbour's settings: \
         `{SETTINGS}`. benches/isolation/main.rs says what the columns mean.\n\
         \n\
         Latencies of the healthy module, in \u{b5}s:\n\
         \n\
         {table}",
        healthy = per_second(HEALTHY_PERIOD),
        neighbour = per_second(NEIGHBOUR_PERIOD),
        table = table("misbehaviour", &COLUMNS),
    )
}

/// One cell.
pub(crate) fn row(cell: &Cell) -> String {
    let millis = |time: Option<Duration>, none: &str| time.map_or(none.to_owned(), |time| time.as_millis().to_string());
    let uncontained = if needs_containment(cell.misbehave) {
        "never"
    } else {
        "-"
    };
    let release = if cell.released { " r" } else { "" };
    let end = &cell.end;
    let own = [
        cell.lost.to_string(),
        cell.wrong.len().to_string(),
        mebibytes(cell.grown_kib),
        millis(cell.contained, uncontained),
        millis(cell.serves_again, "never") + release,
        end.state.to_string(),
        format!("{}, {}", end.restarts, end.stuck_threads),
    ];
    let first = [cell.misbehave.to_string(), cell.tier.to_string()];
    super::row(&first, &cell.latencies, &own, cell.mark())
}

/// The sum, and what does not fit in a row.
pub(crate) fn foot(cells: &[Cell]) -> String {
    let calls: usize = cells.iter().map(|cell| cell.latencies.count()).sum();
    let lost: usize = cells.iter().map(|cell| cell.lost).sum();
    let wrong: usize = cells.iter().map(|cell| cell.wrong.len()).sum();
    let mut foot = format!(
        "\n{marks}. Of {calls} measured calls of the healthy module {lost} got no decision and {wrong} a wrong one.\n",
        marks = marks(cells.iter().map(Cell::mark)),
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
