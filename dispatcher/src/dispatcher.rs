//! The dispatcher actor: drives chains on one worker.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use ganglion_actors::{Asker, Asking, Course, Incarnation, ModuleThread, Reclaim, Worker};
use ganglion_api::{CallFailure, FailureKind, MatrixError, WebRequest, WebResource, WebResponse};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::chain::{Chain, Question};
use crate::fold::Routed;
use crate::intake::{Intake, Job, Loaded, Next};

/// A chain that its worker drives and its caller watches: a caller whose deadline passes concludes from what is there.
pub(crate) struct SharedChain<C: Routed>(Arc<Shared<C>>);

struct Shared<C: Routed> {
    chain: Mutex<Chain<C>>,
    /// Somebody answered.
    answered: Notify,
}

impl<C: Routed> Clone for SharedChain<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Routed> SharedChain<C> {
    pub(crate) fn new(chain: Chain<C>) -> Self {
        Self(Arc::new(Shared {
            chain: Mutex::new(chain),
            answered: Notify::new(),
        }))
    }

    /// No module code runs while this is held.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Chain<C>> {
        self.0.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody is being asked, at most until then.
    pub(crate) async fn answered(&self, until: Instant) {
        let answered = self.0.answered.notified();
        let mut answered = pin!(answered);
        // From now on no answer is missed.
        answered.as_mut().enable();
        if self.lock().is_asked() {
            // Whether it came or not: the chain knows.
            let _ = timeout_at(until, answered).await;
        }
    }
}

/// One question of a chain to one module.
struct Asked<C: Routed> {
    chain: SharedChain<C>,
    question: Question,
}

impl<C: Routed> Clone for Asked<C> {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            question: self.question,
        }
    }
}

impl<C: Routed> Asking<C::Answer> for Asked<C> {
    fn begin(&self, course: &Arc<Course>) -> bool {
        self.chain.lock().begin(self.question, course)
    }

    fn waits(&self, place: Arc<dyn Reclaim>) {
        self.chain.lock().waits(self.question, place);
    }

    fn end(self, result: Result<C::Answer, CallFailure>) {
        self.chain.lock().answer(self.question, result, Instant::now());
        self.chain.0.answered.notify_waiters();
    }
}

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
    fn begin(self, worker: Rc<Worker>) -> Pin<Box<dyn Future<Output = ()>>> {
        drop(self.loaded);
        Box::pin(async move { drive(&worker, &self.chain, self.leg, self.deadline, &self.asker).await })
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

/// A Matrix error is an answer.
pub(crate) type Served = Result<Result<WebResponse, MatrixError>, CallFailure>;

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
    fn begin(self, worker: Rc<Worker>) -> Pin<Box<dyn Future<Output = ()>>> {
        let Self {
            incarnation,
            resource,
            request,
            deadline,
            requester,
            asker,
            loaded,
        } = self;
        drop(loaded);
        Box::pin(async move {
            let budget = incarnation.budget(Instant::now(), deadline);
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
    worker: Rc<Worker>,
    intake: Arc<Intake>,
}

impl Dispatcher {
    /// The dispatcher of this thread, which is the current one.
    pub(crate) fn new(thread: Arc<ModuleThread>, intake: Arc<Intake>) -> Self {
        Self {
            worker: Rc::new(Worker::new(thread)),
            intake,
        }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.intake.close();
    }
}

impl Actor for Dispatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // What waits is bounded by the intake, and here comes a word for each.
        ctx.set_mailbox_capacity(0);
    }
}

impl<J: Job> Handler<J> for Dispatcher {
    type Result = ResponseFuture<()>;

    /// Jobs run side by side.
    fn handle(&mut self, job: J, _ctx: &mut Self::Context) -> Self::Result {
        job.begin(Rc::clone(&self.worker))
    }
}

impl Handler<Next> for Dispatcher {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _next: Next, _ctx: &mut Self::Context) -> Self::Result {
        self.intake.next(Rc::clone(&self.worker))
    }
}

/// Asks one module after the other until the outcome is fixed, or the chain goes on with another worker.
pub(crate) async fn drive<C: Routed>(
    worker: &Worker,
    chain: &SharedChain<C>,
    leg: u32,
    deadline: Instant,
    asker: &Asker,
) {
    loop {
        let asked_at = Instant::now();
        let (incarnation, subscriber, args, budget, question) = {
            let mut chain = chain.lock();
            if chain.leg() != leg {
                return;
            }
            if asked_at >= deadline {
                chain.expire(asked_at);
            }
            let args = Arc::clone(chain.args());
            let Some(next) = chain.next_subscription() else { return };
            let (incarnation, subscriber) = (Arc::clone(&next.incarnation), Arc::clone(&next.subscriber));
            let budget = incarnation.budget(asked_at, deadline);
            let question = chain.asked(asked_at, budget.until());
            (incarnation, subscriber, args, budget, question)
        };
        let asking = Asked {
            chain: chain.clone(),
            question,
        };
        incarnation
            .call(worker, subscriber, args, budget, asker.clone(), asking)
            .await;
    }
}
