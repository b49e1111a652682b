//! What an operator should know of failure rules before they are used: which never decide, which deny events of other
//! servers, and where deny has no meaning. Pure.
//!
//! Nothing is guessed: every failure that can happen, of each module in each of its callbacks, is shown to the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ganglion_api::{
    Callback, CallbackSpec, CheckEventForSpam, FailureKind, FederatedUserMayInvite, ShouldDropFederatedEvent, Then,
    reference,
};

use crate::handle::DispatchHandle;
use crate::policy::{FailureRule, Origin};

/// The callbacks that ask about an event which came over federation, and what a denial does to it.
const OF_FEDERATED_EVENTS: [(&str, &str); 3] = [
    (
        CheckEventForSpam::SPEC.name,
        "it is stored redacted and soft-failed, for good",
    ),
    (
        ShouldDropFederatedEvent::SPEC.name,
        "it is dropped as if it had never come",
    ),
    (FederatedUserMayInvite::SPEC.name, "the invite is refused"),
];

/// A list of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleList {
    /// That of the module at this place.
    Module(usize),
    /// The global one.
    Global,
}

/// Where a rule stands in the config. What is looked at first is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RulePlace {
    /// The list.
    pub list: RuleList,
    /// The place in it.
    pub index: usize,
}

impl fmt::Display for RulePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let RuleList::Module(module) = self.list {
            write!(f, "modules[{module}].")?;
        }
        write!(f, "on_failure[{}]", self.index)
    }
}

/// What was found. Lists are in the order of the file, the global rules last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Review {
    /// Rules that never decide.
    pub never: Vec<NeverDecides>,
    /// Where a failure denies an event of another server.
    pub federated: Vec<FederatedDenial>,
    /// Deny rules that are passed over somewhere.
    pub passed_over: Vec<PassedOver>,
}

/// A rule that decides nothing, whatever fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeverDecides {
    /// The rule.
    pub rule: RulePlace,
    /// Why.
    pub why: Why,
}

/// Why a rule never decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It names callbacks and categories, and none of the callbacks is in one of the categories.
    NoCallback,
    /// No callback that it names is on a route: of this module, if it is a module's rule.
    NotRegistered,
    /// The callbacks that it names are always local.
    Origin,
    /// No failure of these kinds, which it names, can happen there.
    Kinds(BTreeSet<FailureKind>),
    /// These rules are before it and decide all that it matches.
    RulesBefore(BTreeSet<RulePlace>),
    /// It denies, and nothing that it matches has a deny verdict.
    NoDenyVerdict,
}

/// A module and a callback in which a failure denies an event of another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederatedDenial {
    /// The module's place.
    pub module: usize,
    /// The callback.
    pub callback: &'static str,
    /// What the denial does to the event, for people.
    pub effect: &'static str,
    /// The rules that deny, and the kinds of failure that each of them decides.
    pub rules: BTreeMap<RulePlace, BTreeSet<FailureKind>>,
}

/// A deny rule that reaches callbacks without a deny verdict. There the next rule decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// The rule.
    pub rule: RulePlace,
    /// The callbacks, in the order of the alphabet.
    pub callbacks: BTreeSet<&'static str>,
    /// Whether it denies nothing elsewhere either.
    pub never_decides: bool,
}

/// A module as its rules see it.
pub(crate) struct Reviewed<'a> {
    pub(crate) rules: &'a [FailureRule],
    /// The callbacks on whose routes it is; `None` if it is disabled, so that it may be any.
    pub(crate) callbacks: Option<BTreeSet<&'static str>>,
    /// Whether its breakers refuse calls.
    pub(crate) breakers_refuse: bool,
}

impl Reviewed<'_> {
    fn has(&self, callback: &CallbackSpec) -> bool {
        self.callbacks.as_ref().is_none_or(|own| own.contains(callback.name))
    }

    /// The kinds of failure that can happen to it.
    fn kinds(&self) -> impl Iterator<Item = FailureKind> {
        FailureKind::ALL.into_iter().filter(|kind| match kind {
            // No tier of this version speaks a protocol.
            FailureKind::Protocol => false,
            FailureKind::BreakerOpen => self.breakers_refuse,
            _ => true,
        })
    }
}

/// What came of one rule.
#[derive(Default)]
struct Findings {
    /// How far it came: a callback of its own, with its origin, with one of its kinds.
    named: bool,
    of_origin: bool,
    of_kind: bool,
    decides: bool,
    /// Who decided where it could have.
    before: BTreeSet<RulePlace>,
    passed_over: BTreeSet<&'static str>,
}

