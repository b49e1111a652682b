//! Results whose drop is code of the module, which may use the cache: no lock of it is held.

use std::cell::{Cell, OnceCell};
use std::time::Duration;

use ganglion_api::{CacheOptions, Cached, ModuleApi};
use tokio::time::{advance, pause};

use super::functions::{Made, made};
use crate::support::caches;

/// The module's function and who invalidates it.
type Used = (ModuleApi<Made>, Cached<(i64, i64), Uses>);

thread_local! {
    static FUNCTION: OnceCell<Used> = const { OnceCell::new() };
    static DROPS: Cell<u64> = const { Cell::new(0) };
}

/// Its weight; when it is dropped it uses the function's cache in every way.
struct Uses(u32);

impl Drop for Uses {
    fn drop(&mut self) {
        DROPS.set(DROPS.get() + 1);
        // At the end of the test's thread there is none any more.
        let _ = FUNCTION.try_with(|function| {
            let Some((api, function)) = function.get() else { return };
            api.invalidate_cache(function, &(-1_i64, -1_i64)).unwrap();
            api.invalidate_cache(function, &-1_i64).unwrap();
            // Only so deep.
            if self.0 > 0 {
                function.prefill(&(-2_i64, 0_i64), Self(0)).unwrap();
            }
        });
    }
}

#[actix::test]
async fn a_result_may_use_its_cache_when_it_is_dropped() {
    let caches = caches();
    let (_, function) = made(&caches, "m", |api| {
        let options = CacheOptions::new().max_weight(50).prefix_keys();
        let options = options.ttl(Duration::from_secs(1));
        let weighed = async |_: &Made, (_, weight): (i64, i64)| Ok(Uses(u32::try_from(weight)?));
        let function = api
            .cached_weighed("uses", options, |uses: &Uses| uses.0, weighed)
            .unwrap();
        FUNCTION.with(|there| {
            let _ = there.set((api.clone(), function.clone()));
        });
        function
    })
    .await;
    pause();
    let get = async |room, weight| drop(function.get((room, weight)).await.unwrap());
    // moka drops what it let go some time later, on whichever thread comes by.
    for _ in 0..200 {
        for room in 0..5 {
            get(room, 20).await;
        }
        get(5, 51).await;
        function.prefill(&(6_i64, 51_i64), Uses(51)).unwrap();
        function.prefill(&(7_i64, 1_i64), Uses(1)).unwrap();
        function.prefill(&(7_i64, 1_i64), Uses(2)).unwrap();
        let mut batch = function.batch();
        function.invalidate_all();
        assert_eq!(batch.prefill(&(7_i64, 1_i64), Uses(1)), Ok(false));
        get(8, 1).await;
        advance(Duration::from_secs(1)).await;
        get(8, 1).await;
        FUNCTION
            .with(|there| there.get().unwrap().0.invalidate_cache(&function, &8_i64))
            .unwrap();
        assert!(caches.statistics()[0].invalidations > 0);
        tokio::task::yield_now().await;
    }
    assert!(DROPS.get() > 200 * 5);
}
