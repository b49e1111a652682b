//! Calls below calls: a module may cause another callback, which may reach it again.
//!
//! While a module's code runs, its task knows which call this is. What is asked from there is below it: it is one
//! deeper, has no more time than is left, and where it reaches the same module it uses the permit of the call above, which
//! waits for it. So neither a cycle nor a module with a single permit waits for itself.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use ganglion_api::HomeserverError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::admission::{Permit, Reclaim};
use crate::budget::Budget;
use crate::clock::Moment;
use crate::handle::ModuleHandle;
use crate::incarnation::Parts;
use crate::probe::Operation;
use crate::queue::Caller;
use crate::thread::ModuleThread;

/// How many calls may wait for the permit of one call above them.
const MAX_WAITING: usize = 256;

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// What the task is doing that is polled right now.
enum Here {
    /// It runs a module's code.
    Call(Rc<Frame>),
    /// It does something for such a call.
    Below(Lineage),
}

/// The current task's place, exchanged for another until this is dropped.
struct Inside<'a>(&'a mut Option<Here>);

impl<'a> Inside<'a> {
    fn new(here: &'a mut Option<Here>) -> Self {
        exchange(here);
        Self(here)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        exchange(self.0);
    }
}

fn exchange(here: &mut Option<Here>) {
    // At the thread's end there is no place any more.
    let _ = HERE.try_with(|current| std::mem::swap(&mut *current.borrow_mut(), here));
}

pin_project_lite::pin_project! {
    /// Runs a future in its place, and drops it there.
    struct Scoped<F> {
        here: Option<Here>,
        #[pin]
        run: Option<F>,
    }

    impl<F> PinnedDrop for Scoped<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _inside = Inside::new(this.here);
            this.run.set(None);
        }
    }
}

impl<F> Scoped<F> {
    fn new(here: Here, run: F) -> Self {
        Self {
            here: Some(here),
            run: Some(run),
        }
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _inside = Inside::new(this.here);
        this.run.as_pin_mut().map_or(Poll::Pending, |run| run.poll(cx))
    }
}

