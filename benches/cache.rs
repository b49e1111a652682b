//! What cached functions of modules cost, beside the caches that others would use.
//!
//! `cargo xtask bench cache [--quick]`; `cargo bench -p ganglion-benches --bench cache` prints the tables only.
//!
//! A cached function is asked from a task on a worker's thread, where modules run. Its floor is bare moka, which
//! keeps results: synchronous where nothing is waited for, else asynchronous. All caches keep 10 000 results, but for
//! dashmap, which keeps what it is not told to drop.
//!
//! - hit: the results of 512 keys are there, and asked for in turn. By text, the caller of a cached function gives its key away,
//!   so it makes a copy each time;
//! - miss: a key that was not asked for before. The function's answer is ready at once;
//! - 64 at once: callers that ask side by side for one key that was not asked for before. The function waits once before it
//!   answers, and runs once: all get the same result;
//! - forget one, forget all: an invalidation, and then a miss;
//! - hit, with an idle time: results that nobody asks for are forgotten after an hour;
//! - hit, by two numbers; forget a prefix: the first number is a prefix. Caches of others have none, so that row has no floor.

use std::cell::Cell;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use actix::ArbiterHandle;
use dashmap::DashMap;
use futures_util::future::join_all;
use ganglion_benches::caching::{self, Functions, HOUR, MAX_ENTRIES, wait_once};
use ganglion_benches::driver::Driver;
use ganglion_benches::group::Group;
use ganglion_benches::host::Threads;
use ganglion_benches::report::{Comparison, Goal, cells, table};
use ganglion_benches::rounds::{Results, Rows};
use tokio::sync::OnceCell;

/// How many keys are hit.
const KEYS: i64 = 512;

/// How many callers ask side by side.
const AT_ONCE: usize = 64;

/// What is done, and by whom.
type Row = (&'static str, &'static str);

const OURS: &str = "cached function";
const MOKA: &str = "moka";
const MOKA_ASYNC: &str = "moka, async";
const QUICK: &str = "quick_cache";
const DASHMAP: &str = "dashmap";

const HIT: &str = "hit, by number";
const HIT_TEXT: &str = "hit, by text";
const HIT_IDLE: &str = "hit, with an idle time";
const HIT_PAIR: &str = "hit, by two numbers";
const MISS: &str = "miss";
const FLIGHT: &str = "64 at once for one key";
const FORGET: &str = "forget one, and miss";
const FORGET_PREFIX: &str = "forget a prefix, and miss";
const FORGET_ALL: &str = "forget all, and miss";

fn main() -> ExitCode {
    let Some(mut group) = Group::begin("cache") else {
        return ExitCode::from(2);
    };
    group.place(&["moka", "quick_cache", "dashmap"], &group.paced());
    let (host, functions) = caching::start();
    let threads = Threads::start(1);
    let mut rows = Rows::new();
    let here = threads.arbiter(0);
    ours(&mut rows, host.threads()[0].arbiter(), &functions);
    moka(&mut rows, &here);
    moka_async(&mut rows, &here);
    quick_cache(&mut rows, &here);
    dashmap(&mut rows, &here);
    let results = rows.measure(group.pace(), |round| group.progress(&format!("round {round}")));
    group.say(&written(&results));
    for comparison in comparisons(&results) {
        group.compare(comparison);
    }
    group.end()
}

/// What a row asks with: the cache, and the next key.
struct Asked<T> {
    cache: T,
    next: Cell<i64>,
    texts: Vec<String>,
}

impl<T> Asked<T> {
    /// A key that was not asked for before.
    fn fresh(&self) -> i64 {
        self.next.set(self.next.get() + 1);
        // Not those that are hit.
        self.next.get() + KEYS
    }

    /// One that is there.
    fn known(&self) -> i64 {
        self.next.set((self.next.get() + 1) % KEYS);
        self.next.get()
    }

    fn known_text(&self) -> &String {
        &self.texts[usize::try_from(self.known()).unwrap_or_default()]
    }
}

fn text(key: i64) -> String {
    format!("@user{key}:example.com")
}

