use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A directory with the path of a database.
struct Place {
    directory: TempDir,
    file: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("expiry.db");
        Self { directory, file }
    }

    /// A store that waits as long as it has to.
    fn open(&self) -> ExpiryStore {
        self.open_with(Duration::from_secs(60))
    }

    fn open_with(&self, patience: Duration) -> ExpiryStore {
        ExpiryStore::open(self.file.clone(), patience).unwrap()
    }

    /// Shows that a file with these bytes is refused, and is left as it is, alone; gives the reason.
    fn refusal(&self, bytes: &[u8]) -> String {
        fs::write(&self.file, bytes).unwrap();
        let names = self.names();
        let error = ExpiryStore::open(self.file.clone(), Duration::ZERO).err();
        let error = error.expect("it is refused");
        assert_eq!(fs::read(&self.file).unwrap(), bytes);
        assert_eq!(self.names(), names);
        let text = error.to_string();
        assert!(text.contains(&self.file.display().to_string()), "{text}");
        text
    }

    /// What is in the directory.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The bytes of a database with so many accounts.
    fn filled(&self, accounts: usize) -> Vec<u8> {
        drop(self.open());
        let connection = Connection::open(&self.file).unwrap();
        connection.execute_batch("BEGIN").unwrap();
        for number in 0..accounts {
            let user = user(&format!("user{number}"));
            connection
                .execute("INSERT INTO accounts VALUES (?1, ?2)", params![user.as_str(), 1])
                .unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
        connection.close().unwrap();
        fs::read(&self.file).unwrap()
    }
}

fn user(name: &str) -> OwnedUserId {
    OwnedUserId::try_from(format!("@{name}:example.com")).unwrap()
}

async fn set(store: &ExpiryStore, name: &str, end: i64) -> Result<Option<i64>, StoreError> {
    store.change(user(name), Change::Set(end), |_| {}).await
}

#[tokio::test]
async fn an_end_that_was_answered_is_in_the_file_though_nothing_was_closed() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(
        store.change(user("bob"), Change::Register(5), |_| {}).await.unwrap(),
        Some(5)
    );
    // What a process leaves that is killed now.
    assert_eq!(place.names(), ["expiry.db"]);
    let copy = Place::new();
    fs::copy(&place.file, &copy.file).unwrap();
    assert_eq!(copy.open().end(user("bob")).await.unwrap(), Some(5));
    assert_eq!(copy.open().end(user("eve")).await.unwrap(), None);
}

#[tokio::test]
async fn a_change_that_a_crash_cut_off_is_undone() {
    let place = Place::new();
    set(&place.open(), "bob", 1).await.unwrap();
    let before = fs::read(&place.file).unwrap();
    let writer = Connection::open(&place.file).unwrap();
    writer
        .execute_batch("BEGIN; UPDATE accounts SET expires_at = 2")
        .unwrap();
    // Half of a commit: the pages are in the file, and the journal that can take them back is still there.
    writer.cache_flush().unwrap();
    assert_eq!(place.names(), ["expiry.db", "expiry.db-journal"]);
    let crashed = Place::new();
    for name in place.names() {
        fs::copy(place.directory.path().join(&name), crashed.directory.path().join(&name)).unwrap();
    }
    assert_ne!(fs::read(&crashed.file).unwrap(), before);
    assert_eq!(crashed.open().end(user("bob")).await.unwrap(), Some(1));
    assert_eq!(crashed.names(), ["expiry.db"]);
}

/// What a crash in the middle of the first transaction leaves: pages, and the journal that can take them back.
fn cut_off() -> Place {
    let place = Place::new();
    let mut writer = Connection::open(&place.file).unwrap();
    let transaction = writer.transaction().unwrap();
    transaction.execute_batch(SCHEMA).unwrap();
    transaction.pragma_update(None, "application_id", APPLICATION).unwrap();
    transaction.pragma_update(None, "user_version", VERSION).unwrap();
    transaction.cache_flush().unwrap();
    assert_eq!(place.names(), ["expiry.db", "expiry.db-journal"]);
    let crashed = Place::new();
    for name in place.names() {
        fs::copy(place.directory.path().join(&name), crashed.directory.path().join(&name)).unwrap();
    }
    crashed
}

