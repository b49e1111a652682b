//! The admin API of modules.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};

use ganglion::api::{
    CacheOptions, Cached, Module, ModuleApi, ModuleError, NoConfig, OwnedUserId, SpamCheckerCallbacks,
    UserMayCreateRoom, Verdict,
};
use ganglion::registry;
use serde_json::{Value, json};

use crate::metrics::scrape;
use crate::support::{
    Answer, TestServer, canned, config_with, poll_until, refused, request, results, with_modules, write,
};

pub(crate) const MODULES: &str = "/_ganglion/admin/v1/modules";
pub(crate) const CREATE: &str = "user_may_create_room";

pub(crate) fn bob() -> Value {
    json!({"user_id": "@bob:example.com"})
}

/// `denies` denies rooms, the demo has a web resource, `spare` is off.
fn server() -> TestServer {
    let mut spare = canned("spare", &json!({"user_may_publish_room": {"verdict": "deny"}}));
    spare["enabled"] = false.into();
    let denies = canned("denies", &json!({CREATE: {"verdict": "deny"}}));
    TestServer::start(&with_modules(
        &json!([denies, {"module": "demo.DemoModule"}, spare]).to_string(),
    ))
}

pub(crate) fn get(server: &TestServer, path: &str) -> Answer {
    request("GET", server.admin, path, &[], b"")
}

