//! The command line.

#[cfg(feature = "bench")]
mod bench;
mod call;
mod callbacks;
mod check;
mod logging;
mod new;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ganglion_api::Registry;

use crate::plain::plain;

/// Hosts the third-party modules of Matrix homeservers.
#[derive(Debug, Parser)]
#[command(name = "ganglion", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Loads the modules of a config and answers callbacks over HTTP.
    Serve {
        /// The config file.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Loads the modules of a config, prints every route in order, and warns; exits with 1 if the config has errors.
    Check {
        /// The config file.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Loads the modules of a config, asks them as a busy homeserver would, and prints what they cost. Nothing listens.
    #[cfg(feature = "bench")]
    Bench(bench::BenchArgs),
    /// Asks the modules of a config one callback, and shows the decision with its steps. Exits with 0 whatever the verdict
    /// is, and with 2 if the outcome is an error.
    Call(call::CallArgs),
    /// Writes the crate of a new module, with a test and a config that run.
    New {
        /// What the crate and its directory are called, such as room-quota.
        name: String,
    },
    /// Prints the reference of all callbacks.
    Callbacks {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command line of this process with these modules: a program of your own with your own modules is one line.
///
/// ```no_run
/// # use std::process::ExitCode;
/// fn main() -> ExitCode {
///     // Add yours: .with::<MyModule>("my.Module")
///     ganglion::cli::run(&ganglion::registry())
/// }
/// ```
///
/// Exit codes: 0 done, 1 the config or the start failed, 2 wrong usage; for `call` 2 is also an outcome that is an error.
#[must_use]
pub fn run(registry: &Registry) -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Serve { config } => done(logged("info", || serve::serve(&config, registry))),
        Command::Check { config } => done(logged("info", || check::check(&config, registry))),
        Command::Call(args) => logged("warn", || call::call(&args, registry)),
        // A line for each failure would be most of what is measured.
        #[cfg(feature = "bench")]
        Command::Bench(args) => done(logged("off", || bench::bench(&args, registry))),
        Command::New { name } => done(new::new(&name)),
        Command::Callbacks { json } => done(callbacks::print(json)),
    };
    match ended {
        Ok(code) => code,
        Err(error) => match error.downcast_ref::<clap::Error>() {
            Some(usage) => usage.exit(),
            None => {
                fail(&error);
                ExitCode::FAILURE
            }
        },
    }
}

fn done(ended: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    ended.map(|()| ExitCode::SUCCESS)
}

/// Logs from the first line of the config on: a module may panic while it reads its part. `RUST_LOG` says what, this
/// level by default.
fn logged<T>(level: &str, command: impl FnOnce() -> T) -> T {
    logging::start(level);
    command()
}

#[expect(clippy::print_stderr, reason = "the command line's error")]
fn fail(error: &anyhow::Error) {
    eprintln!("ganglion: {}", shown(error));
}

/// An error with its causes, for a terminal: what a module says may come from anywhere.
fn shown(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// Writes to the standard output. A reader that went away, such as `head`, has seen enough.
fn print(text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_error_can_do_nothing_to_a_terminal() {
        let error = anyhow::anyhow!("of\u{1b}[2J a module\nand more").context("it was not made");
        assert_eq!(super::shown(&error), "it was not made: of\\u{1b}[2J a module\nand more");
    }
}
