//! Which modules are on the routes right now. Every change of a module makes new tables, which are swapped whole.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use ganglion_actors::{Incarnation, Router};
use ganglion_api::{OwnedServerName, Registered};

use tokio::sync::watch;

use crate::policy::FailureRule;
use crate::resources::ResourceTable;
use crate::review::{Review, Reviewed, review};
use crate::route::{RouteError, RoutedModule, RoutingTable};

/// A module's place in the routes.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) priority: i64,
    pub(crate) on_failure: Vec<FailureRule>,
    /// Whether its breakers refuse calls.
    pub(crate) breakers_refuse: bool,
}

/// Both tables.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) routes: Arc<RoutingTable>,
    pub(crate) resources: Arc<ResourceTable>,
}

struct Modules {
    places: Vec<Place>,
    routed: Vec<Option<RoutedModule>>,
    /// Until all modules are there nobody asks, and conflicts are found at the end.
    open: bool,
}

/// Who is asked now.
pub(crate) struct Routing {
    modules: Mutex<Modules>,
    on_failure: Vec<FailureRule>,
    server_name: OwnedServerName,
    tables: ArcSwap<Tables>,
    changed: watch::Sender<()>,
}

impl Routing {
    /// No module is routed yet.
    pub(crate) fn new(places: Vec<Place>, on_failure: Vec<FailureRule>, server_name: OwnedServerName) -> Self {
        let modules = Modules {
            routed: places.iter().map(|_| None).collect(),
            places,
            open: false,
        };
        Self {
            modules: Mutex::new(modules),
            on_failure,
            server_name,
            tables: ArcSwap::default(),
            changed: watch::channel(()).0,
        }
    }

    /// The tables of this moment.
    pub(crate) fn tables(&self) -> arc_swap::Guard<Arc<Tables>> {
        self.tables.load()
    }

    /// Tells of tables that were swapped.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Looks at the failure rules, with what is routed now.
    pub(crate) fn review(&self) -> Review {
        // Tables are swapped under this lock, so the two agree.
        let modules = self.lock();
        let tables = self.tables();
        let callbacks_of = |index| {
            let on_routes = tables.routes.overview().filter(|(_, modules)| {
                let mut modules = modules.iter();
                modules.any(|module| module.index() == index)
            });
            on_routes.map(|(callback, _)| callback.name).collect()
        };
        let reviewed = modules.places.iter().zip(&modules.routed).enumerate();
        let reviewed = reviewed.map(|(index, (place, routed))| Reviewed {
            rules: &place.on_failure,
            callbacks: routed.as_ref().map(|_| callbacks_of(index)),
            breakers_refuse: place.breakers_refuse,
        });
        review(&reviewed.collect::<Vec<_>>(), &self.on_failure)
    }

    /// All modules are there: from now on they are asked.
    ///
    /// # Errors
    /// They do not go together.
    pub(crate) fn open(&self) -> Result<(), RouteError> {
        let mut modules = self.lock();
        modules.open = true;
        self.swap(&modules)
    }

    fn lock(&self) -> MutexGuard<'_, Modules> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the tables anew. With an error the old ones stay.
    fn swap(&self, modules: &Modules) -> Result<(), RouteError> {
        if !modules.open {
            return Ok(());
        }
        let routed = || modules.routed.iter().flatten();
        let mut resources = ResourceTable::default();
        for module in routed() {
            for (path, resource) in &module.registered.resources {
                resources.mount(path.clone(), Arc::clone(&module.incarnation), Arc::clone(resource));
            }
        }
        let tables = Tables {
            routes: Arc::new(RoutingTable::new(routed(), &self.on_failure, &self.server_name)?),
            resources: Arc::new(resources),
        };
        self.tables.store(Arc::new(tables));
        self.changed.send_replace(());
        Ok(())
    }

    /// Nothing is kept alive of any module, at the end.
    pub(crate) fn close(&self) {
        let mut modules = self.lock();
        for module in modules.routed.iter_mut().flatten() {
            module.registered = Arc::new(module.registered.vacated());
        }
        // The same registrations went together before.
        let _ = self.swap(&modules);
    }
}

impl Router for Routing {
    fn route(&self, incarnation: &Arc<Incarnation>, registered: Arc<Registered>) -> Result<(), String> {
        let mut modules = self.lock();
        let index = incarnation.module().index();
        let Some(Place {
            priority, on_failure, ..
        }) = modules.places.get(index).cloned()
        else {
            return Err("it has no place in the routes".into());
        };
        let routed = RoutedModule {
            incarnation: Arc::clone(incarnation),
            registered,
            priority,
            on_failure,
        };
        let before = modules.routed[index].replace(routed);
        let swapped = self.swap(&modules).map_err(|error| error.to_string());
        if swapped.is_err() {
            modules.routed[index] = before;
        }
        swapped
    }

    fn vacate(&self, vacant: &Arc<Incarnation>) {
        let mut modules = self.lock();
        if let Some(Some(module)) = modules.routed.get_mut(vacant.module().index()) {
            module.incarnation = Arc::clone(vacant);
            module.registered = Arc::new(module.registered.vacated());
            // The same registrations went together before.
            let _ = self.swap(&modules);
        }
    }

    fn unroute(&self, module: usize) {
        let mut modules = self.lock();
        if let Some(routed) = modules.routed.get_mut(module) {
            *routed = None;
            // Fewer registrations than those that went together before.
            let _ = self.swap(&modules);
        }
    }
}
