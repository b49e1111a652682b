//! `ganglion.modules.MediaGuard`: refuses media files by what they are, by their size and by their digest.

mod markup;
mod signatures;

use std::collections::HashSet;
use std::num::NonZeroU64;

use bytes::Bytes;
use ganglion_api::{
    CheckMediaFileForSpam, ConfigError, Denial, IsUserAllowedToUploadMediaOfSize, MediaFile, MediaRepositoryCallbacks,
    Module, ModuleApi, ModuleError, SpamCheckerCallbacks, UserId, Verdict,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use self::signatures::{
    HEAD, PORTABLE_EXECUTABLE, PROGRAM_HEADER, header_out_of_sight, is_program_header, most_special, name_here, names,
    types_of,
};
use super::globs::{Glob, GlobSet};
use super::list_file::{BadList, Entry, List, ListConfig};
use crate::config::{bytes_of, near};

/// Refuses media files.
#[derive(Debug)]
pub struct MediaGuard {
    types: Types,
    unknown_type: UnknownType,
    limits: Limits,
    known: Option<List<Digests>>,
}

/// The config of [`MediaGuard`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaGuardConfig {
    /// Globs: a file with a type that none of them matches is refused. Empty: every type is allowed.
    #[serde(default)]
    allow_types: Vec<String>,
    /// Globs: a file with a type that one of them matches is refused.
    #[serde(default = "programs")]
    deny_types: Vec<String>,
    /// What becomes of files that have no type.
    #[serde(default)]
    unknown_type: UnknownType,
    /// The most bytes of a file; absent or null: no limit.
    #[serde(default, deserialize_with = "size")]
    max_size: Option<NonZeroU64>,
    /// Who has another limit; the first that matches.
    #[serde(default)]
    users: Vec<UserLimitConfig>,
    /// SHA-256 digests of files that are refused, in hexadecimal.
    #[serde(default)]
    sha256: ListConfig,
}

impl MediaGuardConfig {
    /// Whether there is a file that it refuses.
    fn can_deny(&self) -> bool {
        let has_types = !self.allow_types.is_empty() || !self.deny_types.is_empty();
        let has_sizes = self.max_size.is_some() || self.users.iter().any(|limit| limit.max_size.is_some());
        has_types || has_sizes || self.unknown_type == UnknownType::Deny || !self.sha256.is_absent()
    }
}

/// What users may upload.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserLimitConfig {
    /// Globs of user ids.
    users: ListConfig,
    /// The most bytes of a file; absent or null: no limit.
    #[serde(default, deserialize_with = "size")]
    max_size: Option<NonZeroU64>,
}

/// What becomes of a file that has no type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum UnknownType {
    #[default]
    Pass,
    Deny,
}

fn programs() -> Vec<String> {
    [
        PORTABLE_EXECUTABLE,
        "application/x-executable",
        "application/x-mach-binary",
    ]
    .map(str::to_owned)
    .into()
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU64>, D::Error> {
    match serde_yaml::Value::deserialize(deserializer)? {
        serde_yaml::Value::Null => Ok(None),
        value => bytes_of(&value).map(Some).map_err(serde::de::Error::custom),
    }
}

/// Which types are refused.
#[derive(Debug)]
struct Types {
    allow: GlobSet,
    deny: GlobSet,
}

/// How long files may be.
#[derive(Debug)]
struct Limits {
    max_size: Option<NonZeroU64>,
    users: Vec<(List<GlobSet>, Option<NonZeroU64>)>,
}

type Digests = HashSet<[u8; 32]>;

/// Why a file is refused. The texts are for callers that show them; Synapse has words of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Type,
    Size,
    Digest,
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        Self::Deny(match refusal {
            Refusal::Type => Denial::forbidden().with_error("files of this type are not accepted"),
            Refusal::Size => Denial::new("M_TOO_LARGE").with_error("files of this size are not accepted"),
            Refusal::Digest => Denial::forbidden().with_error("this file is not accepted"),
        })
    }
}

impl Types {
    fn read(config: &MediaGuardConfig) -> Result<Self, ConfigError> {
        let read = |key: &str, patterns: &[String]| {
            let globs = patterns.iter().enumerate().map(|(index, pattern)| {
                let refuse = |reason: String| ConfigError::at(format!("{key}[{index}]"), reason);
                let glob = Glob::parse(pattern).map_err(|error| refuse(error.to_string()))?;
                let alone = GlobSet::new([glob.clone()]).map_err(|error| refuse(error.to_string()))?;
                if names().any(|name| alone.is_match(name)) {
                    return Ok(glob);
                }
                Err(refuse(match name_here(pattern) {
                    Some(name) => format!("no signature has this type: write {name}"),
                    None => format!("no signature has this type{}", near(pattern, names())),
                }))
            });
            let globs: Vec<Glob> = globs.collect::<Result<_, _>>()?;
            GlobSet::new(globs).map_err(|error| ConfigError::at(key, error.to_string()))
        };
        Ok(Self {
            allow: read("allow_types", &config.allow_types)?,
            deny: read("deny_types", &config.deny_types)?,
        })
    }

