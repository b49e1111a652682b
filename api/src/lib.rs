//! What the author of a module imports: the [`Module`] trait, [`ModuleApi`], a type for every [callback](callbacks),
//! [verdicts](Verdict) and failures.
//!
//! A module is a type with a constructor that registers functions; see [`Module`] for a whole one.
//!
//! # Core concepts
//! - A [`Callback`] type holds the arguments of one question of the homeserver, and its metadata as constants.
//! - A gating callback is answered with a verdict: pass (others may still deny) or deny with a [`Denial`].
//! - A function that returns an error gave no answer: that is a [failure](FailureKind), which meets the operator's
//!   failure policy. A [`MatrixError`] is for the client.
//! - Functions borrow the module's one instance. Their futures need not be `Send`: a call stays on its thread.
//!
//! This crate has no runtime: neither tokio nor actix.

mod cached;
mod callback;
pub mod callbacks;
mod config;
mod continuation;
mod failure;
mod homeserver;
mod json;
mod lazy;
mod module;
mod module_api;
mod registration;
mod registry;
mod resource;
#[cfg(feature = "testing")]
pub mod testing;
mod types;
mod verdict;
pub mod wire;

pub use cached::{
    AsKeyPart, CacheArgs, CacheBatch, CacheChanges, CacheKey, CacheOptions, CacheStore, Cached, CachedValue, Computed,
    Fill, KeyLengthError, KeyPart,
};
pub use callback::{
    ArgSpec, Callback, CallbackSpec, CallbackVisitor, Candidate, Category, Combine, CombineRule, Merging, Rewriting,
    Rewritten, reference, rule, spec, visit_all,
};
pub use callbacks::*;
pub use config::read as read_config;
pub use continuation::{Continuation, Continued, Continuing, Later, LoginContinuation, UpdateContinuation};
pub use failure::{CallFailure, FailureKind, MatrixError, ModuleError, OnFailure, Then};
pub use homeserver::{Homeserver, HomeserverError, NotConnected};
pub use json::{ArrayItem, Fields, FromJson, JsonError, JsonObject, JsonPath, MAX_INT};
pub use lazy::{ArgSource, MediaChunk, StatePage};
pub use module::{ConfigError, Module, NoConfig};
pub use module_api::{
    BackgroundCall, BackgroundTask, CancelBackgroundCall, ModuleApi, ModuleHost, Registered, Schedule,
};
pub use registration::{CallbackSet, Concern, LocalFuture, LoginType, Registration, RegistrationError, Subscriber};
pub use registry::{CreateError, Created, ModuleFactory, Registry};
pub use resource::{
    RECOMMENDED_NAMESPACE, ResourcePath, WebRequest, WebResource, WebResponse, add_cors_headers, is_at_or_below,
    is_reserved, json_response, query_parameter,
};
pub use types::*;
pub use verdict::{
    Denial, DenialBody, Denies, ErrorCode, EventVerdict, Gate, RegistrationVerdict, RoomOutcome, RoomVerdict, Verdict,
    VerdictKind,
};

/// The types of web requests and responses.
pub use http;
/// Matrix identifiers, from ruma.
pub use ruma_common::{
    OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, ServerName, UserId,
};
