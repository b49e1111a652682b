//! The actor of a module, one on every worker; all share the module's one instance.

use std::sync::Arc;

use actix::fut::wrap_future;
use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message};
use ganglion_api::{CallFailure, Callback, MatrixError, ModuleError, Subscriber, WebRequest, WebResource, WebResponse};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::Permit;
use crate::guard::guarded;

/// Something that a module can be asked to do.
pub(crate) trait Work: Send + 'static {
    /// What comes out.
    type Output: Send + 'static;

    /// Does it, on the module's worker.
    fn run(self) -> impl Future<Output = Result<Self::Output, ModuleError>>;
}

/// One subscriber's part of a callback.
pub(crate) struct Invoke<C> {
    pub(crate) subscriber: Arc<dyn Subscriber<C>>,
    pub(crate) args: Arc<C>,
}

impl<C: Callback> Work for Invoke<C> {
    type Output = C::Answer;

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

    async fn run(self) -> Result<Self::Output, ModuleError> {
        match self.resource.respond(self.request).await {
            Ok(response) => Ok(Ok(response)),
            Err(ModuleError::Matrix(error)) => Ok(Err(error)),
            Err(other) => Err(other),
        }
    }
}

/// An admitted call on its way to the module.
pub(crate) struct Call<W> {
    pub(crate) work: W,
    pub(crate) until: Instant,
    pub(crate) permit: Permit,
}

impl<W: Work> Message for Call<W> {
    type Result = Result<W::Output, CallFailure>;
}

/// A module on one worker.
#[derive(Debug)]
pub struct ModuleActor {
    stop: CancellationToken,
    capacity: usize,
}

impl ModuleActor {
    /// An actor that ends when `stop` is cancelled, with room for `capacity` admitted calls.
    pub(crate) fn new(stop: CancellationToken, capacity: usize) -> Self {
        Self { stop, capacity }
    }
}

impl Actor for ModuleActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Every message holds a permit, so this bound is never reached by what queues here.
        ctx.set_mailbox_capacity(self.capacity);
        // Not a message: a stop must not queue behind calls.
        let stopped = self.stop.clone().cancelled_owned();
        ctx.spawn(wrap_future(stopped).map(|(), _actor: &mut Self, ctx: &mut Self::Context| ctx.terminate()));
    }
}

impl<W: Work> Handler<Call<W>> for ModuleActor {
    type Result = actix::ResponseFuture<Result<W::Output, CallFailure>>;

    /// Calls of one module run side by side, up to its permits.
    fn handle(&mut self, call: Call<W>, _ctx: &mut Self::Context) -> Self::Result {
        let Call { work, until, permit } = call;
        let stop = self.stop.clone();
        // actix runs this beside the actor, which does not end it: the stop signal does.
        Box::pin(async move {
            let answer = guarded(work.run(), until, &stop).await;
            drop(permit);
            answer
        })
    }
}
