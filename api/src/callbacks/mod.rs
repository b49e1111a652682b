//! Every callback of Synapse 1.163, and one extension: a file for each category, a type for each callback.

mod account_data;
mod account_validity;
mod background_update_controller;
mod federation;
mod media_repository;
mod password_auth_provider;
mod presence_router;
mod ratelimit;
mod spam_checker;
mod third_party_rules;
mod unsigned;

pub use account_data::*;
pub use account_validity::*;
pub use background_update_controller::*;
pub use federation::*;
pub use media_repository::*;
pub use password_auth_provider::*;
pub use presence_router::*;
pub use ratelimit::*;
pub use spam_checker::*;
pub use third_party_rules::*;
pub use unsigned::*;

use ruma_common::{OwnedUserId, UserId};

use crate::callback::{CallbackVisitor, Category};
use crate::types::{Event, Requester};

/// The number of callbacks of each category, in the order of [`Category::ALL`].
const COUNTS: [usize; 11] = [
    spam_checker::COUNT,
    third_party_rules::COUNT,
    account_validity::COUNT,
    password_auth_provider::COUNT,
    presence_router::COUNT,
    background_update_controller::COUNT,
    account_data::COUNT,
    unsigned::COUNT,
    media_repository::COUNT,
    ratelimit::COUNT,
    federation::COUNT,
];

/// The number of all callbacks.
pub(crate) const COUNT: usize = first_index(COUNTS.len());

/// The index of the first callback of the category at this position.
const fn first_index(category: usize) -> usize {
    let (mut index, mut position) = (0, 0);
    while position < category {
        index += COUNTS[position];
        position += 1;
    }
    index
}

impl Category {
    pub(crate) const fn first_index(self) -> usize {
        first_index(self as usize)
    }
}

pub(crate) fn visit_all<V: CallbackVisitor>(visitor: &mut V) {
    spam_checker::visit(visitor);
    third_party_rules::visit(visitor);
    account_validity::visit(visitor);
    password_auth_provider::visit(visitor);
    presence_router::visit(visitor);
    background_update_controller::visit(visitor);
    account_data::visit(visitor);
    unsigned::visit(visitor);
    media_repository::visit(visitor);
    ratelimit::visit(visitor);
    federation::visit(visitor);
}

