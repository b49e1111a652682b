//! More calls than a module or a worker can take: who waits, who gives way, and that nobody is starved.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use futures_util::future::join_all;
use ganglion::actors::{Caller, ModuleSnapshot};
use ganglion::api::{
    AccountDataCallbacks, JsonObject, Module, ModuleApi, ModuleError, OnAccountDataUpdated, SpamCheckerCallbacks,
    UserId, UserMayCreateRoom, UserMayPublishRoom, Verdict,
};
use ganglion::dispatcher::{AskContext, JsonDecision};
use ganglion::{Ganglion, registry};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::support::{TestServer, config_with, poll_until, request, runtime, with_modules};

/// A door that calls wait at, and who came to it.
#[derive(Clone)]
struct Door {
    open: Arc<Semaphore>,
    came: Arc<Mutex<Vec<String>>>,
}

static DOORS: Mutex<Vec<Door>> = Mutex::new(Vec::new());

impl Door {
    fn new() -> (Self, usize) {
        let door = Self {
            open: Arc::new(Semaphore::new(0)),
            came: Arc::default(),
        };
        let mut doors = DOORS.lock().unwrap();
        doors.push(door.clone());
        (door, doors.len() - 1)
    }

    fn came(&self) -> Vec<String> {
        self.came.lock().unwrap().clone()
    }

    /// Lets everybody through from now on.
    fn open(&self) {
        self.open.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    async fn pass(&self, user: &UserId) -> Result<(), ModuleError> {
        self.came.lock().unwrap().push(user.localpart().to_owned());
        self.open.acquire().await?.forget();
        Ok(())
    }
}

/// Its calls wait at a door.
struct Waits(Door);

#[derive(serde::Deserialize)]
struct WaitsConfig {
    door: usize,
}

impl Module for Waits {
    type Config = WaitsConfig;

    fn new(config: WaitsConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let create = SpamCheckerCallbacks::new().user_may_create_room(Self::create);
        api.register_spam_checker_callbacks(create)?;
        let updated = AccountDataCallbacks::new().on_account_data_updated(Self::updated);
        api.register_account_data_callbacks(updated)?;
        Ok(Self(DOORS.lock().unwrap()[config.door].clone()))
    }
}

impl Waits {
    async fn create(&self, args: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        self.0.pass(&args.user_id).await?;
        Ok(Verdict::Pass)
    }

    async fn updated(&self, args: &OnAccountDataUpdated) -> Result<(), ModuleError> {
        self.0.pass(&args.user_id).await
    }
}

fn user(name: &str) -> ganglion::api::OwnedUserId {
    UserId::parse(format!("@{name}:example.com")).unwrap()
}

/// A server whose module waits at a door.
struct Scene {
    server: TestServer,
    door: Door,
    runtime: tokio::runtime::Runtime,
}

impl Scene {
    fn new(max_in_flight: usize, mailbox: usize) -> Self {
        Self::beside(max_in_flight, mailbox, &[])
    }

    /// With these modules before it.
    fn beside(max_in_flight: usize, mailbox: usize, others: &[Value]) -> Self {
        let (door, number) = Door::new();
        let module = json!({"module": "test.Waits", "id": "waits", "max_in_flight": max_in_flight, "mailbox": mailbox,
            "call_timeout": "60s", "config": {"door": number}});
        let modules = [others, &[module]].concat();
        let yaml = with_modules(&json!(modules).to_string()).replace("workers: 2", "workers: 2, deadline: 60s");
        let registry = registry().with::<Waits>("test.Waits").with::<Blocks>("test.Blocks");
        Self {
            server: TestServer::serve(config_with(&yaml, &registry)),
            door,
            runtime: runtime(),
        }
    }

    fn snapshot(&self) -> ModuleSnapshot {
        self.server.ganglion.dispatch().module("waits").unwrap().snapshot()
    }

    /// How many run and how many wait.
    fn under_way(&self) -> (usize, usize) {
        let snapshot = self.snapshot();
        (snapshot.in_flight, snapshot.queued)
    }

    /// A gating call; it is under way, or over, when this returns.
    fn create(&self, caller: Caller, name: &str) -> JoinHandle<JsonDecision> {
        let (ganglion, args) = (
            self.server.ganglion.clone(),
            UserMayCreateRoom::new(user(name), JsonObject::new()),
        );
        self.begin(async move {
            ganglion
                .ask_in(AskContext::new().caller(caller), Arc::new(args))
                .await
                .into_json()
        })
    }

