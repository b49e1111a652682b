//! `ganglion.modules.HttpAntispam` against another Ganglion's endpoint, and against servers that no healthy one is like.

use serde_json::{Value, json};

use crate::antispam::{answering, bodies};
use crate::service::{Does, Service};
use crate::support::{Answer, TestServer, canned, closed_port, poll_until, with_modules, write};

/// A Ganglion whose only module asks this URL.
fn asks(url: &str, mut config: Value) -> TestServer {
    config["base_url"] = url.into();
    if config["do_ping"].is_null() {
        config["do_ping"] = false.into();
    }
    let module = json!({"module": "ganglion.modules.HttpAntispam", "id": "a", "call_timeout": "15s",
        "config": config});
    let yaml = with_modules(&json!([module]).to_string()).replace("workers: 2", "workers: 1, deadline: 20s");
    TestServer::start(&yaml)
}

fn endpoint(server: &TestServer) -> String {
    format!("http://{}/_ganglion/antispam", server.admin)
}

fn bob() -> Value {
    json!({"user_id": "@bob:example.com"})
}

/// The outcome of a question about a room that is made, and the step of the module.
fn room(server: &TestServer) -> (Value, Value) {
    let decision = server.decide("user_may_create_room", &bob());
    (decision["outcome"].clone(), decision["steps"][0].clone())
}

fn pass() -> Value {
    json!({"verdict": "pass"})
}

/// The module failed, and says why.
#[track_caller]
fn fails(server: &TestServer, reason: &str) {
    let (outcome, step) = room(server);
    assert_eq!(
        (&outcome["verdict"], &outcome["error"]),
        (&json!("error"), &json!("Internal server error")),
        "{reason}"
    );
    assert_eq!(
        (&step["result"], &step["policy"]),
        (&json!("module_error"), &json!("synapse"))
    );
    let detail = step["detail"].as_str().unwrap();
    assert!(detail.ends_with(reason), "{detail}");
}

#[test]
fn another_ganglion_is_asked_about_every_callback_and_decides() {
    let denies = answering(
        &json!({"verdict": "deny", "errcode": "ORG_EXAMPLE_NO", "error": "not today",
        "fields": {"org.x": [1, null]}}),
    );
    let passes = answering(&pass());
    let (to_denies, to_passes) = (asks(&endpoint(&denies), json!({})), asks(&endpoint(&passes), json!({})));
    for (callback, body) in bodies() {
        assert_eq!(
            to_denies.decide(callback, &body)["outcome"],
            json!({"verdict": "deny", "errcode": "ORG_EXAMPLE_NO", "error": "not today", "fields": {"org.x": [1, null]}}),
            "{callback}"
        );
        assert_eq!(to_passes.decide(callback, &body)["outcome"], pass(), "{callback}");
        // A chain of three speaks the same language at each end.
        let answer: Answer = to_denies.antispam(callback, &body);
        assert_eq!(
            (answer.status, answer.errcode().as_str()),
            (403, "ORG_EXAMPLE_NO"),
            "{callback}"
        );
    }
    // A failure there is one here, and no denial.
    let panics = answering(&json!({"fail": "panic"}));
    fails(
        &asks(&endpoint(&panics), json!({})),
        "answered 500 with a body that is no verdict",
    );
}

#[test]
fn what_goes_out_has_the_path_the_token_and_the_fields_of_the_protocol_and_connections_are_kept() {
    let service = Service::start(|_| Does::json(200, &json!({}))).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "secret", "s3cret-token\n");
    // The room of a Meowlnir is percent-encoded, and stays so.
    let path = "/_meowlnir/antispam/%21abc%3Aexample.com";
    let server = asks(&service.url(&format!("{path}/")), json!({"authorization_path": file}));
    for (callback, mut body) in bodies() {
        assert_eq!(server.decide(callback, &body)["outcome"], pass());
        let asked = service.asked().pop().unwrap();
        assert_eq!(
            (asked.method.as_str(), asked.target.clone()),
            ("POST", format!("{path}/{callback}"))
        );
        assert_eq!(asked.header("authorization"), "Bearer s3cret-token");
        assert_eq!(asked.header("content-type"), "application/json");
        assert_eq!(
            asked.header("user-agent"),
            concat!("ganglion/", env!("CARGO_PKG_VERSION"))
        );
        assert_eq!(asked.header("host"), service.address.to_string());
        let sent = asked.json();
        if callback == "check_event_for_spam" {
            body["event"]["hashes"] = json!({"sha256": "x"});
            body["event"]["room_version"] = "11".into();
            server.decide(callback, &body);
            assert_eq!(service.asked().pop().unwrap().json(), sent);
        } else {
            assert_eq!(sent, body, "{callback}");
        }
    }
    // One worker, one after the other: one connection. It is not the instance's.
    assert_eq!(service.connections(), 1);
    let restarted = server.post("/_ganglion/admin/v1/modules/a/restart", b"");
    assert_eq!(restarted.status, 200, "{restarted:?}");
    assert_eq!(room(&server).0, pass());
    assert_eq!(service.connections(), 1);
}

