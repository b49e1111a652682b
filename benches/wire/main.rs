//! What questions over the wire cost, beside a bare echo of frames.
//!
//! `cargo xtask bench wire [--quick]`; `cargo bench -p ganglion-benches --bench wire` prints the tables only.
//!
//! Ours is the real wire server on a Unix socket: with five modules of the tier `actor` that look at an event, and, so that
//! what the modules cost can be told from what the wire costs, a callback that nobody has subscribed to. The floor is a task
//! of tokio on a thread of its own that sends back every frame that it gets, in the same framing; it reads no JSON and asks
//! nobody.
//!
//! All are asked by this process over one connection that stays open, with one request in flight or 64. The client
//! is as small as it can be: the frames are written beforehand, and of an answer only the length is read, but for the first.

mod client;
mod echo;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ganglion::actors::Tier;
use ganglion::wire::{Bridges, WireListeners, WireServer};
use ganglion::{Config, Ganglion};
use ganglion_benches::group::Group;
use ganglion_benches::host::{config, yaml};
use ganglion_benches::machine;
use ganglion_benches::report::{Comparison, Goal, cells, rate, table, time};
use ganglion_benches::rounds::{Pace, Results, Rows};
use ganglion_benches::work::{self, MODULES, json_args};
use serde_json::{Value, json};

use crate::client::Client;

/// How many requests are in flight.
const IN_FLIGHT: [usize; 2] = [1, 64];

/// The most that a round trip may take more than an echo, in seconds.
const SHARE: f64 = 20e-6;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Asked {
    Echo,
    Nobody,
    Modules,
}

impl Asked {
    const ALL: [Self; 3] = [Self::Echo, Self::Nobody, Self::Modules];

    fn name(self) -> &'static str {
        match self {
            Self::Echo => "floor: echo of the same frame",
            Self::Nobody => "a callback without subscribers",
            Self::Modules => "five modules",
        }
    }

    fn request(self) -> Value {
        let (callback, args) = match self {
            Self::Echo | Self::Modules => ("check_event_for_spam", json_args()),
            // As much JSON as the other.
            Self::Nobody => ("should_drop_federated_event", json_args()),
        };
        json!({"jsonrpc": "2.0", "id": 1, "method": "callback",
            "params": {"callback": callback, "args": args, "deadline_ms": 2000, "steps": false}})
    }
}

fn main() -> ExitCode {
    let Some(mut group) = Group::begin("wire") else {
        return ExitCode::from(2);
    };
    let pace = if group.quick {
        Pace {
            rounds: 3,
            each: Duration::from_millis(100),
        }
    } else {
        Pace {
            rounds: 15,
            each: Duration::from_millis(300),
        }
    };
    let directory = std::env::temp_dir().join(format!("ganglion-bench-wire-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let (echo, ours) = (directory.join("echo.sock"), directory.join("ganglion.sock"));
    echo::start(&echo);
    let server = serve(&ours.display().to_string());
    let mut rows = Rows::new();
    for in_flight in IN_FLIGHT {
        for asked in Asked::ALL {
            let mut client = match asked {
                Asked::Echo => Client::connect(&echo),
                Asked::Nobody | Asked::Modules => Client::welcome(&ours),
            };
            let request = asked.request();
            let answer = client.first(&request);
            if asked != Asked::Echo {
                assert_eq!(
                    answer["result"],
                    json!({"outcome": {"verdict": "pass"}, "decided_by": null})
                );
            }
            let frame = client::frame(&request);
            rows.add((asked, in_flight), move |count| client.run(&frame, count, in_flight));
        }
    }
    let results = rows.measure(pace, |round| group.progress(&format!("round {round}")));
    drop(server);
    let _ = std::fs::remove_dir_all(&directory);
    group.place(
        &["tokio", "tokio-util"],
        &format!("{} rounds of {:?} a row", pace.rounds, pace.each),
    );
    group.say(&written(&results));
    for comparison in comparisons(&results) {
        group.compare(comparison);
    }
    group.end()
}

/// A Ganglion with modules, on a socket. Its threads end with it.
fn serve(socket: &str) -> (tokio::runtime::Runtime, Ganglion, WireServer) {
    let mut config: Config = config(&yaml(Tier::Actor, MODULES, machine::cores()), &work::registry());
    config.wire.socket = Some(socket.into());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let bridges = Arc::<Bridges>::default();
    let listeners = WireListeners::bind(&config.wire).expect("a socket");
    let ganglion = runtime.block_on(Ganglion::start(&config)).expect("modules");
    let wire = WireServer::start(&config, listeners, &ganglion, &bridges).expect("the wire");
    (runtime, ganglion, wire)
}

fn written(results: &Results<(Asked, usize)>) -> String {
    let rows: Vec<_> = results
        .each()
        .map(|((asked, in_flight), series)| {
            let [median, spread] = cells(series);
            let name = asked.name().to_owned();
            vec![name, in_flight.to_string(), median, spread, rate(series.median())]
        })
        .collect();
    table(&["asked", "in flight", "each", "spread", "requests"], &rows)
}

fn comparisons(results: &Results<(Asked, usize)>) -> Vec<Comparison> {
    let mut all = Vec::new();
    for in_flight in IN_FLIGHT {
        let of = |asked| results.of(&(asked, in_flight));
        let floor = ("echo", of(Asked::Echo));
        for asked in [Asked::Nobody, Asked::Modules] {
            let what = format!("over the wire, {}, {in_flight} in flight", asked.name());
            all.push(Comparison::of(&what, Some(Goal::AtMost(1.3)), of(asked), floor));
        }
    }
    let of = |asked| results.of(&(asked, 1)).median();
    let share = of(Asked::Modules) - of(Asked::Echo);
    let goal = format!("\u{2264} {}", time(SHARE));
    all.push(Comparison::alone(
        "Ganglion's share of a round trip with five modules",
        &goal,
        &time(share),
        share <= SHARE,
    ));
    all
}
