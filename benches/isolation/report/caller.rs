//! The table of callers that flood.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{marks, mebibytes, per_second, table};
use crate::Durations;
use crate::caller::{CallerCell, DELAY, FLOOD_PERIOD, MAX_IN_FLIGHT, MOST_OPEN, STEADY_PERIOD};
use crate::calls::lock;

/// Between the latencies and the goal.
const COLUMNS: [&str; 8] = [
    "lost",
    "not answered",
    "flood: offered",
    "answered",
    "overloaded",
    "shed",
    "cores busy, offering",
    "memory, MiB",
];

/// A steady caller whose thread is later than that is worth a word.
const LATE: Duration = Duration::from_millis(10);

/// What was measured, and the head of the table.
pub(crate) fn head(durations: Durations) -> String {
    let Durations { calm, misbehaving, .. } = durations;
    format!(
        "### A caller that floods\n\
         \n\
         A steady caller makes {steady} calls a second; *with* is {misbehaving:?} in which another caller floods with \
         {flood} a second, {MOST_OPEN} open at most, for a module with `max_in_flight: {MAX_IN_FLIGHT}` and otherwise \
         default settings, whose calls wait for {DELAY:?} before they answer: it can take some {most} a second at best. \
         *without* is two times {calm:?} without the flood, before and after. Schedules and latencies are as above. \
         Both callers and the modules share the machine's cores: *cores busy* is all that ran in the flood, and *offering* \
         the part of it that the thread took which makes the calls. benches/isolation/main.rs says what the scenes and the other \
         columns mean.\n\
         \n\
         Latencies of the steady caller, in \u{b5}s:\n\
         \n\
         {table}",
        steady = per_second(STEADY_PERIOD),
        flood = per_second(FLOOD_PERIOD),
        most = f64::from(MAX_IN_FLIGHT) * per_second(DELAY),
        table = table("scene", &COLUMNS),
    )
}

fn count(count: &AtomicUsize) -> String {
    count.load(Ordering::SeqCst).to_string()
}

/// One cell.
pub(crate) fn row(cell: &CallerCell) -> String {
    let (all, offering) = cell.busy;
    let own = [
        cell.lost.to_string(),
        cell.not_answered.len().to_string(),
        count(&cell.flood.offered),
        count(&cell.flood.answered),
        count(&cell.flood.overloaded),
        count(&cell.flood.shed),
        format!("{all:.2}, {offering:.2}"),
        mebibytes(cell.grown_kib),
    ];
    let first = [cell.scene.to_string(), cell.tier.to_string()];
    super::row(&first, &cell.latencies, &own, cell.mark())
}

/// The sum, and what does not fit in a row.
pub(crate) fn foot(cells: &[CallerCell]) -> String {
    let calls: usize = cells.iter().map(|cell| cell.latencies.count()).sum();
    let lost: usize = cells.iter().map(|cell| cell.lost).sum();
    let not_answered: usize = cells.iter().map(|cell| cell.not_answered.len()).sum();
    let mut foot = format!(
        "\n{marks}. Of {calls} measured calls of the steady caller {not_answered} were not answered by the module; {lost} \
         calls, the floods' too, got no decision.\n",
        marks = marks(cells.iter().map(CallerCell::mark)),
    );
    for cell in cells {
        let CallerCell { scene, tier, flood, .. } = cell;
        let mut note = |text: String| {
            // A text has no errors to write.
            let _ = write!(foot, "\n{scene} x {tier}: {text}.\n");
        };
        if cell.threads_left > 0 {
            note(format!("{} threads were left after the shutdown", cell.threads_left));
        }
        if cell.latest >= LATE {
            let latest = cell.latest.as_millis();
            note(format!(
                "the steady caller's own thread was up to {latest} ms late, which is the machine's doing"
            ));
        }
        if let Some(first) = cell.not_answered.first() {
            note(format!("the first that was not answered is `{first}`"));
        }
        let held_back = flood.held_back.load(Ordering::SeqCst);
        if held_back > 0 {
            note(format!(
                "{held_back} calls of the flood were not made, since too many were open"
            ));
        }
        let otherwise = lock(&flood.otherwise);
        if let Some(first) = otherwise.first() {
            let count = otherwise.len();
            note(format!(
                "{count} calls of the flood failed otherwise, the first with `{first}`"
            ));
        }
    }
    foot
}
