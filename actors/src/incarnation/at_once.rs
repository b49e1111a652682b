//! The short way of a call: where nothing refuses it and it need not wait, its code begins in the task that asks.
//!
//! This is the mailbox's fast path. Most modules answer without waiting, and then a call is one poll, with everything that
//! guards it and without a message, a timer or an allocation. A call that does wait goes on in the same task.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use ganglion_api::{CallFailure, Callback, FailureKind, LocalFuture, ModuleError, Subscriber};
use tokio::time::Instant;

use super::call::Passed;
use super::worker::Part;
use super::{Budget, Incarnation, Place, Worker};
use crate::admission::Permit;
use crate::course::Course;
use crate::gate::Entrance;
use crate::guard::{Panic, guarded};
use crate::module_actor::Ended;
use crate::nesting::{Asker, Frame, Kept, Modules, Whose};
use crate::probe::Operation;
use crate::queue::CallClass;
use crate::thread::Taken;

/// A permit for one poll of a module's code, held by the thread's visit to it.
pub(crate) struct TakenAtOnce {
    part: Rc<Part>,
    gating: bool,
}

impl TakenAtOnce {
    /// Keeps it for longer; `None` if its thread was given up, and it was given back.
    pub(crate) fn keep(self) -> Option<Permit> {
        let kept = self.part.thread.watched.keep_permit();
        kept.then(|| self.part.ledger.lend(self.gating).ok()).flatten()
    }
}

/// Who asks the modules of one route, one after the other.
pub struct Questioner {
    modules: Arc<dyn Modules>,
    asker: Asker,
    /// That of the call before, to be used again.
    frame: Option<Rc<Frame>>,
}

impl Questioner {
    /// Asks the modules at these positions.
    #[must_use]
    pub fn new(modules: Arc<dyn Modules>, asker: Asker) -> Self {
        Self {
            modules,
            asker,
            frame: None,
        }
    }

    /// For whom.
    #[must_use]
    pub fn asker(&self) -> &Asker {
        &self.asker
    }

    /// The frame of its next call.
    fn frame(&mut self, position: usize, operation: Operation, until: Instant, permit: Kept) -> Rc<Frame> {
        if let Some(mut frame) = self.frame.take()
            && let Some(again) = Rc::get_mut(&mut frame)
        {
            again.set(position, until, permit);
            return frame;
        }
        let whose = Whose::At(Arc::clone(&self.modules), position);
        Rc::new(Frame {
            whose,
            operation,
            until,
            asker: self.asker.clone(),
            permit: RefCell::new(permit),
        })
    }
}

/// The right to begin a call now. What was taken for it is given back when it is dropped.
pub struct Entry<'a> {
    incarnation: &'a Incarnation,
    worker: &'a Worker,
    part: Rc<Part>,
    operation: Operation,
    pass: Option<Passed<'a>>,
    gating: bool,
    taken: Taken,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.incarnation.module.give_back(self.taken);
    }
}

/// A call whose code has begun and waits for something.
pub struct Waiting<'a, C: Callback> {
    incarnation: &'a Incarnation,
    worker: &'a Worker,
    part: Rc<Part>,
    operation: Operation,
    pass: Option<Passed<'a>>,
    frame: Rc<Frame>,
    code: LocalFuture<'a, Result<C::Answer, ModuleError>>,
    budget: Budget,
}

/// How a call went on.
pub enum AtOnce<'a, C: Callback> {
    /// It ended at once, at this moment.
    Ended(Result<C::Answer, CallFailure>, Instant),
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
        let nobody_lends = |above: &crate::nesting::Lineage| above.lent_by(module).is_none();
        let may_begin = matches!(self.place, Place::Inline | Place::Actor)
            && self.live.load(Ordering::Acquire)
            && !module.poison().is_struck(operation)
            && !worker.thread().watched.is_retired()
            && questioner.asker.above.as_ref().is_none_or(nobody_lends);
        if !may_begin {
            return None;
        }
        let pass = match module.breaker(operation) {
            Some(breaker) => Some((breaker, breaker.admit_at_once()?)),
            None => None,
        };
        let gating = CallClass::of(C::SPEC.combine) == CallClass::Gating;
        let taken = module.take_at_once(gating)?;
        Some(Entry {
            incarnation: self,
            worker,
            part: worker.part(self),
            operation,
            pass,
            gating,
            taken,
        })
    }
}

