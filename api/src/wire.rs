//! The messages of the wire, by which other processes ask Ganglion and are asked by it: JSON-RPC 2.0, one message a frame.
//!
//! `docs/wire.md` says what they mean. Here is only their form; who sends what when is the business of both ends.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::registration::LoginType;

/// The version of the protocol that is spoken here.
pub const VERSION: u32 = 1;

/// The least `max_frame` that a side may have, in bytes.
pub const MIN_FRAME: usize = 64 << 10;

/// How many requests of one connection may be in flight.
pub const MAX_REQUESTS: usize = 4096;

/// How many requests Ganglion asks a peer to have in flight at most.
pub const WINDOW: usize = 128;

/// The largest `id`.
pub const MAX_ID: u64 = (1 << 53) - 1;

/// Names of methods.
pub mod method {
    /// The first request of who connects: [`Hello`](super::Hello), answered with [`Welcome`](super::Welcome).
    pub const HELLO: &str = "hello";
    /// A notification of Ganglion: [`Announcement`](super::Announcement).
    pub const ANNOUNCE: &str = "announce";
    /// [`Ask`](super::Ask), answered with a decision.
    pub const CALLBACK: &str = "callback";
    /// [`GoOn`](super::GoOn), answered with a decision.
    pub const CONTINUE: &str = "continue";
    /// [`StateGet`](super::StateGet), answered with [`StateGot`](super::StateGot).
    pub const STATE_GET: &str = "state.get";
    /// [`StateFrom`](super::StateFrom), answered with [`StateEventsPage`](super::StateEventsPage).
    pub const STATE_PAGE: &str = "state.page";
    /// [`MediaRead`](super::MediaRead), answered with [`MediaPart`](super::MediaPart).
    pub const MEDIA_READ: &str = "media.read";
    /// [`ModuleApiCall`](super::ModuleApiCall), answered with any JSON.
    pub const MODULE_API: &str = "module_api";
    /// A notification: [`Cancel`](super::Cancel).
    pub const CANCEL: &str = "cancel";
    /// A notification: [`Goodbye`](super::Goodbye).
    pub const GOODBYE: &str = "goodbye";
}

/// Numbers of errors.
pub mod code {
    /// The frame is not JSON.
    pub const NOT_JSON: i64 = -32700;
    /// It is no JSON-RPC message, or comes at the wrong time.
    pub const INVALID_REQUEST: i64 = -32600;
    /// There is no such method.
    pub const UNKNOWN_METHOD: i64 = -32601;
    /// The params are not the method's.
    pub const INVALID_PARAMS: i64 = -32602;
    /// Something went wrong inside.
    pub const INTERNAL: i64 = -32603;
    /// The answer would have been larger than the other side accepts.
    pub const TOO_LARGE: i64 = -32000;
    /// No token, or another one.
    pub const UNAUTHORIZED: i64 = -32001;
    /// Another version of the protocol.
    pub const OTHER_VERSION: i64 = -32002;
    /// Another homeserver.
    pub const OTHER_SERVER: i64 = -32003;
    /// The handle or the token is gone.
    pub const GONE: i64 = -32004;
    /// The homeserver answered with a Matrix error.
    pub const MATRIX: i64 = -32005;
    /// The side that was asked stops.
    pub const STOPPING: i64 = -32006;
    /// Too many requests are in flight.
    pub const TOO_MANY: i64 = -32007;
    /// The request was cancelled.
    pub const CANCELLED: i64 = -32800;
}

/// What a side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Asks callbacks for a homeserver, and answers for it.
    Bridge,
    /// Asks callbacks, and is asked nothing.
    Client,
    /// Ganglion.
    Ganglion,
}

impl Role {
    /// The word in JSON and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Client => "client",
            Self::Ganglion => "ganglion",
        }
    }
}

/// A secret of the hello, which is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WireToken(pub String);

