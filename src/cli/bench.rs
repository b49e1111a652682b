//! `ganglion bench`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use clap::error::ErrorKind;
use ganglion_actors::{ModuleHandle, ModuleId, ModuleState};
use ganglion_api::testing::Misbehave;
use ganglion_api::{CallbackSpec, Registry, spec};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use super::print;
use crate::bench::{
    Callers, Ended, Homeserver, Load, Misbehaves, Misbehaving, Mix, Options, Pace, Phase, Questions, ResultFile,
    RunResult, compare, report,
};
use crate::config::{Config, unknown_callback};
use crate::ganglion::Ganglion;

/// The longest warm-up.
const WARM_UP: Duration = Duration::from_secs(1);

/// The longest run.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The options of the command.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// The config file.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Asks this callback only; several with commas, or the option again. All are asked equally often.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = callback)]
    callback: Vec<&'static CallbackSpec>,
    /// Which callbacks are asked how often: `synapse` is a busy server, and the default.
    #[arg(long, value_name = "MIX", value_parser = ["synapse"], conflicts_with = "callback")]
    mix: Option<String>,
    /// For how long. A warm-up of a tenth of it, at most 1s, comes before and is not counted.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How many questions may be open at once.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    in_flight: u32,
    /// Asks so many questions a second on a schedule that waits for nobody, instead of as fast as it can.
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// Fixes the args and the order of the questions.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Lets a module misbehave: panic, error, hang, block, spin, slow, slow:TIME, leak, flood or garbage.
    #[arg(long, value_name = "ID=KIND", value_delimiter = ',', value_parser = Misbehaves::parse)]
    misbehave: Vec<Misbehaves>,
    /// Writes the result into this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Shows what changed since this result of an earlier run.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

fn callback(name: &str) -> Result<&'static CallbackSpec, String> {
    let known = spec(name);
    known.ok_or_else(|| unknown_callback(name))
}

fn duration(text: &str) -> Result<Duration, String> {
    let example = "write a duration such as 500ms, 10s or 2m";
    let duration = humantime::parse_duration(text).map_err(|error| format!("{example}: {error}"))?;
    if duration < Duration::from_millis(1) || duration > LONGEST {
        return Err("expected 1ms to 24h".into());
    }
    Ok(duration)
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=1e6).contains(rate));
    rate.ok_or_else(|| "expected questions a second, 0.001 to 1000000".into())
}

/// Loads the modules of a config, asks them, and says what they cost. Nothing listens.
pub(super) fn bench(args: &BenchArgs, registry: &Registry) -> anyhow::Result<()> {
    if args.rate.is_none()
        && args
            .misbehave
            .iter()
            .any(|misbehaves| misbehaves.how == Misbehave::Leak)
    {
        return Err(usage(
            "--misbehave: leak takes 64 KiB a call, so give a --rate that your memory is enough for",
        ));
    }
    let before = args.compare.as_deref().map(RunResult::read).transpose()?;
    let file = args.json.as_deref().map(ResultFile::open).transpose()?;
    let mut config = Config::from_file(&args.config, registry)?;
    let misbehaving =
        Misbehaving::wrap(&mut config, &args.misbehave).map_err(|error| usage(&format!("--misbehave: {error}")))?;
    let result = actix_web::rt::System::new().block_on(run(args, &config, &misbehaving))?;
    let mut text = report(&result);
    if let (Some(before), Some(path)) = (&before, &args.compare) {
        text.push('\n');
        text.push_str(&compare(before, &result, &path.display().to_string()));
    }
    print(&text)?;
    file.map_or(Ok(()), |file| file.write(&result))
}

/// What the command line had wrong, as clap says it: the exit code is 2.
fn usage(message: &str) -> anyhow::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{message}\n")).into()
}

