//! One callback on its way through its route: who is next, what their answer or failure does. Pure; clocks and actors
//! are its driver's.
//!
//! ```text
//!   next_subscription ──> Some(subscription) ── asked ──> settle(answer | failure) ──┐
//!    ^                                                                               │ Continue
//!    └───────────────────────────────────────────────────────────────────────────────┘
//!    │ nobody left, or Break, or expire
//!    v
//!   decision
//! ```

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use ganglion_api::{CallFailure, Concern, FailureKind};
use tokio::time::Instant;

use crate::decision::{Decision, Outcome, Step, StepResult};
use crate::fields::clean_error;
use crate::fold::{Fold, Folded, Routed};
use crate::policy::{Effect, Then};
use crate::route::{Route, Subscription};

/// What a chain knows so far.
enum Progress<C: Routed> {
    /// Somebody may still be asked.
    Open(<C::Rule as Fold<C>>::State),
    /// The outcome is fixed.
    Decided(Decision<C>),
    /// The decision was given out.
    Taken,
}

/// One callback on its way through its route.
pub struct Chain<C: Routed, H = ganglion_actors::ModuleHandle> {
    route: Arc<Route<C, H>>,
    args: Arc<C>,
    progress: Progress<C>,
    steps: Vec<Step>,
    asked_at: Option<Instant>,
}

impl<C: Routed, H> Chain<C, H> {
    /// The callback at the start of its route.
    #[must_use]
    pub fn new(route: Arc<Route<C, H>>, args: C) -> Self {
        let steps = Vec::with_capacity(route.subscriptions().len());
        Self {
            route,
            args: Arc::new(args),
            progress: Progress::Open(Default::default()),
            steps,
            asked_at: None,
        }
    }

    /// The arguments, as the modules so far have left them.
    #[must_use]
    pub fn args(&self) -> &Arc<C> {
        &self.args
    }

    /// Who is asked next; those whom the call does not concern are passed over. `None` if the outcome is fixed.
    pub fn next_subscription(&mut self) -> Option<&Subscription<C, H>> {
        while matches!(self.progress, Progress::Open(_)) {
            let position = self.steps.len();
            let Some(subscription) = self.route.subscriptions().get(position) else {
                self.finish();
                break;
            };
            match subscription.subscriber.concern(&self.args) {
                Ok(Concern::Skipped) => self.push(StepResult::Skipped, Duration::ZERO, None, None),
                Ok(Concern::Asked) => return self.route.subscriptions().get(position),
                Err(error) => {
                    let failure = CallFailure::new(FailureKind::ModuleError, error.to_string());
                    self.settle(Err(failure), Duration::ZERO);
                }
            }
        }
        None
    }

    /// The next subscription is being asked since this moment.
    pub fn asked(&mut self, at: Instant) {
        self.asked_at = Some(at);
    }

    /// The subscription that was asked answered or failed. Too late, if the outcome is fixed: then nothing happens.
    pub fn settle(&mut self, answer: Result<C::Answer, CallFailure>, duration: Duration) {
        self.asked_at = None;
        let state = match std::mem::replace(&mut self.progress, Progress::Taken) {
            Progress::Open(state) => state,
            decided => {
                self.progress = decided;
                return;
            }
        };
        match answer {
            Ok(answer) => self.answered(state, answer, duration),
            Err(failure) => self.failed(state, failure, duration),
        }
    }

    /// The chain's deadline has passed: who is being asked, and all who were not reached, exceeded it.
    pub fn expire(&mut self, now: Instant) {
        let mut duration = self
            .asked_at
            .take()
            .map_or(Duration::ZERO, |asked| now.saturating_duration_since(asked));
        while self.next_subscription().is_some() {
            self.settle(Err(FailureKind::DeadlineExceeded.into()), duration);
            duration = Duration::ZERO;
        }
    }

    /// The worker has ended: nobody can be asked any more.
    pub fn abandon(&mut self) {
        while self.next_subscription().is_some() {
            self.settle(Err(FailureKind::NotRunning.into()), Duration::ZERO);
        }
    }

