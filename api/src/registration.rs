//! What a module registers: functions bound to its instance, one registration a callback.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::callback::{Callback, CallbackSpec, Category};
use crate::callbacks::{AuthCheckers, GetInterestedUsers, GetUsersForStates, LoginTypes, OnUpdate};
use crate::failure::ModuleError;
use crate::json::JsonError;

/// A future that stays on its thread: modules run where they were called, so they need not be `Send`.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Why something could not be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// The module's constructor has returned: nothing can be registered any more.
    #[error("registration is closed: callbacks and resources are registered in the module's constructor")]
    RegistrationClosed,
    /// Two callbacks belong together and only one was given. Synapse stops the start too.
    #[error("{given} was registered without {missing}: they belong together")]
    IncompletePair {
        /// The callback that was given.
        given: &'static str,
        /// The callback that is missing.
        missing: &'static str,
    },
    /// A callback is required by the others of its category. Synapse stops the start too.
    #[error("{missing} is required of a module that registers its category")]
    MissingCallback {
        /// The callback that is missing.
        missing: &'static str,
    },
    /// `auth_checkers` were registered without the login types that they are for.
    #[error("auth_checkers was registered without login types")]
    NoLoginTypes,
    /// A login type was given two checkers in one set.
    #[error("login type {name} has two checkers in one set")]
    LoginTypeTwice {
        /// The login type.
        name: String,
    },
    /// A web resource's path cannot be used.
    #[error("web resource {path:?}: {reason}")]
    ResourcePath {
        /// The path as the module gave it.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A cached function's name is taken, or its options contradict each other.
    #[error("cached function {name:?}: {reason}")]
    CachedFunction {
        /// The name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Whether a subscriber takes part in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concern {
    /// It is asked.
    Asked,
    /// It is on the route, but this call does not concern it.
    Skipped,
}

/// One module's registration for one callback.
pub trait Subscriber<C: Callback>: Send + Sync {
    /// Asks the module. Dropping the future cancels the call at its next await.
    fn call<'a>(&'a self, args: &'a C) -> LocalFuture<'a, Result<C::Answer, ModuleError>>;

    /// Whether these arguments concern the subscriber.
    ///
    /// # Errors
    /// They lack something that the subscriber declared as required.
    fn concern(&self, args: &C) -> Result<Concern, JsonError> {
        let _ = args;
        Ok(Concern::Asked)
    }
}

/// A login type with the fields that a login of it must have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LoginType {
    /// The name, for example `m.login.password`.
    pub name: String,
    /// The fields.
    pub fields: BTreeSet<String>,
}

trait Function<M, C: Callback>: Send + Sync {
    fn call<'a>(&'a self, module: &'a M, args: &'a C) -> LocalFuture<'a, Result<C::Answer, ModuleError>>;
}

struct AsyncFunction<F>(F);

impl<M, C, F> Function<M, C> for AsyncFunction<F>
where
    C: Callback,
    F: AsyncFn(&M, &C) -> Result<C::Answer, ModuleError> + Send + Sync,
{
    fn call<'a>(&'a self, module: &'a M, args: &'a C) -> LocalFuture<'a, Result<C::Answer, ModuleError>> {
        Box::pin(async move { (self.0)(module, args).await })
    }
}

/// A module's function for one callback, its type forgotten.
pub(crate) struct BoxedFunction<M, C>(Box<dyn Function<M, C>>);

impl<M: 'static, C: Callback> BoxedFunction<M, C> {
    pub(crate) fn new<F>(function: F) -> Self
    where
        F: AsyncFn(&M, &C) -> Result<C::Answer, ModuleError> + Send + Sync + 'static,
    {
        Self(Box::new(AsyncFunction(function)))
    }
}

impl<M, C: Callback> BoxedFunction<M, C> {
    pub(crate) fn call<'a>(&'a self, module: &'a M, args: &'a C) -> LocalFuture<'a, Result<C::Answer, ModuleError>> {
        self.0.call(module, args)
    }
}

impl<M, C> fmt::Debug for BoxedFunction<M, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxedFunction")
    }
}

/// A function with the module that it belongs to.
struct Bound<M, C> {
    module: Arc<M>,
    function: BoxedFunction<M, C>,
}

impl<M: Send + Sync, C: Callback> Subscriber<C> for Bound<M, C> {
    fn call<'a>(&'a self, args: &'a C) -> LocalFuture<'a, Result<C::Answer, ModuleError>> {
        self.function.call(&self.module, args)
    }
}

/// Stands on a route for a function whose module is gone.
struct Vacant;

impl<C: Callback> Subscriber<C> for Vacant {
    fn call<'a>(&'a self, _args: &'a C) -> LocalFuture<'a, Result<C::Answer, ModuleError>> {
        Box::pin(async { Err(ModuleError::not_running()) })
    }
}

type Bind<M> = Box<dyn FnOnce(Arc<M>, usize) -> Registration + Send>;

/// Functions of a module that answer callbacks of any category, for modules that learn only at run time which ones they
/// answer. The sets of the categories, such as [`SpamCheckerCallbacks`](crate::SpamCheckerCallbacks), are the typed
/// way.
pub struct CallbackSet<M> {
    specs: Vec<&'static CallbackSpec>,
    binds: Vec<Bind<M>>,
    refused: Option<RegistrationError>,
}

impl<M> Default for CallbackSet<M> {
    fn default() -> Self {
        Self {
            specs: Vec::new(),
            binds: Vec::new(),
            refused: None,
        }
    }
}

impl<M> fmt::Debug for CallbackSet<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.specs.iter().map(|spec| spec.name)).finish()
    }
}

