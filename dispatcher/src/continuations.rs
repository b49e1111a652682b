//! Work that modules want done later: kept under tokens, each good once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ganglion_actors::Incarnation;
use ganglion_api::{
    AuthCheckers, Callback, Check3pidAuth, Continuation, Continued, Continuing, JsonError, JsonPath, Later, OnUpdate,
    OwnedServerName, Subscriber,
};
use moka::sync::Cache;
use serde_json::Value;

use crate::context::AskContext;
use crate::decision::{Decision, JsonDecision, Outcome};
use crate::fold::Routed;
use crate::handle::DispatchHandle;
use crate::policy::Policy;
use crate::route::{Route, Subscription};

/// How long the work of a login is kept: nobody takes longer between two halves of one request.
const LOGIN_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// How many logins may have work that waits. Beyond it the oldest are given up.
const MAX_LOGINS: u64 = 10_000;

/// How many databases may have an iteration under way. A homeserver has a handful.
const MAX_UPDATES: usize = 1_000;

/// Work of a module.
struct Kept {
    callback: &'static str,
    incarnation: Arc<Incarnation>,
    server_name: OwnedServerName,
    later: Option<Later>,
}

/// It is a module's code: if nobody runs it, it is not dropped on whatever thread finds that out.
impl Drop for Kept {
    fn drop(&mut self) {
        self.incarnation.discard(Box::new(self.later.take()));
    }
}

/// All work that waits.
pub(crate) struct Continuations {
    logins: Cache<String, Arc<Kept>>,
    /// By database.
    updates: Mutex<HashMap<String, (String, Arc<Kept>)>>,
}

impl Default for Continuations {
    fn default() -> Self {
        Self {
            logins: Cache::builder()
                .max_capacity(MAX_LOGINS)
                .time_to_live(LOGIN_LIFETIME)
                .build(),
            updates: Mutex::default(),
        }
    }
}

/// Why work could not be continued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContinueError {
    /// There is no such callback, or its answers hold no work.
    #[error("this callback has nothing to continue")]
    NoContinuations,
    /// Nothing is kept under the token: it was used, is too old, or was never given.
    #[error("the token is not known, or was used")]
    Gone,
    /// The input is not the callback's.
    #[error(transparent)]
    Args(#[from] JsonError),
}

impl Continuations {
    /// Keeps what an outcome wants done later under a token that nobody can guess. Without randomness it is not kept, and the
    /// outcome has none.
    fn keep(&self, later: Later, kept: impl FnOnce(Later) -> Kept) {
        let mut bits = [0; 16];
        if let Err(error) = getrandom::fill(&mut bits) {
            tracing::error!(%error, "no random token: what a module wants done later will not be");
            return;
        }
        let token = format!("{:032x}", u128::from_ne_bytes(bits));
        later.name(token.clone());
        match &later {
            Later::Update(_, database) => {
                let database = database.clone();
                let kept = Arc::new(kept(later));
                let mut updates = self.updates();
                let before = updates.insert(database, (token, kept));
                let full = updates.len() > MAX_UPDATES;
                let dropped = if full {
                    std::mem::take(&mut *updates)
                } else {
                    HashMap::new()
                };
                drop(updates);
                drop((before, dropped));
            }
            _ => self.logins.insert(token, Arc::new(kept(later))),
        }
    }

    fn take(&self, callback: &str, token: &str) -> Option<Arc<Kept>> {
        if callback == OnUpdate::SPEC.name {
            let mut updates = self.updates();
            let database = updates.iter().find(|(_, (kept, _))| kept == token);
            let database = database.map(|(database, _)| database.clone())?;
            return updates.remove(&database).map(|(_, kept)| kept);
        }
        let kept = self.logins.get(token).filter(|kept| kept.callback == callback)?;
        // Whoever removes it has it.
        self.logins.remove(token).map(|_| kept)
    }

    fn updates(&self) -> MutexGuard<'_, HashMap<String, (String, Arc<Kept>)>> {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DispatchHandle {
    /// Keeps what a decision wants done later.
    pub(crate) fn keep<C: Routed>(&self, args: &C, decision: &Decision<C>) {
        let Outcome::Decided(outcome) = &decision.outcome else {
            return;
        };
        let Some(later) = args.later(outcome) else {
            return;
        };
        let tables = self.routes();
        let route = tables.route::<C>();
        let answered = route.and_then(|route| {
            let mut subscriptions = route.subscriptions().iter();
            let answered = subscriptions.find(|subscription| Some(subscription.id) == decision.decided_by)?;
            Some((answered, route.server_name()))
        });
        // Else the module was taken off the routes since: nobody is left to continue.
        if let Some((answered, server_name)) = answered {
            self.shared.continuations.keep(later, |later| Kept {
                callback: C::SPEC.name,
                incarnation: Arc::clone(&answered.incarnation),
                server_name: server_name.to_owned(),
                later: Some(later),
            });
        }
    }

    /// Runs what a module wants done later, with its input from this object. The decision has one step. A failure is an
    /// error, whatever the failure policy says, and a Matrix error passes.
    ///
    /// # Errors
    /// The token is not known or was used before, the callback has no continuations, or the input is not its own; then the
    /// token is still good.
    ///
    /// # Cancellation
    /// As for [`ask`](Self::ask); the token is used all the same.
    pub async fn continue_json_in(
        &self,
        context: AskContext,
        callback: &str,
        token: &str,
        input: Value,
    ) -> Result<JsonDecision, ContinueError> {
        if callback == AuthCheckers::SPEC.name {
            self.continue_as::<AuthCheckers>(context, token, input).await
        } else if callback == Check3pidAuth::SPEC.name {
            self.continue_as::<Check3pidAuth>(context, token, input).await
        } else if callback == OnUpdate::SPEC.name {
            self.continue_as::<OnUpdate>(context, token, input).await
        } else {
            Err(ContinueError::NoContinuations)
        }
    }

    async fn continue_as<C>(
        &self,
        context: AskContext,
        token: &str,
        input: Value,
    ) -> Result<JsonDecision, ContinueError>
    where
        C: Continuing,
        Continued<C>: Routed,
        Continuation<C::Input, C::Output>: Subscriber<Continued<C>>,
    {
        let args = <Continued<C> as ganglion_api::FromJson>::from_json(input, &JsonPath::Root)?;
        let taken = self.shared.continuations.take(C::SPEC.name, token);
        let kept = taken.ok_or(ContinueError::Gone)?;
        let continuation = kept.later.clone().and_then(C::of).ok_or(ContinueError::Gone)?;
        let subscription = Subscription::<Continued<C>> {
            id: kept.incarnation.module().module_id(),
            policy: Policy::resolve(&[], &[], &Continued::<C>::SPEC),
            subscriber: Arc::new(continuation),
            incarnation: Arc::clone(&kept.incarnation),
        };
        let route = Arc::new(Route::new(vec![subscription], kept.server_name.clone()));
        Ok(self.ask_route(route, context, Arc::new(args)).await.into_json())
    }
}
