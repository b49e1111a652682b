//! What it costs to ask modules, beside the floors that do the same work with less, and the peers that others would use.
//!
//! `cargo xtask bench dispatch [--quick]`; `cargo bench -p ganglion-benches --bench dispatch` prints the tables only.
//!
//! A chain is one question to five modules, unless a row says otherwise: see [`ganglion_benches::work`]. Everything that
//! runs is of the kind that it is in production: the modules under the panic guard, with budgets, breakers and permits,
//! watched by the watchdog; their callers are tasks on threads of the kind that workers are, and so are floors and peers.
//!
//! All rows share the args of one event among their chains: nothing is made, or taken apart, that is not part of asking.
//!
//! *In flight* is how many callers ask side by side, each again as soon as it is answered. `ask_on` of the tier `inline`
//! waits for nothing, so its callers take turns.

mod peers;
mod rows;

use std::process::ExitCode;

use ganglion::actors::Tier;
use ganglion_benches::group::Group;
use ganglion_benches::report::{Comparison, Goal, cells, rate, table, time};
use ganglion_benches::rounds::{Results, Series};

use crate::rows::{Case, IN_FLIGHT, MANY, Place, Stage, Way};

/// The most that a question may take that nobody subscribed to, in seconds.
const NO_SUBSCRIBER: f64 = 50e-9;

fn main() -> ExitCode {
    let Some(mut group) = Group::begin("dispatch") else {
        return ExitCode::from(2);
    };
    group.place(&["actix", "tokio", "kameo", "ractor"], &group.paced());
    let stage = Stage::start();
    let results = stage
        .rows()
        .measure(group.pace(), |round| group.progress(&format!("round {round}")));
    group.say(&rows(&results));
    for comparison in comparisons(&results) {
        group.compare(comparison);
    }
    group.end()
}

fn rows(results: &Results<Case>) -> String {
    let row = |case: Case| {
        let series = results.of(&case);
        let [median, spread] = cells(series);
        let counts = [case.modules, case.in_flight, case.workers].map(|count| count.to_string());
        let rate = rate(series.median());
        [vec![case.way.to_string()], counts.to_vec(), vec![median, spread, rate]].concat()
    };
    let rows: Vec<_> = results.each().map(|(case, _)| row(*case)).collect();
    let titles = [
        "way to ask",
        "modules",
        "in flight",
        "workers",
        "a chain",
        "spread",
        "chains",
    ];
    table(&titles, &rows)
}

fn comparisons(results: &Results<Case>) -> Vec<Comparison> {
    let nobody = results.of(&Case::of(Way::NoSubscriber).modules(0)).median();
    let mut all = vec![Comparison::alone(
        "no subscriber, at the routing table",
        "\u{2264} 50 ns",
        &time(nobody),
        nobody <= NO_SUBSCRIBER,
    )];
    let inline = results.of(&Case::of(Way::AskOn(Tier::Inline)));
    let boxed = results.of(&Case::of(Way::Boxed));
    all.push(Comparison::of(
        "five modules, inline, `ask_on`",
        Some(Goal::AtMost(3.0)),
        inline,
        ("boxed async calls", boxed),
    ));
    all.extend(tiers(results));
    all.extend(scaling(results));
    for tier in Tier::ALL {
        let goal = (tier != Tier::Thread).then_some(Goal::AtMost(4.2));
        all.push(Comparison::of(
            &format!("20 modules against 5, {tier}, `ask_on`"),
            goal,
            results.of(&Case::of(Way::AskOn(tier)).modules(20)),
            ("5 modules", results.of(&Case::of(Way::AskOn(tier)))),
        ));
    }
    all
}

/// The tiers that send messages.
fn tiers(results: &Results<Case>) -> Vec<Comparison> {
    let mut all = Vec::new();
    let on = results.of(&Case::of(Way::AskOn(Tier::Actor)));
    all.push(against(
        results,
        "five modules, actor, `ask_on`",
        None,
        on,
        Place::Here,
        1,
    ));
    for in_flight in IN_FLIGHT {
        let goal = (in_flight == 1).then_some(Goal::AtMost(0.5));
        let what = format!("five modules, actor, `ask` on the worker, {in_flight} in flight");
        let ask = results.of(&Case::of(Way::Ask(Tier::Actor)).in_flight(in_flight));
        let compared = against(results, &what, goal, ask, Place::Here, in_flight);
        all.push(match goal {
            Some(_) => compared.goal("\u{2264} 0.5x, better 0.35x"),
            None => compared,
        });
    }
    // Plain handlers are the harder floor; async ones can do what modules do.
    all.push(
        Comparison::of(
            "five modules, actor, `ask` on the worker, against async handlers",
            Some(Goal::AtMost(0.5)),
            results.of(&Case::of(Way::Ask(Tier::Actor))),
            (
                "actix asks of async handlers",
                results.of(&Case::of(Way::ActixAsync(Place::Here))),
            ),
        )
        .goal("\u{2264} 0.5x, better 0.35x"),
    );
    for in_flight in IN_FLIGHT {
        let goal = (in_flight == 1).then_some(Goal::AtMost(1.2));
        let what = format!("five modules, thread, `ask` on the worker, {in_flight} in flight");
        let ask = results.of(&Case::of(Way::Ask(Tier::Thread)).in_flight(in_flight));
        all.push(against(results, &what, goal, ask, Place::Apart, in_flight));
    }
    all
}

/// Ours beside actix and the other peers.
fn against(
    results: &Results<Case>,
    what: &str,
    goal: Option<Goal>,
    ours: &Series,
    place: Place,
    in_flight: usize,
) -> Comparison {
    let of = |way| results.of(&Case::of(way).in_flight(in_flight));
    let peers = [
        ("tokio channels", of(Way::Tokio(place))),
        ("kameo", of(Way::Kameo(place))),
        ("ractor", of(Way::Ractor(place))),
    ];
    Comparison::of(what, goal, ours, ("actix asks", of(Way::Actix(place)))).beside(ours, peers)
}

/// Two workers beside one.
fn scaling(results: &Results<Case>) -> Vec<Comparison> {
    let ways = [
        Way::AskOn(Tier::Inline),
        Way::AskOn(Tier::Actor),
        Way::Ask(Tier::Inline),
        Way::Ask(Tier::Actor),
    ];
    let compare = |way: Way| {
        let of = |workers| results.of(&Case::of(way).in_flight(MANY).workers(workers));
        let what = format!("{way}, {MANY} in flight, two workers");
        Comparison::rates(&what, Some(Goal::AtLeast(1.6)), of(2), ("one worker", of(1)))
    };
    ways.into_iter().map(compare).collect()
}
