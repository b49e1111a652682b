//! The dispatcher actor: begins what its worker is sent.

use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, Context, Handler, Message};
use ganglion_actors::{Asker, Asking, Course, Incarnation, ModuleThread, Moment, Worker};
use ganglion_api::{CallFailure, FailureKind, MatrixError, WebRequest, WebResource, WebResponse};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::drive::Drive;
use crate::fold::Routed;
use crate::intake::{Intake, Job, Loaded, Next};
use crate::shared_chain::SharedChain;
use crate::turns::{Doing, Turns, Work};

/// Asks the modules on a callback's route.
pub(crate) struct Dispatch<C: Routed> {
    pub(crate) chain: SharedChain<C>,
    pub(crate) leg: u32,
    pub(crate) deadline: Instant,
    pub(crate) asker: Asker,
    pub(crate) loaded: Loaded,
}

impl<C: Routed> Job for Dispatch<C> {
    /// Once begun, a chain goes on without its caller.
    fn begin(self, worker: Rc<Worker>) -> Work {
        let Self {
            chain,
            leg,
            deadline,
            asker,
            loaded,
        } = self;
        Box::pin(async move {
            drop(loaded);
            let route = Arc::clone(chain.lock().route());
            let drive = Drive::new(&worker, route, asker, deadline);
            drive.run(&chain, leg, worker.now()).await;
        })
    }

    fn refuse(self) -> bool {
        let mut chain = self.chain.lock();
        // Not if it went on elsewhere.
        let wanted = chain.leg() == self.leg;
        if wanted {
            chain.abandon(&too_many_wait());
        }
        wanted
    }
}

/// The failure of what a worker has no room for.
fn too_many_wait() -> CallFailure {
    CallFailure::new(
        FailureKind::Overloaded,
        Some("too many calls wait for a worker".to_owned()),
    )
}

impl<C: Routed> Message for Dispatch<C> {
    /// The decision stands in the chain, from which only the caller takes it: so a caller whose deadline passes at this
    /// very moment finds it there.
    type Result = ();
}

/// What a web resource answered: a Matrix error is an answer.
pub type Served = Result<Result<WebResponse, MatrixError>, CallFailure>;

/// Whether a request to a web resource has begun; as long as it has not, it may be made elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Turn(AtomicU8);

impl Turn {
    const BEGUN: u8 = 1;
    const WITHDRAWN: u8 = 2;

    fn take(&self, turn: u8) -> bool {
        let taken = self.0.compare_exchange(0, turn, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok()
    }

    /// It is withdrawn, unless it has begun.
    pub(crate) fn withdraw(&self) -> bool {
        self.take(Self::WITHDRAWN)
    }
}

/// Who asked a web resource. The answer goes straight there; when nobody holds this any more, there will be none.
#[derive(Clone)]
pub(crate) struct Requester {
    turn: Arc<Turn>,
    answer: Arc<Mutex<Option<oneshot::Sender<Served>>>>,
}

impl Requester {
    pub(crate) fn new(turn: Arc<Turn>) -> (Self, oneshot::Receiver<Served>) {
        let (answer, answered) = oneshot::channel();
        let answer = Arc::new(Mutex::new(Some(answer)));
        (Self { turn, answer }, answered)
    }
}

impl Asking<Result<WebResponse, MatrixError>> for Requester {
    fn begin(&self, _: &Arc<Course>) -> bool {
        self.turn.take(Turn::BEGUN)
    }

    fn end(self, result: Served) {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(answer) = answer {
            // The client may be gone.
            let _ = answer.send(result);
        }
    }
}

/// Lets a web resource answer a request.
pub(crate) struct Serve {
    pub(crate) incarnation: Arc<Incarnation>,
    pub(crate) resource: Arc<dyn WebResource>,
    pub(crate) request: WebRequest,
    pub(crate) deadline: Instant,
    pub(crate) requester: Requester,
    pub(crate) asker: Asker,
    pub(crate) loaded: Loaded,
}

impl Job for Serve {
    fn begin(self, worker: Rc<Worker>) -> Work {
        let Self {
            incarnation,
            resource,
            request,
            deadline,
            requester,
            asker,
            loaded,
        } = self;
        Box::pin(async move {
            drop(loaded);
            let now = Moment::from(Instant::now());
            let left = Moment::from(deadline).nanos_since(now);
            let budget = incarnation.budget(now, left);
            incarnation
                .respond(&worker, resource, request, budget, asker, requester)
                .await;
        })
    }

    fn refuse(self) -> bool {
        let wanted = self.requester.turn.withdraw();
        if wanted {
            self.requester.end(Err(too_many_wait()));
        }
        wanted
    }
}

impl Message for Serve {
    /// The answer takes the shorter way.
    type Result = ();
}

/// The dispatcher of one worker.
pub(crate) struct Dispatcher {
    turns: Rc<Turns>,
}

impl Dispatcher {
    /// The dispatcher of this thread, which is the current one.
    pub(crate) fn new(thread: Arc<ModuleThread>, intake: Arc<Intake>) -> Self {
        Self {
            turns: Turns::new(Rc::new(Worker::new(thread)), intake),
        }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.turns.close();
    }
}

impl Actor for Dispatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // What waits is bounded by the intake, and here comes a word for each.
        ctx.set_mailbox_capacity(0);
        self.turns.open();
    }
}

impl<J: Job> Handler<J> for Dispatcher {
    type Result = Doing;

    /// Jobs run side by side.
    fn handle(&mut self, job: J, _ctx: &mut Self::Context) -> Self::Result {
        self.turns.begin(job.begin(Rc::clone(self.turns.worker())))
    }
}

impl Handler<Next> for Dispatcher {
    type Result = Doing;

    fn handle(&mut self, _next: Next, _ctx: &mut Self::Context) -> Self::Result {
        self.turns.begin_next()
    }
}
