//! The cache service, through a module's own cached functions.

mod ages;
mod drops;
mod functions;
mod prefill;
mod prefixes;
mod rooms;
mod threads;
mod weights;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use ganglion_actors::{CacheDefaults, CacheService, LoadError, ModuleCommand, WorkerThreads};
use ganglion_api::{
    CacheArgs as _, CacheOptions, Cached, Module, ModuleApi, ModuleError, NoConfig, SpamCheckerCallbacks, UserId,
    UserMayCreateRoom,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::support::{LIMITS, Started, caches, factory, spec, start};

/// Gives a test hold of the module's cached functions: tests run on threads of their own, and so does the module.
#[derive(Clone)]
struct Functions {
    api: ModuleApi<M>,
    counted: Cached<String, u64>,
    pair: Cached<(String, i64), u64>,
    seen: Arc<Seen>,
}

thread_local! {
    static FUNCTIONS: std::cell::RefCell<Option<Functions>> = const { std::cell::RefCell::new(None) };
}

/// Counts how often functions run; a gate holds them.
struct Seen {
    fills: AtomicU64,
    gate: Semaphore,
}

struct M {
    seen: Arc<Seen>,
}

impl Module for M {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(async |m: &M, _: &_| {
            // Opens the gate for one fill.
            m.seen.gate.add_permits(1);
            Ok(ganglion_api::Verdict::Pass)
        }))?;
        let counted = api.cached("counted", CacheOptions::new().max_entries(10), Self::counted)?;
        let pair = api.cached("pair", CacheOptions::new().uncached_arg(1), Self::pair)?;
        api.register_cached_function(&counted);
        let seen = Arc::new(Seen {
            fills: AtomicU64::new(0),
            gate: Semaphore::new(0),
        });
        FUNCTIONS.with(|functions| {
            *functions.borrow_mut() = Some(Functions {
                api: api.clone(),
                counted,
                pair,
                seen: Arc::clone(&seen),
            });
        });
        Ok(Self { seen })
    }
}

impl M {
    async fn counted(&self, key: String) -> Result<u64, ModuleError> {
        let fill = self.seen.fills.fetch_add(1, Ordering::SeqCst) + 1;
        match key.as_str() {
            "gated" => self.seen.gate.acquire().await?.forget(),
            "error" => return Err(ModuleError::message("no such key")),
            "panic" => panic!("a bad fill"),
            _ => {}
        }
        Ok(fill)
    }

