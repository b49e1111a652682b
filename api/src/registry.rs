//! Which `module:` paths name which compiled-in modules.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde_json::Value;

use crate::failure::ModuleError;
use crate::module::{ConfigError, Module};
use crate::module_api::{ModuleApi, ModuleHost, Registered};

/// Why a module could not be made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CreateError {
    /// Its config was not accepted.
    Config(ConfigError),
    /// Its constructor failed.
    Constructor(ModuleError),
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Constructor(error) => error.fmt(f),
        }
    }
}

/// A module that was made.
#[non_exhaustive]
pub struct Created {
    /// The instance; it lives as long as something that it registered, or this.
    pub instance: Arc<dyn Any + Send + Sync>,
    /// What it registered.
    pub registered: Registered,
}

/// Makes modules of one type.
pub trait ModuleFactory: Send + Sync {
    /// Checks a config without making the module.
    ///
    /// # Errors
    /// The module does not accept it.
    fn check(&self, config: Value) -> Result<(), ConfigError>;

    /// Makes the module.
    ///
    /// # Errors
    /// Its config is not accepted, or its constructor fails. A panic of the constructor passes through.
    fn create(&self, config: Value, host: Arc<dyn ModuleHost>) -> Result<Created, CreateError>;
}

struct Factory<M>(PhantomData<fn() -> M>);

impl<M: Module> ModuleFactory for Factory<M> {
    fn check(&self, config: Value) -> Result<(), ConfigError> {
        M::parse_config(config).map(drop)
    }

    fn create(&self, config: Value, host: Arc<dyn ModuleHost>) -> Result<Created, CreateError> {
        let config = M::parse_config(config).map_err(CreateError::Config)?;
        let api = ModuleApi::open(host);
        let instance = Arc::new(M::new(config, &api).map_err(CreateError::Constructor)?);
        let registered = api.close(&instance);
        Ok(Created { instance, registered })
    }
}

/// The compiled-in modules by their `module:` path.
#[derive(Clone, Default)]
pub struct Registry {
    factories: BTreeMap<String, Arc<dyn ModuleFactory>>,
}

impl Registry {
    /// No modules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a module under a path such as `demo.DemoModule`; a path that was there is replaced.
    #[must_use]
    pub fn with<M: Module>(mut self, path: impl Into<String>) -> Self {
        self.factories.insert(path.into(), Arc::new(Factory::<M>(PhantomData)));
        self
    }

    /// Adds a factory under a path; a path that was there is replaced.
    #[cfg(feature = "testing")]
    pub(crate) fn with_factory(mut self, path: impl Into<String>, factory: Arc<dyn ModuleFactory>) -> Self {
        self.factories.insert(path.into(), factory);
        self
    }

    /// The factory of a path.
    #[must_use]
    pub fn factory(&self, path: &str) -> Option<Arc<dyn ModuleFactory>> {
        self.factories.get(path).cloned()
    }

    /// Every path, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.factories.keys()).finish()
    }
}
