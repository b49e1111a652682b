//! The ends of accounts, in a SQLite file.
//!
//! The file has a rollback journal and is written through to the disk at each commit: a change that was answered survives
//! a kill and a loss of power. Between two changes it is one file without others beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ganglion_api::{MAX_INT, OwnedUserId, UserId};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tokio::sync::Mutex;

/// What says that a database is one of these: `GgAE`, at offset 68 of its file.
const APPLICATION: u32 = u32::from_be_bytes(*b"GgAE");

/// The schema that is written; at offset 60 of the file.
const VERSION: u32 = 1;

const SCHEMA: &str = "CREATE TABLE accounts (
    user_id TEXT PRIMARY KEY NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID";

/// How long a call waits while another process writes. Less than a call's usual budget, so that it can say why it failed.
const PATIENCE: Duration = Duration::from_millis(500);

/// How a file of SQLite begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// So many bytes before the first page say whose a file is.
const HEADER: usize = 100;

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
}

impl ExpiryStore {
    /// Opens the file, or makes it, readable for its owner only. Blocks.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(super) fn open(file: PathBuf) -> Result<Self, OpenError> {
        let connection = open(&file)?;
        Ok(Self(Arc::new(Inner {
            file,
            connection: Arc::new(Mutex::new(connection)),
            is_damaged: AtomicBool::new(false),
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

    /// Changes an account's end and gives the new one. `then` runs after it, on the thread that did it, whether it was done
    /// or not.
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
        then: impl FnOnce() + Send + 'static,
    ) -> Result<Option<i64>, StoreError> {
        self.run(move |store, connection| {
            let end = store.change(connection, &user, change);
            then();
            end
        })
        .await
    }

    /// Runs something with the connection, on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // Whoever waits for its turn waits here, and not on a thread.
        let mut connection = Arc::clone(&self.0.connection).lock_owned().await;
        let store = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&store, &mut connection)).await;
        done.unwrap_or(Err(StoreError::Gone))
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

/// Looks at a file without SQLite, which would repair what is none of our business. Whether it is new: absent or empty.
fn is_new(file: &Path) -> Result<bool, OpenError> {
    let refuse = |source| OpenError::Read {
        file: file.to_owned(),
        source,
    };
    let metadata = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make(file).map(|()| true),
        metadata => metadata.map_err(refuse)?,
    };
    if !metadata.is_file() {
        // A pipe would hold whoever reads it.
        return Err(refuse(io::Error::other("not a regular file")));
    }
    let mut header = Vec::with_capacity(HEADER);
    let open = File::open(file).map_err(refuse)?;
    open.take(HEADER as u64).read_to_end(&mut header).map_err(refuse)?;
    if header.is_empty() {
        return Ok(true);
    }
    if header.len() < HEADER || !header.starts_with(MAGIC) {
        return Err(OpenError::NoDatabase(file.to_owned()));
    }
    let number = |offset: usize| {
        let bytes = header.iter().skip(offset).take(4);
        bytes.fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
    };
    match (number(68), number(60)) {
        (APPLICATION, VERSION) => Ok(false),
        (APPLICATION, version) if version > VERSION => Err(OpenError::Newer {
            file: file.to_owned(),
            version,
        }),
        _ => Err(OpenError::Foreign(file.to_owned())),
    }
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

fn open(file: &Path) -> Result<Connection, OpenError> {
    let is_new = is_new(file)?;
    let explain = |error: rusqlite::Error| {
        let file = file.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => OpenError::Damaged {
                file,
                reason: error.to_string(),
            },
            _ => OpenError::Sqlite { file, source: error },
        }
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // Some relative names, such as `:memory:`, mean something else than a file to SQLite.
    let path = fs::canonicalize(file).map_err(|source| OpenError::Read {
        file: file.to_owned(),
        source,
    })?;
    let mut connection = Connection::open_with_flags(path, flags).map_err(explain)?;
    connection.busy_timeout(PATIENCE).map_err(explain)?;
    if connection.is_readonly("main").map_err(explain)? {
        return Err(OpenError::ReadOnly(file.to_owned()));
    }
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