impl fmt::Debug for WireToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WireToken(secret)")
    }
}

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol.
    pub version: u32,
    /// What it is.
    pub role: Role,
    /// What it can be asked.
    #[serde(default)]
    pub features: Vec<String>,
    /// The homeserver.
    pub server_name: String,
    /// The homeserver's process; `None` is the main one.
    #[serde(default)]
    pub worker_name: Option<String>,
    /// For the log.
    #[serde(default)]
    pub software: String,
    /// The largest frame that it accepts.
    pub max_frame: usize,
    /// The token.
    #[serde(default)]
    pub token: Option<WireToken>,
}

/// Just the version of a hello: what else stands in one of another version is not known.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct HelloVersion {
    /// The version of the protocol.
    pub version: u32,
}

/// The answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version of the protocol.
    pub version: u32,
    /// [`Role::Ganglion`].
    pub role: Role,
    /// What it can be asked.
    pub features: Vec<String>,
    /// The homeserver.
    pub server_name: String,
    /// For the log.
    pub software: String,
    /// The largest frame that it accepts.
    pub max_frame: usize,
    /// How many requests it wants to have in flight.
    pub window: usize,
    /// The longest that a callback takes, in milliseconds.
    pub deadline_ms: u64,
    /// Which callbacks somebody answers.
    #[serde(flatten)]
    pub announcement: Announcement,
}

/// Which callbacks somebody answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Their names, in the order of the reference.
    pub callbacks: Vec<Cow<'static, str>>,
    /// The login types of `auth_checkers`.
    pub login_types: Vec<LoginType>,
}

/// A callback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ask<'a> {
    /// Its name.
    #[serde(borrow)]
    pub callback: Cow<'a, str>,
    /// Its arguments.
    pub args: Value,
    /// How long the answer is of use, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The `call` of the request that caused it.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub below: Option<Cow<'a, str>>,
    /// Whether the decision shall have its steps.
    #[serde(default = "yes")]
    pub steps: bool,
}

fn yes() -> bool {
    true
}

/// Work for later goes on. Its input stands beside these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoOn {
    /// The callback whose outcome had the token.
    pub callback: String,
    /// The token.
    pub token: String,
    /// How long the answer is of use, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Everything else: the input is there under its key.
    #[serde(flatten)]
    pub input: crate::JsonObject,
}

/// Asks for an event of a room's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateGet<'a> {
    /// The handle.
    pub handle: Cow<'a, str>,
    /// The type.
    pub r#type: Cow<'a, str>,
    /// The state key.
    pub state_key: Cow<'a, str>,
}

/// The event, if there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateGot {
    /// It.
    pub event: Value,
}

/// Asks for a part of a room's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFrom<'a> {
    /// The handle.
    pub handle: Cow<'a, str>,
    /// The position.
    pub from: u64,
}

/// A part of a room's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateEventsPage {
    /// The events.
    pub events: Value,
    /// The position of the next part.
    #[serde(default)]
    pub next: Option<u64>,
}

/// Asks for a part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaRead<'a> {
    /// The handle.
    pub handle: Cow<'a, str>,
    /// Where it begins.
    pub offset: u64,
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MediaPart {
    /// The contents, in base64.
    pub chunk_base64: Value,
    /// Whether none follows.
    pub end: bool,
}

/// Asks for something of the homeserver's module API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleApiCall<'a> {
    /// The method.
    pub method: Cow<'a, str>,
    /// Its arguments.
    pub args: Value,
    /// How long the answer is of use, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The module's call that it is for.
    pub call: Option<Cow<'a, str>>,
    /// How deep that is.
    pub depth: usize,
}

/// Nobody waits for an answer any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The request.
    pub id: u64,
}

/// The sender begins nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye<'a> {
    /// Why, for the log.
    #[serde(default)]
    pub reason: Cow<'a, str>,
}

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{code} {message}")]
pub struct RpcError {
    /// One of [`code`].
    pub code: i64,
    /// For people.
    pub message: Cow<'static, str>,
    /// For programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl RpcError {
    /// An error without data.
    pub fn new(code: i64, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// Something went wrong inside; what, is in the log.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(code::INTERNAL, "internal error")
    }

