//! What a module can do: register functions, run work in the background, cache, ask the homeserver.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use ruma_common::ServerName;

use crate::cached::{CacheArgs, CacheOptions, CacheStore, Cached, Computed, Fill, KeyLengthError, Weigher};
use crate::failure::ModuleError;
use crate::homeserver::Homeserver;
use crate::registration::{CallbackSet, LocalFuture, Registration, RegistrationError};
use crate::resource::{ResourceFunction, ResourcePath, WebRequest, WebResource, WebResponse};

/// When a background call runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Once, as soon as all modules are loaded.
    Now,
    /// Once, after this time.
    After(Duration),
    /// Again and again, first after one interval. Runs never overlap: ticks that pass during a run are skipped.
    Every(Duration),
}

/// The work of a background call; called once a run.
pub type BackgroundTask = Box<dyn FnMut() -> LocalFuture<'static, Result<(), ModuleError>> + Send>;

/// Stops a background call.
pub trait CancelBackgroundCall: Send + Sync {
    /// Stops it: no run begins any more, and one that is under way ends at its next await.
    fn cancel(&self);
}

/// A background call that was started. It goes on if this is dropped.
#[derive(Clone)]
pub struct BackgroundCall(Arc<dyn CancelBackgroundCall>);

impl BackgroundCall {
    /// Stops it: no run begins any more, and one that is under way ends at its next await.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

impl fmt::Debug for BackgroundCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackgroundCall")
    }
}

/// What a module's host does for it.
pub trait ModuleHost: Send + Sync {
    /// The name of the homeserver.
    fn server_name(&self) -> &ServerName;
    /// A path of a module's config, relative to the file that the config is in.
    fn resolve_path(&self, path: &Path) -> PathBuf;
    /// The homeserver.
    fn homeserver(&self) -> &dyn Homeserver;
    /// How much of its budget the current call has left; `None` outside of a call.
    fn remaining_budget(&self) -> Option<Duration>;
    /// Waits.
    fn sleep(&self, duration: Duration) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
    /// Runs work in the background. A run that fails is logged; after one that panics the module is made anew.
    fn background(
        &self,
        description: String,
        schedule: Schedule,
        task: BackgroundTask,
    ) -> Arc<dyn CancelBackgroundCall>;
    /// Opens the store of a cached function, whose full keys have `key_length` parts.
    ///
    /// # Errors
    /// The module has a cached function of this name.
    fn open_cache(
        &self,
        name: &str,
        options: &CacheOptions,
        key_length: usize,
    ) -> Result<Arc<dyn CacheStore>, RegistrationError>;
}

/// Makes a web resource of the instance.
type BindResource<M> = Box<dyn FnOnce(Arc<M>) -> Arc<dyn WebResource> + Send>;

/// What a module registered, waiting for the instance.
struct Pending<M> {
    functions: Vec<CallbackSet<M>>,
    resources: Vec<(ResourcePath, BindResource<M>)>,
}

/// Where a module's instance is found, once its constructor has returned. Weak, since what the instance keeps, such as
/// its cached functions, must not keep the instance.
struct Instance<M>(Arc<OnceLock<Weak<M>>>);

impl<M> Clone for Instance<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> Instance<M> {
    fn get(&self) -> Result<Arc<M>, ModuleError> {
        let instance = self.0.get().and_then(Weak::upgrade);
        instance.ok_or_else(ModuleError::not_running)
    }
}

struct Inner<M> {
    host: Arc<dyn ModuleHost>,
    pending: Mutex<Option<Pending<M>>>,
    instance: Instance<M>,
}

/// What a module can do. Clones are the same object; a module may keep one.
pub struct ModuleApi<M> {
    inner: Arc<Inner<M>>,
}

impl<M> Clone for ModuleApi<M> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<M> fmt::Debug for ModuleApi<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModuleApi")
            .field("server_name", &self.inner.host.server_name())
            .finish_non_exhaustive()
    }
}

