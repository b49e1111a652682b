//! What the callbacks endpoint answers to bad input, and what it does not mind.

use ganglion::api::reference;
use serde_json::{Value, json};

use crate::support::{TestServer, canned, poll_until, raw, refused, request, results, with_modules};

const SECRET: &str = "hunter2-correct-horse";

fn server() -> TestServer {
    let denies = canned("denies", &json!({"user_may_create_room": {"verdict": "deny"}}));
    TestServer::start(&with_modules(&json!([denies]).to_string()))
}

fn path(callback: &str) -> String {
    format!("/_ganglion/v1/callbacks/{callback}")
}

fn event(extra: &Value) -> Value {
    let mut event =
        json!({"type": "m.room.message", "sender": "@bob:example.com", "room_id": "!r:example.com", "content": {}});
    event
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    event
}

#[test]
fn a_body_that_is_not_json_is_refused() {
    let server = server();
    for body in [
        &b""[..],
        b" ",
        b"{",
        b"no",
        b"{} {}",
        b"{'a': 1}",
        b"\xff\xfe",
        b"{\"a\": NaN}",
    ] {
        let answer = server.post(&path("user_may_create_room"), body);
        refused(&answer, 400, "M_NOT_JSON");
    }
}

#[test]
fn a_body_that_is_json_but_no_object_is_refused() {
    let server = server();
    for body in [
        "null",
        "[]",
        "1",
        "\"user_id\"",
        "true",
        "[{\"user_id\": \"@bob:example.com\"}]",
    ] {
        let answer = server.post(&path("user_may_create_room"), body.as_bytes());
        refused(&answer, 400, "M_BAD_JSON");
    }
}

#[test]
fn a_required_argument_that_is_absent_or_null_is_missing() {
    let server = server();
    for args in [json!({}), json!({"user_id": null}), json!({"user": "@bob:example.com"})] {
        let error = refused(&server.ask("user_may_create_room", &args), 400, "M_MISSING_PARAM");
        assert_eq!(error, "user_id: missing");
    }
    for spec in reference()
        .iter()
        .filter(|spec| spec.args.iter().any(|arg| !arg.optional))
    {
        refused(&server.ask(spec.name, &json!({})), 400, "M_MISSING_PARAM");
    }
}

#[test]
fn a_field_that_is_missing_deep_inside_is_named_with_its_path() {
    let server = server();
    let presence = json!({"user_id": "@bob:example.com", "state": "online"});
    let mut no_content = event(&json!({}));
    no_content.as_object_mut().unwrap().remove("content");
    let cases = [
        ("check_event_for_spam", json!({"event": {}}), "event.type: missing"),
        (
            "check_event_for_spam",
            json!({"event": no_content}),
            "event.content: missing",
        ),
        (
            "check_event_allowed",
            json!({"event": event(&json!({})), "state_events": [event(&json!({"state_key": "", "sender": null}))]}),
            "state_events[0].sender: missing",
        ),
        (
            "get_users_for_states",
            json!({"state_updates": [presence, {"user_id": "@bob:example.com"}]}),
            "state_updates[1].state: missing",
        ),
        (
            "on_create_room",
            json!({"requester": {}, "request_content": {}, "is_requester_admin": false}),
            "requester.user_id: missing",
        ),
    ];
    for (callback, args, expected) in cases {
        assert_eq!(refused(&server.ask(callback, &args), 400, "M_MISSING_PARAM"), expected);
    }
}

