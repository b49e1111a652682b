//! The tasks of this repository. `cargo xtask test` is the one command that sets up and runs
//! everything; CI runs nothing else.

#![expect(clippy::print_stderr, reason = "a task runner talks to the person who started it")]

mod bench;
mod command;
mod cost;
mod debian;
mod deny;
mod new_module;
mod python;
mod section;
mod suite;
mod summary;
mod workspace;

use std::env;
use std::process::ExitCode;

use crate::workspace::Workspace;

const HELP: &str = "\
usage: cargo xtask TASK

tasks:
  test     set up, then run every check and every test, a real Synapse included
  setup    install what the tests need: a Python virtual environment with Synapse, below target/
  bench    run benches and write their sections of docs/performance.md: all, or those that are named
           (--list: list them; --quick: a short run, which leaves the document as it is)
  cost     count the instructions and allocations of a chain, and compare them; --write: write them down instead
  help     show this";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["test"] => Workspace::locate().and_then(|workspace| suite::run(&workspace)),
        ["setup"] => Workspace::locate().and_then(|workspace| {
            let python = python::set_up(&workspace)?;
            python::install_bridge(&workspace, &python)
        }),
        ["cost"] => Workspace::locate().and_then(|workspace| cost::check(&workspace)),
        ["cost", "--write"] => Workspace::locate().and_then(|workspace| cost::write(&workspace)),
        ["bench", words @ ..] => Workspace::locate().and_then(|workspace| bench::follow(&workspace, words)),
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