/// The right to have a call running, as its call holds it.
#[derive(Debug)]
pub(crate) enum Held {
    /// A permit of its own.
    Own(#[expect(dead_code, reason = "held for its drop")] Permit),
    /// That of a call above.
    Lent(#[expect(dead_code, reason = "held for its drop")] Lent),
}

/// The permit of a call above, until this is dropped.
#[derive(Debug)]
pub(crate) struct Lent(Arc<Borrowed>);

impl Lent {
    /// The thread that the call below runs on: if it is given up, the call above has its permit back.
    pub(crate) fn run_on(&self, thread: &ModuleThread) {
        thread.keep(Arc::clone(&self.0) as Arc<dyn Reclaim>);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.reclaim();
    }
}

/// A permit with the turn to use it.
#[derive(Debug)]
struct Borrowed(Mutex<Option<(Arc<Lendable>, OwnedSemaphorePermit)>>);

impl Reclaim for Borrowed {
    fn reclaim(&self) {
        let borrowed = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Not under the lock: others may be served for it.
        drop(borrowed);
    }
}

/// A permit that calls below may use, one at a time.
#[derive(Debug)]
pub(crate) struct Lendable {
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
    _held: Held,
}

/// The permit of a running call: made lendable by the first who may need it.
#[derive(Default)]
pub(crate) enum Kept {
    Unlent(Held),
    Lendable(Arc<Lendable>),
    /// The thread's visit has it, or it was given back with its thread. Also while it is made lendable.
    #[default]
    Nothing,
}

impl Kept {
    fn lendable(&mut self) -> Option<Arc<Lendable>> {
        let lendable = match std::mem::take(self) {
            Self::Unlent(held) => Arc::new(Lendable {
                turn: Arc::new(Semaphore::new(1)),
                waiting: AtomicUsize::new(0),
                _held: held,
            }),
            Self::Lendable(lendable) => lendable,
            Self::Nothing => return None,
        };
        *self = Self::Lendable(Arc::clone(&lendable));
        Some(lendable)
    }
}

/// Who asks, and for whom.
#[derive(Debug, Clone, Default)]
pub struct Asker {
    /// Whose turn is taken.
    pub caller: Caller,
    /// The call of a module that this is below.
    pub above: Option<Lineage>,
    /// It has less time than the configured deadline: it said so, or the call above has no more. What a module does not
    /// do in so little time says nothing about its health.
    pub hurried: bool,
}

/// Modules by their positions, as calls that run one after the other find theirs.
pub trait Modules: Send + Sync {
    /// The module at a position.
    fn at(&self, position: usize) -> &ModuleHandle;
}

/// Which module a call is for.
pub(crate) enum Whose {
    Module(ModuleHandle),
    /// The one at this position.
    At(Arc<dyn Modules>, Cell<usize>, Rc<Parts>),
}

impl Whose {
    fn module(&self) -> &ModuleHandle {
        match self {
            Self::Module(module) => module,
            Self::At(modules, position, _) => modules.at(position.get()),
        }
    }
}

/// A running call of a module.
pub(crate) struct Frame {
    whose: Whose,
    pub(crate) operation: Operation,
    until: Cell<Moment>,
    pub(crate) asker: Asker,
    permit: RefCell<Kept>,
    /// The permit that the thread's visit has, for this poll alone: whether it is for a gating call.
    at_once: Cell<Option<bool>>,
}

impl Frame {
    pub(crate) fn new(module: &ModuleHandle, operation: Operation, until: Instant, asker: Asker, permit: Held) -> Self {
        Self {
            whose: Whose::Module(module.clone()),
            operation,
            until: Cell::new(until.into()),
            asker,
            permit: RefCell::new(Kept::Unlent(permit)),
            at_once: Cell::new(None),
        }
    }

    /// For calls of one callback, one after the other, until their deadline. The first is still to [begin](Self::begin).
    pub(crate) fn of_route(
        modules: Arc<dyn Modules>,
        parts: Rc<Parts>,
        operation: Operation,
        asker: Asker,
        deadline: Instant,
    ) -> Self {
        Self {
            whose: Whose::At(modules, Cell::new(0), parts),
            operation,
            until: Cell::new(deadline.into()),
            asker,
            permit: RefCell::default(),
            at_once: Cell::new(None),
        }
    }

    /// From now on it is that of the call of the module at this position, which has a permit for one poll: `at_once` says
    /// whether that is for a gating call.
    pub(crate) fn begin(&self, at: usize, budget: &Budget, at_once: Option<bool>) {
        if let Whose::At(_, position, _) = &self.whose {
            position.set(at);
        }
        self.until.set(budget.now.after(budget.nanos));
        self.at_once.set(at_once);
    }

    /// Its call has ended: nobody needs the permit any more.
    pub(crate) fn end(&self) {
        // If it is still there, the visit gives it back.
        if self.at_once.take().is_none() {
            self.permit.take();
        }
    }

    /// Runs the call's code.
    pub(crate) fn scope<F: Future>(self: Rc<Self>, run: F) -> impl Future<Output = F::Output> {
        Scoped::new(Here::Call(self), run)
    }

    /// Runs code of its calls that does not wait.
    pub(crate) fn within<T>(self: &Rc<Self>, run: impl FnOnce() -> T) -> T {
        let mut here = Some(Here::Call(Rc::clone(self)));
        let _inside = Inside::new(&mut here);
        run()
    }

    /// The call goes on after this poll.
    pub(crate) fn goes_on(&self) {
        if let (Some(gating), Whose::At(_, _, parts)) = (self.at_once.take(), &self.whose)
            && let Some(permit) = parts.keep_permit(self.whose.module(), gating)
        {
            self.permit.replace(Kept::Unlent(Held::Own(permit)));
        }
    }

    fn lineage(&self) -> Lineage {
        let above = self.asker.above.as_ref().map(|above| Arc::clone(&above.call));
        self.goes_on();
        let lendable = self.permit.borrow_mut().lendable();
        Lineage {
            until: Some(self.until.get().into()),
            call: Arc::new(Ancestor {
                module: self.whose.module().clone(),
                operation: self.operation,
                depth: above.as_ref().map_or(1, |above| above.depth + 1),
                caller: self.asker.caller,
                permit: lendable.map_or_else(Weak::new, |lendable| Arc::downgrade(&lendable)),
                above,
            }),
            refused: Arc::default(),
        }
    }
}

/// A call that others are below.
struct Ancestor {
    module: ModuleHandle,
    operation: Operation,
    depth: usize,
    caller: Caller,
    /// Weak: it goes back with the call, whatever is still below it.
    permit: Weak<Lendable>,
    above: Option<Arc<Ancestor>>,
}

/// Callbacks nest too deeply. It names them, from the first to the one that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("callbacks nest deeper than {max_depth}: {cycle}")]
pub struct TooDeep {
    /// How deep they may nest.
    pub max_depth: usize,
    /// The calls that repeat, or all of them if none does: `callback (module) > ...`, the refused one last.
    pub cycle: String,
}

impl From<TooDeep> for HomeserverError {
    fn from(TooDeep { max_depth, cycle }: TooDeep) -> Self {
        Self::NestedTooDeep { max_depth, cycle }
    }
}

/// Which call of a module something is done for. It can be taken along to another task: what is asked there
/// [below](crate::Asker::above) it counts as asked by that call.
#[derive(Clone)]
pub struct Lineage {
    call: Arc<Ancestor>,
    until: Option<Instant>,
    refused: Arc<OnceLock<TooDeep>>,
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lineage({})", self.path())
    }
}

impl Lineage {
    /// The call that the current task does something for, if there is one. Tasks that a module spawns do it for nobody.
    #[must_use]
    pub fn here() -> Option<Self> {
        let here = HERE.try_with(|here| match &*here.borrow() {
            Some(Here::Call(frame)) => Some(frame.lineage()),
            Some(Here::Below(lineage)) => Some(lineage.clone()),
            None => None,
        });
        here.ok().flatten()
    }

