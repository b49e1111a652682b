//! Results that are weighed, and several cached functions of one module.

use ganglion_api::{CacheOptions, Cached};

use super::functions::{Fills, Made, made, statistics};
use crate::support::caches;

type Texts = Cached<i64, String>;

#[actix::test]
async fn results_weigh_no_more_than_all_together_may() {
    let caches = caches();
    let (_, texts): (_, Texts) = made(&caches, "m", |api| {
        let options = CacheOptions::new().max_weight(100);
        let weigh = |text: &String| u32::try_from(text.len()).unwrap_or(u32::MAX);
        let text = async |_: &Made, length: i64| Ok("x".repeat(usize::try_from(length)?));
        api.cached_weighed("texts", options, weigh, text).unwrap()
    })
    .await;
    for length in [30, 31, 32] {
        texts.get(length).await.unwrap();
    }
    let seen = statistics(&caches, "texts");
    assert_eq!(
        (seen.entries, seen.weight, seen.max_weight),
        (3, 93, Some(100)),
        "{seen:?}"
    );
    // One that was known already is weighed too. Which one has to go is moka's choice.
    texts.prefill(&40_i64, "x".repeat(40)).unwrap();
    let seen = statistics(&caches, "texts");
    assert!(seen.weight <= 100 && seen.evictions >= 1, "{seen:?}");
    let (entries, weight) = (seen.entries, seen.weight);
    // One that is too heavy for all reaches who asks, drops no other, and is not kept.
    for misses in [5, 6] {
        assert_eq!(texts.get(101).await.unwrap().len(), 101);
        let seen = statistics(&caches, "texts");
        assert_eq!(
            (seen.entries, seen.weight, seen.misses),
            (entries, weight, misses - 1),
            "{seen:?}"
        );
    }
}

#[actix::test]
async fn a_weigher_that_panics_is_a_failed_computation() {
    let caches = caches();
    let (_, texts): (_, Texts) = made(&caches, "m", |api| {
        let weigh = |_: &String| panic!("no scales");
        let text = async |_: &Made, _: i64| Ok(String::new());
        let options = CacheOptions::new().max_weight(1);
        api.cached_weighed("texts", options, weigh, text).unwrap()
    })
    .await;
    let error = texts.get(1).await.unwrap_err().to_string();
    assert_eq!(error, "the cached function panicked: no scales");
}

#[actix::test]
async fn a_module_has_several_caches_that_know_nothing_of_each_other() {
    let caches = caches();
    let fills = Fills::default();
    let counted = fills.clone();
    let (_, (small, large)) = made(&caches, "m", move |api| {
        let function = |name, options| {
            let counted = counted.clone();
            let count = async move |_: &Made, _: String| Ok(counted.next());
            api.cached(name, options, count).unwrap()
        };
        let small = function("small", CacheOptions::new().max_entries(2));
        (small, function("large", CacheOptions::new()))
    })
    .await;
    for key in ["a", "b", "c", "d"] {
        small.get(key.to_owned()).await.unwrap();
        large.get(key.to_owned()).await.unwrap();
    }
    assert_eq!(fills.count(), 8);
    small.invalidate_all();
    assert_eq!(*large.get("a".to_owned()).await.unwrap(), 2);
    let (small, large) = (statistics(&caches, "small"), statistics(&caches, "large"));
    assert_eq!((small.max_entries, small.entries, small.evictions), (Some(2), 0, 2));
    assert_eq!((large.max_entries, large.entries, large.hits), (Some(1000), 4, 1));
}
