//! Drives chains on one worker: asks one module after the other, those that can answer at once right here.

use std::sync::{Arc, MutexGuard};

use ganglion_actors::{Asker, AtOnce, Budget, Done, Modules, Moment, Questioner, Waiting, Worker};
use tokio::time::Instant;

use crate::chain::{Chain, Question};
use crate::decision::Decision;
use crate::fold::Routed;
use crate::route::{Route, Subscription};
use crate::shared_chain::{Asked, SharedChain};

/// A chain while modules are asked that answer at once.
enum Seat<'a, C: Routed> {
    /// Nobody else knows it.
    Own(&'a mut Chain<C>),
    /// Its caller knows it too, and may look at it while a module's code runs.
    Shared(&'a SharedChain<C>, Option<MutexGuard<'a, Chain<C>>>),
}

impl<C: Routed> Seat<'_, C> {
    fn chain(&mut self) -> &mut Chain<C> {
        match self {
            Self::Own(chain) => chain,
            Self::Shared(chain, locked) => locked.get_or_insert_with(|| chain.lock()),
        }
    }

    /// A module's code is about to run.
    fn unlock(&mut self) {
        if let Self::Shared(_, locked) = self {
            *locked = None;
        }
    }

    /// The chain goes on with another worker.
    fn leave(mut self) {
        self.unlock();
        if let Self::Shared(chain, _) = self {
            // Who displaced it may wait for this answer.
            chain.tell();
        }
    }
}

/// Where a chain stops that was driven without waiting.
enum Stop<'a, C: Routed> {
    /// The outcome is fixed, or the chain goes on with another worker.
    Over,
    /// The arguments are others from now on, that is from this moment.
    Rewritten(Moment),
    /// Somebody has to be waited for.
    Waits(Question, Wait<'a, C>),
}

/// Who has to be waited for.
enum Wait<'a, C: Routed> {
    /// A module's code, which has begun.
    Code(Waiting<'a, C>),
    /// The module at this position cannot begin at once.
    Turn(usize, Budget),
}

/// How a chain ended that nobody else knew.
pub(crate) enum Decided<C: Routed> {
    /// Without a wait.
    AtOnce(Option<Decision<C>>),
    /// Somebody was waited for: the chain has the decision, if it has one.
    Later(SharedChain<C>),
}

/// Drives a chain on one worker.
pub(crate) struct Drive<'a, C: Routed> {
    worker: &'a Worker,
    route: Arc<Route<C>>,
    questioner: Questioner,
    /// The end of the chain.
    deadline: Moment,
}

impl<'a, C: Routed> Drive<'a, C> {
    pub(crate) fn new(worker: &'a Worker, route: Arc<Route<C>>, asker: Asker, deadline: Instant) -> Self {
        let modules = Arc::clone(&route) as Arc<dyn Modules>;
        Self {
            worker,
            route,
            questioner: Questioner::new::<C>(worker, modules, asker, deadline),
            deadline: deadline.into(),
        }
    }

    /// Asks one module after the other until the outcome is fixed, in a chain that nobody else knows; but if somebody has to be
    /// waited for, `waits` is given the chain first.
    pub(crate) async fn decide(
        &self,
        mut chain: Chain<C>,
        mut now: Moment,
        waits: impl FnOnce(&SharedChain<C>),
    ) -> Decided<C> {
        let chain = loop {
            let args = Arc::clone(chain.args());
            match self.run_at_once(Seat::Own(&mut chain), 0, now, &args) {
                Stop::Over => return Decided::AtOnce(chain.take_decision()),
                Stop::Rewritten(at) => now = at,
                Stop::Waits(question, wait) => {
                    let chain = SharedChain::new(chain);
                    waits(&chain);
                    now = self.wait(&chain, question, wait, &args).await;
                    break chain;
                }
            }
        };
        self.run(&chain, 0, now).await;
        Decided::Later(chain)
    }

    /// Asks one module after the other until the outcome is fixed, or the chain goes on with another worker.
    pub(crate) async fn run(&self, chain: &SharedChain<C>, leg: u32, mut now: Moment) {
        loop {
            let args = Arc::clone(chain.lock().args());
            match self.run_at_once(Seat::Shared(chain, None), leg, now, &args) {
                Stop::Over => return,
                Stop::Rewritten(at) => now = at,
                Stop::Waits(question, wait) => {
                    now = self.wait(chain, question, wait, &args).await;
                }
            }
        }
    }

    /// Waits for an answer, until this moment.
    async fn wait<'r>(
        &'r self,
        chain: &SharedChain<C>,
        question: Question,
        wait: Wait<'r, C>,
        args: &'r Arc<C>,
    ) -> Moment {
        match wait {
            Wait::Code(waiting) => {
                let course = Arc::new(waiting.course());
                // If the chain has gone on without it, its answer will not count; the module ends all the same.
                let _ = chain.lock().begin(question, &course);
                // Apart, so that a chain of modules that answer at once is a small future.
                let (result, at) = Box::pin(waiting.answer(&self.questioner, &course)).await;
                chain.lock().answer(question, result, at.into());
                at
            }
            Wait::Turn(position, budget) => {
                let Subscription {
                    incarnation,
                    subscriber,
                    ..
                } = &self.route.subscriptions()[position];
                let asking = Asked {
                    chain: chain.clone(),
                    question,
                };
                let (subscriber, args) = (Arc::clone(subscriber), Arc::clone(args));
                let asker = self.questioner.asker().clone();
                let call = incarnation.call(self.worker, subscriber, args, budget, asker, asking);
                Box::pin(call).await;
                self.worker.now()
            }
        }
    }

    /// Asks the modules that can answer at once, with these arguments.
    fn run_at_once<'r>(&'r self, seat: Seat<'_, C>, leg: u32, now: Moment, args: &'r Arc<C>) -> Stop<'r, C> {
        self.questioner.run(|| self.ask_each(seat, leg, now, args))
    }

    fn ask_each<'r>(&'r self, mut seat: Seat<'_, C>, leg: u32, mut now: Moment, args: &'r Arc<C>) -> Stop<'r, C> {
        loop {
            let chain = seat.chain();
            if chain.leg() != leg {
                seat.leave();
                return Stop::Over;
            }
            let left = self.deadline.nanos_since(now);
            if left == 0 {
                chain.expire(now.into());
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
            } = &self.route.subscriptions()[position];
            let budget = incarnation.budget(now, left);
            let question = chain.asked(budget);
            let Some(entry) = incarnation.enter::<C>(self.worker, &self.questioner) else {
                return Stop::Waits(question, Wait::Turn(position, budget));
            };
            chain.begin_at_once();
            seat.unlock();
            match entry.call(&self.questioner, position, &**subscriber, args, &budget) {
                AtOnce::Ended(Done { result, at, took }) => {
                    now = at;
                    seat.chain().answer_after(question, result, took);
                }
                AtOnce::Waits(waiting) => return Stop::Waits(question, Wait::Code(waiting)),
            }
        }
    }
}
