//! What `ganglion new` writes: it passes its own tests and runs.

use std::fs;

use anyhow::Context as _;

use crate::command;
use crate::workspace::Workspace;

/// What the module is called.
const NAME: &str = "sample-module";

/// Writes a module's crate below the build directory, and tests and runs it there as its author would.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<()> {
    let directory = workspace.target("new");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    // An author has no settings above the crate; ours are.
    fs::write(directory.join("rustfmt.toml"), "").context("cannot write rustfmt.toml")?;
    let manifest = workspace.path("Cargo.toml");
    let mut write = workspace.cargo(&["run", "--quiet", "--all-features", "--manifest-path"]);
    write.arg(&manifest).args(["--", "new", NAME]);
    command::run(write.current_dir(&directory))?;

    let module = directory.join(NAME);
    // The versions that everything else was built with.
    fs::copy(workspace.path("Cargo.lock"), module.join("Cargo.lock")).context("cannot copy Cargo.lock")?;
    let cargo = |arguments: &[&str]| {
        let mut cargo = workspace.cargo(arguments);
        // What they have in common is built already.
        cargo.current_dir(&module).env("CARGO_TARGET_DIR", workspace.target(""));
        command::run(&mut cargo)
    };
    cargo(&["fmt", "--check"])?;
    cargo(&["test", "--quiet"])?;
    let args = r#"{"user_id":"@eve:example.com","room_config":{}}"#;
    cargo(&["run", "--quiet", "--", "check", "-c", "ganglion.yaml"])?;
    cargo(&[
        "run",
        "--quiet",
        "--",
        "call",
        "user_may_create_room",
        args,
        "-c",
        "ganglion.yaml",
    ])
}
