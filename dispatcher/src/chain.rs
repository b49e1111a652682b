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

use ganglion_actors::{Budget, Course, Moment, Reclaim};
use ganglion_api::{CallFailure, Concern, FailureKind, Then};
use tokio::time::Instant;

use crate::decision::{Decision, Outcome, Step, StepResult};
use crate::fields::clean_error;
use crate::fold::{Fold, Folded, Routed};
use crate::policy::{Effect, Origin};
use crate::route::{Route, Subscription, Target};

/// What a chain knows so far.
enum Progress<C: Routed> {
    /// Somebody may still be asked.
    Open(<C::Rule as Fold<C>>::State),
    /// The outcome is fixed.
    Decided(Decision<C>),
    /// The decision was given out.
    Taken,
}

/// The subscription that is being asked.
struct Asked {
    question: Question,
    budget: Budget,
    /// How the module's code goes on, once it has begun.
    begun: Option<Begun>,
    /// Where it waits for a permit.
    place: Option<Arc<dyn Reclaim>>,
}

/// How the code of the module that is being asked has begun.
enum Begun {
    /// When it was asked, without a wait, and it has not come back since.
    AtOnce,
    /// On its own course.
    Later(Arc<Course>),
}

/// One question to one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question(u32);

/// What becomes of a chain whose worker was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Displaced {
    /// It goes on with another worker, on its next leg.
    GoOn,
    /// Another module than the one that is blamed has begun its answer. It is not asked twice, so the chain waits for it
    /// until the end of its budget.
    WaitUntil(Question, Instant),
}

/// One callback on its way through its route.
pub struct Chain<C: Routed, H = Arc<ganglion_actors::Incarnation>> {
    route: Arc<Route<C, H>>,
    args: Arc<C>,
    progress: Progress<C>,
    steps: Vec<Step>,
    asked: Option<Asked>,
    /// How often it went on with another worker.
    leg: u32,
    /// How many questions there were, those that were withdrawn too.
    questions: u32,
}

impl<C: Routed, H: Target> Chain<C, H> {
    /// The callback at the start of its route.
    #[must_use]
    pub fn new(route: Arc<Route<C, H>>, args: Arc<C>) -> Self {
        let steps = Vec::with_capacity(route.subscriptions().len());
        Self {
            route,
            args,
            progress: Progress::Open(Default::default()),
            steps,
            asked: None,
            leg: 0,
            questions: 0,
        }
    }

    /// Its route.
    #[must_use]
    pub fn route(&self) -> &Arc<Route<C, H>> {
        &self.route
    }

    /// The arguments, as the modules so far have left them.
    #[must_use]
    pub fn args(&self) -> &Arc<C> {
        &self.args
    }

    /// Who is asked next; those whom the call does not concern are passed over. `None` if the outcome is fixed.
    pub fn next_subscription(&mut self) -> Option<&Subscription<C, H>> {
        let position = self.next_position()?;
        self.route.subscriptions().get(position)
    }

    /// The position of who is asked next, as [`next_subscription`](Self::next_subscription).
    #[inline]
    pub fn next_position(&mut self) -> Option<usize> {
        while matches!(self.progress, Progress::Open(_)) {
            let position = self.steps.len();
            let Some(subscription) = self.route.subscriptions().get(position) else {
                self.finish();
                break;
            };
            match subscription.subscriber.concern(&self.args) {
                Ok(Concern::Skipped) => self.push(StepResult::Skipped, Duration::ZERO, None, None),
                Ok(Concern::Asked) => return Some(position),
                Err(error) => {
                    let failure = CallFailure::new(FailureKind::ModuleError, error.to_string());
                    self.settle(Err(failure), Duration::ZERO);
                }
            }
        }
        None
    }

    /// The next subscription is being asked, until the end of this budget.
    #[inline]
    pub fn asked(&mut self, budget: Budget) -> Question {
        self.questions += 1;
        let question = Question(self.questions);
        self.asked = Some(Asked {
            question,
            budget,
            begun: None,
            place: None,
        });
        question
    }

    /// Which leg the chain is on.
    #[must_use]
    pub fn leg(&self) -> u32 {
        self.leg
    }

