//! What a misbehaving module does to its neighbours: nothing.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};

use ganglion::actors::ModuleState;
use ganglion::api::{
    JsonObject, Module, ModuleApi, ModuleError, NoConfig, SpamCheckerCallbacks, UserId, UserMayCreateRoom,
    UserMayPublishRoom, Verdict,
};
use ganglion::{Ganglion, registry};
use serde_json::json;

use crate::support::{TestServer, canned, config, config_with, poll_until, request, results, with_modules};

/// Blocks its thread until the test opens the gate.
struct Blocks;

#[derive(Default)]
struct Gate {
    opened: Mutex<bool>,
    changed: Condvar,
}

static GATE: Mutex<Option<(Arc<Gate>, SyncSender<()>)>> = Mutex::new(None);

impl Module for Blocks {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(Self::block))?;
        Ok(Self)
    }
}

impl Blocks {
    async fn block(&self, _: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        let (gate, begun) = GATE.lock().unwrap().clone().expect("the test has made a gate");
        begun.send(()).unwrap();
        let opened = gate.opened.lock().unwrap();
        drop(gate.changed.wait_while(opened, |opened| !*opened).unwrap());
        Ok(Verdict::Pass)
    }
}

/// Closes the gate; it opens when this is dropped, so that a failed test ends too.
struct Closed(Arc<Gate>, Receiver<()>);

impl Closed {
    fn new() -> Self {
        let gate = Arc::new(Gate::default());
        let (begun, begin) = sync_channel(16);
        *GATE.lock().unwrap() = Some((Arc::clone(&gate), begun));
        Self(gate, begin)
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        *self.0.opened.lock().unwrap() = true;
        self.0.changed.notify_all();
    }
}

#[test]
fn with_a_blocked_worker_health_is_answered_deadlines_hold_and_others_are_asked() {
    let closed = Closed::new();
    let modules = json!([
        {"module": "test.Blocks", "id": "blocks"},
        canned("after", &json!({"user_may_create_room": {"verdict": "pass"}})),
        canned("neighbour", &json!({"user_may_publish_room": {"verdict": "deny"}})),
    ]);
    let yaml = with_modules(&modules.to_string()).replace("workers: 2", "workers: 2, deadline: 500ms");
    let server = TestServer::serve(config_with(&yaml, &registry().with::<Blocks>("test.Blocks")));
    let create = json!({"user_id": "@bob:example.com"});

    // The deadline is the caller's: it holds although the worker is stuck, and says who was stuck.
    let decision = server.decide("user_may_create_room", &create);
    closed.1.recv().unwrap();
    assert_eq!(results(&decision), [("blocks", "deadline_exceeded")], "{decision}");
    assert_eq!(decision["decided_by"], "blocks");
    assert_eq!(decision["outcome"]["verdict"], "error");

    for listener in [server.http, server.admin] {
        assert_eq!(request("GET", listener, "/health", &[], b"").text, "OK");
    }
    let publish = json!({"user_id": "@bob:example.com", "room_id": "!r:example.com"});
    for _ in 0..20 {
        let decision = server.decide("user_may_publish_room", &publish);
        assert_eq!(decision["outcome"]["verdict"], "deny", "{decision}");
    }
    drop(closed);
}

#[test]
fn a_module_that_was_not_reached_before_the_deadline_exceeded_it_too() {
    let modules = json!([
        canned("hangs", &json!({"check_can_shutdown_room": {"fail": "hang"}})),
        canned("later", &json!({"check_can_shutdown_room": {"verdict": "pass"}})),
    ]);
    let yaml = with_modules(&modules.to_string()).replace("workers: 2", "workers: 1, deadline: 50ms");
    let server = TestServer::start(&yaml);
    let decision = server.decide("check_can_shutdown_room", &json!({"room_id": "!r:example.com"}));
    let expected = ["hangs", "later"].map(|module| (module, "deadline_exceeded"));
    assert_eq!(results(&decision), expected, "{decision}");
    assert_eq!(decision["steps"][1]["duration_us"], 0);
    assert_eq!(decision["outcome"], json!({"verdict": "pass"}));
}

#[test]
fn a_module_s_own_budget_leaves_the_next_one_its_turn() {
    let mut hangs = canned("hangs", &json!({"check_can_shutdown_room": {"fail": "hang"}}));
    hangs["call_timeout"] = "20ms".into();
    let denies = canned("denies", &json!({"check_can_shutdown_room": {"verdict": "deny"}}));
    let server = TestServer::start(&with_modules(&json!([hangs, denies]).to_string()));
    let decision = server.decide("check_can_shutdown_room", &json!({"room_id": "!r:example.com"}));
    assert_eq!(decision["decided_by"], "denies");
    assert_eq!(decision["steps"][0]["result"], "deadline_exceeded");
}

