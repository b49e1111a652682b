//! What the combine rules cost: a chain that is given its answers, beside a plain function that folds the same answers.
//!
//! `cargo xtask bench combine [--quick]`; `cargo bench -p ganglion-benches --bench combine` prints the tables only.
//!
//! Nobody is asked: chains are pure. Beside its fold a chain knows who is next, applies failure policies, and writes
//! down what each module did; the plain function knows the outcome only. Both take args and answers of their own.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ganglion::api::{
    Callback, GetInterestedUsers, InterestedUsers, IsUserExpired, JsonObject, LegacyRenewal, LocalFuture, Merging as _,
    ModuleError, OnCreateRoom, OnLegacyRenew, OnUserRegistration, OwnedUserId, Requester, RoomOutcome, RoomVerdict,
    Secret, ServerName, Subscriber, UserId, UserMayCreateRoom, Verdict,
};
use ganglion::api::{Expiry, FromJson as _, JsonPath};
use ganglion::dispatcher::{Chain, Outcome, Policy, Route, Routed, Subscription};
use ganglion_benches::group::Group;
use ganglion_benches::report::{Comparison, cells, table};
use ganglion_benches::rounds::{Results, Rows};
use ganglion_benches::work::MODULES;
use serde_json::json;

/// The rule, and whether it is the plain function.
type Row = (&'static str, bool);

fn main() -> ExitCode {
    let Some(mut group) = Group::begin("combine") else {
        return ExitCode::from(2);
    };
    group.place(&[], &group.paced());
    let mut rows = Rows::new();
    let rules = add_all(&mut rows);
    let results = rows.measure(group.pace(), |round| group.progress(&format!("round {round}")));
    group.say(&written(&results));
    for rule in rules {
        let of = |plain| results.of(&(rule, plain));
        group.compare(Comparison::of(rule, None, of(false), ("plain function", of(true))));
    }
    group.end()
}

fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:example.com")).expect("a user id")
}

fn add_all(rows: &mut Rows<'_, Row>) -> [&'static str; 6] {
    let bob = user("bob");
    let create = UserMayCreateRoom::new(bob.clone(), JsonObject::new());
    add(rows, create, vec![Verdict::Pass; MODULES], first_deny);

    let mut expired = vec![None; MODULES - 1];
    expired.push(Some(Expiry::Expired));
    add(rows, IsUserExpired::new(bob.clone()), expired, first_answer);

    let edit = |name: &str| match json!({"name": name, "preset": "public_chat"}) {
        serde_json::Value::Object(edited) => RoomVerdict::Edit(edited),
        _ => RoomVerdict::Pass,
    };
    let verdicts = vec![
        RoomVerdict::Pass,
        edit("x"),
        RoomVerdict::Pass,
        edit("y"),
        RoomVerdict::Pass,
    ];
    add(rows, request(), verdicts, rewrite);

    let interested = |name: &str| InterestedUsers::new([user(name), user("kim")]);
    let users = ["a", "b", "c", "d", "e"].map(interested).to_vec();
    add(rows, GetInterestedUsers::new(bob.clone()), users, merge);

    add(rows, OnUserRegistration::new(bob), vec![(); MODULES], notify);

    let renewal = LegacyRenewal::new(true, false, 1_766_000_000_000_i64);
    let renew = OnLegacyRenew::new(Secret::new("token".to_owned()));
    add(rows, renew, vec![renewal], single_owner);

    [
        "first_deny",
        "first_answer",
        "rewrite",
        "merge",
        "notify",
        "single_owner",
    ]
}

fn request() -> OnCreateRoom {
    let requester = Requester::from_json(json!({"user_id": "@bob:example.com"}), &JsonPath::Root);
    let content = JsonObject::from_iter([("name".to_owned(), json!("n"))]);
    OnCreateRoom::new(requester.expect("a requester"), content, false)
}

fn first_deny(_: UserMayCreateRoom, answers: Vec<Verdict>) -> Verdict {
    let mut answers = answers.into_iter();
    answers.find(|answer| *answer != Verdict::Pass).unwrap_or(Verdict::Pass)
}

