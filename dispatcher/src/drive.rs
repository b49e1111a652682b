//! Drives chains on one worker: asks one module after the other, those that can answer at once right here.

use std::sync::{Arc, MutexGuard};

use ganglion_actors::{Asker, AtOnce, Budget, Done, Modules, Moment, Questioner, Waiting, Worker};
use tokio::time::Instant;

use crate::chain::{Chain, Question};
use crate::decision::Decision;
use crate::fold::Routed;
use crate::route::{Route, Subscription};
use crate::shared_chain::{Asked, SharedChain};

/// A chain, or the rest of it, that one worker is to drive.
pub(crate) struct Leg<C: Routed> {
    pub(crate) chain: SharedChain<C>,
    pub(crate) number: u32,
    pub(crate) deadline: Instant,
    pub(crate) asker: Asker,
    /// Until somebody has to be waited for nobody else can look at the chain: who asks is on this thread, and waits in this
    /// very poll. So the chain stays locked while modules are asked.
    pub(crate) alone: bool,
}

impl<C: Routed> Leg<C> {
    /// Drives it on the worker that this is.
    pub(crate) async fn run(self, worker: &Worker) {
        let route = Arc::clone(self.chain.lock().route());
        let drive = Drive::new(worker, route, self.asker, self.deadline);
        drive.run(&self.chain, self.number, worker.now(), self.alone).await;
    }
}

/// A chain while modules are asked that answer at once.
enum Seat<'a, C: Routed> {
    /// Nobody else knows it.
    Own(&'a mut Chain<C>),
    /// Its caller knows it too. It is not locked while a module's code runs, unless nobody can look at it.
    Shared {
        chain: &'a SharedChain<C>,
        locked: Option<MutexGuard<'a, Chain<C>>>,
        alone: bool,
    },
}

impl<C: Routed> Seat<'_, C> {
    fn chain(&mut self) -> &mut Chain<C> {
        match self {
            Self::Own(chain) => chain,
            Self::Shared { chain, locked, .. } => locked.get_or_insert_with(|| chain.lock()),
        }
    }

    /// A module's code is about to run.
    fn unlock(&mut self) {
        if let Self::Shared {
            locked, alone: false, ..
        } = self
        {
            *locked = None;
        }
    }

    /// The chain goes on with another worker.
    fn leave(mut self) {
        if let Self::Shared { chain, locked, .. } = &mut self {
            *locked = None;
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
            deadline: worker.moment(deadline),
        }
    }

    /// Asks one module after the other until the outcome is fixed. If that takes no wait, it is returned; else the chain that
    /// it can be taken from.
    ///
    /// # Errors
    /// The chain had to wait for somebody.
    pub(crate) async fn decide(
        &self,
        mut chain: Chain<C>,
        mut now: Moment,
    ) -> Result<Option<Decision<C>>, SharedChain<C>> {
        let chain = loop {
            let args = Arc::clone(chain.args());
            match self.run_at_once(Seat::Own(&mut chain), 0, now, &args) {
                Stop::Over => return Ok(chain.take_decision()),
                Stop::Rewritten(at) => now = at,
                Stop::Waits(question, wait) => {
                    let chain = SharedChain::new(chain);
                    now = self.wait(&chain, question, wait, &args).await;
                    break chain;
                }
            }
        };
        self.run(&chain, 0, now, false).await;
        Err(chain)
    }

    /// Asks one module after the other until the outcome is fixed, or the chain goes on with another worker.
    pub(crate) async fn run(&self, chain: &SharedChain<C>, leg: u32, mut now: Moment, mut alone: bool) {
        loop {
            let args = Arc::clone(chain.lock().args());
            let seat = Seat::Shared {
                chain,
                locked: None,
                alone,
            };
            match self.run_at_once(seat, leg, now, &args) {
                Stop::Over => return,
                Stop::Rewritten(at) => now = at,
                Stop::Waits(question, wait) => {
                    alone = false;
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
                Box::pin(incarnation.call(self.worker, subscriber, args, budget, asker, asking)).await;
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
