//! `ganglion call`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, stdin};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use ganglion_api::{Registry, spec};
use ganglion_dispatcher::{JsonDecision, Step};
use serde_json::Value;

use super::print;
use crate::config::{Config, unknown_callback};
use crate::ganglion::Ganglion;
use crate::json;
use crate::plain::plain;

/// What to ask, of which modules.
#[derive(Debug, clap::Args)]
pub(super) struct CallArgs {
    /// The callback, such as user_may_create_room; `ganglion callbacks` lists them.
    callback: String,
    /// Its args: a JSON object as over HTTP, the file that holds it, or - for the standard input.
    #[arg(value_name = "JSON|FILE|-")]
    args: String,
    /// The config file.
    #[arg(short, long, value_name = "FILE")]
    config: std::path::PathBuf,
    /// Prints the decision as JSON, in the form that it has over HTTP.
    #[arg(long)]
    json: bool,
}

/// The exit code for a question that was not decided: its outcome is an error.
const UNDECIDED: u8 = 2;

/// Loads the modules as `serve` would, without a homeserver, asks them once and shows the decision. Nothing listens, and no
/// background call begins: one that is cut off at once is worse than none.
pub(super) fn call(call: &CallArgs, registry: &Registry) -> anyhow::Result<ExitCode> {
    if spec(&call.callback).is_none() {
        bail!(unknown_callback(&call.callback));
    }
    let config = Config::from_file(&call.config, registry)?;
    let args = args(&call.args, config.admin.max_body)?;
    let decision = actix_web::rt::System::new().block_on(async {
        let ganglion = Ganglion::load(&config).await?;
        let decision = ganglion.ask_json(&call.callback, args).await;
        ganglion.shutdown();
        decision.context("the args")
    })?;
    let failed = decision.outcome["verdict"] == "error";
    if call.json {
        print(&(serde_json::to_string_pretty(&decision)? + "\n"))?;
    } else {
        print(&report(&call.callback, &decision))?;
    }
    Ok(if failed {
        ExitCode::from(UNDECIDED)
    } else {
        ExitCode::SUCCESS
    })
}

/// Reads the args from where they are, up to the size that a request may have.
fn args(given: &str, max: usize) -> anyhow::Result<Value> {
    let given = given.trim();
    let (text, place) = if given.starts_with('{') {
        (given.as_bytes().to_vec(), "the args".to_owned())
    } else if given == "-" {
        (
            read(stdin().lock(), max).context("the standard input")?,
            "the standard input".to_owned(),
        )
    } else {
        let file = File::open(given).with_context(|| {
            let given = plain(given);
            format!("{given} is neither a JSON object nor a file that can be read")
        })?;
        (read(file, max).with_context(|| plain(given))?, plain(given))
    };
    // The error says it all, its source would say it again.
    json::read(&text).map_err(|error| anyhow!("{place}: {error}"))
}

fn read(from: impl Read, max: usize) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(max as u64 + 1).read_to_end(&mut text)?;
    if text.len() > max {
        bail!("more than {max} bytes, which is what admin.max_body allows");
    }
    Ok(text)
}

/// The decision, for a terminal.
fn report(callback: &str, decision: &JsonDecision) -> String {
    let mut text = outcome(&decision.outcome);
    text.push('\n');
    if let Some(module) = &decision.decided_by {
        let _ = writeln!(text, "decided by {}", plain(module));
    } else if decision.steps.is_empty() {
        let _ = writeln!(text, "nobody was asked: no module registered for {callback}");
    }
    let width = decision
        .steps
        .iter()
        .map(|step| plain(&step.module).len())
        .max()
        .unwrap_or(0);
    for step in &decision.steps {
        line(&mut text, step, width);
    }
    text
}

/// What came out: a verdict with its words, or a value.
fn outcome(outcome: &Value) -> String {
    let Some(verdict) = outcome["verdict"].as_str() else {
        return format!("value {}", plain(&outcome["value"].to_string()));
    };
    let mut text = verdict.to_owned();
    if let Some(status) = outcome["status"].as_u64() {
        let _ = write!(text, " {status}");
    }
    if let Some(errcode) = outcome["errcode"].as_str() {
        let _ = write!(text, " {}", plain(errcode));
    }
    for key in ["error", "fields", "event", "request_content"] {
        let value = &outcome[key];
        let is_empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
        if !is_empty {
            let _ = write!(text, "\n  {key}: {}", plain(&value.to_string()));
        }
    }
    text
}

fn line(text: &mut String, step: &Step, width: usize) {
    let (module, result) = (plain(&step.module), step.result.as_str());
    let _ = write!(
        text,
        "  {module:width$}  {result:17}  {:>9} us",
        step.duration.as_micros()
    );
    if let Some(policy) = step.policy {
        let _ = write!(text, "  counts as {}", policy.as_str());
    }
    text.push('\n');
    if let Some(detail) = &step.detail {
        let _ = writeln!(text, "  {:width$}  {}", "", plain(detail));
    }
}
