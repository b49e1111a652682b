//! Lists in the configs of modules: written there, or in a file that may change while Ganglion runs.
//!
//! A file is UTF-8 text with one entry a line. It is looked at every [`LOOK_EVERY`], and read again when its time of
//! modification or its size is another one. What cannot be used is said in the log, once for each change, and the last good
//! list stays.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use ganglion_api::{ConfigError, ModuleApi};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};

/// The longest file, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// The longest entry, in bytes.
const MAX_ENTRY: usize = 1 << 10;

/// How often a file is looked at. A change is taken at the second look that finds the file the same: one that is being
/// written is not read in the middle.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A file that was modified this short a time before it was read may change again within the same tick of its clock, to the
/// same size. Until it is older its contents are compared at every look. Two seconds is the tick of the coarsest file system.
const SETTLED_AFTER: Duration = Duration::from_secs(4);

/// A list as it stands in a config: texts, or `{file: path}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListConfig {
    /// The entries themselves.
    Inline(Vec<String>),
    /// Where the entries are; a relative path is relative to the config file.
    File(PathBuf),
}

/// One entry of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// The text, without the blanks around it.
    pub(crate) text: &'a str,
    /// In a file the line, counted from 1; else the index, counted from 0.
    place: usize,
}

/// Why a list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadList {
    /// The place of the entry; `None` if it is about the whole list.
    place: Option<usize>,
    reason: String,
}

/// A list that is there to be used, and that changes with its file.
pub(crate) struct List<T>(Arc<ArcSwap<T>>);

/// Why a file cannot be used: the file, the line if it is about one, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
struct BadFile {
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

impl BadList {
    /// About the list as a whole.
    pub(crate) fn whole(reason: impl Into<String>) -> Self {
        Self {
            place: None,
            reason: reason.into(),
        }
    }
}

impl Entry<'_> {
    /// About this entry.
    pub(crate) fn refuse(self, reason: impl Into<String>) -> BadList {
        BadList {
            place: Some(self.place),
            reason: reason.into(),
        }
    }
}

impl Default for ListConfig {
    fn default() -> Self {
        Self::Inline(Vec::new())
    }
}

impl ListConfig {
    /// Whether it has no entries and never will.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Inline(entries) if entries.is_empty())
    }

    /// Checks what can be checked without reading a file; `key` is where the list stands in the config.
    ///
    /// # Errors
    /// An entry is refused by `parse`, empty or too long; the error names its key, such as `deny[3]`.
    pub(crate) fn check<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&[Entry<'_>]) -> Result<T, BadList>,
    ) -> Result<(), ConfigError> {
        match self {
            Self::Inline(texts) => read_inline(key, texts, parse).map(drop),
            Self::File(file) if file.as_os_str().is_empty() => {
                Err(ConfigError::at(format!("{key}.file"), "expected the path of a file"))
            }
            Self::File(_) => Ok(()),
        }
    }

    /// Makes the list. A file is read now, and whenever it has changed, by a background call of the module.
    ///
    /// # Errors
    /// As for [`check`](Self::check); or the file cannot be read, or has a line that is refused: the error names the key,
    /// the file and the line.
    pub(crate) fn open<M, T, P>(&self, key: &str, api: &ModuleApi<M>, parse: P) -> Result<List<T>, ConfigError>
    where
        M: Send + Sync + 'static,
        T: Send + Sync + 'static,
        P: Fn(&[Entry<'_>]) -> Result<T, BadList> + Send + Sync + 'static,
    {
        let file = match self {
            Self::Inline(texts) => return read_inline(key, texts, parse).map(List::of),
            Self::File(file) => api.resolve_path(file),
        };
        let (list, watch) =
            Watch::begin(file, parse).map_err(|error| ConfigError::at(format!("{key}.file"), error.to_string()))?;
        let watch = Arc::new(watch);
        api.looping_background_call(LOOK_EVERY, format!("look at the file of {key}"), async move |_: &M| {
            let watch = Arc::clone(&watch);
            // A disk that is slow, or gone, must not hold a worker.
            Ok(tokio::task::spawn_blocking(move || watch.look()).await?)
        });
        Ok(list)
    }
}

impl<'de> Deserialize<'de> for ListConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = ListConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts or {file: path}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<ListConfig, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = entries.next_element()? {
            texts.push(text);
        }
        Ok(ListConfig::Inline(texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut keys: A) -> Result<ListConfig, A::Error> {
        let mut file = None;
        while let Some(key) = keys.next_key::<String>()? {
            if key != "file" {
                return Err(A::Error::custom(format!("unknown key {key}, expected {{file: path}}")));
            }
            file = Some(keys.next_value::<PathBuf>()?);
        }
        file.map(ListConfig::File)
            .ok_or_else(|| A::Error::custom("expected a list of texts or {file: path}"))
    }
}

impl<T> List<T> {
    fn of(list: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(list)))
    }

    /// The list as it is now. Not for keeping over an `await`.
    pub(crate) fn now(&self) -> impl Deref<Target = Arc<T>> {
        self.0.load()
    }
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("List")
    }
}

