//! All are told.

use std::ops::ControlFlow;
use std::sync::Arc;

use ganglion_api::{Callback, Denial, rule};

use super::{Fold, Folded};
use crate::decision::StepResult;

impl<C: Callback<Rule = Self, Answer = (), Outcome = ()>> Fold<C> for rule::Notify {
    type State = ();

    fn fold((): (), _args: &mut Arc<C>, (): ()) -> Folded<(), ()> {
        Folded::new(StepResult::Notified, ControlFlow::Continue(()))
    }

    fn finish((): (), _args: &C) {}

    fn deny(_denial: Denial) -> Option<()> {
        None
    }
}
