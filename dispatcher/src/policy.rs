//! What a failure counts as: an operator's rules, then what Synapse would do. Pure.

use std::collections::BTreeSet;

use ganglion_api::{
    Callback, CallbackSpec, Category, Denial, ErrorCode, FailureKind, MatrixError, OnFailure, ServerName, Then,
};

/// On whose behalf a callback is asked, as far as the homeserver's own name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The acting user is of this server, or there is none.
    Local,
    /// The acting user is of another server.
    Federated,
}

impl Origin {
    /// Every origin.
    pub const ALL: [Self; 2] = [Self::Local, Self::Federated];

    /// The word in config.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Federated => "federated",
        }
    }

    /// The origin with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|origin| origin.as_str() == word)
    }

    /// The origin of a call, seen from the server with this name.
    pub fn of<C: Callback>(args: &C, server_name: &ServerName) -> Self {
        match args.acting_user() {
            Some(user) if user.server_name() != server_name => Self::Federated,
            _ => Self::Local,
        }
    }

    /// The origins that calls of a callback can have.
    #[must_use]
    pub fn possible(callback: &CallbackSpec) -> &'static [Self] {
        if callback.acting.is_some() {
            &Self::ALL
        } else {
            &[Self::Local]
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
    /// The origin; `None` matches both.
    pub origin: Option<Origin>,
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
            origin: None,
            then,
        }
    }

    /// Whether what the rule names is this callback.
    pub(crate) fn names(&self, callback: &CallbackSpec) -> bool {
        holds(&self.callbacks, &callback.name) && holds(&self.categories, &callback.category)
    }

    /// Whether what the rule names is this failure, whatever it counts as.
    pub(crate) fn reaches(&self, callback: &CallbackSpec, kind: FailureKind, origin: Origin) -> bool {
        self.names(callback) && holds(&self.kinds, &kind) && self.origin.is_none_or(|named| named == origin)
    }

    /// Whether the rule can decide in this callback. Without a deny verdict there is nothing to deny with: the next rule
    /// decides.
    pub(crate) fn has_meaning(&self, callback: &CallbackSpec) -> bool {
        self.then != Then::Deny || callback.combine.has_deny_verdict()
    }
}

fn holds<T: Ord>(set: &BTreeSet<T>, value: &T) -> bool {
    set.is_empty() || set.contains(value)
}

/// The rules that apply to one module and one callback, resolved for every kind of failure and both origins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy([[Then; Origin::ALL.len()]; FailureKind::ALL.len()]);

impl Policy {
    /// Resolves rules: the first that matches decides, the module's before the global ones, else `synapse`.
    #[must_use]
    pub fn resolve(module: &[FailureRule], global: &[FailureRule], callback: &CallbackSpec) -> Self {
        let then = |kind, origin| {
            let mut rules = module.iter().chain(global).filter(|rule| rule.has_meaning(callback));
            rules
                .find(|rule| rule.reaches(callback, kind, origin))
                .map_or(Then::Synapse, |rule| rule.then)
        };
        Self(FailureKind::ALL.map(|kind| Origin::ALL.map(|origin| then(kind, origin))))
    }

    /// What this kind of failure counts as in a call of this origin.
    #[must_use]
    pub fn then(&self, kind: FailureKind, origin: Origin) -> Then {
        self.0[kind as usize][origin as usize]
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
    use ganglion_api::{CheckCanShutdownRoom, JsonObject, OnUpdate, RoomId, UserId, UserMayCreateRoom};

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
        for origin in Origin::ALL {
            assert_eq!(policy.then(FailureKind::Panicked, origin), Then::Deny);
            assert_eq!(policy.then(FailureKind::Overloaded, origin), Then::Pass);
        }
    }

    #[test]
    fn a_rule_with_an_origin_leaves_the_other_one_to_the_next_rule() {
        let module = [FailureRule {
            origin: Some(Origin::Federated),
            ..FailureRule::all(Then::Pass)
        }];
        let global = [FailureRule::all(Then::Deny)];
        let policy = Policy::resolve(&module, &global, spec("check_event_for_spam"));
        assert_eq!(policy.then(FailureKind::Panicked, Origin::Federated), Then::Pass);
        assert_eq!(policy.then(FailureKind::Panicked, Origin::Local), Then::Deny);
    }

    #[test]
    fn the_origin_is_the_server_of_the_acting_user_and_local_without_one() {
        let own = ServerName::parse("example.com").unwrap();
        let user = |id: &str| UserId::parse(id).unwrap();
        let origin = |id: &str| Origin::of(&UserMayCreateRoom::new(user(id), JsonObject::new()), &own);
        assert_eq!(origin("@a:example.com"), Origin::Local);
        assert_eq!(origin("@a:example.com:8448"), Origin::Federated);
        assert_eq!(origin("@example.com:evil.example"), Origin::Federated);
        let shutdown = |by| CheckCanShutdownRoom::new(by, RoomId::parse("!r:evil.example").unwrap());
        assert_eq!(Origin::of(&shutdown(None), &own), Origin::Local);
        assert_eq!(Origin::of(&shutdown(Some(user("@a:b"))), &own), Origin::Federated);
        let update = OnUpdate::new("update", "database", false);
        assert_eq!(Origin::of(&update, &own), Origin::Local);
    }

    #[test]
    fn a_deny_rule_is_passed_over_where_nothing_can_be_denied() {
        let module = [FailureRule::all(Then::Deny), FailureRule::all(Then::Error)];
        assert_eq!(
            Policy::resolve(&module, &[], spec("is_user_expired")).then(FailureKind::Panicked, Origin::Local),
            Then::Error
        );
        assert_eq!(
            Policy::resolve(&module, &[], spec("on_create_room")).then(FailureKind::Panicked, Origin::Local),
            Then::Deny
        );
    }

    #[test]
    fn without_a_rule_a_failure_counts_as_in_synapse() {
        let policy = Policy::resolve(&[], &[], spec("on_create_room"));
        let then = policy.then(FailureKind::Panicked, Origin::Local);
        assert_eq!(then, Then::Synapse);
        assert_eq!(
            Effect::of(then, OnFailure::Deny),
            Effect::Deny(Denial::new("M_UNKNOWN"))
        );
    }
}