/// Declares a category: its callbacks as types with their metadata, the typed set of functions that a module registers,
/// and the method of `ModuleApi` that registers it. `by` names the argument that says who acts, `lazy` one that may stay with
/// the caller, `later` which work for later an answer may hold.
macro_rules! category {
    (
        $(#[$category_meta:meta])*
        $category:ident, $set:ident, $register:ident;
        $(
            $(#[$meta:meta])*
            $name:ident, $method:ident, $since:literal, $on_failure:ident, $rule:ident $(<$answer:ty>)? $(=> $outcome:ty)?
            $([$custom:ident])? $(, by $acting:ident)? $(, lazy $lazy:ident)? $(, later $later:ident)?
            {
                $($(#[$arg_meta:meta])* $arg:ident $([$optional:ident])? : $type:ty,)*
            }
        )+
    ) => {
        use crate::callback::{ArgSpec, Callback, CallbackSpec, Category, CallbackVisitor};
        use crate::registration::{CallbackSet, RegistrationError};

        enum Position { $($name,)+ Count }

        pub(super) const COUNT: usize = Position::Count as usize;

        pub(super) fn visit<V: CallbackVisitor>(visitor: &mut V) {
            $(<$name as Callback>::visit(visitor);)+
        }

        $(
            crate::json::json_object! {
                $(#[$meta])*
                $name {
                    $($(#[$arg_meta])* $arg $([$optional])? : $type,)*
                }
            }

            impl Callback for $name {
                category!(@rule $rule $(<$answer>)? $(=> $outcome)?);

                const SPEC: CallbackSpec = CallbackSpec {
                    name: stringify!($method),
                    category: Category::$category,
                    since: $since,
                    combine: <crate::callback::rule::$rule as crate::callback::CombineRule>::COMBINE,
                    on_failure: crate::failure::OnFailure::$on_failure,
                    args: &[$(ArgSpec {
                        name: stringify!($arg),
                        r#type: <$type as crate::json::FromJson>::TYPE,
                        optional: category!(@optional $($optional)?),
                    },)*],
                    acting: category!(@name $($acting)?),
                };
                const INDEX: usize = Category::$category.first_index() + Position::$name as usize;

                $(fn acting_user(&self) -> Option<&ruma_common::UserId> {
                    crate::callbacks::Acting::user(&self.$acting)
                })?

                $(fn connect(
                    &mut self,
                    source: Option<&std::sync::Arc<dyn crate::ArgSource>>,
                ) -> Result<(), crate::JsonError> {
                    crate::lazy::LazyArg::connect(&mut self.$lazy, source, stringify!($lazy))
                })?

                $(fn later(&self, outcome: &Self::Outcome) -> Option<crate::Later> {
                    crate::Later::$later(self, outcome.as_ref()?)
                })?
            }
        )+

        $(#[$category_meta])*
        #[derive(Debug)]
        pub struct $set<M> {
            pub(crate) functions: CallbackSet<M>,
        }

        impl<M> Default for $set<M> {
            fn default() -> Self {
                Self { functions: CallbackSet::default() }
            }
        }

        impl<M: Send + Sync + 'static> $set<M> {
            /// No callbacks yet.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            $(category!(@function $([$custom])? $name, $method);)+
        }

        impl<M: Send + Sync + 'static> crate::ModuleApi<M> {
            #[doc = concat!("Registers callbacks of the category `", stringify!($category), "`.")]
            ///
            /// A module may call this several times; every registration takes its place in the callbacks' routes.
            ///
            /// # Errors
            /// The constructor has returned already, or callbacks that belong together are not all there.
            pub fn $register(&self, callbacks: $set<M>) -> Result<(), RegistrationError> {
                self.register_callbacks(callbacks.functions)
            }
        }
    };

    (@name) => { None };
    (@name $acting:ident) => { Some(stringify!($acting)) };

    (@optional) => { false };
    (@optional optional) => { true };

    (@function [custom] $name:ident, $method:ident) => {};
    (@function $name:ident, $method:ident) => {
        #[doc = concat!("Answers [`", stringify!($name), "`] with this function of the module.")]
        #[must_use]
        pub fn $method<F>(mut self, function: F) -> Self
        where
            F: AsyncFn(&M, &$name) -> Result<<$name as Callback>::Answer, crate::ModuleError> + Send + Sync + 'static,
        {
            self.functions = self.functions.answer::<$name, F>(function);
            self
        }
    };

    (@rule FirstDeny<$answer:ty>) => {
        type Rule = crate::callback::rule::FirstDeny;
        type Answer = $answer;
        type Outcome = $answer;

        fn visit<V: CallbackVisitor>(visitor: &mut V) {
            visitor.first_deny::<Self>();
        }

        category!(@verdict);
    };
    (@rule FirstAnswer<$answer:ty>) => {
        type Rule = crate::callback::rule::FirstAnswer;
        type Answer = Option<$answer>;
        type Outcome = Option<$answer>;

        fn visit<V: CallbackVisitor>(visitor: &mut V) {
            visitor.first_answer::<Self, $answer>();
        }

        fn read_answer(answer: serde_json::Value) -> Result<Self::Answer, crate::JsonError> {
            crate::callback::read_value(answer)
        }

        category!(@value);
    };
    (@rule Rewrite<$answer:ty> => $outcome:ty) => {
        type Rule = crate::callback::rule::Rewrite;
        type Answer = $answer;
        type Outcome = $outcome;

        fn visit<V: CallbackVisitor>(visitor: &mut V) {
            visitor.rewrite::<Self>();
        }

        category!(@verdict);
    };
    (@rule Merge<$answer:ty>) => {
        type Rule = crate::callback::rule::Merge;
        type Answer = $answer;
        type Outcome = Option<$answer>;

        fn visit<V: CallbackVisitor>(visitor: &mut V) {
            visitor.merge::<Self>();
        }

        fn read_answer(answer: serde_json::Value) -> Result<Self::Answer, crate::JsonError> {
            crate::callback::read_required_value(answer)
        }

        category!(@value);
    };
    (@rule Notify) => {
        type Rule = crate::callback::rule::Notify;
        type Answer = ();
        type Outcome = ();

        fn visit<V: CallbackVisitor>(visitor: &mut V) {
            visitor.notify::<Self>();
        }

        fn read_answer(answer: serde_json::Value) -> Result<Self::Answer, crate::JsonError> {
            crate::callback::read_value::<crate::json::Nothing>(answer).map(drop)
        }

        category!(@value);
    };
    (@rule SingleOwner<$answer:ty>) => {
        type Rule = crate::callback::rule::SingleOwner;
        type Answer = $answer;
        type Outcome = Option<$answer>;

        fn visit<V: CallbackVisitor>(visitor: &mut V) {
            visitor.single_owner::<Self>();
        }

        fn read_answer(answer: serde_json::Value) -> Result<Self::Answer, crate::JsonError> {
            <$answer as crate::callbacks::OwnerAnswer>::read(answer)
        }

        category!(@value);
    };
    (@verdict) => {
        fn read_answer(answer: serde_json::Value) -> Result<Self::Answer, crate::JsonError> {
            crate::json::FromJson::from_json(answer, &crate::json::JsonPath::Root)
        }

        fn outcome_json(outcome: &Self::Outcome) -> serde_json::Value {
            serde_json::json!(outcome)
        }
    };
    (@value) => {
        fn outcome_json(outcome: &Self::Outcome) -> serde_json::Value {
            serde_json::json!({"value": outcome})
        }
    };
}
use category;

/// An argument that says who acts.
trait Acting {
    /// The user; `None` if the argument names none.
    fn user(&self) -> Option<&UserId>;
}

impl Acting for OwnedUserId {
    fn user(&self) -> Option<&UserId> {
        Some(self)
    }
}

impl Acting for Option<OwnedUserId> {
    fn user(&self) -> Option<&UserId> {
        self.as_deref()
    }
}

impl Acting for Event {
    fn user(&self) -> Option<&UserId> {
        Some(&self.sender)
    }
}

impl Acting for Requester {
    fn user(&self) -> Option<&UserId> {
        Some(&self.user_id)
    }
}

/// An answer of a `single_owner` callback.
pub(crate) trait OwnerAnswer: Sized {
    fn read(answer: serde_json::Value) -> Result<Self, crate::JsonError>;
}

impl OwnerAnswer for () {
    fn read(answer: serde_json::Value) -> Result<Self, crate::JsonError> {
        crate::callback::read_value::<crate::json::Nothing>(answer).map(drop)
    }
}

impl<T: crate::FromJson> OwnerAnswer for T {
    fn read(answer: serde_json::Value) -> Result<Self, crate::JsonError> {
        crate::callback::read_required_value(answer)
    }
}
