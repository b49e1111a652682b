//! `GET /metrics`.

use std::collections::BTreeMap;

use ganglion::api::{
    CacheOptions, Cached, Module, ModuleApi, ModuleError, NoConfig, OwnedUserId, SpamCheckerCallbacks,
    UserMayCreateRoom, Verdict,
};
use ganglion::registry;
use serde_json::{Value, json};

use crate::admin::{CREATE, MODULES, bob, follow, get};
use crate::support::{TestServer, canned, config_with, poll_until, with_modules};

/// A family of metrics as a scraper reads it.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    types: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

impl Metrics {
    /// The value of the one sample with this name and these labels.
    pub(crate) fn of(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        let fits = |sample: &&Sample| {
            let own = sample.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            sample.name == name && own.eq(labels.iter().copied())
        };
        self.samples.iter().find(fits).map(|sample| sample.value as u64)
    }

    /// Reads the text format and forgives nothing.
    fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        let mut family = String::new();
        let body = text.strip_suffix("# EOF\n").expect("an end");
        for line in body.split_terminator('\n') {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect(line);
                assert!(!help.is_empty() && !metrics.types.contains_key(name), "{line}");
                name.clone_into(&mut family);
            } else if let Some(metric_type) = line.strip_prefix("# TYPE ") {
                let (name, metric_type) = metric_type.split_once(' ').expect(line);
                assert_eq!(name, family, "{line}");
                assert!(matches!(metric_type, "counter" | "gauge" | "histogram"), "{line}");
                metrics.types.insert(name.into(), metric_type.into());
            } else {
                let sample = sample(line);
                let expected: &[&str] = match metrics.types[&family].as_str() {
                    "counter" => &["_total"],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                let suffix = sample.name.strip_prefix(&family).expect(line);
                assert!(expected.contains(&suffix), "{line}");
                let labels: Vec<_> = sample.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                assert_eq!(metrics.of(&sample.name, &labels), None, "twice: {line}");
                metrics.samples.push(sample);
            }
        }
        metrics
    }
}