#[test]
fn what_the_server_answers_is_a_verdict_or_a_failure_by_the_mode() {
    let no = json!({"errcode": "ORG_X", "error": "no", "org.x": 1});
    let deny = json!({"verdict": "deny", "errcode": "ORG_X", "error": "no", "fields": {"org.x": 1}});
    let plain = json!({"verdict": "deny", "errcode": "M_FORBIDDEN", "error": null, "fields": {}});
    let text = "answered 401 with a body that is no verdict";
    let odd = "answered 500 with a body that is no verdict";
    let page = "answered 200 with a body that is no verdict";
    let moved = "answered 302 with a body that is no verdict";
    for (does, compat, strict) in [
        (Does::json(200, &json!({"anything": 1})), Ok(&pass()), Ok(&pass())),
        (Does::json(200, &no), Ok(&pass()), Ok(&pass())),
        (Does::text(204, ""), Ok(&pass()), Ok(&pass())),
        (Does::text(200, "<h1>Log in</h1>"), Err(page), Err(page)),
        // As Draupnir says no, and as it says that the token is wrong.
        (Does::json(400, &no), Ok(&deny), Ok(&deny)),
        (Does::text(401, "Missing access token"), Err(text), Err(text)),
        (Does::json(403, &no), Ok(&deny), Ok(&deny)),
        (Does::json(500, &no), Ok(&deny), Err(odd)),
        (Does::json(500, &json!({})), Ok(&plain), Err(odd)),
        (Does::json(500, &json!([1])), Err(odd), Err(odd)),
        (
            Does::Sends(b"HTTP/1.1 302 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".into()),
            Err(moved),
            Err(moved),
        ),
    ] {
        let service = Service::start(move |_| does.clone()).unwrap();
        for (mode, expected) in [("compat", compat), ("strict", strict)] {
            let server = asks(&service.url("/"), json!({"mode": mode}));
            match expected {
                Ok(outcome) => assert_eq!(room(&server).0, *outcome, "{mode}"),
                Err(reason) => fails(&server, reason),
            }
        }
        // Nothing is asked twice, and nobody is sent elsewhere.
        assert_eq!(service.asked().len(), 2);
    }
}

#[test]
fn a_server_that_breaks_the_protocol_is_a_failure_that_says_how() {
    let huge = "x".repeat(70_000);
    let endless = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n{huge}\r\n");
    for (does, reason) in [
        (
            Does::Sends(b"garbage\r\n\r\n".into()),
            "answered something that is not HTTP",
        ),
        (
            Does::Sends(Vec::new()),
            "closed the connection before its answer was whole",
        ),
        (
            Does::Sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}".into()),
            "closed the connection before its answer was whole",
        ),
        (Does::text(200, &huge), "answered with more than 65536 bytes"),
        (Does::Sends(endless.into()), "answered with more than 65536 bytes"),
        (
            Does::Sends(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".into()),
            "answered with more than 65536 bytes",
        ),
    ] {
        let service = Service::start(move |_| does.clone()).unwrap();
        let server = asks(&service.url("/s3cret-path"), json!({"authorization": "s3cret-token"}));
        fails(&server, reason);
        let (_, step) = room(&server);
        let detail = step["detail"].as_str().unwrap();
        assert!(
            detail.starts_with(&service.url("")) && !detail.contains("s3cret"),
            "{detail}"
        );
    }
}

