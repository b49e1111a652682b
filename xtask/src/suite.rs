//! Everything that has to hold before a change lands.

use crate::workspace::Workspace;
use crate::{command, cost, deny, new_module, python};

/// Runs every check, the quick ones first, and stops at the first that fails.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let cargo = |arguments: &[&str]| command::run(&mut workspace.cargo(arguments));

    cargo(&["fmt", "--all", "--check"])?;
    let python = python::set_up(workspace)?;
    python::install_bridge(workspace, &python)?;
    python::test_bridge(workspace, &python)?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ])?;
    let mut doc = workspace.cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    command::run(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    // Not nextest, which runs no doctests.
    let mut test = workspace.cargo(&["test", "--workspace", "--all-features"]);
    // Modules panic on purpose. To print where would hold their threads for longer than the watchdog waits.
    command::run(test.env("RUST_BACKTRACE", "0"))?;
    new_module::check(workspace)?;
    cost::check(workspace)?;
    // The expectations of the combine rules are Synapse's, not ours.
    let combine = ["tests/synapse/combine.py", "--check", "tests/golden/combine.json"];
    command::run(workspace.command(python).args(combine))?;
    // The licences of all platforms are looked at; the build has fetched this one's only.
    cargo(&["fetch", "--locked"])?;
    // Advisories change without us and need the network: they are no reason to refuse a change.
    let deny = ["--offline", "check", "bans", "licenses", "sources"];
    command::run(workspace.command(deny::set_up(workspace)?).args(deny))?;

    eprintln!("\nall checks passed");
    Ok(())
}
