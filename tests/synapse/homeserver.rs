//! A real Synapse on loopback, with SQLite, that talks to nobody but Ganglion and the test.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Client, User};
use crate::process::Process;

/// Settings of a Synapse that is only looked at: nothing leaves the machine, passwords are cheap, limits are out of the way,
/// and the seed of its key guards nothing, since no other server ever sees what it signs.
const QUIET: &str = "tests/synapse/quiet.json";

/// Lets a test register an administrator.
const SHARED_SECRET: &str = "test";

/// A running Synapse for `example.com`.
pub(crate) struct Homeserver {
    process: Process,
    client: Client,
    _files: TempDir,
}

impl Homeserver {
    /// Starts it with this `modules:` section and returns once it answers.
    pub(crate) fn start(modules: &Value) -> anyhow::Result<Self> {
        Self::start_with(modules, &json!({}))
    }

    /// The same with more settings, which win over those of every test.
    pub(crate) fn start_with(modules: &Value, more: &Value) -> anyhow::Result<Self> {
        let files = tempfile::tempdir().context("cannot make a directory for Synapse")?;
        let config = files.path().join("homeserver.yaml");
        // JSON is YAML, and leaves nothing to quote.
        let settings = settings(files.path(), modules, more);
        fs::write(&config, settings.to_string()).context("cannot write homeserver.yaml")?;
        let mut command = Command::new(python()?);
        // Python finds `scripted` beside the script, and the bridge where `cargo xtask setup` has installed it.
        command
            .arg(root().join("tests/synapse/serve.py"))
            .arg("-c")
            .arg(root().join(QUIET))
            .arg("-c")
            .arg(&config)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            // Synapse answers with sets here and there: their order shall be the same everywhere.
            .env("PYTHONHASHSEED", "0")
            .current_dir(files.path());
        let process = Process::start("Synapse", command)?;
        // The port is 0 in the configuration: Synapse picks a free one, nobody can take it in between.
        let port: u16 = process.wait_for("its port", |line| {
            line.split_once("Synapse now listening on TCP port ")?
                .1
                .trim()
                .parse()
                .ok()
        })?;
        let client = Client::new(format!("http://127.0.0.1:{port}"));
        ensure!(client.is_healthy()?, "Synapse listens, but is not healthy");
        Ok(Self {
            process,
            client,
            _files: files,
        })
    }

    /// Registers a user of that name and logs in.
    pub(crate) fn user(&self, name: &str) -> anyhow::Result<User<'_>> {
        self.client.register(name)
    }

    /// The user `admin`, an administrator, whom Synapse's own tool registers.
    pub(crate) fn register_admin(&self) -> anyhow::Result<()> {
        let output = Command::new(python()?)
            .args(["-m", "synapse._scripts.register_new_matrix_user", "--admin"])
            .args(["-u", "admin", "-p", "admin", "-k", SHARED_SECRET])
            .arg(self.client.base())
            .output()
            .context("cannot run register_new_matrix_user")?;
        ensure!(output.status.success(), "no administrator: {output:?}");
        Ok(())
    }

    /// Who talks to it.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns once this many lines of its log say so.
    pub(crate) fn wait_for_lines(&self, text: &str, count: usize) -> anyhow::Result<()> {
        self.process.wait_for_lines(text, count)
    }

    /// How many lines of its log say so.
    pub(crate) fn count_lines(&self, text: &str) -> usize {
        self.process.count_lines(text)
    }

    /// What it has printed of late.
    pub(crate) fn tail(&self) -> String {
        self.process.tail()
    }

    /// Returns once the module has had the answer to its ping that it wants.
    pub(crate) fn wait_for_ping(&self) -> anyhow::Result<()> {
        self.process.wait_for("that the ping succeeded", |line| {
            line.contains("Successfully pinged").then_some(())
        })
    }
}

/// The interpreter of the virtual environment that holds Synapse.
fn python() -> anyhow::Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir));
    let python = target.join("synapse-venv").join("bin").join("python");
    ensure!(
        python.exists(),
        "{} is missing: run `cargo xtask setup` first",
        python.display()
    );
    Ok(python)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is of this homeserver alone, and `more`, which wins; all else stands in [`QUIET`].
fn settings(files: &Path, modules: &Value, more: &Value) -> Value {
    let mut settings = json!({
        "registration_shared_secret": SHARED_SECRET,
        "database": { "name": "sqlite3", "args": { "database": files.join("homeserver.db") } },
        "media_store_path": files.join("media"),
        "modules": modules,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        settings[key] = value.clone();
    }
    settings
}
