//! In order until one answers.

use std::ops::ControlFlow;
use std::sync::Arc;

use ganglion_api::{Callback, Candidate, Denial, rule};

use super::{Fold, Folded};
use crate::decision::StepResult;

impl<C, T> Fold<C> for rule::FirstAnswer
where
    C: Callback<Rule = Self, Answer = Option<T>, Outcome = Option<T>>,
    T: Candidate,
{
    type State = ();

    fn fold((): (), _args: &mut Arc<C>, answer: Option<T>) -> Folded<C::Outcome, ()> {
        match answer.and_then(Candidate::settle) {
            Some(answer) => Folded::new(StepResult::Answer, ControlFlow::Break(Some(answer))),
            None => Folded::new(StepResult::Neutral, ControlFlow::Continue(())),
        }
    }

    fn finish((): (), _args: &C) -> C::Outcome {
        None
    }

    fn deny(_denial: Denial) -> Option<C::Outcome> {
        None
    }
}
