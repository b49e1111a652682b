//! The dispatcher actor: drives chains on one worker.

use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Actor, Context, Handler, Message};
use ganglion_actors::{
    Asker, Asking, AtOnce, Budget, Course, Done, Incarnation, ModuleThread, Modules, Questioner, Reclaim, Waiting, Worker,
};
use ganglion_api::{CallFailure, FailureKind, MatrixError, WebRequest, WebResource, WebResponse};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::chain::{Chain, Question};
use crate::fold::Routed;
use crate::intake::{Intake, Job, Loaded, Next};
use crate::route::{Route, Subscription};
use crate::turns::{Doing, Turns, Work};

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

    /// Tells who waits that somebody answered.
    fn tell(&self) {
        self.0.answered.notify_waiters();
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
        self.chain.tell();
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
    fn begin(self, worker: Rc<Worker>) -> Work {
        let Self {
            chain,
            leg,
            deadline,
            asker,
            loaded,
        } = self;
        driven(worker, chain, leg, deadline, asker, Some(loaded))
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

/// Drives a chain on one worker.
pub(crate) struct Drive<'a, C: Routed> {
    pub(crate) worker: &'a Worker,
    pub(crate) chain: &'a SharedChain<C>,
    pub(crate) leg: u32,
    pub(crate) deadline: Instant,
}

/// Drives a chain on this worker, of which it is a load until it begins.
pub(crate) fn driven<C: Routed>(
    worker: Rc<Worker>,
    chain: SharedChain<C>,
    leg: u32,
    deadline: Instant,
    asker: Asker,
    loaded: Option<Loaded>,
) -> Work {
    Box::pin(async move {
        drop(loaded);
        let drive = Drive {
            worker: &worker,
            chain: &chain,
            leg,
            deadline,
        };
        drive.run(asker).await;
    })
}

/// Where a chain stops that was driven without waiting.
enum Stop<'a, C: Routed> {
    /// The outcome is fixed, or the chain goes on with another worker.
    Over,
    /// The arguments are others from now on, that is from this moment.
    Rewritten(Instant),
    /// A module's code has begun, and waits.
    Waits(Question, Waiting<'a, C>),
    /// The module at this position cannot begin at once.
    Later(Question, usize, Budget),
}

impl<'a, C: Routed> Drive<'a, C> {
    /// Asks one module after the other until the outcome is fixed, or the chain goes on with another worker.
    pub(crate) async fn run(self, asker: Asker) {
        let mut now = self.worker.now();
        let route = Arc::clone(self.chain.lock().route());
        let modules = Arc::clone(&route) as Arc<dyn Modules>;
        let questioner = Questioner::new::<C>(self.worker, modules, asker, self.deadline);
        loop {
            let args = Arc::clone(self.chain.lock().args());
            match questioner.run(|| self.run_at_once(now, &route, &args, &questioner)) {
                Stop::Over => return,
                Stop::Rewritten(at) => now = at,
                Stop::Waits(question, waiting) => {
                    let course = Arc::new(waiting.course());
                    // If the chain has gone on without it, its answer will not count; the module ends all the same.
                    let _ = self.chain.lock().begin(question, &course);
                    // Apart, so that a chain of modules that answer at once is a small future.
                    let (result, at) = Box::pin(waiting.answer(&questioner, &course)).await;
                    self.chain.lock().answer(question, result, at);
                    now = at;
                }
                Stop::Later(question, position, budget) => {
                    let Subscription {
                        incarnation,
                        subscriber,
                        ..
                    } = &route.subscriptions()[position];
                    let asking = Asked {
                        chain: self.chain.clone(),
                        question,
                    };
                    let (subscriber, args) = (Arc::clone(subscriber), Arc::clone(&args));
                    let asker = questioner.asker().clone();
                    Box::pin(incarnation.call(self.worker, subscriber, args, budget, asker, asking)).await;
                    now = self.worker.now();
                }
            }
        }
    }

    /// Asks the modules that can answer at once, with these arguments.
    fn run_at_once<'r>(
        &self,
        mut now: Instant,
        route: &'r Route<C>,
        args: &'r Arc<C>,
        questioner: &Questioner,
    ) -> Stop<'r, C>
    where
        'a: 'r,
    {
        let mut chain = self.chain.lock();
        loop {
            if chain.leg() != self.leg {
                drop(chain);
                // Who displaced it may wait for this answer.
                self.chain.tell();
                return Stop::Over;
            }
            if now >= self.deadline {
                chain.expire(now);
            }
            if !Arc::ptr_eq(chain.args(), args) {
                return Stop::Rewritten(now);
            }
            let Some(position) = chain.next_position() else {
                return Stop::Over;
            };
            let Subscription {
                incarnation,
                subscriber,
                ..
            } = &route.subscriptions()[position];
            let budget = incarnation.budget(now, self.deadline);
            let question = chain.asked(now, budget.until());
            let Some(entry) = incarnation.enter::<C>(self.worker, questioner) else {
                return Stop::Later(question, position, budget);
            };
            chain.begin_at_once(budget.is_whole());
            drop(chain);
            match entry.call(questioner, position, &**subscriber, args, &budget) {
                AtOnce::Ended(Done { result, at, took }) => {
                    now = at;
                    chain = self.chain.lock();
                    chain.answer_after(question, result, took);
                }
                AtOnce::Waits(waiting) => return Stop::Waits(question, waiting),
            }
        }
    }
}