    /// Whether its outcome is fixed.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        !matches!(self.progress, Progress::Open(_))
    }

    /// Whether a module is being asked.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// The code of the module that is being asked may begin; not if the question was withdrawn.
    #[must_use]
    pub fn begin(&mut self, question: Question, course: &Arc<Course>) -> bool {
        let asked = self.asked.as_mut().filter(|asked| asked.question == question);
        asked
            .map(|asked| asked.begun = Some(Begun::Later(Arc::clone(course))))
            .is_some()
    }

    /// The code of the module that is being asked begins at once.
    pub fn begin_at_once(&mut self) {
        if let Some(asked) = &mut self.asked {
            asked.begun = Some(Begun::AtOnce);
        }
    }

    /// The question waits for a permit, in this place; at once no more if it was withdrawn.
    pub fn waits(&mut self, question: Question, place: Arc<dyn Reclaim>) {
        match self.asked.as_mut().filter(|asked| asked.question == question) {
            Some(asked) => asked.place = Some(place),
            None => place.reclaim(),
        }
    }

    /// The module that is being asked answered or failed. Nothing happens if the chain has gone on without it.
    pub fn answer(&mut self, question: Question, answer: Result<C::Answer, CallFailure>, now: Instant) {
        let asked = self.asked.as_ref().filter(|asked| asked.question == question);
        if let Some(duration) = asked.map(|asked| Moment::from(now).since(asked.budget.now)) {
            self.answer_after(question, answer.map_err(Box::new), duration);
        }
    }

    /// The same, this long after it was asked.
    #[inline]
    pub fn answer_after(
        &mut self,
        question: Question,
        answer: Result<C::Answer, Box<CallFailure>>,
        duration: Duration,
    ) {
        let Some(asked) = self.asked.as_ref().filter(|asked| asked.question == question) else {
            return;
        };
        match answer {
            Ok(answer) => self.settle(Ok(answer), duration),
            Err(failure) => {
                self.harmed(asked, failure.kind);
                self.settle(Err(*failure), duration);
            }
        }
    }

    /// A worker is to go on with the next leg, unless a module's code has begun. Says whether that is so.
    #[must_use]
    pub fn withdraw(&mut self) -> bool {
        let begun = self.asked.as_ref().is_some_and(|asked| asked.begun.is_some());
        if !begun {
            self.leave();
            self.leg += 1;
        }
        !begun
    }

    /// Its worker was given up, for this module if it is known. A question that was not begun is withdrawn, to be asked
    /// again on the next leg.
    pub fn displace(&mut self, blamed: Option<&str>, now: Instant) -> Displaced {
        let asked = self.route.subscriptions().get(self.steps.len());
        let to_blame = match (blamed, asked) {
            (Some(blamed), Some(asked)) => *asked.id == *blamed,
            // The thread ended: what ran there is gone.
            _ => true,
        };
        match self.asked.as_ref().filter(|asked| asked.begun.is_some()) {
            Some(asked) if !to_blame && asked.budget.until() > now => {
                // Its answer still counts; but if its worker comes back, it drives the chain no further.
                self.leg += 1;
                return Displaced::WaitUntil(asked.question, asked.budget.until());
            }
            Some(asked) => {
                let question = asked.question;
                self.overrun(question, now);
            }
            None => self.leave(),
        }
        self.leg += 1;
        Displaced::GoOn
    }

    /// The question is to be asked again elsewhere: no permit comes to where nobody may take it.
    fn leave(&mut self) {
        if let Some(place) = self.asked.take().and_then(|asked| asked.place) {
            place.reclaim();
        }
    }

    /// A question that is still open gets no answer in time: the module exceeded its deadline.
    pub fn overrun(&mut self, question: Question, now: Instant) {
        let failure = CallFailure::new(FailureKind::DeadlineExceeded, Some("its worker was blocked".to_owned()));
        self.answer(question, Err(failure), now);
    }

    /// The subscription that was asked answered or failed. Too late, if the outcome is fixed: then nothing happens.
    #[inline]
    pub fn settle(&mut self, answer: Result<C::Answer, CallFailure>, duration: Duration) {
        self.asked = None;
        let Progress::Open(state) = &mut self.progress else {
            return;
        };
        // In place: a decision is a big thing to move.
        let state = std::mem::take(state);
        match answer {
            Ok(answer) => self.answered(state, answer, duration),
            Err(failure) => self.failed(state, failure, duration),
        }
    }

    /// The chain's deadline has passed: who is being asked, and all who were not reached, exceeded it.
    #[cold]
    pub fn expire(&mut self, now: Instant) {
        let mut duration = self.asked.take().map_or(Duration::ZERO, |asked| {
            if now >= asked.budget.until() {
                self.harmed(&asked, FailureKind::DeadlineExceeded);
            }
            Moment::from(now).since(asked.budget.now)
        });
        while self.next_subscription().is_some() {
            self.settle(Err(FailureKind::DeadlineExceeded.into()), duration);
            duration = Duration::ZERO;
        }
    }

    /// A question ended with a failure of this kind. If it was the args that made the module panic or hang, it is told so.
    #[cold]
    fn harmed(&self, asked: &Asked, kind: FailureKind) {
        let harmed = match (kind, &asked.begun) {
            (_, None) => false,
            (FailureKind::Panicked, Some(_)) => true,
            (FailureKind::DeadlineExceeded, Some(Begun::Later(course))) => course.hangs(),
            // It holds its thread.
            (FailureKind::DeadlineExceeded, Some(Begun::AtOnce)) => asked.budget.whole,
            _ => false,
        };
        if let Some(subscription) = self.route.subscriptions().get(self.steps.len())
            && harmed
        {
            subscription.incarnation.harmed(&*self.args, kind);
        }
    }

    /// Nobody can be asked any more: all who were not reached failed so.
    pub fn abandon(&mut self, failure: &CallFailure) {
        while self.next_subscription().is_some() {
            self.settle(Err(failure.clone()), Duration::ZERO);
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

    #[inline]
    fn answered(&mut self, state: <C::Rule as Fold<C>>::State, answer: C::Answer, duration: Duration) {
        let Folded { result, notes, flow } = C::Rule::fold(state, &mut self.args, answer);
        let mut detail = None;
        if !notes.is_empty() {
            self.warn(&notes);
            detail = Some(notes.join("; "));
        }
        self.push(result, duration, detail, None);
        match flow {
            ControlFlow::Continue(state) => self.go_on(state),
            ControlFlow::Break(outcome) => self.decide(Outcome::Decided(outcome)),
        }
    }

    fn go_on(&mut self, state: <C::Rule as Fold<C>>::State) {
        if let Progress::Open(open) = &mut self.progress {
            *open = state;
        }
    }

    #[cold]
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
            self.push(result, duration, detail.map(shortened), None);
            return self.decide(Outcome::Error(*error));
        }
        let subscription = &self.route.subscriptions()[self.steps.len()];
        let origin = Origin::of(&*self.args, self.route.server_name());
        let then = subscription.policy.then(kind, origin);
        subscription.incarnation.policy_used(kind, then);
        let detail = detail.map(shortened);
        let (module, callback, reason) = (&*subscription.id, C::SPEC.name, detail.as_deref().unwrap_or_default());
        if let Some(unsaid) = subscription.incarnation.says(kind) {
            let unsaid = Some(unsaid).filter(|unsaid| *unsaid > 0);
            tracing::warn!(module, callback, %kind, reason, policy = then.as_str(), unsaid, "module gave no answer");
        }
        self.push(result, duration, detail, Some(then));
        match Effect::of(then, C::SPEC.on_failure) {
            Effect::Pass => self.go_on(state),
            Effect::Error(error) => self.decide(Outcome::Error(error)),
            Effect::Deny(denial) => match C::Rule::deny(denial) {
                Some(outcome) => self.decide(Outcome::Decided(outcome)),
                // Policies never resolve to deny here, see `Policy::resolve`.
                None => self.go_on(state),
            },
        }
    }

    #[inline]
    fn push(&mut self, result: StepResult, duration: Duration, detail: Option<String>, policy: Option<Then>) {
        let module = self.route.subscriptions()[self.steps.len()].id;
        self.steps.push(Step {
            module,
            result,
            duration,
            detail,
            policy,
        });
    }

    #[cold]
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
        let decided_by = self.steps.last().map(|step| step.module);
        let steps = std::mem::take(&mut self.steps);
        self.progress = Progress::Decided(Decision {
            outcome,
            decided_by,
            steps,
        });
    }
}

/// The longest detail, in bytes: a module may say anything.
const MAX_DETAIL: usize = 1024;

fn shortened(mut detail: String) -> String {
    if detail.len() > MAX_DETAIL {
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL));
        detail.push('…');
    }
    detail
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
