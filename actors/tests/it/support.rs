//! Starts modules under their supervisors, with a router that keeps what it is told.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ganglion_actors::{
    Asker, Asking, BreakerSettings, CacheDefaults, CacheService, Course, Incarnation, LoadError, ModuleHandle,
    ModuleLimits, ModuleSpec, Moment, RestartSettings, Router, Surroundings, Tier, Worker, WorkerThreads,
};
use ganglion_api::{
    CallFailure, Callback, Module, ModuleFactory, NotConnected, Registered, Registry, ServerName, Subscriber,
};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

pub(crate) const LIMITS: ModuleLimits = ModuleLimits {
    call_timeout: Duration::from_secs(1),
    max_in_flight: 4,
    mailbox: 1024,
    start_timeout: Duration::from_secs(30),
};

/// Keeps the one module that is routed.
#[derive(Default)]
pub(crate) struct OneRoute(Mutex<Option<(Arc<Incarnation>, Arc<Registered>)>>);

impl OneRoute {
    fn lock(&self) -> MutexGuard<'_, Option<(Arc<Incarnation>, Arc<Registered>)>> {
        self.0.lock().unwrap()
    }
}

impl Router for OneRoute {
    fn route(&self, incarnation: &Arc<Incarnation>, registered: Arc<Registered>) -> Result<(), String> {
        *self.lock() = Some((Arc::clone(incarnation), registered));
        Ok(())
    }

    fn vacate(&self, vacant: &Arc<Incarnation>) {
        let mut routed = self.lock();
        if let Some((incarnation, registered)) = &mut *routed {
            *incarnation = Arc::clone(vacant);
            *registered = Arc::new(registered.vacated());
        }
    }

    fn unroute(&self, _module: usize) {
        *self.lock() = None;
    }
}

/// Asks, and takes the first answer.
pub(crate) struct Asks<T>(Arc<Mutex<Option<Answer<T>>>>);

type Answer<T> = oneshot::Sender<Result<T, CallFailure>>;

impl<T> Asks<T> {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Result<T, CallFailure>>) {
        let (answer, answered) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(answer)))), answered)
    }
}

impl<T> Clone for Asks<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + 'static> Asking<T> for Asks<T> {
    fn begin(&self, _: &Arc<Course>) -> bool {
        true
    }

    fn end(self, result: Result<T, CallFailure>) {
        if let Some(answer) = self.0.lock().unwrap().take() {
            let _ = answer.send(result);
        }
    }
}

/// A module that was started, on the test's own arbiter unless it says otherwise.
pub(crate) struct Started {
    pub(crate) handle: ModuleHandle,
    pub(crate) route: Arc<OneRoute>,
    worker: Worker,
    loaded: watch::Sender<bool>,
}

impl Started {
    /// Whether all modules are loaded, so that background calls begin.
    pub(crate) fn set_loaded(&self, loaded: bool) {
        self.loaded.send_replace(loaded);
    }

    /// The subscriber of a callback and the incarnation that it belongs to, if the module is on the route.
    pub(crate) fn subscriber<C: Callback>(&self) -> Option<(Arc<Incarnation>, Arc<dyn Subscriber<C>>)> {
        let routed = self.route.lock();
        let (incarnation, registered) = routed.as_ref()?;
        let mut subscribers = registered.callbacks.iter();
        let subscriber = subscribers.find_map(ganglion_api::Registration::subscriber::<C>)?;
        Some((Arc::clone(incarnation), subscriber))
    }

    /// Asks it on the current thread.
    pub(crate) async fn ask<C: Callback>(&self, args: C, deadline: Instant) -> Result<C::Answer, CallFailure> {
        let (incarnation, subscriber) = self.subscriber::<C>().expect("the module is on the route");
        let (asking, answered) = Asks::new();
        let now = Moment::from(Instant::now());
        let budget = incarnation.budget(now, Moment::from(deadline).nanos_since(now));
        incarnation
            .call(
                &self.worker,
                subscriber,
                Arc::new(args),
                budget,
                Asker::default(),
                asking,
            )
            .await;
        answered.await.expect("who asks is told")
    }
}

/// A module to be started.
pub(crate) fn spec(factory: Arc<dyn ModuleFactory>, limits: ModuleLimits) -> ModuleSpec {
    ModuleSpec {
        id: "m".into(),
        path: "test.M".into(),
        enabled: true,
        factory: Some(factory),
        config: serde_json::json!({}),
        tier: Tier::Actor,
        limits,
        breaker: BreakerSettings::default(),
        restart: RestartSettings::default(),
    }
}

pub(crate) fn factory<M: Module>() -> Arc<dyn ModuleFactory> {
    Registry::new().with::<M>("test.M").factory("test.M").unwrap()
}

/// Starts a module of its spec.
pub(crate) async fn start(
    spec: ModuleSpec,
    workers: &WorkerThreads,
    caches: &Arc<CacheService>,
) -> Result<Started, LoadError> {
    let (loaded, listen) = watch::channel(true);
    let route = Arc::<OneRoute>::default();
    let surroundings = Surroundings {
        server_name: ServerName::parse("example.com").unwrap(),
        directory: PathBuf::new(),
        homeserver: Arc::new(NotConnected),
        caches: Arc::clone(caches),
        loaded: listen,
        router: Arc::clone(&route) as Arc<dyn Router>,
    };
    let (handle, made) = ModuleHandle::start(spec, 0, &surroundings, workers);
    made.await.expect("a first attempt has a result")?;
    let (_, thread) = workers.workers().swap_remove(0);
    Ok(Started {
        handle,
        route,
        worker: Worker::new(thread),
        loaded,
    })
}

pub(crate) fn caches() -> Arc<CacheService> {
    Arc::new(CacheService::new(CacheDefaults::default()))
}
