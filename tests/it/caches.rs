//! The admin API of cached functions, and the section `cache` of the config.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ganglion::api::{
    CacheOptions, Cached, Module, ModuleApi, ModuleError, NoConfig, OwnedUserId, SpamCheckerCallbacks,
    UserMayCreateRoom, Verdict,
};
use ganglion::registry;
use ganglion::testing::ModuleTest;
use serde_json::{Value, json};

use crate::admin::{CREATE, bob, follow, get};
use crate::metrics::scrape;
use crate::support::{TestServer, config_with, refused, request};

const CACHES: &str = "/_ganglion/admin/v1/caches";

/// Looks a user up in two caches: one is registered under a name that a path must escape, one is its own.
struct Looks {
    seen: Cached<OwnedUserId, i64>,
    own: Cached<(OwnedUserId, i64), i64>,
    next: AtomicI64,
}

impl Module for Looks {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let seen = api.cached("last/seen", CacheOptions::new(), async |_: &Self, _| Ok(1))?;
        let options = CacheOptions::new().max_weight(100);
        let own = async |_: &Self, (_, room): (OwnedUserId, i64)| match room {
            3 => Err(ModuleError::message("no room for three")),
            room => Ok(room),
        };
        let own = api.cached_weighed("own", options, |_| 10, own)?;
        api.register_cached_function(&seen);
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(Self::look))?;
        let next = AtomicI64::new(0);
        Ok(Self { seen, own, next })
    }
}

impl Looks {
    async fn look(&self, create: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        self.seen.get(create.user_id.clone()).await?;
        let room = self.next.fetch_add(1, Ordering::Relaxed);
        let _ = self.own.get((create.user_id.clone(), room)).await;
        Ok(Verdict::Pass)
    }
}

fn server(cache: &str) -> TestServer {
    let yaml = format!(
        "server_name: example.com\nhttp: {{bind: '127.0.0.1:0'}}\nadmin: {{bind: '127.0.0.1:0'}}\ncache: {cache}
modules: [{{module: test.Looks, id: looks}}, {{module: demo.DemoModule}}]"
    );
    TestServer::serve(config_with(&yaml, &registry().with::<Looks>("test.Looks")))
}

fn listed(server: &TestServer) -> Vec<Value> {
    let answer = get(server, CACHES);
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/json"));
    answer.json()["caches"].as_array().unwrap().clone()
}

#[test]
fn cached_functions_are_listed_with_what_happened_in_them() {
    let server = server("{max_entries: 50}");
    for _ in 0..5 {
        server.decide(CREATE, &bob());
    }
    let seen = json!({
        "module": "looks", "name": "last/seen", "announced": true,
        "entries": 1, "max_entries": 50, "weight": 0, "max_weight": null,
        "hits": 4, "misses": 1, "failures": 0, "evictions": 0, "expired": 0, "invalidations": 0,
    });
    let own = json!({
        "module": "looks", "name": "own", "announced": false,
        "entries": 4, "max_entries": null, "weight": 40, "max_weight": 100,
        "hits": 0, "misses": 5, "failures": 1, "evictions": 0, "expired": 0, "invalidations": 0,
    });
    assert_eq!(listed(&server), [seen, own]);
    let metrics = scrape(&server);
    let labels = [("module", "looks"), ("function", "own")];
    assert_eq!(metrics.of("ganglion_cache_weight", &labels), Some(40));
    assert_eq!(metrics.of("ganglion_cache_failures_total", &labels), Some(1));
    // A module that is off has none.
    follow(&server, "looks", "disable");
    assert!(listed(&server).is_empty());
}

#[test]
fn an_operator_lets_a_registered_function_forget_its_results() {
    let server = server("{}");
    server.decide(CREATE, &bob());
    let answer = server.post(&format!("{CACHES}/looks/last%2Fseen/invalidate"), b"ignored");
    assert_eq!(answer.status, 200, "{answer:?}");
    let forgotten = answer.json();
    assert_eq!(forgotten, listed(&server)[0]);
    assert_eq!(
        (&forgotten["entries"], &forgotten["invalidations"]),
        (&json!(0), &json!(1))
    );
    server.decide(CREATE, &bob());
    assert_eq!(listed(&server)[0]["misses"], 2);

    let invalidate = |path: &str| server.post(&format!("{CACHES}/{path}/invalidate"), b"");
    for (path, error) in [
        ("look/own", "no module has this id, did you mean looks?"),
        (
            "looks/owm",
            "the module has no cached function of this name, did you mean own?",
        ),
        ("demo.DemoModule/own", "the module has no cached function of this name"),
        (
            "looks/own",
            "the module has not registered this function for invalidations from afar",
        ),
    ] {
        let answer = invalidate(path);
        assert_eq!(refused(&answer, 404, "M_NOT_FOUND"), error);
    }
    for (method, path) in [("POST", CACHES), ("GET", &*format!("{CACHES}/looks/own/invalidate"))] {
        let answer = request(method, server.admin, path, &[], b"");
        refused(&answer, 405, "M_UNRECOGNIZED");
    }
    assert_eq!(listed(&server)[1]["entries"], 2, "a refused request changes nothing");
}

#[test]
fn the_section_cache_limits_what_functions_do_not_limit_and_what_they_share() {
    let server = server("{max_per_module: 3, max_total: 2}");
    for _ in 0..3 {
        server.decide(CREATE, &bob());
    }
    let entries: i64 = listed(&server)
        .iter()
        .map(|cache| cache["entries"].as_i64().unwrap())
        .sum();
    let evictions: i64 = listed(&server)
        .iter()
        .map(|cache| cache["evictions"].as_i64().unwrap())
        .sum();
    assert_eq!(entries, 2);
    assert!(evictions >= 2, "{evictions}");
}

/// Knows each user for a minute.
struct Known(Cached<OwnedUserId, bool>);

impl Module for Known {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let options = CacheOptions::new()
            .ttl(Duration::from_secs(60))
            .idle(Duration::from_secs(40));
        let known = api.cached("known", options, async |_: &Self, _| Ok(true))?;
        let create = async |known: &Self, create: &UserMayCreateRoom| {
            known.0.get(create.user_id.clone()).await?;
            Ok(Verdict::Pass)
        };
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(create))?;
        Ok(Self(known))
    }
}

#[test]
fn results_age_by_the_clock_that_a_test_of_a_module_moves() {
    ModuleTest::new::<Known>("").run(async |module| {
        let seen = async |seconds| {
            module.advance(Duration::from_secs(seconds)).await;
            module.ask_json(CREATE, bob()).await;
            let seen = &module.caches()[0];
            (seen.hits, seen.misses, seen.expired)
        };
        assert_eq!(seen(0).await, (0, 1, 0));
        assert_eq!(seen(30).await, (1, 1, 0));
        assert_eq!(seen(25).await, (2, 1, 0));
        assert_eq!(seen(10).await, (2, 2, 1), "older than a minute");
        assert_eq!(seen(41).await, (2, 3, 2), "not asked for since");
    });
}
