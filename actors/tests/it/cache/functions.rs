//! Modules whose cached functions a test makes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ganglion_actors::{CacheService, CacheStatistics, ModuleSpec, WorkerThreads};
use ganglion_api::{Module, ModuleApi, ModuleError, NoConfig};

use crate::support::{LIMITS, Started, factory, spec, start};

/// What the next module's constructor does.
type Make = Box<dyn FnOnce(&ModuleApi<Made>)>;

thread_local! {
    static MAKE: RefCell<Option<Make>> = const { RefCell::new(None) };
    /// The same for all modules of a test, as in a host. They live as long as the process.
    static WORKERS: &'static WorkerThreads = Box::leak(Box::new(WorkerThreads::current()));
}

/// A module that has what the test gives it.
pub(super) struct Made;

impl Module for Made {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        MAKE.with(|make| make.borrow_mut().take()).expect("a test makes it")(api);
        Ok(Self)
    }
}

/// Starts a module `id` with these functions. It lives as long as the process.
pub(super) async fn made<F: 'static>(
    caches: &Arc<CacheService>,
    id: &str,
    make: impl FnOnce(&ModuleApi<Made>) -> F + 'static,
) -> (Started, F) {
    let functions = Rc::new(RefCell::new(None));
    let there = Rc::clone(&functions);
    MAKE.with(|next| *next.borrow_mut() = Some(Box::new(move |api| *there.borrow_mut() = Some(make(api)))));
    let spec = ModuleSpec {
        id: id.into(),
        ..spec(factory::<Made>(), LIMITS)
    };
    let workers = WORKERS.with(|workers| *workers);
    let module = start(spec, workers, caches).await.unwrap();
    let functions = functions.borrow_mut().take().expect("the constructor ran");
    (module, functions)
}

/// Counts how often functions run.
#[derive(Clone, Default)]
pub(super) struct Fills(Arc<AtomicU64>);

impl Fills {
    /// One more; its number.
    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The statistics of one function.
pub(super) fn statistics(caches: &CacheService, function: &str) -> CacheStatistics {
    let mut all = caches.statistics().into_iter();
    all.find(|cache| cache.name == function).expect("there is one")
}
