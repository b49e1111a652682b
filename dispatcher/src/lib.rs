//! Routes the homeserver's questions to the modules and folds their answers into decisions.
//!
//! ```text
//! caller ── ask ──> DispatchHandle ── Dispatch<C> ──> Dispatcher (one a worker)
//!                     │ route, deadline                 │ Chain<C>: next, settle
//!                     │ no subscriber: neutral at once   └── ModuleHandle::call, one after the other
//! ```
//!
//! # Core concepts
//! - A [`RoutingTable`] holds the ordered [`Route`] of every callback; it is immutable.
//! - A [`Chain`] is one callback on its way through its route. It is pure: folds and failure policies are functions of
//!   answers and failures, tested without actors or clocks.
//! - A [`DispatchHandle`] holds the deadline on the caller's side, so that it holds when a module blocks a worker.

mod chain;
mod context;
mod continuations;
mod decision;
mod dispatcher;
mod drive;
mod fields;
mod fold;
mod handle;
mod intake;
mod json;
mod policy;
mod resources;
mod review;
mod route;
mod routing;
mod shared_chain;
mod start;
mod turns;

pub use chain::{Chain, Displaced, Question, neutral};
pub use context::AskContext;
pub use continuations::ContinueError;
pub use decision::{Decision, JsonDecision, Outcome, Step, StepResult};
pub use dispatcher::Served;
pub use fields::clean_error;
pub use fold::{Fold, Folded, Routed};
pub use handle::{DispatchCounts, DispatchHandle};
pub use json::AskError;
pub use policy::{Effect, FailureRule, Origin, Policy};
pub use resources::{MountedResource, ResourceTable};
pub use review::{FederatedDenial, NeverDecides, PassedOver, Review, RuleList, RulePlace, Why};
pub use route::{Route, RouteError, RoutedModule, RoutingTable, Subscription, Target};
pub use start::{DispatchPlan, Dispatching, PlannedModule, StartError};
