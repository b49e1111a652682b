//! `ganglion serve`, as an operator runs it.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::Context;
use tempfile::TempDir;

use crate::process::Process;

const CONFIG: &str = r#"
server_name: example.com
http: { bind: "127.0.0.1:0" }
admin: { bind: "127.0.0.1:0", token_file: token }
modules:
  - module: demo.DemoModule
    config: { deny_user: "@evil:example.com" }
  - module: ganglion.modules.KeywordFilter
    config: { keywords: ["viagra"] }
"#;

/// The bearer token that this Ganglion wants.
pub(crate) const TOKEN: &str = "the-right-token";

/// A running Ganglion; it denies rooms to `@evil:example.com`, and messages that say "viagra".
pub(crate) struct Ganglion {
    process: Process,
    admin: SocketAddr,
    _files: TempDir,
}

impl Ganglion {
    /// Starts it on free ports and returns once it listens.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let files = tempfile::tempdir().context("cannot make a directory for ganglion")?;
        let config = files.path().join("ganglion.yaml");
        fs::write(&config, CONFIG).context("cannot write ganglion.yaml")?;
        fs::write(files.path().join("token"), format!("{TOKEN}\n")).context("cannot write the token")?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_ganglion"));
        command.arg("serve").arg("-c").arg(&config);
        let process = Process::start("ganglion", command)?;
        let admin = process.wait_for("where admin listens", |line| {
            line.split_once("admin listening on ")?.1.trim().parse().ok()
        })?;
        Ok(Self {
            process,
            admin,
            _files: files,
        })
    }

    /// Where it speaks the dialect of synapse-http-antispam.
    pub(crate) fn antispam_url(&self) -> String {
        format!("http://{}/_ganglion/antispam", self.admin)
    }

    /// Ends it without ceremony, as a crash would: from now on its port refuses connections.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }
}