#[test]
fn a_wrong_type_and_a_malformed_id_are_named_with_their_path() {
    let server = server();
    let join = |user: Value, room: Value, invited: Value| json!({"user": user, "room": room, "is_invited": invited});
    let cases = [
        (
            "user_may_create_room",
            json!({"user_id": 7}),
            "user_id: expected a string, found a number",
        ),
        (
            "user_may_create_room",
            json!({"user_id": "@bob:example.com", "room_config": []}),
            "room_config: expected an object, found an array",
        ),
        (
            "user_may_join_room",
            join(json!("@bob:example.com"), json!("!r:example.com"), json!("true")),
            "is_invited: expected a boolean, found a string",
        ),
        (
            "user_may_join_room",
            join(json!("bob"), json!("!r:example.com"), json!(true)),
            "user: expected a user id",
        ),
        (
            "user_may_join_room",
            join(json!("@bob:example.com"), json!("#r:x"), json!(true)),
            "room: expected a room id",
        ),
        (
            "user_may_create_room_alias",
            json!({"user_id": "@bob:example.com", "room_alias": "!r:example.com"}),
            "room_alias: expected a room alias",
        ),
        (
            "check_event_for_spam",
            json!({"event": event(&json!({"sender": "@"}))}),
            "event.sender: expected a user id",
        ),
        (
            "is_user_allowed_to_upload_media_of_size",
            json!({"user_id": "@bob:example.com", "size": 1.5}),
            "size: expected an integer",
        ),
        (
            "is_user_allowed_to_upload_media_of_size",
            json!({"user_id": "@bob:example.com", "size": 9_007_199_254_740_992_u64}),
            "size: expected an integer",
        ),
        (
            "check_login_for_spam",
            json!({"user_id": "@bob:example.com", "request_info": [["curl", "192.0.2.1"], ["curl"]]}),
            "request_info[1]",
        ),
    ];
    for (callback, args, expected) in cases {
        let error = refused(&server.ask(callback, &args), 400, "M_INVALID_PARAM");
        assert!(error.starts_with(expected), "{callback}: {error}");
    }
}

#[test]
fn base64_that_is_none_is_refused() {
    let server = server();
    for file in ["*", "aGk", "aGk=\n", "aGk_", " aGk="] {
        let args = json!({"file_base64": file, "file_info": {"file_id": "f"}});
        let error = refused(&server.ask("check_media_file_for_spam", &args), 400, "M_INVALID_PARAM");
        assert_eq!(error, "file_base64: expected padded base64");
    }
}

#[test]
fn a_state_map_holds_state_events_and_each_once() {
    let server = server();
    let ask = |state: Value| {
        let args = json!({"event": event(&json!({})), "state_events": state});
        refused(&server.ask("check_event_allowed", &args), 400, "M_INVALID_PARAM")
    };
    let member = event(&json!({"type": "m.room.member", "state_key": "@bob:example.com"}));
    let error = ask(json!([member, event(&json!({}))]));
    assert_eq!(error, "state_events[1]: expected a state event, found no state_key");
    let error = ask(json!([member, member]));
    assert_eq!(error, "state_events[1]: a second event for one type and state_key");
    let error = ask(json!([event(&json!({"state_key": null}))]));
    assert_eq!(error, "state_events[0].state_key: expected a string, found null");
    ask(json!({"m.room.member": member}));
}

#[test]
fn an_unknown_callback_is_not_found_and_near_names_are_said() {
    let server = server();
    let error = refused(&server.ask("user_may_create_rooms", &json!({})), 404, "M_UNRECOGNIZED");
    assert_eq!(error, "unknown callback, did you mean user_may_create_room?");
    for name in [
        "nothing_like_it",
        "USER_MAY_CREATE_ROOM!!",
        "%F0%9F%A7%A0",
        "user_may_create_room%00",
    ] {
        refused(&server.ask(name, &json!({})), 404, "M_UNRECOGNIZED");
    }
    for path in [
        "/_ganglion/v1/callbacks",
        "/_ganglion/v1/callbacks/",
        "/_ganglion/v2/callbacks/on_new_event",
        "/",
    ] {
        refused(&server.post(path, b"{}"), 404, "M_UNRECOGNIZED");
    }
}

#[test]
fn another_method_than_post_is_refused() {
    let server = server();
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = request(method, server.admin, &path("user_may_create_room"), &[], b"");
        refused(&answer, 405, "M_UNRECOGNIZED");
    }
}

