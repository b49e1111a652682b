//! Makes a module on its worker.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ganglion_api::{
    ConfigError, CreateError, Created, Homeserver, ModuleError, ModuleFactory, OwnedServerName, Registered,
};
use tokio::sync::watch;

use crate::cache::CacheService;
use crate::guard::panic_text;
use crate::handle::{ModuleHandle, ModuleLimits};
use crate::host::Host;
use crate::worker::WorkerThreads;

/// A module to be made.
#[derive(Clone)]
pub struct ModuleSpec {
    /// Its id.
    pub id: String,
    /// Its `module:` path.
    pub path: String,
    /// Makes it.
    pub factory: Arc<dyn ModuleFactory>,
    /// Its config.
    pub config: serde_json::Value,
    /// What it may use.
    pub limits: ModuleLimits,
}

impl fmt::Debug for ModuleSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the config, which may hold secrets.
        f.debug_struct("ModuleSpec")
            .field("id", &self.id)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What modules share.
#[derive(Clone)]
pub struct Surroundings {
    /// The homeserver's name.
    pub server_name: OwnedServerName,
    /// The homeserver.
    pub homeserver: Arc<dyn Homeserver>,
    /// The caches.
    pub caches: Arc<CacheService>,
    /// True as soon as all modules are loaded: background calls begin.
    pub loaded: watch::Receiver<bool>,
}

/// Why a module could not be made.
#[derive(Debug, Clone)]
pub enum LoadError {
    /// Its config was not accepted.
    Config(ConfigError),
    /// Its constructor returned an error.
    Constructor(ModuleError),
    /// Its constructor panicked.
    Panicked(String),
    /// The worker that it was to run on has ended.
    WorkerEnded,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Constructor(error) => error.fmt(f),
            Self::Panicked(text) => write!(f, "the constructor panicked: {text}"),
            Self::WorkerEnded => f.write_str("its worker thread has ended"),
        }
    }
}

impl std::error::Error for LoadError {}

/// A module that runs.
pub struct LoadedModule {
    /// The way to it.
    pub handle: ModuleHandle,
    /// What it registered.
    pub registered: Registered,
    /// Keeps the instance of a module alive that registered nothing but background calls.
    pub instance: Arc<dyn Any + Send + Sync>,
}

/// Makes a module on its home worker; `position` is its place in the file.
///
/// # Errors
/// Its config is not accepted, or its constructor failed or panicked.
pub async fn load(
    spec: ModuleSpec,
    position: usize,
    surroundings: &Surroundings,
    workers: &WorkerThreads,
) -> Result<LoadedModule, LoadError> {
    let handle = ModuleHandle::start(spec.id.clone(), spec.path, spec.limits, workers);
    let home = workers.home(position);
    let host = Host {
        module: spec.id.into(),
        server_name: surroundings.server_name.clone(),
        homeserver: Arc::clone(&surroundings.homeserver),
        home: home.clone(),
        loaded: surroundings.loaded.clone(),
        stopped: handle.stopped().clone(),
        caches: Arc::clone(&surroundings.caches),
    };
    let created = WorkerThreads::run_on(home, move || {
        catch_unwind(AssertUnwindSafe(|| spec.factory.create(spec.config, Arc::new(host))))
    });
    match created.await {
        Ok(Ok(Ok(Created {
            registered, instance, ..
        }))) => {
            handle.run();
            Ok(LoadedModule {
                handle,
                registered,
                instance,
            })
        }
        failed => {
            handle.stop();
            Err(match failed {
                Ok(Ok(Err(CreateError::Config(error)))) => LoadError::Config(error),
                Ok(Ok(Err(CreateError::Constructor(error)))) => LoadError::Constructor(error),
                Ok(Ok(Err(other))) => LoadError::Constructor(ModuleError::message(other.to_string())),
                Ok(Err(panic)) => LoadError::Panicked(panic_text(&*panic).unwrap_or_default()),
                Err(_) | Ok(Ok(Ok(_))) => LoadError::WorkerEnded,
            })
        }
    }
}
