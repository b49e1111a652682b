//! The result as text.

use std::fmt::Write as _;

use super::pace::Pace;
use super::result::{BucketResult, CallbackResult, LatencyResult, ModuleResult, RunResult, ScheduleResult};
use super::text::{NAME, cell, percent, rate, us};
use crate::plain::plain;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The whole report.
pub(crate) fn report(result: &RunResult) -> String {
    let mut text = head(result);
    text.push('\n');
    table(&mut text, result);
    distribution(&mut text, result);
    foot(&mut text, result);
    text
}

fn head(result: &RunResult) -> String {
    let (options, run) = (&result.options, &result.run);
    let mut text = String::new();
    let _ = writeln!(text, "ganglion {} bench of {}", result.ganglion, plain(&options.config));
    let _ = writeln!(
        text,
        "load     {}, {}, at most {} in flight, {} s after {} s of warm-up, seed {}",
        plain(&options.mix),
        options.pace,
        options.in_flight,
        options.duration_s,
        options.warm_up_s,
        options.seed
    );
    for misbehave in &options.misbehave {
        let _ = writeln!(text, "misbehaves when the counting begins: {}", plain(misbehave));
    }
    let _ = writeln!(text, "machine  {}", plain(&result.machine.to_string()));
    let early = if run.ended_early { ", ended early" } else { "" };
    let _ = writeln!(
        text,
        "result   {} calls in {:.1} s, {} a second, {} open at once at most{early}",
        run.calls,
        run.elapsed_s,
        rate(run.per_s),
        run.most_open
    );
    if let Some(schedule) = &run.schedule {
        schedule_lines(&mut text, schedule, options.in_flight);
    }
    if result.build == "debug" {
        text.push_str("warning  this is a debug build, its times are several times those of a release build\n");
    }
    text
}

fn schedule_lines(text: &mut String, schedule: &ScheduleResult, in_flight: usize) {
    let slip = &schedule.slip;
    let _ = writeln!(
        text,
        "schedule {} calls, asked later than due by p50 {}, p99 {}, max {} µs, which is part of their latency",
        schedule.calls,
        us(slip.p50_us),
        us(slip.p99_us),
        us(slip.max_us)
    );
    if schedule.held_back > 0 {
        let _ = writeln!(
            text,
            "warning  {} calls were held back while {in_flight} were open: that wait is part of their latency too",
            schedule.held_back
        );
    }
    if schedule.not_asked > 0 {
        let _ = writeln!(
            text,
            "warning  {} calls of the schedule were not asked, and their latency is missing here",
            schedule.not_asked
        );
    }
}

fn table(text: &mut String, result: &RunResult) {
    let _ = writeln!(
        text,
        "{:NAME$}{:>9}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>7}{:>7}",
        "times in µs", "calls", "per s", "share", "p50", "p90", "p99", "p99.9", "max", "decided", "denied", "failed"
    );
    for callback in &result.callbacks {
        callback_rows(text, callback);
    }
    text.push('\n');
}

fn callback_rows(text: &mut String, callback: &CallbackResult) {
    let CallbackResult {
        calls,
        per_s,
        denied,
        errors,
        latency,
        ..
    } = callback;
    let name = cell(&callback.callback, NAME);
    let _ = write!(text, "{name}{calls:>9}{:>8}{:>8}", rate(*per_s), "");
    times(text, latency);
    let _ = writeln!(text, "{:>8}{denied:>7}{errors:>7}", "");
    for module in &callback.modules {
        module_rows(text, module);
    }
    let name = cell("  dispatch", NAME);
    let _ = write!(text, "{name}{:>9}{:>8}{:>8}", "", "", percent(callback.dispatch_share));
    times(text, &callback.dispatch);
    text.push('\n');
}

fn module_rows(text: &mut String, module: &ModuleResult) {
    let ModuleResult {
        calls,
        per_s,
        share,
        decided,
        denied,
        ..
    } = module;
    let name = cell(&module.module, NAME - 2);
    let _ = write!(text, "  {name}{calls:>9}{:>8}{:>8}", rate(*per_s), percent(*share));
    times(text, &module.latency);
    let _ = writeln!(text, "{decided:>8}{denied:>7}{:>7}", module.failed());
    if !module.failures.is_empty() {
        let mut failures: Vec<_> = module.failures.iter().collect();
        failures.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let kinds: Vec<_> = failures
            .iter()
            .map(|(kind, count)| format!("{} {count}", plain(kind)))
            .collect();
        let _ = writeln!(text, "    failed: {}", kinds.join(", "));
    }
    let reached = module.latency.calls;
    if reached < *calls {
        let _ = writeln!(
            text,
            "    the times are of the {reached} calls that reached it or waited for it"
        );
    }
}

fn times(text: &mut String, latency: &LatencyResult) {
    let LatencyResult {
        p50_us,
        p90_us,
        p99_us,
        p999_us,
        max_us,
        ..
    } = latency;
    for time in [p50_us, p90_us, p99_us, p999_us, max_us] {
        let _ = write!(text, "{:>8}", us(*time));
    }
}

/// The histograms of all rows on one scale, so that they can be compared by eye.
fn distribution(text: &mut String, result: &RunResult) {
    let mut rows: Vec<(String, &[BucketResult])> = Vec::new();
    for callback in &result.callbacks {
        rows.push((callback.callback.clone(), &callback.latency.histogram));
        for module in callback.modules.iter().filter(|module| module.latency.calls > 0) {
            rows.push((format!("  {}", module.module), &module.latency.histogram));
        }
        rows.push(("  dispatch".to_owned(), &callback.dispatch.histogram));
    }
    let scale = scale(rows.iter().map(|(_, buckets)| *buckets));
    if scale.is_empty() {
        return;
    }
    let _ = writeln!(text, "{} {}", cell("how long calls took", NAME), axis(&scale));
    for (name, buckets) in rows {
        let _ = writeln!(text, "{} {}", cell(&name, NAME), bars(buckets, &scale).trim_end());
    }
    text.push_str(
        "A column is a step of 1, 2, 5: the one at 10µs has the calls of more than 5 and up to 10 µs. Its height goes by the\n\
         logarithm of their number, so that a single slow call can be seen.\n\n",
    );
}

