//! The actor of a module: one on every worker, which share the module's one instance, or one on its own thread.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use actix::fut::wrap_future;
use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message};
use ganglion_api::{
    CallFailure, Callback, FailureKind, MatrixError, ModuleError, Subscriber, WebRequest, WebResource, WebResponse,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::Reclaim;
use crate::breaker::Pass;
use crate::course::Course;
use crate::gate::Entrance;
use crate::guard::guarded;
use crate::incarnation::Incarnation;
use crate::nesting::{Asker, Frame, Held};
use crate::probe::Operation;
use crate::queue::CallClass;

/// Something that a module can be asked to do.
pub(crate) trait Work: Send + 'static {
    /// What comes out.
    type Output: Send + 'static;
    /// What it is for.
    const CLASS: CallClass;

    /// Does it, on the module's thread.
    fn run(self) -> impl Future<Output = Result<Self::Output, ModuleError>>;
}

/// Where the answer of a call goes. It goes there at once: who asked may wait on a thread that is not stuck, though the
/// way back is.
pub trait Asking<T>: Clone + Send + 'static {
    /// The module's code would begin now; `course` says how it goes on. If this is false it does not, since the call was
    /// withdrawn.
    fn begin(&self, course: &Arc<Course>) -> bool;

    /// The call waits for a permit, in this place. Who asked may take it away, with the call.
    fn waits(&self, place: Arc<dyn Reclaim>) {
        drop(place);
    }

    /// The call has ended. It may be told so again, when its budget is over on this side and its thread says something
    /// later: then the first one holds.
    fn end(self, result: Result<T, CallFailure>);
}

/// How a call ended, for those who count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The module answered.
    Answered,
    /// It gave no answer; `meant`: it returned an error for the client, which is what it means to say.
    Failed { kind: FailureKind, meant: bool },
    /// The breaker opened before the module's code began.
    Refused,
    /// The call was withdrawn before the module's code began.
    Withdrawn,
}

impl Ended {
    pub(crate) fn of<T>(result: &Result<T, CallFailure>) -> Self {
        match result {
            Ok(_) => Self::Answered,
            Err(failure) => Self::Failed {
                kind: failure.kind,
                meant: failure.matrix.is_some(),
            },
        }
    }

    /// The kind of its failure.
    pub(crate) fn failure(self) -> Option<FailureKind> {
        match self {
            Self::Failed { kind, .. } => Some(kind),
            Self::Refused => Some(FailureKind::BreakerOpen),
            Self::Answered | Self::Withdrawn => None,
        }
    }
}

/// One subscriber's part of a callback.
pub(crate) struct Invoke<C> {
    pub(crate) subscriber: Arc<dyn Subscriber<C>>,
    pub(crate) args: Arc<C>,
}

impl<C: Callback> Work for Invoke<C> {
    type Output = C::Answer;
    const CLASS: CallClass = CallClass::of(C::SPEC.combine);

    async fn run(self) -> Result<C::Answer, ModuleError> {
        self.subscriber.call(&self.args).await
    }
}

/// A request to a web resource.
pub(crate) struct Respond {
    pub(crate) resource: Arc<dyn WebResource>,
    pub(crate) request: WebRequest,
}

impl Work for Respond {
    /// A Matrix error is an answer to a request, and no failure.
    type Output = Result<WebResponse, MatrixError>;
    const CLASS: CallClass = CallClass::Asking;

    async fn run(self) -> Result<Self::Output, ModuleError> {
        match self.resource.respond(self.request).await {
            Ok(response) => {
                // What leaves here is dropped on threads of others: nothing of the module goes with it.
                let (mut parts, body) = response.into_parts();
                parts.extensions = http::Extensions::new();
                Ok(Ok(WebResponse::from_parts(parts, bytes::Bytes::copy_from_slice(&body))))
            }
            Err(ModuleError::Matrix(error)) => Ok(Err(*error)),
            Err(other) => Err(other),
        }
    }
}

/// An admitted call on its way to the module.
pub(crate) struct Call<W, A> {
    pub(crate) operation: Operation,
    pub(crate) pass: Option<Pass>,
    pub(crate) work: W,
    pub(crate) asking: A,
    pub(crate) course: Arc<Course>,
    pub(crate) until: Instant,
    pub(crate) asker: Asker,
    pub(crate) permit: Held,
}

impl<W: Work, A: Asking<W::Output>> Call<W, A> {
    /// Runs it here, until its budget is over or its incarnation has ended.
    pub(crate) async fn run(self, incarnation: &Incarnation) -> Ended {
        let Self {
            operation,
            pass,
            work,
            asking,
            course,
            until,
            asker,
            permit,
        } = self;
        // The permit goes back when the module's future is dropped.
        let frame = Rc::new(Frame::new(incarnation.module(), operation, until, asker, permit));
        let not_begun = Cell::new(None);
        // At the first poll, which may have to wait for the module to come back from another worker.
        let run = async {
            if !incarnation.still_passes(operation, pass) {
                not_begun.set(Some(Ended::Refused));
            } else if !asking.begin(&course) {
                not_begun.set(Some(Ended::Withdrawn));
            } else {
                return course.follow(frame.scope(work.run()), until).await;
            }
            Err(ModuleError::message("not begun"))
        };
        let entrance = Entrance {
            held_up: Some(course.held_up()),
            ..incarnation.entrance(operation)
        };
        let mut result = guarded(entrance, run, until, incarnation.ended()).await;
        match not_begun.get() {
            Some(Ended::Refused) => {
                asking.end(Err(FailureKind::BreakerOpen.into()));
                return Ended::Refused;
            }
            Some(withdrawn) => return withdrawn,
            None => {}
        }
        if let Err(failure) = &mut result {
            // First, so that who asked finds the module as it is now.
            incarnation.failed(operation, failure);
        }
        let ended = Ended::of(&result);
        asking.end(result);
        ended
    }
}

impl<W: Work, A: Asking<W::Output>> Message for Call<W, A> {
    type Result = Ended;
}

/// A module on one thread.
#[derive(Debug)]
pub struct ModuleActor {
    incarnation: Weak<Incarnation>,
    ended: CancellationToken,
}

impl ModuleActor {
    /// An actor that ends when `ended` is cancelled.
    pub(crate) fn new(incarnation: Weak<Incarnation>, ended: CancellationToken) -> Self {
        Self { incarnation, ended }
    }
}

impl Actor for ModuleActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // No bound here: every message holds a permit.
        ctx.set_mailbox_capacity(0);
        // Not a message: a stop must not queue behind calls.
        let ended = self.ended.clone().cancelled_owned();
        ctx.spawn(wrap_future(ended).map(|(), _actor: &mut Self, ctx: &mut Self::Context| ctx.terminate()));
    }
}

impl<W: Work, A: Asking<W::Output>> Handler<Call<W, A>> for ModuleActor {
    type Result = actix::ResponseFuture<Ended>;

    /// Calls of one module run side by side, up to its permits.
    fn handle(&mut self, call: Call<W, A>, _ctx: &mut Self::Context) -> Self::Result {
        let incarnation = self.incarnation.upgrade();
        // actix runs this beside the actor, which does not end it: the incarnation's end does.
        Box::pin(async move {
            match incarnation {
                Some(incarnation) => call.run(&incarnation).await,
                // Nobody holds it any more, so nobody asks.
                None => Ended::Withdrawn,
            }
        })
    }
}
