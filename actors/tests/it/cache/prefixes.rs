//! Invalidations by the leading parts of a key.

use std::sync::Arc;

use ganglion_actors::{CacheDefaults, CacheService, InvalidationPublisher};
use ganglion_api::{CacheArgs as _, CacheKey, CacheOptions, Cached, ModuleApi};
use tokio::sync::Semaphore;

use super::functions::{Fills, Made, made, statistics};
use crate::support::caches;

type Tree = Cached<(String, String, i64), u64>;

/// A function of two parts of key; who asks for the third arg 1 waits at the gate.
struct Scene {
    caches: Arc<CacheService>,
    api: ModuleApi<Made>,
    tree: Tree,
    fills: Fills,
    gate: Arc<Semaphore>,
}

async fn scene(caches: Arc<CacheService>) -> Scene {
    let (fills, gate) = (Fills::default(), Arc::new(Semaphore::new(0)));
    let (counted, closed) = (fills.clone(), Arc::clone(&gate));
    let (_, (api, tree)) = made(&caches, "m", move |api| {
        let options = CacheOptions::new().prefix_keys().uncached_arg(2);
        let count = async move |_: &Made, (_, _, waits): (String, String, i64)| {
            let fill = counted.next();
            if waits == 1 {
                closed.acquire().await?.forget();
            }
            Ok(fill)
        };
        let tree = api.cached("tree", options, count).unwrap();
        api.register_cached_function(&tree);
        (api.clone(), tree)
    })
    .await;
    Scene {
        caches,
        api,
        tree,
        fills,
        gate,
    }
}

impl Scene {
    async fn get(&self, room: &str, user: &str) -> u64 {
        *self.tree.get((room.into(), user.into(), 0)).await.unwrap()
    }
}

#[actix::test]
async fn a_prefix_forgets_every_result_below_it_and_no_other() {
    let s = scene(caches()).await;
    for (room, user) in [("a", "x"), ("a", "y"), ("b", "x")] {
        s.get(room, user).await;
    }
    s.api.invalidate_cache(&s.tree, &"a").unwrap();
    assert_eq!((s.get("b", "x").await, s.fills.count()), (3, 3));
    assert_eq!((s.get("a", "x").await, s.get("a", "y").await), (4, 5));
    // What was computed since is kept, and a full key forgets one.
    s.api.invalidate_cache(&s.tree, &("a", "x")).unwrap();
    assert_eq!((s.get("a", "y").await, s.get("a", "x").await), (5, 6));
    let error = s.api.invalidate_cache(&s.tree, &("a", "x", 1_i64)).unwrap_err();
    assert_eq!(error.to_string(), "a key of \"tree\" has 2 parts, this one has 3");
    assert_eq!(statistics(&s.caches, "tree").invalidations, 2);
}

#[actix::test]
async fn an_invalidation_by_prefix_during_a_fill_is_not_lost() {
    let s = scene(caches()).await;
    let waits = |room: &str| s.tree.get((room.into(), "x".into(), 1));
    let (first, other, ()) = tokio::join!(waits("a"), waits("b"), async {
        while s.fills.count() < 2 {
            tokio::task::yield_now().await;
        }
        s.api.invalidate_cache(&s.tree, &"a").unwrap();
        // A later call does not wait for what began before.
        assert_eq!(s.get("a", "x").await, 3);
        s.gate.add_permits(2);
    });
    assert_eq!((*first.unwrap(), *other.unwrap()), (1, 2));
    assert_eq!((s.get("a", "x").await, s.get("b", "x").await), (3, 2));
}

#[actix::test]
async fn a_shorter_key_is_an_error_where_no_prefixes_are_asked_for() {
    let (_, (api, pair)) = made(&caches(), "m", |api| {
        let pair = api.cached("pair", CacheOptions::new(), async |_: &Made, _: (String, i64)| Ok(()));
        (api.clone(), pair.unwrap())
    })
    .await;
    let error = api.invalidate_cache(&pair, &"a").unwrap_err();
    assert_eq!(error.to_string(), "a key of \"pair\" has 2 parts, this one has 1");
}

#[actix::test]
async fn a_hundred_thousand_prefixes_are_not_all_remembered_and_forget_what_they_should() {
    let s = scene(caches()).await;
    s.get("kept", "x").await;
    for prefix in 0..100_000_i64 {
        let room = prefix.to_string();
        if prefix % 1000 == 0 {
            s.get(&room, "x").await;
        }
        s.api.invalidate_cache(&s.tree, &room.as_str()).unwrap();
    }
    // Forgotten results were dropped with the prefixes that forgot them.
    let seen = statistics(&s.caches, "tree");
    assert_eq!((seen.entries, seen.invalidations), (1, 100_000), "{seen:?}");
    assert_eq!((s.get("kept", "x").await, s.get("1000", "x").await), (1, 102));
}

#[actix::test]
async fn another_node_invalidates_by_prefix_too_and_a_key_that_fits_nothing_is_refused() {
    struct Publisher(std::sync::Mutex<Vec<Option<CacheKey>>>);
    impl InvalidationPublisher for Publisher {
        fn publish(&self, _: &str, _: &str, key: Option<&CacheKey>) {
            self.0.lock().unwrap().push(key.cloned());
        }
    }
    let publisher = Arc::new(Publisher(std::sync::Mutex::default()));
    let told: Arc<dyn InvalidationPublisher> = Arc::clone(&publisher) as _;
    let s = scene(Arc::new(CacheService::with_publisher(CacheDefaults::default(), told))).await;
    s.get("a", "x").await;
    s.api.invalidate_cache(&s.tree, &"b").unwrap();
    assert_eq!(*publisher.0.lock().unwrap(), [Some("b".key())]);
    let too_long = ("a", "x", "y").key();
    assert!(!s.caches.invalidate("m", "tree", Some(&too_long)));
    assert!(!s.caches.invalidate("m", "tree", Some(&[].into_iter().collect())));
    assert_eq!(s.get("a", "x").await, 1);
    assert!(s.caches.invalidate("m", "tree", Some(&"a".key())));
    assert_eq!(s.get("a", "x").await, 2);
    assert_eq!(publisher.0.lock().unwrap().len(), 1, "it is not published again");
    assert_eq!(s.caches.forget_all("m", "tree").unwrap().entries, 0);
    assert_eq!(*publisher.0.lock().unwrap(), [Some("b".key()), None]);
}
