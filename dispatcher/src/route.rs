//! Who is asked, in which order: routes, and the table of all of them.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZero;
use std::sync::Arc;

use ganglion_actors::{Incarnation, ModuleHandle, ModuleId, Modules, thread_number};
use ganglion_api::{
    Callback, CallbackSpec, Category, Combine, FailureKind, JsonError, LoginType, OnUpdate, OwnedServerName,
    Registered, Registration, ServerName, Subscriber, Then, reference, visit_all,
};

use crate::policy::{FailureRule, Policy};

/// The way to a module, as far as a chain needs it.
pub trait Target {
    /// A failure of this kind counted as `then`.
    fn policy_used(&self, kind: FailureKind, then: Then) {
        let _ = (kind, then);
    }

    /// Whether a failure of this kind is to be logged now; if so, how many of its kind were not since the last that was.
    fn says(&self, kind: FailureKind) -> Option<u64> {
        let _ = kind;
        Some(0)
    }

    /// These args made the module panic or hang.
    fn harmed<C: Callback>(&self, args: &C, cause: FailureKind) {
        let _ = (args, cause);
    }
}

/// The way to nobody: a chain that is answered without calls.
impl Target for () {}

impl Target for Arc<Incarnation> {
    fn policy_used(&self, kind: FailureKind, then: Then) {
        self.module().policy_used(kind, then);
    }

    fn says(&self, kind: FailureKind) -> Option<u64> {
        self.module().says(kind)
    }

    fn harmed<C: Callback>(&self, args: &C, cause: FailureKind) {
        Incarnation::harmed(self, args, cause);
    }
}

/// One module's place on a route.
pub struct Subscription<C: Callback, H = Arc<Incarnation>> {
    /// The module's id.
    pub id: ModuleId,
    /// What its failures count as here.
    pub policy: Policy,
    /// Its function.
    pub subscriber: Arc<dyn Subscriber<C>>,
    /// The way to it, through its present incarnation.
    pub incarnation: H,
}

/// The ordered subscribers of a callback.
pub struct Route<C: Callback, H = Arc<Incarnation>> {
    subscriptions: Vec<Subscription<C, H>>,
    server_name: OwnedServerName,
}

impl<C: Callback, H> Route<C, H> {
    /// A route in this order, of the homeserver with this name.
    #[must_use]
    pub fn new(subscriptions: Vec<Subscription<C, H>>, server_name: OwnedServerName) -> Self {
        Self {
            subscriptions,
            server_name,
        }
    }

    /// The name of the homeserver that asks.
    #[must_use]
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// The subscribers, first to last.
    #[must_use]
    pub fn subscriptions(&self) -> &[Subscription<C, H>] {
        &self.subscriptions
    }
}

impl<C: Callback> Modules for Route<C> {
    fn at(&self, position: usize) -> &ModuleHandle {
        self.subscriptions[position].incarnation.module()
    }
}

/// A module that takes part in routes.
pub struct RoutedModule {
    /// Its present incarnation.
    pub incarnation: Arc<Incarnation>,
    /// What it registered.
    pub registered: Arc<Registered>,
    /// Higher is asked first; ties keep the order of the file.
    pub priority: i64,
    /// Its failure rules.
    pub on_failure: Vec<FailureRule>,
}

impl RoutedModule {
    fn id(&self) -> &str {
        self.incarnation.module().id()
    }
}

/// Why modules cannot be routed together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// Two modules registered a callback that only one may have. Synapse stops the start too.
    #[error("{callback} is registered by {first} and by {second}: only one module may have it")]
    SecondOwner {
        /// The callback.
        callback: &'static str,
        /// Who registered it first.
        first: String,
        /// Who registered it too.
        second: String,
    },
    /// A login type was declared with different fields. Synapse's documents say that it stops the start.
    #[error("login type {login_type} is declared by {first} and by {second} with different fields")]
    LoginFields {
        /// The login type.
        login_type: String,
        /// Who declared it first.
        first: String,
        /// Who declared it otherwise.
        second: String,
    },
}

/// A route, once for each core: to count references to one and the same would make all cores wait for each other.
struct Copies<C: Callback>(Box<[Arc<Route<C>>]>);

impl<C: Callback> Copies<C> {
    fn new(make: impl Fn() -> Route<C>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self((0..cores.min(MOST_COPIES)).map(|_| Arc::new(make())).collect())
    }

    /// That of this thread.
    fn here(&self) -> Option<&Arc<Route<C>>> {
        let number = usize::try_from(thread_number()).unwrap_or_default();
        self.0.get(number.checked_rem(self.0.len())?)
    }
}

/// How many copies of a route there are at most.
const MOST_COPIES: usize = 16;

/// All routes. Immutable: another set of modules is another table.
#[derive(Default)]
pub struct RoutingTable {
    // The `Copies<C>` of a callback, at its index.
    routes: Vec<Box<dyn Any + Send + Sync>>,
    overview: Vec<Vec<ModuleHandle>>,
    login_types: BTreeMap<String, LoginType>,
    ignored: Vec<(ModuleId, &'static CallbackSpec)>,
}

impl fmt::Debug for RoutingTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.overview().map(|(spec, modules)| {
            (
                spec.name,
                modules.iter().map(|module| module.id().to_owned()).collect::<Vec<_>>(),
            )
        });
        f.debug_map().entries(routes).finish()
    }
}

/// A registration with the module that made it.
struct Entry<'a> {
    module: &'a RoutedModule,
    registration: &'a Registration,
}

