//! A group as a program: its options, its section, its results for the summary.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::machine;
use crate::report::Comparison;
use crate::rounds::Pace;

/// A run of a group.
#[derive(Debug)]
pub struct Group {
    name: &'static str,
    /// Whether it is to be over soon.
    pub quick: bool,
    /// The interpreter that has Synapse.
    pub python: Option<PathBuf>,
    /// Where the comparisons go, as JSON.
    results: Option<PathBuf>,
    comparisons: Vec<Comparison>,
}

impl Group {
    /// Reads the options. `None`, and a word about them, if there is one that is not known.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "a wrong option is said where the options come from")]
    pub fn begin(name: &'static str) -> Option<Self> {
        let mut group = Self {
            name,
            quick: false,
            python: None,
            results: None,
            comparisons: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                // Cargo gives this of its own.
                "--bench" => {}
                "--quick" => group.quick = true,
                "--results" => group.results = words.next().map(PathBuf::from),
                "--python" => group.python = words.next().map(PathBuf::from),
                _ => {
                    eprintln!("usage: cargo xtask bench {name} [--quick]");
                    return None;
                }
            }
        }
        Some(group)
    }

    /// How long its rows run.
    #[must_use]
    pub fn pace(&self) -> Pace {
        if self.quick {
            Pace {
                rounds: 3,
                each: Duration::from_millis(20),
            }
        } else {
            Pace {
                rounds: 15,
                each: Duration::from_millis(100),
            }
        }
    }

    /// Prints a part of the section.
    #[expect(clippy::print_stdout, reason = "a bench shows its results")]
    pub fn say(&self, text: &str) {
        println!("{text}\n");
    }

    /// Says how far it is.
    #[expect(clippy::print_stderr, reason = "a bench says how far it is, beside its results")]
    pub fn progress(&self, text: &str) {
        eprintln!("{}: {text}", self.name);
    }

    /// Prints where and how the section was made; `peers` are the others' packages in it.
    pub fn place(&self, peers: &[&str], measured: &str) {
        let quick = if self.quick { " --quick" } else { "" };
        let place = machine::place(&format!("cargo xtask bench {}{quick}", self.name));
        let peers: Vec<String> = peers.iter().map(|peer| machine::package(peer)).collect();
        let peers = if peers.is_empty() {
            String::new()
        } else {
            format!(" {}.", peers.join(", "))
        };
        self.say(&format!("{place}{peers} {measured}."));
    }

    /// The words for [`pace`](Self::pace).
    #[must_use]
    pub fn paced(&self) -> String {
        let Pace { rounds, each } = self.pace();
        format!("{rounds} rounds of {each:?} a row")
    }

    /// Adds a line to the summary.
    pub fn compare(&mut self, comparison: Comparison) {
        self.comparisons.push(comparison);
    }

    /// Prints what was compared, and hands it on.
    #[must_use]
    pub fn end(self) -> ExitCode {
        if !self.comparisons.is_empty() {
            self.say(&crate::report::comparisons(&self.comparisons));
        }
        let Some(file) = &self.results else {
            return ExitCode::SUCCESS;
        };
        let json = serde_json::to_string_pretty(&self.comparisons).expect("texts are JSON");
        let directory = file.parent().map_or(Ok(()), fs::create_dir_all);
        match directory.and_then(|()| fs::write(file, json)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                self.progress(&format!("cannot write {}: {error}", file.display()));
                ExitCode::FAILURE
            }
        }
    }
}