#[tokio::test]
async fn a_first_layout_that_a_crash_cut_off_is_made_anew() {
    // SQLite writes the first page last.
    let written = Place::new().filled(0);
    assert_eq!(written.len(), 2 * 4096);
    let without_first = [&[0; 4096][..], &written[4096..]].concat();
    // Pages come to the disk in any order.
    for (what, bytes) in [
        ("all", &written[..]),
        ("the first page", &written[..4096]),
        ("the second page", &without_first),
        ("their place", &[0; 8192]),
        ("nothing", b""),
    ] {
        let place = cut_off();
        fs::write(&place.file, bytes).unwrap();
        let store = place.open();
        assert_eq!(set(&store, "bob", 1).await.unwrap(), Some(1), "{what}");
        assert_eq!(place.names(), ["expiry.db"]);
        assert_eq!(place.open().end(user("bob")).await.unwrap(), Some(1), "{what}");
    }
}

#[test]
fn a_journal_beside_what_is_no_database_changes_nothing() {
    let place = cut_off();
    let journal = place.directory.path().join("expiry.db-journal");
    let good = fs::read(&journal).unwrap();
    let is_refused = |bytes: &[u8]| {
        let refusal = place.refusal(bytes);
        assert!(refusal.contains(" is no SQLite database: "), "{refusal}");
    };
    // Text has not the length of a database.
    is_refused(&[b'.'; 5000]);
    let mut of_more_pages = good.clone();
    of_more_pages[19] = 1;
    let mut no_journal = good.clone();
    no_journal[0] = 0;
    for bytes in [&of_more_pages[..], &no_journal, &good[..27], b""] {
        fs::write(&journal, bytes).unwrap();
        is_refused(&[0; 4096]);
        assert_eq!(fs::read(&journal).unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_path_may_have_any_letters() {
    let mut place = Place::new();
    place.file = place.directory.path().join("ends?mode=ro&%41 #1.db");
    set(&place.open(), "bob", 1).await.unwrap();
    assert_eq!(place.open().end(user("bob")).await.unwrap(), Some(1));
    assert_eq!(place.names(), ["ends?mode=ro&%41 #1.db"]);
}

#[test]
fn the_file_is_for_its_owner_only_and_is_written_through_to_the_disk() {
    let place = Place::new();
    let store = place.open();
    let mode = fs::metadata(&place.file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let connection = store.0.connection.try_lock().unwrap();
    let pragma =
        |name: &str| -> rusqlite::types::Value { connection.pragma_query_value(None, name, |row| row.get(0)).unwrap() };
    assert_eq!(pragma("journal_mode"), "delete".to_owned().into());
    assert_eq!(pragma("synchronous"), 3.into());
}

#[tokio::test]
async fn an_empty_file_becomes_a_database() {
    let place = Place::new();
    fs::write(&place.file, "").unwrap();
    set(&place.open(), "bob", 1).await.unwrap();
    assert_eq!(place.open().end(user("bob")).await.unwrap(), Some(1));
}

#[test]
fn what_is_no_database_of_this_module_is_refused_and_left_alone() {
    let place = Place::new();
    let ours = place.filled(0);
    for bytes in [&b"hello"[..], &[0; 4096], &ours[..99], &b"SQLite format 3\0"[..]] {
        assert!(
            place
                .refusal(bytes)
                .ends_with(" is no SQLite database: name another file, or move this one away")
        );
    }
    let mut foreign = ours.clone();
    foreign[68..72].copy_from_slice(&[0; 4]);
    let foreign = place.refusal(&foreign);
    assert!(
        foreign.ends_with(" is the database of another application: name another file"),
        "{foreign}"
    );
    let mut newer = ours;
    newer[63] = 2;
    let newer = place.refusal(&newer);
    assert!(
        newer.ends_with(" was written by a newer Ganglion (schema 2, this one knows 1): run that one"),
        "{newer}"
    );
}

#[test]
fn a_damaged_database_is_refused_and_left_alone() {
    let place = Place::new();
    let good = place.filled(1000);
    let mut overwritten = good.clone();
    overwritten[8192..8392].fill(0xab);
    let mut torn_table = good.clone();
    // The first page after its header and the table of pages: the schema.
    torn_table[100..200].fill(0xff);
    for (what, bytes) in [
        ("a page", &overwritten[..]),
        ("the schema", &torn_table),
        ("cut off", &good[..good.len() / 2]),
        ("cut within a page", &good[..4096 + 100]),
    ] {
        let reason = place.refusal(bytes);
        assert!(
            reason.contains(" is damaged (") && reason.contains("put a backup in its place"),
            "{what}: {reason}"
        );
    }
    let other = {
        let place = Place::new();
        let connection = Connection::open(&place.file).unwrap();
        connection.pragma_update(None, "application_id", APPLICATION).unwrap();
        connection.pragma_update(None, "user_version", VERSION).unwrap();
        connection.close().unwrap();
        fs::read(&place.file).unwrap()
    };
    assert!(place.refusal(&other).contains("it has not the table accounts"));
}

#[test]
fn a_file_that_cannot_be_there_says_what_to_do() {
    let place = Place::new();
    let refusal = |file: PathBuf| ExpiryStore::open(file, Duration::ZERO).err().unwrap().to_string();
    let nowhere = refusal(place.directory.path().join("none/expiry.db"));
    assert!(
        nowhere.starts_with("cannot make ") && nowhere.contains("the directory has to be there"),
        "{nowhere}"
    );
    let directory = refusal(place.directory.path().to_owned());
    assert!(directory.ends_with(": not a regular file"), "{directory}");
}

#[tokio::test]
async fn damage_that_is_found_later_ends_all_writing_and_no_reading() {
    let place = Place::new();
    place.filled(1000);
    let store = place.open();
    set(&store, "bob", 7).await.unwrap();
    let good = fs::read(&place.file).unwrap();
    let mut bad = good.clone();
    bad[4096..].fill(0xab);
    // What SQLite goes by to read the pages again.
    bad[27] = bad[27].wrapping_add(1);
    fs::write(&place.file, &bad).unwrap();
    let error = store.end(user("bob")).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    let error = set(&store, "bob", 8).await.unwrap_err().to_string();
    assert!(
        error.contains("was found damaged and is not written to: put a backup in its place"),
        "{error}"
    );
    assert_eq!(fs::read(&place.file).unwrap(), bad);
    // What can be read still is, here all of it.
    let mut whole = good.clone();
    whole[27] = whole[27].wrapping_add(2);
    fs::write(&place.file, &whole).unwrap();
    assert_eq!(store.end(user("bob")).await.unwrap(), Some(7));
    assert!(matches!(set(&store, "bob", 8).await, Err(StoreError::FoundDamaged(_))));
}

#[tokio::test]
async fn on_a_full_disk_a_change_fails_and_nothing_is_lost() {
    let place = Place::new();
    let store = place.open();
    let limit = |pages: u32| {
        let connection = store.0.connection.try_lock().unwrap();
        let _: i64 = connection
            .pragma_update_and_check(None, "max_page_count", pages, |row| row.get(0))
            .unwrap();
    };
    limit(3);
    let mut done = 0;
    let error = loop {
        match set(&store, &format!("{done}{}", "x".repeat(200)), 1).await {
            Ok(_) => done += 1,
            Err(error) => break error,
        }
        assert!(done < 1000);
    };
    assert!(error.to_string().ends_with(": the disk is full"), "{error}");
    assert!(done > 0);
    for number in 0..done {
        assert_eq!(
            store.end(user(&format!("{number}{}", "x".repeat(200)))).await.unwrap(),
            Some(1)
        );
    }
    limit(1000);
    assert_eq!(set(&store, "bob", 1).await.unwrap(), Some(1));
}

#[tokio::test]
async fn two_on_one_file_see_what_the_other_did_and_wait_for_its_lock_but_not_for_ever() {
    let place = Place::new();
    let (one, other) = (place.open_with(Duration::ZERO), place.open());
    set(&one, "bob", 1).await.unwrap();
    assert_eq!(other.end(user("bob")).await.unwrap(), Some(1));
    set(&other, "bob", 2).await.unwrap();
    assert_eq!(one.end(user("bob")).await.unwrap(), Some(2));
    let lock = Connection::open(&place.file).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = set(&one, "bob", 3).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy(_)), "{error}");
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(set(&one, "bob", 3).await.unwrap(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_those_before_it_but_not_for_ever() {
    let place = Place::new();
    let store = place.open_with(Duration::from_millis(200));
    let before = store.0.connection.lock().await;
    let (one, other) = tokio::join!(set(&store, "bob", 1), store.end(user("bob")));
    for error in [one.unwrap_err(), other.unwrap_err()] {
        assert!(
            error
                .to_string()
                .ends_with(": the calls before this one did not end in time"),
            "{error}"
        );
    }
    drop(before);
    assert_eq!(set(&store, "bob", 1).await.unwrap(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_those_before_is_taken_of_the_wait_for_other_processes() {
    let place = Place::new();
    let store = place.open_with(Duration::from_secs(60));
    let before = store.0.connection.lock().await;
    let mut call = Box::pin(store.end(user("bob")));
    assert!(call.as_mut().now_or_never().is_none());
    tokio::time::advance(Duration::from_secs(59)).await;
    drop(before);
    assert_eq!(call.await.unwrap(), None);
    let connection = store.0.connection.lock().await;
    let left: i64 = connection
        .pragma_query_value(None, "busy_timeout", |row| row.get(0))
        .unwrap();
    assert!(left <= 1000, "{left}");
}

/// The locks that processes have on a file, as the system says.
#[cfg(target_os = "linux")]
fn locks(file: &Path) -> usize {
    use std::os::linux::fs::MetadataExt as _;
    let inode = format!(":{} ", fs::metadata(file).unwrap().st_ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().filter(|lock| lock.contains(&inode)).count()
}

#[cfg(target_os = "linux")]
#[test]
fn opening_a_file_takes_no_lock_from_those_who_have_it_open() {
    let place = Place::new();
    drop(place.open());
    let lock = Connection::open(&place.file).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let held = locks(&place.file);
    assert_ne!(held, 0);
    let other = place.open();
    assert_eq!(locks(&place.file), held);
    drop(other);
    assert_eq!(locks(&place.file), held);
    lock.execute_batch("PRAGMA user_version = 2; COMMIT; BEGIN IMMEDIATE")
        .unwrap();
    assert!(ExpiryStore::open(place.file.clone(), Duration::ZERO).is_err());
    assert_eq!(locks(&place.file), held);
}

#[test]
fn two_that_make_one_file_at_once_make_one_database() {
    let place = Place::new();
    std::thread::scope(|scope| {
        let made: Vec<_> = (0..4).map(|_| scope.spawn(|| drop(place.open()))).collect();
        for made in made {
            made.join().unwrap();
        }
    });
    drop(place.open());
    assert_eq!(place.names(), ["expiry.db"]);
}

#[tokio::test]
async fn a_change_whose_caller_has_gone_is_done_whole() {
    let place = Place::new();
    let store = place.open();
    let (done, is_done) = mpsc::channel();
    let mut change = Box::pin(store.change(user("bob"), Change::Set(9), move |end| {
        done.send(end.as_ref().ok().copied()).unwrap();
    }));
    assert!(change.as_mut().now_or_never().is_none());
    drop(change);
    let told = tokio::task::spawn_blocking(move || is_done.recv().unwrap()).await;
    assert_eq!(told.unwrap(), Some(Some(9)));
    assert_eq!(store.end(user("bob")).await.unwrap(), Some(9));
}

#[test]
fn an_end_that_is_too_late_is_no_end() {
    let too_late = Change::Extend { now: 0, by: i64::MAX }.apply(Some(MAX_INT));
    assert!(matches!(too_late, Err(StoreError::TooLate)));
    assert!(matches!(Change::Set(MAX_INT + 1).apply(None), Err(StoreError::TooLate)));
    assert_eq!(Change::Set(MAX_INT).apply(None).unwrap(), Some(MAX_INT));
}

fn changes() -> impl Strategy<Value = Change> {
    let time = 0..1000_i64;
    prop_oneof![
        time.clone().prop_map(Change::Register),
        time.clone().prop_map(Change::Set),
        (time.clone(), time).prop_map(|(now, by)| Change::Extend { now, by }),
        Just(Change::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn the_file_holds_what_a_map_would(steps in prop::collection::vec((0..3_usize, changes(), any::<bool>()), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let place = Place::new();
            let mut store = place.open();
            let mut model = BTreeMap::new();
            for (number, change, reopen) in steps {
                let name = ["ann", "bob", "eve"][number];
                let present = model.get(name).copied();
                let expected = match (change, present) {
                    (Change::Register(_), Some(end)) | (Change::Set(end) | Change::Register(end), _) => Some(end),
                    (Change::Extend { now, by }, Some(end)) if end > now => Some(end + by),
                    (Change::Extend { now, by }, _) => Some(now + by),
                    (Change::Forget, _) => None,
                };
                match expected {
                    Some(end) => model.insert(name, end),
                    None => model.remove(name),
                };
                assert_eq!(store.change(user(name), change, |_| {}).await.unwrap(), expected);
                if reopen {
                    store = place.open();
                }
                for name in ["ann", "bob", "eve"] {
                    assert_eq!(store.end(user(name)).await.unwrap(), model.get(name).copied());
                }
            }
        });
    }
}
