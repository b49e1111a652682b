//! A guard against slow creep that needs no quiet machine: what a chain allocates, and how many instructions it takes.
//!
//! callgrind counts instructions, so a busy machine changes nothing; other compilers and C libraries do, a little.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::workspace::Workspace;
use crate::{command, debian};

/// What was counted when somebody last wrote it down.
const BASELINE: &str = "benches/dispatch/cost.json";

/// The scenes of `benches/dispatch/cost.rs`.
const SCENES: [&str; 4] = ["no_subscriber", "inline", "actor", "actor_ask"];

/// How many chains the shorter run has, and the longer one.
const CHAINS: [u64; 2] = [500, 1500];

/// By how much a count may grow before it is an error; that of instructions by more with another compiler.
const HEADROOM: f64 = 1.10;
const HEADROOM_OF_ANOTHER_COMPILER: f64 = 1.25;

/// What one chain costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Cost {
    instructions: f64,
    allocations: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Baseline {
    rustc: String,
    scenes: BTreeMap<String, Cost>,
}

/// Counts, and compares with what was written down.
///
/// # Errors
/// A chain costs more than it may.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<()> {
    let Some(found) = count(workspace)? else {
        return Ok(());
    };
    let file = workspace.path(BASELINE);
    let baseline = fs::read_to_string(&file).with_context(|| format!("cannot read {BASELINE}"))?;
    let baseline: Baseline = serde_json::from_str(&baseline).with_context(|| BASELINE.to_owned())?;
    let too_much = compared(&baseline, &found);
    ensure!(
        too_much.is_empty(),
        "a chain costs more than in {BASELINE}:\n{}\nif it must: `cargo xtask cost --write`, and say why in the change",
        too_much.join("\n")
    );
    Ok(())
}

/// Counts, and writes it down.
///
/// # Errors
/// It cannot be counted here.
pub(crate) fn write(workspace: &Workspace) -> anyhow::Result<()> {
    let found = count(workspace)?.context("instructions are counted on Linux only")?;
    let text = serde_json::to_string_pretty(&found)? + "\n";
    fs::write(workspace.path(BASELINE), text).with_context(|| format!("cannot write {BASELINE}"))
}

/// What is too much, a line each.
fn compared(baseline: &Baseline, found: &Baseline) -> Vec<String> {
    let headroom = if baseline.rustc == found.rustc {
        HEADROOM
    } else {
        HEADROOM_OF_ANOTHER_COMPILER
    };
    let mut too_much = Vec::new();
    for (scene, now) in &found.scenes {
        let Some(before) = baseline.scenes.get(scene) else {
            too_much.push(format!("{scene}: not written down"));
            continue;
        };
        let counts = [
            ("instructions", before.instructions, now.instructions, headroom),
            ("allocations", before.allocations, now.allocations, HEADROOM),
        ];
        for (what, before, now, headroom) in counts {
            // None at all stay none; a stray one in a thousand chains is another thread's.
            if now > before * headroom + 0.01 {
                too_much.push(format!("{scene}: {now} {what}, at most {headroom} x {before}"));
            }
        }
    }
    too_much
}

/// What each scene costs; `None` where callgrind does not run.
fn count(workspace: &Workspace) -> anyhow::Result<Option<Baseline>> {
    if !cfg!(target_os = "linux") {
        eprintln!("\ninstructions are counted on Linux only");
        return Ok(None);
    }
    debian::require(workspace, "valgrind", &["valgrind", "--version"])?;
    let package = ["--package", "ganglion-benches", "--bin", "cost"];
    command::run(workspace.cargo(&["build", "--profile", "cost"]).args(package))?;
    let mut scenes = BTreeMap::new();
    eprintln!("\n{:14} {:>12} {:>12}", "a chain", "instructions", "allocations");
    for scene in SCENES {
        let cost = cost_of(workspace, scene)?;
        eprintln!("{scene:14} {:>12} {:>12}", cost.instructions, cost.allocations);
        scenes.insert(scene.to_owned(), cost);
    }
    let rustc = command::output(workspace.command("rustc").arg("--version")).context("cannot ask rustc")?;
    Ok(Some(Baseline { rustc, scenes }))
}

fn cost_of(workspace: &Workspace, scene: &str) -> anyhow::Result<Cost> {
    let [few, many] = CHAINS;
    let (less, more) = (run(workspace, scene, few)?, run(workspace, scene, many)?);
    let each = |less: u64, more: u64| more.saturating_sub(less) as f64 / (many - few) as f64;
    Ok(Cost {
        instructions: each(less.0, more.0).round(),
        allocations: (each(less.1, more.1) * 100.0).round() / 100.0,
    })
}

/// The instructions and allocations of one run.
fn run(workspace: &Workspace, scene: &str, chains: u64) -> anyhow::Result<(u64, u64)> {
    let mut callgrind = workspace.command("valgrind");
    callgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    callgrind.arg(workspace.target("cost/cost"));
    let output = callgrind.arg(scene).arg(chains.to_string()).output()?;
    let (out, log) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "the scene {scene} failed: {}\n{log}",
        output.status
    );
    let collected = log.lines().find_map(|line| line.split_once("Collected : "));
    let (_, instructions) = collected.with_context(|| format!("callgrind counted nothing:\n{log}"))?;
    Ok((instructions.trim().parse()?, out.trim().parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(rustc: &str, instructions: f64, allocations: f64) -> Baseline {
        let cost = Cost {
            instructions,
            allocations,
        };
        Baseline {
            rustc: rustc.into(),
            scenes: [("inline".to_owned(), cost)].into(),
        }
    }

    #[test]
    fn what_costs_a_tenth_more_is_too_much() {
        let before = baseline("rustc 1", 1000.0, 13.0);
        assert!(compared(&before, &baseline("rustc 1", 1099.0, 14.0)).is_empty());
        assert_eq!(compared(&before, &baseline("rustc 1", 1101.0, 13.0)).len(), 1);
        assert_eq!(compared(&before, &baseline("rustc 1", 1101.0, 15.0)).len(), 2);
        // None stay none.
        let none = baseline("rustc 1", 100.0, 0.0);
        assert_eq!(compared(&none, &baseline("rustc 1", 100.0, 1.0)).len(), 1);
    }

    #[test]
    fn another_compiler_may_count_a_little_more() {
        let before = baseline("rustc 1", 1000.0, 13.0);
        assert!(compared(&before, &baseline("rustc 2", 1200.0, 13.0)).is_empty());
        assert_eq!(compared(&before, &baseline("rustc 2", 1300.0, 13.0)).len(), 1);
    }

    #[test]
    fn a_scene_that_is_not_written_down_is_an_error() {
        let nothing = Baseline {
            rustc: "rustc 1".into(),
            scenes: BTreeMap::new(),
        };
        assert_eq!(
            compared(&nothing, &baseline("rustc 1", 1.0, 1.0)),
            ["inline: not written down"]
        );
    }
}