async fn run(args: &BenchArgs, config: &Config, misbehaving: &Misbehaving) -> anyhow::Result<RunResult> {
    let ganglion = Ganglion::start(config).await?;
    let mix = match args.callback.as_slice() {
        [] => Mix::Synapse,
        named => Mix::Named(named.to_vec()),
    };
    let (asked, without_subscriber) = subscribed(&mix, &ganglion)?;
    let homeserver = Homeserver {
        name: config.server_name.as_str(),
        logins: ganglion.dispatch().routes().login_types().cloned().collect(),
        seed: args.seed,
    };
    let specs: Vec<_> = asked.iter().map(|(spec, _)| *spec).collect();
    let load = Load {
        questions: Arc::new(Questions::new(&specs, &mix, &homeserver)),
        ganglion: ganglion.clone(),
        in_flight: args.in_flight as usize,
        pace: args.rate.map_or(Pace::Closed, Pace::Rate),
    };
    let callers = Callers::start().context("cannot start the threads that ask")?;
    let warm_up = (args.duration / 10).min(WARM_UP);
    let (warm, phase) = (Phase::warm_up(), Phase::counted());
    let bar = progress(args.duration + warm_up);

    let (mut begun, mut schedule) = (Instant::now(), None);
    let counted = async {
        load.run(&callers, &warm, warm_up).await;
        callers.forget();
        if warm.is_over() {
            phase.end();
        }
        tracing::info!("the counting begins");
        misbehaving.begin();
        begun = Instant::now();
        schedule = load.run(&callers, &phase, args.duration).await;
    };
    interruptible(counted, &bar, &[&warm, &phase]).await?;
    let elapsed = begun.elapsed();
    bar.finish_and_clear();
    let result = RunResult::of(Ended {
        options: options(args, &mix, warm_up),
        not_running: not_running(ganglion.dispatch().modules()),
        asked,
        without_subscriber,
        callers: &callers,
        phase: &phase,
        schedule,
        elapsed,
    });
    misbehaving.end();
    ganglion.shutdown();
    Ok(result)
}

/// The callbacks of the mix that somebody subscribed to, with who is asked in which order; and the names of the others.
fn subscribed(mix: &Mix, ganglion: &Ganglion) -> anyhow::Result<(Vec<Route>, Vec<String>)> {
    let routes = ganglion.dispatch().routes();
    let (mut asked, mut without, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
    for (spec, modules) in routes.overview() {
        let wanted = mix.weight(spec.name) > 0;
        match (wanted, modules.is_empty()) {
            (true, false) => asked.push((spec, modules.iter().map(ModuleHandle::module_id).collect())),
            (true, true) => without.push(spec.name.to_owned()),
            (false, false) => elsewhere.push(spec.name),
            (false, true) => {}
        }
    }
    if asked.is_empty() {
        let hint = match elsewhere.as_slice() {
            [] => "no module of this config subscribes to a callback: there is nothing to ask".to_owned(),
            there => format!(
                "no module of this config subscribes to {}: there is nothing to ask. Subscribed are {}",
                without.join(", "),
                there.join(", ")
            ),
        };
        bail!(hint);
    }
    Ok((asked, without))
}

type Route = (&'static CallbackSpec, Vec<ModuleId>);

fn options(args: &BenchArgs, mix: &Mix, warm_up: Duration) -> Options {
    let name = args.config.file_name().unwrap_or(args.config.as_os_str());
    Options {
        config: name.to_string_lossy().into_owned(),
        mix: mix.to_string(),
        duration_s: args.duration.as_secs_f64(),
        warm_up_s: warm_up.as_secs_f64(),
        in_flight: args.in_flight as usize,
        pace: args.rate.map_or(Pace::Closed, Pace::Rate),
        seed: args.seed,
        misbehave: args
            .misbehave
            .iter()
            .map(|misbehaves| misbehaves.text.clone())
            .collect(),
    }
}

/// The modules of which there is more to say than that they run.
fn not_running(modules: &[ModuleHandle]) -> BTreeMap<String, String> {
    let mut states = BTreeMap::new();
    for snapshot in modules.iter().map(ModuleHandle::snapshot) {
        let mut text = snapshot.state.to_string();
        if let Some(reason) = &snapshot.reason {
            text.push_str(&format!(" ({reason})"));
        }
        if snapshot.restarts > 0 {
            text.push_str(&format!(", made anew {} times", snapshot.restarts));
        }
        if snapshot.stuck_threads > 0 {
            text.push_str(&format!(", with {} stuck threads", snapshot.stuck_threads));
        }
        let plain = snapshot.state == ModuleState::Running && snapshot.restarts == 0 && snapshot.stuck_threads == 0;
        if !plain && snapshot.state != ModuleState::Disabled {
            states.insert(snapshot.id, text);
        }
    }
    states
}

/// Nothing where the standard error output is no terminal.
fn progress(whole: Duration) -> ProgressBar {
    let millis = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
    let style = ProgressStyle::with_template("{bar:40} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(millis)
        .with_style(style)
        .with_message("Ctrl-C ends it early")
}

/// Waits for the load. A signal lets it end early, a second one waits no longer for what is open.
async fn interruptible(load: impl Future<Output = ()>, bar: &ProgressBar, phases: &[&Phase]) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let begun = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut load = std::pin::pin!(load);
    loop {
        tokio::select! {
            () = &mut load => return Ok(()),
            _ = tick.tick() => {
                bar.set_position(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
                continue;
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if phases.iter().all(|phase| phase.is_over()) {
            return Ok(());
        }
        phases.iter().for_each(|phase| phase.end());
        bar.set_message("waiting for the calls that are open");
    }
}
