//! Benches whose results stand in docs/performance.md.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};

use crate::summary::{Line, Summary};
use crate::workspace::Workspace;
use crate::{command, python, section};

/// Where the results stand.
const DOCUMENT: &str = "docs/performance.md";

/// The document before its first section of a group.
const HEAD: &str = "\
# Performance

Each section is written by a bench, which its first line names, on the machine that it names. Numbers of different
machines, and of different runs on a busy one, do not compare.

<!-- summary: begin -->
<!-- summary: end -->
";

/// The package of the benches.
const PACKAGE: &str = "ganglion-benches";

/// Benches that belong together, with a section of the document.
struct Group {
    name: &'static str,
    about: &'static str,
    heading: &'static str,
    /// The programs, in the order in which they run.
    programs: &'static [&'static str],
    /// Whether it needs Synapse.
    needs_synapse: bool,
    /// Whether it has lines in the summary.
    is_compared: bool,
}

impl Group {
    const fn new(name: &'static str, programs: &'static [&'static str], heading: &'static str) -> Self {
        Self {
            name,
            about: "",
            heading,
            programs,
            needs_synapse: false,
            is_compared: true,
        }
    }

    const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }
}

const GROUPS: [Group; 10] = [
    Group::new("dispatch", &["dispatch", "allocations"], "## Asking modules")
        .about("what it costs to ask modules, and what others would use; 3 minutes, half of one with --quick"),
    Group::new("combine", &["combine"], "## Combine rules")
        .about("what it costs to fold answers; 20 seconds, some with --quick"),
    Group::new("cache", &["cache"], "## Cached functions")
        .about("what cached functions cost; a minute, some seconds with --quick"),
    Group::new("modules", &["modules"], "## Modules that ship")
        .about("what 100 000 rules of ServerRules cost; 20 seconds, some with --quick"),
    Group::new("http", &["http"], "## Callbacks over HTTP")
        .about("the admin listener under load; a minute, some seconds with --quick"),
    Group::new("wire", &["wire"], "## Callbacks over the wire")
        .about("the wire beside an echo; half a minute, some seconds with --quick"),
    Group::new("memory", &["memory"], "## Memory and loading")
        .about("what modules, workers, calls and cached results take; half a minute, some seconds with --quick"),
    Group {
        needs_synapse: true,
        ..Group::new("synapse", &["synapse"], "## Beside Synapse's own dispatch")
            .about("a chain beside Synapse's own; half a minute, some seconds with --quick, and once what it takes to install Synapse")
    },
    Group {
        needs_synapse: true,
        ..Group::new("bridge", &["bridge"], "## Through a real Synapse")
            .about("what modules add to a message: inside Synapse, behind the bridge, over HTTP; 7 minutes, one with --quick, and once what it takes to install Synapse")
    },
    Group {
        is_compared: false,
        ..Group::new("isolation", &["isolation"], "## A neighbour that misbehaves").about(
            "what a neighbour that misbehaves or a caller that floods costs others; 8 minutes, 2 with --quick",
        )
    },
];

/// Lists the groups.
pub(crate) fn list() {
    eprintln!("usage: cargo xtask bench [GROUP]... [--quick | --list]\n\ngroups, each with its section of {DOCUMENT}:");
    for Group { name, about, .. } in GROUPS {
        eprintln!("  {name:12} {about}");
    }
    eprintln!(
        "\nwithout a GROUP: all of them\n--quick: a short run, which leaves the document as it is\n--list: show this"
    );
}

/// Follows the words after the task's name: `[GROUP]... [--quick | --list]`.
pub(crate) fn follow(workspace: &Workspace, words: &[&str]) -> anyhow::Result<()> {
    let (options, names): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with('-'));
    if options.contains(&"--list") {
        list();
        return Ok(());
    }
    let unknown = names
        .iter()
        .find(|name| GROUPS.iter().all(|group| group.name != **name));
    let unknown = unknown.or_else(|| options.iter().find(|option| **option != "--quick"));
    if let Some(unknown) = unknown {
        list();
        bail!("no bench and no option has the name {unknown:?}");
    }
    let run = Run {
        workspace,
        quick: !options.is_empty(),
    };
    run.all(
        GROUPS
            .iter()
            .filter(|group| names.is_empty() || names.contains(&group.name)),
    )
}

