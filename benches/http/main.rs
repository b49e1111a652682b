//! What questions over HTTP cost, beside a bare handler that does the same with as little as possible.
//!
//! `cargo xtask bench http [--quick]`; `cargo bench -p ganglion-benches --bench http` prints the tables only.
//!
//! Ours is the real admin listener with five modules of the tier `actor`, asked on the callbacks endpoint and in the antispam
//! dialect. The floor is an application of actix-web that reads the same body into the same args, sends them to one other
//! thread, which looks at them five times, and answers with JSON like ours; it knows no access rules, no deadlines, no limits.
//!
//! Both are asked over loopback by this process, on connections that stay open; each connection asks again as soon as it
//! is answered. Server and client share the machine, so the client is as small as it can be: see [`client`]. Rounds
//! take turns, as everywhere: the floor, ours, the floor, ours.

mod client;
mod floor;
mod server;

use std::process::ExitCode;
use std::time::Duration;

use ganglion_benches::group::Group;
use ganglion_benches::report::{Comparison, Goal, rate, table, time};
use ganglion_benches::rounds::Series;

use crate::client::{Client, Target};

/// How many connections ask side by side.
const CONNECTIONS: [usize; 3] = [1, 8, 64];

/// The shares of requests whose latency is told, and how they are called.
const SHARES: [(f64, &str); 3] = [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")];

/// What is asked over so many connections, and what came of it.
struct Row {
    target: usize,
    connections: usize,
    /// The seconds from one answer to the next.
    each: Vec<f64>,
    /// The latencies, in seconds, for each of [`SHARES`].
    latencies: [Vec<f64>; 3],
}

impl Row {
    fn each(&self) -> Series {
        Series::new(self.each.clone())
    }

    fn latency(&self, share: usize) -> Series {
        Series::new(self.latencies[share].clone())
    }
}

fn main() -> ExitCode {
    let Some(mut group) = Group::begin("http") else {
        return ExitCode::from(2);
    };
    let (rounds, each) = if group.quick {
        (2, Duration::from_millis(150))
    } else {
        (9, Duration::from_millis(600))
    };
    group.place(&["actix-web"], &format!("{rounds} rounds of {each:?} a row"));
    let ours = server::ours();
    let client = Client::new();
    let decision = match client.first(&Target::callbacks(ours.address())) {
        Ok(decision) => decision,
        Err(error) => {
            group.progress(&format!("no decision: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let floor = floor::start(&decision);
    let targets = [
        Target::callbacks(floor.address()).named("floor: bare handler"),
        Target::callbacks(ours.address()),
        Target::antispam(ours.address()),
    ];
    let mut rows: Vec<Row> = CONNECTIONS
        .into_iter()
        .flat_map(|connections| (0..targets.len()).map(move |target| row(target, connections)))
        .collect();
    for round in 1..=rounds {
        group.progress(&format!("round {round}"));
        // Every second round in the reverse order, so that nobody is always the one who comes after.
        let mut order: Vec<&mut Row> = rows.iter_mut().collect();
        if round % 2 == 0 {
            order.reverse();
        }
        for row in order {
            if let Err(error) = measure(&client, &targets[row.target], row, each) {
                group.progress(&format!("a wrong answer: {error}"));
                return ExitCode::FAILURE;
            }
        }
    }
    group.say(&written(&targets, &rows));
    for comparison in comparisons(&rows) {
        group.compare(comparison);
    }
    group.end()
}

fn row(target: usize, connections: usize) -> Row {
    Row {
        target,
        connections,
        each: Vec::new(),
        latencies: Default::default(),
    }
}

fn measure(client: &Client, target: &Target, row: &mut Row, each: Duration) -> Result<(), client::Wrong> {
    let found = client.ask(target, row.connections, each)?;
    row.each.push(found.took.as_secs_f64() / found.latencies.len() as f64);
    for ((share, _), latencies) in SHARES.iter().zip(&mut row.latencies) {
        latencies.push(found.latencies.value_at_quantile(*share) as f64 / 1e9);
    }
    Ok(())
}

fn written(targets: &[Target], rows: &[Row]) -> String {
    let row = |row: &Row| {
        let mut cells = vec![
            targets[row.target].name.to_owned(),
            row.connections.to_string(),
            rate(row.each().median()),
        ];
        cells.extend((0..SHARES.len()).map(|share| time(row.latency(share).median())));
        cells.push(format!("{:.0} %", row.each().spread() * 100.0));
        cells
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    let [p50, p99, p999] = SHARES.map(|(_, name)| name);
    table(&["asked", "connections", "requests", p50, p99, p999, "spread"], &rows)
}

/// The callbacks endpoint beside the floor.
fn comparisons(rows: &[Row]) -> Vec<Comparison> {
    let mut all = Vec::new();
    for connections in CONNECTIONS {
        let of = |target| {
            let row = rows
                .iter()
                .find(|row| row.connections == connections && row.target == target);
            row.expect("a row that was measured")
        };
        let (floor, ours) = (of(0), of(1));
        let plural = if connections == 1 { "" } else { "s" };
        let what = format!("callbacks over HTTP, {connections} connection{plural}");
        let compared = ("bare handler", &floor.each());
        all.push(Comparison::rates(
            &what,
            Some(Goal::AtLeast(0.8)),
            &ours.each(),
            compared,
        ));
        let what = format!("{what}, {}", SHARES[1].1);
        let compared = ("bare handler", &floor.latency(1));
        all.push(Comparison::of(
            &what,
            Some(Goal::AtMost(1.5)),
            &ours.latency(1),
            compared,
        ));
    }
    all
}
