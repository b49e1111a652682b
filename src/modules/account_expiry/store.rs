//! The ends of accounts, in a SQLite file.
//!
//! The file has a rollback journal and is written through to the disk at each commit: a change that was answered survives
//! a kill and a loss of power. Between two changes it is one file without others beside it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ganglion_api::{MAX_INT, OwnedUserId, UserId};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// What says that a database is one of these: `GgAE`, at offset 68 of its file.
const APPLICATION: u32 = u32::from_be_bytes(*b"GgAE");

/// The schema that is written; at offset 60 of the file.
const VERSION: u32 = 1;

const SCHEMA: &str = "CREATE TABLE accounts (
    user_id TEXT PRIMARY KEY NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID";

/// So many bytes at the begin of a file say whose it is.
const HEADER: u64 = 100;

/// How the journal begins that takes back a transaction of SQLite.
const JOURNAL_MAGIC: &[u8; 8] = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7";

/// Closing a file lets go of all locks that this process has on it, those of SQLite too. So nobody may find a new file before
/// it is closed.
static MAKING: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Why a database cannot be used. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("cannot make {}: {source}: the directory has to be there, and writable for Ganglion", .file.display())]
    Make { file: PathBuf, source: io::Error },
    #[error("cannot read {}: {source}", .file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{} is no SQLite database: name another file, or move this one away", .0.display())]
    NoDatabase(PathBuf),
    #[error("{} is the database of another application: name another file", .0.display())]
    Foreign(PathBuf),
    #[error("{} was written by a newer Ganglion (schema {version}, this one knows {VERSION}): run that one", .file.display())]
    Newer { file: PathBuf, version: u32 },
    #[error(
        "{} is damaged ({reason}): put a backup in its place, or save what is left with `sqlite3 … .recover`",
        .file.display()
    )]
    Damaged { file: PathBuf, reason: String },
    #[error("{} can only be read: make it writable for Ganglion", .0.display())]
    ReadOnly(PathBuf),
    #[error("{} is in use by a process that keeps another journal ({journal}): end that one", .file.display())]
    InUse { file: PathBuf, journal: String },
    #[error("cannot open {}: {source}", .file.display())]
    Sqlite { file: PathBuf, source: rusqlite::Error },
}

/// Why the database could not do what was asked. Nothing of it was done.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error(
        "{} is damaged ({source}); nothing is written to it any more: put a backup in its place and restart the module",
        .file.display()
    )]
    Damaged { file: PathBuf, source: rusqlite::Error },
    #[error(
        "{} was found damaged and is not written to: put a backup in its place and restart the module",
        .0.display()
    )]
    FoundDamaged(PathBuf),
    #[error("cannot write {}: the disk is full", .0.display())]
    Full(PathBuf),
    #[error("cannot use {}: another process holds its lock", .0.display())]
    Busy(PathBuf),
    #[error("cannot use {}: the calls before this one did not end in time", .0.display())]
    Queued(PathBuf),
    #[error("cannot use {}: {source}", .file.display())]
    Sqlite { file: PathBuf, source: rusqlite::Error },
    #[error("the end would be later than can be written")]
    TooLate,
    #[error("the thread that uses the database is gone")]
    Gone,
}

/// A change of one account's end. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The account is new; an end that is there already stays.
    Register(i64),
    /// It ends then.
    Set(i64),
    /// It ends so much later than it does, or than now if it has ended or had no end.
    Extend { now: i64, by: i64 },
    /// It has no end.
    Forget,
}

impl Change {
    /// The end afterwards; `None` if there is none.
    fn apply(self, present: Option<i64>) -> Result<Option<i64>, StoreError> {
        let end = match self {
            Self::Register(end) => present.unwrap_or(end),
            Self::Set(end) => end,
            Self::Extend { now, by } => present.map_or(now, |end| end.max(now)).saturating_add(by),
            Self::Forget => return Ok(None),
        };
        if end > MAX_INT {
            return Err(StoreError::TooLate);
        }
        Ok(Some(end))
    }
}

/// The ends of accounts. Clones are the same store.
#[derive(Clone)]
pub(super) struct ExpiryStore(Arc<Inner>);

struct Inner {
    file: PathBuf,
    connection: Arc<Mutex<Connection>>,
    /// Whether it was found damaged since it was opened.
    is_damaged: AtomicBool,
    /// How long a call waits until it can begin, for those before it and for other processes; and how long to commit.
    patience: Duration,
}

