//! Tests of a module: built from its config as in a config file, asked as a homeserver asks, with a clock that the test
//! moves. Only with the feature `testing`.
//!
//! ```
//! use std::time::Duration;
//!
//! use ganglion::api::{JsonObject, UserId, UserMayCreateRoom, VerdictKind};
//! use ganglion::dispatcher::StepResult;
//! use ganglion::modules::DemoModule;
//! use ganglion::testing::{MODULE, ModuleTest};
//!
//! ModuleTest::new::<DemoModule>("deny_user: '@eve:example.com'").run(async |module| {
//!     let eve = UserId::parse("@eve:example.com").unwrap();
//!     let decision = module.ask(UserMayCreateRoom::new(eve, JsonObject::new())).await;
//!     assert_eq!(decision.decided_by.as_deref(), Some(MODULE));
//!     assert_eq!(decision.steps[0].result, StepResult::Verdict(VerdictKind::Deny));
//!     // Whatever the module does by the hour has happened a hundred times.
//!     module.advance(Duration::from_secs(360_000)).await;
//! });
//!
//! let refusal = ModuleTest::new::<DemoModule>("deny_user: eve").refusal();
//! assert!(refusal.starts_with("modules[0].config.deny_user: "), "{refusal}");
//! ```

use std::cell::Cell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::{System, SystemRunner};
use ganglion_actors::{CacheStatistics, Caller, ModuleCommand, ModuleSnapshot, WorkerThreads};
use ganglion_api::{Homeserver, HomeserverError, LocalFuture, Module, NotConnected, Registry, WebRequest, WebResponse};
use ganglion_dispatcher::{Decision, Routed};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::Config;
use crate::ganglion::{CommandError, Ganglion};
use crate::http::seen_by_client;

/// The id of the module in decisions, and its path in the config.
pub const MODULE: &str = "test.Module";

/// The least that timers tell apart.
const SETTLE: Duration = Duration::from_millis(1);

/// What the config file is called.
const FILE: &str = "ganglion.yaml";

/// A module that is to be tested, and what surrounds it.
pub struct ModuleTest {
    registry: Registry,
    config: String,
    entry: String,
    server_name: String,
    directory: PathBuf,
    homeserver: Arc<dyn Homeserver>,
    paused: bool,
}

/// A homeserver that a test scripts.
struct Scripted<F>(F);

impl<F> Homeserver for Scripted<F>
where
    F: Fn(&'static str, Value) -> Result<Value, HomeserverError> + Send + Sync,
{
    fn call(&self, method: &'static str, arguments: Value) -> LocalFuture<'_, Result<Value, HomeserverError>> {
        let answer = self.0(method, arguments);
        Box::pin(async move { answer })
    }
}

impl ModuleTest {
    /// A test of the module `M` with this config: the YAML that stands below the key `config` of its entry. Empty is no
    /// config.
    #[must_use]
    pub fn new<M: Module>(config: impl Into<String>) -> Self {
        Self {
            registry: Registry::new().with::<M>(MODULE),
            config: config.into(),
            entry: String::new(),
            server_name: "example.com".into(),
            directory: PathBuf::new(),
            homeserver: Arc::new(NotConnected),
            paused: true,
        }
    }

    /// Other keys of the module's entry as YAML, a line each: `tier: thread`, `call_timeout: 5s`.
    #[must_use]
    pub fn entry(mut self, yaml: impl Into<String>) -> Self {
        self.entry = yaml.into();
        self
    }

    /// The homeserver's name; `example.com` by default.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = name.into();
        self
    }

    /// Where the config file would be: what relative paths in the module's config are relative to. The current directory
    /// by default.
    #[must_use]
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = directory.as_ref().to_owned();
        self
    }

    /// A homeserver: what it answers to a method with these arguments. Without one it is
    /// [`HomeserverError::NotConnected`].
    #[must_use]
    pub fn homeserver<F>(mut self, answer: F) -> Self
    where
        F: Fn(&'static str, Value) -> Result<Value, HomeserverError> + Send + Sync + 'static,
    {
        self.homeserver = Arc::new(Scripted(answer));
        self
    }

    /// Lets time pass by itself: for a module that waits for something outside of the test, such as a server. On a paused
    /// clock its deadlines would pass while it does.
    #[must_use]
    pub fn real_time(mut self) -> Self {
        self.paused = false;
        self
    }

    /// Makes the module and tests it. Everything runs on this thread, in an actix system of its own: not within another
    /// runtime. The clock is paused: it moves when the test says so, and to the next timer when everything else waits. A
    /// module in the tier `thread` keeps real time on its own thread.
    ///
    /// # Panics
    /// The module cannot be made: with the text that an operator would see.
    #[track_caller]
    pub fn run<T>(self, test: impl AsyncFnOnce(&RunningModule) -> T) -> T {
        let made = self.system().block_on(async {
            let module = self.make().await?;
            Ok::<T, String>(test(&module).await)
        });
        match made {
            Ok(tested) => tested,
            Err(refusal) => panic!("the module cannot be made: {refusal}"),
        }
    }

    /// Why the module cannot be made: what is wrong with its config, with the place, or what its constructor says.
    ///
    /// # Panics
    /// It can be made.
    #[must_use]
    #[track_caller]
    pub fn refusal(self) -> String {
        let made = self.system().block_on(async { self.make().await.map(drop) });
        match made {
            Ok(()) => panic!("the module was made, its config was accepted"),
            Err(refusal) => refusal,
        }
    }

    fn system(&self) -> SystemRunner {
        System::with_tokio_rt(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().start_paused(self.paused).build();
            runtime.expect("the system gives a thread its timers and sockets")
        })
    }

    async fn make(&self) -> Result<RunningModule, String> {
        let config = Config::from_yaml(&self.yaml(), self.directory.join(FILE), &self.registry);
        let config = config.map_err(|problems| {
            let texts: Vec<String> = problems.problems.iter().map(ToString::to_string).collect();
            texts.join("\n")
        })?;
        let homeserver = Arc::clone(&self.homeserver);
        let ganglion = Ganglion::start_on(WorkerThreads::current(), &config, homeserver).await;
        let ganglion = ganglion.map_err(|error| error.to_string())?;
        Ok(RunningModule {
            ganglion,
            paused: self.paused,
            moved_to: Cell::new(None),
        })
    }

    /// The config file.
    fn yaml(&self) -> String {
        let mut yaml = format!("server_name: {:?}\nmodules:\n  - module: {MODULE}\n", self.server_name);
        for line in self.entry.lines() {
            let _ = writeln!(yaml, "    {line}");
        }
        yaml.push_str("    config:\n");
        for line in self.config.lines() {
            let _ = writeln!(yaml, "      {line}");
        }
        yaml
    }
}

