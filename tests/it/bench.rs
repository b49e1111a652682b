//! `ganglion bench`, as an operator sees it. Nothing here is about how fast something is.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{canned, write};

/// Two modules on one route, and one on another.
fn modules() -> String {
    let passes = canned("passes", &json!({"user_may_create_room": {"verdict": "pass"}}));
    let denies = canned(
        "denies",
        &json!({"user_may_create_room": {"verdict": "deny"}, "user_may_invite": {"verdict": "deny"}}),
    );
    json!([passes, denies]).to_string()
}

/// A config, and where its files are.
struct Bench {
    directory: TempDir,
}

impl Bench {
    fn of(modules: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Addresses that nobody can listen on: bench does not try.
        let yaml = format!(
            "server_name: example.com\nhttp: {{bind: '192.0.2.1:1'}}\nadmin: {{bind: '127.0.0.1:1'}}\nmodules: {modules}\n"
        );
        write(directory.path(), "g.yaml", &yaml);
        Self { directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ganglion"));
        command.args(["bench", "-c", &self.path("g.yaml")]).args(arguments);
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// Exit code, standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// The report of a short run that must go well, and its JSON.
    fn report(&self, arguments: &[&str]) -> (String, Value) {
        let json = self.path("result.json");
        let mut all = vec!["--json", &*json];
        if !arguments.contains(&"--duration") {
            all.extend(["--duration", "100ms"]);
        }
        all.extend(arguments);
        let (code, out, err) = self.run(&all);
        assert_eq!((code, &*err), (0, ""), "{out}");
        (
            out,
            serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap(),
        )
    }

    /// The error of a run that must not go well.
    fn error(&self, arguments: &[&str]) -> (i32, String) {
        let (code, out, err) = self.run(arguments);
        assert_eq!(out, "");
        (code, err.replace(self.directory.path().to_str().unwrap(), "[dir]"))
    }
}

/// The part of a result about one callback.
fn callback<'a>(result: &'a Value, name: &str) -> &'a Value {
    let all = result["callbacks"].as_array().unwrap();
    let found = all.iter().find(|callback| callback["callback"] == name);
    found.unwrap_or_else(|| panic!("{name}: {result:#}"))
}

/// The part about one module of a callback.
fn module<'a>(callback: &'a Value, id: &str) -> &'a Value {
    let all = callback["modules"].as_array().unwrap();
    let found = all.iter().find(|module| module["module"] == id);
    found.unwrap_or_else(|| panic!("{id}: {callback:#}"))
}

fn names(result: &Value) -> Vec<&str> {
    let all = result["callbacks"].as_array().unwrap().iter();
    all.map(|callback| callback["callback"].as_str().unwrap()).collect()
}

