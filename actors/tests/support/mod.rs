//! Loads modules on the test's own arbiter, where time can be paused.

use std::sync::Arc;
use std::time::Duration;

use ganglion_actors::{
    CacheDefaults, CacheService, LoadError, LoadedModule, ModuleLimits, ModuleSpec, Surroundings, WorkerThreads, load,
};
use ganglion_api::{Module, NotConnected, Registry, ServerName};
use tokio::sync::watch;

pub(crate) const LIMITS: ModuleLimits = ModuleLimits {
    call_timeout: Duration::from_secs(1),
    max_in_flight: 4,
    mailbox: 1024,
};

/// Loads a module with these limits; the sender keeps background calls running.
pub(crate) async fn load_module<M: Module>(
    limits: ModuleLimits,
    workers: &WorkerThreads,
    caches: &Arc<CacheService>,
) -> Result<(LoadedModule, watch::Sender<bool>), LoadError> {
    let (loaded, listen) = watch::channel(true);
    let surroundings = Surroundings {
        server_name: ServerName::parse("example.com").unwrap(),
        homeserver: Arc::new(NotConnected),
        caches: Arc::clone(caches),
        loaded: listen,
    };
    let spec = ModuleSpec {
        id: "m".into(),
        path: "test.M".into(),
        factory: Registry::new().with::<M>("test.M").factory("test.M").unwrap(),
        config: serde_json::json!({}),
        limits,
    };
    Ok((load(spec, 0, &surroundings, workers).await?, loaded))
}

pub(crate) fn caches() -> Arc<CacheService> {
    Arc::new(CacheService::new(CacheDefaults::default()))
}