/// Every step from the first with calls in any row to the last.
fn scale<'a>(rows: impl Iterator<Item = &'a [BucketResult]>) -> Vec<f64> {
    let ends: Vec<f64> = rows
        .flat_map(|buckets| [buckets.first(), buckets.last()])
        .flatten()
        .map(|b| b.to_us)
        .collect();
    let first = ends.iter().copied().fold(f64::INFINITY, f64::min);
    let last = ends.iter().copied().fold(0.0, f64::max);
    let steps = super::histogram::scale().map(|nanos| nanos as f64 / 1000.0);
    steps.filter(|step| (first..=last).contains(step)).collect()
}

fn axis(scale: &[f64]) -> String {
    let mut axis = String::new();
    for (position, step) in scale.iter().enumerate() {
        let width = axis.chars().count();
        if let Some(label) = label(*step).filter(|_| width <= 2 * position) {
            axis.push_str(&" ".repeat(2 * position - width));
            axis.push_str(&label);
        }
    }
    axis
}

/// The name of a step, of every third one.
fn label(step: f64) -> Option<String> {
    let nanos = (step * 1000.0).round() as u64;
    let (number, unit) = match nanos {
        0..1000 => (nanos, "ns"),
        1000..1_000_000 => (nanos / 1000, "µs"),
        1_000_000..1_000_000_000 => (nanos / 1_000_000, "ms"),
        _ => (nanos / 1_000_000_000, "s"),
    };
    [1, 10, 100].contains(&number).then(|| format!("{number}{unit}"))
}

fn bars(buckets: &[BucketResult], scale: &[f64]) -> String {
    let most = buckets.iter().map(|bucket| bucket.calls).max().unwrap_or_default();
    let calls = |step: f64| {
        buckets
            .iter()
            .find(|bucket| bucket.to_us == step)
            .map_or(0, |bucket| bucket.calls)
    };
    scale.iter().flat_map(|step| [bar(calls(*step), most); 2]).collect()
}

/// A bar by the logarithm: one call is the lowest, the most of its row are the highest.
fn bar(calls: u64, most: u64) -> char {
    if calls == 0 {
        return ' ';
    }
    let height = ((calls as f64).ln_1p() - 2_f64.ln()) / ((most.max(2) as f64).ln_1p() - 2_f64.ln());
    BARS[((height * 7.0).round() as usize).min(7)]
}

fn foot(text: &mut String, result: &RunResult) {
    let without = result.without_subscriber.len();
    if without > 0 {
        let plural = if without == 1 { "" } else { "s" };
        let which = match without {
            1..=3 => format!(": {}", result.without_subscriber.join(", ")),
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "not asked: {without} callback{plural} that no module subscribes to{}",
            plain(&which)
        );
    }
    for (module, state) in &result.not_running {
        let _ = writeln!(text, "at the end module {} was {}", plain(module), plain(state));
    }
    text.push_str(
        "share: of the time of its callback. decided: its answer or failure was the outcome. failed, of a callback: it ended\n\
         with an error. dispatch: all of the time in which no module was at it. -: too few calls to say.\n",
    );
    if result.options.pace == Pace::Closed && result.options.in_flight > 1 {
        text.push_str(
            "A closed loop asks as fast as it can, so most of a latency is the wait for other calls. For the latency at the\n\
             load of your server use --rate.\n",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::fixture::{callback, result};
    use super::*;

    fn bucket(to_us: f64, calls: u64) -> BucketResult {
        BucketResult { to_us, calls }
    }

    #[test]
    fn a_bar_s_height_goes_by_the_logarithm() {
        assert_eq!(
            [0, 1, 10, 1000, 1_000_000].map(|calls| bar(calls, 1_000_000)),
            [' ', '▁', '▂', '▄', '█']
        );
        assert_eq!(bar(1, 1), '▁');
    }

    #[test]
    fn bars_stand_at_their_steps_of_the_common_scale() {
        let (fast, slow) = ([bucket(1.0, 5), bucket(2.0, 100)], [bucket(10.0, 1)]);
        let scale = scale([&fast[..], &slow[..]].into_iter());
        assert_eq!(scale, [1.0, 2.0, 5.0, 10.0]);
        assert_eq!(axis(&scale), "1µs   10µs");
        assert_eq!(bars(&fast, &scale), "▃▃██    ");
        assert_eq!(bars(&slow, &scale), "      ▁▁");
    }

    #[test]
    fn what_modules_and_files_are_called_is_text_and_no_line_is_too_long() {
        let hostile = "\u{1b}[31mx\n\u{202e}".to_owned() + &"long".repeat(80);
        let mut result = result(&[callback("on_new_event", &[&hostile, "b"], 123_456_789.0)]);
        result.not_running.insert(hostile.clone(), "quarantined (\u{7})".into());
        result.options.config = hostile;
        let text = report(&result);
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
        let table = text.lines().skip_while(|line| !line.starts_with("times")).take(5);
        assert!(table.clone().all(|line| line.chars().count() <= 130), "{text}");
        assert_eq!(table.filter(|line| line.contains("[31mx")).count(), 1, "{text}");
    }
}