/// The snapshot of a module.
#[track_caller]
fn show(server: &TestServer, id: &str) -> Value {
    let answer = get(server, &format!("{MODULES}/{id}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn order(server: &TestServer, id: &str, command: &str) -> Answer {
    server.post(&format!("{MODULES}/{id}/{command}"), b"")
}

/// A command that must be followed, and the snapshot it is answered with.
#[track_caller]
pub(crate) fn follow(server: &TestServer, id: &str, command: &str) -> Value {
    let answer = order(server, id, command);
    assert_eq!(answer.status, 200, "{command} {id}: {answer:?}");
    answer.json()
}

#[test]
fn modules_are_listed_in_the_order_of_the_file() {
    let server = server();
    let answer = get(&server, MODULES);
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/json"));
    let listed = answer.json();
    let modules: Vec<_> = listed["modules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|module| (module["id"].as_str().unwrap(), module["state"].as_str().unwrap()))
        .collect();
    let expected = [
        ("denies", "running"),
        ("demo.DemoModule", "running"),
        ("spare", "disabled"),
    ];
    assert_eq!(modules, expected);
    assert_eq!(listed["modules"][0], show(&server, "denies"));
    let none = TestServer::start(&with_modules("[]"));
    assert_eq!(get(&none, MODULES).json(), json!({"modules": []}));
}

#[test]
fn a_snapshot_says_what_a_module_is_doing() {
    let server = server();
    server.decide(CREATE, &bob());
    let mut snapshot = show(&server, "denies");
    let since = snapshot["since"].take();
    let since = since.as_str().unwrap();
    assert_eq!(since.len(), "2026-01-01T00:00:00.000Z".len(), "{since}");
    assert!(humantime::parse_rfc3339(since).is_ok(), "{since}");
    let breaker = json!({"state": "closed", "calls": 1, "failures": 0, "slow": 0, "trips": 0, "reason": null});
    let expected = json!({
        "id": "denies",
        "path": "ganglion.modules.Canned",
        "tier": "actor",
        "state": "running",
        "since": null,
        "reason": null,
        "restarts": 0,
        "breakers": {CREATE: breaker},
        "in_flight": 0,
        "queued": 0,
        "shed": 0,
        "calls": 1,
        "failures": {},
        "policies": {},
        "blocked": 0,
        "stuck_threads": 0,
        "poison": [],
        "poison_bypasses": 0,
    });
    assert_eq!(snapshot, expected);
}

#[test]
fn failures_are_counted_by_kind() {
    let fails = canned("fails", &json!({CREATE: {"fail": "error"}}));
    let server = TestServer::start(&with_modules(&json!([fails]).to_string()));
    for _ in 0..3 {
        server.decide(CREATE, &bob());
    }
    let snapshot = show(&server, "fails");
    assert_eq!(
        (&snapshot["calls"], &snapshot["failures"]),
        (&json!(3), &json!({"module_error": 3}))
    );
    assert_eq!(snapshot["breakers"][CREATE]["failures"], 3);
}

#[test]
fn a_module_in_quarantine_fails_its_calls_until_it_is_released() {
    let server = server();
    let snapshot = follow(&server, "denies", "quarantine");
    assert_eq!(
        (&snapshot["state"], &snapshot["reason"]),
        (&json!("quarantined"), &json!("an operator said so"))
    );
    let decision = server.decide(CREATE, &bob());
    assert_eq!(results(&decision)[0], ("denies", "quarantined"), "{decision}");
    assert_ne!(decision["outcome"]["verdict"], "pass", "{decision}");
    let ready = get(&server, "/ready");
    assert!(refused(&ready, 503, "M_UNKNOWN").contains("denies"), "{ready:?}");

    let snapshot = follow(&server, "denies", "release");
    assert_eq!(
        (&snapshot["state"], &snapshot["reason"], &snapshot["restarts"]),
        (&json!("running"), &Value::Null, &json!(0))
    );
    assert_eq!(results(&server.decide(CREATE, &bob())), [("denies", "deny")]);
    assert_eq!(get(&server, "/ready").status, 200);
}

#[test]
fn a_web_resource_is_out_of_service_with_its_module() {
    let server = server();
    let hello = || request("GET", server.http, "/_synapse/client/demo/hello?name=x", &[], b"").status;
    assert_eq!(hello(), 200);
    follow(&server, "demo.DemoModule", "quarantine");
    assert_eq!(hello(), 503);
    follow(&server, "demo.DemoModule", "release");
    assert_eq!(hello(), 200);
    follow(&server, "demo.DemoModule", "disable");
    assert_eq!(hello(), 404);
    follow(&server, "demo.DemoModule", "enable");
    assert_eq!(hello(), 200);
}

#[test]
fn a_disabled_module_is_on_no_route_until_it_is_enabled() {
    let server = server();
    assert_eq!(follow(&server, "denies", "disable")["state"], "disabled");
    let decision = server.decide(CREATE, &bob());
    assert_eq!(results(&decision), [("demo.DemoModule", "pass")]);
    follow(&server, "demo.DemoModule", "disable");
    let neutral = json!({"outcome": {"verdict": "pass"}, "decided_by": null, "steps": []});
    assert_eq!(server.decide(CREATE, &bob()), neutral);
    // What an operator turned off does not make the process unready.
    assert_eq!(get(&server, "/ready").status, 200);

    // The order of the file stays the order of the route.
    follow(&server, "demo.DemoModule", "enable");
    assert_eq!(follow(&server, "denies", "enable")["state"], "running");
    assert_eq!(results(&server.decide(CREATE, &bob())), [("denies", "deny")]);
}

#[test]
fn a_module_that_is_off_in_the_config_can_be_enabled() {
    let server = server();
    let snapshot = show(&server, "spare");
    assert_eq!(
        (&snapshot["state"], &snapshot["reason"]),
        (&json!("disabled"), &json!("disabled in the config"))
    );
    let publish = json!({"user_id": "@bob:example.com", "room_id": "!r:example.com"});
    assert_eq!(results(&server.decide("user_may_publish_room", &publish)), []);
    assert_eq!(follow(&server, "spare", "enable")["state"], "running");
    assert_eq!(
        results(&server.decide("user_may_publish_room", &publish)),
        [("spare", "deny")]
    );
}

#[test]
fn restarts_are_counted() {
    let server = server();
    for count in 1..=3 {
        let snapshot = follow(&server, "denies", "restart");
        assert_eq!(
            (&snapshot["state"], &snapshot["restarts"]),
            (&json!("running"), &json!(count))
        );
        assert_eq!(results(&server.decide(CREATE, &bob())), [("denies", "deny")]);
    }
    assert_eq!(show(&server, "demo.DemoModule")["restarts"], 0);
    assert_eq!(show(&server, "denies")["calls"], 3);
}

#[test]
fn a_command_that_a_state_does_not_allow_is_refused_and_changes_nothing() {
    let server = server();
    follow(&server, "denies", "quarantine");
    let cases = [
        ("denies", "enable", "the module is quarantined: release it"),
        ("denies", "restart", "the module is quarantined: release it"),
        ("spare", "restart", "the module is disabled: enable it"),
        ("spare", "release", "the module is disabled: enable it"),
        ("spare", "quarantine", "the module is disabled: it is on no route"),
    ];
    for (id, command, expected) in cases {
        let before = show(&server, id);
        assert_eq!(refused(&order(&server, id, command), 409, "M_BAD_STATE"), expected);
        assert_eq!(show(&server, id), before, "{command}");
    }
}

#[test]
fn a_command_that_is_followed_already_changes_nothing() {
    let server = server();
    for (id, command) in [("denies", "enable"), ("denies", "release"), ("spare", "disable")] {
        let before = show(&server, id);
        assert_eq!(follow(&server, id, command), before, "{command}");
    }
}

#[test]
fn when_ganglion_has_stopped_modules_are_shown_and_commands_are_refused() {
    let server = server();
    server.ganglion.shutdown();
    for id in ["denies", "spare"] {
        assert_eq!(show(&server, id)["state"], "stopped");
        for command in ["enable", "disable", "restart", "quarantine", "release"] {
            let error = refused(&order(&server, id, command), 409, "M_BAD_STATE");
            assert_eq!(error, "the module is stopped: Ganglion is stopping", "{command}");
        }
    }
    let labels = [("module", "denies"), ("state", "stopped")];
    assert_eq!(scrape(&server).of("ganglion_module_state", &labels), Some(1));
}

#[test]
fn a_module_whose_path_is_not_known_is_shown_and_cannot_be_enabled() {
    // The id is the path, which is any text.
    let modules = json!([{"module": "odd/pa th\"\\.\u{e9}", "enabled": false}]);
    let server = TestServer::start(&with_modules(&modules.to_string()));
    let id = "odd%2Fpa%20th%22%5C.%C3%A9";
    let before = show(&server, id);
    assert_eq!(before["id"], "odd/pa th\"\\.\u{e9}");
    let error = refused(&order(&server, id, "enable"), 409, "M_BAD_STATE");
    assert!(
        error.starts_with("the module is disabled: its path is not known"),
        "{error}"
    );
    assert_eq!(show(&server, id), before);

    let labels = [("module", "odd/pa th\"\\.\u{e9}"), ("state", "disabled")];
    assert_eq!(scrape(&server).of("ganglion_module_state", &labels), Some(1));
}

#[test]
fn an_id_with_a_hash_is_percent_encoded_in_a_path() {
    let modules = json!([{"module": "demo.DemoModule"}, {"module": "demo.DemoModule"}]);
    let server = TestServer::start(&with_modules(&modules.to_string()));
    assert_eq!(show(&server, "demo.DemoModule%232")["id"], "demo.DemoModule#2");
    assert_eq!(follow(&server, "demo.DemoModule%232", "restart")["restarts"], 1);
    assert_eq!(show(&server, "demo.DemoModule")["restarts"], 0);
}

#[test]
fn an_unknown_module_is_not_found_and_a_near_one_is_named() {
    let server = server();
    for (id, expected) in [
        ("demo.DemoModul", "no module has this id, did you mean demo.DemoModule?"),
        ("something.else", "no module has this id"),
        ("%FF%FE", "no module has this id"),
        ("a%2Fb", "no module has this id"),
        (&"x".repeat(2000), "no module has this id"),
    ] {
        let shown = get(&server, &format!("{MODULES}/{id}"));
        assert_eq!(refused(&shown, 404, "M_NOT_FOUND"), expected);
        assert_eq!(refused(&order(&server, id, "restart"), 404, "M_NOT_FOUND"), expected);
    }
}

#[test]
fn an_unknown_command_is_refused_with_those_that_there_are() {
    let server = server();
    let before = show(&server, "denies");
    let error = refused(&order(&server, "denies", "restrat"), 404, "M_UNRECOGNIZED");
    let expected = "unknown command, did you mean restart?; the commands are enable, disable, restart, quarantine, release, \
         clear_poison";
    assert_eq!(error, expected);
    for command in ["stop", "RESTART", "%72estart%00"] {
        refused(&order(&server, "denies", command), 404, "M_UNRECOGNIZED");
    }
    assert_eq!(show(&server, "denies"), before);
}

#[test]
fn another_method_is_not_allowed_and_changes_nothing() {
    let server = server();
    let before = show(&server, "denies");
    for method in ["GET", "PUT", "DELETE", "HEAD"] {
        let answer = request(method, server.admin, &format!("{MODULES}/denies/disable"), &[], b"");
        assert_eq!(answer.status, 405, "{method}");
    }
    for path in [MODULES.to_owned(), format!("{MODULES}/denies"), "/metrics".to_owned()] {
        assert_eq!(refused(&server.post(&path, b""), 405, "M_UNRECOGNIZED"), "use GET");
        let head = request("HEAD", server.admin, &path, &[], b"");
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
    }
    assert_eq!(show(&server, "denies"), before);
}

#[test]
fn the_body_of_a_command_is_ignored_and_limited() {
    let yaml = with_modules("[{module: demo.DemoModule}]").replace("admin: {", "admin: {max_body: 100B, ");
    let server = TestServer::start(&yaml);
    let path = format!("{MODULES}/demo.DemoModule/restart");
    for body in [&b""[..], b"{}", b"no json", b"\xff"] {
        assert_eq!(server.post(&path, body).status, 200);
    }
    refused(&server.post(&path, &[b' '; 101]), 413, "M_TOO_LARGE");
    assert_eq!(show(&server, "demo.DemoModule")["restarts"], 4);
}

#[test]
fn a_command_is_followed_although_its_client_went_away() {
    let server = server();
    let mut connection = TcpStream::connect(server.admin).unwrap();
    let head = format!("POST {MODULES}/denies/restart HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    connection.write_all(head.as_bytes()).unwrap();
    drop(connection);
    poll_until(|| {
        let snapshot = show(&server, "denies");
        snapshot["restarts"] == 1 && snapshot["state"] == "running"
    });
}

#[test]
fn with_a_token_nobody_else_looks_at_modules_or_commands_them() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "admin.token", "s3cret\n");
    let yaml = with_modules("[{module: demo.DemoModule}]")
        .replace("admin: {", &format!("admin: {{token_file: '{}', ", file.display()));
    let server = TestServer::start(&yaml);
    let disable = format!("{MODULES}/demo.DemoModule/disable");
    let one = format!("{MODULES}/demo.DemoModule");
    for (method, path) in [("GET", MODULES), ("GET", &one), ("GET", "/metrics"), ("POST", &disable)] {
        let ask = |headers: &[(&str, &str)]| request(method, server.admin, path, headers, b"");
        refused(&ask(&[]), 401, "M_MISSING_TOKEN");
        refused(&ask(&[("authorization", "Bearer other")]), 401, "M_UNKNOWN_TOKEN");
        let foreign = [("authorization", "Bearer s3cret"), ("origin", "https://evil.example")];
        refused(&ask(&foreign), 403, "M_FORBIDDEN");
        assert_eq!(server.ganglion.dispatch().modules()[0].state().as_str(), "running");
        assert_eq!(ask(&[("authorization", "Bearer s3cret")]).status, 200, "{path}");
    }
    assert_eq!(server.ganglion.dispatch().modules()[0].state().as_str(), "disabled");
}

#[test]
fn the_public_listener_neither_shows_modules_nor_takes_commands() {
    let server = server();
    for path in [MODULES.to_owned(), format!("{MODULES}/denies"), "/metrics".to_owned()] {
        let answer = request("GET", server.http, &path, &[], b"");
        refused(&answer, 404, "M_UNRECOGNIZED");
    }
    let path = format!("{MODULES}/denies/disable");
    refused(&request("POST", server.http, &path, &[], b""), 404, "M_UNRECOGNIZED");
    assert_eq!(show(&server, "denies")["state"], "running");
}

#[test]
fn concurrent_commands_are_all_answered_and_the_last_one_holds() {
    let server = server();
    // One thread alone quarantines, so that it ends each quarantine by itself.
    let scripts: [&[&str]; 5] = [
        &["restart", "restart", "restart", "restart", "restart"],
        &["disable", "enable", "disable", "enable", "disable"],
        &["enable", "restart", "disable", "restart", "enable"],
        &["quarantine", "release", "quarantine", "release"],
        &["release", "enable", "release", "enable"],
    ];
    std::thread::scope(|scope| {
        for script in scripts {
            let server = &server;
            scope.spawn(move || {
                for command in script {
                    let answer = order(server, "denies", command);
                    match answer.status {
                        200 => assert_eq!(answer.json()["id"], "denies"),
                        _ => drop(refused(&answer, 409, "M_BAD_STATE")),
                    }
                    server.decide(CREATE, &bob());
                }
            });
        }
    });
    order(&server, "denies", "release");
    follow(&server, "denies", "enable");
    poll_until(|| show(&server, "denies")["state"] == "running");
    assert_eq!(results(&server.decide(CREATE, &bob())), [("denies", "deny")]);
}

/// Cannot be made a second time, and says so in words that are meant to break whoever shows them.
struct Hostile;

static HOSTILE: AtomicBool = AtomicBool::new(false);
const HOSTILE_TEXT: &str = "\",\"code\":1,\"msg\":\"\n\u{0}\u{1b}[31m<script>\u{202e}";

impl Module for Hostile {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        if HOSTILE.swap(true, Ordering::Relaxed) {
            return Err(ModuleError::message(HOSTILE_TEXT));
        }
        Ok(Self)
    }
}

#[test]
fn what_a_module_says_of_its_failure_is_a_text_and_nothing_more() {
    let modules = json!([{"module": "test.Hostile", "restart": {"max": 0}}]);
    let registry = registry().with::<Hostile>("test.Hostile");
    let server = TestServer::serve(config_with(&with_modules(&modules.to_string()), &registry));
    let keys = |snapshot: &Value| snapshot.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let before = show(&server, "test.Hostile");

    // The command is followed; the snapshot says what became of it.
    let snapshot = follow(&server, "test.Hostile", "restart");
    assert_eq!(snapshot["state"], "quarantined");
    let reason = snapshot["reason"].as_str().unwrap();
    assert!(reason.contains(HOSTILE_TEXT), "{reason:?}");
    assert_eq!(keys(&snapshot), keys(&before));
    let labels = [("module", "test.Hostile"), ("state", "quarantined")];
    assert_eq!(scrape(&server).of("ganglion_module_state", &labels), Some(1));
    assert!(!get(&server, "/metrics").text.contains("script"));
}

/// Its second constructor waits for the test.
struct Late {
    known: Cached<OwnedUserId, bool>,
}

static LATE: (Mutex<(u32, bool)>, Condvar) = (Mutex::new((0, false)), Condvar::new());
static LATE_WAITS: AtomicBool = AtomicBool::new(false);
static LATE_DONE: AtomicBool = AtomicBool::new(false);

impl Module for Late {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let mut made = LATE.0.lock().unwrap();
        made.0 += 1;
        let is_late = made.0 == 2;
        if is_late {
            LATE_WAITS.store(true, Ordering::SeqCst);
            made = LATE.1.wait_while(made, |(_, goes_on)| !*goes_on).unwrap();
        }
        drop(made);
        let known = api.cached("known", CacheOptions::new(), async |_: &Self, _: OwnedUserId| Ok(true))?;
        let create = async |late: &Self, create: &UserMayCreateRoom| {
            late.known.get(create.user_id.clone()).await?;
            Ok(Verdict::Pass)
        };
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(create))?;
        LATE_DONE.fetch_or(is_late, Ordering::SeqCst);
        Ok(Self { known })
    }
}

#[test]
fn a_constructor_that_is_late_leaves_the_module_that_was_made_meanwhile_alone() {
    let registry = registry().with::<Late>("test.Late");
    let server = TestServer::serve(config_with(&with_modules("[{module: test.Late}]"), &registry));
    let misses = || {
        let statistics = server.ganglion.dispatch().caches().statistics();
        statistics.iter().map(|cache| cache.misses).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| order(&server, "test.Late", "restart"));
        poll_until(|| LATE_WAITS.load(Ordering::SeqCst));
        follow(&server, "test.Late", "disable");
        assert_eq!(follow(&server, "test.Late", "enable")["state"], "running");
        server.decide(CREATE, &bob());
        LATE.0.lock().unwrap().1 = true;
        LATE.1.notify_all();
        poll_until(|| LATE_DONE.load(Ordering::SeqCst));
        let carol = json!({"user_id": "@carol:example.com"});
        assert_eq!(server.decide(CREATE, &carol)["steps"][0]["result"], "pass");
        assert_eq!(misses(), [2]);
        follow(&server, "test.Late", "disable");
        assert!(misses().is_empty());
    });
}
