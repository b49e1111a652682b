//! In order until one denies.

use std::ops::ControlFlow;
use std::sync::Arc;

use ganglion_api::{Callback, Denial, Denies as _, Gate, VerdictKind, rule};

use super::{Fold, Folded};
use crate::decision::StepResult;
use crate::fields::clean_denial;

impl<C> Fold<C> for rule::FirstDeny
where
    C: Callback<Rule = Self, Outcome = <C as Callback>::Answer>,
    C::Answer: Gate,
{
    type State = ();

    fn fold((): (), _args: &mut Arc<C>, mut answer: C::Answer) -> Folded<C::Outcome, ()> {
        let kind = answer.kind();
        let notes = answer.denial_mut().map(clean_denial).unwrap_or_default();
        let flow = if kind == VerdictKind::Pass {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(answer)
        };
        Folded {
            result: StepResult::Verdict(kind),
            notes,
            flow,
        }
    }

    fn finish((): (), _args: &C) -> C::Outcome {
        C::Answer::pass()
    }

    fn deny(denial: Denial) -> Option<C::Outcome> {
        Some(C::Answer::deny(denial))
    }
}
