//! The callers' side: finds the route, picks a worker, holds the deadline.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::Addr;
use ganglion_actors::{CacheService, ModuleHandle, ModuleState, WorkerIndex};
use ganglion_api::{
    CallFailure, FailureKind, LocalFuture, MatrixError, ModuleError, WebRequest, WebResource, WebResponse,
};
use tokio::time::{Instant, timeout_at};

use crate::chain::{Chain, neutral};
use crate::decision::{Decision, Outcome};
use crate::dispatcher::{Dispatch, Dispatcher, Load, Loaded, SharedChain};
use crate::fold::Routed;
use crate::resources::{MountedResource, ResourceTable};
use crate::route::RoutingTable;

/// A worker as its callers see it.
pub(crate) struct DispatchWorker {
    pub(crate) index: WorkerIndex,
    pub(crate) dispatcher: Addr<Dispatcher>,
    pub(crate) load: Arc<Load>,
}

pub(crate) struct Shared {
    pub(crate) routes: RoutingTable,
    pub(crate) resources: ResourceTable,
    pub(crate) modules: Vec<ModuleHandle>,
    pub(crate) workers: Vec<DispatchWorker>,
    pub(crate) turn: AtomicUsize,
    pub(crate) deadline: Duration,
    pub(crate) caches: Arc<CacheService>,
}

/// Asks the modules. Clones are the same dispatcher; they may be used from every thread of a tokio runtime.
#[derive(Clone)]
pub struct DispatchHandle {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for DispatchHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DispatchHandle")
            .field("modules", &self.shared.modules)
            .finish_non_exhaustive()
    }
}

impl DispatchHandle {
    /// Asks the modules on the callback's route, in order, until one decides or the configured deadline passes.
    ///
    /// There is always a decision: a module that gives no answer meets its failure policy. The deadline holds on the
    /// caller's side, so it holds even if a module blocks its worker.
    ///
    /// # Cancellation
    /// Dropping the future withdraws a call that no worker has begun; one that was begun runs to its end or its
    /// deadline. Spawn the future where a call must not be withdrawn.
    ///
    /// # Panics
    /// Outside of a tokio runtime with a timer.
    pub async fn ask<C: Routed>(&self, args: C) -> Decision<C> {
        let route = match self.shared.routes.route::<C>() {
            Some(route) if !route.subscriptions().is_empty() => Arc::clone(route),
            _ => return neutral(&args),
        };
        let deadline = Instant::now() + self.shared.deadline;
        let chain = SharedChain::new(Chain::new(route, args));
        let worker = self.least_loaded();
        let dispatch = Dispatch {
            chain: chain.clone(),
            deadline,
            loaded: Loaded::new(&worker.load),
        };
        // Whether the worker is done, the deadline has passed or the worker has ended: the chain knows what is known.
        let _ = timeout_at(deadline, worker.dispatcher.send(dispatch)).await;
        conclude(&chain, deadline)
    }

    /// Lets a web resource answer a request; its module's budget holds on the caller's side. A Matrix error is an
    /// answer.
    ///
    /// # Errors
    /// The module gave no answer.
    ///
    /// # Cancellation
    /// As for [`ask`](Self::ask).
    pub async fn respond(
        &self,
        mounted: &MountedResource,
        request: WebRequest,
    ) -> Result<Result<WebResponse, MatrixError>, CallFailure> {
        let deadline = Instant::now() + mounted.module.limits().call_timeout;
        let worker = self.least_loaded();
        let resource = LoadedResource {
            resource: Arc::clone(&mounted.resource),
            _loaded: Loaded::new(&worker.load),
        };
        let answer = mounted
            .module
            .respond(worker.index, Arc::new(resource), request, deadline);
        let answer = timeout_at(deadline, answer).await;
        answer.unwrap_or_else(|_elapsed| Err(FailureKind::DeadlineExceeded.into()))
    }

    /// The worker with the fewest dispatches, in turn among equals: one that a module blocks keeps its load, so that
    /// new calls go elsewhere.
    fn least_loaded(&self) -> &DispatchWorker {
        let workers = &self.shared.workers;
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed) % workers.len();
        let (before, after) = workers.split_at(turn);
        let mut best = &workers[turn];
        for worker in after.iter().chain(before) {
            if worker.load.get() < best.load.get() {
                best = worker;
            }
        }
        best
    }

    /// The routes.
    #[must_use]
    pub fn routes(&self) -> &RoutingTable {
        &self.shared.routes
    }

    /// The web resources.
    #[must_use]
    pub fn resources(&self) -> &ResourceTable {
        &self.shared.resources
    }

    /// Every enabled module, in the order of the file.
    #[must_use]
    pub fn modules(&self) -> &[ModuleHandle] {
        &self.shared.modules
    }

    /// The caches of all modules.
    #[must_use]
    pub fn caches(&self) -> &CacheService {
        &self.shared.caches
    }

    /// Whether every enabled module runs.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared
            .modules
            .iter()
            .all(|module| module.state() == ModuleState::Running)
    }

    /// The deadline of a whole chain.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.shared.deadline
    }
}

/// A web resource that counts as its worker's load until the worker is done with it, not only while its caller waits.
struct LoadedResource {
    resource: Arc<dyn WebResource>,
    _loaded: Loaded,
}

impl WebResource for LoadedResource {
    fn respond(&self, request: WebRequest) -> LocalFuture<'_, Result<WebResponse, ModuleError>> {
        self.resource.respond(request)
    }
}

/// Takes the decision of a chain, which is concluded from what is known if its worker did not.
fn conclude<C: Routed>(chain: &SharedChain<C>, deadline: Instant) -> Decision<C> {
    let mut chain = chain.lock();
    let now = Instant::now();
    if now >= deadline {
        chain.expire(now);
    } else {
        chain.abandon();
    }
    // A chain that was expired or abandoned is decided, and nobody else takes the decision. Were it otherwise, nobody
    // would have denied and nobody would have allowed: an error.
    chain.take_decision().unwrap_or_else(|| Decision {
        outcome: Outcome::Error(MatrixError::internal()),
        decided_by: None,
        steps: Vec::new(),
    })
}
