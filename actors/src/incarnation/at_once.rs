//! The short way of a call: where nothing refuses it and it need not wait, its code begins in the task that asks.
//!
//! This is the mailbox's fast path. Most modules answer without waiting, and then a call is one poll, with everything that
//! guards it and without a message, a timer or an allocation. A call that does wait goes on in the same task.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ganglion_api::{CallFailure, Callback, FailureKind, LocalFuture, ModuleError, Subscriber};
use tokio::time::Instant;

use super::call::{Passed, Terms};
use super::worker::Part;
use super::{Incarnation, Place, Worker};
use crate::breaker::Judged;
use crate::budget::Budget;
use crate::clock::Moment;
use crate::course::Course;
use crate::gate::Entrance;
use crate::guard::{Panic, guarded};
use crate::handle::ModuleHandle;
use crate::module_actor::Ended;
use crate::nesting::{Asker, Frame, Lineage, Modules};
use crate::probe::Operation;
use crate::queue::CallClass;
use crate::stock::Taken;

/// Who asks the modules of one route, one after the other.
pub struct Questioner {
    frame: Rc<Frame>,
}

impl Questioner {
    /// Asks the modules at these positions, on this worker, until the deadline.
    #[must_use]
    pub fn new<C: Callback>(worker: &Worker, modules: Arc<dyn Modules>, asker: Asker, deadline: Instant) -> Self {
        let parts = Rc::clone(worker.parts());
        let frame = Frame::of_route(modules, parts, Operation::callback::<C>(), asker, deadline);
        Self { frame: Rc::new(frame) }
    }

    /// For whom.
    #[must_use]
    pub fn asker(&self) -> &Asker {
        &self.frame.asker
    }

    /// Begins calls that do not wait, until one does: the next begins when that one has its answer.
    pub fn run<T>(&self, run: impl FnOnce() -> T) -> T {
        self.frame.within(run)
    }
}

/// What was taken for a visit to a module's code. It is given back when this is dropped.
struct Toll<'a> {
    module: &'a ModuleHandle,
    taken: Taken,
}

impl Drop for Toll<'_> {
    fn drop(&mut self) {
        self.module.give_back(self.taken);
    }
}

/// The right to begin a call now.
pub struct Entry<'a> {
    incarnation: &'a Incarnation,
    worker: &'a Worker,
    part: Rc<Part>,
    pass: Option<Passed<'a>>,
    toll: Toll<'a>,
}

/// A call whose code has begun and waits for something.
pub struct Waiting<'a, C: Callback> {
    incarnation: &'a Incarnation,
    worker: &'a Worker,
    part: Rc<Part>,
    terms: Terms<'a>,
    code: Code<'a, C::Answer>,
}

/// A call that ended at once.
pub struct Done<T> {
    /// A failure is apart, so that an answer is a small thing to move.
    pub result: Result<T, Box<CallFailure>>,
    /// When it ended.
    pub at: Moment,
    /// How long it took.
    pub took: Duration,
}

/// How a call went on.
pub enum AtOnce<'a, C: Callback> {
    /// It ended at once.
    Ended(Done<C::Answer>),
    /// It waits.
    Waits(Waiting<'a, C>),
}

impl Incarnation {
    /// Lets a call begin now, if nothing refuses it and it need not wait: for a place of its module on the workers, for a
    /// permit, for the breaker's probe, or in a mailbox.
    #[must_use]
    pub fn enter<'a, C: Callback>(&'a self, worker: &'a Worker, questioner: &Questioner) -> Option<Entry<'a>> {
        let module = &self.module;
        let operation = Operation::callback::<C>();
        let nobody_lends = |above: &Lineage| above.lent_by(module).is_none();
        let may_begin = matches!(self.place, Place::Inline | Place::Actor)
            && self.live.load(Ordering::Acquire)
            && !module.poison().is_struck(operation)
            && !worker.thread().watched.is_retired()
            && questioner.asker().above.as_ref().is_none_or(nobody_lends);
        if !may_begin {
            return None;
        }
        let pass = match module.breaker(operation) {
            Some(breaker) => Some((breaker, breaker.admit_at_once()?)),
            None => None,
        };
        let gating = CallClass::of(C::SPEC.combine) == CallClass::Gating;
        let taken = module.take_at_once(gating)?;
        let toll = Toll { module, taken };
        Some(Entry {
            incarnation: self,
            worker,
            part: worker.part(self),
            pass,
            toll,
        })
    }
}