    /// Whether a file that has these types may pass.
    fn check(&self, types: &[&'static str], unknown: UnknownType) -> Result<(), Refusal> {
        let is_denied = |name: &&str| self.deny.is_match(name);
        let is_allowed = |name: &str| self.allow.is_empty() || self.allow.is_match(name);
        let passes = match types.is_empty() {
            true => unknown == UnknownType::Pass,
            // It may be opened as any of them. Whoever allows pictures means those too that are kept in an archive; whoever
            // denies archives means everything that can be opened as one.
            false => !types.iter().any(is_denied) && most_special(types).all(is_allowed),
        };
        passes.then_some(()).ok_or(Refusal::Type)
    }
}

impl Limits {
    /// Checks what can be checked without reading a file.
    fn check(config: &MediaGuardConfig) -> Result<(), ConfigError> {
        config.users.iter().enumerate().try_for_each(|(index, limit)| {
            let key = users_key(index);
            if limit.users.is_absent() {
                return Err(ConfigError::at(key, "expected at least one pattern"));
            }
            limit.users.check(&key, GlobSet::of_list)
        })?;
        // Who has no limit needs an entry only if a limit comes later.
        let useful = config.users.iter().rposition(|limit| limit.max_size.is_some());
        let useful = useful.map_or(0, |last| last + 1);
        if config.max_size.is_none() && useful < config.users.len() {
            return Err(ConfigError::at(
                format!("users[{useful}].max_size"),
                "without it, and without a max_size of all users, nothing would be limited: write a size",
            ));
        }
        Ok(())
    }

    fn open(config: &MediaGuardConfig, api: &ModuleApi<MediaGuard>) -> Result<Self, ConfigError> {
        let users = config.users.iter().enumerate().map(|(index, limit)| {
            let users = limit.users.open(&users_key(index), api, GlobSet::of_list)?;
            Ok((users, limit.max_size))
        });
        Ok(Self {
            max_size: config.max_size,
            users: users.collect::<Result<_, _>>()?,
        })
    }

    /// How long a file of this user may be.
    fn of(&self, user: &UserId) -> Option<NonZeroU64> {
        let own = self.users.iter().find(|(users, _)| users.now().is_match(user.as_str()));
        own.map_or(self.max_size, |(_, max_size)| *max_size)
    }

    /// How long a file may be of which nobody says whose it is: as long as those of the user who may upload most, or it would
    /// be refused after it was allowed.
    fn of_anybody(&self) -> Option<NonZeroU64> {
        let own = self.users.iter().map(|(_, max_size)| *max_size);
        own.fold(self.max_size, |one, other| Some(one?.max(other?)))
    }
}

fn users_key(index: usize) -> String {
    format!("users[{index}].users")
}

/// Whether a file of this length is too long.
fn is_over(limit: Option<NonZeroU64>, bytes: u64) -> bool {
    limit.is_some_and(|limit| bytes > limit.get())
}

fn digests(entries: &[Entry<'_>]) -> Result<Digests, BadList> {
    let digest = |entry: &Entry<'_>| {
        let digest = digest(entry.text);
        digest.ok_or_else(|| entry.refuse("expected a SHA-256 digest: 64 hexadecimal digits and nothing else"))
    };
    entries.iter().map(digest).collect()
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect();
    // Not of the bytes: 63 digits make 32 of them too.
    (digits.len() == 64).then_some(())?;
    bytes.try_into().ok()
}

impl Module for MediaGuard {
    type Config = MediaGuardConfig;

    fn parse_config(config: Value) -> Result<MediaGuardConfig, ConfigError> {
        let config: MediaGuardConfig = ganglion_api::read_config(config)?;
        Types::read(&config)?;
        Limits::check(&config)?;
        config.sha256.check("sha256", digests)?;
        if !config.can_deny() {
            return Err(ConfigError::at(
                "deny_types",
                "empty, and no other key denies anything: nothing would be denied",
            ));
        }
        Ok(config)
    }

