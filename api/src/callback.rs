//! What a callback is: one type each, with its metadata as constants.

use std::fmt;
use std::sync::Arc;

use ruma_common::UserId;
use serde::Serialize;
use serde_json::Value;

use crate::callbacks;
use crate::continuation::Later;
use crate::failure::OnFailure;
use crate::json::{FromJson, JsonError, JsonPath};
use crate::lazy::ArgSource;
use crate::verdict::{Denies, Gate};

/// The group that a callback is registered under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// `register_spam_checker_callbacks`.
    SpamChecker,
    /// `register_third_party_rules_callbacks`.
    ThirdPartyRules,
    /// `register_account_validity_callbacks`.
    AccountValidity,
    /// `register_password_auth_provider_callbacks`.
    PasswordAuthProvider,
    /// `register_presence_router_callbacks`.
    PresenceRouter,
    /// `register_background_update_controller_callbacks`.
    BackgroundUpdateController,
    /// `register_account_data_callbacks`.
    AccountData,
    /// `register_add_extra_fields_to_unsigned_client_event_callbacks`.
    AddExtraFieldsToUnsignedClientEvent,
    /// `register_media_repository_callbacks`.
    MediaRepository,
    /// `register_ratelimit_callbacks`.
    Ratelimit,
    /// `register_federation_callbacks`.
    Federation,
}

impl Category {
    /// Every category, in the order of the reference.
    pub const ALL: [Self; 11] = [
        Self::SpamChecker,
        Self::ThirdPartyRules,
        Self::AccountValidity,
        Self::PasswordAuthProvider,
        Self::PresenceRouter,
        Self::BackgroundUpdateController,
        Self::AccountData,
        Self::AddExtraFieldsToUnsignedClientEvent,
        Self::MediaRepository,
        Self::Ratelimit,
        Self::Federation,
    ];

    /// The word in config and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SpamChecker => "spam_checker",
            Self::ThirdPartyRules => "third_party_rules",
            Self::AccountValidity => "account_validity",
            Self::PasswordAuthProvider => "password_auth_provider",
            Self::PresenceRouter => "presence_router",
            Self::BackgroundUpdateController => "background_update_controller",
            Self::AccountData => "account_data",
            Self::AddExtraFieldsToUnsignedClientEvent => "add_extra_fields_to_unsigned_client_event",
            Self::MediaRepository => "media_repository",
            Self::Ratelimit => "ratelimit",
            Self::Federation => "federation",
        }
    }

    /// The category with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|category| category.as_str() == word)
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the answers of several modules become one outcome, as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// In order until one denies.
    FirstDeny,
    /// In order until one answers.
    FirstAnswer,
    /// In order, each may change what is decided about.
    Rewrite,
    /// All contribute.
    Merge,
    /// All are told.
    Notify,
    /// One module owns the callback.
    SingleOwner,
}

impl Combine {
    /// The word of the reference.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstDeny => "first_deny",
            Self::FirstAnswer => "first_answer",
            Self::Rewrite => "rewrite",
            Self::Merge => "merge",
            Self::Notify => "notify",
            Self::SingleOwner => "single_owner",
        }
    }

    /// Whether an outcome can deny; elsewhere a `deny` rule of a failure policy has no meaning.
    #[must_use]
    pub const fn has_deny_verdict(self) -> bool {
        matches!(self, Self::FirstDeny | Self::Rewrite)
    }
}

/// A combine rule as a type, which a dispatcher has a fold for.
pub trait CombineRule {
    /// The rule as data.
    const COMBINE: Combine;
}

macro_rules! combine_rules {
    ($($name:ident)+) => {
        /// The combine rules as types.
        pub mod rule {
            use super::{Combine, CombineRule};

            $(
                #[doc = concat!("[`Combine::", stringify!($name), "`] as a type.")]
                #[derive(Debug)]
                pub enum $name {}

                impl CombineRule for $name {
                    const COMBINE: Combine = Combine::$name;
                }
            )+
        }
    };
}
combine_rules! { FirstDeny FirstAnswer Rewrite Merge Notify SingleOwner }

/// One argument of a callback, for the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ArgSpec {
    /// The name; arguments stand in Synapse's positional order.
    pub name: &'static str,
    /// The type word.
    pub r#type: &'static str,
    /// Whether it may be absent or null.
    pub optional: bool,
}

