//! One module owns the callback.

use std::any::TypeId;
use std::ops::ControlFlow;
use std::sync::Arc;

use ganglion_api::{Callback, Denial, rule};

use super::{Fold, Folded};
use crate::decision::StepResult;

impl<C> Fold<C> for rule::SingleOwner
where
    C: Callback<Rule = Self, Outcome = Option<<C as Callback>::Answer>>,
{
    type State = ();

    fn fold((): (), _args: &mut Arc<C>, answer: C::Answer) -> Folded<C::Outcome, ()> {
        // An owner without anything to answer was told something.
        let told = TypeId::of::<C::Answer>() == TypeId::of::<()>();
        let result = if told { StepResult::Notified } else { StepResult::Answer };
        Folded::new(result, ControlFlow::Break(Some(answer)))
    }

    fn finish((): (), _args: &C) -> C::Outcome {
        None
    }

    fn deny(_denial: Denial) -> Option<C::Outcome> {
        None
    }
}
