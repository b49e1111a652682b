//! Web resources of modules, on the public listener.

use std::convert::Infallible;

use ganglion::api::{
    MatrixError, Module, ModuleApi, ModuleError, NoConfig, Registry, WebRequest, WebResponse, json_response,
};
use ganglion::{Ganglion, registry};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{Answer, TestServer, config_with, poll_until, raw, request, with_modules};

/// Answers on its paths with its name and what it was asked.
struct Echo {
    name: String,
}

#[derive(Deserialize)]
struct EchoConfig {
    name: String,
    paths: Vec<String>,
}

impl Module for Echo {
    type Config = EchoConfig;

    fn new(config: EchoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        for path in &config.paths {
            api.register_web_resource(path, Self::echo)?;
        }
        Ok(Self { name: config.name })
    }
}

impl Echo {
    async fn echo(&self, request: WebRequest) -> Result<WebResponse, ModuleError> {
        let headers = request.headers().iter();
        let mut headers: Vec<_> = headers
            .filter(|(name, _)| name.as_str().starts_with("x-"))
            .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
            .collect();
        // Names come in any order, the values of one name in theirs.
        headers.sort_by_key(|header| header[0].to_string());
        let asked = json!({
            "by": self.name,
            "method": request.method().as_str(),
            "path": request.uri().path(),
            "query": request.uri().query(),
            "headers": headers,
            "body": request.body().to_vec(),
        });
        json_response(200, &asked)
    }
}

/// Answers in ways that are not JSON, or not at all.
struct Unusual;

impl Module for Unusual {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let path = |name| format!("/_synapse/client/unusual/{name}");
        api.register_web_resource(&path("binary"), Self::binary)?;
        api.register_web_resource(&path("matrix"), Self::matrix)?;
        api.register_web_resource(&path("error"), Self::error)?;
        api.register_web_resource(&path("panic"), Self::panic)?;
        api.register_web_resource(&path("hang"), Self::hang)?;
        Ok(Self)
    }
}

impl Unusual {
    async fn binary(&self, _: WebRequest) -> Result<WebResponse, ModuleError> {
        let response = http::Response::builder()
            .status(418)
            .header("content-type", "application/octet-stream")
            .header("x-one", "1")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .header("content-length", "99999")
            .header("transfer-encoding", "chunked")
            .header("connection", "upgrade");
        Ok(response.body((0..=255).collect::<Vec<u8>>().into())?)
    }

    async fn matrix(&self, _: WebRequest) -> Result<WebResponse, ModuleError> {
        let error = MatrixError::new(429, "M_LIMIT_EXCEEDED", "slow down").with_field("retry_after_ms", 2000);
        Err(error.with_field("code", 1).with_field("msg", "x"))?
    }

    async fn error(&self, _: WebRequest) -> Result<WebResponse, ModuleError> {
        Err(ModuleError::message("the database password is hunter2"))
    }

    async fn panic(&self, _: WebRequest) -> Result<WebResponse, ModuleError> {
        panic!("the database password is hunter2")
    }

    async fn hang(&self, _: WebRequest) -> Result<WebResponse, ModuleError> {
        match std::future::pending::<Infallible>().await {}
    }
}

fn modules() -> Registry {
    registry().with::<Echo>("test.Echo").with::<Unusual>("test.Unusual")
}

fn serve(modules_: &Value) -> TestServer {
    TestServer::serve(config_with(&with_modules(&modules_.to_string()), &modules()))
}

fn echo(name: &str, paths: &[&str]) -> Value {
    json!({"module": "test.Echo", "id": name, "config": {"name": name, "paths": paths}})
}

fn get(server: &TestServer, path: &str) -> Answer {
    request("GET", server.http, path, &[], b"")
}

/// Who answers there; empty if nobody does.
#[track_caller]
fn answered_by(server: &TestServer, path: &str) -> String {
    let answer = get(server, path);
    if answer.status == 404 {
        assert_eq!(answer.errcode(), "M_UNRECOGNIZED", "{path}");
        return String::new();
    }
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()["by"].as_str().unwrap().to_owned()
}