impl<'a> Entry<'a> {
    /// Begins the call: of the module at this position, until its budget is over.
    pub fn call<C: Callback>(
        mut self,
        questioner: &mut Questioner,
        position: usize,
        subscriber: &'a dyn Subscriber<C>,
        args: &'a C,
        budget: Budget,
    ) -> AtOnce<'a, C> {
        let (incarnation, worker) = (self.incarnation, self.worker);
        let part = Rc::clone(&self.part);
        let permit = Kept::AtOnce(TakenAtOnce {
            part: Rc::clone(&part),
            gating: self.gating,
        });
        let frame = questioner.frame(position, self.operation, budget.until, permit);
        let watched = &worker.thread().watched;
        let visit = watched.probe.enter(incarnation.site(self.operation));
        // From now on the visit holds it.
        watched.hold(visit, std::mem::take(&mut self.taken));
        let mut code = None;
        let polled = frame.within(|| poll_once(&mut code, || subscriber.call(args)));
        if polled.is_pending() {
            frame.goes_on();
        }
        incarnation.module.give_back(watched.let_go());
        watched.probe.leave();
        let (operation, pass) = (self.operation, self.pass);
        match (polled, code) {
            (Poll::Pending, Some(code)) => AtOnce::Waits(Waiting {
                incarnation,
                worker,
                part,
                operation,
                pass,
                frame,
                code,
                budget,
            }),
            (Poll::Pending, None) => unreachable!("what is pending is there"),
            (Poll::Ready(mut result), _) => {
                drop(frame.permit.take());
                questioner.frame = Some(frame);
                let now = worker.now();
                if now > budget.until && !is_panic(&result) {
                    result = Err(FailureKind::DeadlineExceeded.into());
                }
                incarnation.ended_here(
                    &part,
                    operation,
                    pass,
                    &mut result,
                    budget,
                    questioner.asker.hurried,
                    now,
                );
                AtOnce::Ended(result, now)
            }
        }
    }
}

fn is_panic<T>(result: &Result<T, CallFailure>) -> bool {
    matches!(result, Err(failure) if failure.kind == FailureKind::Panicked)
}

type Code<'a, T> = LocalFuture<'a, Result<T, ModuleError>>;

/// Makes a call's code and polls it once, under a panic guard; what has ended is dropped there too. Who polls it again, if
/// it waits, must do so at once: it knows no task that it could wake.
fn poll_once<'a, T>(
    code: &mut Option<Code<'a, T>>,
    make: impl FnOnce() -> Code<'a, T>,
) -> Poll<Result<T, CallFailure>> {
    let cx = &mut Context::from_waker(Waker::noop());
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let polled = code.insert(make()).as_mut().poll(cx);
        // The text of a module's error is the module's code too.
        let polled = polled.map(|result| result.map_err(CallFailure::from));
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
        Poll::Ready(Err(CallFailure::new(FailureKind::Panicked, panic.0)))
    })
}

impl<'a, C: Callback> Waiting<'a, C> {
    /// Waits for the answer, in this task, at most for the call's budget. `course` says how it goes on.
    ///
    /// # Cancellation
    /// The call ends.
    pub async fn answer(self, course: &Course) -> (Result<C::Answer, CallFailure>, Instant) {
        let Self {
            incarnation,
            worker,
            part,
            operation,
            pass,
            frame,
            code,
            budget,
        } = self;
        let hurried = frame.asker.hurried;
        let entrance = Entrance {
            held_up: Some(course.held_up()),
            ..incarnation.entrance(operation)
        };
        let run = course.follow(frame.scope(code), budget.until);
        let mut result = guarded(entrance, run, budget.until, incarnation.ended()).await;
        let now = worker.now();
        incarnation.ended_here(&part, operation, pass, &mut result, budget, hurried, now);
        (result, now)
    }

    /// The course of the rest of the call.
    #[must_use]
    pub fn course(&self) -> Course {
        Course::begun(self.budget.until, self.budget.whole)
    }
}

impl Incarnation {
    /// A call that was made in the task that asks has ended.
    fn ended_here<T>(
        &self,
        part: &Part,
        operation: Operation,
        pass: Option<Passed<'_>>,
        result: &mut Result<T, CallFailure>,
        budget: Budget,
        hurried: bool,
        now: Instant,
    ) {
        if let Err(failure) = result {
            self.failed(operation, failure);
        }
        let ended = Ended::of(result);
        let took = now.saturating_duration_since(budget.now);
        if let Some(passed) = pass {
            self.judged(operation, passed, Ok(ended), budget, hurried, took, now);
        }
        part.tally.count(ended.failure());
        part.tally.took(took);
    }
}