/// Adds a row that asks one at a time.
fn add<T: Clone + Send + 'static>(
    rows: &mut Rows<'_, Row>,
    row: Row,
    place: &ArbiterHandle,
    cache: &T,
    ask: impl AsyncFn(&Asked<T>) + Send + 'static,
) {
    let cache = cache.clone();
    let set_up = async move || Asked {
        cache,
        next: Cell::new(0),
        texts: (0..KEYS).map(text).collect(),
    };
    let driver = Driver::start(place, set_up, ask);
    rows.add(row, move |count| driver.run(count, 1));
}

/// All were given the same.
fn assert_same<T: PartialEq>(results: &[T]) {
    assert_eq!(results.len(), AT_ONCE);
    assert!(results.iter().all(|result| *result == results[0]));
}

/// Lets the results be there that are hit.
fn fill(worker: &ArbiterHandle, functions: &Functions) {
    let functions = functions.clone();
    let driver = Driver::start(
        worker,
        async move || functions,
        async |functions: &Functions| {
            for key in 0..KEYS {
                functions.number.get(key).await.expect("a result");
                functions.idle.get(key).await.expect("a result");
                functions.pair.get((key % 8, key)).await.expect("a result");
                functions.text.get(text(key)).await.expect("a result");
            }
        },
    );
    let _ = driver.run(1, 1);
}

fn ours(rows: &mut Rows<'_, Row>, worker: &ArbiterHandle, functions: &Functions) {
    fill(worker, functions);
    add(rows, (HIT, OURS), worker, functions, async |asked| {
        let key = asked.known();
        assert_eq!(*asked.cache.number.get(key).await.expect("a result"), key);
    });
    add(rows, (HIT_TEXT, OURS), worker, functions, async |asked| {
        let key = asked.known_text();
        let found = asked.cache.text.get(key.clone()).await.expect("a result");
        assert_eq!(*found, key.len());
    });
    add(rows, (HIT_IDLE, OURS), worker, functions, async |asked| {
        let key = asked.known();
        assert_eq!(*asked.cache.idle.get(key).await.expect("a result"), key);
    });
    add(rows, (HIT_PAIR, OURS), worker, functions, async |asked| {
        let key = asked.known();
        assert_eq!(*asked.cache.pair.get((key % 8, key)).await.expect("a result"), key);
    });
    add(rows, (MISS, OURS), worker, functions, async |asked| {
        let key = asked.fresh();
        assert_eq!(*asked.cache.fresh.get(key).await.expect("a result"), key);
    });
    add(rows, (FLIGHT, OURS), worker, functions, async |asked| {
        let key = asked.fresh();
        let callers = (0..AT_ONCE).map(|_| asked.cache.slow.get(key));
        let found: Result<Vec<_>, _> = join_all(callers).await.into_iter().collect();
        let found: Vec<_> = found.expect("results").iter().map(Arc::as_ptr).collect();
        assert_same(&found);
    });
    add(rows, (FORGET, OURS), worker, functions, async |asked| {
        let Functions { api, fresh, .. } = &asked.cache;
        api.invalidate_cache(fresh, &-1_i64).expect("a key of one part");
        assert_eq!(*fresh.get(-1).await.expect("a result"), -1);
    });
    add(rows, (FORGET_PREFIX, OURS), worker, functions, async |asked| {
        let Functions { api, pair, .. } = &asked.cache;
        api.invalidate_cache(pair, &-1_i64).expect("a prefix");
        assert_eq!(*pair.get((-1, -1)).await.expect("a result"), -1);
    });
    add(rows, (FORGET_ALL, OURS), worker, functions, async |asked| {
        let Functions { many, .. } = &asked.cache;
        many.invalidate_all();
        assert_eq!(*many.get(-1).await.expect("a result"), -1);
    });
}