#[test]
fn a_panic_is_a_failure_with_its_reason_and_the_module_is_made_anew() {
    let panics = canned("panics", &json!({"user_may_create_room": {"fail": "panic"}}));
    let server = TestServer::start(&with_modules(&json!([panics]).to_string()));
    let module = server.ganglion.dispatch().modules()[0].clone();
    for restarts in 1..=3 {
        let decision = server.decide("user_may_create_room", &json!({"user_id": "@bob:example.com"}));
        assert_eq!(decision["outcome"]["status"], 500);
        assert_eq!(decision["outcome"]["error"], "Internal server error");
        let step = &decision["steps"][0];
        assert_eq!(
            (&step["result"], &step["detail"]),
            (&json!("panicked"), &json!("canned panic"))
        );
        poll_until(|| module.snapshot().restarts == restarts && module.state() == ModuleState::Running);
    }
    assert_eq!(module.snapshot().calls, 3);
}

#[test]
fn failure_rules_decide_what_a_failure_counts_as() {
    let mut panics = canned(
        "panics",
        &json!({"user_may_create_room": {"fail": "panic"}, "user_may_publish_room": {"fail": "error"},
                "is_user_expired": {"fail": "error"}}),
    );
    panics["on_failure"] = json!([
        {"callback": "user_may_create_room", "kind": ["panicked", "overloaded"], "then": "deny"},
        {"category": "account_validity", "then": "deny"},
        {"category": "account_validity", "then": "pass"},
    ]);
    let yaml = with_modules(&json!([panics]).to_string()) + "on_failure: [{kind: module_error, then: pass}]\n";
    let server = TestServer::start(&yaml);
    let create = server.decide("user_may_create_room", &json!({"user_id": "@bob:example.com"}));
    assert_eq!(
        create["outcome"],
        json!({"verdict": "deny", "errcode": "M_FORBIDDEN", "error": null, "fields": {}})
    );
    assert_eq!(create["steps"][0]["policy"], "deny");
    assert_eq!(create["decided_by"], "panics");
    // It is made anew.
    poll_until(|| server.ganglion.dispatch().is_ready());
    let publish = json!({"user_id": "@bob:example.com", "room_id": "!r:example.com"});
    let publish = server.decide("user_may_publish_room", &publish);
    assert_eq!(publish["outcome"], json!({"verdict": "pass"}));
    assert_eq!(
        (&publish["steps"][0]["policy"], &publish["decided_by"]),
        (&json!("pass"), &json!(null))
    );
    // Nothing can be denied here: the deny rule is passed over.
    let expired = server.decide("is_user_expired", &json!({"user_id": "@bob:example.com"}));
    assert_eq!(expired["outcome"], json!({"value": null}));
}

