//! The binary `ganglion`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ganglion::cli::run(&ganglion::registry())
}
