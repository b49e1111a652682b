//! Work that a module wants done later: when a login is complete, or when an iteration of a background update is over.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::callback::{Callback, CallbackSpec, CallbackVisitor, Combine, rule};
use crate::callbacks::{AuthCheckers, Check3pidAuth, OnUpdate, UpdateWindow};
use crate::failure::{ModuleError, OnFailure};
use crate::json::{Fields, FromJson, JsonError, JsonPath};
use crate::registration::{LocalFuture, Subscriber};
use crate::types::{AuthenticatedUser, Login};

type Run<I, O> = Box<dyn FnOnce(I) -> LocalFuture<'static, Result<O, ModuleError>> + Send>;

/// Something to be done later, once. Clones are the same.
///
/// In JSON it is the token under which Ganglion keeps it, and null as long as it keeps it under none.
pub struct Continuation<I, O> {
    inner: Arc<Inner<I, O>>,
}

struct Inner<I, O> {
    token: OnceLock<String>,
    run: Mutex<Option<Run<I, O>>>,
}

/// What a module does with the response of a login, which it may change.
pub type LoginContinuation = Continuation<Login, Login>;

/// What a module does at the end of an update's iteration, given whether that failed.
pub type UpdateContinuation = Continuation<bool, ()>;

impl<I: 'static, O: 'static> Continuation<I, O> {
    /// Runs this function later. It runs as a call of its own of the module, with a budget of its own.
    #[must_use]
    pub fn new<F>(function: F) -> Self
    where
        F: AsyncFnOnce(I) -> Result<O, ModuleError> + Send + 'static,
    {
        let run: Run<I, O> = Box::new(move |input| Box::pin(async move { function(input).await }));
        Self {
            inner: Arc::new(Inner {
                token: OnceLock::new(),
                run: Mutex::new(Some(run)),
            }),
        }
    }

    /// Keeps it under a token; the first one holds.
    pub fn name(&self, token: String) {
        let _ = self.inner.token.set(token);
    }

    fn take(&self) -> Option<Run<I, O>> {
        self.inner.run.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<I, O> Clone for Continuation<I, O> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<I, O> PartialEq for Continuation<I, O> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl<I, O> Eq for Continuation<I, O> {}

impl<I, O> fmt::Debug for Continuation<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token is a secret until it is used.
        f.write_str("Continuation")
    }
}

impl<I, O> Serialize for Continuation<I, O> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.inner.token.get().serialize(serializer)
    }
}

impl<I, O> FromJson for Continuation<I, O> {
    const TYPE: &'static str = "token";

    fn from_json(_value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        Err(JsonError::invalid(at, "only null: work for later is code, and no JSON"))
    }
}

/// What an outcome wants done later.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Later {
    /// When the login is complete.
    Login(LoginContinuation),
    /// When the iteration is over; given up at the next one of this database.
    Update(UpdateContinuation, String),
}

impl Later {
    pub(crate) fn login<C>(_args: &C, user: &AuthenticatedUser) -> Option<Self> {
        user.login_callback.clone().map(Self::Login)
    }

    pub(crate) fn update(args: &OnUpdate, window: &UpdateWindow) -> Option<Self> {
        let continuation = window.exit_token.clone()?;
        Some(Self::Update(continuation, args.database_name.clone()))
    }

    /// Keeps it under a token.
    pub fn name(&self, token: String) {
        match self {
            Self::Login(continuation) => continuation.name(token),
            Self::Update(continuation, _) => continuation.name(token),
        }
    }
}

/// A callback whose answer may hold work for later.
pub trait Continuing: Callback {
    /// What that work is given.
    type Input: FromJson + Serialize + fmt::Debug + Clone + Send + Sync + 'static;
    /// What comes out of it.
    type Output: Serialize + fmt::Debug + Clone + PartialEq + Send + Sync + 'static;
    /// The key of the input.
    const INPUT: &'static str;

    /// The work, if it is this callback's.
    fn of(later: Later) -> Option<Continuation<Self::Input, Self::Output>>;
}

macro_rules! continuing {
    ($($callback:ident, $input:ty => $output:ty, $key:literal, $later:pat => $continuation:expr;)+) => {$(
        impl Continuing for $callback {
            type Input = $input;
            type Output = $output;
            const INPUT: &'static str = $key;

            fn of(later: Later) -> Option<Continuation<$input, $output>> {
                match later {
                    $later => Some($continuation),
                    _ => None,
                }
            }
        }
    )+};
}
continuing! {
    AuthCheckers, Login => Login, "result", Later::Login(login) => login;
    Check3pidAuth, Login => Login, "result", Later::Login(login) => login;
    OnUpdate, bool => (), "failed", Later::Update(update, _) => update;
}

/// The later work of a callback's answer, asked for like a callback of one subscriber: a failure of it is an error, and
/// a Matrix error passes. It counts as a call of the callback that it belongs to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Continued<C: Continuing> {
    /// What the work is given.
    pub input: C::Input,
}

impl<C: Continuing> Continued<C> {
    /// With this input.
    pub fn new(input: C::Input) -> Self {
        Self { input }
    }
}

impl<C: Continuing> Serialize for Continued<C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.input.serialize(serializer)
    }
}

impl<C: Continuing> FromJson for Continued<C> {
    const TYPE: &'static str = "Continued";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        Ok(Self::new(Fields::new(value, at)?.required(C::INPUT)?))
    }
}

impl<C: Continuing> Callback for Continued<C> {
    type Rule = rule::SingleOwner;
    type Answer = C::Output;
    type Outcome = Option<C::Output>;

    const SPEC: CallbackSpec = CallbackSpec {
        combine: Combine::SingleOwner,
        on_failure: OnFailure::Error,
        acting: None,
        ..C::SPEC
    };
    const INDEX: usize = C::INDEX;

    fn visit<V: CallbackVisitor>(visitor: &mut V) {
        visitor.single_owner::<Self>();
    }

    fn read_answer(_answer: Value) -> Result<Self::Answer, JsonError> {
        Err(JsonError::invalid(&JsonPath::Root, "later work is code, and no JSON"))
    }

    fn outcome_json(outcome: &Self::Outcome) -> Value {
        serde_json::json!({ "value": outcome })
    }
}

impl<C: Continuing> Subscriber<Continued<C>> for Continuation<C::Input, C::Output> {
    fn call<'a>(&'a self, args: &'a Continued<C>) -> LocalFuture<'a, Result<C::Output, ModuleError>> {
        match self.take() {
            Some(run) => run(args.input.clone()),
            // Whoever has the token has it once, so nobody gets here twice.
            None => Box::pin(async { Err(ModuleError::message("it has run already")) }),
        }
    }
}