#[test]
fn a_full_module_is_overloaded_and_its_neighbour_is_not() {
    let mut hangs = canned("hangs", &json!({"user_may_create_room": {"fail": "hang"}}));
    hangs["max_in_flight"] = 1.into();
    hangs["mailbox"] = 0.into();
    hangs["call_timeout"] = "60s".into();
    let neighbour = canned("neighbour", &json!({"user_may_publish_room": {"verdict": "deny"}}));
    let yaml = with_modules(&json!([hangs, neighbour]).to_string()).replace("workers: 2", "workers: 2, deadline: 60s");
    let server = TestServer::start(&yaml);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ask = || {
            let ganglion = server.ganglion.clone();
            let bob = UserId::parse("@bob:example.com").unwrap();
            tokio::spawn(async move { ganglion.ask(UserMayCreateRoom::new(bob, JsonObject::new())).await })
        };
        // One of the two gets the permit and hangs, the other is refused at once.
        let (first, second) = (ask(), ask());
        let (refused, running) = futures_util::future::select(first, second).await.factor_first();
        let refused = refused.unwrap().into_json();
        assert_eq!(json!(refused.steps)[0]["result"], "overloaded");
        let publish = UserMayPublishRoom::new(
            UserId::parse("@bob:example.com").unwrap(),
            ganglion::api::RoomId::parse("!r:example.com").unwrap(),
        );
        let decision = server.ganglion.ask(publish).await;
        assert_eq!(decision.decided_by.as_deref(), Some("neighbour"));

        // Stopping overtakes the call that hangs.
        server.ganglion.shutdown();
        let stopped = running.await.unwrap().into_json();
        assert_eq!(json!(stopped.steps)[0]["result"], "not_running");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handle_works_from_every_thread_of_a_plain_runtime_and_stops_with_its_last_clone() {
    let ganglion = Ganglion::start(&config(&with_modules("[{module: demo.DemoModule}]")))
        .await
        .unwrap();
    let asks = (0..64).map(|index| {
        let ganglion = ganglion.clone();
        tokio::spawn(async move {
            let user = UserId::parse(format!("@user{index}:example.com")).unwrap();
            ganglion
                .ask(UserMayCreateRoom::new(user, JsonObject::new()))
                .await
                .into_json()
        })
    });
    for decision in futures_util::future::join_all(asks).await {
        assert_eq!(decision.unwrap().outcome, json!({"verdict": "pass"}));
    }
    let module = ganglion.dispatch().modules()[0].clone();
    drop(ganglion);
    assert_eq!(module.state(), ganglion::actors::ModuleState::Stopped);
}

#[tokio::test]
async fn a_deadline_that_passes_just_as_a_denial_comes_never_turns_it_into_a_pass() {
    let mut denies = canned("denies", &json!({"user_may_create_room": {"verdict": "deny"}}));
    denies["config"]["delay"] = "3ms".into();
    denies["max_in_flight"] = 1000.into();
    let yaml = with_modules(&json!([denies]).to_string()).replace("workers: 2", "workers: 2, deadline: 3ms");
    let ganglion = Ganglion::start(&config(&yaml)).await.unwrap();
    let asks = (0..500).map(|_| {
        let bob = UserId::parse("@bob:example.com").unwrap();
        ganglion.ask(UserMayCreateRoom::new(bob, JsonObject::new()))
    });
    for decision in futures_util::future::join_all(asks).await {
        let decision = json!(decision.into_json());
        assert_ne!(decision["outcome"]["verdict"], "pass", "{decision}");
        assert_eq!(decision["decided_by"], "denies", "{decision}");
    }
}

#[test]
fn a_client_that_goes_away_does_not_take_its_question_with_it() {
    let mut slow = canned("slow", &json!({"on_logged_out": {"value": null}}));
    slow["config"]["delay"] = "50ms".into();
    let server = TestServer::start(&with_modules(&json!([slow]).to_string()));
    let body = json!({"user_id": "@bob:example.com", "access_token": "t"}).to_string();
    let module = server.ganglion.dispatch().modules()[0].clone();
    let mut client = TcpStream::connect(server.admin).unwrap();
    let head = "POST /_ganglion/v1/callbacks/on_logged_out HTTP/1.1\r\nHost: localhost\r\n";
    write!(client, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    poll_until(|| module.snapshot().in_flight == 1);
    client.shutdown(Shutdown::Both).unwrap();
    drop(client);
    poll_until(|| module.snapshot().calls == 1);
    assert_eq!(module.snapshot().failures, [].into());
}

/// Connects to the addresses of its config, from its constructor.
struct Knocks;

#[derive(serde::Deserialize)]
struct KnocksConfig {
    addresses: Vec<SocketAddr>,
}

static KNOCKED: Mutex<Vec<bool>> = Mutex::new(Vec::new());

impl Module for Knocks {
    type Config = KnocksConfig;

    fn new(config: KnocksConfig, _: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let open = config
            .addresses
            .iter()
            .map(|address| TcpStream::connect(address).is_ok());
        KNOCKED.lock().unwrap().extend(open);
        Ok(Self)
    }
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap()
}

#[test]
fn nothing_listens_before_all_modules_run() {
    // Both are held until both are known, so that they differ; on an address of their own, so that no other test's
    // socket takes one of them.
    let [http, admin] = [(); 2]
        .map(|()| TcpListener::bind("127.0.0.1:0").unwrap())
        .each_ref()
        .map(address);
    let modules = json!([{"module": "test.Knocks", "config": {"addresses": [http, admin]}}]);
    let yaml = with_modules(&modules.to_string())
        .replacen("127.0.0.1:0", &http.to_string(), 1)
        .replacen("127.0.0.1:0", &admin.to_string(), 1);
    let server = TestServer::serve(config_with(&yaml, &registry().with::<Knocks>("test.Knocks")));
    assert_eq!(*KNOCKED.lock().unwrap(), [false, false]);
    assert_eq!((server.http, server.admin), (http, admin));
    for listener in [http, admin] {
        assert_eq!(request("GET", listener, "/ready", &[], b"").status, 200);
    }
}
