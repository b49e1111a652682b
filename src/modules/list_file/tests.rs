//! Lists as configs give them, and files that change.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde_json::json;
use tempfile::TempDir;

use super::watch::Taken;
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
