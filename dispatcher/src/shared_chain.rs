//! A chain that two sides know: the worker that drives it, and its caller.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ganglion_actors::{Asking, Course, Reclaim};
use ganglion_api::CallFailure;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::chain::{Chain, Question};
use crate::fold::Routed;

/// A chain that its worker drives and its caller watches: a caller whose deadline passes concludes from what is there.
pub(crate) struct SharedChain<C: Routed>(Arc<Shared<C>>);

struct Shared<C: Routed> {
    chain: Mutex<Chain<C>>,
    /// Somebody answered.
    answered: Notify,
}

impl<C: Routed> Clone for SharedChain<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Routed> SharedChain<C> {
    pub(crate) fn new(chain: Chain<C>) -> Self {
        Self(Arc::new(Shared {
            chain: Mutex::new(chain),
            answered: Notify::new(),
        }))
    }

    /// No module code runs while this is held.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Chain<C>> {
        self.0.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells who waits that somebody answered.
    pub(crate) fn tell(&self) {
        self.0.answered.notify_waiters();
    }

    /// Waits until nobody is being asked, at most until then.
    pub(crate) async fn answered(&self, until: Instant) {
        let answered = self.0.answered.notified();
        let mut answered = pin!(answered);
        // From now on no answer is missed.
        answered.as_mut().enable();
        if self.lock().is_asked() {
            // Whether it came or not: the chain knows.
            let _ = timeout_at(until, answered).await;
        }
    }
}

/// One question of a chain to one module.
pub(crate) struct Asked<C: Routed> {
    pub(crate) chain: SharedChain<C>,
    pub(crate) question: Question,
}

impl<C: Routed> Clone for Asked<C> {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            question: self.question,
        }
    }
}

impl<C: Routed> Asking<C::Answer> for Asked<C> {
    fn begin(&self, course: &Arc<Course>) -> bool {
        self.chain.lock().begin(self.question, course)
    }

    fn waits(&self, place: Arc<dyn Reclaim>) {
        self.chain.lock().waits(self.question, place);
    }

    fn end(self, result: Result<C::Answer, CallFailure>) {
        self.chain.lock().answer(self.question, result, Instant::now());
        self.chain.tell();
    }
}
