use std::fs;
use std::sync::{Condvar, Mutex};

use futures_util::FutureExt as _;
use ganglion_actors::ModuleCommand;
use ganglion_api::WebRequest;
use http::{Method, Request, header};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::testing::{ModuleTest, RunningModule};

const CONFIG: &str = "{database: expiry.db, period: 30d, token: s3cret}";

const BOB: &str = "@bob:example.com";

const DAY: i64 = 24 * 60 * 60 * 1000;

/// A module with an empty directory for its files.
fn test(directory: &TempDir) -> ModuleTest {
    ModuleTest::new::<AccountExpiry>(CONFIG).directory(directory)
}

fn run(test: impl AsyncFnOnce(&RunningModule)) {
    let directory = TempDir::new().unwrap();
    self::test(&directory).run(test);
}

fn request(method: Method, query: &str, body: impl Into<bytes::Bytes>) -> WebRequest {
    let request = Request::builder().method(method).uri(format!("{}{query}", admin::PATH));
    let request = request.header(header::AUTHORIZATION, "Bearer s3cret");
    request.body(body.into()).unwrap()
}

async fn answer(module: &RunningModule, request: WebRequest) -> (u16, Value) {
    let response = module.request(request).await;
    let body = serde_json::from_slice(response.body()).unwrap();
    (response.status().as_u16(), body)
}

/// The end that the admin resource says after this request, which must be a success.
async fn end(module: &RunningModule, request: WebRequest) -> Option<i64> {
    let (status, body) = answer(module, request).await;
    assert_eq!((status, &body["user_id"]), (200, &json!(BOB)), "{body}");
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    body["expires_at"].as_i64()
}

async fn get(module: &RunningModule) -> Option<i64> {
    end(module, request(Method::GET, "?user_id=%40bob%3Aexample.com", "")).await
}

async fn delete(module: &RunningModule) -> Option<i64> {
    end(module, request(Method::DELETE, "?user_id=@bob:example.com", "")).await
}

async fn post(module: &RunningModule, key: &str, value: impl Into<Value>) -> Option<i64> {
    let body = json!({"user_id": BOB, key: value.into()});
    end(module, request(Method::POST, "", body.to_string())).await
}

async fn register(module: &RunningModule) -> Value {
    module.ask_json("on_user_registration", json!({"user_id": BOB})).await["steps"][0]["result"].take()
}

/// What `is_user_expired` is answered with; null if this module leaves it to others.
async fn is_expired(module: &RunningModule) -> Value {
    let decision = module.ask_json("is_user_expired", json!({"user_id": BOB})).await;
    assert_eq!(decision["outcome"]["status"], Value::Null, "{decision}");
    decision["outcome"]["value"].clone()
}

#[test]
fn an_account_lasts_for_the_period_since_its_registration() {
    run(async |module| {
        assert_eq!(is_expired(module).await, json!(null));
        let before = now();
        assert_eq!(register(module).await, "notified");
        let end = get(module).await.unwrap();
        assert!((before + 30 * DAY..=now() + 30 * DAY).contains(&end));
        assert_eq!(is_expired(module).await, json!(false));
    });
}

#[test]
fn an_end_that_has_passed_makes_an_account_expired_until_it_is_extended() {
    run(async |module| {
        let past = now() - DAY;
        assert_eq!(post(module, "expires_at", past).await, Some(past));
        assert_eq!(is_expired(module).await, json!(true));
        let before = now();
        // From now, since the end is over.
        let end = post(module, "extend_by", "2d").await.unwrap();
        assert!((before + 2 * DAY..=now() + 2 * DAY).contains(&end));
        assert_eq!(is_expired(module).await, json!(false));
        // From the end, since that is to come.
        assert_eq!(post(module, "extend_by", "1day 12h").await, Some(end + DAY + DAY / 2));
        assert_eq!(post(module, "expires_at", 0).await, Some(0));
        assert_eq!(is_expired(module).await, json!(true));
        assert_eq!(delete(module).await, None);
        assert_eq!(is_expired(module).await, json!(null));
        assert_eq!(get(module).await, None);
    });
}

