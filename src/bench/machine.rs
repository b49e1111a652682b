//! What a result was measured on: numbers of different machines do not compare.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

/// The machine, as far as it can be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// How many threads can run at once.
    pub(crate) cores: usize,
    /// The processor's name, else its architecture.
    pub(crate) cpu: String,
    /// The system and its version.
    pub(crate) os: String,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cores: cores(),
            cpu: processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            os: format!("{} {}", std::env::consts::OS, release.trim()).trim().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.cores == 1 { "" } else { "s" };
        write!(f, "{} core{plural}, {}, {}", self.cores, self.cpu, self.os)
    }
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
