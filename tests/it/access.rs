//! Who may use the admin listener.

use serde_json::json;

use crate::support::{Answer, TestServer, canned, request, with_modules, write};

const ASK: &str = "/_ganglion/v1/callbacks/user_may_create_room";
const ANTISPAM: &str = "/_ganglion/antispam/user_may_create_room";
const BODY: &[u8] = br#"{"user_id": "@bob:example.com"}"#;

fn modules() -> String {
    let denies = canned("denies", &json!({"user_may_create_room": {"verdict": "deny"}}));
    with_modules(&json!([denies, {"module": "demo.DemoModule"}]).to_string())
}

fn open() -> TestServer {
    TestServer::start(&modules())
}

/// A server with the token `s3cret`.
fn closed() -> TestServer {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "admin.token", "s3cret\n");
    TestServer::start(&modules().replace("admin: {", &format!("admin: {{token_file: '{}', ", file.display())))
}

fn post(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> Answer {
    request("POST", server.admin, path, headers, BODY)
}

#[track_caller]
fn refused_as_json(answer: &Answer, status: u16, errcode: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.errcode(), errcode);
    assert_eq!(answer.json().as_object().unwrap().len(), 2, "{answer:?}");
}

/// The client of the dialect would take JSON for a denial.
#[track_caller]
fn refused_as_text(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.content_type.starts_with("text/plain"), "{answer:?}");
    assert!(
        serde_json::from_str::<serde_json::Value>(&answer.text).is_err(),
        "{answer:?}"
    );
}

#[test]
fn a_configured_token_is_needed_and_only_that_one() {
    let server = closed();
    refused_as_json(&post(&server, ASK, &[]), 401, "M_MISSING_TOKEN");
    for header in ["s3cret", "Basic s3cret", "Bearer", ""] {
        refused_as_json(
            &post(&server, ASK, &[("authorization", header)]),
            401,
            "M_MISSING_TOKEN",
        );
    }
    for header in [
        "Bearer s3cre",
        "Bearer s3crets",
        "Bearer S3CRET",
        "Bearer s3cret s3cret",
        "Bearer ",
    ] {
        let answer = post(&server, ASK, &[("authorization", header)]);
        assert_eq!(answer.status, 401, "{header}: {answer:?}");
        assert!(!answer.text.contains("s3cret"));
    }
    refused_as_json(
        &post(&server, ASK, &[("authorization", "Bearer other")]),
        401,
        "M_UNKNOWN_TOKEN",
    );
    for header in ["Bearer s3cret", "bearer s3cret"] {
        let answer = post(&server, ASK, &[("authorization", header)]);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["decided_by"], "denies");
    }
}

#[test]
fn a_token_is_asked_for_before_anything_else_is_said() {
    let server = closed();
    for path in [
        "/_ganglion/v1/callbacks/no_such_callback",
        "/_ganglion/admin/v1/modules/denies/no_such_command",
        "/_ganglion/admin/v1/no_such_thing",
        "/metrics/no_such_thing",
        "/",
    ] {
        refused_as_json(&post(&server, path, &[]), 401, "M_MISSING_TOKEN");
        refused_as_json(
            &post(&server, path, &[("authorization", "Bearer s3cret")]),
            404,
            "M_UNRECOGNIZED",
        );
    }
}

#[test]
fn health_and_readiness_need_no_token() {
    let server = closed();
    for path in ["/health", "/ready"] {
        for listener in [server.admin, server.http] {
            let answer = request("GET", listener, path, &[], b"");
            assert_eq!((answer.status, answer.text.as_str()), (200, "OK"), "{path}");
        }
    }
}

#[test]
fn a_server_whose_modules_stopped_is_healthy_and_not_ready() {
    let server = open();
    server.ganglion.shutdown();
    for listener in [server.admin, server.http] {
        assert_eq!(request("GET", listener, "/health", &[], b"").status, 200);
        let answer = request("GET", listener, "/ready", &[], b"");
        refused_as_json(&answer, 503, "M_UNKNOWN");
        assert!(answer.text.contains("denies, demo.DemoModule"), "{answer:?}");
    }
}

#[test]
fn a_web_page_of_another_origin_may_not_ask() {
    for (server, token) in [(open(), ""), (closed(), "Bearer s3cret")] {
        for origin in ["https://evil.example", "null", "http://localhost", "file://"] {
            let headers = [("origin", origin), ("authorization", token)];
            refused_as_json(&post(&server, ASK, &headers), 403, "M_FORBIDDEN");
            refused_as_text(&post(&server, ANTISPAM, &headers), 403);
        }
        let own = format!("http://{}", server.admin);
        let headers = [("origin", own.as_str()), ("authorization", token)];
        assert_eq!(post(&server, ASK, &headers).status, 200);
    }
}

#[test]
fn without_a_token_only_a_name_of_this_machine_may_be_asked_for() {
    let server = open();
    for host in [
        "evil.example",
        "evil.example:9009",
        "127.0.0.1.evil.example",
        "192.0.2.1",
    ] {
        refused_as_json(&post(&server, ASK, &[("host", host)]), 403, "M_FORBIDDEN");
        refused_as_text(&post(&server, ANTISPAM, &[("host", host)]), 403);
        // A page that has a foreign name point here names itself as origin too.
        let origin = format!("http://{host}");
        refused_as_json(
            &post(&server, ASK, &[("host", host), ("origin", &origin)]),
            403,
            "M_FORBIDDEN",
        );
    }
    for host in ["localhost", "localhost:9009", "127.0.0.1", "[::1]:9009"] {
        assert_eq!(post(&server, ASK, &[("host", host)]).status, 200, "{host}");
    }
}

#[test]
fn with_a_token_any_host_may_be_asked_for() {
    let server = closed();
    let headers = [("host", "ganglion.internal"), ("authorization", "Bearer s3cret")];
    assert_eq!(post(&server, ASK, &headers).status, 200);
}

#[test]
fn the_antispam_dialect_is_refused_in_text() {
    let server = closed();
    refused_as_text(&post(&server, ANTISPAM, &[]), 401);
    refused_as_text(&post(&server, ANTISPAM, &[("authorization", "Bearer other")]), 401);
    refused_as_text(&post(&server, "/_ganglion/antispam/ping", &[]), 401);
    refused_as_text(&post(&server, "/_ganglion/antispam/no_such_callback", &[]), 401);
    let answer = post(&server, ANTISPAM, &[("authorization", "Bearer s3cret")]);
    assert_eq!((answer.status, answer.errcode().as_str()), (403, "M_FORBIDDEN"));
}

#[test]
fn the_public_listener_asks_nobody_who_they_are_and_serves_no_callbacks() {
    let server = closed();
    let headers = [
        ("origin", "https://app.example"),
        ("host", "example.com"),
        ("authorization", "Bearer theirs"),
    ];
    let answer = request("GET", server.http, "/_synapse/client/demo/hello?name=x", &headers, b"");
    assert_eq!((answer.status, answer.json()), (200, json!({"hello": "x"})));
    for path in [ASK, ANTISPAM] {
        let headers = [("authorization", "Bearer s3cret")];
        let answer = request("POST", server.http, path, &headers, BODY);
        refused_as_json(&answer, 404, "M_UNRECOGNIZED");
    }
}
