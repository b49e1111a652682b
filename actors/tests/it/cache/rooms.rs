//! Room that functions share: those of a module, and all.

use std::collections::HashMap;
use std::sync::Arc;

use ganglion_actors::{CacheDefaults, CacheService, CacheStatistics, ModuleCommand};
use ganglion_api::{CacheOptions, Cached};

use super::functions::{Made, made};
use crate::support::Started;

fn caches(max_per_module: Option<u64>, max_total: Option<u64>) -> Arc<CacheService> {
    Arc::new(CacheService::new(CacheDefaults {
        max_per_module,
        max_total,
        ..CacheDefaults::default()
    }))
}

type Function = Cached<i64, i64>;

/// A module with functions of these names.
async fn module(caches: &Arc<CacheService>, id: &str, names: &'static [&'static str]) -> (Started, Vec<Function>) {
    made(caches, id, |api| {
        let function = |name: &&str| {
            let same = async |_: &Made, key: i64| Ok(key);
            api.cached(name, CacheOptions::new(), same).unwrap()
        };
        names.iter().map(function).collect()
    })
    .await
}

async fn fill(function: &Function, keys: std::ops::Range<i64>) {
    for key in keys {
        function.get(key).await.unwrap();
    }
}

fn seen(caches: &CacheService) -> HashMap<(String, String), CacheStatistics> {
    let by_name = |cache: CacheStatistics| ((cache.module.clone(), cache.name.clone()), cache);
    caches.statistics().into_iter().map(by_name).collect()
}

/// How many results each function keeps, by name.
fn entries(caches: &CacheService) -> Vec<(String, u64)> {
    let of = |cache: CacheStatistics| (format!("{}.{}", cache.module, cache.name), cache.entries);
    caches.statistics().into_iter().map(of).collect()
}

fn expected<const N: usize>(counts: [(&str, u64); N]) -> Vec<(String, u64)> {
    counts.map(|(name, count)| (name.to_owned(), count)).into()
}

/// Which share of a room may be free after others gave way.
fn is_full(most: u64, taken: u64) -> bool {
    taken <= most && taken >= most - most / 16 - 2
}

#[actix::test]
async fn the_functions_of_a_module_share_its_room_and_the_one_that_takes_most_gives_way() {
    let caches = caches(Some(100), None);
    let (_first, first) = module(&caches, "a", &["f", "g"]).await;
    let (_second, second) = module(&caches, "b", &["f"]).await;
    fill(&first[0], 0..90).await;
    fill(&second[0], 0..100).await;
    assert_eq!(entries(&caches), expected([("a.f", 90), ("a.g", 0), ("b.f", 100)]));
    fill(&first[1], 0..30).await;
    let all = entries(&caches);
    let (f, g, other) = (all[0].1, all[1].1, all[2].1);
    assert!(is_full(100, f + g), "{all:?}");
    assert_eq!((g, other), (30, 100), "{all:?}");
    let gone = &seen(&caches)[&("a".into(), "f".into())];
    assert_eq!((gone.evictions, gone.expired), (90 - f, 0), "what had to go is counted");
    // They end up with the same, and none below it.
    fill(&first[1], 30..500).await;
    let all = entries(&caches);
    assert!(is_full(100, all[0].1 + all[1].1), "{all:?}");
    assert!(all[0].1.abs_diff(all[1].1) <= 7, "{all:?}");
}

#[actix::test]
async fn all_modules_share_one_room() {
    let caches = caches(Some(80), Some(100));
    let (_first, first) = module(&caches, "a", &["f"]).await;
    let (second, other) = module(&caches, "b", &["f", "g"]).await;
    fill(&first[0], 0..200).await;
    assert!(is_full(80, entries(&caches)[0].1), "{:?}", entries(&caches));
    fill(&other[0], 0..10).await;
    fill(&other[1], 0..30).await;
    let all = entries(&caches);
    assert_eq!((all[1].1, all[2].1), (10, 30), "{all:?}");
    assert!(is_full(100, all[0].1 + 40), "{all:?}");
    // Forgotten results take no room, nor do those of a module that is gone.
    first[0].invalidate_all();
    fill(&other[1], 30..60).await;
    assert_eq!(entries(&caches), expected([("a.f", 0), ("b.f", 10), ("b.g", 60)]));
    drop(other);
    second.handle.command(ModuleCommand::Disable).await.unwrap();
    fill(&first[0], 0..80).await;
    assert_eq!(entries(&caches), expected([("a.f", 80)]));
    assert_eq!(*first[0].get(79).await.unwrap(), 79);
    assert_eq!(seen(&caches)[&("a".into(), "f".into())].hits, 1);
}

#[actix::test]
async fn there_is_room_for_one_where_there_is_room_for_one() {
    let caches = caches(None, Some(1));
    let (_module, functions) = module(&caches, "a", &["f", "g"]).await;
    for _ in 0..3 {
        for function in &functions {
            fill(function, 0..3).await;
            assert_eq!(entries(&caches).iter().map(|(_, count)| count).sum::<u64>(), 1);
        }
    }
}
