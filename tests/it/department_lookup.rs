//! `ganglion.modules.DepartmentLookup`: what it asks, what it remembers, and when it forgets.

use serde_json::{Value, json};

use crate::service::{Does, Service};
use crate::support::{Answer, TestServer, closed_port, refused, request, with_modules, write};

const PATH: &str = "/_synapse/client/department";
const BOB: &str = "user_id=%40bob%3Aexample.com";

/// A Ganglion with the module, for this service.
fn lookup(url: &str, more: &Value) -> TestServer {
    let mut config = json!({"url": url, "token": "s3cret-token"});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    if !config["token_path"].is_null() {
        config.as_object_mut().unwrap().remove("token");
    }
    let module = json!([{"module": "ganglion.modules.DepartmentLookup", "call_timeout": "20s", "config": config}]);
    TestServer::start(&with_modules(&module.to_string()).replace("workers: 2", "workers: 2, deadline: 30s"))
}

fn get(server: &TestServer, query: &str) -> Answer {
    request("GET", server.http, &format!("{PATH}?{query}"), &[], b"")
}

fn forget(server: &TestServer, query: &str, authorization: &str) -> Answer {
    let headers = [("Authorization", authorization)];
    let headers = if authorization.is_empty() { &[][..] } else { &headers };
    request("DELETE", server.http, &format!("{PATH}?{query}"), headers, b"")
}

/// A service that knows the department of everybody but eve.
fn directory() -> Service {
    let service = Service::start(|asked| {
        if asked.target.contains("eve") {
            Does::text(404, "nobody")
        } else {
            Does::json(200, &json!({"department": "Research", "floor": 3}))
        }
    });
    service.unwrap()
}

#[test]
fn a_department_is_asked_for_once() {
    let service = directory();
    let server = lookup(&service.url("/people"), &json!({}));
    for _ in 0..3 {
        let answer = get(&server, BOB);
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({"user_id": "@bob:example.com", "department": "Research"}))
        );
    }
    let asked = service.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (asked[0].method.as_str(), asked[0].target.as_str()),
        ("GET", "/people?user_id=%40bob%3Aexample.com")
    );
    assert_eq!(asked[0].header("authorization"), "");
}

#[test]
fn that_a_user_has_none_is_remembered_as_well() {
    let service = directory();
    let server = lookup(&service.url("/"), &json!({}));
    for _ in 0..3 {
        refused(&get(&server, "user_id=@eve:example.com"), 404, "M_NOT_FOUND");
    }
    assert_eq!(service.asked().len(), 1);
}

#[test]
fn the_service_is_asked_about_users_of_this_homeserver_only() {
    let service = directory();
    let server = lookup(&service.url("/"), &json!({}));
    refused(&get(&server, "user_id=@bob:elsewhere.example"), 404, "M_NOT_FOUND");
    for bad in ["user_id=bob", "user_id=", "user_id=%00", "user_id=@bob"] {
        refused(&get(&server, bad), 400, "M_INVALID_PARAM");
    }
    refused(&get(&server, "user=@bob:example.com"), 400, "M_MISSING_PARAM");
    assert_eq!(service.asked().len(), 0);
}

#[test]
fn other_methods_and_paths_are_refused() {
    let service = directory();
    let server = lookup(&service.url("/"), &json!({}));
    for method in ["POST", "PUT", "PATCH"] {
        let answer = request(method, server.http, &format!("{PATH}?{BOB}"), &[], b"");
        refused(&answer, 405, "M_UNRECOGNIZED");
    }
    for path in ["/bob", "/x/y"] {
        let answer = request("GET", server.http, &format!("{PATH}{path}?{BOB}"), &[], b"");
        refused(&answer, 404, "M_UNRECOGNIZED");
    }
    assert_eq!(service.asked().len(), 0);
}

