//! Media files, upload limits and rate limits.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::callback::Candidate;
use crate::failure::ModuleError;
use crate::json::{Fields, FromJson, JsonError, JsonPath, json_object};
use crate::lazy::{ArgSource, LazyArg, MediaChunk, Remote};

/// Bytes that are base64 in JSON: the standard alphabet, padded.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64(Bytes);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl Base64 {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl<T: Into<Bytes>> From<T> for Base64 {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

impl FromJson for Base64 {
    const TYPE: &'static str = "str";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        let text = String::from_json(value, at)?;
        let bytes = STANDARD
            .decode(text)
            .map_err(|_| JsonError::invalid(at, "expected padded base64"))?;
        Ok(Self(bytes.into()))
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

/// A media file. Over HTTP its contents are base64; over the wire they come when somebody asks for them, in chunks of
/// at most [`MEDIA_CHUNK`] bytes. Source: Synapse's `ReadableFileWrapper`.
#[derive(Clone, PartialEq)]
pub struct MediaFile(Contents);

#[derive(Clone, PartialEq)]
enum Contents {
    Here(Base64),
    There(Remote),
}

/// The largest chunk of a media file, in bytes.
pub const MEDIA_CHUNK: usize = 16_384;

impl MediaFile {
    /// A file with these contents.
    pub fn new(contents: impl Into<Bytes>) -> Self {
        Self(Contents::Here(Base64(contents.into())))
    }

    /// At most [`MEDIA_CHUNK`] bytes from an offset on, and whether they are the last. They may have to be fetched, which
    /// takes of the call's budget.
    ///
    /// # Errors
    /// They had to be, and could not. `?` makes a failure of it, which meets the failure policy.
    pub async fn chunk(&self, offset: u64) -> Result<MediaChunk, ModuleError> {
        match &self.0 {
            Contents::Here(Base64(bytes)) => {
                let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let end = begin.saturating_add(MEDIA_CHUNK).min(bytes.len());
                Ok(MediaChunk::new(bytes.slice(begin..end), end == bytes.len()))
            }
            Contents::There(remote) => remote.source()?.media_chunk(&remote.handle, offset).await,
        }
    }

    /// The whole contents, fetched anew each time if they are not here. A module that can stop early asks for one
    /// [`chunk`](Self::chunk) after the other.
    ///
    /// # Errors
    /// As for [`chunk`](Self::chunk).
    pub async fn contents(&self) -> Result<Bytes, ModuleError> {
        if let Contents::Here(Base64(bytes)) = &self.0 {
            return Ok(bytes.clone());
        }
        let mut contents = BytesMut::new();
        loop {
            let chunk = self.chunk(contents.len() as u64).await?;
            if chunk.contents.is_empty() && !chunk.end {
                return Err(ModuleError::message("the file does not come to an end"));
            }
            contents.extend_from_slice(&chunk.contents);
            if chunk.end {
                return Ok(contents.freeze());
            }
        }
    }
}

impl fmt::Debug for MediaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Contents::Here(Base64(bytes)) => write!(f, "MediaFile({} bytes)", bytes.len()),
            Contents::There(remote) => write!(f, "MediaFile({})", remote.handle),
        }
    }
}

impl<T: Into<Bytes>> From<T> for MediaFile {
    fn from(contents: T) -> Self {
        Self::new(contents)
    }
}

impl FromJson for MediaFile {
    const TYPE: &'static str = "str";

    /// Base64, or `{"handle"}`.
    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        if value.get("handle").is_none() {
            return Base64::from_json(value, at).map(|contents| Self(Contents::Here(contents)));
        }
        let handle = Fields::new(value, at)?.required("handle")?;
        Ok(Self(Contents::There(Remote::new(handle))))
    }
}

impl Serialize for MediaFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Contents::Here(contents) => contents.serialize(serializer),
            Contents::There(remote) => {
                let mut object = serializer.serialize_map(Some(1))?;
                object.serialize_entry("handle", &remote.handle)?;
                object.end()
            }
        }
    }
}

