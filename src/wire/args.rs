//! Large arguments that stay with the caller: modules read them over its connection.

use std::sync::{Arc, Weak};

use ganglion_api::wire::{MediaPart, MediaRead, StateEventsPage, StateFrom, StateGet, StateGot, method};
use ganglion_api::{
    ArgSource, Base64, Event, FromJson, JsonPath, LocalFuture, MEDIA_CHUNK, MediaChunk, ModuleError, StatePage,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::peer::{CallError, Peer};

/// The arguments of one connection's callbacks. It keeps no connection alive.
pub(super) struct ConnectedArgs(pub(super) Weak<Peer>);

impl ConnectedArgs {
    /// The budget of the module's call ends this before the peer's patience does.
    async fn ask<T: DeserializeOwned>(
        &self,
        feature: &str,
        method: &str,
        params: &impl Serialize,
    ) -> Result<T, ModuleError> {
        let peer = self.0.upgrade().ok_or(CallError::Gone)?;
        if !peer.can(feature) {
            return Err(ModuleError::message(format!(
                "the caller cannot be asked for {feature}"
            )));
        }
        let answer: Result<T, CallError> = Arc::clone(&peer).call(method, params, None).await;
        Ok(answer?)
    }
}

fn read<T: FromJson>(value: serde_json::Value, key: &str) -> Result<T, ModuleError> {
    Ok(T::from_json(value, &JsonPath::Key(&JsonPath::Root, key))?)
}

impl ArgSource for ConnectedArgs {
    fn state_event<'a>(
        &'a self,
        handle: &'a str,
        event_type: &'a str,
        state_key: &'a str,
    ) -> LocalFuture<'a, Result<Option<Event>, ModuleError>> {
        Box::pin(async move {
            let params = StateGet {
                handle: handle.into(),
                r#type: event_type.into(),
                state_key: state_key.into(),
            };
            let got: StateGot = self.ask("state", method::STATE_GET, &params).await?;
            read(got.event, "event")
        })
    }

    fn state_page<'a>(&'a self, handle: &'a str, from: u64) -> LocalFuture<'a, Result<StatePage, ModuleError>> {
        Box::pin(async move {
            let params = StateFrom {
                handle: handle.into(),
                from,
            };
            let page: StateEventsPage = self.ask("state", method::STATE_PAGE, &params).await?;
            Ok(StatePage::new(read(page.events, "events")?, page.next))
        })
    }

    fn media_chunk<'a>(&'a self, handle: &'a str, offset: u64) -> LocalFuture<'a, Result<MediaChunk, ModuleError>> {
        Box::pin(async move {
            let params = MediaRead {
                handle: handle.into(),
                offset,
            };
            let part: MediaPart = self.ask("media", method::MEDIA_READ, &params).await?;
            let chunk: Base64 = read(part.chunk_base64, "chunk_base64")?;
            if chunk.bytes().len() > MEDIA_CHUNK {
                return Err(ModuleError::message("the chunk is larger than it may be"));
            }
            Ok(MediaChunk::new(chunk.bytes().clone(), part.end))
        })
    }
}
