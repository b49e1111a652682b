//! From modules' specs to a dispatcher that answers.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ganglion_actors::{
    BreakerMode, CacheDefaults, CacheService, LoadError, ModuleHandle, ModuleSpec, ModuleState, Router, Surroundings,
    WorkerListener, WorkerThreads,
};
use ganglion_api::{Homeserver, OwnedServerName};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::continuations::Continuations;
use crate::handle::{DispatchHandle, DispatchWorkers, Shared};
use crate::policy::FailureRule;
use crate::route::RouteError;
use crate::routing::{Place, Routing};

/// A module with its place in the routes.
#[derive(Debug, Clone)]
pub struct PlannedModule {
    /// What is made.
    pub spec: ModuleSpec,
    /// Higher is asked first; ties keep the order of the file.
    pub priority: i64,
    /// Its failure rules.
    pub on_failure: Vec<FailureRule>,
}

/// What a dispatcher is started with.
#[derive(Clone)]
pub struct DispatchPlan {
    /// The homeserver's name.
    pub server_name: OwnedServerName,
    /// What relative paths in modules' configs are relative to: the directory of the config file.
    pub directory: PathBuf,
    /// The homeserver.
    pub homeserver: Arc<dyn Homeserver>,
    /// The deadline of a whole chain.
    pub deadline: Duration,
    /// How many calls may be on the way from a question to a module, itself and those of modules that caused it.
    pub max_depth: usize,
    /// What cached functions have by default.
    pub cache: CacheDefaults,
    /// The global failure rules.
    pub on_failure: Vec<FailureRule>,
    /// The modules, in the order of the file.
    pub modules: Vec<PlannedModule>,
}

/// Why a dispatcher did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A worker thread could not be started.
    #[error("cannot start worker threads")]
    Workers(#[source] io::Error),
    /// A module could not be made.
    #[error("module {id}: {error}")]
    Module {
        /// The module's id.
        id: String,
        /// What went wrong.
        error: LoadError,
    },
    /// The modules do not go together.
    #[error(transparent)]
    Routes(#[from] RouteError),
}

/// A dispatcher that was started, with the threads that it owns.
pub struct Dispatching {
    handle: DispatchHandle,
    workers: WorkerThreads,
    loaded: watch::Sender<bool>,
}

impl Dispatching {
    /// Makes all enabled modules, in the order of the file, and routes them. Nothing is left of a start that failed.
    ///
    /// Background calls wait for [`activate`](Self::activate).
    ///
    /// # Errors
    /// A constructor failed, or the modules do not go together.
    pub async fn start(plan: DispatchPlan, mut workers: WorkerThreads) -> Result<Self, StartError> {
        let places = plan.modules.iter().map(|module| Place {
            priority: module.priority,
            on_failure: module.on_failure.clone(),
            breakers_refuse: module.spec.breaker.mode == BreakerMode::Enabled,
        });
        let routing = Routing::new(places.collect(), plan.on_failure, plan.server_name.clone());
        let routing = Arc::new(routing);
        let caches = Arc::new(CacheService::new(plan.cache));
        let (loaded, listen) = watch::channel(false);
        let surroundings = Surroundings {
            server_name: plan.server_name,
            directory: plan.directory,
            homeserver: plan.homeserver,
            caches: Arc::clone(&caches),
            loaded: listen,
            router: Arc::clone(&routing) as Arc<dyn Router>,
        };
        let specs = plan.modules.into_iter().map(|module| module.spec);
        let mut modules = Vec::new();
        let started = start_modules(specs, &surroundings, &workers, &mut modules).await;
        if let Err(error) = started.and_then(|()| Ok(routing.open()?)) {
            stop(&modules, &routing, &mut workers);
            return Err(error);
        }
        let threads = workers.workers();
        let dispatchers = Arc::new(DispatchWorkers::start(threads.iter().map(|(_, thread)| thread)));
        let listener: Weak<dyn WorkerListener> = Arc::downgrade(&dispatchers) as _;
        workers.listen(listener);
        for ((worker, thread), (_, before)) in workers.workers().into_iter().zip(&threads) {
            // Replaced before anybody listened.
            if !Arc::ptr_eq(&thread, before) {
                dispatchers.replaced(worker, &thread);
            }
        }
        let shared = Shared {
            routing,
            modules,
            workers: dispatchers,
            turn: AtomicUsize::new(0),
            deadline: plan.deadline,
            max_depth: plan.max_depth,
            too_deep: AtomicU64::new(0),
            caches,
            continuations: Continuations::default(),
            stopped: CancellationToken::new(),
        };
        let handle = DispatchHandle {
            shared: Arc::new(shared),
        };
        Ok(Self {
            handle,
            workers,
            loaded,
        })
    }

    /// Lets the modules' background calls begin.
    pub fn activate(&self) {
        self.loaded.send_replace(true);
    }

    /// Asks the modules.
    #[must_use]
    pub fn handle(&self) -> &DispatchHandle {
        &self.handle
    }

    /// Stops every module and ends the threads. Calls that wait or run fail as `not_running`.
    pub fn stop(&mut self) {
        let shared = &self.handle.shared;
        if !shared.stopped.is_cancelled() {
            stop(&shared.modules, &shared.routing, &mut self.workers);
            shared.stopped.cancel();
        }
    }
}

impl Drop for Dispatching {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts one after the other; those that were started are in `modules`, also after an error.
async fn start_modules(
    specs: impl Iterator<Item = ModuleSpec>,
    surroundings: &Surroundings,
    workers: &WorkerThreads,
    modules: &mut Vec<ModuleHandle>,
) -> Result<(), StartError> {
    for (index, spec) in specs.enumerate() {
        let id = spec.id.clone();
        let (module, made) = ModuleHandle::start(spec, index, surroundings, workers);
        modules.push(module);
        let made = made.await.unwrap_or(Err(LoadError::ThreadEnded));
        made.map_err(|error| StartError::Module { id, error })?;
    }
    Ok(())
}

fn stop(modules: &[ModuleHandle], routing: &Routing, workers: &mut WorkerThreads) {
    for module in modules {
        if module.state() != ModuleState::Stopped {
            module.stop();
        }
    }
    routing.close();
    workers.stop();
}
