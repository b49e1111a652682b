//! The way of a call to its module: breaker, permit, then by tier.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Addr, MailboxError};
use futures_util::future::{Either, select};
use ganglion_api::{CallFailure, Callback, FailureKind, MatrixError, Subscriber, WebRequest, WebResource, WebResponse};
use tokio::time::{Instant, timeout_at};

use super::worker::Part;
use super::{Incarnation, Place, Worker};
use crate::admission::{Ledger, Reclaim, Refusal};
use crate::breaker::{Breaker, Judged, Pass};
use crate::budget::Budget;
use crate::clock::Moment;
use crate::course::{Course, at_once};
use crate::module_actor::{Asking, Call, Ended, Invoke, ModuleActor, Respond, Work};
use crate::nesting::{Asker, Held};
use crate::probe::Operation;
use crate::queue::CallClass;
use crate::thread::ModuleThread;

/// A breaker that let a call pass.
pub(super) type Passed<'a> = (&'a Breaker, Pass);

/// On what terms a call was made.
pub(super) struct Terms<'a> {
    pub(super) operation: Operation,
    pub(super) pass: Option<Passed<'a>>,
    pub(super) budget: Budget,
    /// Who asks has less time than the configured deadline.
    pub(super) hurried: bool,
}

impl Incarnation {
    /// The budget of a call that is made now, so many nanoseconds before the end of its chain.
    #[must_use]
    pub fn budget(&self, now: impl Into<Moment>, left: u64) -> Budget {
        Budget::new(now, left, self.module.limits().call_timeout)
    }

    /// Asks a subscriber of the module, until its budget runs out. `asking` is told how that ended: with an
    /// answer, or with a failure, see [`FailureKind`]. Args that are poison bypass the module, as `quarantined`.
    ///
    /// # Cancellation
    /// A call that waits is withdrawn; one that runs goes on to its end or its budget, but for the tier `inline`.
    pub async fn call<C: Callback>(
        &self,
        worker: &Worker,
        subscriber: Arc<dyn Subscriber<C>>,
        args: Arc<C>,
        budget: Budget,
        asker: Asker,
        asking: impl Asking<C::Answer>,
    ) {
        if let Some(why) = self.module.poison().bypasses(&*args) {
            worker.part(self).tally.count(Some(FailureKind::Quarantined));
            return asking.end(Err(CallFailure::new(FailureKind::Quarantined, why)));
        }
        let work = Invoke { subscriber, args };
        self.admit(worker, Operation::callback::<C>(), work, budget, asker, asking)
            .await;
    }

    /// Lets a web resource of the module answer a request, until its budget runs out; else as [`call`](Self::call). A Matrix
    /// error is an answer.
    pub async fn respond(
        &self,
        worker: &Worker,
        resource: Arc<dyn WebResource>,
        request: WebRequest,
        budget: Budget,
        asker: Asker,
        asking: impl Asking<Result<WebResponse, MatrixError>>,
    ) {
        let work = Respond { resource, request };
        self.admit(worker, Operation::WEB_RESOURCE, work, budget, asker, asking)
            .await;
    }

    async fn admit<W: Work, A: Asking<W::Output>>(
        &self,
        worker: &Worker,
        operation: Operation,
        work: W,
        budget: Budget,
        asker: Asker,
        asking: A,
    ) {
        let part = worker.part(self);
        let sent = self.send(worker, &part, operation, (work, asking.clone()), budget, asker);
        let took = || worker.now().since(budget.now);
        match sent.await {
            Ok(Ended::Withdrawn) => {}
            Ok(ended) => {
                if ended == Ended::Refused {
                    part.tally.count(ended.failure());
                } else {
                    part.tally.took_part(ended.failure(), took());
                }
            }
            Err(failure) => {
                match failure.kind {
                    // On its own thread.
                    kind @ FailureKind::DeadlineExceeded => part.tally.took_part(Some(kind), took()),
                    kind => part.tally.count(Some(kind)),
                }
                asking.end(Err(failure));
            }
        }
    }

    /// Breaker, permit, then the tier.
    ///
    /// # Errors
    /// The module's code was not reached, or says nothing in time: who asked was not told.
    async fn send<W: Work, A: Asking<W::Output>>(
        &self,
        worker: &Worker,
        part: &Part,
        operation: Operation,
        (work, asking): (W, A),
        budget: Budget,
        asker: Asker,
    ) -> Result<Ended, CallFailure> {
        if !self.live.load(Ordering::Acquire) {
            return Err(self.absence().into());
        }
        let (now, until, whole) = (Instant::from(budget.now), budget.until(), budget.whole);
        let breaker = self.module.breaker(operation);
        let pass = match breaker.map(|breaker| (breaker, breaker.admit(now))) {
            Some((_, None)) => return Err(FailureKind::BreakerOpen.into()),
            Some((breaker, Some(pass))) => Some((breaker, pass)),
            None => None,
        };
        let terms = Terms {
            operation,
            pass,
            budget,
            hurried: asker.hurried,
        };
        let course = Arc::new(Course::new(now, until, whole));
        let permit = self.permit(&part.ledger, W::CLASS, &asker, until, |place| asking.waits(place));
        let (permitted, permitted_at_once) = at_once(permit).await;
        if !permitted_at_once {
            course.spare();
        }
        let permit = match permitted {
            Ok(permit) => permit,
            Err(refusal) => {
                if let Some((breaker, pass)) = pass {
                    breaker.withdraw(pass);
                }
                if refusal == Refusal::Withdrawn {
                    return Ok(Ended::Withdrawn);
                }
                return Err(refusal.failure(self.absence()));
            }
        };
        let call = Call {
            operation,
            pass: pass.map(|(_, pass)| pass),
            work,
            asking,
            course,
            until,
            asker,
            permit,
        };
        let begun = worker.now();
        let result = self.run(part.replica.clone(), call).await;
        let ended = worker.now();
        let took = ended.since(begun);
        self.judged(&terms, result, took, ended);
        Ok(result?)
    }

