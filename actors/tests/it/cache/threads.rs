//! Many threads that ask, invalidate and prefill at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ganglion_actors::{CacheDefaults, CacheService, WorkerThreads};
use ganglion_api::{CacheOptions, Cached, Module, ModuleApi, ModuleError, NoConfig};

use super::functions::statistics;
use crate::support::{LIMITS, factory, spec, start};

const ROOMS: u64 = 6;
const USERS: u64 = 3;

/// What is true of each user in each room; it only grows.
static TRUTH: [[AtomicU64; USERS as usize]; ROOMS as usize] =
    [const { [const { AtomicU64::new(0) }; USERS as usize] }; ROOMS as usize];

type Users = Cached<(i64, i64), u64>;

static MADE: Mutex<Option<(ModuleApi<Reads>, Users)>> = Mutex::new(None);

/// Reads the truth, and waits before it tells it.
struct Reads;

impl Module for Reads {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let read = async |_: &Self, (room, user): (i64, i64)| {
            let read = truth(room, user).load(Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(read)
        };
        let options = CacheOptions::new().prefix_keys();
        let users = api.cached("users", options, read)?;
        *MADE.lock().unwrap() = Some((api.clone(), users));
        Ok(Self)
    }
}

fn truth(room: i64, user: i64) -> &'static AtomicU64 {
    &TRUTH[usize::try_from(room).unwrap()][usize::try_from(user).unwrap()]
}

/// What one thread does again and again.
async fn act(api: &ModuleApi<Reads>, users: &Users) {
    let room = i64::try_from(fastrand::u64(..ROOMS)).unwrap();
    let user = i64::try_from(fastrand::u64(..USERS)).unwrap();
    let all = || 0..i64::try_from(USERS).unwrap();
    let changed: Vec<(i64, u64)> = match fastrand::u8(..9) {
        0..3 => {
            let now = truth(room, user).fetch_add(1, Ordering::SeqCst) + 1;
            api.invalidate_cache(users, &(room, user)).unwrap();
            vec![(user, now)]
        }
        change @ 3..6 => {
            let bump = |user| (user, truth(room, user).fetch_add(1, Ordering::SeqCst) + 1);
            let changed = all().map(bump).collect();
            if change == 3 {
                users.invalidate_all();
            } else {
                api.invalidate_cache(users, &room).unwrap();
            }
            changed
        }
        6 => {
            let mut batch = users.batch();
            let read: Vec<_> = all().map(|user| truth(room, user).load(Ordering::SeqCst)).collect();
            tokio::task::yield_now().await;
            for (user, read) in all().zip(read) {
                batch.prefill(&(room, user), read).unwrap();
            }
            Vec::new()
        }
        7 => {
            // Writes, and says what it wrote.
            let mut batch = users.batch();
            let now = truth(room, user).fetch_add(1, Ordering::SeqCst) + 1;
            tokio::task::yield_now().await;
            if !batch.prefill(&(room, user), now).unwrap() {
                api.invalidate_cache(users, &(room, user)).unwrap();
            }
            vec![(user, now)]
        }
        _ => vec![(user, 0)],
    };
    for (user, least) in changed {
        let found = *users.get((room, user)).await.unwrap();
        assert!(
            found >= least,
            "{found} was out of date: {least} was true before the invalidation"
        );
    }
}

#[actix::test]
async fn nobody_is_given_what_was_out_of_date_when_it_was_invalidated() {
    let limits = CacheDefaults {
        max_entries: 14,
        max_per_module: Some(12),
        ..CacheDefaults::default()
    };
    let caches = Arc::new(CacheService::new(limits));
    let workers = WorkerThreads::start(2).unwrap();
    let _module = start(spec(factory::<Reads>(), LIMITS), &workers, &caches)
        .await
        .unwrap();
    let (api, users) = MADE.lock().unwrap().take().unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (api, users) = (api.clone(), users.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    for _ in 0..4000 {
                        act(&api, &users).await;
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let seen = statistics(&caches, "users");
    assert!(seen.entries <= 12 && seen.evictions > 0 && seen.hits > 0, "{seen:?}");
}
