//! What a failure counts as: an operator's rules, then what Synapse would do. Pure.

use std::collections::BTreeSet;

use ganglion_api::{CallbackSpec, Category, Denial, ErrorCode, FailureKind, MatrixError, OnFailure};
use serde::Serialize;

/// What a failure counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// As if the module had been neutral.
    Pass,
    /// A denial.
    Deny,
    /// The operation fails with 500.
    Error,
    /// What Synapse would do, which depends on the callback.
    Synapse,
}

impl Then {
    /// Every word.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Deny, Self::Error, Self::Synapse];

    /// The word in config and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Deny => "deny",
            Self::Error => "error",
            Self::Synapse => "synapse",
        }
    }
}

/// One rule of a failure policy. An empty set matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureRule {
    /// Names of callbacks.
    pub callbacks: BTreeSet<&'static str>,
    /// Categories.
    pub categories: BTreeSet<Category>,
    /// Kinds of failure.
    pub kinds: BTreeSet<FailureKind>,
    /// What the failure counts as.
    pub then: Then,
}

impl FailureRule {
    /// A rule for everything.
    #[must_use]
    pub fn all(then: Then) -> Self {
        Self {
            callbacks: BTreeSet::new(),
            categories: BTreeSet::new(),
            kinds: BTreeSet::new(),
            then,
        }
    }

    fn matches(&self, callback: &CallbackSpec, kind: FailureKind) -> bool {
        fn holds<T: Ord>(set: &BTreeSet<T>, value: &T) -> bool {
            set.is_empty() || set.contains(value)
        }
        holds(&self.callbacks, &callback.name)
            && holds(&self.categories, &callback.category)
            && holds(&self.kinds, &kind)
            // Without a deny verdict there is nothing to deny with: the next rule decides.
            && (self.then != Then::Deny || callback.combine.has_deny_verdict())
    }
}

/// The rules that apply to one module and one callback, resolved for every kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy([Then; FailureKind::ALL.len()]);

impl Policy {
    /// Resolves rules: the first that matches decides, the module's before the global ones, else `synapse`.
    #[must_use]
    pub fn resolve(module: &[FailureRule], global: &[FailureRule], callback: &CallbackSpec) -> Self {
        Self(FailureKind::ALL.map(|kind| {
            let mut rules = module.iter().chain(global);
            rules
                .find(|rule| rule.matches(callback, kind))
                .map_or(Then::Synapse, |rule| rule.then)
        }))
    }

    /// What this kind of failure counts as.
    #[must_use]
    pub fn then(&self, kind: FailureKind) -> Then {
        self.0[kind as usize]
    }
}

/// What a failure does to a chain.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// The next module is asked.
    Pass,
    /// The chain ends with this denial.
    Deny(Denial),
    /// The chain ends with this error.
    Error(MatrixError),
}

impl Effect {
    /// What a policy's word does in a callback.
    #[must_use]
    pub fn of(then: Then, on_failure: OnFailure) -> Self {
        match (then, on_failure) {
            (Then::Pass, _) | (Then::Synapse, OnFailure::Pass) => Self::Pass,
            (Then::Deny, _) => Self::Deny(Denial::forbidden()),
            (Then::Synapse, OnFailure::Deny) => Self::Deny(Denial::new(ErrorCode::unknown())),
            (Then::Error, _) | (Then::Synapse, OnFailure::Error | OnFailure::InternalError) => {
                Self::Error(MatrixError::internal())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> &'static CallbackSpec {
        ganglion_api::spec(name).unwrap()
    }

    #[test]
    fn the_module_s_rules_come_before_the_global_ones() {
        let module = [FailureRule {
            kinds: [FailureKind::Panicked].into(),
            ..FailureRule::all(Then::Deny)
        }];
        let global = [FailureRule::all(Then::Pass)];
        let policy = Policy::resolve(&module, &global, spec("user_may_join_room"));
        assert_eq!(policy.then(FailureKind::Panicked), Then::Deny);
        assert_eq!(policy.then(FailureKind::Overloaded), Then::Pass);
    }

    #[test]
    fn a_deny_rule_is_passed_over_where_nothing_can_be_denied() {
        let module = [FailureRule::all(Then::Deny), FailureRule::all(Then::Error)];
        assert_eq!(
            Policy::resolve(&module, &[], spec("is_user_expired")).then(FailureKind::Panicked),
            Then::Error
        );
        assert_eq!(
            Policy::resolve(&module, &[], spec("on_create_room")).then(FailureKind::Panicked),
            Then::Deny
        );
    }

    #[test]
    fn without_a_rule_a_failure_counts_as_in_synapse() {
        let policy = Policy::resolve(&[], &[], spec("on_create_room"));
        let then = policy.then(FailureKind::Panicked);
        assert_eq!(then, Then::Synapse);
        assert_eq!(
            Effect::of(then, OnFailure::Deny),
            Effect::Deny(Denial::new("M_UNKNOWN"))
        );
    }
}
