//! A real Synapse on loopback, with SQLite, in a process of its own. It talks to nobody but its modules and the bench.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ganglion_benches::machine;
use serde_json::{Value, json};

use crate::client::{Client, Wrong};
use crate::{PYTHON_PATH, Way};

/// Settings that it shares with those of the tests: nothing leaves the machine, passwords are cheap, limits are out of the way; all
/// else is Synapse's default.
const QUIET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/synapse/quiet.json");

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(120);

/// What it says when it listens; the port comes after it.
const LISTENS: &str = "Synapse now listening on TCP port ";

/// A Synapse. It is killed when this is dropped.
pub(crate) struct Homeserver {
    pub(crate) way: Way,
    child: Child,
    log: PathBuf,
}

impl Homeserver {
    /// Starts it, with a directory of its own below `directory`. It does not wait until it listens.
    pub(crate) fn start(way: Way, python: &Path, directory: &Path, modules: &Value) -> Result<Self, Wrong> {
        let files = directory.join(way.key());
        fs::create_dir_all(&files)?;
        let (config, log) = (files.join("homeserver.yaml"), files.join("log"));
        // JSON is YAML, and leaves nothing to quote.
        fs::write(&config, settings(&files, modules).to_string())?;
        let output = File::create(&log)?;
        let child = Command::new(python)
            .args(["-m", "synapse.app.homeserver", "-c", QUIET, "-c"])
            .arg(&config)
            .current_dir(&files)
            .env("PYTHONPATH", PYTHON_PATH)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self { way, child, log })
    }

    /// A user with a room, once it listens.
    pub(crate) fn client(&mut self) -> Result<Client, Wrong> {
        let end = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(&self.log)?;
            let port = log.lines().find_map(|line| Some(line.split_once(LISTENS)?.1.trim()));
            if let Some(port) = port.and_then(|port| port.parse().ok()) {
                return Client::register(port);
            }
            if self.child.try_wait()?.is_some() || Instant::now() > end {
                return Err(format!("{} does not start:\n{log}", self.way.key()).into());
            }
            machine::wait(Duration::from_millis(50));
        }
    }
}

impl Drop for Homeserver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is of this homeserver alone; all else stands in [`QUIET`].
fn settings(files: &Path, modules: &Value) -> Value {
    json!({
        "database": { "name": "sqlite3", "args": { "database": files.join("homeserver.db") } },
        "media_store_path": files.join("media"),
        "modules": modules,
    })
}