/// The metadata of a callback, for the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CallbackSpec {
    /// The name.
    pub name: &'static str,
    /// The category.
    pub category: Category,
    /// The version of Synapse that brought it; `fork` where upstream has none.
    pub since: &'static str,
    /// The combine rule.
    pub combine: Combine,
    /// What `synapse` means as a failure policy.
    #[serde(serialize_with = "on_failure_word")]
    pub on_failure: OnFailure,
    /// The arguments.
    pub args: &'static [ArgSpec],
    /// The argument that says who acts, see [`Callback::acting_user`]; not part of the printed reference.
    #[serde(skip)]
    pub acting: Option<&'static str>,
}

fn on_failure_word<S: serde::Serializer>(on_failure: &OnFailure, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(on_failure.as_str())
}

/// An operation that the homeserver asks about. The type itself holds the arguments.
pub trait Callback: FromJson + Serialize + fmt::Debug + Clone + Send + Sync + Sized + 'static {
    /// How answers become an outcome.
    type Rule: CombineRule;
    /// What one module returns.
    type Answer: fmt::Debug + Clone + Send + Sync + 'static;
    /// What the dispatcher concludes.
    type Outcome: fmt::Debug + Clone + PartialEq + Send + 'static;

    /// The metadata.
    const SPEC: CallbackSpec;
    /// The position in the reference, a small number for tables.
    const INDEX: usize;

    /// Who acts: the sender of an event, who makes a request, or whom the operation is about where it names nobody else.
    /// `None` if the arguments name no such user, as for every callback whose [`CallbackSpec::acting`] is `None`.
    fn acting_user(&self) -> Option<&UserId> {
        None
    }

    /// Tells a large argument where its contents are, if the caller kept them and gave a handle.
    ///
    /// # Errors
    /// It did, and there is nowhere to ask.
    fn connect(&mut self, source: Option<&Arc<dyn ArgSource>>) -> Result<(), JsonError> {
        let _ = source;
        Ok(())
    }

    /// What the outcome wants done later.
    fn later(&self, outcome: &Self::Outcome) -> Option<Later> {
        let _ = outcome;
        None
    }

    /// Shows the type to a visitor, which learns the combine rule's bounds by the method that is called.
    fn visit<V: CallbackVisitor>(visitor: &mut V);

    /// Reads an answer that has the form of an outcome, for example `{"verdict":"deny"}` or `{"value":true}`.
    ///
    /// # Errors
    /// It is no answer of this callback.
    fn read_answer(answer: Value) -> Result<Self::Answer, JsonError>;

    /// The outcome as JSON.
    fn outcome_json(outcome: &Self::Outcome) -> Value;
}

/// Work to be done for every callback type, with the bounds that its combine rule guarantees.
pub trait CallbackVisitor {
    /// A callback whose first denial wins.
    fn first_deny<C>(&mut self)
    where
        C: Callback<Rule = rule::FirstDeny, Outcome = <C as Callback>::Answer>,
        C::Answer: Gate + PartialEq;
    /// A callback whose first answer wins.
    fn first_answer<C, T>(&mut self)
    where
        C: Callback<Rule = rule::FirstAnswer, Answer = Option<T>, Outcome = Option<T>>,
        T: Candidate;
    /// A callback whose modules may change what is decided about.
    fn rewrite<C: Rewriting>(&mut self);
    /// A callback that collects contributions.
    fn merge<C>(&mut self)
    where
        C: Callback<Rule = rule::Merge, Outcome = Option<<C as Callback>::Answer>>,
        C::Answer: Merging;
    /// A notification.
    fn notify<C: Callback<Rule = rule::Notify, Answer = (), Outcome = ()>>(&mut self);
    /// A callback that one module owns.
    fn single_owner<C>(&mut self)
    where
        C: Callback<Rule = rule::SingleOwner, Outcome = Option<<C as Callback>::Answer>>;
}

/// An answer of a `first_answer` callback.
pub trait Candidate: Sized {
    /// The answer in its final form, or `None` if it counts as no answer.
    fn settle(self) -> Option<Self> {
        Some(self)
    }
}

impl Candidate for String {}

/// An answer of a `merge` callback.
pub trait Merging: Sized {
    /// Adds a later module's answer.
    fn absorb(&mut self, next: Self);

    /// Whether no later answer can change it.
    fn is_final(&self) -> bool {
        false
    }

    /// Parts that were not understood, to be warned about.
    fn take_dropped(&mut self) -> Vec<String> {
        Vec::new()
    }
}

impl Merging for crate::JsonObject {
    /// The last module that gives a key wins it.
    fn absorb(&mut self, next: Self) {
        self.extend(next);
    }
}

