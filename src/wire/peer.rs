//! The other side of a connection, as Ganglion asks it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ganglion_actors::Caller;
use ganglion_api::wire::{self, Cancel, Hello, RpcError, method};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::outbox::{NotSent, Outbox};
use crate::json;

/// How long an answer is waited for where nobody says.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a peer gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CallError {
    #[error("the connection has ended")]
    Gone,
    #[error("no answer in time")]
    TimedOut,
    #[error("the request is larger than the other side accepts")]
    TooLarge,
    #[error("the other side answered {0}")]
    Refused(RpcError),
    #[error("the answer is not what was asked for")]
    Malformed,
}

impl From<NotSent> for CallError {
    fn from(not_sent: NotSent) -> Self {
        match not_sent {
            NotSent::TooLarge => Self::TooLarge,
            NotSent::Gone => Self::Gone,
        }
    }
}

type Answer = Result<Option<Box<RawValue>>, RpcError>;

/// The other side of a connection.
pub(super) struct Peer {
    pub(super) hello: Hello,
    /// Who asks, for modules' queues.
    pub(super) caller: Caller,
    outbox: Outbox,
    next: AtomicU64,
    /// `None` once the connection has ended.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    /// It takes no requests any more.
    leaves: AtomicBool,
}

impl Peer {
    pub(super) fn new(hello: Hello, outbox: Outbox) -> Arc<Self> {
        Arc::new(Self {
            hello,
            caller: Caller::link(),
            outbox,
            next: AtomicU64::new(0),
            waiting: Mutex::new(Some(HashMap::new())),
            leaves: AtomicBool::new(false),
        })
    }

    /// Whether it said that it can be asked this.
    pub(super) fn can(&self, feature: &str) -> bool {
        !self.leaves.load(Ordering::Relaxed) && self.hello.features.iter().any(|known| known == feature)
    }

    /// It said goodbye.
    pub(super) fn leave(&self) {
        self.leaves.store(true, Ordering::Relaxed);
    }

    /// The connection has ended: nobody waits for its answers any more.
    pub(super) fn gone(&self) {
        self.leave();
        self.lock().take();
    }

    /// An answer came. One that nobody waits for is ignored.
    pub(super) fn answered(&self, id: u64, answer: Answer) {
        let waiting = self.lock().as_mut().and_then(|waiting| waiting.remove(&id));
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer);
        }
    }

    /// How many answers are waited for.
    pub(super) fn waits_for(&self) -> usize {
        self.lock().as_ref().map_or(0, HashMap::len)
    }

    /// Sends a notification; that it cannot be sent shows when the connection ends.
    pub(super) fn notify(&self, method: &str, params: &impl Serialize) {
        if let Ok(message) = wire::notification(method, params) {
            let _ = self.outbox.send(message);
        }
    }

    /// Asks, and waits for the answer until a moment, or for half a minute.
    ///
    /// # Cancellation
    /// Dropping the future tells the other side that nobody waits.
    pub(super) async fn call<T: DeserializeOwned>(
        self: &Arc<Self>,
        method: &str,
        params: &impl Serialize,
        until: Option<Instant>,
    ) -> Result<T, CallError> {
        let until = until.unwrap_or_else(|| Instant::now() + PATIENCE);
        let id = self.next.fetch_add(1, Ordering::Relaxed) % wire::MAX_ID;
        let request = wire::request(id, method, params).map_err(|_| CallError::Malformed)?;
        let (answer, answered) = oneshot::channel();
        self.lock().as_mut().ok_or(CallError::Gone)?.insert(id, answer);
        let waits = Waits { peer: self, id };
        if let Err(not_sent) = self.outbox.send(request) {
            waits.over();
            return Err(not_sent.into());
        }
        let answer = timeout_at(until, answered)
            .await
            .map_err(|_elapsed| CallError::TimedOut)?;
        let result = answer.map_err(|_| CallError::Gone)?.map_err(CallError::Refused)?;
        let text = result.as_deref().map_or("null", RawValue::get);
        json::read(text.as_bytes()).map_err(|_| CallError::Malformed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Answer>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request whose answer is waited for, until this is dropped.
struct Waits<'a> {
    peer: &'a Peer,
    id: u64,
}

impl Waits<'_> {
    /// It was never sent.
    fn over(&self) {
        if let Some(waiting) = self.peer.lock().as_mut() {
            waiting.remove(&self.id);
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let unanswered = self.peer.lock().as_mut().and_then(|waiting| waiting.remove(&self.id));
        if unanswered.is_some() {
            self.peer.notify(method::CANCEL, &Cancel { id: self.id });
        }
    }
}
