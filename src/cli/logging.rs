//! The log, on the standard error output.

use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;

/// Logs from here on; `RUST_LOG` says what, this level by default.
pub(super) fn start(level: &str) {
    // actix's own start-up lines say what ours say, and strangers need not write errors into the log.
    let usual = match level {
        "off" => "off".to_owned(),
        level => format!("{level},actix_server=warn,actix_http=off"),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .init();
    // The panic of a module is caught and told in its decision; where it was is told here.
    std::panic::set_hook(Box::new(log_panic));
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let text = info.payload_as_str().unwrap_or_default();
    tracing::error!(location, text, "panicked");
}
