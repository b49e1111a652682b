//! What the modules that ship cost where there is much to compare.
//!
//! `cargo xtask bench modules [--quick]`; `cargo bench -p ganglion-benches --bench modules` prints the tables only.
//!
//! - rules: `ServerRules` matches one user against one list of 100 000: a third names of servers, a third `*.domain`, a third
//!   `@name*:*`. A hit is matched by one entry, each kind in turn; a miss by none, although parts of it are in the list. As the
//!   module does, every row matches the user ID against the globs for users and the server's name against those for servers.
//!   `globset` tells upper and lower case apart here, which is less work, and has its globs for users in sets of 1000.
//!   The floor looks two texts up in a set of literals, which is what a list without wildcards would take.

use std::cell::Cell;
use std::collections::HashSet;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ganglion::modules::{Glob, GlobSet};
use ganglion_benches::group::Group;
use ganglion_benches::report::{Comparison, cells, table, time};
use ganglion_benches::rounds::{Results, Rows};

/// How many entries the list has.
const RULES: usize = 100_000;

/// How many globs for users `globset` has in one set: of all together it can make none.
const TOGETHER: usize = 1000;

/// How many users are asked about, in turn.
const ASKED: usize = 999;

/// What one match may take, in seconds.
const GOAL: f64 = 2e-6;

/// What is asked, and who is.
type Row = (&'static str, &'static str);

const HIT: &str = "hit";
const MISS: &str = "miss";
const OURS: &str = "ServerRules";
const FLOOR: &str = "floor: a set of literals";
const GLOBSET: &str = "globset";

fn main() -> ExitCode {
    let Some(mut group) = Group::begin("modules") else {
        return ExitCode::from(2);
    };
    group.place(&["globset", "aho-corasick"], &group.paced());
    let (servers, users) = patterns();
    let (ours, built) = timed(|| (ours(&servers), ours(&users)));
    let (peer, peer_built) = timed(|| (globset(&servers, RULES), globset(&users, TOGETHER)));
    let literals: HashSet<&str> = servers.iter().chain(&users).map(String::as_str).collect();

    let (hits, misses) = (hits(), misses());
    let (ours, peer, literals) = (&ours, &peer, &literals);
    let mut rows = Rows::new();
    for (what, texts, expected) in [(HIT, &hits, true), (MISS, &misses, false)] {
        add(&mut rows, (what, OURS), texts, move |(user, server)| {
            assert_eq!(ours.1.is_match(user) || ours.0.is_match(server), expected, "{user}");
        });
        add(&mut rows, (what, GLOBSET), texts, move |(user, server)| {
            assert_eq!(
                any_match(&peer.1, user) || any_match(&peer.0, server),
                expected,
                "{user}"
            );
        });
        add(&mut rows, (what, FLOOR), texts, move |(user, server)| {
            black_box(literals.contains(&**user) || literals.contains(&**server));
        });
    }
    let results = rows.measure(group.pace(), |round| group.progress(&format!("round {round}")));
    group.say(&written(&results));
    group.say(&format!(
        "To make the matchers of the {RULES} entries took {}; globset {}.",
        time(built),
        time(peer_built)
    ));
    compare(&mut group, &results);
    group.end()
}

fn timed<T>(make: impl FnOnce() -> T) -> (T, f64) {
    let begun = Instant::now();
    let made = make();
    (made, begun.elapsed().as_secs_f64())
}

/// The globs for servers, and those for users.
fn patterns() -> (Vec<String>, Vec<String>) {
    let literals = (0..RULES / 3).map(|number| format!("literal{number}.example"));
    let domains = (0..RULES / 3).map(|number| format!("*.domain{number}.example"));
    let users = (0..RULES - 2 * (RULES / 3)).map(|number| format!("@name{number}x*:*"));
    (literals.chain(domains).collect(), users.collect())
}

fn ours(patterns: &[String]) -> GlobSet {
    let globs = patterns.iter().map(|pattern| Glob::parse(pattern).expect("a glob"));
    GlobSet::new(globs).expect("not too many")
}

/// What `globset` makes of them, so many in a set.
fn globset(patterns: &[String], together: usize) -> Vec<globset::GlobSet> {
    let set = |patterns: &[String]| {
        let mut set = globset::GlobSetBuilder::new();
        for pattern in patterns {
            set.add(globset::Glob::new(pattern).expect("a glob"));
        }
        set.build().expect("not too many")
    };
    patterns.chunks(together).map(set).collect()
}

fn any_match(sets: &[globset::GlobSet], text: &str) -> bool {
    sets.iter().any(|set| set.is_match(text))
}

/// User IDs with their servers.
type Texts = Vec<(String, String)>;

fn user(localpart: &str, server: &str) -> (String, String) {
    (format!("@{localpart}:{server}"), server.to_owned())
}

fn hits() -> Texts {
    let hit = |number: usize| match number % 3 {
        0 => user("somebody", &format!("literal{}.example", number * 33)),
        1 => user("somebody", &format!("matrix.domain{}.example", number * 33)),
        _ => user(&format!("name{}x99", number * 33), "homeserver.example"),
    };
    (0..ASKED).map(hit).collect()
}

fn misses() -> Texts {
    let miss = |number: usize| match number % 3 {
        0 => user("somebody", &format!("not-literal{}.example", number * 33)),
        1 => user("somebody", &format!("domain{}.example", number * 33)),
        _ => user(&format!("a-name{}x99", number * 33), "homeserver.example"),
    };
    (0..ASKED).map(miss).collect()
}

/// Adds a row that asks about one user after the other.
fn add<'a>(rows: &mut Rows<'a, Row>, row: Row, texts: &'a Texts, ask: impl Fn(&(String, String)) + 'a) {
    let next = Cell::new(0);
    rows.add(row, move |count| {
        let begun = Instant::now();
        for _ in 0..count {
            next.set((next.get() + 1) % texts.len());
            ask(black_box(&texts[next.get()]));
        }
        begun.elapsed().max(Duration::from_nanos(1))
    });
}

fn written(results: &Results<Row>) -> String {
    let row = |((what, who), series): (&Row, _)| {
        let what = format!("{RULES} rules, {what}");
        [vec![what, (*who).to_owned()], cells(series).to_vec()].concat()
    };
    let rows: Vec<_> = results.each().map(row).collect();
    table(&["", "", "a match", "spread"], &rows)
}

fn compare(group: &mut Group, results: &Results<Row>) {
    for what in [HIT, MISS] {
        let ours = results.of(&(what, OURS));
        let said = format!("{RULES} rules, {what}");
        let beside = Comparison::of(&said, None, ours, ("a set of literals", results.of(&(what, FLOOR))));
        group.compare(beside.beside(ours, [("globset", results.of(&(what, GLOBSET)))]));
        let median = ours.median();
        group.compare(Comparison::alone(&said, "< 2 \u{b5}s", &time(median), median < GOAL));
    }
}
