//! The Python virtual environment that holds the real Synapse.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::workspace::Workspace;
use crate::{command, debian};

/// Every package and its version.
const REQUIREMENTS: &str = "tests/synapse/requirements.txt";

/// The distribution of this repository that runs inside Synapse.
const DISTRIBUTION: &str = "python";

/// What building it leaves beside its sources.
const BUILT: [&str; 2] = ["python/build", "python/src/ganglion.egg-info"];

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

/// Installs this repository's own distribution, as an operator does it, and shows that it goes with what Synapse brought. It
/// needs nothing but what is there.
pub(crate) fn install_bridge(workspace: &Workspace, python: &Path) -> anyhow::Result<()> {
    // What an earlier build left would go along.
    for built in BUILT {
        remove(&workspace.path(built))?;
    }
    let pip = ["-m", "pip", "--disable-pip-version-check", "--no-input"];
    let install = [
        "--quiet",
        "--no-build-isolation",
        "--no-deps",
        "--force-reinstall",
        "--no-index",
    ];
    let directory = format!("./{DISTRIBUTION}");
    command::run(
        workspace
            .command(python)
            .args(pip)
            .arg("install")
            .args(install)
            .arg(directory),
    )?;
    for built in BUILT {
        remove(&workspace.path(built))?;
    }
    command::run(workspace.command(python).args(pip).arg("check"))
}

/// Runs the distribution's own tests, against what was installed.
pub(crate) fn test_bridge(workspace: &Workspace, python: &Path) -> anyhow::Result<()> {
    let tests = workspace.path("python/tests");
    let mut names: Vec<String> = fs::read_dir(&tests)
        .with_context(|| format!("cannot read {}", tests.display()))?
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("test_") && name.ends_with(".py"))
        .map(|name| format!("python/tests/{name}"))
        .collect();
    names.sort();
    let mut trial = workspace.command(python);
    trial.args(["-m", "twisted.trial", "--temp-directory"]);
    trial.arg(workspace.target("trial")).args(names);
    command::run(trial.env("PYTHONPATH", tests))
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

/// Makes sure that `python3` can make virtual environments; on Debian that is a package of its own. Its bare `python3` has
/// `venv`, but lacks `ensurepip`, without which an environment is of no use.
fn require_python(workspace: &Workspace) -> anyhow::Result<()> {
    debian::require(
        workspace,
        "python3 python3-venv",
        &["python3", "-c", "import ensurepip, venv"],
    )
}
