//! What came out, as the JSON file has it. `docs/benchmarking.md` is its description.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use ganglion_actors::ModuleId;
use ganglion_api::{CallbackSpec, FailureKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::histogram::{self, Latencies};
use super::load::{Callers, Phase, Schedule};
use super::machine::Machine;
use super::pace::Pace;
use super::record::{CallbackRecord, ModuleRecord};

/// The version of the schema: another one is not read.
const VERSION: u64 = 1;

/// A whole result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunResult {
    /// Of this schema.
    pub(super) version: u64,
    /// The version that measured.
    pub(super) ganglion: String,
    /// `release` or `debug`.
    pub(super) build: String,
    /// When it ended, in RFC 3339, UTC.
    pub(super) date: String,
    pub(super) machine: Machine,
    pub(super) options: Options,
    pub(super) run: Run,
    /// In the order of the reference.
    pub(super) callbacks: Vec<CallbackResult>,
    /// Callbacks of the mix that nobody subscribed to: they were not asked.
    pub(super) without_subscriber: Vec<String>,
    /// The modules that were not simply running when it ended, and why.
    pub(super) not_running: BTreeMap<String, String>,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Options {
    /// The name of the config file, without its directory.
    pub(crate) config: String,
    /// The name of the mix, or the callbacks that were named.
    pub(crate) mix: String,
    pub(crate) duration_s: f64,
    pub(crate) warm_up_s: f64,
    pub(crate) in_flight: usize,
    pub(crate) pace: Pace,
    pub(crate) seed: u64,
    /// As on the command line.
    pub(crate) misbehave: Vec<String>,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// From the first question to the last decision.
    pub(super) elapsed_s: f64,
    pub(super) calls: u64,
    pub(super) per_s: f64,
    /// How many questions were open at once, at most.
    pub(super) most_open: usize,
    /// Whether it was ended before its time.
    pub(super) ended_early: bool,
    /// Only of an open loop.
    pub(super) schedule: Option<ScheduleResult>,
}

/// How the schedule of an open loop was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ScheduleResult {
    pub(super) calls: u64,
    pub(super) not_asked: u64,
    pub(super) held_back: u64,
    pub(super) slip: LatencyResult,
}

/// What became of the questions about one callback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CallbackResult {
    pub(super) callback: String,
    pub(super) calls: u64,
    pub(super) per_s: f64,
    pub(super) denied: u64,
    pub(super) errors: u64,
    /// Of the whole chain.
    pub(super) latency: LatencyResult,
    /// The part of the chain in which no module was at it.
    pub(super) dispatch: LatencyResult,
    /// The same as a share of the chain's time, 0 to 1.
    pub(super) dispatch_share: f64,
    /// In the order in which they are asked.
    pub(super) modules: Vec<ModuleResult>,
}

/// What one module did for one callback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ModuleResult {
    pub(super) module: String,
    pub(super) calls: u64,
    pub(super) per_s: f64,
    /// Its share of the chain's time, 0 to 1.
    pub(super) share: f64,
    pub(super) decided: u64,
    pub(super) denied: u64,
    /// By kind; only those above zero.
    pub(super) failures: BTreeMap<String, u64>,
    /// Of the calls that reached it, or waited for it.
    pub(super) latency: LatencyResult,
}

/// Latencies, in microseconds. What too few calls say nothing about is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LatencyResult {
    pub(super) calls: u64,
    pub(super) mean_us: Option<f64>,
    pub(super) p50_us: Option<f64>,
    pub(super) p90_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) p999_us: Option<f64>,
    pub(super) max_us: Option<f64>,
    pub(super) histogram: Vec<BucketResult>,
}

/// How many calls took longer than the bucket before, and at most this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct BucketResult {
    pub(super) to_us: f64,
    pub(super) calls: u64,
}

/// What there is when the load is over.
pub(crate) struct Ended<'a> {
    pub(crate) options: Options,
    /// The callbacks that were asked, as the questions have them, each with its modules in the order of its route.
    pub(crate) asked: Vec<(&'static CallbackSpec, Vec<ModuleId>)>,
    pub(crate) without_subscriber: Vec<String>,
    pub(crate) not_running: BTreeMap<String, String>,
    pub(crate) callers: &'a Callers,
    pub(crate) phase: &'a Phase,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) elapsed: Duration,
}

