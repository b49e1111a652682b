//! In order, each may change what is decided about.

use std::ops::ControlFlow;
use std::sync::Arc;

use ganglion_api::{Denial, Denies, Gate, Rewriting, Rewritten, VerdictKind, rule};

use super::{Fold, Folded};
use crate::decision::StepResult;
use crate::fields::clean_denial;

impl<C: Rewriting> Fold<C> for rule::Rewrite {
    type State = ();

    fn fold((): (), args: &mut Arc<C>, mut answer: C::Answer) -> Folded<C::Outcome, ()> {
        let kind = answer.kind();
        let notes = answer.denial_mut().map(clean_denial).unwrap_or_default();
        if kind == VerdictKind::Pass {
            // The arguments stay as they are, and need no copy to be edited.
            return Folded {
                result: StepResult::Verdict(kind),
                notes,
                flow: ControlFlow::Continue(()),
            };
        }
        let (kind, flow) = match Arc::make_mut(args).rewrite(answer) {
            Rewritten::Unchanged => (VerdictKind::Pass, ControlFlow::Continue(())),
            Rewritten::Edited => (VerdictKind::Replace, ControlFlow::Continue(())),
            Rewritten::Ended(outcome) => (kind, ControlFlow::Break(outcome)),
        };
        Folded {
            result: StepResult::Verdict(kind),
            notes,
            flow,
        }
    }

    fn finish((): (), args: &C) -> C::Outcome {
        args.settled()
    }

    fn deny(denial: Denial) -> Option<C::Outcome> {
        Some(C::Outcome::deny(denial))
    }
}