    /// Gives the decision out, once.
    pub fn take_decision(&mut self) -> Option<Decision<C>> {
        match std::mem::replace(&mut self.progress, Progress::Taken) {
            Progress::Decided(decision) => Some(decision),
            other => {
                self.progress = other;
                None
            }
        }
    }

    fn answered(&mut self, state: <C::Rule as Fold<C>>::State, answer: C::Answer, duration: Duration) {
        let Folded { result, notes, flow } = C::Rule::fold(state, &mut self.args, answer);
        self.warn(&notes);
        let detail = (!notes.is_empty()).then(|| notes.join("; "));
        self.push(result, duration, detail, None);
        match flow {
            ControlFlow::Continue(state) => self.progress = Progress::Open(state),
            ControlFlow::Break(outcome) => self.decide(Outcome::Decided(outcome)),
        }
    }

    fn failed(&mut self, state: <C::Rule as Fold<C>>::State, failure: CallFailure, duration: Duration) {
        let CallFailure {
            kind,
            mut detail,
            matrix,
            ..
        } = failure;
        let result = StepResult::Failed(kind);
        if let Some(mut error) =
            matrix.filter(|error| C::SPEC.on_failure.passes_matrix_errors() && is_error(error.status))
        {
            let notes = clean_error(&mut error);
            self.warn(&notes);
            for note in notes {
                detail = Some(detail.map_or(note.clone(), |detail| format!("{detail}; {note}")));
            }
            self.push(result, duration, detail, None);
            return self.decide(Outcome::Error(error));
        }
        let subscription = &self.route.subscriptions()[self.steps.len()];
        let then = subscription.policy.then(kind);
        let (module, callback, reason) = (&*subscription.id, C::SPEC.name, detail.as_deref().unwrap_or_default());
        tracing::warn!(module, callback, %kind, reason, policy = then.as_str(), "module gave no answer");
        self.push(result, duration, detail, Some(then));
        match Effect::of(then, C::SPEC.on_failure) {
            Effect::Pass => self.progress = Progress::Open(state),
            Effect::Error(error) => self.decide(Outcome::Error(error)),
            Effect::Deny(denial) => match C::Rule::deny(denial) {
                Some(outcome) => self.decide(Outcome::Decided(outcome)),
                // Policies never resolve to deny here, see `Policy::resolve`.
                None => self.progress = Progress::Open(state),
            },
        }
    }

    fn push(&mut self, result: StepResult, duration: Duration, detail: Option<String>, policy: Option<Then>) {
        let module = Arc::clone(&self.route.subscriptions()[self.steps.len()].id);
        self.steps.push(Step {
            module,
            result,
            duration,
            detail,
            policy,
        });
    }

    fn warn(&self, notes: &[String]) {
        if let Some(subscription) = self.route.subscriptions().get(self.steps.len()) {
            for note in notes {
                tracing::warn!(
                    module = &*subscription.id,
                    callback = C::SPEC.name,
                    note,
                    "answer changed"
                );
            }
        }
    }

    fn finish(&mut self) {
        if let Progress::Open(state) = std::mem::replace(&mut self.progress, Progress::Taken) {
            let outcome = Outcome::Decided(C::Rule::finish(state, &self.args));
            let steps = std::mem::take(&mut self.steps);
            self.progress = Progress::Decided(Decision {
                outcome,
                decided_by: None,
                steps,
            });
        }
    }

    /// Ends the chain by the last step.
    fn decide(&mut self, outcome: Outcome<C>) {
        let decided_by = self.steps.last().map(|step| Arc::clone(&step.module));
        let steps = std::mem::take(&mut self.steps);
        self.progress = Progress::Decided(Decision {
            outcome,
            decided_by,
            steps,
        });
    }
}

/// Whether a status says that something failed; a module's error with another one is a failure like any other.
fn is_error(status: u16) -> bool {
    (400..=599).contains(&status)
}

/// The decision about a callback that nobody subscribed to: the neutral one.
#[must_use]
pub fn neutral<C: Routed>(args: &C) -> Decision<C> {
    let outcome = Outcome::Decided(C::Rule::finish(Default::default(), args));
    Decision {
        outcome,
        decided_by: None,
        steps: Vec::new(),
    }
}
