//! Whose turn it is on a worker: jobs that begin, or what began before and waits for something.
//!
//! An actor takes one message after the other for as long as there are some. Most jobs are done when they have begun, so
//! they begin right in their message's turn, without a task of their own; but only so many in a row. Then the worker's other
//! tasks have their turns, and meanwhile jobs stay in the intake, where their number is bounded.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Message};
use futures_util::future::LocalBoxFuture;
use ganglion_actors::Worker;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use crate::intake::Intake;

thread_local! {
    /// The turns of the dispatchers on this thread: one, but on the current arbiter of a host that runs actix itself.
    static HERE: RefCell<Vec<Weak<Turns>>> = const { RefCell::new(Vec::new()) };
}

/// How many jobs begin in a row.
const IN_A_ROW: u32 = 32;

/// A job that has begun, or is to.
pub(crate) type Work = LocalBoxFuture<'static, ()>;

/// Polls work for the first time. Whoever it makes wait is to be asked again, in the work's own task. `None`: it panicked, of
/// which the message is in the log; that must not end the dispatcher.
fn first_poll<T>(work: &mut LocalBoxFuture<'static, T>) -> Option<Poll<T>> {
    let cx = &mut Context::from_waker(Waker::noop());
    catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))).ok()
}

/// How a job goes on.
pub(crate) enum Doing {
    /// It is done.
    Done,
    /// It waits, for something or for its turn.
    Waits(Work),
    /// It is lost, by a defect of ours.
    Lost,
}

impl Doing {
    fn begin(mut work: Work) -> Self {
        match first_poll(&mut work) {
            Some(Poll::Ready(())) => Self::Done,
            Some(Poll::Pending) => Self::Waits(work),
            None => Self::Lost,
        }
    }

    /// Lets it go on, and tells who asked when it is done; who asked for one that is lost learns that it is.
    fn go_on(self, done: impl FnOnce() + 'static) {
        match self {
            Self::Done => done(),
            Self::Waits(work) => {
                actix::spawn(async move {
                    work.await;
                    done();
                });
            }
            Self::Lost => {}
        }
    }
}

impl<A: Actor, M: Message<Result = ()>> MessageResponse<A, M> for Doing {
    fn handle(self, _ctx: &mut A::Context, asked: Option<OneshotSender<()>>) {
        self.go_on(move || {
            if let Some(asked) = asked {
                // Who asked may be gone.
                let _ = asked.send(());
            }
        });
    }
}

/// How something goes on that began without a message.
pub(crate) enum BegunHere<T> {
    /// It is done.
    Done(T),
    /// It is done when this says so.
    Waits(oneshot::Receiver<T>),
    /// It is lost, by a defect of ours.
    Lost,
}

/// The turns on one worker.
pub(crate) struct Turns {
    worker: Rc<Worker>,
    intake: Arc<Intake>,
    /// How many more jobs may begin in this row.
    left: Cell<u32>,
    /// For how many jobs in the intake a word came when it was not their turn.
    owed: Cell<u64>,
    /// The tasks of what began without a message.
    tasks: RefCell<Weak<LocalSet>>,
    closed: CancellationToken,
    /// Something is being begun here.
    begins: Cell<bool>,
    /// What something that began here has handed to who began it.
    handed: Cell<Option<Box<dyn Any>>>,
}

impl Turns {
    pub(crate) fn new(worker: Rc<Worker>, intake: Arc<Intake>) -> Rc<Self> {
        Rc::new(Self {
            worker,
            intake,
            left: Cell::new(IN_A_ROW),
            owed: Cell::new(0),
            tasks: RefCell::default(),
            closed: CancellationToken::new(),
            begins: Cell::new(false),
            handed: Cell::default(),
        })
    }

    /// From now on they are found [here](Self::here), and what begins here goes on.
    pub(crate) fn open(self: &Rc<Self>) {
        HERE.with_borrow_mut(|here| {
            here.retain(|turns| turns.strong_count() > 0);
            here.push(Rc::downgrade(self));
        });
        let tasks = Rc::<LocalSet>::default();
        self.tasks.replace(Rc::downgrade(&tasks));
        let closed = self.closed.clone();
        // The only owner, so that they end with the dispatcher.
        actix::spawn(async move { tasks.run_until(closed.cancelled()).await });
    }