fn read_inline<T>(
    key: &str,
    texts: &[String],
    parse: impl FnOnce(&[Entry<'_>]) -> Result<T, BadList>,
) -> Result<T, ConfigError> {
    let entries = texts.iter().enumerate().map(|(place, text)| {
        let entry = Entry {
            text: text.trim(),
            place,
        };
        match entry.text {
            "" => Err(entry.refuse("an empty entry")),
            _ => entry.bounded(),
        }
    });
    let list = entries
        .collect::<Result<Vec<_>, _>>()
        .and_then(|entries| parse(&entries));
    list.map_err(|BadList { place, reason }| match place {
        Some(place) => ConfigError::at(format!("{key}[{place}]"), reason),
        None => ConfigError::at(key, reason),
    })
}

impl<'a> Entry<'a> {
    fn bounded(self) -> Result<Self, BadList> {
        if self.text.len() > MAX_ENTRY {
            return Err(self.refuse(format!("an entry of more than {MAX_ENTRY} bytes")));
        }
        Ok(self)
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
struct Watch<T, P> {
    file: PathBuf,
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
struct Taken {
    /// How many entries it has.
    entries: usize,
    /// How many the list before it had.
    before: usize,
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
    fn begin(file: PathBuf, parse: P) -> Result<(List<T>, Self), BadFile> {
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
    fn look(&self) {
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
    fn news(&self) -> Option<Result<Taken, BadFile>> {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    type Words = BTreeSet<String>;

    fn words(entries: &[Entry<'_>]) -> Result<Words, BadList> {
        let word = |entry: &Entry<'_>| match entry.text.contains('!') {
            true => Err(entry.refuse("no exclamations")),
            false => Ok(entry.text.to_owned()),
        };
        entries.iter().map(word).collect()
    }

    type WordWatch = Watch<Words, fn(&[Entry<'_>]) -> Result<Words, BadList>>;

    /// A list file in a directory of its own.
    struct File {
        directory: TempDir,
        list: List<Words>,
        watch: WordWatch,
    }

    impl File {
        fn new(text: &str) -> Self {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("words.txt");
            fs::write(&path, text).unwrap();
            let (list, watch) = Watch::begin(path, words as fn(&[Entry<'_>]) -> _).unwrap();
            Self { directory, list, watch }
        }

        fn path(&self) -> &Path {
            &self.watch.file
        }

        /// Writes it, as if so many seconds ago.
        fn write(&self, text: impl AsRef<[u8]>, age: u64) {
            fs::write(self.path(), text).unwrap();
            let modified = SystemTime::now() - Duration::from_secs(age);
            fs::File::options()
                .write(true)
                .open(self.path())
                .unwrap()
                .set_modified(modified)
                .unwrap();
        }

        /// What there is to say after two looks: how many entries there are, or what is wrong.
        fn news(&self) -> Option<Result<usize, String>> {
            self.taken().map(|news| news.map(|taken| taken.entries))
        }

        fn taken(&self) -> Option<Result<Taken, String>> {
            let first = self.watch.news();
            let second = self.watch.news();
            first.or(second).map(|news| {
                news.map_err(|error| {
                    let directory = self.directory.path().display().to_string();
                    error.to_string().replace(&directory, "")
                })
            })
        }

        fn list(&self) -> Vec<String> {
            self.list.now().iter().cloned().collect()
        }
    }

    fn refusal(bytes: &[u8]) -> String {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("words.txt");
        fs::write(&path, bytes).unwrap();
        let error = Watch::begin(path, words).err().expect("it is refused").to_string();
        error.replace(&directory.path().display().to_string(), "")
    }

    #[test]
    fn a_list_is_texts_or_a_file_and_nothing_else() {
        let read = |value| ganglion_api::read_config::<ListConfig>(value);
        assert_eq!(
            read(json!(["a", "b"])),
            Ok(ListConfig::Inline(vec!["a".into(), "b".into()]))
        );
        assert_eq!(read(json!({"file": "a.txt"})), Ok(ListConfig::File("a.txt".into())));
        for (value, path, message) in [
            (json!("a"), "", "expected a list of texts or {file: path}"),
            (json!(null), "", "expected a list of texts or {file: path}"),
            (json!({}), "", "expected a list of texts or {file: path}"),
            (json!({"fil": "a"}), "", "unknown key fil, expected {file: path}"),
            (json!({"file": 1}), "file", "expected path string"),
            (json!(["a", 1]), "[1]", "expected a string"),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.message.contains(message), "{value}: {error}");
            assert_eq!(error.path, path, "{value}");
        }
    }

    #[test]
    fn an_inline_entry_that_is_refused_is_named_by_its_key() {
        let check = |texts: &[&str]| {
            let texts = texts.iter().map(|text| (*text).to_owned()).collect();
            let error = ListConfig::Inline(texts).check("deny", words).unwrap_err();
            error.to_string()
        };
        assert_eq!(check(&["a", "b!"]), "config.deny[1]: no exclamations");
        assert_eq!(check(&["a", " ", "b"]), "config.deny[1]: an empty entry");
        assert_eq!(
            check(&[&"a".repeat(1025)]),
            "config.deny[0]: an entry of more than 1024 bytes"
        );
        let list = ListConfig::Inline(vec!["a".into()]);
        let error = list
            .check("deny", |_| Err::<(), _>(BadList::whole("too few")))
            .unwrap_err();
        assert_eq!(error.to_string(), "config.deny: too few");
        let error = ListConfig::File("".into()).check("deny", words).unwrap_err();
        assert_eq!(error.to_string(), "config.deny.file: expected the path of a file");
        assert!(ListConfig::default().is_absent() && !list.is_absent());
    }

    #[test]
    fn a_file_has_an_entry_a_line_with_comments_and_blanks() {
        let file = File::new("\u{feff}# words\r\n\r\n  one\t\r\n\n#two\nthree # no comment");
        assert_eq!(file.list(), ["one", "three # no comment"]);
        assert_eq!(File::new("").list(), [""; 0]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_the_line() {
        assert_eq!(refusal(b"one\n\n# two\nthree!\n"), "/words.txt:4: no exclamations");
        assert_eq!(refusal(b"one\ntwo\xff\n"), "/words.txt:2: not UTF-8");
        let long = format!("one\n{}\n", "a".repeat(1025));
        assert_eq!(
            refusal(long.as_bytes()),
            "/words.txt:2: an entry of more than 1024 bytes"
        );
        assert_eq!(refusal(&vec![b'\n'; (64 << 20) + 1]), "/words.txt: more than 64 MiB");
        let directory = TempDir::new().unwrap();
        let missing = directory.path().join("missing.txt");
        let error = Watch::begin(missing.clone(), words).err().unwrap().to_string();
        assert!(
            error.starts_with(&format!("{}: cannot read it: ", missing.display())),
            "{error}"
        );
        let error = Watch::begin(directory.path().to_owned(), words)
            .err()
            .unwrap()
            .to_string();
        assert!(error.ends_with(": cannot read it: not a regular file"), "{error}");
    }

    #[test]
    fn a_file_is_read_again_when_it_has_changed() {
        let file = File::new("one\n");
        assert_eq!(file.news(), None);
        file.write("one\ntwo\n", 100);
        assert_eq!(file.news(), Some(Ok(2)));
        assert_eq!(file.list(), ["one", "two"]);
        assert_eq!(file.news(), None);
        // Touched, not changed.
        file.write("one\ntwo\n", 50);
        assert_eq!(file.news(), None);
    }

    #[test]
    fn a_file_that_is_being_written_is_not_read() {
        let file = File::new("one\ntwo\nthree\n");
        for text in ["", "four\n", "four\nfive\n"] {
            file.write(text, 0);
            assert_eq!(file.watch.news(), None);
        }
        assert_eq!(file.list(), ["one", "three", "two"]);
        assert_eq!(file.news(), Some(Ok(2)));
        assert_eq!(file.list(), ["five", "four"]);
    }

    #[test]
    fn a_list_that_is_emptied_is_told_from_one_that_was_empty() {
        let file = File::new("one\ntwo\n");
        let emptied = |text: &str, age| {
            file.write(text, age);
            file.taken()
                .map(|taken| taken.map(|taken| (taken.before, taken.entries)))
        };
        // A bad one in between is not in use.
        assert!(emptied("bad!\n", 100).is_some_and(|news| news.is_err()));
        assert_eq!(emptied("", 90), Some(Ok((2, 0))));
        assert_eq!(emptied("# none\n", 80), Some(Ok((0, 0))));
        assert_eq!(emptied("one\n", 70), Some(Ok((0, 1))));
    }

    #[test]
    fn a_bad_file_is_said_once_and_the_last_good_list_stays() {
        let file = File::new("one\n");
        file.write("two\nthree!\n", 100);
        assert_eq!(file.news(), Some(Err("/words.txt:2: no exclamations".into())));
        assert_eq!(file.news(), None);
        file.write("two\n\nthree!\n", 90);
        assert_eq!(file.news(), Some(Err("/words.txt:3: no exclamations".into())));
        assert_eq!(file.list(), ["one"]);
        file.write("two\n", 80);
        assert_eq!(file.news(), Some(Ok(1)));
        assert_eq!(file.list(), ["two"]);
    }

    #[test]
    fn a_file_that_has_vanished_is_said_once_and_read_when_it_is_back() {
        let file = File::new("one\n");
        fs::remove_file(file.path()).unwrap();
        let Some(Err(error)) = file.news() else {
            panic!("nothing is said")
        };
        assert!(error.starts_with("/words.txt: cannot read it: "), "{error}");
        assert_eq!(file.news(), None);
        assert_eq!(file.list(), ["one"]);
        file.write("one\n", 100);
        assert_eq!(file.news(), Some(Ok(1)));
    }

    #[test]
    fn a_change_within_one_tick_of_the_clock_is_found_by_the_contents() {
        let file = File::new("one\n");
        file.write("two\n", 0);
        assert_eq!(file.news(), Some(Ok(1)));
        let modified = fs::metadata(file.path()).unwrap().modified().unwrap();
        fs::write(file.path(), "six\n").unwrap();
        let handle = fs::File::options().write(true).open(file.path()).unwrap();
        handle.set_modified(modified).unwrap();
        assert_eq!(file.news(), Some(Ok(1)));
        assert_eq!(file.list(), ["six"]);
    }
}
