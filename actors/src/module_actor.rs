//! The actor of a module: one on every worker, which share the module's one instance, or one on its own thread.

use std::sync::{Arc, Weak};

use actix::fut::wrap_future;
use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message};
use ganglion_api::{CallFailure, Callback, MatrixError, ModuleError, Subscriber, WebRequest, WebResource, WebResponse};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::Permit;
use crate::guard::guarded;
use crate::incarnation::Incarnation;
use crate::probe::Site;

/// Something that a module can be asked to do.
pub(crate) trait Work: Send + 'static {
    /// What comes out.
    type Output: Send + 'static;

    /// Does it, on the module's thread.
    fn run(self) -> impl Future<Output = Result<Self::Output, ModuleError>>;
}

/// One subscriber's part of a callback.
pub(crate) struct Invoke<C, F> {
    pub(crate) subscriber: Arc<dyn Subscriber<C>>,
    pub(crate) args: Arc<C>,
    /// Asked first: whether it may begin.
    pub(crate) begin: F,
}

impl<C: Callback, F: FnOnce() -> bool + Send + 'static> Work for Invoke<C, F> {
    type Output = C::Answer;

    async fn run(self) -> Result<C::Answer, ModuleError> {
        if !(self.begin)() {
            return Err(ModuleError::message("the call was withdrawn"));
        }
        self.subscriber.call(&self.args).await
    }
}

/// A request to a web resource.
pub(crate) struct Respond<F> {
    pub(crate) resource: Arc<dyn WebResource>,
    pub(crate) request: WebRequest,
    /// Asked first: whether it may begin.
    pub(crate) begin: F,
}

impl<F: FnOnce() -> bool + Send + 'static> Work for Respond<F> {
    /// A Matrix error is an answer to a request, and no failure.
    type Output = Result<WebResponse, MatrixError>;

    async fn run(self) -> Result<Self::Output, ModuleError> {
        if !(self.begin)() {
            return Err(ModuleError::message("the call was withdrawn"));
        }
        match self.resource.respond(self.request).await {
            Ok(response) => Ok(Ok(response)),
            Err(ModuleError::Matrix(error)) => Ok(Err(error)),
            Err(other) => Err(other),
        }
    }
}

/// An admitted call on its way to the module.
pub(crate) struct Call<W> {
    pub(crate) site: Site,
    pub(crate) work: W,
    pub(crate) until: Instant,
    pub(crate) permit: Permit,
}

impl<W: Work> Call<W> {
    /// Runs it here, until its budget is over or `ended`.
    pub(crate) async fn run(self, ended: &CancellationToken) -> Result<W::Output, CallFailure> {
        let Self {
            site,
            work,
            until,
            permit,
        } = self;
        let answer = guarded(site, work.run(), until, ended).await;
        drop(permit);
        answer
    }
}

impl<W: Work> Message for Call<W> {
    type Result = Result<W::Output, CallFailure>;
}

/// A module on one thread.
#[derive(Debug)]
pub struct ModuleActor {
    incarnation: Weak<Incarnation>,
    ended: CancellationToken,
    capacity: usize,
}

impl ModuleActor {
    /// An actor that ends when `ended` is cancelled, with room for `capacity` admitted calls.
    pub(crate) fn new(incarnation: Weak<Incarnation>, ended: CancellationToken, capacity: usize) -> Self {
        Self {
            incarnation,
            ended,
            capacity,
        }
    }
}

impl Actor for ModuleActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Every message holds a permit, so this bound is never reached by what queues here.
        ctx.set_mailbox_capacity(self.capacity);
        // Not a message: a stop must not queue behind calls.
        let ended = self.ended.clone().cancelled_owned();
        ctx.spawn(wrap_future(ended).map(|(), _actor: &mut Self, ctx: &mut Self::Context| ctx.terminate()));
    }
}

impl<W: Work> Handler<Call<W>> for ModuleActor {
    type Result = actix::ResponseFuture<Result<W::Output, CallFailure>>;

    /// Calls of one module run side by side, up to its permits.
    fn handle(&mut self, call: Call<W>, _ctx: &mut Self::Context) -> Self::Result {
        let (ended, incarnation) = (self.ended.clone(), self.incarnation.clone());
        // actix runs this beside the actor, which does not end it: the signal does.
        Box::pin(async move {
            let operation = call.site.operation;
            let answer = call.run(&ended).await;
            // Said here, since the caller may be gone.
            if let (Err(failure), Some(incarnation)) = (&answer, incarnation.upgrade()) {
                incarnation.failed(operation, failure);
            }
            answer
        })
    }
}
