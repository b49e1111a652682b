//! Folds, failure policies and chains against a small reference model that works on JSON and knows no Rust type of a
//! callback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ganglion_actors::{Budget, Course};
use ganglion_api::{
    CallFailure, Callback, CallbackSpec, Category, FailureKind, JsonPath, LocalFuture, MatrixError, ModuleError,
    OnFailure, ServerName, Subscriber, Then, visit_all, visit_each_callback,
};
use ganglion_dispatcher::{Chain, Displaced, FailureRule, Origin, Policy, Route, Routed, Subscription};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

/// What one module does.
#[derive(Debug, Clone)]
enum Reply {
    Answer(Value),
    Fails(FailureKind),
    Matrix(u16),
}

/// What happens to the worker while a module is asked.
#[derive(Debug, Clone, Copy)]
struct Displacement {
    /// The module's code had begun.
    begun: bool,
    /// Who is blamed: the module itself, another, or nobody, for a thread that ended.
    blamed: Option<bool>,
    /// A module that has begun does not answer any more.
    in_vain: bool,
}

impl Displacement {
    /// The module that is asked gives no answer for it.
    fn costs_the_answer(self) -> bool {
        self.begun && (self.blamed != Some(false) || self.in_vain)
    }
}

/// What is expected: the outcome, who decided, and each step's word with its policy.
#[derive(Debug, PartialEq)]
struct Expected {
    outcome: Value,
    decided_by: Option<usize>,
    steps: Vec<(String, Option<&'static str>)>,
}

const PASS: &str = r#"{"verdict": "pass"}"#;
const DENY: &str = r#"{"verdict": "deny", "errcode": "M_X", "error": "no", "fields": {"a": 1}}"#;
const NULL: &str = r#"{"value": null}"#;
const USER: &str = r#"{"user_id": "@u:b"}"#;
const INVITE: &str = r#"{"inviter": "@u:b", "invitee": "@v:c", "room_id": "!r:b"}"#;
const EVENT: &str = r#"{"event": {"type": "x", "sender": "@u:b", "room_id": "!r:b", "content": {}}}"#;
const THREEPID: &str = r#"{"medium": "email", "address": "a@b", "password": "p", "registration": true, "access_token": "t", "user_id": "@u:b"}"#;

/// The callbacks that are tried, each combine rule with each meaning of a failure: arguments and possible answers.
#[rustfmt::skip]
const POOL: &[(&str, &str, &[&str])] = &[
    ("user_may_create_room", USER, &[PASS, PASS, DENY]),
    ("user_may_invite", INVITE, &[PASS, PASS, DENY]),
    ("check_threepid_can_be_invited", THREEPID, &[PASS, PASS, DENY]),
    ("is_3pid_allowed", THREEPID, &[PASS, PASS, DENY]),
    ("check_registration_for_spam", "{}", &[PASS, r#"{"verdict": "shadow_ban"}"#, DENY]),
    ("check_event_allowed", EVENT, &[PASS, r#"{"verdict": "replace", "event": {"y": 1}}"#, DENY]),
    (
        "on_create_room",
        r#"{"requester": {"user_id": "@u:b"}, "request_content": {"n": 0}, "is_requester_admin": true}"#,
        &[
            PASS,
            r#"{"verdict": "pass", "request_content": {"n": 0}}"#,
            r#"{"verdict": "pass", "request_content": {"n": 1}}"#,
            DENY,
        ],
    ),
    ("is_user_expired", USER, &[NULL, r#"{"value": false}"#, r#"{"value": true}"#]),
    (
        "get_username_for_registration",
        r#"{"uia_results": {}, "params": {}}"#,
        &[NULL, r#"{"value": ""}"#, r#"{"value": "x"}"#],
    ),
    ("check_3pid_auth", THREEPID, &[NULL, r#"{"value": {"user_id": "@u:b", "login_callback": null}}"#]),
    (
        "get_interested_users",
        USER,
        &[r#"{"value": []}"#, r#"{"value": ["@x:b"]}"#, r#"{"value": ["@x:b", "@y:b"]}"#, r#"{"value": "ALL"}"#],
    ),
    (
        "add_field_to_unsigned",
        EVENT,
        &[r#"{"value": {}}"#, r#"{"value": {"x": 1, "y": 1}}"#, r#"{"value": {"y": 2}}"#],
    ),
    ("on_user_registration", USER, &[NULL]),
    ("on_logged_out", THREEPID, &[NULL]),
    (
        "on_legacy_renew",
        r#"{"renewal_token": "t"}"#,
        &[r#"{"value": {"valid": true, "stale": false, "expiration_ts": 1}}"#],
    ),
];

/// By the server of the event's sender, of the requester, or of the user whom the args name; these names have no port.
fn model_origin(spec: &CallbackSpec, args: &Value, server_name: &str) -> Origin {
    let mut users = spec.args.iter().filter_map(|arg| match arg.name {
        "event" => args["event"]["sender"].as_str(),
        "requester" => args["requester"]["user_id"].as_str(),
        "user_id" | "inviter" => args[arg.name].as_str(),
        _ => None,
    });
    match users.next() {
        Some(user) if !user.ends_with(&format!(":{server_name}")) => Origin::Federated,
        _ => Origin::Local,
    }
}

/// The first rule that matches decides; a deny rule matches only where something can be denied.
fn model_policy(rules: &[FailureRule], spec: &CallbackSpec, kind: FailureKind, origin: Origin) -> &'static str {
    for rule in rules {
        let deny_has_no_meaning =
            rule.then == Then::Deny && !["first_deny", "rewrite"].contains(&spec.combine.as_str());
        let callback = rule.callbacks.is_empty() || rule.callbacks.contains(spec.name);
        let category = rule.categories.is_empty() || rule.categories.contains(&spec.category);
        let kinds = rule.kinds.is_empty() || rule.kinds.contains(&kind);
        let origin = rule.origin.is_none() || rule.origin == Some(origin);
        if callback && category && kinds && origin && !deny_has_no_meaning {
            return rule.then.as_str();
        }
    }
    "synapse"
}

/// What the answers so far have made of the outcome; `Err` ends the chain.
fn model_fold(spec: &CallbackSpec, sofar: Value, answer: &Value) -> (&'static str, Result<Value, Value>) {
    match (spec.combine.as_str(), answer["verdict"].as_str()) {
        (_, Some("deny")) => ("deny", Err(answer.clone())),
        (_, Some("shadow_ban")) => ("shadow_ban", Err(answer.clone())),
        (_, Some("replace")) => ("replace", Err(answer.clone())),
        ("rewrite", _) if !answer["request_content"].is_null() => {
            (if sofar == *answer { "pass" } else { "replace" }, Ok(answer.clone()))
        }
        (_, Some(_)) | ("first_answer", None) if answer["value"].is_null() => ("pass", Ok(sofar)),
        ("first_answer" | "single_owner", _) => ("answer", Err(answer.clone())),
        ("merge", _) => {
            let merged = model_merge(&sofar["value"], &answer["value"]);
            let all = merged == "ALL";
            let merged = json!({ "value": merged });
            ("answer", if all { Err(merged) } else { Ok(merged) })
        }
        _ => ("notified", Ok(sofar)),
    }
}

fn model_merge(sofar: &Value, next: &Value) -> Value {
    match (sofar, next) {
        (Value::Array(some), Value::Array(more)) => {
            let all: BTreeSet<_> = some.iter().chain(more).map(|user| user.as_str().unwrap()).collect();
            json!(all)
        }
        (Value::Object(some), Value::Object(more)) => some.clone().into_iter().chain(more.clone()).collect(),
        _ => next.clone(),
    }
}

fn model(spec: &CallbackSpec, args: &Value, server_name: &str, replies: &[Reply], rules: &[FailureRule]) -> Expected {
    let mut outcome = match spec.combine.as_str() {
        _ if spec.name == "on_create_room" => json!({"verdict": "pass", "request_content": args["request_content"]}),
        "first_deny" | "rewrite" => json!({"verdict": "pass"}),
        _ => json!({"value": null}),
    };
    let error = |status: u16, errcode: &str, text: &str| json!({"verdict": "error", "status": status, "errcode": errcode, "error": text, "fields": {}});
    let deny = |errcode: &str| json!({"verdict": "deny", "errcode": errcode, "error": null, "fields": {}});
    let mut steps = Vec::new();
    for (index, reply) in replies.iter().enumerate() {
        let end = match reply {
            Reply::Answer(answer) => {
                let (word, folded) = model_fold(spec, outcome.clone(), answer);
                steps.push((word.to_owned(), None));
                match folded {
                    Ok(sofar) => {
                        outcome = sofar;
                        None
                    }
                    Err(end) => Some(end),
                }
            }
            Reply::Matrix(status) if matches!(spec.on_failure, OnFailure::Error | OnFailure::Deny) => {
                steps.push(("module_error".to_owned(), None));
                Some(error(*status, "M_OWN", "own"))
            }
            Reply::Matrix(_) | Reply::Fails(_) => {
                let kind = if let Reply::Fails(kind) = reply {
                    *kind
                } else {
                    FailureKind::ModuleError
                };
                let policy = model_policy(rules, spec, kind, model_origin(spec, args, server_name));
                steps.push((kind.as_str().to_owned(), Some(policy)));
                match (policy, spec.on_failure.as_str()) {
                    ("deny", _) => Some(deny("M_FORBIDDEN")),
                    ("synapse", "deny") => Some(deny("M_UNKNOWN")),
                    ("error", _) | ("synapse", "error") => Some(error(500, "M_UNKNOWN", "Internal server error")),
                    _ => None,
                }
            }
        };
        if let Some(end) = end {
            return Expected {
                outcome: end,
                decided_by: Some(index),
                steps,
            };
        }
    }
    Expected {
        outcome,
        decided_by: None,
        steps,
    }
}

/// A subscriber that is never called: the test answers for it.
struct Stub;

impl<C: Callback> Subscriber<C> for Stub {
    fn call<'a>(&'a self, _: &'a C) -> LocalFuture<'a, Result<C::Answer, ModuleError>> {
        Box::pin(std::future::pending())
    }
}

/// Runs a chain of the callback with this name.
struct Run<'a> {
    name: &'a str,
    args: &'a Value,
    server_name: &'a str,
    replies: &'a [Reply],
    /// The module's and the global ones.
    rules: (&'a [FailureRule], &'a [FailureRule]),
    displaced: &'a [Option<Displacement>],
    expire_at: usize,
    got: Option<Expected>,
}

impl Run<'_> {
    fn run<C: Routed>(&mut self) {
        if C::SPEC.name != self.name {
            return;
        }
        let subscriptions = self.replies.iter().enumerate().map(|(index, _)| Subscription {
            id: index.to_string().as_str().into(),
            policy: Policy::resolve(self.rules.0, self.rules.1, &C::SPEC),
            subscriber: Arc::new(Stub) as Arc<dyn Subscriber<C>>,
            incarnation: (),
        });
        let args = C::from_json(self.args.clone(), &JsonPath::Root).unwrap();
        let server_name = ServerName::parse(self.server_name).unwrap();
        let route = Route::new(subscriptions.collect(), server_name);
        let mut chain = Chain::new(Arc::new(route), Arc::new(args));
        let mut replies = self.replies.iter().zip(self.displaced).enumerate();
        while chain.next_subscription().is_some() {
            let (index, (reply, displaced)) = replies.next().expect("one question a module");
            if index == self.expire_at {
                chain.expire(Instant::now());
                break;
            }
            if let Some(displacement) = displaced {
                displace(&mut chain, index, *displacement);
                if displacement.costs_the_answer() {
                    continue;
                }
            }
            chain.settle(
                match reply {
                    Reply::Answer(answer) => Ok(C::read_answer(answer.clone()).unwrap()),
                    Reply::Fails(kind) => Err((*kind).into()),
                    Reply::Matrix(status) => Err(ModuleError::from(MatrixError::new(*status, "M_OWN", "own")).into()),
                },
                Duration::ZERO,
            );
        }
        let decision = chain.take_decision().expect("the chain has ended");
        assert!(chain.take_decision().is_none(), "a decision is given out once");
        chain.settle(Err(CallFailure::from(FailureKind::Panicked)), Duration::ZERO);
        assert!(
            chain.take_decision().is_none(),
            "an answer after the end changes nothing"
        );
        let decision = decision.into_json();
        self.got = Some(Expected {
            outcome: decision.outcome,
            decided_by: decision.decided_by.map(|id| id.parse().unwrap()),
            steps: decision
                .steps
                .iter()
                .map(|step| (step.result.as_str().to_owned(), step.policy.map(Then::as_str)))
                .collect(),
        });
    }
}

visit_each_callback!(Run<'_>, |self, C| self.run::<C>());

/// Asks the next module, and takes its worker away.
fn displace<C: Routed>(chain: &mut Chain<C, ()>, index: usize, displacement: Displacement) {
    let Displacement { begun, blamed, in_vain } = displacement;
    let (now, leg) = (Instant::now(), chain.leg());
    let second = Duration::from_secs(1);
    let (until, budget) = (now + second, Budget::new(now, u64::MAX, second));
    let question = chain.asked(budget);
    let course = Arc::new(Course::new(now, until, true));
    assert!(!begun || chain.begin(question, &course));
    let blamed = blamed.map(|own| if own { index } else { index + 100 }.to_string());
    if in_vain && !begun {
        // It is only suspect.
        assert!(chain.withdraw());
    } else {
        assert!(!begun || !chain.withdraw(), "what has begun is not taken back");
    }
    let displaced = chain.displace(blamed.as_deref(), now);
    if begun && blamed == Some((index + 100).to_string()) {
        assert_eq!(displaced, Displaced::WaitUntil(question, until));
        assert_ne!(chain.leg(), leg);
        if !in_vain {
            // Its worker came back in time.
            return;
        }
        chain.overrun(question, until);
    } else {
        assert_eq!(displaced, Displaced::GoOn);
    }
    assert_ne!(chain.leg(), leg);
    assert!(
        !chain.begin(question, &course),
        "a call that was withdrawn begins, so it is made twice"
    );
    chain.answer(question, Err(FailureKind::Panicked.into()), now);
    if !begun {
        // Asked again, elsewhere; what the first worker says changes nothing.
        assert!(chain.next_subscription().is_some());
        let again = chain.asked(budget);
        chain.answer(question, Err(FailureKind::Panicked.into()), now);
        assert!(!chain.begin(question, &course) && chain.begin(again, &course));
    }
}

/// A random subset, often the empty one, which matches everything.
fn subset<T: Clone + std::fmt::Debug + Ord + 'static>(some: &[T]) -> impl Strategy<Value = BTreeSet<T>> + use<T> {
    prop_oneof![2 => Just(BTreeSet::new()), 1 => proptest::sample::subsequence(some.to_vec(), 0..=some.len()).prop_map(|picked| picked.into_iter().collect())]
}

fn rules(spec: &'static CallbackSpec) -> impl Strategy<Value = Vec<FailureRule>> {
    let rule = (
        subset(&[spec.name, "user_may_invite"]),
        subset(&[spec.category, Category::Federation]),
        subset(&FailureKind::ALL),
        proptest::option::of(proptest::sample::select(Origin::ALL.to_vec())),
        proptest::sample::select(Then::ALL.to_vec()),
    );
    let rule = rule.prop_map(|(callbacks, categories, kinds, origin, then)| FailureRule {
        callbacks,
        categories,
        kinds,
        origin,
        then,
    });
    proptest::collection::vec(rule, 0..4)
}

fn reply(answers: Vec<Value>) -> impl Strategy<Value = Reply> {
    prop_oneof![
        5 => proptest::sample::select(answers).prop_map(Reply::Answer),
        2 => proptest::sample::select(FailureKind::ALL.to_vec()).prop_map(Reply::Fails),
        1 => (400_u16..600).prop_map(Reply::Matrix),
    ]
}

#[derive(Debug, Clone)]
struct Case {
    name: &'static str,
    args: Value,
    server_name: &'static str,
    replies: Vec<Reply>,
    rules: Vec<FailureRule>,
    /// How many of them are the module's own.
    own_rules: usize,
    displaced: Vec<Option<Displacement>>,
    expire_at: usize,
}

fn case() -> impl Strategy<Value = Case> {
    proptest::sample::select(POOL).prop_flat_map(|(name, args, answers)| {
        let spec = ganglion_api::spec(name).unwrap();
        let args: Value = serde_json::from_str(args).unwrap();
        let answers = answers
            .iter()
            .map(|answer| serde_json::from_str(answer).unwrap())
            .collect();
        let displacement = (any::<bool>(), any::<Option<bool>>(), any::<bool>());
        let displacement = displacement.prop_map(|(begun, blamed, in_vain)| Displacement { begun, blamed, in_vain });
        (
            proptest::sample::select(vec!["b", "c"]),
            proptest::collection::vec(reply(answers), 0..6),
            rules(spec),
            0_usize..4,
            proptest::collection::vec(proptest::option::weighted(0.2, displacement), 6),
            0_usize..12,
        )
            .prop_map(
                move |(server_name, replies, rules, own_rules, displaced, expire_at)| Case {
                    name,
                    args: args.clone(),
                    server_name,
                    replies,
                    own_rules: own_rules.min(rules.len()),
                    rules,
                    displaced,
                    expire_at,
                },
            )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_chain_decides_as_the_model_does(case in case()) {
        let spec = ganglion_api::spec(case.name).unwrap();
        let mut run = Run {
            name: case.name,
            args: &case.args,
            server_name: case.server_name,
            replies: &case.replies,
            rules: case.rules.split_at(case.own_rules),
            displaced: &case.displaced,
            expire_at: case.expire_at,
            got: None,
        };
        visit_all(&mut run);
        // Whoever is asked when the deadline passes, and all after, exceeded it.
        let mut replies = case.replies.clone();
        for (reply, displaced) in replies.iter_mut().zip(&case.displaced) {
            if displaced.is_some_and(Displacement::costs_the_answer) {
                *reply = Reply::Fails(FailureKind::DeadlineExceeded);
            }
        }
        for late in replies.iter_mut().skip(case.expire_at) {
            *late = Reply::Fails(FailureKind::DeadlineExceeded);
        }
        prop_assert_eq!(run.got.unwrap(), model(spec, &case.args, case.server_name, &replies, &case.rules));
    }
}
