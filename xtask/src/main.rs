//! The tasks of this repository. `cargo xtask test` is the one command that sets up and runs
//! everything; CI runs nothing else.

#![expect(clippy::print_stderr, reason = "a task runner talks to the person who started it")]

mod bench;
mod command;
mod deny;
mod python;
mod section;
mod suite;
mod workspace;

use std::env;
use std::process::ExitCode;

use crate::workspace::Workspace;

const HELP: &str = "\
usage: cargo xtask TASK

tasks:
  test     set up, then run every check and every test, a real Synapse included
  setup    install what the tests need: a Python virtual environment with Synapse, below target/
  bench    run a bench and write its section of docs/performance.md; without a name: list the benches
  help     show this";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["test"] => Workspace::locate().and_then(|workspace| suite::run(&workspace)),
        ["setup"] => Workspace::locate().and_then(|workspace| python::set_up(&workspace).map(drop)),
        ["bench"] => {
            bench::list();
            return ExitCode::SUCCESS;
        }
        ["bench", name] => Workspace::locate().and_then(|workspace| bench::run(&workspace, name, false)),
        ["bench", name, "--quick"] | ["bench", "--quick", name] => {
            Workspace::locate().and_then(|workspace| bench::run(&workspace, name, true))
        }
        [] | ["help" | "--help" | "-h"] => {
            eprintln!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("xtask: unknown task `{}`\n\n{HELP}", words.join(" "));
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
