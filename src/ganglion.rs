//! The handle that embedders and listeners ask through.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ganglion_actors::{CacheDefaults, ModuleCommand, ModuleSnapshot, ModuleSpec, Refused, WorkerThreads};
use ganglion_api::{Homeserver, NotConnected};
use ganglion_dispatcher::{
    AskContext, AskError, ContinueError, Decision, DispatchHandle, DispatchPlan, Dispatching, JsonDecision,
    PlannedModule, Routed, StartError,
};
use serde_json::Value;

use crate::config::Config;
use crate::warnings;

/// Modules that run, and the threads that they run on.
///
/// Clones are the same; it works from every thread of a tokio runtime with a timer. When the last clone is dropped, the
/// modules stop.
#[derive(Clone)]
pub struct Ganglion {
    handle: DispatchHandle,
    // Kept for its drop, and stopped by hand.
    dispatching: Arc<Mutex<Dispatching>>,
}

/// Why a command was not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// No module has this id.
    #[error("no module has this id")]
    UnknownModule,
    /// The module cannot follow it in its state.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl fmt::Debug for Ganglion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ganglion")
            .field("modules", &self.handle.modules())
            .finish_non_exhaustive()
    }
}

impl Ganglion {
    /// Makes every enabled module of the config, in the order of the file, and lets their background calls begin.
    ///
    /// # Errors
    /// A constructor failed or panicked, the modules do not go together, or the system has no threads to give. Nothing
    /// is left running.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        Self::start_with(config, Arc::new(NotConnected)).await
    }

    /// The same with a homeserver, which modules call through their [`ModuleApi`](ganglion_api::ModuleApi). If such a call
    /// makes the homeserver ask again from the same task, the question is below the module's call by itself; if from
    /// another, take the [`Lineage`](ganglion_actors::Lineage) along.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn start_with(config: &Config, homeserver: Arc<dyn Homeserver>) -> Result<Self, StartError> {
        let workers = WorkerThreads::start(config.dispatch.workers).map_err(StartError::Workers)?;
        Self::start_on(workers, config, homeserver).await
    }

    /// The same on these threads, and not on as many as the config says.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn start_on(
        workers: WorkerThreads,
        config: &Config,
        homeserver: Arc<dyn Homeserver>,
    ) -> Result<Self, StartError> {
        let ganglion = Self::make(workers, config, homeserver).await?;
        ganglion.lock().activate();
        Ok(ganglion)
    }

    /// Makes every enabled module without letting their background calls begin: enough to look at the routes.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn load(config: &Config) -> Result<Self, StartError> {
        let workers = WorkerThreads::start(config.dispatch.workers).map_err(StartError::Workers)?;
        Self::make(workers, config, Arc::new(NotConnected)).await
    }

    async fn make(
        workers: WorkerThreads,
        config: &Config,
        homeserver: Arc<dyn Homeserver>,
    ) -> Result<Self, StartError> {
        let dispatching = Dispatching::start(plan(config, homeserver), workers).await?;
        let handle = dispatching.handle().clone();
        Ok(Self {
            handle,
            dispatching: Arc::new(Mutex::new(dispatching)),
        })
    }

    /// Asks the modules that registered for a callback. See [`DispatchHandle::ask`].
    ///
    /// # Cancellation
    /// Dropping the future withdraws a call that no worker has begun; one that was begun runs to its end.
    pub fn ask<C: Routed>(&self, args: C) -> impl Future<Output = Decision<C>> + Send {
        self.handle.ask(args)
    }

    /// Asks for a caller, until a deadline, or below a call of a module, with args that may be asked with again. See
    /// [`DispatchHandle::ask_in`].
    ///
    /// # Cancellation
    /// As for [`ask`](Self::ask).
    pub fn ask_in<C: Routed>(&self, context: AskContext, args: Arc<C>) -> impl Future<Output = Decision<C>> + Send {
        self.handle.ask_in(context, args)
    }

    /// Asks by a callback's name, with arguments and decision as JSON.
    ///
    /// # Errors
    /// There is no such callback, or the arguments are not its own.
    pub async fn ask_json(&self, callback: &str, args: Value) -> Result<JsonDecision, AskError> {
        self.handle.ask_json(callback, args).await
    }

    /// Asks by a callback's name, in a context.
    ///
    /// # Errors
    /// As for [`ask_json`](Self::ask_json).
    pub async fn ask_json_in(
        &self,
        context: AskContext,
        callback: &str,
        args: Value,
    ) -> Result<JsonDecision, AskError> {
        self.handle.ask_json_in(context, callback, args).await
    }

    /// Runs what a module wants done later. See [`DispatchHandle::continue_json_in`].
    ///
    /// # Errors
    /// The token or the input is not right.
    pub async fn continue_json_in(
        &self,
        context: AskContext,
        callback: &str,
        token: &str,
        input: Value,
    ) -> Result<JsonDecision, ContinueError> {
        self.handle.continue_json_in(context, callback, token, input).await
    }

    /// Routes, web resources, modules and caches.
    #[must_use]
    pub fn dispatch(&self) -> &DispatchHandle {
        &self.handle
    }

    /// What an operator should look at: modules that are never asked, chains that can outlast their deadline, failure
    /// rules that do not do what they seem to.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        warnings::of(&self.handle)
    }

    /// Lets an operator's command act on the module with this id. See [`ModuleHandle::command`](ganglion_actors::ModuleHandle::command).
    ///
    /// # Errors
    /// There is no such module, or it cannot follow the command in its state.
    pub async fn command(&self, module: &str, command: ModuleCommand) -> Result<ModuleSnapshot, CommandError> {
        let module = self.handle.module(module).ok_or(CommandError::UnknownModule)?;
        Ok(module.command(command).await?)
    }

    /// Forgets the poison input of the module with this id: all args get to it again. In every state.
    ///
    /// # Errors
    /// There is no such module.
    pub fn clear_poison(&self, module: &str) -> Result<ModuleSnapshot, CommandError> {
        let module = self.handle.module(module).ok_or(CommandError::UnknownModule)?;
        module.clear_poison();
        Ok(module.snapshot())
    }

    /// Stops every module at once; calls that wait or run fail as `not_running`. To drain, stop asking first.
    pub fn shutdown(&self) {
        self.lock().stop();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Dispatching> {
        self.dispatching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a dispatcher is started with for this config: for who brings worker threads of their own, and else what
/// [`Ganglion::start_with`] does.
#[must_use]
pub fn plan(config: &Config, homeserver: Arc<dyn Homeserver>) -> DispatchPlan {
    let planned = config.modules.iter().map(|module| PlannedModule {
        spec: ModuleSpec {
            id: module.id.clone(),
            path: module.path.clone(),
            enabled: module.enabled,
            factory: module.factory.clone(),
            config: module.config.clone(),
            tier: module.tier,
            limits: module.limits,
            breaker: module.breaker,
            restart: module.restart,
        },
        priority: module.priority,
        on_failure: module.on_failure.clone(),
    });
    DispatchPlan {
        server_name: config.server_name.clone(),
        directory: config.directory.clone(),
        homeserver,
        deadline: config.dispatch.deadline,
        max_depth: config.dispatch.max_depth,
        cache: CacheDefaults {
            max_entries: config.cache.max_entries,
            max_per_module: config.cache.max_per_module,
            max_total: config.cache.max_total,
            ttl: config.cache.ttl,
            idle: config.cache.idle,
        },
        on_failure: config.on_failure.clone(),
        modules: planned.collect(),
    }
}