#[test]
fn whoever_has_the_token_forgets_an_entry() {
    let service = directory();
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "token", "t0ken-of-a-file\n");
    for (more, token) in [
        (json!({}), "s3cret-token"),
        (json!({"token_path": file}), "t0ken-of-a-file"),
    ] {
        let server = lookup(&service.url("/"), &more);
        let before = service.asked().len();
        assert_eq!(get(&server, BOB).status, 200);
        for none in ["", "Basic Ym9i", "Bearer"] {
            refused(&forget(&server, BOB, none), 401, "M_MISSING_TOKEN");
        }
        for wrong in ["Bearer x", "Bearer t0ken", "Bearer s3cret-token2"] {
            refused(&forget(&server, "user_id=bob", wrong), 401, "M_UNKNOWN_TOKEN");
        }
        let right = format!("bearer {token}");
        refused(&forget(&server, "user_id=bob", &right), 400, "M_INVALID_PARAM");
        assert_eq!(get(&server, BOB).status, 200);
        assert_eq!(service.asked().len(), before + 1);
        let answer = forget(&server, BOB, &right);
        assert_eq!((answer.status, answer.json()), (200, json!({})));
        assert_eq!(get(&server, BOB).status, 200);
        assert_eq!(service.asked().len(), before + 2);
    }
}

#[test]
fn a_name_that_the_service_refuses_says_nothing_of_its_health_and_is_not_remembered() {
    let service = Service::start(|asked| {
        if asked.target.contains("bob") {
            Does::json(200, &json!({"department": "Research"}))
        } else {
            Does::text(400, "what a name")
        }
    });
    let service = service.unwrap();
    let server = lookup(&service.url("/"), &json!({}));
    // As many as the breaker needs to open.
    for _ in 0..20 {
        refused(&get(&server, "user_id=@odd:example.com"), 404, "M_NOT_FOUND");
    }
    assert_eq!(service.asked().len(), 20);
    assert_eq!(get(&server, BOB).status, 200);
}

#[test]
fn a_user_who_is_deactivated_is_forgotten_and_no_other() {
    let service = directory();
    let server = lookup(&service.url("/"), &json!({}));
    let ask_both = || {
        get(&server, BOB);
        get(&server, "user_id=@kim:example.com");
        service.asked().len()
    };
    assert_eq!((ask_both(), ask_both()), (2, 2));
    let args = json!({"user_id": "@bob:example.com", "deactivated": true, "by_admin": false});
    let decision = server.decide("on_user_deactivation_status_changed", &args);
    assert_eq!(decision["steps"][0]["result"], "notified");
    assert_eq!((ask_both(), ask_both()), (3, 3));
}

#[test]
fn an_entry_is_kept_no_longer_than_configured() {
    let service = directory();
    let server = lookup(&service.url("/"), &json!({"max_entries": 1, "ttl": "1ns"}));
    for asked in 1..4 {
        assert_eq!(get(&server, BOB).status, 200);
        assert_eq!(service.asked().len(), asked);
    }
}

#[test]
fn a_service_that_fails_is_an_error_that_says_nothing_and_is_not_remembered() {
    let odd = Does::json(200, &json!({"department": 7}));
    let empty = Does::json(200, &json!({}));
    let text = Does::text(200, "Research");
    let large = Does::json(200, &json!({"department": "x".repeat(5000)}));
    let other = Does::json(201, &json!({"department": "Research"}));
    let failing = Does::json(500, &json!({"department": "Research"}));
    let refusals = [401, 403, 408, 429].map(|status| Does::text(status, "not you, not now"));
    let does = [odd, empty, text, large, other, failing, Does::Sends(Vec::new())];
    for does in does.into_iter().chain(refusals) {
        let script = does.clone();
        let service = Service::start(move |_| script.clone()).unwrap();
        let server = lookup(&service.url("/"), &json!({}));
        for asked in 1..3 {
            let error = refused(&get(&server, BOB), 500, "M_UNKNOWN");
            assert_eq!(error, "the module that answers here failed", "{does:?}");
            assert_eq!(service.asked().len(), asked, "{does:?}");
        }
    }
    let (_bound, gone) = closed_port();
    let server = lookup(&format!("http://{gone}/"), &json!({}));
    refused(&get(&server, BOB), 500, "M_UNKNOWN");
}
