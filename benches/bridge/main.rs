//! What modules add to a message that is sent through a real Synapse: five inside of Synapse, five behind the bridge, and five
//! behind synapse-http-antispam.
//!
//! `cargo xtask bench bridge [--quick]`, which also installs Synapse.
//!
//! All modules register `check_event_for_spam` and `user_may_create_room` and let everything pass: what is measured is
//! the way to them. Those of the bridge and of synapse-http-antispam are the same five of the tier `actor`, in a Ganglion in this
//! process, which counts their calls, so that none is left out.
//!
//! - *Sending a message*: four Synapses, with SQLite, in processes of their own; the fourth has no modules. A client
//!   sends messages one after the other on a connection that stays open; blocks of messages take turns. What modules add is
//!   small beside what a message takes, and beside how much that varies; so each block is compared with that of the
//!   Synapse without modules in the same round, and the interval says what is known.
//! - *Asking*: the callback by itself, inside of one Synapse, where nothing else varies: one question after the other, and
//!   many at once. See ask.py.

mod asked;
mod client;
mod ganglion;
mod homeserver;
mod interval;
mod sent;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use ganglion_benches::group::Group;
use ganglion_benches::report::{Comparison, Goal, table, time};
use ganglion_benches::rounds::Series;

use crate::client::Wrong;
use crate::ganglion::Serving;
use crate::interval::interval;

/// Where Python finds the bridge, the modules that let everything pass, and what ask.py shares with another bench.
const PYTHON_PATH: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/bridge:",
    env!("CARGO_MANIFEST_DIR"),
    ":",
    env!("CARGO_MANIFEST_DIR"),
    "/../python/src"
);

/// How many questions are asked at once, as for a batch of events of other servers.
const AT_ONCE: usize = 64;

/// How Synapse asks modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Nobody,
    Python,
    Bridge,
    Antispam,
}

impl Way {
    const ALL: [Self; 4] = [Self::Nobody, Self::Python, Self::Bridge, Self::Antispam];

    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "no modules",
            Self::Python => "five modules inside Synapse",
            Self::Bridge => "the bridge, five native modules",
            Self::Antispam => "synapse-http-antispam, five native modules",
        }
    }

    /// Its name in ask.py.
    fn key(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Python => "python",
            Self::Bridge => "bridge",
            Self::Antispam => "antispam",
        }
    }

    /// Whether the modules are those of the Ganglion in this process.
    fn is_native(self) -> bool {
        matches!(self, Self::Bridge | Self::Antispam)
    }
}

/// The seconds that each way took, a median for each round.
struct Found([Series; Way::ALL.len()]);

impl Found {
    fn of(&self, way: Way) -> &Series {
        &self.0[way as usize]
    }

    /// What it takes more than without modules, round by round.
    fn added(&self, way: Way) -> Series {
        self.of(way).less(self.of(Way::Nobody))
    }

    fn written(&self, what: &str) -> String {
        let row = |way: Way| {
            let mut cells = vec![way.name().to_owned(), time(self.of(way).median())];
            if way == Way::Nobody {
                cells.extend(["-".to_owned(), "-".to_owned()]);
            } else {
                let added = self.added(way);
                let (low, high) = interval(added.rounds(), |rounds| added.pick(rounds).median());
                cells.extend([time(added.median()), format!("{} to {}", time(low), time(high))]);
            }
            cells
        };
        let rows: Vec<_> = Way::ALL.into_iter().map(row).collect();
        table(&["modules", what, "added", "95 % interval"], &rows)
    }
}

fn main() -> ExitCode {
    let Some(mut group) = Group::begin("bridge") else {
        return ExitCode::from(2);
    };
    let Some(python) = group.python.clone() else {
        group.progress("it needs an interpreter that has Synapse: run `cargo xtask bench bridge`");
        return ExitCode::from(2);
    };
    let directory = std::env::temp_dir().join(format!("ganglion-bench-bridge-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let ran = run(&mut group, &python, &directory);
    let _ = fs::remove_dir_all(&directory);
    match ran {
        Ok(()) => group.end(),
        Err(error) => {
            group.progress(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// How much is sent, and asked.
fn paces(quick: bool) -> (sent::Pace, asked::Pace) {
    let (rounds, ask_rounds, questions) = if quick { (12, 8, 40) } else { (300, 40, 200) };
    let sending = sent::Pace { rounds, messages: 10 };
    let asking = asked::Pace {
        rounds: ask_rounds,
        questions,
        at_once: 1,
    };
    (sending, asking)
}

fn run(group: &mut Group, python: &Path, directory: &Path) -> Result<(), Wrong> {
    let (sending, asking) = paces(group.quick);
    let ganglion = Serving::start(&directory.join("ganglion.sock"));
    let sent = sent::measure(group, &sending, python, directory, &ganglion)?;
    group.progress("one Synapse asks");
    let (versions, asked) = asked::measure(&asking, python, &ganglion)?;
    let many = asked::Pace {
        questions: AT_ONCE * (asking.questions / AT_ONCE).max(2),
        at_once: AT_ONCE,
        ..asking
    };
    group.progress("one Synapse asks many at once");
    let (_, at_once) = asked::measure(&many, python, &ganglion)?;
    group.place(
        &[],
        &format!(
            "{versions}. {} rounds of {} messages, and {} of {} questions, in each \
             way",
            sending.rounds, sending.messages, asking.rounds, asking.questions
        ),
    );
    group.say("What a client waits for when it sends a message:");
    group.say(&sent.written("a message"));
    group.say("What `check_event_for_spam` takes inside of Synapse:");
    group.say(&asked.written("a question"));
    group.say(&format!(
        "The same with {AT_ONCE} asked at once, each its part of the whole:"
    ));
    group.say(&at_once.written("a question"));
    let of_many = format!("added to a question, {AT_ONCE} at once,");
    let parts = [
        ("added to a message", &sent),
        ("added to a question", &asked),
        (&*of_many, &at_once),
    ];
    for (what, found) in parts {
        for (goal, other) in [(Goal::Below(1.0), Way::Python), (Goal::AtMost(0.2), Way::Antispam)] {
            group.compare(compared(what, goal, found, other));
        }
    }
    Ok(())
}

/// What the bridge adds, beside what another way adds: a ratio of two differences, which only has a meaning if the other
/// one is known to be more than nothing.
fn compared(what: &str, goal: Goal, found: &Found, other: Way) -> Comparison {
    let (ours, theirs) = (found.added(Way::Bridge), found.added(other));
    let within = interval(ours.rounds(), |rounds| {
        let (ours, theirs) = (ours.pick(rounds).median(), theirs.pick(rounds).median());
        if theirs > 0.0 { ours / theirs } else { f64::INFINITY }
    });
    let what = format!("{what} by {}", Way::Bridge.name());
    Comparison::within(&what, goal, ours.median(), (other.name(), theirs.median()), within)
}
