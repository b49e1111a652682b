//! Permits, mailboxes and control, with real actors.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use ganglion_actors::{Asker, ModuleLimits, ModuleState, Moment, Worker, WorkerThreads};
use ganglion_api::{
    CallFailure, FailureKind, Module, ModuleApi, ModuleError, NoConfig, SpamCheckerCallbacks, UserId,
    UserMayCreateRoom, UserMayPublishRoom, Verdict,
};
use tokio::time::Instant;

use crate::support::{Asks, LIMITS, Started, caches, factory, spec, start};

/// How many calls run, and the most that ever did.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

static GAUGE: Gauge = Gauge {
    now: AtomicUsize::new(0),
    most: AtomicUsize::new(0),
};

struct M {
    api: ModuleApi<Self>,
}

impl Module for M {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let callbacks = SpamCheckerCallbacks::new()
            .user_may_create_room(Self::counts)
            .user_may_publish_room(Self::hangs);
        api.register_spam_checker_callbacks(callbacks)?;
        Ok(Self { api: api.clone() })
    }
}

impl M {
    async fn counts(&self, _: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        let now = GAUGE.now.fetch_add(1, Ordering::SeqCst) + 1;
        GAUGE.most.fetch_max(now, Ordering::SeqCst);
        self.api.sleep(Duration::from_millis(1)).await;
        GAUGE.now.fetch_sub(1, Ordering::SeqCst);
        Ok(Verdict::Pass)
    }

    async fn hangs(&self, _: &UserMayPublishRoom) -> Result<Verdict, ModuleError> {
        std::future::pending().await
    }
}

fn create() -> UserMayCreateRoom {
    let user = UserId::parse("@a:b").unwrap();
    UserMayCreateRoom::new(user, ganglion_api::JsonObject::new())
}

fn publish() -> UserMayPublishRoom {
    let (user, room) = (
        UserId::parse("@a:b").unwrap(),
        ganglion_api::RoomId::parse("!r:b").unwrap(),
    );
    UserMayPublishRoom::new(user, room)
}

async fn hang(module: &Started) -> Result<Verdict, CallFailure> {
    module.ask(publish(), Instant::now() + Duration::from_secs(3600)).await
}

#[test]
fn a_thousand_calls_from_all_workers_never_exceed_max_in_flight() {
    // On real workers, from other threads: permits count over all of them.
    let workers = WorkerThreads::start(2).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let limits = ModuleLimits {
            call_timeout: Duration::from_secs(60),
            ..LIMITS
        };
        let module = start(spec(factory::<M>(), limits), &workers, &caches()).await.unwrap();
        let threads = workers.workers();
        let batches = threads.into_iter().map(|(_, thread)| {
            let (incarnation, subscriber) = module.subscriber::<UserMayCreateRoom>().unwrap();
            let arbiter = thread.arbiter().clone();
            let (done, answers) = tokio::sync::oneshot::channel();
            arbiter.spawn_fn(move || {
                actix::spawn(async move {
                    let worker = Worker::new(thread);
                    let deadline = Instant::now() + Duration::from_secs(60);
                    let calls = (0..500).map(async |_| {
                        let (asking, answered) = Asks::new();
                        let subscriber = Arc::clone(&subscriber);
                        let now = Moment::from(Instant::now());
                        let budget = incarnation.budget(now, Moment::from(deadline).nanos_since(now));
                        incarnation
                            .call(
                                &worker,
                                subscriber,
                                Arc::new(create()),
                                budget,
                                Asker::default(),
                                asking,
                            )
                            .await;
                        answered.await.unwrap()
                    });
                    done.send(join_all(calls).await).unwrap();
                });
            });
            answers
        });
        for answers in join_all(batches).await {
            assert!(answers.unwrap().into_iter().all(|answer| answer == Ok(Verdict::Pass)));
        }
        let most = GAUGE.most.load(Ordering::SeqCst);
        assert!((1..=4).contains(&most), "{most}");
        assert_eq!(module.handle.snapshot().calls, 1000);
    });
}

#[actix::test]
async fn stop_overtakes_a_full_mailbox() {
    tokio::time::pause();
    let limits = ModuleLimits {
        call_timeout: Duration::from_secs(3600),
        max_in_flight: 2,
        mailbox: 100,
        ..LIMITS
    };
    let workers = WorkerThreads::current();
    let module = start(spec(factory::<M>(), limits), &workers, &caches()).await.unwrap();
    let begun = Instant::now();
    let calls = (0..102).map(|_| hang(&module));
    let (answers, ()) = tokio::join!(join_all(calls), async {
        while module.handle.snapshot().queued < 100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(module.handle.snapshot().in_flight, 2);
        let one_more = hang(&module).await;
        assert_eq!(one_more.unwrap_err().kind, FailureKind::Overloaded);
        module.handle.stop();
    });
    // Those who run and those who wait are told at once, hours before their budget ends.
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(answers.len(), 102);
    for answer in answers {
        assert_eq!(answer.unwrap_err().kind, FailureKind::NotRunning);
    }
    assert_eq!(module.handle.state(), ModuleState::Stopped);
    assert_eq!(hang(&module).await.unwrap_err().kind, FailureKind::NotRunning);
    let failures = module.handle.snapshot().failures;
    assert_eq!(
        (failures[&FailureKind::NotRunning], failures[&FailureKind::Overloaded]),
        (103, 1)
    );
}

#[actix::test]
async fn a_call_that_waits_too_long_for_a_permit_is_overloaded_and_one_that_runs_too_long_exceeds_its_deadline() {
    tokio::time::pause();
    let limits = ModuleLimits {
        max_in_flight: 1,
        ..LIMITS
    };
    let workers = WorkerThreads::current();
    let module = start(spec(factory::<M>(), limits), &workers, &caches()).await.unwrap();
    let begun = Instant::now();
    let second = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        module.ask(publish(), begun + Duration::from_millis(500)).await
    };
    let (runs, waits) = tokio::join!(hang(&module), second);
    assert_eq!(waits.unwrap_err().kind, FailureKind::Overloaded);
    assert_eq!(runs.unwrap_err().kind, FailureKind::DeadlineExceeded);
    // Its permit is free again.
    assert_eq!(module.handle.snapshot().in_flight, 0);
}

/// Tries to register later.
struct Late;

static LATE: Mutex<Option<ModuleApi<Late>>> = Mutex::new(None);

impl Module for Late {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        *LATE.lock().unwrap() = Some(api.clone());
        Ok(Self)
    }
}

#[actix::test]
async fn nothing_is_registered_after_the_constructor() {
    let workers = WorkerThreads::current();
    let _module = start(spec(factory::<Late>(), LIMITS), &workers, &caches())
        .await
        .unwrap();
    let api = LATE.lock().unwrap().take().unwrap();
    let callbacks = SpamCheckerCallbacks::new().user_may_create_room(async |_: &Late, _: &_| Ok(Verdict::Pass));
    let closed = Err(ganglion_api::RegistrationError::RegistrationClosed);
    assert_eq!(api.register_spam_checker_callbacks(callbacks), closed);
    let respond = async |_: &Late, _| ganglion_api::json_response(200, &());
    assert_eq!(api.register_web_resource("/_synapse/client/late", respond), closed);
}
