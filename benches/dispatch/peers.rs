//! What others would use to ask five pieces of code one after the other: each does the same look at the same event.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use actix::{Actor as _, Addr, ArbiterHandle};
use ganglion::api::CheckEventForSpam;
use ganglion_benches::driver::Driver;
use ganglion_benches::work::{MODULES, args, is_spam};
use kameo::actor::Spawn as _;
use ractor::RpcReplyPort;
use ractor::rpc::CallResult;
use tokio::sync::{mpsc, oneshot};

type Args = Arc<CheckEventForSpam>;

/// A way to ask.
pub(crate) trait Peer: 'static {
    /// Who is asked.
    type Handle: Send + 'static;

    /// Starts one who is asked, on the current thread.
    fn start() -> impl Future<Output = Self::Handle>;

    /// Asks.
    fn ask(handle: &Self::Handle, args: Args) -> impl Future<Output = bool>;

    /// Asks five in turn, who are where `asked` says, from `place`.
    fn driver(place: &ArbiterHandle, asked: Vec<ArbiterHandle>) -> Driver
    where
        Self: Sized,
    {
        let set_up = async move || (started::<Self>(asked).await, Arc::new(args()));
        Driver::start(place, set_up, async |(asked, args): &(Vec<Self::Handle>, Args)| {
            for handle in asked {
                assert!(!Self::ask(handle, Arc::clone(args)).await, "it is no spam");
            }
        })
    }
}

async fn started<P: Peer>(places: Vec<ArbiterHandle>) -> Vec<P::Handle> {
    let mut handles = Vec::with_capacity(places.len());
    for place in places {
        let (start, started) = oneshot::channel();
        place.spawn_fn(move || {
            actix::spawn(async move {
                let _ = start.send(P::start().await);
            });
        });
        handles.push(started.await.expect("it starts"));
    }
    assert_eq!(handles.len(), MODULES);
    handles
}

/// A floor: boxed async calls, as Synapse's own loop over its modules' functions would be in Rust.
pub(crate) fn boxed(place: &ArbiterHandle, modules: usize) -> Driver {
    type Function = Box<dyn Fn(&CheckEventForSpam) -> Pin<Box<dyn Future<Output = bool> + '_>>>;
    let function = || -> Function { Box::new(|args| Box::pin(async move { is_spam(args) })) };
    let set_up = async move || {
        let functions: Vec<Function> = (0..modules).map(|_| function()).collect();
        (functions, args())
    };
    Driver::start(
        place,
        set_up,
        async |(functions, args): &(Vec<Function>, CheckEventForSpam)| {
            for function in functions {
                assert!(!function(args).await, "it is no spam");
            }
        },
    )
}

/// actix, with handlers that are plain functions: the least that it does for an ask. They could not wait for anything.
pub(crate) struct Actix;

/// actix, with handlers that are async, as modules' functions are.
pub(crate) struct ActixAsync;

pub(crate) struct ActixActor;

impl actix::Actor for ActixActor {
    type Context = actix::Context<Self>;
}

struct Look(Args);

impl actix::Message for Look {
    type Result = bool;
}

impl actix::Handler<Look> for ActixActor {
    type Result = bool;

    fn handle(&mut self, Look(args): Look, _: &mut Self::Context) -> bool {
        is_spam(&args)
    }
}

impl Peer for Actix {
    type Handle = Addr<ActixActor>;

    async fn start() -> Self::Handle {
        ActixActor.start()
    }

    async fn ask(handle: &Self::Handle, args: Args) -> bool {
        handle.send(Look(args)).await.expect("the actor runs")
    }
}

/// The same for handlers that are async.
struct LookAsync(Args);

impl actix::Message for LookAsync {
    type Result = bool;
}

impl actix::Handler<LookAsync> for ActixActor {
    type Result = actix::ResponseFuture<bool>;

    fn handle(&mut self, LookAsync(args): LookAsync, _: &mut Self::Context) -> Self::Result {
        Box::pin(async move { is_spam(&args) })
    }
}

impl Peer for ActixAsync {
    type Handle = Addr<ActixActor>;

    async fn start() -> Self::Handle {
        ActixActor.start()
    }

    async fn ask(handle: &Self::Handle, args: Args) -> bool {
        handle.send(LookAsync(args)).await.expect("the actor runs")
    }
}

/// A task with a channel; the answer comes by a channel of its own.
pub(crate) struct Tokio;

/// As many messages as one who is asked may have waiting, as of actors by default elsewhere.
const MAILBOX: usize = 64;

impl Peer for Tokio {
    type Handle = mpsc::Sender<(Args, oneshot::Sender<bool>)>;

    async fn start() -> Self::Handle {
        let (handle, mut asked) = mpsc::channel::<(Args, oneshot::Sender<bool>)>(MAILBOX);
        actix::spawn(async move {
            while let Some((args, answer)) = asked.recv().await {
                let _ = answer.send(is_spam(&args));
            }
        });
        handle
    }

    async fn ask(handle: &Self::Handle, args: Args) -> bool {
        let (answer, answered) = oneshot::channel();
        handle.send((args, answer)).await.expect("the task runs");
        answered.await.expect("the task answers")
    }
}

/// kameo, in this process.
pub(crate) struct Kameo;

pub(crate) struct KameoActor;

impl kameo::Actor for KameoActor {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(actor: Self, _: kameo::actor::ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(actor)
    }
}

impl kameo::message::Message<Look> for KameoActor {
    type Reply = bool;

    async fn handle(&mut self, Look(args): Look, _: &mut kameo::message::Context<Self, bool>) -> bool {
        is_spam(&args)
    }
}

impl Peer for Kameo {
    type Handle = kameo::actor::ActorRef<KameoActor>;

    async fn start() -> Self::Handle {
        KameoActor::spawn(KameoActor)
    }

    async fn ask(handle: &Self::Handle, args: Args) -> bool {
        handle.ask(Look(args)).await.expect("the actor answers")
    }
}

/// ractor, in this process.
pub(crate) struct Ractor;

struct RactorActor;

impl ractor::Actor for RactorActor {
    type Msg = (Args, RpcReplyPort<bool>);
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ractor::ActorRef<Self::Msg>, (): ()) -> Result<(), ractor::ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ractor::ActorRef<Self::Msg>,
        (args, answer): Self::Msg,
        (): &mut (),
    ) -> Result<(), ractor::ActorProcessingErr> {
        Ok(answer.send(is_spam(&args))?)
    }
}

impl Peer for Ractor {
    type Handle = ractor::ActorRef<(Args, RpcReplyPort<bool>)>;

    async fn start() -> Self::Handle {
        let started = ractor::Actor::spawn(None, RactorActor, ()).await;
        started.expect("an actor").0
    }

    async fn ask(handle: &Self::Handle, args: Args) -> bool {
        match handle.call(|answer| (args, answer), None).await {
            Ok(CallResult::Success(is_spam)) => is_spam,
            other => panic!("the actor answers, not {other:?}"),
        }
    }
}
