//! `ganglion serve`, as an operator runs it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Body, Client};
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
        let process = serve(&config)?;
        Ok(Self {
            admin: admin(&process)?,
            process,
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

/// `ganglion serve` with this config.
fn serve(config: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ganglion"));
    command.arg("serve").arg("-c").arg(config);
    Process::start("ganglion", command)
}

/// Where its admin listener is.
fn admin(process: &Process) -> anyhow::Result<SocketAddr> {
    process.wait_for("where admin listens", |line| {
        line.split_once("admin listening on ")?.1.trim().parse().ok()
    })
}

const NOT_RUNNING: &str = "this Ganglion does not run";

/// A Ganglion on the wire that comes and goes. At first it is not there.
pub(crate) struct Wired {
    process: Option<Process>,
    admin: Option<SocketAddr>,
    files: TempDir,
}

impl Wired {
    pub(crate) fn absent() -> anyhow::Result<Self> {
        let files = tempfile::tempdir().context("cannot make a directory for ganglion")?;
        Ok(Self {
            process: None,
            admin: None,
            files,
        })
    }

    /// Where the bridge finds it.
    pub(crate) fn socket(&self) -> PathBuf {
        self.files.path().join("ganglion.sock")
    }

    /// Starts it with a module that gives these answers, and returns once it is ready.
    pub(crate) fn start(&mut self, answers: &Value) -> anyhow::Result<()> {
        let modules = json!([{
            "module": "ganglion.modules.Canned",
            "call_timeout": "50s",
            "config": { "answers": answers },
        }]);
        self.serve(&modules)
    }

    /// Starts it with these modules, and returns once it is ready. Relative paths in their configs are in [`files`](Self::files).
    pub(crate) fn serve(&mut self, modules: &Value) -> anyhow::Result<()> {
        self.serve_on(&json!({ "socket": self.socket() }), modules)
    }

    /// The directory of its config file.
    pub(crate) fn files(&self) -> &Path {
        self.files.path()
    }

    /// Its public listener, where the modules' web resources are.
    pub(crate) fn http(&self) -> anyhow::Result<Client> {
        let address = self.process()?.wait_for("where http listens", |line| {
            Some(line.strip_prefix("http listening on ")?.trim().to_owned())
        })?;
        Ok(Client::new(format!("http://{address}")))
    }

    /// Starts it with these modules, on loopback with a token, and gives the bridge's config.
    pub(crate) fn serve_over_tcp(&mut self, modules: &Value) -> anyhow::Result<Value> {
        let token = self.files.path().join("token");
        fs::write(&token, format!("{TOKEN}\n")).context("cannot write the token")?;
        self.serve_on(&json!({ "tcp": "127.0.0.1:0", "token_file": token }), modules)?;
        let address = self.process()?.wait_for("where the wire listens", |line| {
            Some(line.split_once("wire listening on ")?.1.trim().to_owned())
        })?;
        Ok(json!({ "tcp": address, "token_file": token }))
    }

    fn serve_on(&mut self, wire: &Value, modules: &Value) -> anyhow::Result<()> {
        let config = self.files.path().join("ganglion.yaml");
        let settings = json!({
            "server_name": "example.com",
            "http": { "bind": "127.0.0.1:0" },
            "admin": { "bind": "127.0.0.1:0" },
            "wire": wire,
            "dispatch": { "deadline": "60s" },
            "modules": modules,
        });
        // JSON is YAML, and leaves nothing to quote.
        fs::write(&config, settings.to_string()).context("cannot write ganglion.yaml")?;
        let process = serve(&config)?;
        self.admin = Some(admin(&process)?);
        process.wait_for("that it is ready", |line| line.starts_with("ready:").then_some(()))?;
        self.process = Some(process);
        Ok(())
    }

    /// What its admin API shows of a module.
    pub(crate) fn snapshot(&self, module: &str) -> anyhow::Result<Value> {
        let admin = self.admin.context(NOT_RUNNING)?;
        let client = Client::new(format!("http://{admin}"));
        let path = format!("/_ganglion/admin/v1/modules/{module}");
        Ok(client.ask("GET", &path, None, &Body::Nothing)?.body)
    }

    /// Returns once this many lines of its log say so.
    #[cfg(feature = "http-client")]
    pub(crate) fn wait_for_lines(&self, text: &str, count: usize) -> anyhow::Result<()> {
        self.process()?.wait_for_lines(text, count)
    }

    /// Kills it, as a crash would. Its socket's file stays.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context(NOT_RUNNING)?.kill()
    }

    /// Stops it as it is: connections stay open, and nobody answers.
    pub(crate) fn suspend(&self) -> anyhow::Result<()> {
        self.process()?.signal("STOP")
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        self.process()?.signal("CONT")
    }

    /// Asks it to stop when it goes on.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        self.process()?.signal("TERM")
    }

    /// Returns once it has stopped.
    pub(crate) fn wait_for_end(&mut self) -> anyhow::Result<()> {
        self.process()?.wait_for_end()?;
        self.kill()
    }

    fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context(NOT_RUNNING)
    }
}