    /// A notification; it is under way, or over, when this returns.
    fn notify(&self, caller: Caller, name: &str) -> JoinHandle<JsonDecision> {
        let args = OnAccountDataUpdated::new(user(name), None, "m.tag".to_owned(), JsonObject::new());
        let ganglion = self.server.ganglion.clone();
        self.begin(async move {
            ganglion
                .ask_in(AskContext::new().caller(caller), Arc::new(args))
                .await
                .into_json()
        })
    }

    fn begin(&self, ask: impl Future<Output = JsonDecision> + Send + 'static) -> JoinHandle<JsonDecision> {
        let seen = |snapshot: ModuleSnapshot| {
            let failed: u64 = snapshot.failures.values().sum();
            (snapshot.in_flight + snapshot.queued) as u64 + failed
        };
        let before = seen(self.snapshot());
        let asked = self.runtime.spawn(ask);
        poll_until(|| seen(self.snapshot()) > before);
        asked
    }

    fn end(&self, asked: JoinHandle<JsonDecision>) -> Value {
        json!(self.runtime.block_on(asked).unwrap())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.door.open();
    }
}

fn result(decision: &Value) -> &str {
    decision["steps"][0]["result"].as_str().unwrap()
}

#[test]
fn notifications_leave_a_quarter_of_the_permits_to_gating_calls() {
    let scene = Scene::new(8, 100);
    let one = Caller::Unnamed;
    let mut asked: Vec<_> = (0..10).map(|_| scene.notify(one, "notified")).collect();
    assert_eq!(scene.under_way(), (6, 4));
    // The flood of notifications waits, and these do not.
    asked.extend((0..2).map(|_| scene.create(one, "created")));
    assert_eq!(scene.under_way(), (8, 4));
    // A call has its permit a moment before its code begins.
    poll_until(|| scene.door.came().iter().filter(|name| *name == "created").count() == 2);
    scene.door.open();
    for asked in asked {
        let decision = scene.end(asked);
        assert!(["notified", "pass"].contains(&result(&decision)), "{decision}");
    }
    assert_eq!(scene.snapshot().shed, 0);
}

#[test]
fn notifications_are_shed_oldest_first_and_that_is_seen() {
    let scene = Scene::new(1, 2);
    let one = Caller::Unnamed;
    let runs = scene.create(one, "runs");
    let notified: Vec<_> = ["n1", "n2", "n3"].map(|name| scene.notify(one, name)).into();
    let waits = scene.create(one, "waits");
    assert_eq!(scene.under_way(), (1, 2));
    let metrics = request("GET", scene.server.admin, "/metrics", &[], b"").text;
    assert!(
        metrics.contains("ganglion_module_shed_total{module=\"waits\"} 2"),
        "{metrics}"
    );
    scene.door.open();
    let decisions: Vec<_> = notified.into_iter().map(|asked| scene.end(asked)).collect();
    let results: Vec<_> = decisions.iter().map(result).collect();
    assert_eq!(results, ["overloaded", "overloaded", "notified"]);
    let detail = decisions[0]["steps"][0]["detail"].as_str().unwrap();
    assert!(detail.starts_with("shed:"), "{detail}");
    for asked in [runs, waits] {
        assert_eq!(result(&scene.end(asked)), "pass");
    }
    assert_eq!(scene.door.came(), ["runs", "waits", "n3"]);
    let snapshot = scene.snapshot();
    assert_eq!((snapshot.shed, json!(snapshot.failures)), (2, json!({"overloaded": 2})));
}

#[test]
fn a_caller_that_floods_a_module_does_not_starve_another() {
    let scene = Scene::new(1, 10);
    let (flood, other) = (Caller::link(), Caller::link());
    let flooding: Vec<_> = (0..50).map(|_| scene.create(flood, "flood")).collect();
    assert_eq!(scene.under_way(), (1, 10));
    let asked: Vec<_> = (0..4).map(|_| scene.create(other, "other")).collect();
    assert_eq!(scene.under_way(), (1, 10));
    scene.door.open();
    for asked in asked {
        assert_eq!(result(&scene.end(asked)), "pass");
    }
    let decisions: Vec<_> = flooding.into_iter().map(|asked| scene.end(asked)).collect();
    let passed = decisions.iter().filter(|decision| result(decision) == "pass").count();
    assert_eq!(passed, 7);
    let came = scene.door.came();
    // They take turns.
    let expected = [
        "flood", "flood", "other", "flood", "other", "flood", "other", "flood", "other", "flood", "flood",
    ];
    assert_eq!(came, expected);
}

#[test]
fn gating_calls_that_flood_leave_turns_to_notifications() {
    let scene = Scene::new(4, 100);
    let one = Caller::Unnamed;
    let mut asked: Vec<_> = (0..20).map(|_| scene.create(one, "created")).collect();
    asked.extend((0..3).map(|_| scene.notify(one, "notified")));
    assert_eq!(scene.under_way(), (4, 19));
    // One by one, so that each permit that comes free has one whose turn it is.
    for through in 1..=6 {
        scene.door.open.add_permits(1);
        poll_until(|| scene.door.came().len() == 4 + through);
    }
    let came = scene.door.came();
    let turns = ["created", "notified", "created", "notified", "created", "notified"];
    assert_eq!(came[4..], turns);
    scene.door.open();
    for asked in asked {
        scene.end(asked);
    }
}

#[test]
fn who_waited_for_most_of_its_budget_says_nothing_about_the_health_of_a_module() {
    let modules = json!([{"module": "ganglion.modules.Canned", "id": "m", "max_in_flight": 1, "call_timeout": "1500ms",
        "breaker": {"minimum": 2, "window": 10},
        "config": {"delay": "1s", "answers": {"user_may_create_room": {"verdict": "pass"}}}}]);
    let server = TestServer::start(&with_modules(&modules.to_string()));
    let runtime = runtime();
    // Each time the first is answered, and the second gets its permit when too little is left.
    for _ in 0..2 {
        let args = || UserMayCreateRoom::new(user("bob"), JsonObject::new());
        let both = async { tokio::join!(server.ganglion.ask(args()), server.ganglion.ask(args())) };
        let (first, second) = runtime.block_on(both);
        for decision in [first, second] {
            assert_ne!(decision.steps[0].result.as_str(), "breaker_open");
        }
    }
    let snapshot = server.ganglion.dispatch().module("m").unwrap().snapshot();
    let breaker = &snapshot.breakers["user_may_create_room"];
    assert_eq!((breaker.failures, breaker.trips), (0, 0), "{:?}", snapshot.failures);
    assert!(snapshot.failures.values().sum::<u64>() > 0);
}

/// Asks over HTTP from this address, without waiting for the answer.
fn ask_from(address: &str, server: SocketAddr, name: &str) -> TcpStream {
    let from: SocketAddr = format!("{address}:0").parse().unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let mut connection = TcpStream::from(socket);
    let body = json!({"user_id": format!("@{name}:example.com")}).to_string();
    let head = "POST /_ganglion/v1/callbacks/user_may_create_room HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    write!(connection, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    connection
}

#[test]
fn over_http_callers_are_told_apart_by_their_address() {
    let scene = Scene::new(1, 4);
    let server = scene.server.admin;
    let _flood: Vec<_> = (0..12).map(|_| ask_from("127.0.0.1", server, "flood")).collect();
    poll_until(|| scene.under_way() == (1, 4) && scene.snapshot().calls == 7);
    let mut other = ask_from("127.0.0.2", server, "other");
    poll_until(|| scene.snapshot().shed == 1);
    scene.door.open();
    let mut answer = String::new();
    other.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(r#""verdict":"pass""#), "{answer}");
}

/// Blocks its worker until the test lets it go.
struct Blocks(Arc<Blocking>);

#[derive(Default)]
struct Blocking {
    blocks: Mutex<Option<bool>>,
    changed: Condvar,
}

static BLOCKING: Mutex<Vec<Arc<Blocking>>> = Mutex::new(Vec::new());

impl Blocking {
    fn begin() -> (LetGo, usize) {
        let mut all = BLOCKING.lock().unwrap();
        all.push(Arc::default());
        (LetGo(Arc::clone(&all[all.len() - 1])), all.len() - 1)
    }

    fn blocks(&self) -> bool {
        *self.blocks.lock().unwrap() == Some(true)
    }
}

/// Lets the worker go, also after a failed test.
struct LetGo(Arc<Blocking>);

impl Drop for LetGo {
    fn drop(&mut self) {
        *self.0.blocks.lock().unwrap() = Some(false);
        self.0.changed.notify_all();
    }
}

#[derive(serde::Deserialize)]
struct BlocksConfig {
    blocking: usize,
}

impl Module for Blocks {
    type Config = BlocksConfig;

    fn new(config: BlocksConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_publish_room(Self::block))?;
        Ok(Self(Arc::clone(&BLOCKING.lock().unwrap()[config.blocking])))
    }
}

impl Blocks {
    async fn block(&self, _: &UserMayPublishRoom) -> Result<Verdict, ModuleError> {
        let mut blocks = self.0.blocks.lock().unwrap();
        if blocks.is_none() {
            *blocks = Some(true);
            drop(
                self.0
                    .changed
                    .wait_while(blocks, |blocks| *blocks == Some(true))
                    .unwrap(),
            );
        }
        Ok(Verdict::Pass)
    }
}

fn publish() -> UserMayPublishRoom {
    UserMayPublishRoom::new(user("blocks"), ganglion::api::RoomId::parse("!r:example.com").unwrap())
}

#[test]
fn no_permit_goes_to_who_waits_on_a_worker_that_may_be_blocked() {
    let (let_go, blocking) = Blocking::begin();
    let blocks = json!({"module": "test.Blocks", "call_timeout": "60s", "config": {"blocking": blocking}});
    let scene = Scene::beside(2, 1024, &[blocks]);
    // Two run, one a worker or both on one, and the others wait on both.
    let one = Caller::Unnamed;
    let asked: Vec<_> = (0..12).map(|_| scene.create(one, "created")).collect();
    assert_eq!(scene.under_way(), (2, 10));
    let ganglion = scene.server.ganglion.clone();
    let blocks = scene.runtime.spawn(async move { ganglion.ask(publish()).await });
    poll_until(|| let_go.0.blocks());
    // Those that wait there go elsewhere, as soon as it is seen.
    scene.door.open();
    poll_until(|| asked.iter().filter(|asked| asked.is_finished()).count() >= 10);
    assert!(let_go.0.blocks());
    drop(let_go);
    for asked in asked {
        assert_eq!(result(&scene.end(asked)), "pass");
    }
    scene.runtime.block_on(blocks).unwrap();
}

/// How many may wait for one worker.
const MOST_WAITING: usize = 8192;

#[test]
fn a_flood_for_a_worker_that_is_busy_is_bounded_and_leaves_room_for_others() {
    let (let_go, blocking) = Blocking::begin();
    let modules = json!([
        {"module": "test.Blocks", "call_timeout": "60s", "config": {"blocking": blocking}},
        {"module": "ganglion.modules.Canned", "id": "canned", "max_in_flight": 100_000,
         "config": {"answers": {"user_may_create_room": {"verdict": "pass"}}}},
    ]);
    let yaml = with_modules(&modules.to_string()).replace("workers: 2", "workers: 1, deadline: 60s");
    let config = config_with(&yaml, &registry().with::<Blocks>("test.Blocks"));
    let runtime = runtime();
    let ganglion = runtime.block_on(Ganglion::start(&config)).unwrap();
    let blocks = {
        let ganglion = ganglion.clone();
        runtime.spawn(async move { ganglion.ask(publish()).await })
    };
    poll_until(|| let_go.0.blocks());

    let ask = |caller, count: usize| {
        let asks = (0..count).map(|_| {
            let context = AskContext::new().caller(caller);
            let (ganglion, args) = (ganglion.clone(), UserMayCreateRoom::new(user("bob"), JsonObject::new()));
            async move { json!(ganglion.ask_in(context, Arc::new(args)).await.into_json()) }
        });
        runtime.spawn(join_all(asks.collect::<Vec<_>>()))
    };
    let refused = || ganglion.dispatch().counts().refused;
    // One is with the dispatcher, which has no time for it.
    let flood = ask(Caller::link(), 1 + MOST_WAITING + 1000);
    poll_until(|| refused() == 1000);
    let other = ask(Caller::link(), 10);
    poll_until(|| refused() == 1010);
    drop(let_go);
    let other = runtime.block_on(other).unwrap();
    assert!(other.iter().all(|decision| result(decision) == "pass"), "{other:?}");
    let flood = runtime.block_on(flood).unwrap();
    let overloaded: Vec<_> = flood
        .iter()
        .filter(|decision| result(decision) == "overloaded")
        .collect();
    assert_eq!(overloaded.len(), 1010);
    assert_eq!(overloaded[0]["steps"][0]["policy"], "synapse");
    assert_eq!(overloaded[0]["outcome"]["verdict"], "error");
    runtime.block_on(blocks).unwrap();
    ganglion.shutdown();
}