#[test]
fn a_path_and_everything_below_reaches_the_module() {
    let server = serve(&json!([echo("a", &["/_synapse/client/a", "/_synapse/client/slash/"])]));
    for path in [
        "/_synapse/client/a",
        "/_synapse/client/a/",
        "/_synapse/client/a/b/c",
        "/_synapse/client/a?x=1",
    ] {
        assert_eq!(answered_by(&server, path), "a", "{path}");
    }
    for path in [
        "/_synapse/client/slash",
        "/_synapse/client/slash/",
        "/_synapse/client/slash/x",
    ] {
        assert_eq!(answered_by(&server, path), "a", "{path}");
    }
    for path in [
        "/",
        "/_synapse/client",
        "/_synapse/client/ab",
        "/_synapse/client/A",
        "/a",
        "/_synapse/client/a%2Fb",
    ] {
        assert_eq!(answered_by(&server, path), "", "{path}");
    }
    assert_eq!(answered_by(&server, "/_synapse/client/%61"), "a");
}

#[test]
fn the_longest_prefix_of_whole_segments_is_asked() {
    let server = serve(&json!([
        echo("root", &["/"]),
        echo("short", &["/a"]),
        echo("long", &["/a/b"]),
        echo("other", &["/a/bc"]),
    ]));
    let cases = [
        ("/", "root"),
        ("/ab", "root"),
        ("/a", "short"),
        ("/a/", "short"),
        ("/a/x/b", "short"),
        ("/a/b", "long"),
        ("/a/b/c", "long"),
        ("/a/bc", "other"),
        ("/a/bc/d", "other"),
        ("/a/bcd", "short"),
    ];
    for (path, module) in cases {
        assert_eq!(answered_by(&server, path), module, "{path}");
    }
}

#[test]
fn the_first_module_of_the_file_keeps_a_shared_path_and_the_other_is_warned_about() {
    let mut late = echo("late", &["/_synapse/client/a/", "/_synapse/client/b"]);
    late["priority"] = 100.into();
    let server = serve(&json!([echo("first", &["/_synapse/client/a"]), late]));
    assert_eq!(answered_by(&server, "/_synapse/client/a"), "first");
    assert_eq!(answered_by(&server, "/_synapse/client/b"), "late");
    assert_eq!(
        server.ganglion.warnings(),
        ["module late: its web resource /_synapse/client/a is never asked, module first is before it and has the path"]
    );
}

#[test]
fn a_path_outside_of_the_modules_namespace_is_warned_about() {
    let server = serve(&json!([echo(
        "a",
        &["/.well-known/x", "/_synapse/client/x", "/_synapse/clientx"]
    )]));
    assert_eq!(
        server.ganglion.warnings(),
        [
            "module a: its web resource /.well-known/x is outside of /_synapse/client",
            "module a: its web resource /_synapse/clientx is outside of /_synapse/client"
        ]
    );
}

