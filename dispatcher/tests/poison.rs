//! Which ends of a question count against its args.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use ganglion_actors::{Budget, Course};
use ganglion_api::{
    Callback, FailureKind, FromJson, JsonPath, LocalFuture, ModuleError, Subscriber, UserMayPublishRoom, Verdict,
};
use ganglion_dispatcher::{Chain, Displaced, Policy, Question, Route, Subscription, Target};
use serde_json::json;
use tokio::time::Instant;

const PANICKED: FailureKind = FailureKind::Panicked;
const EXCEEDED: FailureKind = FailureKind::DeadlineExceeded;

/// A module that writes down what harmed it.
#[derive(Clone, Default)]
struct Victim(Arc<Mutex<Vec<FailureKind>>>);

impl Target for Victim {
    fn harmed<C: Callback>(&self, _: &C, cause: FailureKind) {
        self.0.lock().unwrap().push(cause);
    }
}

struct Stub;

impl Subscriber<UserMayPublishRoom> for Stub {
    fn call<'a>(&'a self, _: &'a UserMayPublishRoom) -> LocalFuture<'a, Result<Verdict, ModuleError>> {
        Box::pin(pending())
    }
}

/// A chain that asks the module `a`, which has begun.
struct Scene {
    chain: Chain<UserMayPublishRoom, Victim>,
    victim: Victim,
    question: Question,
    course: Arc<Course>,
    now: Instant,
    until: Instant,
}

impl Scene {
    fn new(whole: bool) -> Self {
        let mut scene = Self::not_begun(whole);
        assert!(scene.chain.begin(scene.question, &scene.course));
        scene
    }

    fn not_begun(whole: bool) -> Self {
        let victim = Victim::default();
        let subscription = Subscription {
            id: "a".into(),
            policy: Policy::resolve(&[], &[], &UserMayPublishRoom::SPEC),
            subscriber: Arc::new(Stub) as Arc<dyn Subscriber<UserMayPublishRoom>>,
            incarnation: victim.clone(),
        };
        let args = json!({"user_id": "@a:b", "room_id": "!r:b"});
        let args = UserMayPublishRoom::from_json(args, &JsonPath::Root).unwrap();
        let server_name = ganglion_api::ServerName::parse("b").unwrap();
        let route = Route::new(vec![subscription], server_name);
        let mut chain = Chain::new(Arc::new(route), Arc::new(args));
        assert!(chain.next_subscription().is_some());
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let until = now + second;
        let question = chain.asked(Budget::new(now, u64::MAX, second));
        Self {
            chain,
            victim,
            question,
            course: Arc::new(Course::new(now, until, whole)),
            now,
            until,
        }
    }

    /// Does something while the module's code waits for something.
    fn while_it_waits(&mut self, act: impl FnOnce(&mut Self)) {
        let course = Arc::clone(&self.course);
        let mut code = pin!(course.follow(pending::<()>(), self.until));
        assert!(poll(code.as_mut()));
        act(self);
    }

    /// Does something while the module's code holds its thread.
    fn while_it_runs(&mut self, act: impl FnOnce(&mut Self)) {
        let (course, until) = (Arc::clone(&self.course), self.until);
        let mut code = pin!(course.follow(async { act(self) }, until));
        assert!(!poll(code.as_mut()));
    }

    fn fails(&mut self, kind: FailureKind) {
        self.chain.answer(self.question, Err(kind.into()), self.now);
    }

    #[track_caller]
    fn harmed(&self, causes: &[FailureKind]) {
        assert_eq!(*self.victim.0.lock().unwrap(), causes);
    }
}

/// Whether it is pending.
fn poll(future: Pin<&mut impl Future>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[test]
fn a_panic_counts_whatever_the_budget_was() {
    for whole in [true, false] {
        let mut scene = Scene::new(whole);
        scene.fails(PANICKED);
        // Told again, by a thread that was late.
        scene.fails(PANICKED);
        scene.harmed(&[PANICKED]);
    }
}

#[test]
fn other_failures_and_those_of_code_that_has_not_begun_do_not_count() {
    for kind in FailureKind::ALL {
        let mut scene = Scene::not_begun(true);
        scene.fails(kind);
        scene.harmed(&[]);
        if ![PANICKED, EXCEEDED].contains(&kind) {
            let mut scene = Scene::new(true);
            scene.while_it_runs(|scene| scene.fails(kind));
            scene.harmed(&[]);
        }
    }
}

#[test]
fn a_hang_counts_if_it_had_its_whole_budget() {
    for (whole, causes) in [(true, &[EXCEEDED][..]), (false, &[])] {
        let mut scene = Scene::new(whole);
        scene.while_it_runs(|scene| scene.fails(EXCEEDED));
        scene.harmed(causes);
    }
}

#[test]
fn who_blocks_a_thread_that_is_given_up_counts_and_who_waits_there_does_not() {
    let displaced = |scene: &mut Scene| {
        let (now, blamed) = (scene.until, Some("a"));
        assert_eq!(scene.chain.displace(blamed, now), Displaced::GoOn);
    };
    let mut blocks = Scene::new(true);
    blocks.while_it_runs(displaced);
    blocks.harmed(&[EXCEEDED]);
    // Another call of the same module, which blocks for this one.
    let mut waits = Scene::new(true);
    waits.while_it_waits(displaced);
    waits.harmed(&[]);
    // A call of another module.
    let mut waits = Scene::new(true);
    waits.while_it_waits(|scene| {
        let (now, until) = (scene.now, scene.until);
        let displaced = scene.chain.displace(Some("b"), now);
        assert_eq!(displaced, Displaced::WaitUntil(scene.question, until));
        scene.chain.overrun(scene.question, until);
    });
    waits.harmed(&[]);
}

#[test]
fn who_runs_when_the_chain_s_deadline_passes_counts_if_its_own_budget_is_over_too() {
    for (past, causes) in [(true, &[EXCEEDED][..]), (false, &[])] {
        let mut runs = Scene::new(true);
        runs.while_it_runs(|scene| {
            let now = if past { scene.until } else { scene.now };
            scene.chain.expire(now);
        });
        runs.harmed(causes);
        let mut waits = Scene::new(true);
        waits.while_it_waits(|scene| scene.chain.expire(scene.until));
        waits.harmed(&[]);
    }
}
