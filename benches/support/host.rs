//! A dispatcher with modules, and the threads that it runs on.

use std::sync::Arc;

use actix::ArbiterHandle;
use ganglion::actors::{ModuleThread, Tier, WorkerThreads};
use ganglion::api::{NotConnected, Registry};
use ganglion::dispatcher::{DispatchHandle, Dispatching};
use ganglion::{Config, plan};

use crate::work;

/// Modules that run, as [`ganglion::Ganglion`] runs them; but for their worker threads, which a bench can get at.
pub struct Host {
    dispatching: Dispatching,
    threads: Vec<Arc<ModuleThread>>,
}

/// The config of so many modules of one tier that look. It listens on ports that are free.
#[must_use]
pub fn yaml(tier: Tier, modules: usize, workers: usize) -> String {
    let module = |index| format!("{{id: m{index}, module: {}, tier: {tier}}}", work::LOOKS);
    let modules: Vec<String> = (0..modules).map(module).collect();
    yaml_of(&modules, workers)
}

/// The config of these modules.
#[must_use]
pub fn yaml_of(modules: &[String], workers: usize) -> String {
    format!(
        "server_name: example.com\nhttp: {{bind: '127.0.0.1:0'}}\nadmin: {{bind: '127.0.0.1:0'}}\n\
         dispatch: {{workers: {workers}}}\nmodules: [{}]\n",
        modules.join(", ")
    )
}

/// Reads a config.
///
/// # Panics
/// It has errors.
#[must_use]
pub fn config(yaml: &str, registry: &Registry) -> Config {
    Config::from_yaml(yaml, "bench.yaml", registry).expect("a config")
}

impl Host {
    /// Starts the modules of a config.
    ///
    /// # Panics
    /// They do not start.
    #[must_use]
    pub fn start(yaml: &str, registry: &Registry) -> Self {
        let config = config(yaml, registry);
        let workers = WorkerThreads::start(config.dispatch.workers).expect("threads");
        let threads = workers.workers().into_iter().map(|(_, thread)| thread).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let dispatching = runtime
            .expect("a runtime")
            .block_on(Dispatching::start(plan(&config, Arc::new(NotConnected)), workers));
        let dispatching = dispatching.expect("modules");
        dispatching.activate();
        Self { dispatching, threads }
    }

    /// Starts so many modules of one tier that look on the current arbiter, where nothing else runs and no thread is
    /// watched.
    ///
    /// # Panics
    /// They do not start, or there is no current arbiter.
    pub async fn here(tier: Tier, modules: usize) -> Self {
        let config = config(&yaml(tier, modules, 1), &work::registry());
        let workers = WorkerThreads::current();
        let threads = workers.workers().into_iter().map(|(_, thread)| thread).collect();
        let dispatching = Dispatching::start(plan(&config, Arc::new(NotConnected)), workers)
            .await
            .expect("modules");
        dispatching.activate();
        Self { dispatching, threads }
    }

    /// The same with so many modules of one tier that look.
    #[must_use]
    pub fn of(tier: Tier, modules: usize, workers: usize) -> Self {
        Self::start(&yaml(tier, modules, workers), &work::registry())
    }

    /// Asks the modules.
    #[must_use]
    pub fn handle(&self) -> DispatchHandle {
        self.dispatching.handle().clone()
    }

    /// The workers' threads.
    #[must_use]
    pub fn threads(&self) -> &[Arc<ModuleThread>] {
        &self.threads
    }
}

/// Threads of the kind that modules run on, without modules: what floors and peers run on, so that nothing but the work
/// differs.
pub struct Threads {
    threads: Vec<Arc<ModuleThread>>,
    // They end when it is dropped.
    _workers: WorkerThreads,
}

impl Threads {
    /// Starts so many.
    ///
    /// # Panics
    /// The operating system gave no threads.
    #[must_use]
    pub fn start(count: usize) -> Self {
        let workers = WorkerThreads::start(count).expect("threads");
        let threads = workers.workers().into_iter().map(|(_, thread)| thread).collect();
        Self {
            threads,
            _workers: workers,
        }
    }

    /// Where work is sent.
    #[must_use]
    pub fn arbiter(&self, index: usize) -> ArbiterHandle {
        self.threads[index].arbiter().clone()
    }
}