impl ExpiryStore {
    /// Opens the file, or makes it, readable for its owner only. Blocks. A call waits so long for the file until it fails
    /// with the reason, and as long again to commit.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(super) fn open(file: PathBuf, patience: Duration) -> Result<Self, OpenError> {
        let connection = open(&file, patience)?;
        Ok(Self(Arc::new(Inner {
            file,
            connection: Arc::new(Mutex::new(connection)),
            is_damaged: AtomicBool::new(false),
            patience,
        })))
    }

    /// When an account ends; `None` if nothing is known of it.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) async fn end(&self, user: OwnedUserId) -> Result<Option<i64>, StoreError> {
        self.run(move |store, connection| end(connection, &user).map_err(|error| store.explain(error)))
            .await
    }

    /// Changes an account's end and gives the new one. `then` is told it, or why there is none, on the thread that did it.
    ///
    /// # Errors
    /// The change is not possible, or the database cannot be written.
    ///
    /// # Cancellation
    /// Either nothing has begun, or it goes on to its end, `then` too.
    pub(super) async fn change(
        &self,
        user: OwnedUserId,
        change: Change,
        then: impl FnOnce(&Result<Option<i64>, StoreError>) + Send + 'static,
    ) -> Result<Option<i64>, StoreError> {
        self.run(move |store, connection| {
            let end = store.change(connection, &user, change);
            then(&end);
            end
        })
        .await
    }

    /// Runs something with the connection, on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        // Whoever waits for its turn waits here, and not on a thread.
        let turn = timeout(self.0.patience, Arc::clone(&self.0.connection).lock_owned()).await;
        let mut connection = turn.map_err(|_| StoreError::Queued(self.0.file.clone()))?;
        let patience = self.0.patience.saturating_sub(began.elapsed());
        let store = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || {
            let set = connection.busy_timeout(patience);
            set.map_err(|error| store.explain(error))?;
            work(&store, &mut connection)
        });
        done.await.unwrap_or(Err(StoreError::Gone))
    }
}

impl Inner {
    fn change(&self, connection: &mut Connection, user: &UserId, change: Change) -> Result<Option<i64>, StoreError> {
        if self.is_damaged.load(Ordering::Relaxed) {
            return Err(StoreError::FoundDamaged(self.file.clone()));
        }
        let explain = |error| self.explain(error);
        // A lock that were taken only at the first write could not be waited for.
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(explain)?;
        let present = end(&transaction, user).map_err(explain)?;
        let end = change.apply(present)?;
        if end != present {
            write(&transaction, user, end).map_err(explain)?;
            transaction.commit().map_err(explain)?;
        }
        Ok(end)
    }

    fn explain(&self, error: rusqlite::Error) -> StoreError {
        let file = self.file.clone();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                self.is_damaged.store(true, Ordering::Relaxed);
                StoreError::Damaged { file, source: error }
            }
            Some(ErrorCode::DiskFull) => StoreError::Full(file),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy(file),
            _ => StoreError::Sqlite { file, source: error },
        }
    }
}

fn end(connection: &Connection, user: &UserId) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare("SELECT expires_at FROM accounts WHERE user_id = ?1")?;
    statement.query_row([user.as_str()], |row| row.get(0)).optional()
}

fn write(transaction: &Transaction<'_>, user: &UserId, end: Option<i64>) -> rusqlite::Result<()> {
    let user = user.as_str();
    match end {
        Some(end) => transaction.execute(
            "INSERT INTO accounts (user_id, expires_at) VALUES (?1, ?2)
                ON CONFLICT (user_id) DO UPDATE SET expires_at = excluded.expires_at",
            params![user, end],
        ),
        None => transaction.execute("DELETE FROM accounts WHERE user_id = ?1", [user]),
    }?;
    Ok(())
}

/// Says whose a file is and leaves it as it is: SQLite, when it may write, repairs what is none of our business. A file that
/// is not there is made, empty.
fn look(file: &Path) -> Result<(), OpenError> {
    let refuse = |source| OpenError::Read {
        file: file.to_owned(),
        source,
    };
    let metadata = {
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::metadata(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return make(file),
            metadata => metadata.map_err(refuse)?,
        }
    };
    if !metadata.is_file() {
        // A pipe would hold whoever reads it.
        return Err(refuse(io::Error::other("not a regular file")));
    }
    if metadata.len() == 0 {
        return Ok(());
    }
    if metadata.len() < HEADER {
        return Err(OpenError::NoDatabase(file.to_owned()));
    }
    let path = canonical(file)?;
    match owner(&path) {
        Ok((APPLICATION, VERSION)) => Ok(()),
        Ok((APPLICATION, version)) if version > VERSION => Err(OpenError::Newer {
            file: file.to_owned(),
            version,
        }),
        Ok(_) => Err(OpenError::Foreign(file.to_owned())),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            match was_empty(&path, metadata.len()).map_err(refuse)? {
                // What the file has now, SQLite takes back.
                true => Ok(()),
                false => Err(OpenError::NoDatabase(file.to_owned())),
            }
        }
        Err(error) => Err(explain(file, error)),
    }
}