    /// Tells the breaker how a call ended, which it let pass.
    pub(super) fn judged(&self, terms: &Terms<'_>, result: Result<Ended, FailureKind>, took: Duration, now: Moment) {
        let budget = terms.budget;
        // Else others had the time that it lacked.
        let had_time = || (budget.whole || !terms.hurried) && took >= budget.time() / 2;
        match (judge(result, had_time), terms.pass) {
            (Some(judged), _) => self.record(terms.operation, terms.pass, judged, took, now),
            (None, Some((breaker, pass))) => breaker.withdraw(pass),
            (None, None) => {}
        }
    }

    pub(super) fn record(
        &self,
        operation: Operation,
        pass: Option<Passed<'_>>,
        judged: Judged,
        took: Duration,
        now: Moment,
    ) {
        if let Some((breaker, pass)) = pass
            && breaker.record(pass, judged, took, now)
        {
            // It fails whatever it gets, such as one whose backend is down.
            self.module.poison().forget_hangs(operation);
        }
    }

    /// The right to have a call running: that of the call of this module above it, if there is one and nobody uses it, else
    /// a permit of its own.
    async fn permit(
        &self,
        ledger: &Arc<Ledger>,
        class: CallClass,
        asker: &Asker,
        until: Instant,
        waits: impl FnOnce(Arc<dyn Reclaim>),
    ) -> Result<Held, Refusal> {
        let admission = self.module.admission();
        let admitted = admission.admit(ledger, class, asker.caller, until, &self.retired, waits);
        let lent = asker.above.as_ref().and_then(|above| above.lent_by(&self.module));
        let Some(lent) = lent else {
            return admitted.await.map(Held::Own);
        };
        let lent = pin!(async {
            match self.retired.run_until_cancelled(timeout_at(until, lent.borrow())).await {
                Some(Ok(Some(lent))) => {
                    if let Some(thread) = self.own_thread().cloned().or_else(ModuleThread::here) {
                        lent.run_on(&thread);
                    }
                    Ok(Held::Lent(lent))
                }
                Some(Ok(None)) => Err(Refusal::Full),
                Some(Err(_elapsed)) => Err(Refusal::Late),
                None => Err(Refusal::NotRunning),
            }
        });
        // Whichever comes first. Where there is no room to wait for one, there still is the other.
        match select(lent, pin!(admitted)).await {
            Either::Left((Ok(held), _)) => Ok(held),
            Either::Left((Err(_), admitted)) => admitted.await.map(Held::Own),
            Either::Right((Ok(permit), _)) => Ok(Held::Own(permit)),
            Either::Right((Err(refusal @ (Refusal::NotRunning | Refusal::Withdrawn)), _)) => Err(refusal),
            Either::Right((Err(_), lent)) => lent.await,
        }
    }

    async fn run<W: Work, A: Asking<W::Output>>(
        &self,
        replica: Option<Addr<ModuleActor>>,
        call: Call<W, A>,
    ) -> Result<Ended, FailureKind> {
        let sent = match (&self.place, replica) {
            (Place::Inline, _) => return Ok(call.run(self).await),
            (Place::Actor, Some(replica)) => replica.send(call).await,
            (Place::Thread { thread, actor, .. }, _) => {
                // The thread may be stuck: the budget is held on this side too.
                let course = Arc::clone(&call.course);
                let answer = timeout_at(call.until, actor.send(call));
                match self.ended.run_until_cancelled(answer).await {
                    Some(Ok(sent)) => sent,
                    Some(Err(_elapsed)) => {
                        if thread.is_busy() {
                            // It may be about to say so itself.
                            tokio::task::yield_now().await;
                        }
                        course.is_over(thread.is_busy() || thread.has_ended());
                        return Err(FailureKind::DeadlineExceeded);
                    }
                    // The thread was given up for this very call.
                    None if thread.is_blocked() && course.holds_thread() => return Err(FailureKind::DeadlineExceeded),
                    None => return Err(self.absence()),
                }
            }
            (Place::Actor | Place::Vacant, _) => return Err(self.absence()),
        };
        sent.map_err(|error| match error {
            MailboxError::Closed => self.absence(),
            MailboxError::Timeout => FailureKind::DeadlineExceeded,
        })
    }
}

/// What a call says about the health of its module; nothing, if the module was not reached, or did not answer in a time that
/// was not its own. A Matrix error is what a module means to say, so it speaks for its health.
fn judge(result: Result<Ended, FailureKind>, had_time: impl Fn() -> bool) -> Option<Judged> {
    match result {
        Ok(Ended::Failed {
            kind: FailureKind::DeadlineExceeded,
            ..
        })
        | Err(FailureKind::DeadlineExceeded)
            if !had_time() =>
        {
            None
        }
        Ok(Ended::Answered | Ended::Failed { meant: true, .. }) => Some(Judged::Success),
        Ok(Ended::Failed { kind, .. }) | Err(kind) => match kind {
            FailureKind::ModuleError
            | FailureKind::Panicked
            | FailureKind::DeadlineExceeded
            | FailureKind::Protocol => Some(Judged::Failure),
            _ => None,
        },
        Ok(Ended::Withdrawn | Ended::Refused) => None,
    }
}