/// What a module registered, bound to its instance.
#[derive(Default)]
#[non_exhaustive]
pub struct Registered {
    /// The callbacks, in the order of registration.
    pub callbacks: Vec<Registration>,
    /// The web resources, in the order of registration.
    pub resources: Vec<(ResourcePath, Arc<dyn WebResource>)>,
}

impl Registered {
    /// The same registrations without the module: see [`Registration::vacated`].
    #[must_use]
    pub fn vacated(&self) -> Self {
        let vacant: Arc<dyn WebResource> = Arc::new(VacantResource);
        Self {
            callbacks: self.callbacks.iter().map(Registration::vacated).collect(),
            resources: self
                .resources
                .iter()
                .map(|(path, _)| (path.clone(), Arc::clone(&vacant)))
                .collect(),
        }
    }
}

impl Registered {
    /// Whether a route, a path or a call holds one of the functions too. While this is held and nobody else holds one,
    /// dropping it drops them all.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.callbacks.iter().any(Registration::is_shared)
            || self
                .resources
                .iter()
                .any(|(_, resource)| Arc::strong_count(resource) > 1)
    }
}

/// Stands at a path for a web resource whose module is gone.
struct VacantResource;

impl WebResource for VacantResource {
    fn respond(&self, _request: WebRequest) -> LocalFuture<'_, Result<WebResponse, ModuleError>> {
        Box::pin(async { Err(ModuleError::not_running()) })
    }
}

