//! Benches whose results stand in docs/performance.md.

use std::fs;
use std::io;
use std::process::Stdio;

use anyhow::{Context, bail, ensure};

use crate::workspace::Workspace;
use crate::{command, section};

/// Where the results stand.
const DOCUMENT: &str = "docs/performance.md";

/// The document before its first section.
const HEAD: &str = "\
# Performance

Each section is written by a bench, which its first line names, on the machine that it names. Numbers of different
machines, and of different runs on a busy one, do not compare.
";

/// A bench that writes a section.
struct Bench {
    name: &'static str,
    about: &'static str,
    heading: &'static str,
}

const BENCHES: [Bench; 1] = [Bench {
    name: "isolation",
    about: "what a neighbour that misbehaves or a caller that floods costs others; about 8 minutes, 2 with --quick",
    heading: "## A neighbour that misbehaves",
}];

/// Lists the benches.
pub(crate) fn list() {
    eprintln!("usage: cargo xtask bench BENCH [--quick]\n\nbenches, each with its section of {DOCUMENT}:");
    for Bench { name, about, .. } in BENCHES {
        eprintln!("  {name:12} {about}");
    }
    eprintln!("\n--quick: a short run, which leaves the document as it is");
}

/// Runs a bench, prints what it found, and writes it into its section unless the run is a quick one.
pub(crate) fn run(workspace: &Workspace, name: &str, quick: bool) -> anyhow::Result<()> {
    let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
        list();
        bail!("no bench has the name {name:?}");
    };
    let mut cargo = workspace.cargo(&["bench", "--quiet", "--package", "ganglion", "--bench", bench.name]);
    if quick {
        cargo.args(["--", "--quick"]);
    }
    let (found, status) = command::captured(cargo.stderr(Stdio::inherit()))?;
    print(&found);
    ensure!(status.success(), "the bench failed: {status}; {DOCUMENT} is as it was");
    if quick {
        return Ok(());
    }
    let file = workspace.path(DOCUMENT);
    let document = match fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => HEAD.to_owned(),
        read => read.with_context(|| format!("cannot read {DOCUMENT}"))?,
    };
    let text = format!("{}\n\n{found}", bench.heading);
    let document = section::replace(&document, bench.name, &text).with_context(|| DOCUMENT.to_owned())?;
    fs::write(&file, document).with_context(|| format!("cannot write {DOCUMENT}"))
}

#[expect(clippy::print_stdout, reason = "what a bench found is the task's result")]
fn print(found: &str) {
    print!("{found}");
}
