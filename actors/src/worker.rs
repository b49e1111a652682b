//! The threads that run module code, and nothing else.

use std::io;
use std::thread::JoinHandle;

use actix::{Arbiter, System};
use tokio::sync::oneshot;

/// The position of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerIndex(usize);

impl WorkerIndex {
    /// The position, counted from 0.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

/// Worker threads: actix arbiters under an actix system of their own, so that they work beside any runtime.
#[derive(Debug)]
pub struct WorkerThreads {
    arbiters: Vec<actix::ArbiterHandle>,
    system: Option<(System, JoinHandle<()>)>,
}

impl WorkerThreads {
    /// Starts `count` workers, at least one.
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub fn start(count: usize) -> io::Result<Self> {
        let (started, start) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("ganglion-system".into())
            .spawn(move || {
                let runner = System::new();
                let arbiters: Vec<_> = (0..count.max(1)).map(|_| Arbiter::new().handle()).collect();
                // The receiver is gone only if the starter panicked; then there is nothing to run.
                if started.send((arbiters, System::current())).is_ok() {
                    // An error is an exit code that nobody sets.
                    let _ = runner.run();
                }
            })?;
        let (arbiters, system) = start.recv().map_err(io::Error::other)?;
        Ok(Self {
            arbiters,
            system: Some((system, thread)),
        })
    }

    /// One worker: the current arbiter. For hosts that run an actix system themselves, and for paused clocks in tests.
    ///
    /// # Panics
    /// Outside of an actix system.
    #[must_use]
    pub fn current() -> Self {
        Self {
            arbiters: vec![Arbiter::current()],
            system: None,
        }
    }

    /// The workers' arbiters.
    #[must_use]
    pub fn arbiters(&self) -> &[actix::ArbiterHandle] {
        &self.arbiters
    }

    /// Every worker.
    pub fn indices(&self) -> impl Iterator<Item = WorkerIndex> + use<> {
        (0..self.arbiters.len()).map(WorkerIndex)
    }

    /// The worker that a module's background calls run on: modules are spread over all.
    #[must_use]
    pub fn home(&self, module: usize) -> &actix::ArbiterHandle {
        &self.arbiters[module % self.arbiters.len()]
    }

    /// Runs a function on a worker.
    ///
    /// # Errors
    /// The worker has ended, or the function panicked.
    pub async fn run_on<T: Send + 'static>(
        arbiter: &actix::ArbiterHandle,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkerEnded> {
        let (done, result) = oneshot::channel();
        arbiter.spawn_fn(move || {
            // Nobody waits any more: the result is not needed.
            let _ = done.send(function());
        });
        result.await.map_err(|_| WorkerEnded)
    }

    /// Ends the workers. What runs on them is dropped at its next await; a blocked worker ends when it unblocks.
    pub fn stop(&mut self) {
        if let Some((system, _thread)) = self.system.take() {
            system.stop();
        }
    }
}

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A worker ended before it did what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker thread has ended")]
pub struct WorkerEnded;