/// The numbers of application and schema in the header of a database. SQLite reads them, since only SQLite can close a file
/// on which it has a lock without losing that; it takes no lock for it and looks at no journal.
fn owner(file: &Path) -> rusqlite::Result<(u32, u32)> {
    let mut uri = "file:".to_owned();
    for byte in file.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => uri.push((*byte).into()),
            _ => {
                let written = write!(uri, "%{byte:02x}");
                debug_assert!(written.is_ok(), "text takes everything");
            }
        }
    }
    uri += "?immutable=1";
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri, flags)?;
    // Without it a file would be damaged that is shorter than its header says, as it may be until its journal is played back.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, true)?;
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    Ok((
        number("application_id")?.cast_unsigned(),
        number("user_version")?.cast_unsigned(),
    ))
}

/// Whether a file of this length was empty before a transaction that its journal can take back: a crash came in the middle of
/// the first one.
fn was_empty(file: &Path, len: u64) -> io::Result<bool> {
    let mut journal: OsString = file.into();
    journal.push("-journal");
    let mut header = Vec::new();
    match fs::symlink_metadata(&journal) {
        Ok(metadata) if metadata.is_file() => File::open(journal)?.take(28).read_to_end(&mut header)?,
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let number = |offset: usize| Some(u32::from_be_bytes(*header.get(offset..)?.first_chunk()?));
    let (pages, page_size) = (number(16), number(24));
    Ok(header.starts_with(JOURNAL_MAGIC)
        && pages == Some(0)
        && page_size.is_some_and(|size| len.checked_rem(size.into()) == Some(0)))
}

/// Makes an empty file, unless another process just did.
fn make(file: &Path) -> Result<(), OpenError> {
    // What SQLite puts beside it later has the same mode.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(OpenError::Make {
            file: file.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// The path as SQLite has to be told it: some relative names, such as `:memory:`, mean something else than a file there.
fn canonical(file: &Path) -> Result<PathBuf, OpenError> {
    fs::canonicalize(file).map_err(|source| OpenError::Read {
        file: file.to_owned(),
        source,
    })
}

fn explain(file: &Path, error: rusqlite::Error) -> OpenError {
    let file = file.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => OpenError::Damaged {
            file,
            reason: error.to_string(),
        },
        _ => OpenError::Sqlite { file, source: error },
    }
}

fn open(file: &Path, patience: Duration) -> Result<Connection, OpenError> {
    look(file)?;
    let explain = |error| explain(file, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(canonical(file)?, flags).map_err(explain)?;
    connection.busy_timeout(patience).map_err(explain)?;
    if connection.is_readonly("main").map_err(explain)? {
        return Err(OpenError::ReadOnly(file.to_owned()));
    }
    // Not what was looked at: a transaction that a crash cut off has been taken back now, maybe the first one.
    let pages: i64 = connection
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .map_err(explain)?;
    let is_new = pages == 0;
    if !is_new {
        check(&connection, file).map_err(explain)??;
    }
    let journal = connection.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get::<_, String>(0));
    let journal = journal.map_err(explain)?;
    if journal != "delete" {
        return Err(OpenError::InUse {
            file: file.to_owned(),
            journal,
        });
    }
    connection
        .pragma_update(None, "synchronous", "EXTRA")
        .map_err(explain)?;
    if is_new {
        lay_out(&mut connection).map_err(explain)?;
    }
    Ok(connection)
}

/// Reads the whole database and says what is wrong with it.
fn check(connection: &Connection, file: &Path) -> rusqlite::Result<Result<(), OpenError>> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    let schema: Option<String> = connection
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'accounts'", [], |row| {
            row.get(0)
        })
        .optional()?;
    let reason = match (found.as_str(), schema) {
        ("ok", Some(schema)) if schema == SCHEMA => return Ok(Ok(())),
        ("ok", _) => "it has not the table accounts as this version makes it".into(),
        // What SQLite says may be many lines.
        _ => found.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    Ok(Err(OpenError::Damaged {
        file: file.to_owned(),
        reason,
    }))
}

/// Makes the table, unless another process just did. All of it or nothing is in the file.
fn lay_out(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let version: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests;
