//! The Python virtual environment that holds the real Synapse.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::command;
use crate::workspace::Workspace;

/// Every package and its version.
const REQUIREMENTS: &str = "tests/synapse/requirements.txt";

/// Installs what the tests need, unless it is there already, and returns the interpreter.
///
/// The environment holds a copy of the requirements that it was made from. It is written last, so
/// that an environment which is out of date and one that was never finished look the same: both are
/// made anew.
pub(crate) fn set_up(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let venv = workspace.target("synapse-venv");
    let python = venv.join("bin/python");
    let stamp = venv.join("requirements.stamp");
    let requirements = workspace.path(REQUIREMENTS);
    let wanted =
        fs::read_to_string(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    if python.exists() && fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        eprintln!("\n{} is up to date", venv.display());
        return Ok(python);
    }
    remove(&venv)?;
    require_python(workspace)?;
    command::run(workspace.command("python3").args(["-m", "venv"]).arg(&venv))?;
    install(workspace, &python)?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

/// Installs the packages. Nothing comes along that is not on the list, and nothing is compiled.
fn install(workspace: &Workspace, python: &Path) -> anyhow::Result<()> {
    let pip = ["-m", "pip", "--disable-pip-version-check", "--no-input"];
    let from_list = ["--quiet", "--no-deps", "--only-binary", ":all:", "-r", REQUIREMENTS];
    command::run(workspace.command(python).args(pip).arg("install").args(from_list))?;
    command::run(workspace.command(python).args(pip).arg("check"))
}

fn remove(directory: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Makes sure that `python3` can make virtual environments; on Debian that is a package of its own.
fn require_python(workspace: &Workspace) -> anyhow::Result<()> {
    if makes_environments(workspace) {
        return Ok(());
    }
    let may_install = Path::new("/etc/debian_version").exists()
        && command::output(workspace.command("id").arg("-u")).as_deref() == Some("0");
    if !may_install {
        bail!(
            "python3 with venv and pip is missing: install Python 3.10 or newer \
             (on Debian and its kin: apt-get install python3 python3-venv)"
        );
    }
    command::run(workspace.command("apt-get").arg("update"))?;
    command::run(
        workspace
            .command("apt-get")
            .args(["install", "-y", "--no-install-recommends", "python3", "python3-venv"])
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    ensure!(
        makes_environments(workspace),
        "python3-venv is installed, but the python3 found first on PATH cannot make environments"
    );
    Ok(())
}

/// Debian's bare `python3` has `venv`, but lacks `ensurepip`, without which an environment is of no
/// use.
fn makes_environments(workspace: &Workspace) -> bool {
    let program = "import ensurepip, venv";
    command::output(workspace.command("python3").args(["-c", program])).is_some()
}