fn sample(line: &str) -> Sample {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let Some((name, mut rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ').expect(line);
        assert!(is_name(name) && name.starts_with("ganglion_"), "{line}");
        return Sample {
            name: name.into(),
            labels: Vec::new(),
            value: value.parse().expect(line),
        };
    };
    assert!(is_name(name) && name.starts_with("ganglion_"), "{line}");
    let mut labels = Vec::new();
    loop {
        let (key, quoted) = rest.split_once("=\"").expect(line);
        assert!(is_name(key), "{line}");
        let mut value = String::new();
        let mut characters = quoted.chars();
        loop {
            match characters.next().expect(line) {
                '"' => break,
                '\\' => value.push(match characters.next() {
                    Some('n') => '\n',
                    Some(escaped @ ('"' | '\\')) => escaped,
                    other => panic!("{other:?} is escaped: {line}"),
                }),
                character => value.push(character),
            }
        }
        labels.push((key.to_owned(), value));
        rest = characters.as_str();
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    let value = rest.strip_prefix("} ").expect(line);
    Sample {
        name: name.into(),
        labels,
        value: value.parse().expect(line),
    }
}

#[track_caller]
pub(crate) fn scrape(server: &TestServer) -> Metrics {
    let answer = get(server, "/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.content_type,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    Metrics::parse(&answer.text)
}

/// The words of a failure, of a state, of a breaker's state.
const KINDS: [&str; 8] = [
    "overloaded",
    "deadline_exceeded",
    "panicked",
    "module_error",
    "breaker_open",
    "quarantined",
    "not_running",
    "protocol",
];
const STATES: [&str; 7] = [
    "starting",
    "running",
    "restarting",
    "quarantined",
    "draining",
    "stopped",
    "disabled",
];
const BREAKER_STATES: [&str; 3] = ["closed", "open", "half_open"];

/// How many samples the histogram of a module's calls has, and how many calls it counts.
fn durations(metrics: &Metrics, id: &str) -> (usize, u64) {
    let family = "ganglion_module_call_duration_seconds";
    let label = |sample: &Sample, key: &str| {
        let label = sample.labels.iter().find(|(own, _)| own == key);
        label.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let buckets: Vec<_> = metrics
        .samples
        .iter()
        .filter(|sample| sample.name == format!("{family}_bucket") && label(sample, "module") == id)
        .collect();
    // Each bucket counts all that are shorter too.
    assert!(buckets.is_sorted_by(|a, b| a.value <= b.value), "{buckets:?}");
    let bounds: Vec<f64> = buckets
        .iter()
        .map(|bucket| label(bucket, "le").parse().unwrap())
        .collect();
    assert!(bounds.is_sorted_by(|a, b| a < b), "{buckets:?}");
    assert_eq!((bounds[0], bounds[bounds.len() - 1]), (1e-6, f64::INFINITY));
    let count = metrics.of(&format!("{family}_count"), &[("module", id)]).unwrap();
    assert_eq!(buckets.last().unwrap().value as u64, count);
    assert!(metrics.of(&format!("{family}_sum"), &[("module", id)]).is_some());
    (buckets.len() + 2, count)
}

/// Compares every number of a module's snapshot with its metric, and says how many samples that were.
fn agree(metrics: &Metrics, snapshot: &Value) -> usize {
    let id = snapshot["id"].as_str().unwrap();
    let of = |name: &str, labels: &[(&str, &str)]| {
        let labels: Vec<_> = [("module", id)].iter().chain(labels).copied().collect();
        metrics
            .of(name, &labels)
            .unwrap_or_else(|| panic!("no {name}{labels:?}"))
    };
    for (name, key) in [
        ("ganglion_module_calls_total", "calls"),
        ("ganglion_module_in_flight", "in_flight"),
        ("ganglion_module_queued", "queued"),
        ("ganglion_module_shed_total", "shed"),
        ("ganglion_module_restarts_total", "restarts"),
        ("ganglion_module_blocked_total", "blocked"),
        ("ganglion_module_stuck_threads", "stuck_threads"),
        ("ganglion_module_poison_bypasses_total", "poison_bypasses"),
    ] {
        assert_eq!(snapshot[key], of(name, &[]), "{name} of {id}");
    }
    let poison = snapshot["poison"].as_array().unwrap().len() as u64;
    assert_eq!(of("ganglion_module_poison_inputs", &[]), poison, "{id}");
    for state in STATES {
        let is = u64::from(snapshot["state"] == state);
        assert_eq!(of("ganglion_module_state", &[("state", state)]), is, "{id} {state}");
    }
    for kind in KINDS {
        let counted = snapshot["failures"][kind].as_u64().unwrap_or(0);
        assert_eq!(
            of("ganglion_module_failures_total", &[("kind", kind)]),
            counted,
            "{id} {kind}"
        );
    }
    let durations = durations(metrics, id);
    assert!(durations.1 <= of("ganglion_module_calls_total", &[]), "{id}");
    let mut used = 0;
    for (kind, policies) in snapshot["policies"].as_object().unwrap() {
        for (policy, count) in policies.as_object().unwrap() {
            let labels = [("kind", kind.as_str()), ("policy", policy.as_str())];
            assert_eq!(count, of("ganglion_module_failure_policies_total", &labels));
            used += 1;
        }
    }
    let breakers = snapshot["breakers"].as_object().unwrap();
    for (callback, breaker) in breakers {
        let trips = of("ganglion_breaker_trips_total", &[("callback", callback)]);
        assert_eq!(breaker["trips"], trips);
        for state in BREAKER_STATES {
            let is = u64::from(breaker["state"] == state);
            let labels = [("callback", callback.as_str()), ("state", state)];
            assert_eq!(of("ganglion_breaker_state", &labels), is, "{id} {callback} {state}");
        }
    }
    9 + durations.0 + STATES.len() + KINDS.len() + used + breakers.len() * (1 + BREAKER_STATES.len())
}

#[test]
fn metrics_agree_with_the_snapshots_and_nothing_else_is_in_them() {
    let mut fails = canned("fails", &json!({"check_can_shutdown_room": {"fail": "error"}}));
    fails["breaker"] = json!({"window": 4, "minimum": 2, "open_for": "1h"});
    let mut off = canned("off", &json!({}));
    off["enabled"] = false.into();
    let denies = canned("denies", &json!({CREATE: {"verdict": "deny"}}));
    let server = TestServer::start(&with_modules(&json!([denies, fails, off]).to_string()));
    for _ in 0..5 {
        server.decide(CREATE, &bob());
        server.decide("check_can_shutdown_room", &json!({"room_id": "!r:example.com"}));
    }
    follow(&server, "denies", "restart");
    follow(&server, "denies", "quarantine");
    server.decide(CREATE, &bob());

    let listed = get(&server, MODULES).json();
    let metrics = scrape(&server);
    let modules = listed["modules"].as_array().unwrap();
    let samples: usize = modules.iter().map(|snapshot| agree(&metrics, snapshot)).sum();
    // Those of the dispatcher as a whole.
    let whole = [
        "ganglion_dispatch_refused_total",
        "ganglion_dispatch_too_deep_total",
        "ganglion_wire_requests_total",
        "ganglion_wire_cancelled_total",
        "ganglion_wire_refused_connections_total",
    ];
    assert!(whole.iter().all(|name| metrics.of(name, &[]) == Some(0)), "{metrics:?}");
    for role in ["bridge", "client"] {
        assert_eq!(metrics.of("ganglion_wire_connections", &[("role", role)]), Some(0));
    }
    assert_eq!(metrics.samples.len(), samples + whole.len() + 2, "{metrics:?}");
    let of = |name, labels: &[_]| metrics.of(name, labels);
    let open = [
        ("module", "fails"),
        ("callback", "check_can_shutdown_room"),
        ("state", "open"),
    ];
    assert_eq!(of("ganglion_breaker_state", &open), Some(1));
    let refused = [("module", "fails"), ("kind", "breaker_open")];
    assert_eq!(of("ganglion_module_failures_total", &refused), Some(3));
    let quarantined = [("module", "denies"), ("kind", "quarantined")];
    assert_eq!(of("ganglion_module_failures_total", &quarantined), Some(1));
    let policy = [("module", "fails"), ("kind", "breaker_open"), ("policy", "synapse")];
    assert_eq!(of("ganglion_module_failure_policies_total", &policy), Some(3));
}

/// Has a cached function whose name must be escaped.
struct Caches(Cached<OwnedUserId, bool>);

impl Module for Caches {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(Self::may_create))?;
        let known = api.cached(
            "kno\"wn\\ \n}",
            CacheOptions::new(),
            async |_: &Self, _: OwnedUserId| Ok(true),
        )?;
        Ok(Self(known))
    }
}

impl Caches {
    async fn may_create(&self, args: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        self.0.get(args.user_id.clone()).await?;
        Ok(Verdict::Pass)
    }
}

#[test]
fn caches_are_in_the_metrics_with_names_escaped() {
    let registry = registry().with::<Caches>("test.Caches");
    let yaml = with_modules("[{module: test.Caches}]");
    let server = TestServer::serve(config_with(&yaml, &registry));
    for _ in 0..3 {
        server.decide(CREATE, &bob());
    }
    let labels = [("module", "test.Caches"), ("function", "kno\"wn\\ \n}")];
    let of = |name: &str| scrape(&server).of(name, &labels);
    assert_eq!(of("ganglion_cache_hits_total"), Some(2));
    assert_eq!(of("ganglion_cache_misses_total"), Some(1));
    for none in [
        "evictions_total",
        "expired_total",
        "failures_total",
        "invalidations_total",
        "weight",
    ] {
        assert_eq!(of(&format!("ganglion_cache_{none}")), Some(0), "{none}");
    }
    poll_until(|| of("ganglion_cache_entries") == Some(1));

    // A module that is off has no caches.
    follow(&server, "test.Caches", "disable");
    assert_eq!(of("ganglion_cache_hits_total"), None);
}
