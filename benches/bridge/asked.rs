//! What a question takes inside of Synapse: ask.py asks, and says how.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use ganglion_benches::rounds::Series;
use ganglion_benches::work::{MODULES, json_args};
use serde::Deserialize;

use crate::client::Wrong;
use crate::ganglion::{self, Serving};
use crate::{Found, PYTHON_PATH, Way};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bridge/ask.py");

/// How many rounds there are, and how many questions of a round are counted, of each way to ask.
pub(crate) struct Pace {
    pub(crate) rounds: usize,
    pub(crate) questions: usize,
    /// How many are asked at once.
    pub(crate) at_once: usize,
}

/// What the script found.
#[derive(Debug, Deserialize)]
struct Told {
    versions: String,
    /// How many questions of each there were.
    questions: u64,
    rounds: HashMap<String, Vec<f64>>,
}

/// The versions of what was asked, and what a question takes.
pub(crate) fn measure(pace: &Pace, python: &Path, ganglion: &Serving) -> Result<(String, Found), Wrong> {
    let begun = ganglion::calls();
    let mut script = Command::new(python)
        .arg(SCRIPT)
        .arg("--socket")
        .arg(ganglion.socket())
        .args(["--antispam", &ganglion.antispam(), "--modules", &MODULES.to_string()])
        .args(["--rounds", &pace.rounds.to_string()])
        .args(["--questions", &pace.questions.to_string()])
        .args(["--at-once", &pace.at_once.to_string()])
        .env("PYTHONPATH", PYTHON_PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // Taken, so that it is closed.
    if let Some(mut stdin) = script.stdin.take() {
        stdin.write_all(json_args().to_string().as_bytes())?;
    }
    let output = script.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("{SCRIPT}: {}", output.status).into());
    }
    let mut told: Told = serde_json::from_slice(&output.stdout)?;
    let (asked, wanted) = (ganglion::calls().0 - begun.0, 2 * told.questions * MODULES as u64);
    if asked != wanted {
        return Err(format!("{asked} calls of native modules, and not {wanted}").into());
    }
    let mut rounds = |way: Way| Series::new(told.rounds.remove(way.key()).unwrap_or_default());
    Ok((told.versions, Found(Way::ALL.map(&mut rounds))))
}