impl RunResult {
    /// What came out.
    pub(crate) fn of(ended: Ended<'_>) -> Self {
        let record = ended.callers.take_record();
        let planned = Duration::from_secs_f64(ended.options.duration_s);
        let early = ended.phase.is_over();
        // The last question of a schedule is due before its end.
        let elapsed = if early {
            ended.elapsed
        } else {
            ended.elapsed.max(planned)
        };
        let elapsed = elapsed.as_secs_f64();
        let rate = |calls: u64| rounded(calls as f64 / elapsed.max(1e-9));
        let mut callbacks: Vec<(usize, CallbackResult)> = Vec::new();
        for ((spec, route), record) in ended.asked.iter().zip(&record.callbacks) {
            if let Some(record) = record {
                let index = ganglion_api::reference()
                    .iter()
                    .position(|other| other.name == spec.name);
                callbacks.push((
                    index.unwrap_or_default(),
                    CallbackResult::of(spec.name, route, record, &rate),
                ));
            }
        }
        callbacks.sort_by_key(|(index, _)| *index);
        Self {
            version: VERSION,
            ganglion: env!("CARGO_PKG_VERSION").to_owned(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            machine: Machine::here(),
            options: ended.options,
            run: Run {
                elapsed_s: rounded(elapsed),
                calls: record.calls(),
                per_s: rate(record.calls()),
                most_open: ended.phase.most_open(),
                ended_early: early,
                schedule: ended.schedule.as_ref().map(ScheduleResult::of),
            },
            callbacks: callbacks.into_iter().map(|(_, callback)| callback).collect(),
            without_subscriber: ended.without_subscriber,
            not_running: ended.not_running,
        }
    }

    /// Reads a file that [`ResultFile::write`] wrote.
    ///
    /// # Errors
    /// It cannot be read, is no result, or is one of another version.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let name = file.display();
        let text = fs::read_to_string(file).with_context(|| format!("--compare: cannot read {name}"))?;
        let value: Value = serde_json::from_str(&text).with_context(|| format!("--compare: {name} is no JSON"))?;
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => bail!(
                "--compare: {name} is a result of version {other}, this is ganglion {}, which reads version {VERSION}: \
                 measure again with this one",
                env!("CARGO_PKG_VERSION")
            ),
            None => bail!("--compare: {name} is no result of ganglion bench --json"),
        }
        serde_json::from_value(value)
            .with_context(|| format!("--compare: {name} is no result of ganglion bench --json"))
    }
}

impl ScheduleResult {
    fn of(schedule: &Schedule) -> Self {
        Self {
            calls: schedule.ticks,
            not_asked: schedule.not_asked,
            held_back: schedule.held_back,
            slip: LatencyResult::of(&schedule.slip),
        }
    }
}

impl CallbackResult {
    fn of(name: &str, route: &[ModuleId], record: &CallbackRecord, rate: &impl Fn(u64) -> f64) -> Self {
        let chain = record.chain.total();
        let mut modules: Vec<&ModuleRecord> = record.modules.iter().collect();
        modules.sort_by_key(|module| route.iter().position(|id| *id == module.id).unwrap_or(usize::MAX));
        Self {
            callback: name.to_owned(),
            calls: record.chain.count(),
            per_s: rate(record.chain.count()),
            denied: record.denied,
            errors: record.errors,
            latency: LatencyResult::of(&record.chain),
            dispatch: LatencyResult::of(&record.dispatch),
            dispatch_share: share(record.dispatch.total(), chain),
            modules: modules
                .into_iter()
                .map(|module| ModuleResult::of(module, chain, rate))
                .collect(),
        }
    }
}

