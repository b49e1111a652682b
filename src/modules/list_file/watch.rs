//! A file of a list that is followed: read again when it has changed.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};

use super::{BadList, Entry, List};

/// The longest file, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// A file that was modified this short a time before it was read may change again within the same tick of its clock, to the
/// same size. Until it is older its contents are compared at every look. Two seconds is the tick of the coarsest file system.
const SETTLED_AFTER: Duration = Duration::from_secs(4);

/// Why a file cannot be used: the file, the line if it is about one, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) struct BadFile {
    file: PathBuf,
    line: Option<usize>,
    reason: String,
}

impl fmt::Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.reason)
    }
}

/// The entries of a file's text.
fn lines(text: &str) -> Result<Vec<Entry<'_>>, BadList> {
    // Some editors put a byte order mark before the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let entries = text.lines().enumerate().map(|(index, line)| Entry {
        text: line.trim(),
        place: index + 1,
    });
    entries
        .filter(|entry| !entry.text.is_empty() && !entry.text.starts_with('#'))
        .map(Entry::bounded)
        .collect()
}

/// A file that is looked at again and again.
pub(super) struct Watch<T, P> {
    pub(super) file: PathBuf,
    parse: P,
    list: Arc<ArcSwap<T>>,
    looks: Mutex<Looks>,
}

/// What a look at a file sees without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    size: u64,
}

/// What the looks at a file have seen.
#[derive(Debug)]
struct Looks {
    seen: Seen,
    /// What the last look saw, if it was other than what was read.
    changing: Option<Stamp>,
    /// How many entries the list has that is in use.
    entries: usize,
}

/// A list that was read from a changed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// How many entries it has.
    pub(super) entries: usize,
    /// How many the list before it had.
    pub(super) before: usize,
}

#[derive(Debug)]
enum Seen {
    /// The file was read, be its contents good or bad.
    Contents {
        stamp: Stamp,
        digest: [u8; 32],
        /// Whether other contents have another stamp.
        is_settled: bool,
    },
    /// It could not be read, for this reason.
    Unreadable(String),
}

/// A file's contents, read once.
struct Contents {
    seen: Seen,
    bytes: Vec<u8>,
}

impl<T, P> Watch<T, P>
where
    P: Fn(&[Entry<'_>]) -> Result<T, BadList>,
{
    pub(super) fn begin(file: PathBuf, parse: P) -> Result<(List<T>, Self), BadFile> {
        let contents = Stamp::of(&file).and_then(|stamp| Contents::read(&file, stamp));
        let contents = contents.map_err(|reason| BadFile {
            file: file.clone(),
            line: None,
            reason,
        })?;
        let (list, entries) = contents.parse(&file, &parse)?;
        tracing::info!(file = %file.display(), entries, "list file read");
        let list = List::of(list);
        let watch = Self {
            file,
            parse,
            list: Arc::clone(&list.0),
            looks: Mutex::new(Looks {
                seen: contents.seen,
                changing: None,
                entries,
            }),
        };
        Ok((list, watch))
    }

    /// Looks at the file, and reads it if it may have changed.
    pub(super) fn look(&self) {
        match self.news() {
            None => {}
            Some(Ok(Taken { entries: 0, before })) if before > 0 => {
                tracing::warn!(file = %self.file.display(), before, "list file read: it has no entries any more");
            }
            Some(Ok(Taken { entries, .. })) => tracing::info!(file = %self.file.display(), entries, "list file read"),
            Some(Err(error)) => tracing::error!(%error, "a list file was not taken, the last good list stays"),
        }
    }

    /// What there is to say: of a new list, which is in use then, or why there is none.
    pub(super) fn news(&self) -> Option<Result<Taken, BadFile>> {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = match Stamp::of(&self.file) {
            Ok(stamp) if !looks.is_due(stamp) => return None,
            Ok(stamp) => Contents::read(&self.file, stamp),
            Err(reason) => Err(reason),
        };
        let contents = match contents {
            Ok(contents) => contents,
            Err(reason) => {
                let is_known = matches!(&looks.seen, Seen::Unreadable(known) if *known == reason);
                looks.seen = Seen::Unreadable(reason.clone());
                return (!is_known).then_some(Err(BadFile {
                    file: self.file.clone(),
                    line: None,
                    reason,
                }));
            }
        };
        let is_known = looks.seen.has_contents_of(&contents.seen);
        let parsed = (!is_known).then(|| contents.parse(&self.file, &self.parse));
        looks.seen = contents.seen;
        parsed.map(|parsed| {
            parsed.map(|(list, entries)| {
                self.list.store(Arc::new(list));
                let before = std::mem::replace(&mut looks.entries, entries);
                Taken { entries, before }
            })
        })
    }
}

impl Looks {
    /// Whether a file with this stamp is to be read.
    fn is_due(&mut self, now: Stamp) -> bool {
        match self.seen {
            Seen::Contents { stamp, is_settled, .. } if stamp == now => {
                self.changing = None;
                !is_settled
            }
            _ => self.changing.replace(now) == Some(now),
        }
    }
}

impl Seen {
    fn has_contents_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Contents { digest, .. }, Self::Contents { digest: other, .. }) => digest == other,
            _ => false,
        }
    }
}

impl Stamp {
    fn of(file: &Path) -> Result<Self, String> {
        let metadata = fs::metadata(file).map_err(|error| unreadable(&error))?;
        if !metadata.is_file() {
            // A pipe would hold whoever reads it.
            return Err("cannot read it: not a regular file".into());
        }
        Ok(Self {
            modified: metadata.modified().map_err(|error| unreadable(&error))?,
            size: metadata.len(),
        })
    }

    /// Whether contents that are other than those of now will have another stamp. A time that is to come never settles.
    fn is_settled(&self, now: SystemTime) -> bool {
        now.duration_since(self.modified).is_ok_and(|age| age > SETTLED_AFTER)
    }
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot read it: {error}")
}

impl Contents {
    /// `stamp` is from before: a change in between is then found at the next look.
    fn read(file: &Path, stamp: Stamp) -> Result<Self, String> {
        let is_settled = stamp.is_settled(SystemTime::now());
        let mut bytes = Vec::new();
        let file = fs::File::open(file).map_err(|error| unreadable(&error))?;
        file.take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(&error))?;
        let seen = Seen::Contents {
            stamp,
            digest: Sha256::digest(&bytes).into(),
            is_settled,
        };
        Ok(Self { seen, bytes })
    }

    /// The list and how many entries it has.
    fn parse<T>(&self, file: &Path, parse: impl Fn(&[Entry<'_>]) -> Result<T, BadList>) -> Result<(T, usize), BadFile> {
        let list = self.text().and_then(lines).and_then(|entries| {
            let list = parse(&entries)?;
            Ok((list, entries.len()))
        });
        list.map_err(|BadList { place, reason }| BadFile {
            file: file.to_owned(),
            line: place,
            reason,
        })
    }

    fn text(&self) -> Result<&str, BadList> {
        if self.bytes.len() as u64 > MAX_FILE {
            return Err(BadList::whole(format!("more than {} MiB", MAX_FILE >> 20)));
        }
        std::str::from_utf8(&self.bytes).map_err(|error| {
            let before = &self.bytes[..error.valid_up_to()];
            BadList {
                place: Some(before.iter().filter(|byte| **byte == b'\n').count() + 1),
                reason: "not UTF-8".into(),
            }
        })
    }
}
