//! Makes an instance of a module, where nothing else waits for its constructor.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ganglion_api::{
    ConfigError, CreateError, Created, Homeserver, ModuleError, ModuleFactory, OwnedServerName, Registered,
};
use tokio::sync::{oneshot, watch};

use crate::breaker::BreakerSettings;
use crate::cache::CacheService;
use crate::guard::{Panic, guarded_now};
use crate::handle::ModuleLimits;
use crate::host::Host;
use crate::incarnation::Incarnation;
use crate::probe::Operation;
use crate::restart::RestartSettings;
use crate::tier::Tier;

/// A module to be made.
#[derive(Clone)]
pub struct ModuleSpec {
    /// Its id.
    pub id: String,
    /// Its `module:` path.
    pub path: String,
    /// Whether it is made at the start. An operator may enable it later.
    pub enabled: bool,
    /// Makes it; `None` if its path is not known, which only a module that is not enabled may have.
    pub factory: Option<Arc<dyn ModuleFactory>>,
    /// Its config.
    pub config: serde_json::Value,
    /// How it is isolated.
    pub tier: Tier,
    /// What it may use.
    pub limits: ModuleLimits,
    /// When its calls are refused after failures.
    pub breaker: BreakerSettings,
    /// When it is re-created after it failed.
    pub restart: RestartSettings,
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
    /// What relative paths in modules' configs are relative to.
    pub directory: PathBuf,
    /// The homeserver.
    pub homeserver: Arc<dyn Homeserver>,
    /// The caches.
    pub caches: Arc<CacheService>,
    /// True as soon as all modules are loaded: background calls begin.
    pub loaded: watch::Receiver<bool>,
    /// Who asks the modules.
    pub router: Arc<dyn Router>,
}

/// Asks modules. It is told who can be asked.
pub trait Router: Send + Sync {
    /// This incarnation of the module is asked from now on, in the place of the one before.
    ///
    /// # Errors
    /// Its registrations contradict those of others; the text says which.
    fn route(&self, incarnation: &Arc<Incarnation>, registered: Arc<Registered>) -> Result<(), String>;

    /// The module keeps its places on the routes, but `vacant` stands there: its calls fail.
    fn vacate(&self, vacant: &Arc<Incarnation>);

    /// The module is on no route any more.
    fn unroute(&self, module: usize);
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
    /// Its constructor did not return in time.
    Blocked,
    /// The thread that it was to run on has ended.
    ThreadEnded,
    /// There is no thread for it.
    NoThread(String),
    /// Its registrations contradict those of others.
    Routes(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Constructor(error) => error.fmt(f),
            Self::Panicked(text) => write!(f, "the constructor panicked: {text}"),
            Self::Blocked => f.write_str("the constructor did not return within start_timeout"),
            Self::ThreadEnded => f.write_str("its thread has ended"),
            Self::NoThread(error) => write!(f, "no thread for it: {error}"),
            Self::Routes(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for LoadError {}

/// What a constructor left.
pub(crate) struct Made {
    pub(crate) registered: Registered,
    pub(crate) instance: Arc<dyn Any + Send + Sync>,
}

type Outcome = Result<Result<Created, CreateError>, Panic>;

/// Runs the constructor of an incarnation: on its own thread, else on a short-lived one, never where others are served.
///
/// # Errors
/// The config is not accepted, or the constructor failed, panicked or did not return in time.
pub(crate) async fn load(
    incarnation: Arc<Incarnation>,
    factory: Arc<dyn ModuleFactory>,
    config: serde_json::Value,
    surroundings: Surroundings,
) -> Result<Made, LoadError> {
    let (done, mut created) = oneshot::channel();
    let site = incarnation.site(Operation::CONSTRUCTOR);
    let home = incarnation.home();
    let host = Arc::new(Host::new(Arc::clone(&incarnation), surroundings));
    let create = move || {
        let outcome: Outcome = guarded_now(site, || {
            factory.create(config, host).map_err(|error| match error {
                // The text of a module's error, and its drop, are the module's code.
                CreateError::Constructor(error) => CreateError::Constructor(ModuleError::message(error.to_string())),
                config => config,
            })
        });
        // Nobody waits any more for one that took too long. What it made is dropped here, on its own thread.
        if let Err(Ok(Ok(late))) = done.send(outcome) {
            let _ = guarded_now(site, || drop(late));
        }
    };
    let pool = incarnation.pool();
    let given_up = if incarnation.own_thread().is_some() || pool.is_current() {
        home.arbiter().spawn_fn(create);
        home.given_up().clone()
    } else {
        // What the constructor spawns runs at home.
        let runtime = home.runtime().clone();
        let thread = pool.spawn(format!("make {}", incarnation.module().id()), move || {
            let _at_home = runtime.enter();
            create();
        });
        let thread = thread.map_err(|error| LoadError::NoThread(error.to_string()))?;
        thread.given_up().clone()
    };
    let mut outcome = given_up.run_until_cancelled(&mut created).await;
    if outcome.is_none() {
        // It may have come at this very moment, and then it counts.
        created.close();
        outcome = created.try_recv().ok().map(Ok);
    }
    match outcome {
        Some(Ok(Ok(Ok(Created {
            registered, instance, ..
        })))) => Ok(Made { registered, instance }),
        Some(Ok(Ok(Err(CreateError::Config(error))))) => Err(LoadError::Config(error)),
        Some(Ok(Ok(Err(CreateError::Constructor(error))))) => Err(LoadError::Constructor(error)),
        Some(Ok(Ok(Err(other)))) => Err(LoadError::Constructor(ModuleError::message(other.to_string()))),
        Some(Ok(Err(panic))) => Err(LoadError::Panicked(panic.text().to_owned())),
        Some(Err(_ended)) => Err(LoadError::ThreadEnded),
        None => Err(LoadError::Blocked),
    }
}
