//! What is asked, and in which order: fixed before the first question.

use std::pin::Pin;

use ganglion_actors::ModuleId;
use ganglion_api::{
    Callback, CallbackSpec, CallbackVisitor, Candidate, CheckMediaFileForSpam, Denies as _, Gate, JsonPath, LoginType,
    Merging, Rewriting, VerdictKind, rule, visit_all,
};
use ganglion_dispatcher::{Outcome, Routed, Step};

use super::mix::{Mix, order};
use super::samples::World;
use crate::ganglion::Ganglion;

/// How many different args a callback is asked with; then they come again. Breakers and caches see enough of them, and
/// they fit into memory.
const SAMPLES: usize = 1024;

/// The same for media, whose args are large.
const MEDIA_SAMPLES: usize = 128;

/// How long the order of questions is before it comes again.
const ORDER: usize = 1 << 16;

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was denied.
    Denied,
    /// It ended with an error.
    Error,
    /// Anything else.
    Other,
}

/// A question that was answered.
pub(super) struct Answered {
    pub(super) verdict: Verdict,
    pub(super) decided_by: Option<ModuleId>,
    pub(super) steps: Vec<Step>,
}

/// A question that is ready to be asked: nothing is done before it is polled.
pub(super) struct Question {
    /// The callback's position among those that are asked.
    pub(super) position: usize,
    pub(super) asked: Pin<Box<dyn Future<Output = Answered> + Send>>,
}

/// Args of one callback, its type forgotten.
trait Asks: Send + Sync {
    fn ask(&self, ganglion: &Ganglion, nth: usize) -> Question;
}

struct Samples<C: Callback> {
    position: usize,
    args: Vec<C>,
    is_denied: fn(&mut C::Outcome) -> bool,
}

impl<C: Routed> Asks for Samples<C> {
    fn ask(&self, ganglion: &Ganglion, nth: usize) -> Question {
        let args = self.args[nth % self.args.len()].clone();
        let (ganglion, is_denied) = (ganglion.clone(), self.is_denied);
        let asked = Box::pin(async move {
            let mut decision = ganglion.ask(args).await;
            let verdict = match &mut decision.outcome {
                Outcome::Error(_) => Verdict::Error,
                Outcome::Decided(outcome) => match is_denied(outcome) {
                    true => Verdict::Denied,
                    false => Verdict::Other,
                },
            };
            Answered {
                verdict,
                decided_by: decision.decided_by,
                steps: decision.steps,
            }
        });
        Question {
            position: self.position,
            asked,
        }
    }
}

/// Whose questions they are.
pub(crate) struct Homeserver<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The login types that modules declared.
    pub(crate) logins: Vec<LoginType>,
    /// What fixes all that is made up.
    pub(crate) seed: u64,
}

/// All questions of a run.
pub(crate) struct Questions {
    /// By position, as the callbacks were given.
    asks: Vec<Box<dyn Asks>>,
    /// Which callback, and the how manieth of its own questions it is.
    order: Vec<(usize, usize)>,
    /// How often each callback is in the order.
    counts: Vec<usize>,
}

impl Questions {
    /// The questions about these callbacks, as often as the mix says.
    pub(crate) fn new(specs: &[&'static CallbackSpec], mix: &Mix, world: &Homeserver<'_>) -> Self {
        let mut making = Making {
            specs,
            asks: specs.iter().map(|_| None).collect(),
            world,
        };
        visit_all(&mut making);
        let asks = making.asks.into_iter().flatten().collect();
        let weights: Vec<_> = specs.iter().map(|spec| mix.weight(spec.name)).collect();
        let mut counts = vec![0; specs.len()];
        let order = order(&weights, ORDER).into_iter().map(|position| {
            counts[position] += 1;
            (position, counts[position] - 1)
        });
        let order = order.collect();
        Self { asks, order, counts }
    }

    /// The nth question, ready to be asked.
    pub(super) fn nth(&self, ganglion: &Ganglion, nth: u64) -> Question {
        let (position, sample) = self.place(nth);
        self.asks[position].ask(ganglion, sample)
    }

    /// Which callback the nth question is about, and the how manieth of its own it is.
    fn place(&self, nth: u64) -> (usize, usize) {
        let nth = usize::try_from(nth).unwrap_or_default();
        let (position, sample) = self.order[nth % self.order.len()];
        (position, sample + nth / self.order.len() * self.counts[position])
    }
}

struct Making<'a> {
    specs: &'a [&'static CallbackSpec],
    asks: Vec<Option<Box<dyn Asks>>>,
    world: &'a Homeserver<'a>,
}