#[test]
fn options_are_answered_for_the_module_wherever_it_is() {
    let server = serve(&json!([echo("a", &["/a"])]));
    for path in ["/a", "/a/b", "/nothing", "/_matrix/client/v3/login"] {
        let answer = request("OPTIONS", server.http, path, &[("origin", "https://app.example")], b"");
        assert_eq!((answer.status, answer.text.as_str()), (204, ""), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(
            answer.header("access-control-allow-methods"),
            "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"
        );
        assert!(
            answer.header("access-control-allow-headers").contains("Authorization"),
            "{answer:?}"
        );
    }
}

#[test]
fn an_unknown_path_is_not_found_in_words_that_a_browser_may_read() {
    let server = serve(&json!([]));
    for method in ["GET", "POST", "DELETE"] {
        let answer = request(method, server.http, "/_synapse/client/x", &[], b"");
        assert_eq!((answer.status, answer.errcode().as_str()), (404, "M_UNRECOGNIZED"));
        assert_eq!(answer.content_type, "application/json");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn a_path_that_no_module_can_have_stops_the_start() {
    let reserved = [
        "/_matrix/client",
        "/_matrix/client/x",
        "/_matrix/federation/",
        "/_matrix/key/v2",
        "/_matrix/media",
        "/_synapse/admin/v1",
        "/_ganglion/x",
        "/health",
        "/ready/",
    ];
    let start = async |path: &str| {
        let yaml = with_modules(&json!([echo("bad", &["/_synapse/client/ok", path])]).to_string());
        let started = Ganglion::start(&config_with(&yaml, &modules())).await;
        started.map(drop).unwrap_err().to_string()
    };
    for path in reserved {
        assert_eq!(
            start(path).await,
            format!("module bad: web resource {path:?}: the homeserver or Ganglion answers there")
        );
    }
    for (path, reason) in [
        ("x", "a path is absolute: it starts with /"),
        ("", "a path is absolute: it starts with /"),
        ("https://example.com/x", "a path is absolute: it starts with /"),
        (
            "/a//b",
            "it has an empty segment, `.` or `..`, which no request reaches",
        ),
        (
            "/a/../_matrix/client",
            "it has an empty segment, `.` or `..`, which no request reaches",
        ),
        ("/a?b=c", "a path has no query and no fragment"),
    ] {
        assert_eq!(
            start(path).await,
            format!("module bad: web resource {path:?}: {reason}")
        );
    }
}

#[test]
fn method_headers_query_and_body_reach_the_module() {
    let server = serve(&json!([echo("a", &["/a"])]));
    let body: Vec<u8> = (0..=255).collect();
    for method in ["POST", "PUT", "PATCH"] {
        let headers = [("x-one", "1"), ("x-two", "a, b"), ("x-two", "c")];
        let answer = request(method, server.http, "/a/b%20c/%E2%9C%93?q=%26&r=1&q=2", &headers, &body);
        assert_eq!(
            answer.json(),
            json!({"by": "a", "method": method, "path": "/a/b%20c/%E2%9C%93", "query": "q=%26&r=1&q=2",
                   "headers": [["x-one", "1"], ["x-two", "a, b"], ["x-two", "c"]], "body": body})
        );
    }
    for method in ["GET", "DELETE", "REPORT"] {
        assert_eq!(request(method, server.http, "/a", &[], b"").json()["method"], method);
    }
}

#[test]
fn status_headers_and_bytes_of_a_response_pass_through() {
    let server = serve(&json!([{"module": "test.Unusual"}]));
    let answer = get(&server, "/_synapse/client/unusual/binary");
    assert_eq!(
        (answer.status, answer.content_type.as_str()),
        (418, "application/octet-stream")
    );
    assert_eq!(answer.bytes, (0..=255).collect::<Vec<u8>>());
    assert_eq!(answer.header("x-one"), "1");
    let cookies: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "set-cookie").collect();
    assert_eq!(cookies.len(), 2, "{answer:?}");
    // These speak of the connection, which is not the module's.
    assert_eq!(answer.header("content-length"), "256");
    assert_eq!(
        (answer.header("transfer-encoding"), answer.header("connection")),
        ("", "")
    );
}

#[test]
fn a_module_s_own_error_keeps_its_status_and_fields() {
    let server = serve(&json!([{"module": "test.Unusual"}]));
    let answer = get(&server, "/_synapse/client/unusual/matrix");
    assert_eq!(answer.status, 429);
    assert_eq!(
        answer.json(),
        json!({"errcode": "M_LIMIT_EXCEEDED", "error": "slow down", "retry_after_ms": 2000})
    );
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

#[test]
fn a_module_that_fails_gives_an_error_that_says_nothing_and_no_hung_socket() {
    let server = serve(&json!([{"module": "test.Unusual"}]));
    let impatient = serve(&json!([{"module": "test.Unusual", "call_timeout": "50ms"}]));
    for (server, path, status) in [
        (&server, "error", 500),
        (&server, "panic", 500),
        (&impatient, "hang", 504),
    ] {
        for _ in 0..3 {
            // After a panic it is made anew.
            poll_until(|| server.ganglion.dispatch().is_ready());
            let answer = get(server, &format!("/_synapse/client/unusual/{path}"));
            assert_eq!(answer.status, status, "{path}: {answer:?}");
            assert_eq!(
                answer.json(),
                json!({"errcode": "M_UNKNOWN", "error": "the module that answers here failed"})
            );
            assert_eq!(answer.header("access-control-allow-origin"), "*");
        }
    }
    server.ganglion.shutdown();
    assert_eq!(get(&server, "/_synapse/client/unusual/matrix").status, 503);
}

#[test]
fn a_body_over_the_limit_does_not_reach_the_module() {
    let yaml = with_modules(&json!([echo("a", &["/a"])]).to_string()).replace("http: {", "http: {max_body: 100B, ");
    let server = TestServer::serve(config_with(&yaml, &modules()));
    let post = |size: usize| request("POST", server.http, "/a", &[], &vec![b'x'; size]);
    assert_eq!(post(100).json()["body"].as_array().unwrap().len(), 100);
    let answer = post(101);
    assert_eq!((answer.status, answer.errcode().as_str()), (413, "M_TOO_LARGE"));
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

#[test]
fn no_spelling_of_a_reserved_path_reaches_a_module() {
    let server = serve(&json!([echo("root", &["/"]), echo("a", &["/a"])]));
    let paths = [
        "/_matrix/client",
        "/_matrix/client/v3/login",
        "/_matrix%2Fclient/v3/login",
        "/%5Fmatrix/client/v3/login",
        "/%5fmatrix/%63lient",
        "/_synapse/admin/",
        "/_ganglion/v1/callbacks/on_new_event",
        "/%5Fganglion",
        "/a/../_ganglion/x",
        "/a/%2e%2e/_matrix/client/x",
        "/a/.%2E/health",
        "/./_synapse/admin",
        "/a/..",
        "/a%2F..%2F_synapse%2Fadmin",
        "/_matrix/client/%ff",
    ];
    for path in paths {
        for method in ["GET", "POST"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = raw(server.http, request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 404 "), "{method} {path}: {answer}");
            assert!(
                answer.contains(r#""errcode":"M_UNRECOGNIZED""#),
                "{method} {path}: {answer}"
            );
        }
    }
    for path in [
        "/_matrix/clientx",
        "/_matrix",
        "/_synapse",
        "/healthy",
        "/a/...",
        "/a/.well-known",
    ] {
        assert!(!answered_by(&server, path).is_empty(), "{path}");
    }
}

#[test]
fn health_is_answered_by_no_module() {
    let server = serve(&json!([echo("root", &["/"])]));
    for path in ["/health", "/%68ealth"] {
        let answer = get(&server, path);
        assert!(answer.status == 404 || answer.text == "OK", "{path}: {answer:?}");
    }
    for path in ["/health/", "/health/x", "/ready/x"] {
        assert_eq!(answered_by(&server, path), "", "{path}");
    }
}

#[test]
fn the_demo_module_says_hello() {
    let server = serve(&json!([{"module": "demo.DemoModule"}]));
    let path = "/_synapse/client/demo/hello";
    let answer = get(&server, &format!("{path}?name=x"));
    assert_eq!((answer.status, answer.json()), (200, json!({"hello": "x"})));
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(
        get(&server, &format!("{path}/?name=J%C3%B6rg+%26+Co")).json(),
        json!({"hello": "Jörg & Co"})
    );
    let answer = get(&server, path);
    assert_eq!((answer.status, answer.errcode().as_str()), (400, "M_MISSING_PARAM"));
    assert_eq!(request("POST", server.http, path, &[], b"").status, 405);
    assert_eq!(get(&server, &format!("{path}/below?name=x")).status, 404);
}
