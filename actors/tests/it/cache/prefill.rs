//! Results that a module knows already.

use std::sync::Arc;

use ganglion_api::{CacheOptions, Cached, ModuleApi};
use tokio::sync::Semaphore;

use super::functions::{Fills, Made, made};
use crate::support::caches;

struct Scene {
    api: ModuleApi<Made>,
    names: Cached<(String, i64), String>,
    fills: Fills,
    gate: Arc<Semaphore>,
}

async fn scene() -> Scene {
    let (fills, gate) = (Fills::default(), Arc::new(Semaphore::new(0)));
    let (counted, closed) = (fills.clone(), Arc::clone(&gate));
    let (_, (api, names)) = made(&caches(), "m", move |api| {
        let compute = async move |_: &Made, (key, _): (String, i64)| {
            let fill = counted.next();
            if key == "gated" {
                closed.acquire().await?.forget();
            }
            Ok(format!("computed {fill}"))
        };
        let names = api.cached("names", CacheOptions::new().uncached_arg(1), compute);
        (api.clone(), names.unwrap())
    })
    .await;
    Scene {
        api,
        names,
        fills,
        gate,
    }
}

impl Scene {
    async fn get(&self, key: &str) -> String {
        self.names.get((key.into(), 0)).await.unwrap().to_string()
    }
}

#[actix::test]
async fn a_result_that_is_known_is_not_computed() {
    let s = scene().await;
    s.names.prefill(&"a", "known".into()).unwrap();
    assert_eq!((s.get("a").await.as_str(), s.fills.count()), ("known", 0));
    s.names.prefill(&"a", "known better".into()).unwrap();
    assert_eq!(s.get("a").await, "known better");
    s.api.invalidate_cache(&s.names, &"a").unwrap();
    assert_eq!(s.get("a").await, "computed 1");
    let error = s.names.prefill(&("a", 1_i64), "lost".into()).unwrap_err();
    assert_eq!(error.to_string(), "a key of \"names\" has 1 parts, this one has 2");
}

#[actix::test]
async fn a_computation_that_is_under_way_does_not_replace_what_is_known() {
    let s = scene().await;
    let (first, ()) = tokio::join!(s.get("gated"), async {
        while s.fills.count() == 0 {
            tokio::task::yield_now().await;
        }
        s.names.prefill(&"gated", "known".into()).unwrap();
        // Who comes later does not wait.
        assert_eq!(s.get("gated").await, "known");
        s.gate.add_permits(1);
    });
    assert_eq!((first.as_str(), s.get("gated").await.as_str()), ("computed 1", "known"));
}

#[actix::test]
async fn an_invalidation_during_a_batch_is_not_lost() {
    let s = scene().await;
    let mut batch = s.names.batch();
    assert_eq!(batch.prefill(&"a", "read".into()), Ok(true));
    s.api.invalidate_cache(&s.names, &"b").unwrap();
    // Which of the two came first is not known.
    assert_eq!(batch.prefill(&"b", "out of date".into()), Ok(false));
    assert_eq!(
        (s.get("a").await.as_str(), s.get("b").await.as_str()),
        ("read", "computed 1")
    );
    let mut batch = s.names.batch();
    s.names.invalidate_all();
    assert_eq!(batch.prefill(&"b", "out of date".into()), Ok(false));
    assert!(batch.prefill(&("b", 1_i64), "lost".into()).is_err());
    assert_eq!(s.names.batch().prefill(&"b", "read anew".into()), Ok(true));
    assert_eq!(s.get("b").await, "read anew");
}

#[actix::test]
async fn what_was_read_before_somebody_knew_better_is_not_kept() {
    let s = scene().await;
    let (mut reads, mut writes) = (s.names.batch(), s.names.batch());
    assert_eq!(writes.prefill(&"a", "new".into()), Ok(true));
    assert_eq!(
        writes.prefill(&"b", "new".into()),
        Ok(true),
        "it does not outdate itself"
    );
    assert_eq!(reads.prefill(&"a", "old".into()), Ok(false));
    let mut reads = s.names.batch();
    s.names.prefill(&"c", "told".into()).unwrap();
    assert_eq!(reads.prefill(&"c", "old".into()), Ok(false));
    assert_eq!(reads.prefill(&"d", "old".into()), Ok(false), "whatever the key");
    assert_eq!((s.get("a").await.as_str(), s.get("c").await.as_str()), ("new", "told"));
}