/// What an answer of a `rewrite` callback does.
#[derive(Debug, Clone, PartialEq)]
pub enum Rewritten<O> {
    /// Nothing; the next module is asked.
    Unchanged,
    /// The arguments were edited; the next module is asked with them.
    Edited,
    /// The chain ends with this outcome.
    Ended(O),
}

/// A callback with the `rewrite` rule.
pub trait Rewriting: Callback<Rule = rule::Rewrite, Answer: Gate, Outcome: Denies> {
    /// Applies a module's answer to the arguments.
    fn rewrite(&mut self, answer: Self::Answer) -> Rewritten<Self::Outcome>;
    /// The outcome if nobody denied or replaced, from the arguments as they are now.
    fn settled(&self) -> Self::Outcome;
}

/// Shows every callback type to a visitor, in the order of the reference.
pub fn visit_all<V: CallbackVisitor>(visitor: &mut V) {
    callbacks::visit_all(visitor);
}

struct Specs(Vec<CallbackSpec>);

/// Implements [`CallbackVisitor`] for work that is the same for every combine rule: the expression is evaluated with
/// `$callback` bound to the callback's type.
#[macro_export]
macro_rules! visit_each_callback {
    ($visitor:ty, |$self:ident, $callback:ident| $work:expr) => {
        impl $crate::CallbackVisitor for $visitor {
            fn first_deny<$callback>(&mut $self)
            where
                $callback: $crate::Callback<
                        Rule = $crate::rule::FirstDeny,
                        Outcome = <$callback as $crate::Callback>::Answer,
                    >,
                $callback::Answer: $crate::Gate + PartialEq,
            {
                $work
            }

            fn first_answer<$callback, T>(&mut $self)
            where
                $callback: $crate::Callback<Rule = $crate::rule::FirstAnswer, Answer = Option<T>, Outcome = Option<T>>,
                T: $crate::Candidate,
            {
                $work
            }

            fn rewrite<$callback: $crate::Rewriting>(&mut $self) {
                $work
            }

            fn merge<$callback>(&mut $self)
            where
                $callback: $crate::Callback<
                        Rule = $crate::rule::Merge,
                        Outcome = Option<<$callback as $crate::Callback>::Answer>,
                    >,
                $callback::Answer: $crate::Merging,
            {
                $work
            }

            fn notify<$callback: $crate::Callback<Rule = $crate::rule::Notify, Answer = (), Outcome = ()>>(&mut $self) {
                $work
            }

            fn single_owner<$callback>(&mut $self)
            where
                $callback: $crate::Callback<
                        Rule = $crate::rule::SingleOwner,
                        Outcome = Option<<$callback as $crate::Callback>::Answer>,
                    >,
            {
                $work
            }
        }
    };
}

visit_each_callback!(Specs, |self, C| self.0.push(C::SPEC));

/// The metadata of every callback, in the order of the reference: [`Callback::INDEX`] is the position.
#[must_use]
pub fn reference() -> &'static [CallbackSpec] {
    static REFERENCE: std::sync::OnceLock<Vec<CallbackSpec>> = std::sync::OnceLock::new();
    REFERENCE.get_or_init(|| {
        let mut specs = Specs(Vec::with_capacity(callbacks::COUNT));
        visit_all(&mut specs);
        specs.0
    })
}

/// The metadata of the callback with this name.
#[must_use]
pub fn spec(name: &str) -> Option<&'static CallbackSpec> {
    reference().iter().find(|spec| spec.name == name)
}

/// Reads the answer of a `{"value": …}` form; absent is null.
pub(crate) fn read_value<T: FromJson>(answer: Value) -> Result<Option<T>, JsonError> {
    crate::json::Fields::new(answer, &JsonPath::Root)?.optional("value")
}

/// Reads the answer of a `{"value": …}` form that must not be null.
pub(crate) fn read_required_value<T: FromJson>(answer: Value) -> Result<T, JsonError> {
    crate::json::Fields::new(answer, &JsonPath::Root)?.required("value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_callback_stands_at_its_index() {
        struct Indices(Vec<(usize, &'static str)>);
        visit_each_callback!(Indices, |self, C| self.0.push((C::INDEX, C::SPEC.name)));
        let mut indices = Indices(Vec::new());
        visit_all(&mut indices);
        for (position, (index, name)) in indices.0.iter().enumerate() {
            assert_eq!(*index, position, "{name}");
        }
        assert_eq!(indices.0.len(), callbacks::COUNT);
    }
}
