//! cargo-deny, which checks the dependencies.

use std::path::PathBuf;

use crate::command;
use crate::workspace::Workspace;

/// The version that is installed where there is none.
const VERSION: &str = "0.20.2";

/// Finds cargo-deny, on PATH or where an earlier run installed it, else installs it.
pub(crate) fn set_up(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let on_path = PathBuf::from("cargo-deny");
    if command::output(workspace.command(&on_path).arg("--version")).is_some() {
        return Ok(on_path);
    }
    let tools = workspace.target("tools");
    let installed = tools.join("bin/cargo-deny");
    let found = command::output(workspace.command(&installed).arg("--version"));
    if found.is_none_or(|found| found != format!("cargo-deny {VERSION}")) {
        eprintln!("\ncargo-deny is missing; building it takes some minutes, once");
        let mut install = workspace.cargo(&["install", "--locked", "--quiet", "--root"]);
        command::run(install.arg(&tools).args(["cargo-deny", "--version", VERSION]))?;
    }
    Ok(installed)
}