impl<M> CallbackSet<M> {
    /// Callbacks that belong together are all there, as in Synapse.
    pub(crate) fn check(&self) -> Result<(), RegistrationError> {
        let has = |name| self.specs.iter().any(|spec| spec.name == name);
        let pair = [GetUsersForStates::SPEC.name, GetInterestedUsers::SPEC.name];
        for (given, missing) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            if has(given) && !has(missing) {
                return Err(RegistrationError::IncompletePair { given, missing });
            }
        }
        let controls = self
            .specs
            .iter()
            .any(|spec| spec.category == Category::BackgroundUpdateController);
        if controls && !has(OnUpdate::SPEC.name) {
            return Err(RegistrationError::MissingCallback {
                missing: OnUpdate::SPEC.name,
            });
        }
        self.refused.clone().map_or(Ok(()), Err)
    }

    /// Binds every function to the instance; `group` is the position of this set among the module's.
    pub(crate) fn bind(self, instance: &Arc<M>, group: usize) -> impl Iterator<Item = Registration> {
        self.binds
            .into_iter()
            .map(move |bind| bind(Arc::clone(instance), group))
    }
}

impl<M: Send + Sync + 'static> CallbackSet<M> {
    /// No callbacks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers the callback `C` with this function of the module. Not for [`AuthCheckers`], which need login types:
    /// see [`auth_checkers`](Self::auth_checkers).
    #[must_use]
    pub fn answer<C, F>(mut self, function: F) -> Self
    where
        C: Callback,
        F: AsyncFn(&M, &C) -> Result<C::Answer, ModuleError> + Send + Sync + 'static,
    {
        let function = BoxedFunction::new(function);
        if C::INDEX == AuthCheckers::INDEX {
            self.refused = Some(RegistrationError::NoLoginTypes);
        }
        let vacant = Arc::new(Vacant);
        self.push::<C>(Vec::new(), vacant, move |module| Arc::new(Bound { module, function }));
        self
    }

    /// Answers [`AuthCheckers`] for these login types.
    #[must_use]
    pub fn auth_checkers(mut self, login_types: LoginTypes<M>) -> Self {
        let declared = login_types.declared();
        let mut names = BTreeSet::new();
        if let Some(twice) = declared.iter().find(|login_type| !names.insert(&login_type.name)) {
            self.refused = Some(RegistrationError::LoginTypeTwice {
                name: twice.name.clone(),
            });
        }
        let vacant = LoginTypes::<M>::vacant(declared.clone());
        self.push::<AuthCheckers>(declared, vacant, move |module| login_types.bind(module));
        self
    }

    fn push<C: Callback>(
        &mut self,
        login_types: Vec<LoginType>,
        vacant: Arc<dyn Subscriber<C>>,
        bind: impl FnOnce(Arc<M>) -> Arc<dyn Subscriber<C>> + Send + 'static,
    ) {
        self.specs.push(&C::SPEC);
        self.binds.push(Box::new(move |module, group| Registration {
            index: C::INDEX,
            group,
            spec: &C::SPEC,
            login_types,
            subscriber: Arc::new(bind(module)),
            vacant: Arc::new(vacant),
            is_shared: |subscriber| {
                let subscriber = subscriber.downcast_ref::<Arc<dyn Subscriber<C>>>();
                subscriber.is_some_and(|subscriber| Arc::strong_count(subscriber) > 1)
            },
        }));
    }
}

/// One registration, with the callback's type forgotten until a routing table asks for it.
pub struct Registration {
    index: usize,
    group: usize,
    spec: &'static CallbackSpec,
    login_types: Vec<LoginType>,
    // Both are an `Arc<dyn Subscriber<C>>` of the callback at `index`.
    subscriber: Arc<dyn Any + Send + Sync>,
    vacant: Arc<dyn Any + Send + Sync>,
    is_shared: fn(&(dyn Any + Send + Sync)) -> bool,
}

impl Registration {
    /// The callback's position in the reference.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Which of the module's `register_*_callbacks` calls this belongs to, counted from 0.
    #[must_use]
    pub fn group(&self) -> usize {
        self.group
    }

    /// The callback's metadata.
    #[must_use]
    pub fn spec(&self) -> &'static CallbackSpec {
        self.spec
    }

    /// The login types that it declares; only for `auth_checkers`.
    #[must_use]
    pub fn login_types(&self) -> &[LoginType] {
        &self.login_types
    }

    /// The subscriber, if this registration is for the callback `C`.
    #[must_use]
    pub fn subscriber<C: Callback>(&self) -> Option<Arc<dyn Subscriber<C>>> {
        self.subscriber.downcast_ref::<Arc<dyn Subscriber<C>>>().cloned()
    }
}

impl Registration {
    /// The same registration without the module: it keeps its place on the route while the module is re-created or out of
    /// service, and nothing of the module alive. Its subscriber is concerned with the same arguments and answers none.
    #[must_use]
    pub fn vacated(&self) -> Self {
        Self {
            index: self.index,
            group: self.group,
            spec: self.spec,
            login_types: self.login_types.clone(),
            subscriber: Arc::clone(&self.vacant),
            vacant: Arc::clone(&self.vacant),
            is_shared: self.is_shared,
        }
    }

    /// Whether a route or a call holds the subscriber too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        (self.is_shared)(&*self.subscriber)
    }
}

#[cfg(feature = "testing")]
impl Registration {
    /// Puts another subscriber of the same callback in the place of this one.
    pub(crate) fn replace_subscriber<C: Callback>(&mut self, subscriber: Arc<dyn Subscriber<C>>) {
        debug_assert_eq!(
            self.index,
            C::INDEX,
            "a subscriber is for the callback that was registered"
        );
        self.subscriber = Arc::new(subscriber);
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration({})", self.spec.name)
    }
}