#[test]
fn a_registration_that_is_told_twice_changes_nothing() {
    run(async |module| {
        post(module, "expires_at", 5).await;
        register(module).await;
        assert_eq!(get(module).await, Some(5));
    });
}

#[test]
fn an_account_that_is_asked_about_again_and_again_is_read_once() {
    run(async |module| {
        for _ in 0..10 {
            is_expired(module).await;
        }
        assert_eq!((module.caches()[0].hits, module.caches()[0].misses), (9, 1));
        post(module, "expires_at", 0).await;
        assert_eq!(is_expired(module).await, json!(true));
        assert_eq!(module.caches()[0].misses, 2);
    });
}

#[test]
fn the_admin_resource_shows_at_once_what_another_process_changed() {
    let directory = TempDir::new().unwrap();
    test(&directory).run(async |module| {
        post(module, "expires_at", now() + DAY).await;
        assert_eq!(is_expired(module).await, json!(false));
        let other = rusqlite::Connection::open(directory.path().join("expiry.db")).unwrap();
        other.execute("UPDATE accounts SET expires_at = 0", []).unwrap();
        assert_eq!(is_expired(module).await, json!(false));
        assert_eq!(get(module).await, Some(0));
    });
}

#[test]
fn ends_outlast_a_restart() {
    let directory = TempDir::new().unwrap();
    let end = now() + DAY;
    test(&directory).run(async |module| {
        post(module, "expires_at", end).await;
        module.command(ModuleCommand::Restart).await.unwrap();
        assert_eq!(get(module).await, Some(end));
    });
    test(&directory).run(async |module| assert_eq!(get(module).await, Some(end)));
}

#[test]
fn a_database_that_fails_later_is_a_failure_of_the_call_and_not_an_answer() {
    let directory = TempDir::new().unwrap();
    test(&directory).run(async |module| {
        let lock = rusqlite::Connection::open(directory.path().join("expiry.db")).unwrap();
        lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let decision = module.ask_json("is_user_expired", json!({"user_id": BOB})).await;
        assert_eq!(decision["outcome"]["status"], 500, "{decision}");
        let detail = decision["steps"][0]["detail"].as_str().unwrap();
        assert!(detail.ends_with("another process holds its lock"), "{detail}");
        assert_eq!(register(module).await, "module_error");
        lock.execute_batch("ROLLBACK").unwrap();
        assert_eq!(is_expired(module).await, json!(null));
        assert_eq!(register(module).await, "notified");
    });
}

/// What the log says of changed ends.
struct Log {
    text: Mutex<String>,
    grew: Condvar,
}

static LOG: Log = Log {
    text: Mutex::new(String::new()),
    grew: Condvar::new(),
};

impl Log {
    /// From now on there is a log.
    fn keep() {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("ganglion::modules::account_expiry=info")
            .with_ansi(false)
            .with_writer(|| &LOG);
        // Not of this thread: a change is made on one of its own.
        tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    }

    /// Whether it says within this time that the end of this account was set.
    fn says(&self, user: &str, within: Duration) -> bool {
        let line = format!("the end of an account was set user={user} ");
        let is_missing = |text: &mut String| !text.contains(&line);
        let text = self.text.lock().unwrap();
        !self
            .grew
            .wait_timeout_while(text, within, is_missing)
            .unwrap()
            .1
            .timed_out()
    }
}