    fn new(config: MediaGuardConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let known = match config.sha256.is_absent() {
            true => None,
            false => Some(config.sha256.open("sha256", api, digests)?),
        };
        let limits = Limits::open(&config, api)?;
        api.register_spam_checker_callbacks(
            SpamCheckerCallbacks::new().check_media_file_for_spam(Self::check_media_file_for_spam),
        )?;
        if limits.max_size.is_some() || !limits.users.is_empty() {
            api.register_media_repository_callbacks(
                MediaRepositoryCallbacks::new()
                    .is_user_allowed_to_upload_media_of_size(Self::is_user_allowed_to_upload_media_of_size),
            )?;
        }
        Ok(Self {
            types: Types::read(&config)?,
            unknown_type: config.unknown_type,
            limits,
            known,
        })
    }
}

impl MediaGuard {
    async fn is_user_allowed_to_upload_media_of_size(
        &self,
        args: &IsUserAllowedToUploadMediaOfSize,
    ) -> Result<Verdict, ModuleError> {
        let bytes = u64::try_from(args.size).map_err(|_| ModuleError::message("the size is less than nothing"))?;
        Ok(match is_over(self.limits.of(&args.user_id), bytes) {
            true => Refusal::Size.into(),
            false => Verdict::Pass,
        })
    }

    async fn check_media_file_for_spam(&self, args: &CheckMediaFileForSpam) -> Result<Verdict, ModuleError> {
        if args.file_info.thumbnail.is_some() {
            // The homeserver made it of a file that was checked before.
            return Ok(Verdict::Pass);
        }
        let checked = self.check(&args.file_base64).await?;
        Ok(checked.map_or_else(Verdict::from, |()| Verdict::Pass))
    }

    async fn check(&self, file: &MediaFile) -> Result<Result<(), Refusal>, ModuleError> {
        let limit = self.limits.of_anybody();
        let mut chunks = Chunks::from(file, 0);
        let head = chunks.take(HEAD).await?;
        if is_over(limit, chunks.offset) {
            return Ok(Err(Refusal::Size));
        }
        if let Some(limit) = limit
            && chunks.may_go_on
            && !file.chunk(limit.get()).await?.contents.is_empty()
        {
            // It goes on behind the limit; what is before that need not be read.
            return Ok(Err(Refusal::Size));
        }
        let begin = &head[..head.len().min(HEAD)];
        let mut types = types_of(begin);
        if let Some(at) = header_out_of_sight(begin)
            // The file ends before its limit.
            && !is_over(limit, at + PROGRAM_HEADER as u64)
            && is_program_header(&Chunks::from(file, at).take(PROGRAM_HEADER).await?)
        {
            types.push(PORTABLE_EXECUTABLE);
        }
        if let Err(refusal) = self.types.check(&types, self.unknown_type) {
            return Ok(Err(refusal));
        }
        let Some(known) = self.known.as_ref().filter(|known| !known.now().is_empty()) else {
            return Ok(Ok(()));
        };
        let mut digest = Sha256::new_with_prefix(&head);
        while let Some(chunk) = chunks.next().await? {
            // A file may have grown since.
            if is_over(limit, chunks.offset) {
                return Ok(Err(Refusal::Size));
            }
            digest.update(&chunk);
            // A chunk that is here already waits for nothing, and a file has thousands.
            tokio::task::yield_now().await;
        }
        let is_known = known.now().contains::<[u8; 32]>(&digest.finalize().into());
        Ok(if is_known { Err(Refusal::Digest) } else { Ok(()) })
    }
}

/// The chunks of a file, one after the other.
struct Chunks<'a> {
    file: &'a MediaFile,
    offset: u64,
    may_go_on: bool,
}

impl<'a> Chunks<'a> {
    fn from(file: &'a MediaFile, offset: u64) -> Self {
        Self {
            file,
            offset,
            may_go_on: true,
        }
    }

    /// The next ones, until there are so many bytes or the file ends; what the last chunk has more is there too.
    async fn take(&mut self, bytes: usize) -> Result<Vec<u8>, ModuleError> {
        let mut taken = Vec::new();
        while taken.len() < bytes
            && let Some(chunk) = self.next().await?
        {
            taken.extend_from_slice(&chunk);
        }
        Ok(taken)
    }

    /// The next one; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, ModuleError> {
        if !self.may_go_on {
            return Ok(None);
        }
        let chunk = self.file.chunk(self.offset).await?;
        if chunk.contents.is_empty() && !chunk.end {
            return Err(ModuleError::message("the file does not come to an end"));
        }
        self.offset += chunk.contents.len() as u64;
        self.may_go_on = !chunk.end;
        Ok(Some(chunk.contents))
    }
}

#[cfg(test)]
mod tests;