/// A module that runs in a test. It is stopped when this is dropped.
pub struct RunningModule {
    ganglion: Ganglion,
    paused: bool,
    moved_to: Cell<Option<Instant>>,
}

impl RunningModule {
    /// Asks a callback. If the module did not register for it, nobody is asked and the decision has no step.
    pub async fn ask<C: Routed>(&self, args: C) -> Decision<C> {
        self.ganglion.ask(args).await
    }

    /// Asks a callback by its name, with the JSON that it has over HTTP. The decision is as there, without the durations of
    /// its steps.
    ///
    /// # Panics
    /// There is no such callback, or the args are not its own.
    #[track_caller]
    pub fn ask_json(&self, callback: &str, args: Value) -> impl Future<Output = Value> {
        let place = std::panic::Location::caller();
        async move {
            let mut decision = match self.ganglion.ask_json(callback, args).await {
                Ok(decision) => json!(decision),
                Err(error) => panic!("{place}: {callback}: {error}"),
            };
            for step in decision["steps"].as_array_mut().into_iter().flatten() {
                step.as_object_mut().map(|step| step.remove("duration_us"));
            }
            decision
        }
    }

    /// Makes a request to the module's web resource. What has no resource is 404, and a failure is what a client would see
    /// of it; its cause is in the log.
    pub async fn request(&self, request: WebRequest) -> WebResponse {
        let dispatch = self.ganglion.dispatch();
        let resources = dispatch.resources();
        match resources.find(request.uri().path()) {
            Some(mounted) => seen_by_client(mounted, dispatch.respond(mounted, request, Caller::Unnamed).await),
            None => {
                let mut response = WebResponse::default();
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }

    /// Moves the clock: everything that is due meanwhile has happened then, in its order, what it does on blocking threads
    /// too. The clock is exact to a millisecond.
    ///
    /// # Panics
    /// Time is [real](ModuleTest::real_time): a test waits for a signal and not for time.
    pub async fn advance(&self, duration: Duration) {
        assert!(self.paused, "time is real in this test");
        let now = Instant::now();
        // Not from the millisecond that the time before took to settle.
        let from = self
            .moved_to
            .get()
            .filter(|to| now.duration_since(*to) <= SETTLE)
            .unwrap_or(now);
        let to = from + duration;
        self.moved_to.set(Some(to));
        tokio::time::sleep_until(to).await;
        // A paused clock goes on only when nothing is left to do at that moment.
        tokio::time::sleep_until(to + SETTLE).await;
    }

    /// The module as the admin API shows it: its state, its breakers, its numbers.
    #[must_use]
    pub fn snapshot(&self) -> ModuleSnapshot {
        let module = self.ganglion.dispatch().module(MODULE);
        module.expect("a test has one module").snapshot()
    }

    /// The statistics of its cached functions.
    #[must_use]
    pub fn caches(&self) -> Vec<CacheStatistics> {
        self.ganglion.dispatch().caches().statistics()
    }

    /// Follows an operator's command, such as a restart.
    ///
    /// # Errors
    /// The module cannot follow it in its state.
    pub async fn command(&self, command: ModuleCommand) -> Result<ModuleSnapshot, CommandError> {
        self.ganglion.command(MODULE, command).await
    }

    /// The whole Ganglion, with this one module.
    #[must_use]
    pub fn ganglion(&self) -> &Ganglion {
        &self.ganglion
    }
}
