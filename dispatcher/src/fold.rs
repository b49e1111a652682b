//! How answers become an outcome: one pure fold a combine rule.

mod first_answer;
mod first_deny;
mod merge;
mod notify;
mod rewrite;
mod single_owner;

use std::ops::ControlFlow;
use std::sync::Arc;

use ganglion_api::{Callback, CombineRule, Denial};

use crate::decision::StepResult;

/// What one answer did.
#[derive(Debug)]
pub struct Folded<O, S> {
    /// The word for the step.
    pub result: StepResult,
    /// What was dropped or replaced in the answer, for the step and the log.
    pub notes: Vec<String>,
    /// The chain goes on with a state, or ends with an outcome.
    pub flow: ControlFlow<O, S>,
}

impl<O, S> Folded<O, S> {
    fn new(result: StepResult, flow: ControlFlow<O, S>) -> Self {
        Self {
            result,
            notes: Vec::new(),
            flow,
        }
    }
}

/// The fold of a combine rule over one callback's answers.
pub trait Fold<C: Callback>: CombineRule {
    /// What is known so far.
    type State: Default + Send + 'static;

    /// Takes an answer. A rewriting rule edits the arguments for the modules to come.
    fn fold(state: Self::State, args: &mut Arc<C>, answer: C::Answer) -> Folded<C::Outcome, Self::State>;

    /// The outcome if no answer ended the chain.
    fn finish(state: Self::State, args: &C) -> C::Outcome;

    /// A denial as an outcome; `None` where the callback has no deny verdict.
    fn deny(denial: Denial) -> Option<C::Outcome>;
}

/// A callback whose combine rule has a fold: all of them.
pub trait Routed: Callback<Rule: Fold<Self>> {}

impl<C: Callback<Rule: Fold<C>>> Routed for C {}