fn moka(rows: &mut Rows<'_, Row>, here: &ArbiterHandle) {
    type Moka<K, V> = moka::sync::Cache<K, Arc<V>>;
    let numbers: Moka<i64, i64> = Moka::new(MAX_ENTRIES);
    let texts: Moka<String, usize> = Moka::new(MAX_ENTRIES);
    for key in 0..KEYS {
        numbers.insert(key, Arc::new(key));
        texts.insert(text(key), Arc::new(text(key).len()));
    }
    add(rows, (HIT, MOKA), here, &numbers, async |asked| {
        let key = asked.known();
        assert_eq!(*asked.cache.get(&key).expect("a result"), key);
    });
    add(rows, (HIT_TEXT, MOKA), here, &texts, async |asked| {
        let key = asked.known_text();
        assert_eq!(*asked.cache.get(key).expect("a result"), key.len());
    });
    let idle: Moka<i64, i64> = moka::sync::Cache::builder()
        .max_capacity(MAX_ENTRIES)
        .time_to_idle(HOUR)
        .build();
    let pairs: Moka<(i64, i64), i64> = Moka::new(MAX_ENTRIES);
    for key in 0..KEYS {
        idle.insert(key, Arc::new(key));
        pairs.insert((key % 8, key), Arc::new(key));
    }
    add(rows, (HIT_IDLE, MOKA), here, &idle, async |asked| {
        let key = asked.known();
        assert_eq!(*asked.cache.get(&key).expect("a result"), key);
    });
    add(rows, (HIT_PAIR, MOKA), here, &pairs, async |asked| {
        let key = asked.known();
        assert_eq!(*asked.cache.get(&(key % 8, key)).expect("a result"), key);
    });
    add(rows, (MISS, MOKA), here, &Moka::new(MAX_ENTRIES), async |asked| {
        let key = asked.fresh();
        black_box(asked.cache.get_with(key, || Arc::new(key)));
    });
    add(rows, (FORGET, MOKA), here, &Moka::new(MAX_ENTRIES), async |asked| {
        asked.cache.invalidate(&-1);
        black_box(asked.cache.get_with(-1, || Arc::new(-1)));
    });
    add(rows, (FORGET_ALL, MOKA), here, &Moka::new(MAX_ENTRIES), async |asked| {
        asked.cache.invalidate_all();
        black_box(asked.cache.get_with(-1, || Arc::new(-1)));
    });
}

fn moka_async(rows: &mut Rows<'_, Row>, here: &ArbiterHandle) {
    type Moka = moka::future::Cache<i64, Arc<i64>>;
    add(rows, (MISS, MOKA_ASYNC), here, &Moka::new(MAX_ENTRIES), async |asked| {
        let key = asked.fresh();
        black_box(asked.cache.get_with(key, async { Arc::new(key) }).await);
    });
    add(
        rows,
        (FLIGHT, MOKA_ASYNC),
        here,
        &Moka::new(MAX_ENTRIES),
        async |asked| {
            let key = asked.fresh();
            let fill = || async move {
                wait_once().await;
                Arc::new(key)
            };
            let callers = (0..AT_ONCE).map(|_| asked.cache.get_with(key, fill()));
            let found: Vec<_> = join_all(callers).await.iter().map(Arc::as_ptr).collect();
            assert_same(&found);
        },
    );
}

fn quick_cache(rows: &mut Rows<'_, Row>, here: &ArbiterHandle) {
    type Quick<K, V> = quick_cache::sync::Cache<K, Arc<V>>;
    let fresh = || Arc::new(Quick::<i64, i64>::new(MAX_ENTRIES as usize));
    let numbers = fresh();
    let texts = Arc::new(Quick::<String, usize>::new(MAX_ENTRIES as usize));
    for key in 0..KEYS {
        numbers.insert(key, Arc::new(key));
        texts.insert(text(key), Arc::new(text(key).len()));
    }
    add(rows, (HIT, QUICK), here, &numbers, async |asked| {
        let key = asked.known();
        assert_eq!(*asked.cache.get(&key).expect("a result"), key);
    });
    add(rows, (HIT_TEXT, QUICK), here, &texts, async |asked| {
        let key = asked.known_text();
        assert_eq!(*asked.cache.get(key).expect("a result"), key.len());
    });
    add(rows, (MISS, QUICK), here, &fresh(), async |asked| {
        let key = asked.fresh();
        let fill = async { Ok::<_, ()>(Arc::new(key)) };
        black_box(asked.cache.get_or_insert_async(&key, fill).await).expect("a result");
    });
    add(rows, (FLIGHT, QUICK), here, &fresh(), async |asked| {
        let key = asked.fresh();
        let fill = || async move {
            wait_once().await;
            Ok::<_, ()>(Arc::new(key))
        };
        let callers = (0..AT_ONCE).map(|_| asked.cache.get_or_insert_async(&key, fill()));
        let found: Result<Vec<_>, ()> = join_all(callers).await.into_iter().collect();
        let found: Vec<_> = found.expect("results").iter().map(Arc::as_ptr).collect();
        assert_same(&found);
    });
    add(rows, (FORGET, QUICK), here, &fresh(), async |asked| {
        asked.cache.remove(&-1);
        let fill = async { Ok::<_, ()>(Arc::new(-1)) };
        black_box(asked.cache.get_or_insert_async(&-1, fill).await).expect("a result");
    });
}