    /// The turns of the worker whose thread this is, if it is one of those whose refusals are counted there, and has nothing
    /// else to do: then a job may [begin](Self::begin_here) without a message.
    pub(crate) fn here(refused: &Arc<AtomicU64>) -> Option<Rc<Self>> {
        let here = HERE.try_with(|here| {
            let here = here.borrow();
            let mut here = here.iter().filter_map(Weak::upgrade);
            here.find(|turns| turns.intake.counts_in(refused))
        });
        let is_free = |turns: &Rc<Self>| turns.intake.load() == 0 && turns.worker.is_free() && !turns.begins.get();
        here.ok().flatten().filter(is_free)
    }

    /// Begins something in the turn of who asks for it, if it has one. What waits then goes on in a task of its own.
    pub(crate) fn begin_here<T: 'static>(
        self: &Rc<Self>,
        work: impl FnOnce() -> LocalBoxFuture<'static, T>,
    ) -> Option<BegunHere<T>> {
        // Who asks may be polled by a runtime that knows nothing of actix, and the work may begin tasks on this thread.
        let tasks = self.tasks.borrow().upgrade()?;
        let inside = tasks.enter();
        let mut work = self.take().then(work)?;
        self.begins.set(true);
        let polled = first_poll(&mut work);
        self.begins.set(false);
        let begun = match polled {
            Some(Poll::Ready(done)) => BegunHere::Done(done),
            Some(Poll::Pending) => {
                let (done, finished) = oneshot::channel();
                actix::spawn(async move {
                    // Who asked may be gone.
                    let _ = done.send(work.await);
                });
                BegunHere::Waits(finished)
            }
            None => BegunHere::Lost,
        };
        drop(inside);
        Some(begun)
    }

    /// Lets who began it [here](Self::begin_here) have something of what waits now.
    pub(crate) fn hand(&self, what: impl Any) {
        self.handed.set(Some(Box::new(what)));
    }

    /// What was [handed](Self::hand) over.
    pub(crate) fn handed<T: Any>(&self) -> Option<T> {
        let what = self.handed.take()?.downcast().ok()?;
        Some(*what)
    }

    /// The intake of the worker.
    pub(crate) fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// The worker.
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Nobody will begin with anything any more.
    pub(crate) fn close(&self) {
        self.intake.close();
        self.closed.cancel();
    }

    /// Takes a turn in this row. With the last one the next row is prepared, which begins when all other tasks have had
    /// their turns.
    fn take(self: &Rc<Self>) -> bool {
        let Some(left) = self.left.get().checked_sub(1) else {
            return false;
        };
        self.left.set(left);
        if left == 0 {
            actix::spawn(Rc::clone(self).next_row());
        }
        true
    }

    async fn next_row(self: Rc<Self>) {
        while self.left.get() == 0 {
            let mut left = IN_A_ROW;
            while let (Some(owed), Some(less)) = (self.owed.get().checked_sub(1), left.checked_sub(1)) {
                left = less;
                self.owed.set(owed);
                Doing::begin(self.intake.next(Rc::clone(&self.worker))).go_on(|| {});
            }
            if left > 0 {
                self.left.set(left);
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Begins a job that a message brought.
    pub(crate) fn begin(self: &Rc<Self>, work: Work) -> Doing {
        if self.take() {
            Doing::begin(work)
        } else {
            Doing::Waits(work)
        }
    }

    /// Begins the job of the intake whose turn it is, now or in another row.
    pub(crate) fn begin_next(self: &Rc<Self>) -> Doing {
        if self.take() {
            Doing::begin(self.intake.next(Rc::clone(&self.worker)))
        } else {
            self.owed.set(self.owed.get() + 1);
            Doing::Done
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns() -> Rc<Turns> {
        turns_of(&Arc::default())
    }

    fn turns_of(refused: &Arc<AtomicU64>) -> Rc<Turns> {
        let workers = ganglion_actors::WorkerThreads::current();
        let (_, thread) = workers.workers().remove(0);
        Turns::new(Rc::new(Worker::new(thread)), Arc::new(Intake::new(Arc::clone(refused))))
    }

    #[actix::test]
    async fn after_so_many_jobs_in_a_row_other_tasks_have_their_turns() {
        let turns = turns();
        let begun = Rc::new(Cell::new(0));
        let job = || {
            let begun = Rc::clone(&begun);
            Box::pin(async move { begun.set(begun.get() + 1) })
        };
        for _ in 0..IN_A_ROW {
            assert!(matches!(turns.begin(job()), Doing::Done));
        }
        assert_eq!(begun.get(), IN_A_ROW);
        // The next one waits for its turn, and so does what is in the intake.
        assert!(matches!(turns.begin(job()), Doing::Waits(_)));
        assert!(matches!(turns.begin_next(), Doing::Done));
        assert_eq!((begun.get(), turns.owed.get()), (IN_A_ROW, 1));
        tokio::task::yield_now().await;
        assert_eq!((turns.owed.get(), turns.left.get()), (0, IN_A_ROW - 1));
        assert!(matches!(turns.begin(job()), Doing::Done));
    }

    #[actix::test]
    async fn what_is_owed_begins_row_by_row() {
        let turns = turns();
        turns.left.set(1);
        assert!(turns.take() && !turns.take());
        turns.owed.set(u64::from(IN_A_ROW) + 3);
        let mut rows = 0;
        while turns.left.get() == 0 {
            tokio::task::yield_now().await;
            rows += 1;
        }
        assert_eq!((turns.owed.get(), turns.left.get()), (0, IN_A_ROW - 3));
        assert!(rows > 1, "{rows}");
    }

    #[actix::test]
    async fn what_begins_here_is_done_at_once_or_goes_on_in_a_task() {
        let turns = turns();
        assert!(
            turns.begin_here(|| Box::pin(async { 1 })).is_none(),
            "it is not open yet"
        );
        turns.open();
        let done = turns.begin_here(|| Box::pin(async { 1 }));
        assert!(matches!(done, Some(BegunHere::Done(1))));
        let waits = turns.begin_here(|| Box::pin(async { actix::spawn(async { 2 }).await.unwrap() }));
        let Some(BegunHere::Waits(finished)) = waits else {
            panic!("it waits for its task");
        };
        assert_eq!(finished.await, Ok(2));
        let lost = turns.begin_here::<()>(|| Box::pin(async { panic!("a defect") }));
        assert!(matches!(lost, Some(BegunHere::Lost)));
        while turns.left.get() > 0 {
            assert!(turns.begin_here(|| Box::pin(async {})).is_some());
        }
        assert!(turns.begin_here(|| Box::pin(async {})).is_none(), "the row is over");
        while turns.left.get() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(turns.begin_here(|| Box::pin(async {})).is_some());
    }

    #[actix::test]
    async fn nothing_begins_here_while_something_else_does() {
        let refused = Arc::default();
        let turns = turns_of(&refused);
        assert!(Turns::here(&refused).is_none(), "it is not open yet");
        turns.open();
        assert!(Turns::here(&refused).is_some() && Turns::here(&Arc::default()).is_none());
        let asked = Arc::clone(&refused);
        let inside = turns.begin_here(|| Box::pin(async move { Turns::here(&asked).is_some() }));
        assert!(matches!(inside, Some(BegunHere::Done(false))));
        assert!(Turns::here(&refused).is_some());
    }

    #[actix::test]
    async fn what_began_here_ends_with_the_dispatcher() {
        let turns = turns();
        turns.open();
        let (held, own) = (Rc::new(()), Rc::clone(&turns));
        let holds = Rc::clone(&held);
        let waits = turns.begin_here(|| {
            Box::pin(async move {
                std::future::pending::<()>().await;
                drop((holds, own));
            })
        });
        turns.close();
        let Some(BegunHere::Waits(finished)) = waits else {
            panic!("it waits for ever");
        };
        assert!(finished.await.is_err());
        assert_eq!((Rc::strong_count(&held), Rc::strong_count(&turns)), (1, 1));
    }

    #[actix::test]
    async fn a_job_that_panics_is_lost_and_nothing_else() {
        let turns = turns();
        let lost = turns.begin(Box::pin(async { panic!("a defect") }));
        assert!(matches!(lost, Doing::Lost));
        assert!(matches!(turns.begin(Box::pin(async {})), Doing::Done));
    }
}
