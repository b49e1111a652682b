//! From modules' specs to a dispatcher that answers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use actix::Actor as _;
use ganglion_actors::{
    CacheDefaults, CacheService, LoadError, ModuleSpec, ModuleState, Surroundings, WorkerThreads, load,
};
use ganglion_api::{Homeserver, OwnedServerName};
use tokio::sync::watch;

use crate::dispatcher::{Dispatcher, Load};
use crate::handle::{DispatchHandle, DispatchWorker, Shared};
use crate::policy::FailureRule;
use crate::resources::ResourceTable;
use crate::route::{RouteError, RoutedModule, RoutingTable};

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
    /// The homeserver.
    pub homeserver: Arc<dyn Homeserver>,
    /// The deadline of a whole chain.
    pub deadline: Duration,
    /// What cached functions have by default.
    pub cache: CacheDefaults,
    /// The global failure rules.
    pub on_failure: Vec<FailureRule>,
    /// The enabled modules, in the order of the file.
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
    // Modules live as long as this, even those that registered nothing but background calls.
    _instances: Vec<Arc<dyn std::any::Any + Send + Sync>>,
}

impl Dispatching {
    /// Makes all modules, in the order of the file, and routes them. Nothing is left of a start that failed.
    ///
    /// Background calls wait for [`activate`](Self::activate).
    ///
    /// # Errors
    /// A constructor failed, or the modules do not go together.
    pub async fn start(plan: DispatchPlan, workers: WorkerThreads) -> Result<Self, StartError> {
        let caches = Arc::new(CacheService::new(plan.cache));
        let (loaded, listen) = watch::channel(false);
        let surroundings = Surroundings {
            server_name: plan.server_name,
            homeserver: plan.homeserver,
            caches: Arc::clone(&caches),
            loaded: listen,
        };
        let mut modules = Modules::default();
        for (position, module) in plan.modules.into_iter().enumerate() {
            let id = module.spec.id.clone();
            let made = load(module.spec, position, &surroundings, &workers).await;
            let made = made.map_err(|error| StartError::Module { id, error })?;
            for (path, resource) in made.registered.resources {
                modules.resources.mount(path, made.handle.clone(), resource);
            }
            modules.handles.0.push(made.handle.clone());
            modules.instances.push(made.instance);
            modules.routed.push(RoutedModule {
                handle: made.handle,
                callbacks: made.registered.callbacks,
                priority: module.priority,
                on_failure: module.on_failure,
            });
        }
        let routes = RoutingTable::new(modules.routed, &plan.on_failure)?;
        let dispatchers = workers
            .indices()
            .zip(workers.arbiters())
            .map(|(index, arbiter)| DispatchWorker {
                index,
                dispatcher: Dispatcher::start_in_arbiter(arbiter, move |_| Dispatcher::new(index)),
                load: Arc::new(Load::default()),
            });
        let shared = Shared {
            routes,
            resources: modules.resources,
            workers: dispatchers.collect(),
            modules: std::mem::take(&mut modules.handles.0),
            turn: AtomicUsize::new(0),
            deadline: plan.deadline,
            caches,
        };
        let handle = DispatchHandle {
            shared: Arc::new(shared),
        };
        Ok(Self {
            handle,
            workers,
            loaded,
            _instances: modules.instances,
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

    /// Stops every module and ends the workers. Calls that wait or run fail as `not_running`.
    pub fn stop(&mut self) {
        for module in self.handle.modules() {
            if module.state() != ModuleState::Stopped {
                module.stop();
            }
        }
        self.workers.stop();
    }
}

impl Drop for Dispatching {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Modules that were made so far.
#[derive(Default)]
struct Modules {
    handles: StopUnlessTaken,
    routed: Vec<RoutedModule>,
    resources: ResourceTable,
    instances: Vec<Arc<dyn std::any::Any + Send + Sync>>,
}

/// Stops the modules of a start that failed.
#[derive(Default)]
struct StopUnlessTaken(Vec<ganglion_actors::ModuleHandle>);

impl Drop for StopUnlessTaken {
    fn drop(&mut self) {
        self.0.iter().for_each(ganglion_actors::ModuleHandle::stop);
    }
}