#[test]
fn a_body_over_the_limit_is_refused_whether_its_length_was_announced_or_not() {
    let yaml = with_modules("[]").replace("admin: {", "admin: {max_body: 100B, ");
    let server = TestServer::start(&yaml);
    let args = |padding: usize| json!({"user_id": "@bob:example.com", "x": "x".repeat(padding)}).to_string();
    let fits = args(100 - args(0).len());
    assert_eq!(server.post(&path("user_may_create_room"), fits.as_bytes()).status, 200);
    let answer = server.post(&path("user_may_create_room"), (fits + " ").as_bytes());
    refused(&answer, 413, "M_TOO_LARGE");

    let chunk = format!("40\r\n{}\r\n", "x".repeat(0x40));
    let chunked = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         {chunk}{chunk}0\r\n\r\n",
        path("user_may_create_room")
    );
    let answer = raw(server.admin, chunked.as_bytes());
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("M_TOO_LARGE"),
        "{answer}"
    );
}

#[test]
fn nesting_without_end_is_an_error_and_no_crash() {
    let server = server();
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = open.repeat(200_000);
        refused(
            &server.post(&path("user_may_create_room"), deep.as_bytes()),
            400,
            "M_BAD_JSON",
        );
        let value = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
        let body = format!(r#"{{"user_id": "@bob:example.com", "x": {value}}}"#);
        refused(
            &server.post(&path("user_may_create_room"), body.as_bytes()),
            400,
            "M_BAD_JSON",
        );
    }
    // Deeper than any event that Synapse accepts: nobody gets past a module by nesting.
    let nested = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let body =
        format!(r#"{{"event": {{"type": "x", "sender": "@a:b", "room_id": "!r:b", "content": {{"x": {nested}}}}}}}"#);
    assert_eq!(server.post(&path("check_event_for_spam"), body.as_bytes()).status, 200);
}

#[test]
fn the_content_type_is_not_looked_at() {
    let server = server();
    let body = br#"{"user_id": "@bob:example.com"}"#;
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "?",
    ] {
        let headers = [("content-type", content_type)];
        let answer = request("POST", server.admin, &path("user_may_create_room"), &headers, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["decided_by"], "denies");
    }
}

#[test]
fn unknown_keys_are_ignored_and_an_optional_argument_may_be_null() {
    let server = server();
    let args = json!({"user_id": "@bob:example.com", "room_config": null, "org.x": {"user_id": 7}});
    assert_eq!(server.decide("user_may_create_room", &args)["decided_by"], "denies");
    let args = json!({"email_threepid": null, "username": null, "request_info": null, "auth_provider_id": null});
    for args in [args, json!({})] {
        let decision = server.decide("check_registration_for_spam", &args);
        assert_eq!(
            decision,
            json!({"outcome": {"verdict": "pass"}, "decided_by": null, "steps": []})
        );
    }
}

#[test]
fn a_login_lacks_no_field_that_a_module_declared() {
    let a = canned("a", &json!({"auth_checkers": {"value": null}}));
    let mut b = canned(
        "b",
        &json!({"auth_checkers": {"value": {"user_id": "@bob:example.com"}}}),
    );
    b["config"]["login_types"] = json!({"com.example.code": ["code", "device"]});
    let server = TestServer::start(&with_modules(&json!([a, b]).to_string()));
    let ask = |login_type: &str, login_dict: Value| {
        let args = json!({"username": "bob", "login_type": login_type, "login_dict": login_dict});
        server.ask("auth_checkers", &args)
    };
    let error = refused(&ask("m.login.password", json!({})), 400, "M_MISSING_PARAM");
    assert_eq!(error, "login_dict.password: missing");
    let error = refused(
        &ask("com.example.code", json!({"code": SECRET})),
        400,
        "M_MISSING_PARAM",
    );
    assert_eq!(error, "login_dict.device: missing");

    let decision = ask("org.example.nobody", json!({})).json();
    assert_eq!(decision["outcome"], json!({"value": null}));
    assert_eq!(decision["decided_by"], json!(null));
    assert_eq!(results(&decision), [("a", "skipped"), ("b", "skipped")], "{decision}");
}

