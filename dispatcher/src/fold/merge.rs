//! All contribute.

use std::ops::ControlFlow;
use std::sync::Arc;

use ganglion_api::{Callback, Denial, Merging, rule};

use super::{Fold, Folded};
use crate::decision::StepResult;

impl<C> Fold<C> for rule::Merge
where
    C: Callback<Rule = Self, Outcome = Option<<C as Callback>::Answer>>,
    C::Answer: Merging,
{
    /// What was contributed so far; `None` if nobody did.
    type State = Option<C::Answer>;

    fn fold(state: Self::State, _args: &mut Arc<C>, mut answer: C::Answer) -> Folded<C::Outcome, Self::State> {
        let dropped = answer.take_dropped();
        let merged = match state {
            Some(mut merged) => {
                merged.absorb(answer);
                merged
            }
            None => answer,
        };
        let flow = if merged.is_final() {
            ControlFlow::Break(Some(merged))
        } else {
            ControlFlow::Continue(Some(merged))
        };
        let notes = dropped
            .into_iter()
            .map(|entry| format!("dropped {entry:?}: no user id"))
            .collect();
        Folded {
            result: StepResult::Answer,
            notes,
            flow,
        }
    }

    fn finish(state: Self::State, _args: &C) -> C::Outcome {
        state
    }

    fn deny(_denial: Denial) -> Option<C::Outcome> {
        None
    }
}
