//! What waits for a worker to begin with it.
//!
//! A dispatch that finds nobody waiting goes straight to the worker's dispatcher. Otherwise it waits here, and the
//! dispatcher is sent a word that somebody does: whose turn it is then is fair between callers, and the number of those
//! who wait is bounded.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Addr, Handler, MailboxError, Message};
use ganglion_actors::{CallClass, Caller, FairQueue, Worker};
use tokio::sync::oneshot;

use crate::dispatcher::Dispatcher;
use crate::turns::Work;

/// How many may wait for one worker. One more, and somebody gives way: it is `overloaded`.
const MAX_WAITING: usize = 8192;

/// Something that a worker is to do.
pub(crate) trait Job: Message<Result = ()> + Send + 'static {
    /// Does it.
    fn begin(self, worker: Rc<Worker>) -> Work;

    /// There is no room for it. Says whether it was still wanted.
    fn refuse(self) -> bool;
}

/// A job that waits, its type forgotten.
trait Waiting: Send {
    fn begin(self: Box<Self>, worker: Rc<Worker>) -> Work;
    fn refuse(self: Box<Self>) -> bool;
}

/// A job with who waits for it.
struct Queued<J> {
    job: J,
    done: oneshot::Sender<()>,
}

impl<J: Job> Waiting for Queued<J> {
    fn begin(self: Box<Self>, worker: Rc<Worker>) -> Work {
        let Self { job, done } = *self;
        if done.is_closed() {
            // Nobody waits any more, and it has not begun.
            return Box::pin(std::future::ready(()));
        }
        let work = job.begin(worker);
        Box::pin(async move {
            work.await;
            let _ = done.send(());
        })
    }

    fn refuse(self: Box<Self>) -> bool {
        let wanted = self.job.refuse();
        wanted && self.done.send(()).is_ok()
    }
}

/// Tells a dispatcher that a job waits.
pub(crate) struct Next;

impl Message for Next {
    type Result = ();
}

/// Tells a dispatcher that a job waits. If it ends now, it closes its intake.
#[expect(
    clippy::disallowed_methods,
    reason = "words are bounded by the jobs, and before the dispatcher has started its mailbox has a bound that must lose none"
)]
fn tell(dispatcher: &Addr<Dispatcher>) {
    dispatcher.do_send(Next);
}

/// What waits for one worker.
pub(crate) struct Intake {
    /// How many jobs were sent and have not begun, those in the dispatcher's mailbox too.
    load: Arc<AtomicUsize>,
    /// The dispatcher has ended.
    closed: AtomicBool,
    /// How many were refused, by all workers together.
    refused: Arc<AtomicU64>,
    waiting: Mutex<FairQueue<Box<dyn Waiting>>>,
}

/// One job on its way to a worker, counted until the worker begins with it: one that is blocked stays loaded.
#[derive(Debug)]
pub(crate) struct Loaded(Arc<AtomicUsize>);

impl Drop for Loaded {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Intake {
    /// Nothing waits yet. Refusals are counted in `refused`.
    pub(crate) fn new(refused: Arc<AtomicU64>) -> Self {
        Self {
            load: Arc::default(),
            closed: AtomicBool::new(false),
            refused,
            waiting: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, FairQueue<Box<dyn Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its refusals are counted there.
    pub(crate) fn counts_in(&self, refused: &Arc<AtomicU64>) -> bool {
        Arc::ptr_eq(&self.refused, refused)
    }

    /// How many jobs wait for this worker.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Sends a job to the worker's dispatcher, and waits until it is done or was refused.
    ///
    /// # Errors
    /// The dispatcher has ended.
    ///
    /// # Cancellation
    /// A job that was not begun when the future is dropped does not begin.
    pub(crate) async fn send<J: Job>(
        &self,
        dispatcher: &Addr<Dispatcher>,
        (class, caller): (CallClass, Caller),
        job: impl FnOnce(Loaded) -> J,
    ) -> Result<(), MailboxError>
    where
        Dispatcher: Handler<J>,
    {
        let before = self.load.fetch_add(1, Ordering::Relaxed);
        let job = job(Loaded(Arc::clone(&self.load)));
        if before == 0 {
            return dispatcher.send(job).await;
        }
        let (done, finished) = oneshot::channel();
        self.enqueue(dispatcher, class, caller, Box::new(Queued { job, done }))?;
        finished.await.map_err(|_ended| MailboxError::Closed)
    }

    fn enqueue(
        &self,
        dispatcher: &Addr<Dispatcher>,
        class: CallClass,
        caller: Caller,
        job: Box<dyn Waiting>,
    ) -> Result<(), MailboxError> {
        let mut waiting = self.lock();
        if self.closed.load(Ordering::Relaxed) {
            return Err(MailboxError::Closed);
        }
        waiting.push(class, caller, job);
        let displaced = (waiting.len() > MAX_WAITING).then(|| waiting.give_way()).flatten();
        drop(waiting);
        let Some((_, displaced)) = displaced else {
            if dispatcher.connected() {
                tell(dispatcher);
            } else {
                self.close();
            }
            return Ok(());
        };
        // The word that was sent for it will do for the new one.
        if displaced.refuse() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The job whose turn it is begins.
    pub(crate) fn next(&self, worker: Rc<Worker>) -> Work {
        let mut waiting = self.lock();
        let next = waiting.turn(false).and_then(|class| waiting.pop(class));
        drop(waiting);
        match next {
            Some(job) => job.begin(worker),
            None => Box::pin(std::future::ready(())),
        }
    }

    /// Nobody will begin with anything any more: those who wait are told.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        self.closed.store(true, Ordering::Relaxed);
        let left: Vec<_> = waiting.drain().collect();
        drop(waiting);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use actix::Actor as _;
    use futures_util::future::join_all;
    use ganglion_actors::WorkerThreads;

    use super::*;

    struct Count(
        Arc<AtomicUsize>,
        #[expect(dead_code, reason = "held for its drop")] Loaded,
    );

    impl Message for Count {
        type Result = ();
    }

    impl Job for Count {
        fn begin(self, _worker: Rc<Worker>) -> Work {
            Box::pin(async move {
                self.0.fetch_add(1, Ordering::Relaxed);
            })
        }

        fn refuse(self) -> bool {
            true
        }
    }

    #[actix::test]
    async fn jobs_that_come_before_the_dispatcher_has_started_are_done() {
        let workers = WorkerThreads::current();
        let (_, thread) = workers.workers().remove(0);
        let intake = Arc::new(Intake::new(Arc::default()));
        // It starts when this task waits for the first time, and until then its mailbox has a bound of its own.
        let dispatcher = Dispatcher::new(thread, Arc::clone(&intake)).start();
        let done = Arc::<AtomicUsize>::default();
        let whose = (CallClass::Gating, Caller::Unnamed);
        let jobs = (0..100).map(|_| intake.send(&dispatcher, whose, |loaded| Count(Arc::clone(&done), loaded)));
        assert!(join_all(jobs).await.iter().all(Result::is_ok));
        assert_eq!((done.load(Ordering::Relaxed), intake.load()), (100, 0));
    }
}
