//! The binary, as an operator sees it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use ganglion::api::{Module, ModuleApi, ModuleError, NoConfig};
use ganglion::{Ganglion, registry};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::{config_with, request, with_modules, write};

pub(crate) fn ganglion(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ganglion"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// What a run gave: exit code, standard output and standard error.
pub(crate) fn outcome(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    outcome(&ganglion(arguments).output().unwrap())
}

/// Runs a command on this config, and replaces the directory in what it says.
fn run_on(command: &str, yaml: &str) -> (i32, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "g.yaml", yaml);
    let (code, out, err) = run(&[command, "-c", file.to_str().unwrap()]);
    let directory = directory.path().to_str().unwrap();
    (code, out.replace(directory, "[dir]"), err.replace(directory, "[dir]"))
}

#[test]
fn check_prints_every_route_in_the_order_in_which_modules_are_asked() {
    let yaml = "
server_name: example.com
modules:
  - {module: demo.DemoModule, id: low, priority: -1}
  - {module: ganglion.modules.Canned, id: first, config: {answers: {user_may_create_room: {verdict: pass}}}}
  - {module: demo.DemoModule, id: off, enabled: false}
  - {module: ganglion.modules.Canned, id: second, config: {answers: {user_may_create_room: {verdict: pass}}}}
  - {module: ganglion.modules.KeywordFilter, id: words, priority: 5, config: {keywords: [x]}}
  - {module: ganglion.modules.Canned, id: high, priority: 7, config: {answers: {user_may_create_room: {verdict: pass}}}}
";
    let (code, out, err) = run_on("check", yaml);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_snapshot!(out, @r"
    check_event_for_spam: words
    user_may_create_room: high > first > second > low
    /_synapse/client/demo/hello: low
    disabled: off
    ok: 5 modules, 0 warnings
    ");
}

#[test]
fn a_new_module_is_written_where_nothing_is() {
    let directory = tempfile::tempdir().unwrap();
    let new = |name: &str| outcome(&ganglion(&["new", name]).current_dir(directory.path()).output().unwrap());
    let (code, out, err) = new("room-quota");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.starts_with("room-quota/ holds the module room_quota.RoomQuota, "),
        "{out}"
    );
    let lib = directory.path().join("room-quota/src/lib.rs");
    std::fs::write(&lib, "mine").unwrap();
    let (code, _, err) = new("room-quota");
    assert_eq!(code, 1);
    assert_snapshot!(err, @"ganglion: room-quota is there already: nothing was written; choose another name, or move it away");
    assert_eq!(std::fs::read_to_string(lib).unwrap(), "mine");
    let (code, _, err) = new("../Room");
    assert_eq!(code, 1);
    assert!(err.contains("expected a name such as room-quota"), "{err}");
}