    async fn pair(&self, _: (String, i64)) -> Result<u64, ModuleError> {
        Ok(self.seen.fills.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

struct Loaded {
    module: Started,
    functions: Functions,
    caches: Arc<CacheService>,
}

async fn loaded_with(caches: Arc<CacheService>) -> Loaded {
    let workers = WorkerThreads::current();
    let module = start(spec(factory::<M>(), LIMITS), &workers, &caches).await.unwrap();
    // The instance lives as long as its threads.
    std::mem::forget(workers);
    let functions = FUNCTIONS.with(|functions| functions.borrow_mut().take()).unwrap();
    Loaded {
        module,
        functions,
        caches,
    }
}

async fn loaded() -> Loaded {
    loaded_with(caches()).await
}

impl Loaded {
    fn instance(&self) -> &Seen {
        &self.functions.seen
    }

    fn fills(&self) -> u64 {
        self.instance().fills.load(Ordering::SeqCst)
    }

    async fn get(&self, key: &str) -> Result<u64, String> {
        self.functions
            .counted
            .get(key.to_owned())
            .await
            .map(|value| *value)
            .map_err(|error| error.to_string())
    }

    /// Waits until a fill has begun.
    async fn until_fills(&self, count: u64) {
        while self.fills() < count {
            tokio::task::yield_now().await;
        }
    }
}

#[actix::test]
async fn a_hundred_concurrent_misses_make_one_fill() {
    let m = loaded().await;
    let (values, ()) = tokio::join!(join_all((0..100).map(|_| m.get("gated"))), async {
        m.until_fills(1).await;
        m.instance().gate.add_permits(1);
    });
    assert_eq!(values, vec![Ok(1); 100]);
    assert_eq!(m.get("gated").await, Ok(1));
    assert_eq!(m.fills(), 1);
    let statistics = &m.caches.statistics()[0];
    assert_eq!(
        (
            &*statistics.name,
            statistics.hits,
            statistics.misses,
            statistics.entries
        ),
        ("counted", 1, 100, 1)
    );
}

#[actix::test]
async fn an_invalidation_during_a_fill_is_not_lost() {
    let m = loaded().await;
    let (first, second) = tokio::join!(m.get("gated"), async {
        m.until_fills(1).await;
        m.functions
            .api
            .invalidate_cache(&m.functions.counted, &"gated")
            .unwrap();
        // A call after the invalidation computes anew, beside the first.
        let second = m.get("gated");
        let (second, ()) = tokio::join!(second, async {
            m.until_fills(2).await;
            m.instance().gate.add_permits(2);
        });
        second
    });
    // Who waited before still gets the old result; it is not what is kept.
    assert_eq!((first, second), (Ok(1), Ok(2)));
    assert_eq!(m.get("gated").await, Ok(2));
    assert_eq!(m.fills(), 2);
}

#[actix::test]
async fn an_invalidation_of_all_during_a_fill_is_not_lost() {
    let m = loaded().await;
    let (first, ()) = tokio::join!(m.get("gated"), async {
        m.until_fills(1).await;
        m.functions.counted.invalidate_all();
        m.instance().gate.add_permits(2);
    });
    assert_eq!(first, Ok(1));
    assert_eq!(m.get("gated").await, Ok(2));
}

#[actix::test]
async fn errors_and_panics_reach_all_who_wait_and_are_not_kept() {
    let m = loaded().await;
    for (key, text) in [
        ("error", "no such key"),
        ("panic", "the cached function panicked: a bad fill"),
    ] {
        let before = m.fills();
        let errors = join_all((0..3).map(|_| m.get(key))).await;
        assert_eq!(errors, vec![Err(text.to_owned()); 3]);
        assert_eq!(m.fills(), before + 1);
        assert_eq!(m.get(key).await, Err(text.to_owned()));
        assert_eq!(m.fills(), before + 2);
        // After a panic the module is made anew, and its caches with it.
        if key == "error" {
            let statistics = &m.caches.statistics()[0];
            assert_eq!((statistics.failures, statistics.entries), (2, 0), "{statistics:?}");
        }
    }
}

#[actix::test]
async fn a_caller_who_gives_up_does_not_stop_the_fill() {
    let m = loaded().await;
    let mut gives_up = Box::pin(m.get("gated"));
    assert!(futures_util::poll!(&mut gives_up).is_pending());
    m.until_fills(1).await;
    drop(gives_up);
    let (value, ()) = tokio::join!(m.get("gated"), async { m.instance().gate.add_permits(1) });
    assert_eq!((value, m.fills()), (Ok(1), 1));
}

#[actix::test]
async fn uncached_arguments_share_a_result() {
    let m = loaded().await;
    let get = async |key: &str, number| *m.functions.pair.get((key.to_owned(), number)).await.unwrap();
    assert_eq!((get("a", 1).await, get("a", 2).await, get("b", 1).await), (1, 1, 2));
    m.functions.api.invalidate_cache(&m.functions.pair, &("a",)).unwrap();
    assert_eq!((get("a", 3).await, get("b", 3).await), (3, 2));
    // A key that can fit no result is no silent loss.
    let error = m
        .functions
        .api
        .invalidate_cache(&m.functions.pair, &("a", 1_i64))
        .unwrap_err();
    assert_eq!(error.to_string(), "a key of \"pair\" has 1 parts, this one has 2");
}

#[actix::test]
async fn a_cache_keeps_no_more_than_its_entries() {
    let m = loaded().await;
    for key in 0..100 {
        m.get(&key.to_string()).await.unwrap();
    }
    let statistics = &m.caches.statistics()[0];
    assert!(statistics.entries <= 10, "{statistics:?}");
    assert_eq!(
        (statistics.max_entries, statistics.evictions >= 90),
        (Some(10), true),
        "{statistics:?}"
    );
}

#[actix::test]
async fn another_node_can_invalidate_registered_functions_only() {
    let m = loaded().await;
    m.get("x").await.unwrap();
    m.functions.pair.get(("a".into(), 1)).await.unwrap();
    let seen = Arc::new(std::sync::Mutex::new(None));
    let key = {
        // The key as the publishing side names it.
        struct Publisher(Arc<std::sync::Mutex<Option<ganglion_api::CacheKey>>>);
        impl ganglion_actors::InvalidationPublisher for Publisher {
            fn publish(&self, module: &str, function: &str, key: Option<&ganglion_api::CacheKey>) {
                assert_eq!((module, function), ("m", "counted"));
                *self.0.lock().unwrap() = key.cloned();
            }
        }
        let publisher = Arc::new(Publisher(Arc::clone(&seen)));
        let there = Arc::new(CacheService::with_publisher(CacheDefaults::default(), publisher));
        let there = loaded_with(there).await;
        there
            .functions
            .api
            .invalidate_cache(&there.functions.counted, &"x")
            .unwrap();
        there
            .functions
            .api
            .invalidate_cache(&there.functions.pair, &("a",))
            .unwrap();
        seen.lock()
            .unwrap()
            .take()
            .expect("an invalidation of a registered function is published")
    };
    assert_eq!(key, "x".key());
    assert!(m.caches.invalidate("m", "counted", Some(&key)));
    assert_eq!(m.get("x").await, Ok(3));
    assert!(!m.caches.invalidate("m", "pair", None));
    assert!(!m.caches.invalidate("nobody", "counted", None));
}

/// Registers one name twice.
struct Twice;

impl Module for Twice {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let function = async |_: &Self, _: String| Ok(1_u8);
        api.cached("name", CacheOptions::new(), function)?;
        api.cached("name", CacheOptions::new(), function)?;
        Ok(Self)
    }
}

#[actix::test]
async fn a_name_is_taken_once_within_a_module() {
    let failed = start(spec(factory::<Twice>(), LIMITS), &WorkerThreads::current(), &caches()).await;
    let Err(LoadError::Constructor(error)) = failed else {
        panic!("it loaded")
    };
    assert_eq!(error.to_string(), "cached function \"name\": the name is taken");
}

/// Keeps its cached function and not its api.
struct Forgetful {
    function: Cached<String, usize>,
    alive: Arc<()>,
}

thread_local! {
    static ALIVE: std::cell::RefCell<std::sync::Weak<()>> = std::cell::RefCell::default();
}

impl Module for Forgetful {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let function = api.cached("length", CacheOptions::new(), async |_: &Self, text: String| {
            Ok(text.len())
        })?;
        let length = async |m: &Self, create: &UserMayCreateRoom| {
            assert_eq!(*m.function.get(create.user_id.to_string()).await?, 4);
            assert_eq!(Arc::strong_count(&m.alive), 1);
            Ok(ganglion_api::Verdict::Pass)
        };
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(length))?;
        let alive = Arc::new(());
        ALIVE.with(|seen| *seen.borrow_mut() = Arc::downgrade(&alive));
        Ok(Self { function, alive })
    }
}

