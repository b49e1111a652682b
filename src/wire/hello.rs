//! Who may connect: the hello, and the answer to it.

use ganglion_api::wire::{
    Announcement, Hello, HelloVersion, Incoming, MIN_FRAME, Role, RpcError, VERSION, WINDOW, Welcome, code, method,
};
use serde_json::json;

use super::server::Shared;
use crate::json;

/// What Ganglion can be asked.
const FEATURES: [&str; 3] = ["callback", "continue", "cancel"];

/// What both sides call the software of this side.
const SOFTWARE: &str = concat!("ganglion ", env!("CARGO_PKG_VERSION"));

/// A hello that was refused, with the number of its request if it was one.
pub(super) type Refused = (Option<u64>, RpcError);

/// Reads the first frame of a connection.
pub(super) fn read(frame: &[u8], shared: &Shared) -> Result<(u64, Hello), Refused> {
    let (id, params) = match Incoming::read(frame).map_err(|error| (None, error))? {
        Incoming::Request {
            id,
            method: name,
            params,
        } if name == method::HELLO => (id, params),
        Incoming::Request { id, .. } => return Err((Some(id), invalid("say hello first"))),
        _ => return Err((None, invalid("say hello first"))),
    };
    let hello = params.map_or("", |params| params.get()).as_bytes();
    check(hello, shared)
        .map(|hello| (id, hello))
        .map_err(|error| (Some(id), error))
}

fn invalid(why: &'static str) -> RpcError {
    RpcError::new(code::INVALID_REQUEST, why)
}

fn check(params: &[u8], shared: &Shared) -> Result<Hello, RpcError> {
    let unreadable = |error: json::ReadError| RpcError::new(code::INVALID_PARAMS, format!("hello: {error}"));
    // First: what else stands in a hello of another version is not known.
    let HelloVersion { version } = json::read(params).map_err(unreadable)?;
    if version != VERSION {
        let message = format!("version {version} of the protocol is not spoken here");
        return Err(RpcError::new(code::OTHER_VERSION, message).with_data(json!({ "versions": [VERSION] })));
    }
    let hello: Hello = json::read(params).map_err(unreadable)?;
    if let Some(token) = &shared.token {
        let given = hello.token.as_ref().map_or("", |token| &token.0);
        if !token.matches(given) {
            let message = if given.is_empty() {
                "a token is needed"
            } else {
                "the token is not known"
            };
            return Err(RpcError::new(code::UNAUTHORIZED, message));
        }
    }
    if hello.server_name != shared.server_name.as_str() {
        let message = format!("this is the Ganglion of {}", shared.server_name);
        return Err(RpcError::new(code::OTHER_SERVER, message));
    }
    if hello.role == Role::Ganglion {
        return Err(invalid("role: expected bridge or client"));
    }
    if hello.max_frame < MIN_FRAME {
        return Err(RpcError::new(
            code::INVALID_PARAMS,
            format!("max_frame: expected at least {MIN_FRAME}"),
        ));
    }
    Ok(hello)
}

/// The answer to a hello.
pub(super) fn welcome(shared: &Shared, announcement: Announcement) -> Welcome {
    Welcome {
        version: VERSION,
        role: Role::Ganglion,
        features: FEATURES.map(str::to_owned).into(),
        server_name: shared.server_name.to_string(),
        software: SOFTWARE.into(),
        max_frame: shared.max_frame,
        window: WINDOW,
        deadline_ms: u64::try_from(shared.ganglion.dispatch().deadline().as_millis()).unwrap_or(u64::MAX),
        announcement,
    }
}
