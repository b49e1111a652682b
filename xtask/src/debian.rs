//! Programs that the tests need and that a package manager brings.

use std::path::Path;

use anyhow::{bail, ensure};

use crate::command;
use crate::workspace::Workspace;

/// Makes sure that this command succeeds; if it does not, installs the packages where that is possible.
///
/// # Errors
/// It does not, and nothing can be installed here.
pub(crate) fn require(workspace: &Workspace, packages: &str, check: &[&str]) -> anyhow::Result<()> {
    let works = || {
        let mut words = check.iter();
        let program = words.next();
        program.is_some_and(|program| command::output(workspace.command(program).args(words)).is_some())
    };
    if works() {
        return Ok(());
    }
    let may_install = Path::new("/etc/debian_version").exists()
        && command::output(workspace.command("id").arg("-u")).as_deref() == Some("0");
    let name = check.first().copied().unwrap_or_default();
    if !may_install {
        bail!("{name} is missing or incomplete (on Debian and its kin: apt-get install {packages})");
    }
    command::run(workspace.command("apt-get").arg("update"))?;
    let mut install = workspace.command("apt-get");
    install.args(["install", "-y", "--no-install-recommends"]);
    install.args(packages.split(' '));
    command::run(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    ensure!(
        works(),
        "{packages} is installed, but the {name} found first on PATH does not do what is needed"
    );
    Ok(())
}