impl ModuleResult {
    fn of(module: &ModuleRecord, chain: Duration, rate: &impl Fn(u64) -> f64) -> Self {
        let failures = FailureKind::ALL
            .iter()
            .zip(module.failures)
            .filter(|(_, count)| *count > 0);
        Self {
            module: module.id.to_string(),
            calls: module.calls,
            per_s: rate(module.calls),
            share: share(module.total, chain),
            decided: module.decided,
            denied: module.denied,
            failures: failures
                .map(|(kind, count)| (kind.as_str().to_owned(), count))
                .collect(),
            latency: LatencyResult::of(&module.latency),
        }
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

impl LatencyResult {
    fn of(latencies: &Latencies) -> Self {
        let quantile = |share| latencies.quantile(share).map(micros);
        let buckets = latencies.buckets().into_iter();
        let count = latencies.count();
        let mean = (count > 0).then(|| latencies.total().as_secs_f64() * 1e6 / count as f64);
        Self {
            calls: count,
            mean_us: mean.map(rounded),
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: latencies.max().map(micros),
            histogram: buckets
                .map(|histogram::Bucket { to, calls }| BucketResult {
                    to_us: micros(to),
                    calls,
                })
                .collect(),
        }
    }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

/// To a thousandth: more is noise, and hard to read.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() {
        return 0.0;
    }
    let share = part.as_secs_f64() / whole.as_secs_f64();
    (share * 10_000.0).round() / 10_000.0
}

/// The file that the result goes to. It is there as a whole or not at all: the text goes beside it first.
pub(crate) struct ResultFile {
    path: PathBuf,
    /// `None` where the file is no plain one, such as `/dev/stdout`: that cannot be replaced.
    beside: Option<PathBuf>,
    file: File,
}

impl ResultFile {
    /// Opens it before there is a result.
    ///
    /// # Errors
    /// It cannot be written to.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        Self::try_open(path).with_context(|| format!("--json: cannot write {}", path.display()))
    }

    fn try_open(path: &Path) -> io::Result<Self> {
        let special = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(metadata) => !metadata.is_file(),
            Err(_) => false,
        };
        let beside = (!special).then(|| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{}.part", std::process::id()));
            PathBuf::from(name)
        });
        let file = File::options()
            .write(true)
            .create(!special)
            .truncate(!special)
            .open(beside.as_deref().unwrap_or(path))?;
        Ok(Self {
            path: path.to_owned(),
            beside,
            file,
        })
    }

    /// Writes the result.
    ///
    /// # Errors
    /// It cannot be written any more.
    pub(crate) fn write(mut self, result: &RunResult) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(result)? + "\n";
        let written = self.file.write_all(text.as_bytes()).and_then(|()| match &self.beside {
            Some(beside) => fs::rename(beside, &self.path),
            None => Ok(()),
        });
        written.with_context(|| format!("--json: cannot write {}", self.path.display()))
    }
}

impl Drop for ResultFile {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // Gone already if it was written.
            let _ = fs::remove_file(beside);
        }
    }
}

/// Results to look at.
#[cfg(test)]
pub(super) mod fixture {
    use serde_json::{Value, json};

    use super::RunResult;

    fn latency(p50: f64) -> Value {
        json!({"calls": 2000, "mean_us": p50, "p50_us": p50, "p90_us": p50 * 2.0, "p99_us": p50 * 3.0,
               "p999_us": p50 * 4.0, "max_us": p50 * 5.0, "histogram": []})
    }

    pub(in crate::bench) fn callback(name: &str, modules: &[&str], p50: f64) -> Value {
        let modules = modules.iter().map(|module| {
            json!({"module": module, "calls": 2000, "per_s": 200.0, "share": 0.5, "decided": 0, "denied": 0,
                   "failures": {}, "latency": latency(p50 / 2.0)})
        });
        json!({"callback": name, "calls": 2000, "per_s": 200.0, "denied": 0, "errors": 0, "latency": latency(p50),
               "dispatch": latency(p50 / 4.0), "dispatch_share": 0.25, "modules": modules.collect::<Value>()})
    }

    pub(in crate::bench) fn result(callbacks: &[Value]) -> RunResult {
        let result = json!({
            "version": 1, "ganglion": "0.1.0", "build": "release", "date": "2026-01-01T00:00:00Z",
            "machine": {"cores": 2, "cpu": "x", "os": "linux"},
            "options": {"config": "g.yaml", "mix": "mix synapse", "duration_s": 10.0, "warm_up_s": 1.0, "in_flight": 64,
                        "pace": "closed", "seed": 1, "misbehave": []},
            "run": {"elapsed_s": 10.0, "calls": 2000, "per_s": 200.0, "most_open": 64, "ended_early": false,
                    "schedule": null},
            "callbacks": callbacks, "without_subscriber": [], "not_running": {},
        });
        serde_json::from_value(result).unwrap()
    }
}