impl<M: Send + Sync + 'static> ModuleApi<M> {
    pub(crate) fn open(host: Arc<dyn ModuleHost>) -> Self {
        let pending = Mutex::new(Some(Pending {
            functions: Vec::new(),
            resources: Vec::new(),
        }));
        Self {
            inner: Arc::new(Inner {
                host,
                pending,
                instance: Instance(Arc::default()),
            }),
        }
    }

    /// Ends the registration and binds everything to the instance.
    pub(crate) fn close(&self, instance: &Arc<M>) -> Registered {
        let bound = self.inner.instance.0.set(Arc::downgrade(instance));
        debug_assert!(bound.is_ok(), "an api belongs to one instance");
        let pending = self.inner.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(pending) = pending else {
            return Registered::default();
        };
        Registered {
            callbacks: pending
                .functions
                .into_iter()
                .enumerate()
                .flat_map(|(group, functions)| functions.bind(instance, group))
                .collect(),
            resources: pending
                .resources
                .into_iter()
                .map(|(path, bind)| (path, bind(Arc::clone(instance))))
                .collect(),
        }
    }

    fn with_pending(&self, add: impl FnOnce(&mut Pending<M>)) -> Result<(), RegistrationError> {
        let mut pending = self.inner.pending.lock().unwrap_or_else(PoisonError::into_inner);
        add(pending.as_mut().ok_or(RegistrationError::RegistrationClosed)?);
        Ok(())
    }

    /// Registers callbacks of any category. A module may call this several times; every registration takes its place in
    /// the callbacks' routes.
    ///
    /// # Errors
    /// The constructor has returned already, or callbacks that belong together are not all there.
    pub fn register_callbacks(&self, callbacks: CallbackSet<M>) -> Result<(), RegistrationError> {
        callbacks.check()?;
        self.with_pending(|pending| pending.functions.push(callbacks))
    }

    /// Answers requests to this path of the public listener, and to everything below it, with a function of the
    /// module. `/x/` is `/x`; the longest path that fits a request wins. Of two modules with one path the first in the
    /// config file gets it.
    ///
    /// # Errors
    /// The constructor has returned already, or the path is not absolute, or is one that the homeserver or Ganglion
    /// answers. Synapse's documents promise the latter; its code lets a module take such a path.
    pub fn register_web_resource<F>(&self, path: &str, function: F) -> Result<(), RegistrationError>
    where
        F: AsyncFn(&M, WebRequest) -> Result<WebResponse, ModuleError> + Send + Sync + 'static,
    {
        let path = ResourcePath::new(path)?;
        self.with_pending(|pending| {
            pending.resources.push((
                path,
                Box::new(move |module| Arc::new(ResourceFunction { module, function })),
            ));
        })
    }

    /// The name of the homeserver.
    #[must_use]
    pub fn server_name(&self) -> &ServerName {
        self.inner.host.server_name()
    }

    /// Where a file is that the module's config names: a relative path is relative to the config file, as all paths in it
    /// are.
    #[must_use]
    pub fn resolve_path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.inner.host.resolve_path(path.as_ref())
    }

    /// The homeserver. Until one is connected every call of it is
    /// [`HomeserverError::NotConnected`](crate::HomeserverError::NotConnected).
    #[must_use]
    pub fn homeserver(&self) -> &dyn Homeserver {
        self.inner.host.homeserver()
    }

    /// How much time the callback or the request that is being answered has left: the smaller of the module's `call_timeout`
    /// and what is left of the chain's deadline, since it was asked. An answer that comes later is no answer. `None` in
    /// background calls, constructors and computations of cached functions, and in tasks that the module spawned itself.
    #[must_use]
    pub fn remaining_budget(&self) -> Option<Duration> {
        self.inner.host.remaining_budget()
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        self.inner.host.sleep(duration).await;
    }

    /// Runs a function of the module once, now, or as soon as all modules are loaded if the constructor calls this.
    /// Source: Synapse's method of this name. An error is logged; there is no result to wait for.
    pub fn run_as_background_process<F>(&self, description: impl Into<String>, function: F) -> BackgroundCall
    where
        F: AsyncFnOnce(&M) -> Result<(), ModuleError> + Send + 'static,
    {
        self.once(description.into(), Schedule::Now, function)
    }

    /// Runs a function of the module once, after a delay that begins when all modules are loaded. Lost on a restart.
    /// Source: Synapse's method of this name.
    pub fn delayed_background_call<F>(
        &self,
        delay: Duration,
        description: impl Into<String>,
        function: F,
    ) -> BackgroundCall
    where
        F: AsyncFnOnce(&M) -> Result<(), ModuleError> + Send + 'static,
    {
        self.once(description.into(), Schedule::After(delay), function)
    }

    /// Runs a function of the module again and again, first after one interval. Runs never overlap: ticks that pass
    /// during a run are skipped and the phase is kept. An error is logged and the loop goes on. Source: Synapse's
    /// method of this name.
    pub fn looping_background_call<F>(
        &self,
        interval: Duration,
        description: impl Into<String>,
        function: F,
    ) -> BackgroundCall
    where
        F: AsyncFn(&M) -> Result<(), ModuleError> + Send + Sync + 'static,
    {
        let (instance, function) = (self.inner.instance.clone(), Arc::new(function));
        let task: BackgroundTask = Box::new(move || {
            let (instance, function) = (instance.clone(), Arc::clone(&function));
            Box::pin(async move { function(&*instance.get()?).await })
        });
        BackgroundCall(
            self.inner
                .host
                .background(description.into(), Schedule::Every(interval), task),
        )
    }

    fn once<F>(&self, description: String, schedule: Schedule, function: F) -> BackgroundCall
    where
        F: AsyncFnOnce(&M) -> Result<(), ModuleError> + Send + 'static,
    {
        let (instance, mut function) = (self.inner.instance.clone(), Some(function));
        let task: BackgroundTask = Box::new(move || {
            let (instance, function) = (instance.clone(), function.take());
            Box::pin(async move {
                match function {
                    Some(function) => function(&*instance.get()?).await,
                    None => Ok(()),
                }
            })
        });
        BackgroundCall(self.inner.host.background(description, schedule, task))
    }

    /// Caches a function of the module by its arguments: one value, or a tuple of up to five. One computation at a
    /// time for each key; errors are not kept; an invalidation during a computation wins.
    ///
    /// Synapse's decorator of this name demands attributes of the object; this does not.
    ///
    /// # Errors
    /// The module has a cached function of this name, or the options contradict each other.
    pub fn cached<A, V, F>(
        &self,
        name: &str,
        options: CacheOptions,
        function: F,
    ) -> Result<Cached<A, V>, RegistrationError>
    where
        A: CacheArgs + Send + 'static,
        V: Send + Sync + 'static,
        F: AsyncFn(&M, A) -> Result<V, ModuleError> + Send + Sync + 'static,
    {
        self.cached_with(name, options, None, function)
    }

    /// Caches a function whose results differ in size: all together weigh at most
    /// [`CacheOptions::max_weight`], which is required. The weigher says what one weighs, in a unit of the module's choice,
    /// mostly bytes of memory; it is called once for each result, where that was computed. A result that is heavier than
    /// all together may be reaches those who asked for it and is not kept. Everything else is as with [`Self::cached`].
    ///
    /// # Errors
    /// As there, or there is no `max_weight`.
    pub fn cached_weighed<A, V, F>(
        &self,
        name: &str,
        options: CacheOptions,
        weigher: impl Fn(&V) -> u32 + Send + Sync + 'static,
        function: F,
    ) -> Result<Cached<A, V>, RegistrationError>
    where
        A: CacheArgs + Send + 'static,
        V: Send + Sync + 'static,
        F: AsyncFn(&M, A) -> Result<V, ModuleError> + Send + Sync + 'static,
    {
        self.cached_with(name, options, Some(Arc::new(weigher)), function)
    }

    fn cached_with<A, V, F>(
        &self,
        name: &str,
        options: CacheOptions,
        weigher: Option<Weigher<V>>,
        function: F,
    ) -> Result<Cached<A, V>, RegistrationError>
    where
        A: CacheArgs + Send + 'static,
        V: Send + Sync + 'static,
        F: AsyncFn(&M, A) -> Result<V, ModuleError> + Send + Sync + 'static,
    {
        options.check(name, A::COUNT, weigher.is_some())?;
        let store = self
            .inner
            .host
            .open_cache(name, &options, options.key_length(A::COUNT))?;
        let (instance, function, weigh) = (self.inner.instance.clone(), Arc::new(function), weigher.clone());
        let fill = move |args: A| -> Fill {
            let (instance, function, weigh) = (instance.clone(), Arc::clone(&function), weigh.clone());
            Box::new(move || {
                Box::pin(async move {
                    let value = function(&*instance.get()?, args).await?;
                    Ok(Computed::new(value, weigh.as_ref()))
                })
            })
        };
        Ok(Cached {
            name: name.into(),
            options: Arc::new(options),
            store,
            function: Arc::new(fill),
            weigher,
            value: PhantomData,
        })
    }

    /// Lets others name this function: an invalidation from afar finds it, by an operator or another node. Names are
    /// unique within a module, so two modules never share one (in Synapse they do).
    pub fn register_cached_function<A, V>(&self, function: &Cached<A, V>) {
        function.store.announce();
    }

    /// Forgets the result for a full key: the arguments that form it, without the uncached ones. With
    /// [`CacheOptions::prefix_keys`] the key may be shorter: then all results are forgotten whose keys begin with it. It
    /// acts at once: a computation that is under way is not kept.
    ///
    /// # Errors
    /// The key has not as many parts as the function's keys have, and is no prefix that it takes; nothing is forgotten.
    pub fn invalidate_cache<A, V, K>(&self, function: &Cached<A, V>, key: &K) -> Result<(), KeyLengthError>
    where
        A: CacheArgs + Send + 'static,
        V: Send + Sync + 'static,
        K: CacheArgs,
    {
        function.invalidate(key)
    }
}
