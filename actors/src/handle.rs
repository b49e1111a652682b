//! The way to a module: state, permit, then its actor.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor as _, Addr, MailboxError};
use ganglion_api::{CallFailure, Callback, FailureKind, MatrixError, Subscriber, WebRequest, WebResource, WebResponse};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::module_actor::{Call, Invoke, ModuleActor, Respond, Work};
use crate::snapshot::{Counters, ModuleSnapshot};
use crate::state::{ModuleState, StateCell};
use crate::worker::{WorkerIndex, WorkerThreads};

/// What a module may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleLimits {
    /// The budget of one call, the wait for a permit included.
    pub call_timeout: Duration,
    /// How many calls may run, over all workers.
    pub max_in_flight: usize,
    /// How many calls may wait, over all workers.
    pub mailbox: usize,
}

struct Shared {
    id: String,
    path: String,
    limits: ModuleLimits,
    state: StateCell,
    admission: Admission,
    stop: CancellationToken,
    replicas: Box<[Addr<ModuleActor>]>,
    counters: Counters,
}

/// The way to a module. Clones are the same module.
#[derive(Clone)]
pub struct ModuleHandle {
    shared: Arc<Shared>,
}

impl fmt::Debug for ModuleHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModuleHandle")
            .field("id", &self.id())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl ModuleHandle {
    /// Starts the module's actors, one on every worker. The module is `Starting` until [`run`](Self::run).
    #[must_use]
    pub fn start(id: String, path: String, limits: ModuleLimits, workers: &WorkerThreads) -> Self {
        let stop = CancellationToken::new();
        let replica = |arbiter| {
            let actor = ModuleActor::new(stop.clone(), limits.max_in_flight);
            ModuleActor::start_in_arbiter(arbiter, |_| actor)
        };
        let replicas = workers.arbiters().iter().map(replica).collect();
        Self {
            shared: Arc::new(Shared {
                id,
                path,
                limits,
                state: StateCell::new(ModuleState::Starting),
                admission: Admission::new(limits.max_in_flight, limits.mailbox),
                stop,
                replicas,
                counters: Counters::default(),
            }),
        }
    }

    /// The constructor has returned: calls are taken.
    pub fn run(&self) {
        self.shared.state.set(ModuleState::Running);
    }

    /// The module's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// What it may use.
    #[must_use]
    pub fn limits(&self) -> &ModuleLimits {
        &self.shared.limits
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> ModuleState {
        self.shared.state.get()
    }

    /// Cancelled when the module is stopped.
    #[must_use]
    pub fn stopped(&self) -> &CancellationToken {
        &self.shared.stop
    }

    /// What can be seen of it.
    #[must_use]
    pub fn snapshot(&self) -> ModuleSnapshot {
        ModuleSnapshot {
            id: self.shared.id.clone(),
            path: self.shared.path.clone(),
            state: self.state(),
            in_flight: self.shared.admission.in_flight(),
            queued: self.shared.admission.waiting(),
            calls: self.shared.counters.calls(),
            failures: self.shared.counters.failures(),
        }
    }

    /// Stops the module at once: calls that wait or run fail as `not_running`, background calls end at their next
    /// await.
    pub fn stop(&self) {
        self.shared.state.set(ModuleState::Stopped);
        self.shared.admission.close();
        self.shared.stop.cancel();
    }

    /// Asks a subscriber of the module, on the caller's worker, until its budget or `deadline` runs out.
    ///
    /// # Errors
    /// The module gave no answer: see [`FailureKind`].
    ///
    /// # Cancellation
    /// A call that waits is withdrawn; one that runs goes on to its end or its budget.
    pub async fn call<C: Callback>(
        &self,
        worker: WorkerIndex,
        subscriber: Arc<dyn Subscriber<C>>,
        args: Arc<C>,
        deadline: Instant,
    ) -> Result<C::Answer, CallFailure> {
        self.admit(worker, Invoke { subscriber, args }, deadline).await
    }

    /// Lets a web resource of the module answer a request, until its budget runs out. A Matrix error is an answer.
    ///
    /// # Errors
    /// The module gave no answer: see [`FailureKind`].
    pub async fn respond(
        &self,
        worker: WorkerIndex,
        resource: Arc<dyn WebResource>,
        request: WebRequest,
        deadline: Instant,
    ) -> Result<Result<WebResponse, MatrixError>, CallFailure> {
        self.admit(worker, Respond { resource, request }, deadline).await
    }

    async fn admit<W: Work>(&self, worker: WorkerIndex, work: W, deadline: Instant) -> Result<W::Output, CallFailure> {
        let result = self.send(worker, work, deadline).await;
        self.shared
            .counters
            .count(result.as_ref().err().map(|failure| failure.kind));
        result
    }

    async fn send<W: Work>(&self, worker: WorkerIndex, work: W, deadline: Instant) -> Result<W::Output, CallFailure> {
        if self.state() != ModuleState::Running {
            return Err(FailureKind::NotRunning.into());
        }
        let until = deadline.min(Instant::now() + self.shared.limits.call_timeout);
        let permit = self.shared.admission.admit(until).await?;
        match self.shared.replicas[worker.get()]
            .send(Call { work, until, permit })
            .await
        {
            Ok(answer) => answer,
            Err(MailboxError::Closed) => Err(FailureKind::NotRunning.into()),
            Err(MailboxError::Timeout) => Err(FailureKind::DeadlineExceeded.into()),
        }
    }
}