impl<'a> Entry<'a> {
    /// Begins the call: of the module at this position, until its budget is over.
    #[inline]
    pub fn call<C: Callback>(
        self,
        questioner: &Questioner,
        position: usize,
        subscriber: &'a dyn Subscriber<C>,
        args: &'a C,
        budget: &Budget,
    ) -> AtOnce<'a, C> {
        let Self {
            incarnation,
            worker,
            part,
            pass,
            mut toll,
        } = self;
        let frame = &questioner.frame;
        let operation = frame.operation;
        let terms = || Terms {
            operation,
            pass,
            budget: *budget,
            hurried: questioner.asker().hurried,
        };
        frame.begin(position, budget, toll.taken.permit());
        let watched = &worker.thread().watched;
        let visit = watched.probe.enter(incarnation.site(operation));
        // From now on the visit holds it.
        watched.hold(visit, std::mem::take(&mut toll.taken));
        let mut code = None;
        let polled = poll_once(&mut code, || subscriber.call(args));
        if polled.is_pending() {
            frame.goes_on();
        }
        toll.taken = watched.let_go();
        watched.probe.leave();
        drop(toll);
        let result = match (polled, code) {
            (Poll::Ready(result), _) => result,
            (Poll::Pending, code) => {
                return AtOnce::Waits(Waiting {
                    incarnation,
                    worker,
                    part,
                    terms: terms(),
                    // What is pending is there.
                    code: code.unwrap_or_else(|| Box::pin(std::future::pending())),
                });
            }
        };
        frame.end();
        let at = worker.now();
        let nanos = at.nanos_since(budget.now);
        let (took, in_time) = (Duration::from_nanos(nanos), nanos <= budget.nanos);
        let result = match result {
            Ok(answer) if in_time => {
                incarnation.record(operation, pass, Judged::Success, took, at);
                part.tally.took_part(None, took);
                Ok(answer)
            }
            Err(failure) if in_time || failure.kind == FailureKind::Panicked => {
                Err(incarnation.failed_here(&part, &terms(), *failure, at))
            }
            // An error that came too late decides as little as an answer.
            _late => {
                let late = FailureKind::DeadlineExceeded.into();
                Err(incarnation.failed_here(&part, &terms(), late, at))
            }
        };
        AtOnce::Ended(Done { result, at, took })
    }
}

type Code<'a, T> = LocalFuture<'a, Result<T, ModuleError>>;

/// Makes a call's code and polls it once, under a panic guard; what has ended is dropped there too. Who polls it again, if
/// it waits, must do so at once: it knows no task that it could wake.
fn poll_once<'a, T>(
    code: &mut Option<Code<'a, T>>,
    make: impl FnOnce() -> Code<'a, T>,
) -> Poll<Result<T, Box<CallFailure>>> {
    let cx = &mut Context::from_waker(Waker::noop());
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let polled = code.insert(make()).as_mut().poll(cx);
        // The text of a module's error is the module's code too.
        let polled = polled.map(|result| result.map_err(|error| Box::new(CallFailure::from(error))));
        if polled.is_ready() {
            *code = None;
        }
        polled
    }));
    polled.unwrap_or_else(|payload| {
        let panic = Panic::caught(payload);
        let dropped = catch_unwind(AssertUnwindSafe(|| *code = None));
        // One panic says enough.
        let _ = dropped.map_err(Panic::caught);
        Poll::Ready(Err(Box::new(CallFailure::new(FailureKind::Panicked, panic.0))))
    })
}

impl<'a, C: Callback> Waiting<'a, C> {
    /// Waits for the answer, in this task, at most for the call's budget. `course` says how it goes on; `questioner` is the
    /// one who asked.
    ///
    /// # Cancellation
    /// The call ends.
    pub async fn answer(self, questioner: &Questioner, course: &Course) -> (Result<C::Answer, CallFailure>, Moment) {
        let Self {
            incarnation,
            worker,
            part,
            terms,
            code,
        } = self;
        let until = terms.budget.until();
        let entrance = Entrance {
            held_up: Some(course.held_up()),
            ..incarnation.entrance(terms.operation)
        };
        let ends = Ends(&questioner.frame);
        let run = course.follow(Rc::clone(ends.0).scope(code), until);
        let result = guarded(entrance, run, until, incarnation.ended()).await;
        drop(ends);
        let now = worker.now();
        (incarnation.ended_here(&part, &terms, result, now), now)
    }

    /// The course of the rest of the call.
    #[must_use]
    pub fn course(&self) -> Course {
        let budget = self.terms.budget;
        Course::begun(budget.until(), budget.whole)
    }
}

/// The call of a frame has ended when this is dropped.
struct Ends<'a>(&'a Rc<Frame>);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Incarnation {
    /// A call that was made in the task that asks has failed.
    #[cold]
    fn failed_here(&self, part: &Part, terms: &Terms<'_>, failure: CallFailure, now: Moment) -> Box<CallFailure> {
        let Err(failure) = self.ended_here::<Infallible>(part, terms, Err(failure), now);
        Box::new(failure)
    }

    /// A call that was made in the task that asks has ended.
    fn ended_here<T>(
        &self,
        part: &Part,
        terms: &Terms<'_>,
        mut result: Result<T, CallFailure>,
        now: Moment,
    ) -> Result<T, CallFailure> {
        if let Err(failure) = &mut result {
            self.failed(terms.operation, failure);
        }
        let ended = Ended::of(&result);
        let took = now.since(terms.budget.now);
        self.judged(terms, Ok(ended), took, now);
        part.tally.took_part(ended.failure(), took);
        result
    }
}