impl RoutingTable {
    /// Orders the modules' registrations into routes.
    ///
    /// # Errors
    /// Registrations contradict each other.
    pub fn new<'a>(
        modules: impl IntoIterator<Item = &'a RoutedModule>,
        on_failure: &[FailureRule],
        server_name: &ServerName,
    ) -> Result<Self, RouteError> {
        let mut modules: Vec<&RoutedModule> = modules.into_iter().collect();
        modules.sort_by_key(|module| std::cmp::Reverse(module.priority));
        let login_types = login_types(&modules)?;
        let mut entries: Vec<Vec<Entry<'_>>> = reference().iter().map(|_| Vec::new()).collect();
        for &module in &modules {
            for registration in &module.registered.callbacks {
                entries[registration.index()].push(Entry { module, registration });
            }
        }
        let ignored = keep_owner(&mut entries);
        for (spec, entries) in reference().iter().zip(&entries) {
            if let (Combine::SingleOwner, [first, second, ..]) = (spec.combine, &entries[..]) {
                return Err(RouteError::SecondOwner {
                    callback: spec.name,
                    first: first.module.id().into(),
                    second: second.module.id().into(),
                });
            }
        }
        let overview = entries
            .iter()
            .map(|entries| {
                let modules = entries.iter().map(|entry| entry.module.incarnation.module().clone());
                modules.collect()
            })
            .collect();
        let mut builder = RouteBuilder {
            entries: &entries,
            on_failure,
            server_name,
            routes: Vec::with_capacity(entries.len()),
        };
        visit_all(&mut builder);
        Ok(Self {
            routes: builder.routes,
            overview,
            login_types,
            ignored,
        })
    }

    /// The route of a callback.
    #[must_use]
    pub fn route<C: Callback>(&self) -> Option<&Arc<Route<C>>> {
        self.routes.get(C::INDEX)?.downcast_ref::<Copies<C>>()?.here()
    }

    /// Every callback with the modules on its route, in order.
    pub fn overview(&self) -> impl Iterator<Item = (&'static CallbackSpec, &[ModuleHandle])> {
        reference().iter().zip(self.overview.iter().map(Vec::as_slice))
    }

    /// Registrations that are never asked, since another module owns the callback.
    #[must_use]
    pub fn ignored(&self) -> &[(ModuleId, &'static CallbackSpec)] {
        &self.ignored
    }

    /// The login types that modules declared.
    pub fn login_types(&self) -> impl Iterator<Item = &LoginType> {
        self.login_types.values()
    }

    /// Checks what only the subscribers know of the arguments: the fields that login types declared.
    ///
    /// # Errors
    /// A declared field is missing.
    pub fn check_args<C: Callback>(&self, args: &C) -> Result<(), JsonError> {
        let subscriptions = self.route::<C>().map(|route| route.subscriptions()).unwrap_or_default();
        subscriptions
            .iter()
            .try_for_each(|subscription| subscription.subscriber.concern(args).map(drop))
    }
}

/// Collects the login types, which must agree on their fields.
fn login_types(modules: &[&RoutedModule]) -> Result<BTreeMap<String, LoginType>, RouteError> {
    let mut seen: BTreeMap<String, (&RoutedModule, LoginType)> = BTreeMap::new();
    for &module in modules {
        for login_type in module.registered.callbacks.iter().flat_map(Registration::login_types) {
            let (first, declared) = seen
                .entry(login_type.name.clone())
                .or_insert_with(|| (module, login_type.clone()));
            if declared.fields != login_type.fields {
                return Err(RouteError::LoginFields {
                    login_type: login_type.name.clone(),
                    first: first.id().into(),
                    second: module.id().into(),
                });
            }
        }
    }
    Ok(seen
        .into_iter()
        .map(|(name, (_, login_type))| (name, login_type))
        .collect())
}

/// The first registration of a background update controller owns the category; the others are ignored, as in Synapse.
fn keep_owner(entries: &mut [Vec<Entry<'_>>]) -> Vec<(ModuleId, &'static CallbackSpec)> {
    let Some(owner) = entries[OnUpdate::INDEX].first() else {
        return Vec::new();
    };
    let (owner, group) = (owner.module.id().to_owned(), owner.registration.group());
    let mut ignored = Vec::new();
    for (spec, entries) in reference().iter().zip(entries) {
        if spec.category == Category::BackgroundUpdateController {
            entries.retain(|entry| {
                let owned = entry.module.id() == owner && entry.registration.group() == group;
                if !owned {
                    ignored.push((entry.module.incarnation.module().module_id(), spec));
                }
                owned
            });
        }
    }
    ignored
}

struct RouteBuilder<'a> {
    entries: &'a [Vec<Entry<'a>>],
    on_failure: &'a [FailureRule],
    server_name: &'a ServerName,
    routes: Vec<Box<dyn Any + Send + Sync>>,
}

impl RouteBuilder<'_> {
    fn build<C: Callback>(&mut self) {
        let subscription = |entry: &Entry<'_>| {
            Some(Subscription {
                id: entry.module.incarnation.module().module_id(),
                policy: Policy::resolve(&entry.module.on_failure, self.on_failure, &C::SPEC),
                // `None` would be a registration under another callback's index, which `Registration` rules out.
                subscriber: entry.registration.subscriber::<C>()?,
                incarnation: Arc::clone(&entry.module.incarnation),
            })
        };
        let entries = &self.entries[C::INDEX];
        let copies = Copies::<C>::new(|| {
            let subscriptions = entries.iter().filter_map(subscription);
            Route::new(subscriptions.collect(), self.server_name.to_owned())
        });
        self.routes.push(Box::new(copies));
    }
}

ganglion_api::visit_each_callback!(RouteBuilder<'_>, |self, C| self.build::<C>());