    /// Adds data.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }
}

/// A message that was read; what stands in it is still to be read.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// To be answered.
    Request {
        /// Its number.
        id: u64,
        /// The method.
        method: Cow<'a, str>,
        /// The params, or nothing.
        params: Option<&'a RawValue>,
    },
    /// Not to be answered.
    Notification {
        /// The method.
        method: Cow<'a, str>,
        /// The params, or nothing.
        params: Option<&'a RawValue>,
    },
    /// The answer to the request with this number; without one, to something that was no request.
    Answer {
        /// The number.
        id: Option<u64>,
        /// The result, where nothing is null, or the error.
        result: Result<Option<&'a RawValue>, RpcError>,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(default)]
    id: Option<Value>,
    #[serde(default, borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    params: Option<&'a RawValue>,
    #[serde(default, borrow)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<RpcError>,
}

impl<'a> Incoming<'a> {
    /// Reads a frame.
    ///
    /// # Errors
    /// It is no JSON, or no message.
    pub fn read(frame: &'a [u8]) -> Result<Self, RpcError> {
        let envelope: Envelope<'a> = serde_json::from_slice(frame).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => RpcError::new(code::INVALID_REQUEST, "no JSON-RPC message"),
            _ => RpcError::new(code::NOT_JSON, "not JSON"),
        })?;
        let invalid = |what: &'static str| RpcError::new(code::INVALID_REQUEST, what);
        if envelope.jsonrpc != VERSION_OF_JSON_RPC {
            return Err(invalid("jsonrpc is not 2.0"));
        }
        let id = match &envelope.id {
            None | Some(Value::Null) => None,
            Some(id) => {
                let number = id.as_u64().filter(|id| *id <= MAX_ID);
                Some(number.ok_or_else(|| invalid("id: expected an integer from 0 to 2^53-1"))?)
            }
        };
        match (envelope.method, id) {
            (Some(method), Some(id)) => Ok(Self::Request {
                id,
                method,
                params: envelope.params,
            }),
            (Some(method), None) => Ok(Self::Notification {
                method,
                params: envelope.params,
            }),
            (None, id) => Ok(Self::Answer {
                id,
                result: envelope.error.map_or(Ok(envelope.result), Err),
            }),
        }
    }
}

const VERSION_OF_JSON_RPC: &str = "2.0";

/// A request as a frame's contents.
///
/// # Errors
/// The params cannot be written as JSON.
pub fn request(id: u64, method: &str, params: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Request<'a, P> {
        jsonrpc: &'static str,
        id: u64,
        method: &'a str,
        params: P,
    }
    serde_json::to_vec(&Request {
        jsonrpc: VERSION_OF_JSON_RPC,
        id,
        method,
        params,
    })
}

/// A notification as a frame's contents.
///
/// # Errors
/// The params cannot be written as JSON.
pub fn notification(method: &str, params: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Notification<'a, P> {
        jsonrpc: &'static str,
        method: &'a str,
        params: P,
    }
    serde_json::to_vec(&Notification {
        jsonrpc: VERSION_OF_JSON_RPC,
        method,
        params,
    })
}

/// A result as a frame's contents.
///
/// # Errors
/// The result cannot be written as JSON.
pub fn result(id: u64, result: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Answer<R> {
        jsonrpc: &'static str,
        id: u64,
        result: R,
    }
    serde_json::to_vec(&Answer {
        jsonrpc: VERSION_OF_JSON_RPC,
        id,
        result,
    })
}

/// An error as a frame's contents; without a number where it answers no request.
///
/// # Errors
/// Its data cannot be written as JSON.
pub fn error(id: Option<u64>, error: &RpcError) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Failed<'a> {
        jsonrpc: &'static str,
        id: Option<u64>,
        error: &'a RpcError,
    }
    serde_json::to_vec(&Failed {
        jsonrpc: VERSION_OF_JSON_RPC,
        id,
        error,
    })
}