/// A map is no cache: it is here for how fast a look into shared memory can be.
fn dashmap(rows: &mut Rows<'_, Row>, here: &ArbiterHandle) {
    let numbers = Arc::new(DashMap::new());
    let texts = Arc::new(DashMap::new());
    for key in 0..KEYS {
        numbers.insert(key, Arc::new(key));
        texts.insert(text(key), Arc::new(text(key).len()));
    }
    add(rows, (HIT, DASHMAP), here, &numbers, async |asked| {
        let key = asked.known();
        let found = asked.cache.get(&key).map(|found| Arc::clone(&found));
        assert_eq!(*found.expect("a result"), key);
    });
    add(rows, (HIT_TEXT, DASHMAP), here, &texts, async |asked| {
        let key = asked.known_text();
        let found = asked.cache.get(key).map(|found| Arc::clone(&found));
        assert_eq!(*found.expect("a result"), key.len());
    });
    let fresh = Arc::new(DashMap::new());
    add(rows, (MISS, DASHMAP), here, &fresh, async |asked| {
        let key = asked.fresh();
        let found = asked
            .cache
            .get(&key)
            .map(|found: dashmap::mapref::one::Ref<'_, i64, Arc<i64>>| Arc::clone(&found));
        if found.is_none() {
            asked.cache.insert(key, Arc::new(key));
            asked.cache.remove(&(key - MAX_ENTRIES as i64));
        }
    });
    let flights: Arc<DashMap<i64, Arc<OnceCell<i64>>>> = Arc::default();
    add(rows, (FLIGHT, DASHMAP), here, &flights, async |asked| {
        let key = asked.fresh();
        let caller = async || {
            let cell = Arc::clone(&asked.cache.entry(key).or_default());
            let fill = async || {
                wait_once().await;
                key
            };
            std::ptr::from_ref(cell.get_or_init(fill).await)
        };
        let found = join_all((0..AT_ONCE).map(|_| caller())).await;
        assert_same(&found);
        asked.cache.remove(&(key - MAX_ENTRIES as i64));
    });
}

fn written(results: &Results<Row>) -> String {
    let row = |((what, who), series): (&Row, _)| {
        [vec![(*what).to_owned(), (*who).to_owned()], cells(series).to_vec()].concat()
    };
    let mut rows: Vec<_> = results.each().map(row).collect();
    let order = [
        HIT,
        HIT_TEXT,
        HIT_IDLE,
        HIT_PAIR,
        MISS,
        FLIGHT,
        FORGET,
        FORGET_PREFIX,
        FORGET_ALL,
    ];
    rows.sort_by_key(|row| order.iter().position(|what| *what == row[0]));
    table(&["", "", "once", "spread"], &rows)
}

fn comparisons(results: &Results<Row>) -> Vec<Comparison> {
    let lines = [
        (HIT, MOKA, Some(Goal::AtMost(1.3)), &[QUICK, DASHMAP][..]),
        (HIT_TEXT, MOKA, Some(Goal::AtMost(1.3)), &[QUICK, DASHMAP]),
        (HIT_IDLE, MOKA, Some(Goal::AtMost(1.3)), &[]),
        (HIT_PAIR, MOKA, Some(Goal::AtMost(1.3)), &[]),
        (MISS, MOKA_ASYNC, None, &[QUICK, DASHMAP]),
        (FLIGHT, MOKA_ASYNC, None, &[QUICK, DASHMAP]),
        (FORGET, MOKA, None, &[QUICK]),
        (FORGET_ALL, MOKA, None, &[]),
    ];
    let line = |(what, floor, goal, peers): (&'static str, &'static str, Option<Goal>, &[&'static str])| {
        let of = |who| results.of(&(what, who));
        let peers = peers.iter().map(|peer| (*peer, of(peer)));
        Comparison::of(what, goal, of(OURS), (floor, of(floor))).beside(of(OURS), peers)
    };
    lines.into_iter().map(line).collect()
}