/// Looks at the rules of all modules and the global ones.
pub(crate) fn review(modules: &[Reviewed<'_>], global: &[FailureRule]) -> Review {
    let mut findings: BTreeMap<RulePlace, Findings> = BTreeMap::new();
    let mut review = Review::default();
    for (module, reviewed) in modules.iter().enumerate() {
        let rules: Vec<_> = placed(RuleList::Module(module), reviewed.rules)
            .chain(placed(RuleList::Global, global))
            .collect();
        for callback in reference().iter().filter(|callback| reviewed.has(callback)) {
            let mut denying: BTreeMap<RulePlace, BTreeSet<FailureKind>> = BTreeMap::new();
            for kind in reviewed.kinds() {
                for &origin in Origin::possible(callback) {
                    let known = reviewed.callbacks.is_some();
                    let decides = show(&rules, callback, kind, origin, known, &mut findings);
                    if let Some((place, Then::Deny)) = decides
                        && origin == Origin::Federated
                        && known
                    {
                        denying.entry(place).or_default().insert(kind);
                    }
                }
            }
            let federated = OF_FEDERATED_EVENTS.iter().find(|(name, _)| *name == callback.name);
            if let Some((callback, effect)) = federated.filter(|_| !denying.is_empty()) {
                review.federated.push(FederatedDenial {
                    module,
                    callback,
                    effect,
                    rules: denying,
                });
            }
        }
    }
    let own = modules
        .iter()
        .enumerate()
        .flat_map(|(module, reviewed)| placed(RuleList::Module(module), reviewed.rules));
    for (place, rule) in own.chain(placed(RuleList::Global, global)) {
        conclude(place, rule, findings.remove(&place).unwrap_or_default(), &mut review);
    }
    review
}

fn placed(list: RuleList, rules: &[FailureRule]) -> impl Iterator<Item = (RulePlace, &FailureRule)> {
    let placed = rules.iter().enumerate();
    placed.map(move |(index, rule)| (RulePlace { list, index }, rule))
}

/// Shows one failure to the rules and notes how far each comes. Says which decides, and how.
fn show(
    rules: &[(RulePlace, &FailureRule)],
    callback: &'static CallbackSpec,
    kind: FailureKind,
    origin: Origin,
    known: bool,
    findings: &mut BTreeMap<RulePlace, Findings>,
) -> Option<(RulePlace, Then)> {
    let mut decides = None;
    for &(place, rule) in rules {
        let findings = findings.entry(place).or_default();
        findings.named |= rule.names(callback);
        findings.of_origin |= rule.names(callback) && rule.origin.is_none_or(|named| named == origin);
        if !rule.reaches(callback, kind, origin) {
            continue;
        }
        findings.of_kind = true;
        match (decides, rule.has_meaning(callback)) {
            (None, true) => {
                findings.decides = true;
                decides = Some((place, rule.then));
            }
            (None, false) if known => {
                findings.passed_over.insert(callback.name);
            }
            (Some((before, _)), true) => {
                findings.before.insert(before);
            }
            (_, false) => {}
        }
    }
    decides
}

/// What is to be said of a rule.
fn conclude(rule: RulePlace, says: &FailureRule, findings: Findings, review: &mut Review) {
    if !findings.passed_over.is_empty() {
        review.passed_over.push(PassedOver {
            rule,
            callbacks: findings.passed_over,
            never_decides: !findings.decides,
        });
        return;
    }
    if findings.decides {
        return;
    }
    let why = if !reference().iter().any(|callback| says.names(callback)) {
        Why::NoCallback
    } else if !findings.named {
        Why::NotRegistered
    } else if !findings.of_origin {
        Why::Origin
    } else if !findings.of_kind {
        Why::Kinds(says.kinds.clone())
    } else if findings.before.is_empty() {
        Why::NoDenyVerdict
    } else {
        Why::RulesBefore(findings.before)
    };
    review.never.push(NeverDecides { rule, why });
}

impl DispatchHandle {
    /// What an operator should know of the failure rules, with the modules that are on routes now. Of a module that is
    /// disabled it is not known what it would register, so nothing is said that only a registration of it could refute.
    #[must_use]
    pub fn review(&self) -> Review {
        self.shared.routing.review()
    }
}

#[cfg(test)]
mod tests;
