//! How old results get, by the clock of the worker, which stands still here.

use std::sync::Arc;
use std::time::Duration;

use ganglion_actors::{CacheDefaults, CacheService};
use ganglion_api::{CacheOptions, Cached};
use tokio::time::{advance, pause};

use super::functions::{Fills, made, statistics};

const SECOND: Duration = Duration::from_secs(1);

async fn counting(caches: &Arc<CacheService>, options: CacheOptions) -> Cached<String, u64> {
    let (_, function) = made(caches, "m", move |api| {
        let fills = Fills::default();
        let count = async move |_: &_, _: String| Ok(fills.next());
        api.cached("aging", options, count).unwrap()
    })
    .await;
    pause();
    function
}

fn caches(ttl: Option<Duration>, idle: Option<Duration>) -> Arc<CacheService> {
    let defaults = CacheDefaults {
        ttl,
        idle,
        ..CacheDefaults::default()
    };
    Arc::new(CacheService::new(defaults))
}

async fn get(function: &Cached<String, u64>, key: &str) -> u64 {
    *function.get(key.to_owned()).await.unwrap()
}

#[actix::test]
async fn a_result_is_forgotten_after_its_time() {
    let caches = caches(Some(60 * SECOND), None);
    let function = counting(&caches, CacheOptions::new()).await;
    assert_eq!(get(&function, "x").await, 1);
    for _ in 0..2 {
        advance(29 * SECOND).await;
        assert_eq!(get(&function, "x").await, 1, "asking does not make it younger");
    }
    advance(2 * SECOND).await;
    assert_eq!(get(&function, "x").await, 2);
    let seen = statistics(&caches, "aging");
    assert_eq!((seen.evictions, seen.expired, seen.entries), (1, 1, 1), "{seen:?}");
    assert_eq!((seen.hits, seen.misses), (2, 2), "{seen:?}");
}

#[actix::test]
async fn a_result_that_nobody_asks_for_is_forgotten_after_its_idle_time() {
    let caches = caches(None, Some(10 * SECOND));
    let function = counting(&caches, CacheOptions::new()).await;
    assert_eq!((get(&function, "x").await, get(&function, "y").await), (1, 2));
    for _ in 0..5 {
        advance(9 * SECOND).await;
        assert_eq!(get(&function, "x").await, 1, "asking keeps it");
    }
    assert_eq!(get(&function, "y").await, 3);
    advance(10 * SECOND).await;
    assert_eq!(get(&function, "x").await, 4);
}

#[actix::test]
async fn a_function_says_its_own_times_and_both_hold() {
    let caches = caches(Some(SECOND), Some(SECOND));
    let options = CacheOptions::new().ttl(25 * SECOND).idle(10 * SECOND);
    let function = counting(&caches, options).await;
    assert_eq!(get(&function, "x").await, 1);
    for _ in 0..2 {
        advance(9 * SECOND).await;
        assert_eq!(get(&function, "x").await, 1);
    }
    advance(7 * SECOND).await;
    assert_eq!(get(&function, "x").await, 2, "it is too old, though not idle");
    advance(10 * SECOND).await;
    assert_eq!(get(&function, "x").await, 3, "it was idle, though not old");
}

#[actix::test]
async fn what_is_too_old_is_dropped_when_the_statistics_are_read() {
    let caches = caches(Some(SECOND), None);
    let function = counting(&caches, CacheOptions::new()).await;
    for key in 0..100 {
        get(&function, &key.to_string()).await;
    }
    assert_eq!(statistics(&caches, "aging").entries, 100);
    advance(SECOND).await;
    let seen = statistics(&caches, "aging");
    assert_eq!((seen.entries, seen.evictions, seen.expired), (0, 100, 100), "{seen:?}");
}