#[test]
fn every_subscribed_callback_and_module_has_its_rows_in_the_order_of_the_route() {
    let (out, result) = Bench::of(&modules()).report(&[]);
    assert_eq!(names(&result), ["user_may_invite", "user_may_create_room"]);
    let create = callback(&result, "user_may_create_room");
    let ids: Vec<_> = create["modules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|module| &module["module"])
        .collect();
    assert_eq!(ids, ["passes", "denies"]);
    let calls = create["calls"].as_u64().unwrap();
    assert!(calls > 0);
    assert_eq!(create["denied"], calls);
    for (id, denied) in [("passes", 0), ("denies", calls)] {
        let module = module(create, id);
        assert_eq!((&module["calls"], &module["failures"]), (&json!(calls), &json!({})));
        assert_eq!(
            (&module["decided"], &module["denied"]),
            (&json!(denied), &json!(denied))
        );
    }
    let modules = create["modules"].as_array().unwrap().iter();
    let shares: f64 = modules.map(|module| module["share"].as_f64().unwrap()).sum();
    // Each is rounded.
    assert!(
        (shares + create["dispatch_share"].as_f64().unwrap() - 1.0).abs() < 0.001,
        "{create:#}"
    );
    for row in [
        "\nuser_may_invite ",
        "\nuser_may_create_room ",
        "\n  passes ",
        "\n  denies ",
        "\n  dispatch ",
    ] {
        // In the table and in the distribution.
        assert!(out.matches(row).count() >= 2, "{row:?} in\n{out}");
    }
    assert!(
        out.contains("not asked: 50 callbacks that no module subscribes to\n"),
        "{out}"
    );
    assert!(out.lines().all(|line| line.chars().count() <= 120), "{out}");
}

#[test]
fn a_histogram_has_each_call_once() {
    let (_, result) = Bench::of(&modules()).report(&[]);
    for callback in result["callbacks"].as_array().unwrap() {
        let modules = callback["modules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|module| &module["latency"]);
        for latency in [&callback["latency"], &callback["dispatch"]].into_iter().chain(modules) {
            let buckets = latency["histogram"].as_array().unwrap();
            let sum: u64 = buckets.iter().map(|bucket| bucket["calls"].as_u64().unwrap()).sum();
            assert_eq!(Some(sum), callback["calls"].as_u64());
            assert_eq!(latency["calls"], sum);
        }
    }
}

#[test]
fn named_callbacks_are_asked_equally_often_and_nothing_else_is() {
    let bench = Bench::of(&modules());
    let (_, result) = bench.report(&["--callback", "user_may_invite"]);
    assert_eq!(names(&result), ["user_may_invite"]);
    for both in [
        &["--callback", "user_may_invite,user_may_create_room"][..],
        &["--callback", "user_may_invite", "--callback", "user_may_create_room"],
    ] {
        let (_, result) = bench.report(&[both, &["--rate", "1000"]].concat());
        for name in ["user_may_invite", "user_may_create_room"] {
            assert_eq!(callback(&result, name)["calls"], 50);
        }
    }
    let (out, result) = bench.report(&["--callback", "user_may_invite,on_update"]);
    assert_eq!(
        (names(&result), &result["without_subscriber"]),
        (vec!["user_may_invite"], &json!(["on_update"]))
    );
    assert!(
        out.contains("not asked: 1 callback that no module subscribes to: on_update\n"),
        "{out}"
    );
}

#[test]
fn a_callback_that_nobody_knows_or_subscribed_to_is_an_error() {
    let bench = Bench::of(&modules());
    let (code, err) = bench.error(&["--callback", "user_may_create_rooms"]);
    assert_eq!(code, 2);
    assert!(
        err.contains("unknown callback, did you mean user_may_create_room?"),
        "{err}"
    );
    let (code, err) = bench.error(&["--callback", "on_update"]);
    assert_eq!(
        (code, &*err),
        (
            1,
            "ganglion: no module of this config subscribes to on_update: there is nothing to ask. Subscribed are \
             user_may_invite, user_may_create_room\n"
        )
    );
    let (code, err) = Bench::of("[]").error(&[]);
    assert_eq!(
        (code, &*err),
        (
            1,
            "ganglion: no module of this config subscribes to a callback: there is nothing to ask\n"
        )
    );
}

#[test]
fn numbers_that_make_no_sense_are_wrong_usage() {
    let bench = Bench::of(&modules());
    for arguments in [
        ["--in-flight", "0"],
        ["--in-flight", "100001"],
        ["--in-flight", "many"],
        ["--rate", "0"],
        ["--rate", "-1"],
        ["--rate", "NaN"],
        ["--rate", "inf"],
        ["--duration", "0s"],
        ["--duration", "10"],
        ["--duration", "2days"],
        ["--seed", "-1"],
        ["--mix", "other"],
        ["--misbehave", "passes"],
        ["--misbehave", "passes=hangs"],
    ] {
        let (code, err) = bench.error(&[&arguments.join("=")]);
        assert_eq!(code, 2, "{arguments:?}: {err}");
        assert!(err.contains(arguments[0]), "{arguments:?}: {err}");
    }
    let (code, err) = bench.error(&["--mix", "synapse", "--callback", "user_may_invite"]);
    assert!(code == 2 && err.contains("cannot be used with"), "{err}");
}

#[test]
fn a_rate_is_a_schedule_with_so_many_questions() {
    let bench = Bench::of(&modules());
    let (out, result) = bench.report(&["--rate", "500", "--duration", "200ms", "--callback", "user_may_invite"]);
    assert_eq!(callback(&result, "user_may_invite")["calls"], 100);
    assert_eq!(result["run"]["calls"], 100);
    let schedule = &result["run"]["schedule"];
    assert_eq!((&schedule["calls"], &schedule["not_asked"]), (&json!(100), &json!(0)));
    assert_eq!(schedule["slip"]["calls"], 100);
    assert_eq!(result["options"]["pace"], json!({"rate": 500.0}));
    assert!(
        out.contains("open loop, 500 a second") && out.contains("schedule 100 calls"),
        "{out}"
    );
}

#[test]
fn a_schedule_that_is_too_fast_says_so() {
    let bench = Bench::of(&json!([slow("slow")]).to_string());
    let arguments = ["--rate", "1000", "--duration", "100ms", "--in-flight", "10"];
    let (out, result) = bench.report(&arguments);
    let schedule = &result["run"]["schedule"];
    assert!(schedule["held_back"].as_u64().unwrap() > 0, "{schedule}");
    assert!(result["run"]["most_open"].as_u64().unwrap() <= 10);
    assert!(out.contains(" calls were held back while 10 were open"), "{out}");
}

/// A module that takes its time.
fn slow(id: &str) -> Value {
    let mut slow = canned(id, &json!({"user_may_create_room": {"verdict": "pass"}}));
    slow["config"]["delay"] = json!("20ms");
    slow
}

#[test]
fn no_more_questions_are_open_than_may_be() {
    let bench = Bench::of(&modules());
    for (in_flight, pace) in [("1", &[][..]), ("3", &[]), ("3", &["--rate", "2000"])] {
        let (_, result) = bench.report(&[&["--in-flight", in_flight], pace].concat());
        let most = result["run"]["most_open"].as_u64().unwrap();
        assert!(
            (1..=in_flight.parse().unwrap()).contains(&most),
            "{most} of {in_flight}"
        );
    }
}

#[test]
fn the_result_says_what_it_was_measured_with_and_nothing_of_a_module_s_config() {
    let mut secret = canned(
        "a",
        &json!({"user_may_invite": {"verdict": "deny", "error": "hunter2"}}),
    );
    secret["config"]["login_types"] = json!({"hunter2": ["hunter2"]});
    let bench = Bench::of(&json!([secret]).to_string());
    let (out, result) = bench.report(&["--seed", "7", "--in-flight", "5", "--misbehave", "a=garbage"]);
    let options = json!({
        "config": "g.yaml", "mix": "mix synapse", "duration_s": 0.1, "warm_up_s": 0.01, "in_flight": 5,
        "pace": "closed", "seed": 7, "misbehave": ["a=garbage"],
    });
    assert_eq!(result["options"], options);
    assert_eq!(
        (&result["version"], &result["ganglion"]),
        (&json!(1), &json!(env!("CARGO_PKG_VERSION")))
    );
    assert!(result["machine"]["cores"].as_u64().unwrap() > 0 && result["date"].is_string());
    assert!(out.contains(", seed 7\n"), "{out}");
    for text in [out, result.to_string()] {
        assert!(
            !text.contains("hunter2") && !text.contains(bench.directory.path().to_str().unwrap()),
            "{text}"
        );
    }
}

#[test]
fn a_result_is_compared_with_an_earlier_one() {
    let bench = Bench::of(&modules());
    let earlier = bench.path("earlier.json");
    bench.report(&[]);
    std::fs::rename(bench.path("result.json"), &earlier).unwrap();
    let (out, _) = bench.report(&["--compare", &earlier]);
    let (_, compared) = out
        .split_once(&format!("change from {earlier} ("))
        .unwrap_or_else(|| panic!("{out}"));
    assert!(
        !compared.contains("warning") && !compared.contains(" new") && !compared.contains(" gone"),
        "{compared}"
    );
    for row in ["\nuser_may_create_room ", "\n  passes ", "\n  denies ", "\n  dispatch "] {
        let line = compared
            .split_once(row)
            .unwrap_or_else(|| panic!("{row}: {compared}"))
            .1
            .lines()
            .next();
        assert!(line.unwrap().contains('→'), "{compared}");
    }

    let (out, _) = bench.report(&[
        "--compare",
        &earlier,
        "--callback",
        "user_may_invite",
        "--in-flight",
        "2",
    ]);
    assert!(out.contains("\nuser_may_create_room             gone\n"), "{out}");
    assert!(
        out.contains("warning  not alike: callbacks: mix synapse before, user_may_invite now\n"),
        "{out}"
    );
    assert!(
        out.contains("warning  not alike: in flight: 64 before, 2 now\n"),
        "{out}"
    );
}

#[test]
fn a_file_that_is_no_result_is_an_error_before_anything_is_asked() {
    let bench = Bench::of("no list at all");
    let there = |text: &str| {
        write(bench.directory.path(), "old.json", text)
            .to_str()
            .unwrap()
            .to_owned()
    };
    let (code, err) = bench.error(&["--compare", &bench.path("none.json")]);
    assert_eq!(code, 1);
    assert_eq!(
        err,
        "ganglion: --compare: cannot read [dir]/none.json: No such file or directory (os error 2)\n"
    );
    for (text, expected) in [
        ("{", "old.json is no JSON"),
        ("[]", "old.json is no result of ganglion bench --json"),
        (
            r#"{"version": 1}"#,
            "old.json is no result of ganglion bench --json: missing field",
        ),
        (
            r#"{"version": 99}"#,
            "old.json is a result of version 99, this is ganglion",
        ),
    ] {
        let (code, err) = bench.error(&["--compare", &there(text)]);
        assert_eq!(code, 1);
        assert!(err.contains(expected), "{err}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_before_anything_is_asked() {
    let bench = Bench::of("no list at all");
    for name in ["none/result.json", ""] {
        let (code, err) = bench.error(&["--json", &bench.path(name)]);
        assert_eq!(code, 1);
        assert!(err.starts_with("ganglion: --json: cannot write [dir]/"), "{err}");
    }
    // Neither a failed nor a good run leaves anything beside its file.
    bench.error(&["--json", &bench.path("result.json")]);
    let good = Bench::of(&modules());
    good.report(&[]);
    let files = |directory: &Path| -> Vec<_> {
        let mut files: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        files.sort_unstable();
        files
    };
    assert_eq!(files(bench.directory.path()), ["g.yaml"]);
    assert_eq!(files(good.directory.path()), ["g.yaml", "result.json"]);
}

#[test]
fn a_config_or_start_error_is_that_of_check() {
    for modules in [
        "[{module: demo.DemoModul}]",
        "[{module: ganglion.modules.Canned, config: {answers: {get_interested_users: {value: []}}}}]",
    ] {
        let bench = Bench::of(modules);
        let (code, err) = bench.error(&[]);
        let check = Command::new(env!("CARGO_BIN_EXE_ganglion"))
            .args(["check", "-c", &bench.path("g.yaml")])
            .env_remove("RUST_LOG")
            .output()
            .unwrap();
        let said = String::from_utf8(check.stderr).unwrap();
        assert_eq!(
            (code, err),
            (1, said.replace(bench.directory.path().to_str().unwrap(), "[dir]"))
        );
    }
}

#[test]
fn a_module_that_hangs_fails_and_its_neighbour_is_asked_as_before() {
    let mut hangs = canned("hangs", &json!({"user_may_create_room": {"verdict": "pass"}}));
    hangs["call_timeout"] = json!("100ms");
    // Passed over, so that its neighbour is asked.
    hangs["on_failure"] = json!([{"then": "pass"}]);
    let after = canned("after", &json!({"user_may_create_room": {"verdict": "deny"}}));
    let bench = Bench::of(&json!([hangs, after]).to_string());
    let arguments = ["--misbehave", "hangs=hang", "--rate", "200", "--duration", "200ms"];
    let (out, result) = bench.report(&arguments);
    let create = callback(&result, "user_may_create_room");
    let hangs = module(create, "hangs");
    assert_eq!(hangs["calls"], 40);
    assert!(
        hangs["failures"]["deadline_exceeded"].as_u64().unwrap() > 0,
        "{hangs:#}"
    );
    let failed: u64 = hangs["failures"]
        .as_object()
        .unwrap()
        .values()
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!((failed, &hangs["decided"]), (40, &json!(0)));
    let after = module(create, "after");
    assert_eq!((&after["calls"], &after["denied"]), (&json!(40), &json!(40)));
    assert_eq!(after["failures"], json!({}));
    assert!(
        out.contains("misbehaves when the counting begins: hangs=hang\n"),
        "{out}"
    );
    assert!(
        out.contains("    failed: ") && out.contains("deadline_exceeded "),
        "{out}"
    );
}

#[test]
fn every_misbehaviour_ends_with_a_report() {
    let bench = Bench::of(&modules());
    for kind in [
        "panic", "error", "block", "spin", "slow", "slow:5ms", "leak", "flood", "garbage",
    ] {
        let misbehave = format!("passes={kind}");
        let (out, result) = bench.report(&[
            "--misbehave",
            &misbehave,
            "--rate",
            "50",
            "--callback",
            "user_may_create_room",
        ]);
        let create = callback(&result, "user_may_create_room");
        assert_eq!(
            (&create["calls"], &module(create, "passes")["calls"]),
            (&json!(5), &json!(5)),
            "{kind}\n{out}"
        );
        let failures = module(create, "passes")["failures"].as_object().unwrap();
        assert_eq!(
            failures.is_empty(),
            ["slow", "slow:5ms", "leak", "flood"].contains(&kind),
            "{kind}\n{out}"
        );
    }
}

#[test]
fn a_module_that_is_not_there_cannot_misbehave() {
    let mut off = canned("off", &json!({}));
    off["enabled"] = json!(false);
    let denies = canned("denies", &json!({"user_may_invite": {"verdict": "deny"}}));
    let bench = Bench::of(&json!([denies, off]).to_string());
    for (misbehave, expected) in [
        (
            "denie=hang",
            "--misbehave: no module has the id \"denie\", did you mean denies?",
        ),
        ("off=hang", "--misbehave: module off is disabled, nobody asks it"),
        ("denies=leak", "--misbehave: leak takes 64 KiB a call, so give a --rate"),
    ] {
        let (code, err) = bench.error(&["--misbehave", misbehave]);
        assert_eq!(code, 2);
        assert!(err.contains(expected), "{err}");
    }
}

#[test]
fn a_signal_ends_it_early_with_what_there_is() {
    let bench = Bench::of(&modules());
    for pace in [&[][..], &["--rate", "100"]] {
        let mut command = bench.command(&["--duration", "1h", "--json", "/dev/stdout"]);
        let child = command
            .args(pace)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("RUST_LOG", "info");
        let mut child = child.spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("counting begins") {
            line.clear();
            assert!(err.read_line(&mut line).unwrap() > 0, "it never began");
        }
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{out}");
        assert!(out.contains(" open at once at most, ended early\n"), "{out}");
    }
}