impl std::io::Write for &Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
        self.grew.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_admins_change_is_in_the_log_even_if_nobody_waits_for_the_answer() {
    Log::keep();
    run(async |module| {
        let post = |user: &str| {
            let body = json!({"user_id": user, "expires_at": 7}).to_string();
            module.request(request(Method::POST, "", body))
        };
        assert_eq!(post("@waits:example.com").await.status(), 200);
        assert!(LOG.says("@waits:example.com", Duration::ZERO));

        let args = json!({"user_id": "@registers:example.com"});
        module.ask_json("on_user_registration", args).await;
        assert!(!LOG.says("@registers:example.com", Duration::ZERO));

        let mut change = Box::pin(post("@leaves:example.com"));
        // Until it is on the thread that makes it.
        for _ in 0..10 {
            if change.as_mut().now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(change);
        assert!(LOG.says("@leaves:example.com", Duration::from_secs(10)));
    });
}

#[test]
fn the_admin_resource_is_for_those_with_the_token() {
    run(async |module| {
        for (authorization, errcode) in [
            (None, "M_MISSING_TOKEN"),
            (Some("s3cret"), "M_MISSING_TOKEN"),
            (Some("Basic s3cret"), "M_MISSING_TOKEN"),
            (Some("Bearer s3cre"), "M_UNKNOWN_TOKEN"),
            (Some("Bearer "), "M_UNKNOWN_TOKEN"),
        ] {
            for method in [Method::GET, Method::POST, Method::DELETE, Method::PUT] {
                let mut request = request(method, "?user_id=@bob:example.com", "");
                request.headers_mut().remove(header::AUTHORIZATION);
                if let Some(authorization) = authorization {
                    let value = header::HeaderValue::from_static(authorization);
                    request.headers_mut().insert(header::AUTHORIZATION, value);
                }
                let (status, body) = answer(module, request).await;
                assert_eq!((status, &body["errcode"]), (401, &json!(errcode)), "{authorization:?}");
            }
        }
    });
}

/// Bodies of a POST that are refused: with this code, for a reason that says this.
const BAD_BODIES: [(&str, &str, &str); 16] = [
    ("", "M_NOT_JSON", "the body is not JSON"),
    ("[]", "M_INVALID_PARAM", "expected an object"),
    ("{}", "M_MISSING_PARAM", "user_id"),
    (
        r#"{"user_id": "@bob:example.com"}"#,
        "M_MISSING_PARAM",
        "either expires_at or extend_by",
    ),
    (
        r#"{"user_id": "@bob:example.com", "expires_at": 1, "extend_by": "1d"}"#,
        "M_MISSING_PARAM",
        "either expires_at or extend_by",
    ),
    (
        r#"{"user_id": "@bob:example.com", "expires_at": "1"}"#,
        "M_INVALID_PARAM",
        "expires_at",
    ),
    (
        r#"{"user_id": "@bob:example.com", "expires_at": 1.5}"#,
        "M_INVALID_PARAM",
        "expires_at",
    ),
    (
        r#"{"user_id": "@bob:example.com", "expires_at": -1}"#,
        "M_INVALID_PARAM",
        "at least 0",
    ),
    (
        r#"{"user_id": "@bob:example.com", "expires_at": 9007199254740992}"#,
        "M_INVALID_PARAM",
        "expires_at",
    ),
    (
        r#"{"user_id": "@bob:example.com", "extend_by": 1}"#,
        "M_INVALID_PARAM",
        "extend_by",
    ),
    (
        r#"{"user_id": "@bob:example.com", "extend_by": "0s"}"#,
        "M_INVALID_PARAM",
        "extend_by",
    ),
    (
        r#"{"user_id": "@bob:example.com", "extend_by": "parsec"}"#,
        "M_INVALID_PARAM",
        "extend_by",
    ),
    (
        r#"{"user_id": "@bob:example.com", "extend_by": "300000years"}"#,
        "M_INVALID_PARAM",
        "later than can be written",
    ),
    (
        r#"{"user_id": "@bob:example.com", "extend_by": "1d", "dry_run": true}"#,
        "M_INVALID_PARAM",
        "no other key",
    ),
    (
        r#"{"user_id": "parsec", "expires_at": 1}"#,
        "M_INVALID_PARAM",
        "user_id",
    ),
    (
        r#"{"user_id": "@bob:parsec.org", "expires_at": 1}"#,
        "M_INVALID_PARAM",
        "of this homeserver",
    ),
];

#[test]
fn a_bad_request_is_refused_with_its_reason_and_changes_nothing() {
    run(async |module| {
        post(module, "expires_at", 5).await;
        let bodies = BAD_BODIES.map(|(body, errcode, reason)| (request(Method::POST, "", body), 400, errcode, reason));
        let elsewhere = "?user_id=@bob:parsec.org";
        let others = [
            (request(Method::GET, "", ""), 400, "M_MISSING_PARAM", "user_id"),
            (
                request(Method::DELETE, "?user=x", ""),
                400,
                "M_MISSING_PARAM",
                "user_id",
            ),
            (
                request(Method::DELETE, elsewhere, ""),
                400,
                "M_INVALID_PARAM",
                "homeserver",
            ),
            (
                request(Method::PUT, "?user_id=@bob:example.com", ""),
                405,
                "M_UNRECOGNIZED",
                "use GET",
            ),
            (request(Method::GET, "/x", ""), 404, "M_UNRECOGNIZED", "nothing"),
        ];
        for (request, status, errcode, reason) in bodies.into_iter().chain(others) {
            let asked = format!("{} {} {:?}", request.method(), request.uri(), request.body());
            let (found, body) = answer(module, request).await;
            assert_eq!((found, &body["errcode"]), (status, &json!(errcode)), "{asked}: {body}");
            let error = body["error"].as_str().unwrap();
            assert!(error.contains(reason) && !error.contains("parsec"), "{asked}: {error}");
        }
        assert_eq!(get(module).await, Some(5));
    });
}

#[test]
fn a_config_that_is_wrong_is_named() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("empty"), "\n").unwrap();
    fs::write(directory.path().join("notes.txt"), "my notes").unwrap();
    for (config, expected) in [
        ("", "config: missing field `database`"),
        ("{database: e.db, token: x}", "config: missing field `period`"),
        (
            "{database: '', period: 1d, token: x}",
            "config.database: expected the path of a file",
        ),
        ("{database: e.db, period: 30, token: x}", "config.period: "),
        (
            "{database: e.db, period: 0s, token: x}",
            "config.period: expected at least 1ms and at most 100 years",
        ),
        (
            "{database: e.db, period: 101y, token: x}",
            "config.period: expected at least 1ms",
        ),
        ("{database: e.db, period: 1d}", "config.token: missing; give it here"),
        (
            "{database: e.db, period: 1d, token: x, token_path: y}",
            "config.token_path: give token or token_path, not both",
        ),
        (
            "{database: e.db, period: 1d, token: 31337}",
            "config.token: expected text, printable ASCII",
        ),
        (
            "{database: e.db, period: 1d, token: '31337 31337'}",
            "config.token: expected text, printable ASCII",
        ),
        (
            "{database: e.db, period: 1d, token_path: none}",
            "config.token_path: cannot read ",
        ),
        ("{database: e.db, period: 1d, token_path: empty}", "config.token_path: "),
        (
            "{database: notes.txt, period: 1d, token: x}",
            "notes.txt is no SQLite database: name another file",
        ),
        (
            "{database: none/e.db, period: 1d, token: x}",
            "config.database: cannot make ",
        ),
        (
            "{database: e.db, period: 1d, token: x, perod: 1d}",
            "unknown field `perod`",
        ),
    ] {
        let test = ModuleTest::new::<AccountExpiry>(config).directory(&directory);
        let refusal = test.refusal();
        assert!(refusal.contains(expected), "{config}: {refusal}");
        assert!(!refusal.contains("31337"), "{refusal}");
    }
}

#[test]
fn the_token_may_be_in_a_file_and_is_not_shown() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("token"), "s3cret\n").unwrap();
    let test = ModuleTest::new::<AccountExpiry>("{database: e.db, period: 1d, token_path: token}");
    test.directory(&directory)
        .run(async |module| assert_eq!(get(module).await, None));
    let config = AccountExpiry::parse_config(json!({"database": "e.db", "period": "1d", "token": "s3cret"})).unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
}