#[test]
fn check_warns_and_is_content() {
    let yaml = "
server_name: example.com
dispatch: {deadline: 1500ms}
modules:
  - {module: demo.DemoModule, id: first}
  - {module: demo.DemoModule, id: second}
  - {module: ganglion.modules.Canned, id: silent}
";
    let (code, out, err) = run_on("check", yaml);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_snapshot!(out, @r"
    user_may_create_room: first > second
    /_synapse/client/demo/hello: first
    warning: module silent: it can never be asked, it has no callback and no web resource
    warning: module second: its web resource /_synapse/client/demo/hello is never asked, module first is before it and has the path
    warning: user_may_create_room: the call_timeout of its modules add up to 2s, the deadline of a chain is 1s 500ms
    ok: 3 modules, 3 warnings
    ");
}

#[test]
fn check_warns_of_failure_rules_that_do_not_do_what_they_seem_to() {
    let yaml = "
server_name: example.com
on_failure:
  - {callback: user_may_publish_room, then: pass}
  - {callback: check_registration_for_spam, origin: federated, then: pass}
  - {category: federation, callback: check_event_for_spam, then: pass}
  - {kind: [breaker_open, protocol], then: pass}
  - {kind: [panicked, overloaded], then: deny}
  - {kind: panicked, then: error}
  - {kind: panicked, then: pass}
modules:
  - module: ganglion.modules.KeywordFilter
    id: words
    breaker: {mode: disabled}
    config: {keywords: [x]}
  - module: ganglion.modules.Canned
    id: both
    breaker: {mode: disabled}
    config: {answers: {check_event_for_spam: {verdict: pass}, on_logged_out: {value: null}, is_user_expired: {value: null}, check_registration_for_spam: {verdict: pass}}}
    on_failure:
      - {callback: check_event_for_spam, origin: federated, then: pass}
      - {callback: user_may_create_room, then: pass}
      - {category: account_validity, then: deny}
";
    let (code, out, err) = run_on("check", yaml);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_snapshot!(out, @r"
    check_event_for_spam: words > both
    check_registration_for_spam: both
    is_user_expired: both
    on_logged_out: both
    warning: modules[1].on_failure[1]: it can never match: this module is asked in no callback that it is for
    warning: on_failure[0]: it can never match: no module is asked in a callback that it is for
    warning: on_failure[1]: it can never match: the callbacks that it is for are always local, nobody acts in them
    warning: on_failure[2]: it can never match: none of its callbacks is in one of its categories
    warning: on_failure[3]: it can never match: breaker_open needs a breaker with mode enabled, protocol does not happen in this version
    warning: on_failure[6]: it can never match: modules[1].on_failure[0], on_failure[4] and on_failure[5] before it decide all that it is for
    warning: modules[1].on_failure[2]: it denies, so it is passed over in is_user_expired, where nothing can be denied; it decides nowhere else
    warning: on_failure[4]: it denies, so it is passed over in is_user_expired and on_logged_out, where nothing can be denied
    warning: modules[0] (words): a failure may deny a federated event in check_event_for_spam, and it is stored redacted and soft-failed, for good: on_failure[4] denies on overloaded and panicked; put { callback: check_event_for_spam, origin: federated, then: pass } before on_failure[4], or add origin: local to on_failure[4]
    ok: 2 modules, 9 warnings
    ");
    // What a disabled module would register is not known, so it may be what a rule is for.
    let off = "  - {module: demo.DemoModule, enabled: false, on_failure: [{callback: on_update, then: pass}]}\n";
    let (_, out, _) = run_on("check", &(yaml.to_owned() + off));
    for rule in ["modules[2].on_failure[0]", "on_failure[0]", "on_failure[3]"] {
        assert!(!out.contains(&format!("warning: {rule}: ")), "{rule}\n{out}");
    }
}

#[test]
fn check_names_every_error_with_its_place_and_exits_with_1() {
    let yaml = "
server_name: example.com
http: {bind: nowhere}
modules:
  - {module: demo.DemoModule, call_timeot: 1s}
  - {module: ganglion.modules.KeywordFilter, config: {keywords: ['']}}
";
    let (code, out, err) = run_on("check", yaml);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_snapshot!(err, @r"
    ganglion: [dir]/g.yaml: http.bind: expected an IP address and a port, such as 127.0.0.1:8009 or [::1]:8009
    [dir]/g.yaml: modules[0].call_timeot: unknown key, did you mean call_timeout?
    [dir]/g.yaml: modules[1].config.keywords[0]: an empty keyword is part of every text
    ");
    let (code, out, err) = run_on("check", "server_name: [");
    assert_eq!((code, out.as_str()), (1, ""));
    assert_snapshot!(err, @"ganglion: [dir]/g.yaml:2:1: did not find expected node content");
    let (code, out, err) = run(&["check", "--config", "no/such/file.yaml"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_snapshot!(err, @"ganglion: no/such/file.yaml: cannot read the file: No such file or directory (os error 2)");
}

#[test]
fn check_makes_the_modules_and_names_the_one_that_cannot_be_made() {
    let yaml = "
server_name: example.com
modules:
  - {module: demo.DemoModule}
  - {module: ganglion.modules.Canned, id: bad, config: {answers: {get_interested_users: {value: []}}}}
";
    let (code, out, err) = run_on("check", yaml);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_snapshot!(
        err,
        @"ganglion: module bad: get_interested_users was registered without get_users_for_states: they belong together"
    );
}

#[test]
fn the_example_passes_check_without_a_warning() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo.yaml");
    let (code, out, err) = run(&["check", "-c", file.to_str().unwrap()]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_snapshot!(out, @r"
    check_event_for_spam: ganglion.modules.KeywordFilter
    user_may_create_room: demo.DemoModule
    /_synapse/client/demo/hello: demo.DemoModule
    ok: 2 modules, 0 warnings
    ");
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &[][..],
        &["serve"],
        &["check"],
        &["check", "-c"],
        &["callback"],
        &["callbacks", "--yaml"],
    ] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(!err.is_empty(), "{arguments:?}");
    }
}

#[test]
fn callbacks_as_json_are_the_reference() {
    let (code, out, _) = run(&["callbacks", "--json"]);
    assert_eq!(code, 0);
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(rows.len(), 52);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/callbacks");
    let files: BTreeSet<String> = std::fs::read_dir(&golden)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let names: BTreeSet<String> = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, files);
    for row in &rows {
        let keys: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["args", "category", "combine", "name", "on_failure", "since"]);
        let name = row["name"].as_str().unwrap();
        let text = std::fs::read_to_string(golden.join(name).with_extension("json")).unwrap();
        let args = serde_json::from_str::<Value>(&text).unwrap()["args"].clone();
        for arg in row["args"].as_array().unwrap() {
            let given = args.get(arg["name"].as_str().unwrap()).is_some();
            assert!(given || arg["optional"] == true, "{name}: {arg}");
        }
    }
    assert_snapshot!(serde_json::to_string_pretty(&rows[0]).unwrap(), @r#"
    {
      "args": [
        {
          "name": "event",
          "optional": false,
          "type": "Event"
        }
      ],
      "category": "spam_checker",
      "combine": "first_deny",
      "name": "check_event_for_spam",
      "on_failure": "error",
      "since": "1.37"
    }
    "#);
}

#[test]
fn callbacks_as_text_have_every_category_and_argument() {
    let (code, out, _) = run(&["callbacks"]);
    assert_eq!(code, 0);
    let (_, json, _) = run(&["callbacks", "--json"]);
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    // The text has the rows in the same order.
    let mut lines = out.lines();
    for row in &rows {
        let head = format!("  {}(", row["name"].as_str().unwrap());
        let line = lines
            .find(|line| line.starts_with(&head))
            .unwrap_or_else(|| panic!("{head}"));
        for arg in row["args"].as_array().unwrap() {
            let optional = if arg["optional"] == true { "?" } else { "" };
            let arg = format!(
                "{}{optional}: {}",
                arg["name"].as_str().unwrap(),
                arg["type"].as_str().unwrap()
            );
            assert!(line.contains(&arg), "{line}");
        }
    }
    let first: Vec<_> = out.lines().take(6).collect();
    assert_snapshot!(first.join("\n"), @r"
    spam_checker
      check_event_for_spam(event: Event)
        since 1.37, first_deny, on failure error
      should_drop_federated_event(event: Event)
        since 1.60, first_deny, on failure error
      user_may_join_room(user: mxid, room: room, is_invited: bool)
    ");
}

/// A process that serves; killed on drop.
struct Served {
    child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Served {
    fn start(yaml: &str, directory: &Path) -> Self {
        let file = write(directory, "g.yaml", yaml);
        let mut command = ganglion(&["serve", "-c", file.to_str().unwrap()]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    /// What it says until it is ready.
    fn banner(&mut self) -> String {
        let mut banner = String::new();
        while !banner.lines().last().is_some_and(|line| line.starts_with("ready:")) {
            let read = self.out.read_line(&mut banner).unwrap();
            assert!(read > 0, "it ended before it was ready: {banner}");
        }
        banner
    }

    /// Reads its log up to a line with these words.
    fn wait_for_log(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(
                self.err.read_line(&mut line).unwrap() > 0,
                "its log ended without {words:?}"
            );
        }
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in a line of the banner.
fn address(banner: &str, listener: &str) -> SocketAddr {
    let head = format!("{listener} listening on ");
    let line = banner.lines().find_map(|line| line.strip_prefix(&head));
    line.unwrap_or_else(|| panic!("{banner}")).parse().unwrap()
}

#[test]
fn serve_says_what_listens_where_and_which_module_serves_what() {
    let directory = tempfile::tempdir().unwrap();
    let modules = json!([
        {"module": "demo.DemoModule"},
        {"module": "ganglion.modules.KeywordFilter", "enabled": false},
        {"module": "ganglion.modules.Canned", "id": "silent"},
    ]);
    let mut served = Served::start(&with_modules(&modules.to_string()), directory.path());
    let banner = served.banner();
    let (http, admin) = (address(&banner, "http"), address(&banner, "admin"));
    let banner = banner
        .replace(&http.to_string(), "[http]")
        .replace(&admin.to_string(), "[admin]");
    assert_snapshot!(banner.replace(env!("CARGO_PKG_VERSION"), "[version]"), @r"
    ganglion [version] for example.com
    module demo.DemoModule: user_may_create_room, /_synapse/client/demo/hello
    module ganglion.modules.KeywordFilter: disabled
    module silent: nothing
    http listening on [http]
    admin listening on [admin]
    ready: 2 modules, admin without a token, for loopback names only
    ");
    served.wait_for_log("module silent: it can never be asked");

    assert_eq!(
        request("GET", http, "/_synapse/client/demo/hello?name=x", &[], b"").json(),
        json!({"hello": "x"})
    );
    let args = br#"{"user_id":"@evilguy:example.com","room_config":{}}"#;
    let decision = request("POST", admin, "/_ganglion/v1/callbacks/user_may_create_room", &[], args).json();
    assert_eq!(
        (&decision["outcome"]["errcode"], &decision["decided_by"]),
        (&json!("M_FORBIDDEN"), &json!("demo.DemoModule"))
    );
}

#[test]
fn a_signal_lets_what_is_under_way_end_and_stops() {
    for signal in ["-TERM", "-INT"] {
        let directory = tempfile::tempdir().unwrap();
        let mut served = Served::start(&with_modules("[{module: demo.DemoModule}]"), directory.path());
        let admin = address(&served.banner(), "admin");
        // The server asks for the body as soon as it works on the request.
        let mut connection = TcpStream::connect(admin).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let body = r#"{"user_id":"@evilguy:example.com"}"#;
        let head = format!(
            "POST /_ganglion/v1/callbacks/user_may_create_room HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all(head.as_bytes()).unwrap();
        let mut interim = [0; 25];
        connection.read_exact(&mut interim).unwrap();
        assert_eq!(interim, *b"HTTP/1.1 100 Continue\r\n\r\n");

        served.signal(signal);
        served.wait_for_log("stopping");
        connection.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 OK") && answer.contains(r#""verdict":"deny""#),
            "{answer}"
        );
        served.wait_for_log("stopped");
        assert_eq!(served.child.wait().unwrap().code(), Some(0));
        assert!(TcpStream::connect(admin).is_err());
    }
}

#[test]
fn an_address_in_use_stops_the_start_before_anything_listens() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    for key in ["http", "admin"] {
        let yaml = with_modules("[{module: demo.DemoModule}]");
        let yaml = yaml.replace(
            &format!("{key}: {{bind: '127.0.0.1:0'"),
            &format!("{key}: {{bind: '127.0.0.1:{port}'"),
        );
        let (code, out, err) = run_on("serve", &yaml);
        assert_eq!((code, out.as_str()), (1, ""));
        let reason = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap_err();
        let expected = format!("ganglion: {key}.bind: cannot listen on 127.0.0.1:{port}: {reason}\n");
        assert_eq!(err, expected);
    }
}

#[test]
fn an_address_of_another_machine_stops_the_start() {
    let yaml = with_modules("[]").replace("http: {bind: '127.0.0.1:0'", "http: {bind: '192.0.2.1:0'");
    let (code, out, err) = run_on("serve", &yaml);
    assert_eq!((code, out.as_str()), (1, ""));
    let reason = TcpListener::bind(("192.0.2.1", 0)).unwrap_err();
    assert_eq!(
        err,
        format!("ganglion: http.bind: cannot listen on 192.0.2.1:0: {reason}\n")
    );
}

#[test]
fn an_unreadable_token_file_stops_the_start() {
    let yaml = with_modules("[]").replace("admin: {", "admin: {token_file: none.token, ");
    let (code, out, err) = run_on("serve", &yaml);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_snapshot!(
        err,
        @"ganglion: [dir]/g.yaml: admin.token_file: cannot read [dir]/none.token: No such file or directory (os error 2)"
    );
}

#[test]
fn a_module_that_cannot_be_made_stops_the_start_with_its_id_and_reason() {
    let half =
        json!({"module": "ganglion.modules.Canned", "config": {"answers": {"get_interested_users": {"value": []}}}});
    let (code, out, err) = run_on(
        "serve",
        &with_modules(&json!([{"module": "demo.DemoModule"}, half]).to_string()),
    );
    assert_eq!((code, out.as_str()), (1, ""));
    assert_snapshot!(
        err,
        @"ganglion: module ganglion.modules.Canned: get_interested_users was registered without get_users_for_states: they belong together"
    );
}

/// Cannot be made.
struct Panics;

impl Module for Panics {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        panic!("no luck today")
    }
}

#[tokio::test]
async fn a_constructor_that_panics_stops_the_start_with_its_module_and_words() {
    let yaml = with_modules("[{module: demo.DemoModule}, {module: test.Panics, id: unlucky}]");
    let started = Ganglion::start(&config_with(&yaml, &registry().with::<Panics>("test.Panics"))).await;
    assert_snapshot!(started.map(drop).unwrap_err(), @"module unlucky: the constructor panicked: no luck today");
}
