//! A real Synapse on loopback, with SQLite, that talks to nobody but Ganglion and the test.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::antispam::Antispam;
use crate::client::{Client, User};
use crate::process::Process;

/// The seed guards nothing: no other server ever sees what this key signs.
const SIGNING_KEY: &str = "ed25519 a_test ZnJlc2ggdGVzdCBzZWVkIG9mIGdhbmdsaW9uLCAzMmI";

/// A running Synapse for `example.com`.
pub(crate) struct Homeserver {
    process: Process,
    client: Client,
    _files: TempDir,
}

impl Homeserver {
    /// Starts it with `antispam` as its only module and returns once it answers.
    pub(crate) fn start(antispam: &Antispam) -> anyhow::Result<Self> {
        let files = tempfile::tempdir().context("cannot make a directory for Synapse")?;
        let config = files.path().join("homeserver.yaml");
        // JSON is YAML, and leaves nothing to quote.
        fs::write(&config, settings(files.path(), antispam).to_string()).context("cannot write homeserver.yaml")?;
        let mut command = Command::new(python()?);
        command
            .args(["-m", "synapse.app.homeserver", "-c"])
            .arg(&config)
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

    /// Returns once the module has had the answer to its ping that it wants.
    pub(crate) fn wait_for_ping(&self) -> anyhow::Result<()> {
        self.process.wait_for("that the ping succeeded", |line| {
            line.contains("Successfully pinged").then_some(())
        })
    }
}

/// The interpreter of the virtual environment that holds Synapse.
fn python() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    let python = target.join("synapse-venv").join("bin").join("python");
    ensure!(
        python.exists(),
        "{} is missing: run `cargo xtask setup` first",
        python.display()
    );
    Ok(python)
}

/// A configuration for a test: nothing leaves the machine, passwords are cheap, limits are out of the way.
fn settings(files: &Path, antispam: &Antispam) -> Value {
    let unlimited = json!({ "per_second": 10_000, "burst_count": 10_000 });
    json!({
        "server_name": "example.com",
        "signing_key": SIGNING_KEY,
        "macaroon_secret_key": "test",
        "form_secret": "test",
        "report_stats": false,
        "listeners": [{
            "type": "http",
            "port": 0,
            "bind_addresses": ["127.0.0.1"],
            "resources": [{ "names": ["client"] }],
        }],
        "database": { "name": "sqlite3", "args": { "database": files.join("homeserver.db") } },
        "media_store_path": files.join("media"),
        "trusted_key_servers": [],
        "suppress_key_server_warning": true,
        "federation_domain_whitelist": [],
        "url_preview_enabled": false,
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "bcrypt_rounds": 4,
        "rc_message": unlimited,
        "rc_registration": unlimited,
        "rc_joins": { "local": unlimited },
        "rc_room_creation": unlimited,
        "modules": antispam.modules(),
    })
}