impl Making<'_> {
    fn make<C: Routed>(&mut self, is_denied: fn(&mut C::Outcome) -> bool) {
        let Some(position) = self.specs.iter().position(|spec| spec.name == C::SPEC.name) else {
            return;
        };
        let args = samples::<C>(self.world);
        self.asks[position] = Some(Box::new(Samples {
            position,
            args,
            is_denied,
        }));
    }
}

/// The args of a callback. Each has a seed of its own, so that they do not depend on which others are asked.
fn samples<C: Callback>(homeserver: &Homeserver<'_>) -> Vec<C> {
    let index = u64::try_from(C::INDEX).unwrap_or_default();
    let seed = homeserver.seed.wrapping_mul(1009).wrapping_add(index);
    let mut world = World::new(homeserver.name, homeserver.logins.clone(), seed);
    let count = if C::INDEX == CheckMediaFileForSpam::INDEX {
        MEDIA_SAMPLES
    } else {
        SAMPLES
    };
    let made = (0..count).map(|_| C::from_json(world.args(&C::SPEC), &JsonPath::Root));
    made.map(|args| args.expect("a test makes args of every callback"))
        .collect()
}

impl CallbackVisitor for Making<'_> {
    fn first_deny<C>(&mut self)
    where
        C: Callback<Rule = rule::FirstDeny, Outcome = <C as Callback>::Answer>,
        C::Answer: Gate + PartialEq,
    {
        self.make::<C>(|outcome| matches!(outcome.kind(), VerdictKind::Deny | VerdictKind::ShadowBan));
    }

    fn first_answer<C, T>(&mut self)
    where
        C: Callback<Rule = rule::FirstAnswer, Answer = Option<T>, Outcome = Option<T>>,
        T: Candidate,
    {
        self.make::<C>(|_| false);
    }

    fn rewrite<C: Rewriting>(&mut self) {
        self.make::<C>(|outcome| outcome.denial_mut().is_some());
    }

    fn merge<C>(&mut self)
    where
        C: Callback<Rule = rule::Merge, Outcome = Option<<C as Callback>::Answer>>,
        C::Answer: Merging,
    {
        self.make::<C>(|_| false);
    }

    fn notify<C: Callback<Rule = rule::Notify, Answer = (), Outcome = ()>>(&mut self) {
        self.make::<C>(|()| false);
    }

    fn single_owner<C>(&mut self)
    where
        C: Callback<Rule = rule::SingleOwner, Outcome = Option<<C as Callback>::Answer>>,
    {
        self.make::<C>(|_| false);
    }
}

#[cfg(test)]
mod tests {
    use ganglion_api::{CheckEventForSpam, UserMayCreateRoom, reference, spec};

    use super::*;

    fn homeserver(seed: u64) -> Homeserver<'static> {
        Homeserver {
            name: "example.com",
            logins: Vec::new(),
            seed,
        }
    }

    fn questions(names: &[&str], seed: u64) -> Questions {
        let specs: Vec<_> = names.iter().map(|name| spec(name).unwrap()).collect();
        Questions::new(&specs, &Mix::Synapse, &homeserver(seed))
    }

    #[test]
    fn one_seed_asks_the_same_in_the_same_order() {
        let names = ["user_may_create_room", "check_event_for_spam"];
        let (first, second) = (questions(&names, 1), questions(&names, 1));
        assert!((0..200_000).all(|nth| first.place(nth) == second.place(nth)));
        assert_eq!(
            samples::<CheckEventForSpam>(&homeserver(3)),
            samples::<CheckEventForSpam>(&homeserver(3))
        );
        assert_ne!(
            samples::<UserMayCreateRoom>(&homeserver(3)),
            samples::<UserMayCreateRoom>(&homeserver(4))
        );
    }

    #[test]
    fn a_callback_s_args_come_in_turn_and_go_on_when_the_order_comes_again() {
        let questions = questions(&["user_may_create_room", "check_event_for_spam"], 1);
        let mut next = [0, 0];
        for nth in 0..3 * ORDER as u64 {
            let (position, sample) = questions.place(nth);
            assert_eq!(sample, next[position]);
            next[position] += 1;
        }
        assert!(next[0] >= 3 && next[1] > 100 * next[0], "{next:?}");
    }

    #[test]
    fn every_callback_can_be_asked() {
        let all: Vec<_> = reference().iter().collect();
        let questions = Questions::new(&all, &Mix::Synapse, &homeserver(1));
        assert_eq!(questions.asks.len(), reference().len());
    }
}