#[actix::test]
async fn a_module_need_not_keep_its_api_for_its_cached_functions_and_is_not_kept_by_them() {
    let workers = WorkerThreads::current();
    let module = start(spec(factory::<Forgetful>(), LIMITS), &workers, &caches())
        .await
        .unwrap();
    let create = UserMayCreateRoom::new(UserId::parse("@a:b").unwrap(), ganglion_api::JsonObject::new());
    let deadline = Instant::now() + Duration::from_secs(60);
    assert_eq!(module.ask(create, deadline).await, Ok(ganglion_api::Verdict::Pass));
    module.handle.command(ModuleCommand::Disable).await.unwrap();
    assert!(ALIVE.with(|alive| alive.borrow().upgrade()).is_none());
}

#[actix::test]
async fn a_module_that_is_made_anew_begins_with_empty_caches() {
    let m = loaded().await;
    m.get("x").await.unwrap();
    assert_eq!(m.caches.statistics().len(), 2);
    m.module.handle.command(ModuleCommand::Restart).await.unwrap();
    let functions = FUNCTIONS.with(|functions| functions.borrow_mut().take()).unwrap();
    assert_eq!(*functions.counted.get("x".to_owned()).await.unwrap(), 1);
    let statistics = m.caches.statistics();
    let misses: Vec<_> = statistics.iter().map(|cache| (&*cache.name, cache.misses)).collect();
    assert_eq!(misses, [("counted", 1), ("pair", 0)]);
}