fn first_answer(_: IsUserExpired, answers: Vec<Option<Expiry>>) -> Option<Expiry> {
    answers.into_iter().flatten().next()
}

fn rewrite(args: OnCreateRoom, answers: Vec<RoomVerdict>) -> RoomOutcome {
    let mut request_content = args.request_content;
    for answer in answers {
        match answer {
            RoomVerdict::Edit(edited) => request_content = edited,
            RoomVerdict::Deny(denial) => return RoomOutcome::Deny(denial),
            _ => {}
        }
    }
    RoomOutcome::Pass { request_content }
}

fn merge(_: GetInterestedUsers, answers: Vec<InterestedUsers>) -> Option<InterestedUsers> {
    answers.into_iter().reduce(|mut merged, answer| {
        merged.absorb(answer);
        merged
    })
}

fn notify(_: OnUserRegistration, answers: Vec<()>) {
    answers.into_iter().for_each(drop);
}

fn single_owner(_: OnLegacyRenew, answers: Vec<LegacyRenewal>) -> Option<LegacyRenewal> {
    answers.into_iter().next()
}

/// A subscriber that is never called.
struct Stub;

impl<C: Callback> Subscriber<C> for Stub {
    fn call<'a>(&'a self, _: &'a C) -> LocalFuture<'a, Result<C::Answer, ModuleError>> {
        Box::pin(std::future::pending())
    }
}

fn route<C: Routed>(modules: usize) -> Arc<Route<C, ()>> {
    let subscriptions = (0..modules).map(|module| Subscription {
        id: module.to_string().as_str().into(),
        policy: Policy::resolve(&[], &[], &C::SPEC),
        subscriber: Arc::new(Stub) as Arc<dyn Subscriber<C>>,
        incarnation: (),
    });
    let server_name = ServerName::parse("example.com").expect("a server name");
    Arc::new(Route::new(subscriptions.collect(), server_name))
}

/// A chain that is given its answers.
fn chain<C: Routed>(route: &Arc<Route<C, ()>>, args: C, answers: Vec<C::Answer>) -> Outcome<C> {
    let mut chain = Chain::new(Arc::clone(route), Arc::new(args));
    for answer in answers {
        assert!(chain.next_subscription().is_some(), "somebody is asked for each answer");
        chain.settle(Ok(answer), Duration::ZERO);
    }
    assert!(chain.next_subscription().is_none(), "nobody is asked any more");
    chain.take_decision().expect("the chain has ended").outcome
}

/// Adds both rows of a rule, of which both come to the same.
fn add<'a, C: Routed + PartialEq>(
    rows: &mut Rows<'a, Row>,
    args: C,
    answers: Vec<C::Answer>,
    plain: impl Fn(C, Vec<C::Answer>) -> C::Outcome + 'a,
) where
    C::Answer: 'a,
{
    let rule = C::SPEC.combine.as_str();
    let route = route::<C>(answers.len());
    let expected = Outcome::Decided(plain(args.clone(), answers.clone()));
    assert_eq!(chain(&route, args.clone(), answers.clone()), expected, "{rule}");
    let own = (args.clone(), answers.clone());
    rows.add((rule, false), move |count| {
        timed(count, || {
            chain(&route, black_box(own.0.clone()), black_box(own.1.clone()))
        })
    });
    rows.add((rule, true), move |count| {
        timed(count, || plain(black_box(args.clone()), black_box(answers.clone())))
    });
}

fn timed<T>(count: u64, work: impl Fn() -> T) -> Duration {
    let begun = Instant::now();
    for _ in 0..count {
        black_box(work());
    }
    begun.elapsed()
}

fn written(results: &Results<Row>) -> String {
    let row = |((rule, plain), series): (&Row, _)| {
        let who = if *plain { "floor: plain function" } else { "chain" };
        [vec![(*rule).to_owned(), who.to_owned()], cells(series).to_vec()].concat()
    };
    let rows: Vec<_> = results.each().map(row).collect();
    table(&["rule", "", "once", "spread"], &rows)
}
