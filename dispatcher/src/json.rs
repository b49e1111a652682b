//! Asking by a callback's name, with arguments and decision as JSON.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use ganglion_api::{JsonError, JsonPath, visit_all, visit_each_callback};
use serde_json::Value;

use crate::context::AskContext;
use crate::decision::JsonDecision;
use crate::fold::Routed;
use crate::handle::DispatchHandle;

/// Why a callback could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// There is no callback of this name.
    #[error("unknown callback")]
    UnknownCallback,
    /// The arguments are not the callback's.
    #[error(transparent)]
    Args(#[from] JsonError),
}

type Asked<'a> = Pin<Box<dyn Future<Output = Result<JsonDecision, JsonError>> + Send + 'a>>;

trait AskByName: Send + Sync {
    fn ask<'a>(&self, handle: &'a DispatchHandle, context: AskContext, args: Value) -> Asked<'a>;
}

struct Typed<C>(PhantomData<fn() -> C>);

impl<C: Routed> AskByName for Typed<C> {
    fn ask<'a>(&self, handle: &'a DispatchHandle, context: AskContext, args: Value) -> Asked<'a> {
        Box::pin(async move {
            let mut args = C::from_json(args, &JsonPath::Root)?;
            args.connect(context.source())?;
            handle.routes().check_args(&args)?;
            let args = Arc::new(args);
            let decision = handle.ask_in(context, Arc::clone(&args)).await;
            handle.keep(&*args, &decision);
            Ok(decision.into_json())
        })
    }
}

type ByName = HashMap<&'static str, Box<dyn AskByName>>;

struct Collect(ByName);

visit_each_callback!(Collect, |self, C| {
    self.0.insert(C::SPEC.name, Box::new(Typed::<C>(PhantomData)));
});

fn by_name(name: &str) -> Option<&'static dyn AskByName> {
    static CALLBACKS: OnceLock<ByName> = OnceLock::new();
    let callbacks = CALLBACKS.get_or_init(|| {
        let mut collect = Collect(HashMap::new());
        visit_all(&mut collect);
        collect.0
    });
    callbacks.get(name).map(|callback| &**callback)
}

impl DispatchHandle {
    /// Asks the callback with this name; otherwise like [`ask`](Self::ask).
    ///
    /// # Errors
    /// There is no such callback, or the arguments are not its own.
    pub async fn ask_json(&self, callback: &str, args: Value) -> Result<JsonDecision, AskError> {
        self.ask_json_in(AskContext::new(), callback, args).await
    }

    /// Asks for a caller, until a deadline or below a call of a module; otherwise like [`ask_in`](Self::ask_in).
    ///
    /// # Errors
    /// As for [`ask_json`](Self::ask_json).
    pub async fn ask_json_in(
        &self,
        context: AskContext,
        callback: &str,
        args: Value,
    ) -> Result<JsonDecision, AskError> {
        let callback = by_name(callback).ok_or(AskError::UnknownCallback)?;
        Ok(callback.ask(self, context, args).await?)
    }
}
