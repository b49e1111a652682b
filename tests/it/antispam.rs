//! The dialect of synapse-http-antispam: a denial is JSON, everything else that went wrong is text.

use serde_json::{Value, json};

use crate::support::{Answer, TestServer, canned, request, with_modules};

/// The callbacks of the dialect with the bodies that its client sends.
pub(crate) fn bodies() -> Vec<(&'static str, Value)> {
    let bob = "@bob:example.com";
    let room = "!r:example.com";
    vec![
        (
            "check_event_for_spam",
            json!({"event": client_event("m.room.message", &json!({"body": "hi"}))}),
        ),
        (
            "federated_user_may_invite",
            json!({"event": client_event("m.room.member", &json!({"membership": "invite"}))}),
        ),
        (
            "user_may_join_room",
            json!({"user": bob, "room": room, "is_invited": true}),
        ),
        ("accept_make_join", json!({"user": bob, "room": room})),
        ("user_may_create_room", json!({"user_id": bob})),
        (
            "user_may_invite",
            json!({"inviter": bob, "invitee": "@eve:example.com", "room_id": room}),
        ),
        (
            "user_may_send_3pid_invite",
            json!({"inviter": bob, "medium": "email", "address": "eve@example.org", "room_id": room}),
        ),
        (
            "user_may_create_room_alias",
            json!({"user_id": bob, "room_alias": "#a:example.com"}),
        ),
        ("user_may_publish_room", json!({"user_id": bob, "room_id": room})),
        (
            "check_username_for_spam",
            json!({"user_profile": {"user_id": bob, "display_name": null, "avatar_url": null}, "requester_id": bob}),
        ),
        (
            "check_login_for_spam",
            json!({"user_id": bob, "device_id": null, "initial_display_name": null,
                   "request_info": [[null, "192.0.2.1"], ["curl/8", "192.0.2.2"]], "auth_provider_id": null}),
        ),
    ]
}

/// An event as clients see it: none of the fields that only servers exchange.
fn client_event(event_type: &str, content: &Value) -> Value {
    json!({"type": event_type, "sender": "@bob:example.com", "room_id": "!r:example.com", "content": content,
           "event_id": "$e", "origin_server_ts": 1_766_000_000_000_u64, "user_id": "@bob:example.com", "age": 12,
           "unsigned": {"age": 12, "invite_room_state": []}})
}

/// A server with one module that gives this answer to every callback of the dialect.
pub(crate) fn answering(answer: &Value) -> TestServer {
    let answers: Value = bodies()
        .into_iter()
        .map(|(name, _)| (name.to_owned(), answer.clone()))
        .collect();
    let mut module = canned("a", &answers);
    if answer["fail"] == "hang" {
        module["call_timeout"] = "20ms".into();
    }
    TestServer::start(&with_modules(&json!([module]).to_string()))
}

#[track_caller]
fn passes(answer: &Answer) {
    assert_eq!((answer.status, answer.text.as_str()), (200, "{}"), "{answer:?}");
    assert_eq!(answer.content_type, "application/json");
}

/// The client takes every error with a JSON body for a denial, so this is none.
#[track_caller]
fn fails(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.content_type.starts_with("text/plain"), "{answer:?}");
    assert!(serde_json::from_str::<Value>(&answer.text).is_err(), "{answer:?}");
}

#[test]
fn what_passes_or_nobody_is_asked_about_is_an_empty_object() {
    for server in [
        answering(&json!({"verdict": "pass"})),
        TestServer::start(&with_modules("[]")),
    ] {
        for (callback, body) in bodies() {
            passes(&server.antispam(callback, &body));
        }
    }
}

#[test]
fn a_denial_is_403_with_the_module_s_fields_beside_errcode_and_error() {
    let server = answering(
        &json!({"verdict": "deny", "errcode": "ORG_EXAMPLE_NO", "error": "not today",
                                   "fields": {"org.x": [1, null], "retry": {"after": 2}}}),
    );
    for (callback, body) in bodies() {
        let answer = server.antispam(callback, &body);
        assert_eq!(
            (answer.status, answer.content_type.as_str()),
            (403, "application/json"),
            "{callback}"
        );
        assert_eq!(
            answer.json(),
            json!({"errcode": "ORG_EXAMPLE_NO", "error": "not today", "org.x": [1, null], "retry": {"after": 2}})
        );
    }
}

#[test]
fn a_denial_without_text_leaves_the_words_to_the_homeserver() {
    let server = answering(&json!({"verdict": "deny"}));
    for (callback, body) in bodies() {
        let answer = server.antispam(callback, &body);
        assert_eq!(
            (answer.status, answer.json()),
            (403, json!({"errcode": "M_FORBIDDEN"})),
            "{callback}"
        );
    }
}

#[test]
fn no_field_that_the_homeserver_would_hang_on_goes_out() {
    let server = answering(&json!({"verdict": "deny", "fields": {"code": 7, "msg": "x", "org.x": 1}}));
    let answer = server.antispam("user_may_create_room", &json!({"user_id": "@bob:example.com"}));
    assert_eq!(answer.json(), json!({"errcode": "M_FORBIDDEN", "org.x": 1}));
}

