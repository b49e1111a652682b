//! The dispatcher actor: drives chains on one worker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use ganglion_actors::WorkerIndex;
use tokio::time::Instant;

use crate::chain::Chain;
use crate::fold::Routed;

/// How many dispatches may queue in an actor's mailbox before those who send wait, each until its deadline.
const MAILBOX: usize = 1024;

/// A chain that its worker drives and its caller watches: a caller whose deadline passes concludes from what is there.
pub(crate) struct SharedChain<C: Routed>(Arc<Mutex<Chain<C>>>);

impl<C: Routed> Clone for SharedChain<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Routed> SharedChain<C> {
    pub(crate) fn new(chain: Chain<C>) -> Self {
        Self(Arc::new(Mutex::new(chain)))
    }

    /// No module code runs while this is held.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Chain<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many dispatches a worker has.
#[derive(Debug, Default)]
pub(crate) struct Load(AtomicUsize);

impl Load {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One dispatch on a worker, counted until the worker is done with it: a blocked worker stays loaded.
#[derive(Debug)]
pub(crate) struct Loaded(Arc<Load>);

impl Loaded {
    pub(crate) fn new(load: &Arc<Load>) -> Self {
        load.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks the modules on a callback's route.
pub(crate) struct Dispatch<C: Routed> {
    pub(crate) chain: SharedChain<C>,
    pub(crate) deadline: Instant,
    pub(crate) loaded: Loaded,
}

impl<C: Routed> Message for Dispatch<C> {
    /// The decision stands in the chain, from which only the caller takes it: so a caller whose deadline passes at this
    /// very moment finds it there.
    type Result = ();
}

/// The dispatcher of one worker.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    worker: WorkerIndex,
}

impl Dispatcher {
    pub(crate) fn new(worker: WorkerIndex) -> Self {
        Self { worker }
    }
}

impl Actor for Dispatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl<C: Routed> Handler<Dispatch<C>> for Dispatcher {
    type Result = ResponseFuture<()>;

    /// Chains of different callbacks run side by side. Once begun, a chain goes on without its caller.
    fn handle(&mut self, dispatch: Dispatch<C>, _ctx: &mut Self::Context) -> Self::Result {
        let worker = self.worker;
        Box::pin(async move {
            drive(worker, &dispatch.chain, dispatch.deadline).await;
            drop(dispatch.loaded);
        })
    }
}

/// Asks one module after the other until the outcome is fixed.
async fn drive<C: Routed>(worker: WorkerIndex, chain: &SharedChain<C>, deadline: Instant) {
    loop {
        let asked_at = Instant::now();
        let (module, subscriber, args) = {
            let mut chain = chain.lock();
            if asked_at >= deadline {
                chain.expire(asked_at);
            }
            let args = Arc::clone(chain.args());
            let Some(next) = chain.next_subscription() else { return };
            let asked = (next.module.clone(), Arc::clone(&next.subscriber), args);
            chain.asked(asked_at);
            asked
        };
        let answer = module.call(worker, subscriber, args, deadline).await;
        chain.lock().settle(answer, asked_at.elapsed());
    }
}