#[test]
fn what_fails_counts_as_fail_open_says_and_else_meets_the_failure_policy() {
    let closed =
        json!({"verdict": "deny", "errcode": "M_UNKNOWN", "error": "the antispam server gave no answer", "fields": {}});
    let (_bound, gone) = closed_port();
    let ask = |fail_open: Value| room(&asks(&format!("http://{gone}/"), json!({ "fail_open": fail_open })));
    assert_eq!(ask(json!({"user_may_create_room": true})).0, pass());
    assert_eq!(ask(json!({"user_may_create_room": false})).0, closed);
    let (outcome, step) = ask(json!({"user_may_invite": true}));
    assert_eq!(
        (&outcome["verdict"], &step["result"]),
        (&json!("error"), &json!("module_error"))
    );
    if cfg!(target_os = "linux") {
        assert!(step["detail"].as_str().unwrap().contains("(os error 111)"), "{step}");
    }
}

#[test]
fn a_name_that_nobody_knows_is_a_failure() {
    let server = asks("http://antispam.invalid/", json!({}));
    let (_, step) = room(&server);
    let detail = step["detail"].as_str().unwrap();
    assert!(detail.starts_with("http://antispam.invalid "), "{detail}");
}

#[test]
fn only_what_is_enabled_is_asked() {
    let service = Service::start(|_| Does::json(403, &json!({}))).unwrap();
    let server = asks(&service.url("/"), json!({"enabled_callbacks": ["user_may_invite"]}));
    for (callback, body) in bodies() {
        let decision = server.decide(callback, &body);
        let steps = decision["steps"].as_array().unwrap().len();
        assert_eq!(steps, usize::from(callback == "user_may_invite"), "{callback}");
    }
    assert_eq!(service.asked().len(), 1);
}

#[test]
fn what_is_async_passes_at_once_and_is_asked_about_all_the_same() {
    let service = Service::start(|asked| match asked.target.as_str() {
        "/user_may_create_room" => Does::json(403, &json!({})),
        "/user_may_publish_room" => Does::json(200, &json!({})),
        _ => Does::Hangs,
    });
    let service = service.unwrap();
    let config = json!({"async": {"user_may_create_room": true, "check_login_for_spam": true, "user_may_invite": false},
        "fail_open": {"user_may_invite": true}});
    let server = asks(&service.url("/"), config);
    assert_eq!(room(&server).0, pass());
    poll_until(|| service.asked().len() == 1);
    assert_eq!(service.asked()[0].json(), bob());
    // More than may be open at once: they pass, and the server is not asked about those that are too many.
    for _ in 0..300 {
        assert_eq!(server.decide("check_login_for_spam", &bob())["outcome"], pass());
    }
    poll_until(|| service.asked().len() > 256);
    // The one worker begins with this question after all that it began with before.
    let publish = json!({"user_id": "@bob:example.com", "room_id": "!r:example.com"});
    assert_eq!(server.decide("user_may_publish_room", &publish)["outcome"], pass());
    assert_eq!(service.asked().len(), 1 + 256 + 1);
}

#[test]
fn a_server_is_pinged_until_it_answers_once() {
    let service = Service::start(|asked| Does::json(200, &json!({"id": asked.json()["id"], "status": "ok"}))).unwrap();
    let server = asks(&service.url("/base"), json!({"do_ping": true}));
    poll_until(|| !service.asked().is_empty());
    assert_eq!(service.asked()[0].target, "/base/ping");
    assert_eq!(room(&server).0, pass());
    // Another Ganglion answers it as well.
    let other = TestServer::start(&with_modules(&json!([canned("c", &json!({}))]).to_string()));
    let pings = asks(&endpoint(&other), json!({"do_ping": true}));
    assert_eq!(room(&pings).0, pass());
}

#[test]
fn a_token_file_that_is_not_there_stops_the_start() {
    let config = json!({"base_url": "http://127.0.0.1:1/", "authorization_path": "no-such-file"});
    let module = json!([{"module": "ganglion.modules.HttpAntispam", "config": config}]);
    let config = crate::support::config(&with_modules(&module.to_string()));
    let error = crate::support::runtime()
        .block_on(ganglion::Ganglion::start(&config))
        .err()
        .unwrap();
    let error = format!("{error:#}");
    assert!(error.contains("config.authorization_path: cannot read "), "{error}");
}
