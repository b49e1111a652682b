//! What a peer asks Ganglion, each request in a task of its own.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use ganglion_actors::ModuleId;
use ganglion_api::wire::{self, Ask, Cancel, GoOn, MAX_REQUESTS, RpcError, code, method};
use ganglion_api::{ArgSource, Callback as _, CheckMediaFileForSpam, JsonError};
use ganglion_dispatcher::{AskContext, AskError, ContinueError, JsonDecision, Step};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::counts::WireCounts;
use super::outbox::{NotSent, Outbox};
use super::peer::Peer;
use super::server::Shared;
use crate::config::unknown_callback;
use crate::json::{self, ReadError};

/// The requests of one connection that have no answer yet.
pub(super) struct Questions {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    args: Arc<dyn ArgSource>,
    outbox: Outbox,
    in_flight: RefCell<HashMap<u64, InFlight>>,
    /// How many requests there were.
    requests: Cell<u64>,
    /// Tells that the last of them has its answer.
    all_answered: Notify,
}

/// A request without an answer.
struct InFlight {
    /// Which one it is: its number may be used again as soon as it is cancelled, before its task is gone.
    serial: u64,
    /// Its task, once it has begun.
    task: Option<AbortHandle>,
}

/// The right to answer a request. If nobody does, it is answered with an internal error.
struct Unanswered {
    id: u64,
    serial: u64,
    questions: Rc<Questions>,
}

impl Unanswered {
    fn answer(self, answer: Result<Decided, RpcError>) {
        if self.questions.settle(self.id, self.serial) {
            self.questions.send(self.id, answer);
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        // Answered or cancelled, else a defect of ours ended its task.
        if self.questions.settle(self.id, self.serial) {
            self.questions.send(self.id, Err(RpcError::internal()));
        }
    }
}

impl Questions {
    pub(super) fn new(shared: Arc<Shared>, peer: Arc<Peer>, args: Arc<dyn ArgSource>, outbox: Outbox) -> Rc<Self> {
        Rc::new(Self {
            shared,
            peer,
            args,
            outbox,
            in_flight: RefCell::default(),
            requests: Cell::new(0),
            all_answered: Notify::new(),
        })
    }

    /// Whether every request has its answer.
    pub(super) fn are_answered(&self) -> bool {
        self.in_flight.borrow().is_empty()
    }

    /// Waits until every request has its answer, as far as it may not have been noticed yet.
    pub(super) async fn answered(&self) {
        self.all_answered.notified().await;
    }

    /// Whether nobody has answered a request yet; from now on somebody has.
    fn settle(&self, id: u64, serial: u64) -> bool {
        let mut in_flight = self.in_flight.borrow_mut();
        let settled = in_flight.get(&id).is_some_and(|request| request.serial == serial);
        if settled {
            in_flight.remove(&id);
        }
        if settled && in_flight.is_empty() {
            self.all_answered.notify_one();
        }
        settled
    }

    fn send(&self, id: u64, answer: Result<Decided, RpcError>) {
        let sent = match answer {
            Ok(result) => wire::result(id, &result).map(|message| self.outbox.send(message)),
            Err(error) => wire::error(Some(id), &error).map(|message| self.outbox.send(message)),
        };
        let error = match sent {
            // If it is gone, nobody waits.
            Ok(Ok(()) | Err(NotSent::Gone)) => return,
            Ok(Err(NotSent::TooLarge)) => RpcError::new(code::TOO_LARGE, "the answer is larger than you accept"),
            Err(_) => RpcError::internal(),
        };
        if let Ok(message) = wire::error(Some(id), &error) {
            let _ = self.outbox.send(message);
        }
    }

    /// A request came.
    ///
    /// # Errors
    /// Its number is in flight already: nobody could tell the two answers apart.
    pub(super) fn request(
        self: &Rc<Self>,
        id: u64,
        name: &str,
        params: Option<&RawValue>,
        stopping: bool,
    ) -> Result<(), RpcError> {
        let counts = self.shared.bridges.counts();
        WireCounts::count(&counts.requests);
        if self.in_flight.borrow().contains_key(&id) {
            return Err(RpcError::new(code::INVALID_REQUEST, "the id is in flight already"));
        }
        let refused = if stopping {
            Some(RpcError::new(code::STOPPING, "stopping"))
        } else if self.in_flight.borrow().len() >= MAX_REQUESTS {
            Some(RpcError::new(code::TOO_MANY, "too many requests are in flight"))
        } else {
            None
        };
        if let Some(refused) = refused {
            self.send(id, Err(refused));
            return Ok(());
        }
        let serial = self.requests.get();
        self.requests.set(serial + 1);
        self.in_flight.borrow_mut().insert(id, InFlight { serial, task: None });
        let unanswered = Unanswered {
            id,
            serial,
            questions: Rc::clone(self),
        };
        let work = match name {
            method::CALLBACK => read(params).map(|ask| self.ask(ask)),
            method::CONTINUE => read(params).map(|go_on| self.go_on(go_on)),
            _ => Err(RpcError::new(code::UNKNOWN_METHOD, "unknown method")),
        };
        match work {
            Ok(work) => {
                let task = tokio::task::spawn_local(async move { unanswered.answer(work.await) });
                if let Some(request) = self.in_flight.borrow_mut().get_mut(&id) {
                    request.task = Some(task.abort_handle());
                }
            }
            Err(error) => unanswered.answer(Err(error)),
        }
        Ok(())
    }