    /// Does something for this call.
    pub(crate) fn scope<F: Future>(self, run: F) -> impl Future<Output = F::Output> {
        Scoped::new(Here::Below(self), run)
    }

    /// The same call, for one thing that is asked below it: what is refused there is refused for that one.
    pub(crate) fn anew(&self) -> Self {
        Self {
            refused: Arc::default(),
            ..self.clone()
        }
    }

    /// The same for something that others wait for too, which is not over with this call.
    pub(crate) fn without_deadline(self) -> Self {
        Self { until: None, ..self }
    }

    /// How many calls there are on the way to here.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.call.depth
    }

    /// Who asked first.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.call.caller
    }

    /// The end of the call's budget.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// A callback that would nest too deeply. The module that caused it is told, if it asked the homeserver.
    #[must_use]
    pub fn refuse(&self, callback: &'static str, max_depth: usize) -> TooDeep {
        let calls: Vec<_> = self.calls().collect();
        let repeats = calls.iter().position(|call| call.operation.as_str() == callback);
        let cycle = &calls[..repeats.map_or(calls.len(), |last| last + 1)];
        let too_deep = TooDeep {
            max_depth,
            cycle: written(cycle) + " > " + callback,
        };
        let _ = self.refused.set(too_deep.clone());
        too_deep
    }

    /// What was refused below this call.
    pub(crate) fn refused(&self) -> Option<&TooDeep> {
        self.refused.get()
    }

    /// From this call to the first.
    fn calls(&self) -> impl Iterator<Item = &Ancestor> {
        std::iter::successors(Some(&*self.call), |call| call.above.as_deref())
    }

    fn path(&self) -> String {
        written(&self.calls().collect::<Vec<_>>())
    }

    /// The permit of the nearest call of this module that still runs.
    pub(crate) fn lent_by(&self, module: &ModuleHandle) -> Option<Arc<Lendable>> {
        let mut calls = self.calls().filter(|call| call.module.is(module));
        calls.find_map(|call| call.permit.upgrade())
    }
}

/// The first call first.
fn written(calls: &[&Ancestor]) -> String {
    let calls = calls.iter().rev();
    let calls: Vec<_> = calls
        .map(|call| format!("{} ({})", call.operation.as_str(), call.module.id()))
        .collect();
    calls.join(" > ")
}

impl Lendable {
    /// Waits until no other call below uses the permit; `None` if too many wait already.
    pub(crate) async fn borrow(self: Arc<Self>) -> Option<Lent> {
        let waiting = Waiting::new(&self)?;
        let turn = Arc::clone(&self.turn).acquire_owned().await.ok()?;
        drop(waiting);
        Some(Lent(Arc::new(Borrowed(Mutex::new(Some((self, turn)))))))
    }
}

/// One who waits for a permit that is lent, counted until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(lendable: &'a Lendable) -> Option<Self> {
        let before = lendable.waiting.fetch_add(1, Ordering::Relaxed);
        // Dropped at once if there are too many.
        let waiting = Self(&lendable.waiting);
        (before < MAX_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How much of its budget the current call of a module has left; `None` outside of one.
pub(crate) fn remaining() -> Option<Duration> {
    let until = HERE.try_with(|here| match &*here.borrow() {
        Some(Here::Call(frame)) => Some(frame.until.get().into()),
        Some(Here::Below(lineage)) => lineage.until,
        None => None,
    });
    let until = until.ok().flatten()?;
    Some(until.saturating_duration_since(Instant::now()))
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admission::Admission;
    use crate::queue::CallClass;

    #[tokio::test(start_paused = true)]
    async fn a_permit_that_was_lent_goes_back_when_nobody_uses_it() {
        let admission = Admission::new(&Arc::new(crate::stock::Stock::new(1, None)), 0);
        let (ledger, retired) = (admission.ledger(), CancellationToken::new());
        let until = Instant::now() + Duration::from_secs(1);
        let permit = admission.admit(&ledger, CallClass::Gating, Caller::Unnamed, until, &retired, drop);
        let mut above = Kept::Unlent(Held::Own(permit.await.unwrap()));
        let lendable = above.lendable().unwrap();
        let (weak, same) = (Arc::downgrade(&lendable), above.lendable().unwrap());
        assert!(Arc::ptr_eq(&lendable, &same));

        let below = lendable.borrow().await.unwrap();
        // One at a time.
        let mut beside = Box::pin(same.borrow());
        assert!(futures_util::poll!(&mut beside).is_pending());
        drop(below);
        let below = beside.await.unwrap();
        // The call below it lends it on.
        let mut below = Kept::Unlent(Held::Lent(below));
        let deeper = below.lendable().unwrap().borrow().await.unwrap();

        // It is out for as long as one of them runs, though who comes now finds nobody to lend it.
        drop(above);
        drop(below);
        assert_eq!(admission.load().0, 1);
        assert!(weak.upgrade().is_some());
        drop(deeper);
        assert_eq!(admission.load().0, 0);
        assert!(weak.upgrade().is_none());
    }
}