#[test]
fn a_module_s_own_error_for_the_client_is_a_denial_whose_status_is_lost() {
    let server = answering(&json!({"fail": "error", "status": 429, "errcode": "M_LIMIT_EXCEEDED",
                                   "error": "slow down", "fields": {"retry_after_ms": 2000}}));
    for (callback, body) in bodies() {
        let answer = server.antispam(callback, &body);
        assert_eq!(answer.status, 403, "{callback}: {answer:?}");
        assert_eq!(
            answer.json(),
            json!({"errcode": "M_LIMIT_EXCEEDED", "error": "slow down", "retry_after_ms": 2000})
        );
    }
}

#[test]
fn a_failure_of_any_kind_is_500_in_text() {
    let own = json!({"fail": "error", "status": 503, "errcode": "M_UNKNOWN", "error": "later"});
    for answer in [
        own,
        json!({"fail": "error"}),
        json!({"fail": "panic"}),
        json!({"fail": "hang"}),
    ] {
        let server = answering(&answer);
        for (callback, body) in bodies() {
            fails(&server.antispam(callback, &body), 500);
        }
    }
}

#[test]
fn ping_gives_back_its_id() {
    let server = TestServer::start(&with_modules("[]"));
    let answer = server.antispam("ping", &json!({"id": "abcdefgh"}));
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"id": "abcdefgh", "status": "ok"}))
    );
    for body in [json!({}), json!({"id": 7}), json!({"id": null}), json!([])] {
        fails(&server.antispam("ping", &body), 400);
    }
}

#[test]
fn what_the_dialect_does_not_have_passes_and_its_body_is_not_read() {
    let server = answering(&json!({"verdict": "deny"}));
    for name in [
        "no_such_callback",
        "check_registration_for_spam",
        "on_new_event",
        "user_may_send_state_event",
    ] {
        for body in [&b"{}"[..], b"", b"garbage \xff", b"[1,2"] {
            passes(&server.post(&format!("/_ganglion/antispam/{name}"), body));
        }
    }
}

#[test]
fn what_the_client_leaves_out_is_filled() {
    let server = answering(&json!({"verdict": "deny"}));
    let bodies = [
        (
            "user_may_join_room",
            json!({"user": "@bob:example.com", "room": "!r:example.com"}),
        ),
        (
            "user_may_join_room",
            json!({"user": "@bob:example.com", "room": "!r:example.com", "is_invited": null}),
        ),
        ("user_may_create_room", json!({"user_id": "@bob:example.com"})),
        ("check_login_for_spam", json!({"user_id": "@bob:example.com"})),
        (
            "check_username_for_spam",
            json!({"user_profile": {"user_id": "@bob:example.com"}, "requester_id": "@bob:example.com"}),
        ),
    ];
    for (callback, body) in bodies {
        let answer = server.antispam(callback, &body);
        assert_eq!(
            (answer.status, answer.errcode().as_str()),
            (403, "M_FORBIDDEN"),
            "{callback}"
        );
    }
}

#[test]
fn a_body_that_lacks_a_field_or_has_a_wrong_one_is_400_in_text() {
    let server = answering(&json!({"verdict": "deny"}));
    for (callback, _) in bodies() {
        fails(&server.antispam(callback, &json!({})), 400);
        for body in [&b""[..], b"{", b"[]", b"null", b"\xff"] {
            fails(&server.post(&format!("/_ganglion/antispam/{callback}"), body), 400);
        }
    }
    let answer = server.antispam(
        "user_may_invite",
        &json!({"inviter": "@a:b", "invitee": "eve", "room_id": "!r:b"}),
    );
    fails(&answer, 400);
    assert!(answer.text.starts_with("invitee: expected a user id"), "{answer:?}");
}

#[test]
fn a_slash_too_many_in_the_client_s_url_denies_nothing() {
    let server = answering(&json!({"verdict": "pass"}));
    let body = br#"{"user_id": "@bob:example.com"}"#;
    for path in [
        "/",
        "//user_may_create_room",
        "/user_may_create_room/",
        "/a/user_may_create_room",
    ] {
        fails(&server.post(&format!("/_ganglion/antispam{path}"), body), 404);
    }
}

#[test]
fn another_method_is_405_and_a_body_over_the_limit_413_in_text() {
    let yaml = with_modules("[]").replace("admin: {", "admin: {max_body: 100B, ");
    let server = TestServer::start(&yaml);
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        for callback in ["user_may_create_room", "ping", "no_such_callback"] {
            fails(
                &request(
                    method,
                    server.admin,
                    &format!("/_ganglion/antispam/{callback}"),
                    &[],
                    b"",
                ),
                405,
            );
        }
    }
    let large = json!({"user_id": "@bob:example.com", "id": "x".repeat(100)});
    fails(&server.antispam("user_may_create_room", &large), 413);
    fails(&server.antispam("ping", &large), 413);
}