    /// Nobody waits for an answer any more. Gone is the task that asks, and with it a question that nobody has begun to
    /// answer.
    pub(super) fn cancel(&self, params: Option<&RawValue>) {
        let Ok(Cancel { id }) = read(params) else {
            return;
        };
        let request = self.in_flight.borrow_mut().remove(&id);
        if let Some(request) = request {
            WireCounts::count(&self.shared.bridges.counts().cancelled);
            if let Some(task) = request.task {
                task.abort();
            }
            self.send(id, Err(RpcError::new(code::CANCELLED, "cancelled")));
        }
    }

    fn context(&self, deadline_ms: Option<u64>) -> AskContext {
        let context = AskContext::new().caller(self.peer.caller);
        match deadline_ms {
            Some(milliseconds) => context.deadline(Duration::from_millis(milliseconds)),
            None => context,
        }
    }

    /// A callback. It runs to its end also if the connection ends.
    fn ask(&self, ask: Ask<'_>) -> Work {
        let Ask {
            callback,
            mut args,
            deadline_ms,
            below,
            steps,
        } = ask;
        if callback == CheckMediaFileForSpam::SPEC.name
            && let Some(args) = args.as_object_mut()
            && let Some(file) = args.remove("file_wrapper")
        {
            args.insert("file_base64".into(), file);
        }
        let mut context = self.context(deadline_ms).args_from(Arc::clone(&self.args));
        if let Some(above) = below.and_then(|name| self.shared.bridges.call_named(&name)) {
            context = context.below(above);
        }
        let (ganglion, callback) = (self.shared.ganglion.clone(), callback.into_owned());
        Box::pin(async move {
            match ganglion.ask_json_in(context, &callback, args).await {
                Ok(decision) => Ok(Decided::new(decision, steps)),
                Err(AskError::Args(error)) => Err(args_error(&error)),
                Err(_) => Err(invalid("M_UNRECOGNIZED", unknown_callback(&callback))),
            }
        })
    }

    /// What a module wants done later.
    fn go_on(&self, go_on: GoOn) -> Work {
        let context = self.context(go_on.deadline_ms);
        let ganglion = self.shared.ganglion.clone();
        Box::pin(async move {
            let GoOn {
                callback, token, input, ..
            } = go_on;
            let input = Value::Object(input);
            match ganglion.continue_json_in(context, &callback, &token, input).await {
                Ok(decision) => Ok(Decided::new(decision, true)),
                Err(ContinueError::Args(error)) => Err(args_error(&error)),
                Err(error @ ContinueError::Gone) => Err(RpcError::new(code::GONE, error.to_string())),
                Err(error) => Err(invalid("M_UNRECOGNIZED", error.to_string())),
            }
        })
    }
}

type Work = LocalBoxFuture<'static, Result<Decided, RpcError>>;

/// A decision, perhaps without its steps.
#[derive(Debug, Serialize)]
struct Decided {
    outcome: Value,
    decided_by: Option<ModuleId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<Step>>,
}

impl Decided {
    fn new(decision: JsonDecision, steps: bool) -> Self {
        Self {
            outcome: decision.outcome,
            decided_by: decision.decided_by,
            steps: steps.then_some(decision.steps),
        }
    }
}

fn read<'a, T: Deserialize<'a>>(params: Option<&'a RawValue>) -> Result<T, RpcError> {
    let text = params.map_or("null", RawValue::get);
    json::read(text.as_bytes()).map_err(|error| match error {
        ReadError::TooDeep => invalid("M_BAD_JSON", "the params are nested too deeply"),
        ReadError::NotJson(error) => invalid("M_INVALID_PARAM", format!("params: {error}")),
    })
}

fn invalid(errcode: &str, message: impl Into<Cow<'static, str>>) -> RpcError {
    RpcError::new(code::INVALID_PARAMS, message).with_data(json!({ "errcode": errcode }))
}

fn args_error(error: &JsonError) -> RpcError {
    invalid(error.errcode(), error.to_string())
}