/// A run of some groups.
struct Run<'a> {
    workspace: &'a Workspace,
    /// It is over soon, and leaves the document as it is.
    quick: bool,
}

impl Run<'_> {
    /// Runs one group after the other; one that fails does not stop the others.
    fn all<'g>(&self, groups: impl Iterator<Item = &'g Group>) -> anyhow::Result<()> {
        let mut summary = Summary::default();
        let mut failed = Vec::new();
        for group in groups {
            match self.group(group) {
                Ok(lines) => summary.add(group.name, lines),
                Err(error) => {
                    eprintln!("xtask: {}: {error:#}", group.name);
                    failed.push(group.name);
                }
            }
        }
        if !summary.is_empty() {
            print(&format!("\n{}\n", summary.table()));
            self.write_summary(&summary)?;
        }
        ensure!(
            failed.is_empty(),
            "failed, their sections are as they were: {}",
            failed.join(", ")
        );
        Ok(())
    }

    /// Runs the programs of a group, prints what they found, and writes it into its section.
    fn group(&self, group: &Group) -> anyhow::Result<Vec<Line>> {
        let python = group
            .needs_synapse
            .then(|| python::set_up(self.workspace))
            .transpose()?;
        let (mut found, mut lines) = (String::new(), Vec::new());
        for program in group.programs {
            let results = group
                .is_compared
                .then(|| self.workspace.target(&format!("bench/{program}.json")));
            found += &self.program(program, results.as_deref(), python.as_deref())?;
            if let Some(results) = results {
                let text =
                    fs::read_to_string(&results).with_context(|| format!("cannot read {}", results.display()))?;
                let more: Vec<Line> = serde_json::from_str(&text).with_context(|| results.display().to_string())?;
                lines.extend(more);
            }
        }
        self.edit(|document| section::replace(document, group.name, &format!("{}\n\n{found}", group.heading)))?;
        Ok(lines)
    }

    /// What a program of the benches prints; its results are in that file, then.
    fn program(&self, name: &str, results: Option<&Path>, python: Option<&Path>) -> anyhow::Result<String> {
        let mut cargo = self
            .workspace
            .cargo(&["bench", "--quiet", "--package", PACKAGE, "--bench", name, "--"]);
        // To print where a module panics on purpose takes longer than anything that is measured.
        cargo.env("RUST_BACKTRACE", "0");
        if self.quick {
            cargo.arg("--quick");
        }
        for (option, file) in [("--results", results), ("--python", python)] {
            if let Some(file) = file {
                cargo.arg(option).arg(file);
            }
        }
        let (found, status) = command::captured(cargo.stderr(Stdio::inherit()))?;
        print(&found);
        ensure!(status.success(), "the bench {name} failed: {status}");
        Ok(found)
    }

    /// Writes the summary; the lines of groups that were not run stay.
    fn write_summary(&self, summary: &Summary) -> anyhow::Result<()> {
        let order: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
        self.edit(|document| {
            let before = section::find(document, "summary").unwrap_or_default();
            section::replace(document, "summary", &summary.section(before, &order))
        })
    }

    /// Changes the document, unless the run is a quick one.
    fn edit(&self, change: impl FnOnce(&str) -> anyhow::Result<String>) -> anyhow::Result<()> {
        if self.quick {
            return Ok(());
        }
        let file: PathBuf = self.workspace.path(DOCUMENT);
        let document = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => HEAD.to_owned(),
            read => read.with_context(|| format!("cannot read {DOCUMENT}"))?,
        };
        let changed = change(&document).with_context(|| DOCUMENT.to_owned())?;
        fs::write(&file, changed).with_context(|| format!("cannot write {DOCUMENT}"))
    }
}

#[expect(clippy::print_stdout, reason = "what a bench found is the task's result")]
fn print(found: &str) {
    print!("{found}");
}