#[test]
fn no_error_repeats_a_secret() {
    let a = canned("a", &json!({"auth_checkers": {"value": null}}));
    let server = TestServer::start(&with_modules(&json!([a]).to_string()));
    let login = |username: Value, dict: Value| json!({"username": username, "login_type": "m.login.password", "login_dict": dict});
    let cases = [
        ("auth_checkers", login(json!(7), json!({"password": SECRET}))),
        ("auth_checkers", login(json!("bob"), json!({"passwort": SECRET}))),
        ("auth_checkers", login(json!("bob"), json!(SECRET))),
        ("auth_checkers", login(json!("bob"), json!([{"password": SECRET}]))),
        (
            "check_3pid_auth",
            json!({"medium": "email", "address": null, "password": SECRET}),
        ),
        (
            "check_3pid_auth",
            json!({"medium": "email", "address": "x", "password": {SECRET: SECRET}}),
        ),
        ("on_logged_out", json!({"user_id": SECRET, "access_token": SECRET})),
        (
            "on_logged_out",
            json!({"user_id": "@bob:example.com", "access_token": [SECRET]}),
        ),
        ("on_legacy_renew", json!({"renewal_token": {"token": SECRET}})),
        ("on_legacy_renew", json!({"token": SECRET})),
        (
            "on_legacy_admin_request",
            json!({"request": {"method": "GET", "path": SECRET, "headers": [[SECRET]]}}),
        ),
        (
            "check_media_file_for_spam",
            json!({"file_base64": SECRET, "file_info": {}}),
        ),
    ];
    for (callback, args) in cases {
        let answer = server.ask(callback, &args);
        assert_eq!(answer.status, 400, "{callback}: {answer:?}");
        assert!(!answer.text.contains(SECRET), "{answer:?}");
    }
    for body in [
        format!("{{\"password\": \"{SECRET}\""),
        format!("{{\"password\": {SECRET}}}"),
        format!("\"{SECRET}\""),
    ] {
        let answer = server.post(&path("check_3pid_auth"), body.as_bytes());
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(!answer.text.contains(SECRET), "{answer:?}");
    }
}

#[test]
fn a_decision_about_a_login_does_not_repeat_its_secrets() {
    let fails = json!({"fail": "panic"});
    let answers =
        json!({"auth_checkers": fails, "check_3pid_auth": fails, "on_logged_out": fails, "on_legacy_renew": fails});
    let server = TestServer::start(&with_modules(&json!([canned("a", &answers)]).to_string()));
    let cases = [
        (
            "auth_checkers",
            json!({"username": "bob", "login_type": "m.login.password", "login_dict": {"password": SECRET}}),
        ),
        (
            "check_3pid_auth",
            json!({"medium": "email", "address": "x", "password": SECRET}),
        ),
        (
            "on_logged_out",
            json!({"user_id": "@bob:example.com", "access_token": SECRET}),
        ),
        ("on_legacy_renew", json!({"renewal_token": SECRET})),
    ];
    for (callback, args) in cases {
        poll_until(|| server.ganglion.dispatch().is_ready());
        let decision = server.decide(callback, &args);
        assert_eq!(decision["steps"][0]["result"], "panicked", "{decision}");
        assert!(!decision.to_string().contains(SECRET), "{decision}");
    }
}

#[test]
fn an_upgrade_is_refused_at_once() {
    let server = server();
    for listener in [server.admin, server.http] {
        let request = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        let answer = raw(listener, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

#[test]
fn a_number_goes_through_on_create_room_as_it_is() {
    let server = server();
    let args = json!({"requester": {"user_id": "@bob:example.com"}, "is_requester_admin": false,
                      "request_content": {"x": 1.912_106_180_212_188_6e-17}});
    let decision = server.decide("on_create_room", &args);
    assert_eq!(decision["outcome"]["request_content"], args["request_content"]);
}