impl LazyArg for MediaFile {
    fn connect(&mut self, source: Option<&Arc<dyn ArgSource>>, key: &str) -> Result<(), JsonError> {
        match &mut self.0 {
            Contents::Here(_) => Ok(()),
            Contents::There(remote) => remote.connect(source, key),
        }
    }
}

json_object! {
    /// What is known about a media file.
    #[derive(Eq)]
    FileInfo {
        /// The id of the file.
        file_id: String,
        /// The server that it came from; `None` for local files.
        server_name [optional]: Option<String>,
        /// Whether it belongs to a URL preview.
        url_cache [optional]: bool,
        /// Set if it is a thumbnail.
        thumbnail [optional]: Option<Thumbnail>,
    }
}

json_object! {
    /// The form of a thumbnail.
    #[derive(Eq)]
    Thumbnail {
        /// The width in pixels.
        width: i64,
        /// The height in pixels.
        height: i64,
        /// `crop` or `scale`.
        method: String,
        /// The media type.
        r#type: String,
        /// The size in bytes.
        length: i64,
    }
}

json_object! {
    /// How much a user may upload in a period.
    #[derive(Eq)]
    MediaUploadLimit as "Limit", array "[Limit]" {
        /// The number of bytes.
        max_bytes: i64,
        /// The period in milliseconds.
        time_period_ms: i64,
        /// Where the user can read about it.
        info_uri [optional]: Option<String>,
        /// Whether the user can buy more.
        can_upgrade [optional]: bool,
    }
}

/// The answer of `get_media_upload_limits_for_user`; an empty list is no limit at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct MediaUploadLimits(Vec<MediaUploadLimit>);

impl MediaUploadLimits {
    /// These limits.
    #[must_use]
    pub fn new(limits: Vec<MediaUploadLimit>) -> Self {
        Self(limits)
    }
}

impl Candidate for MediaUploadLimits {
    /// The longest period first; limits of one period keep their order, as in Synapse.
    fn settle(mut self) -> Option<Self> {
        self.0.sort_by_key(|limit| std::cmp::Reverse(limit.time_period_ms));
        Some(self)
    }
}

impl FromJson for MediaUploadLimits {
    const TYPE: &'static str = "[Limit]";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        Vec::from_json(value, at).map(Self)
    }
}

/// The answer of `get_media_config_for_user`: the whole body of the media config, any JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct MediaConfig(Value);

impl MediaConfig {
    /// This body.
    pub fn new(body: impl Into<Value>) -> Self {
        Self(body.into())
    }
}

impl Candidate for MediaConfig {
    /// Synapse takes a falsy body for none.
    fn settle(self) -> Option<Self> {
        let falsy = match &self.0 {
            Value::Null => true,
            Value::Bool(flag) => !flag,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(object) => object.is_empty(),
        };
        (!falsy).then_some(self)
    }
}

impl FromJson for MediaConfig {
    const TYPE: &'static str = "any";

    fn from_json(value: Value, _at: &JsonPath<'_>) -> Result<Self, JsonError> {
        Ok(Self(value))
    }
}

json_object! {
    /// The answer of `get_ratelimit_override_for_user`; 0 per second means no limit.
    RatelimitOverride {
        /// Actions per second.
        per_second: f64,
        /// Actions at once.
        burst_count: i64,
    }
}

impl Candidate for RatelimitOverride {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn falsy_media_configs_are_no_answer() {
        for falsy in [
            json!({}),
            json!(null),
            json!(0),
            json!(0.0),
            json!(""),
            json!([]),
            json!(false),
        ] {
            assert_eq!(MediaConfig::new(falsy.clone()).settle(), None, "{falsy}");
        }
        assert!(MediaConfig::new(json!({"m.upload.size": 0})).settle().is_some());
    }

    #[test]
    fn a_media_file_does_not_show_its_contents() {
        assert_eq!(format!("{:?}", MediaFile::new("secret")), "MediaFile(6 bytes)");
    }
}
