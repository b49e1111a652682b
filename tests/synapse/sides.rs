//! Two homeservers that differ in one thing: where the module runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ganglion::api::Homeserver as ModulesHomeserver;
use ganglion::wire::{Bridges, WireListeners, WireServer};
use ganglion::{Config, Ganglion, registry};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::client::{Body, Reply};
use crate::homeserver::Homeserver;
use crate::scripted::{self, Scripted};
use crate::transcript;

/// How long something that must happen is looked for. Only a test that fails takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A homeserver with the scripted module.
struct Side {
    /// Where the module runs.
    name: &'static str,
    homeserver: Homeserver,
    admin: Mutex<Option<String>>,
    notes: Notes,
    _hosted: Option<Hosted>,
    _files: TempDir,
}

/// A Ganglion in this process, as a program that embeds it would run it.
struct Hosted {
    _wire: WireServer,
    _ganglion: Ganglion,
    _runtime: Runtime,
}

impl Hosted {
    fn start(socket: &Path) -> anyhow::Result<Self> {
        // Nothing is to fail because the machine is busy, and nothing because much failed on purpose.
        let config = json!({
            "server_name": "example.com",
            "wire": { "socket": socket },
            "dispatch": { "deadline": "60s" },
            "modules": [{ "module": "test.Scripted", "call_timeout": "50s", "breaker": { "mode": "disabled" } }],
        });
        let registry = registry().with::<Scripted>("test.Scripted");
        let config = Config::from_yaml(&config.to_string(), "ganglion.yaml", &registry)?;
        let listeners = WireListeners::bind(&config.wire)?;
        let bridges = Arc::<Bridges>::default();
        let runtime = Runtime::new().context("cannot start a runtime")?;
        let homeserver = Arc::clone(&bridges) as Arc<dyn ModulesHomeserver>;
        let ganglion = runtime.block_on(Ganglion::start_with(&config, homeserver))?;
        let wire = WireServer::start(&config, listeners, &ganglion, &bridges)?;
        Ok(Self {
            _wire: wire,
            _ganglion: ganglion,
            _runtime: runtime,
        })
    }
}

/// Where the module writes down what it was told.
enum Notes {
    File(PathBuf),
    Memory,
}

impl Notes {
    fn read(&self) -> anyhow::Result<Vec<Value>> {
        match self {
            Self::File(path) => {
                let text = fs::read_to_string(path).context("cannot read the notes")?;
                // The last line may not be whole yet.
                Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
            }
            Self::Memory => Ok(scripted::notes()),
        }
    }
}

impl Side {
    /// The module inside Synapse, in Python.
    fn inside() -> anyhow::Result<Self> {
        let files = tempfile::tempdir().context("cannot make a directory for notes")?;
        let notes = files.path().join("notes");
        let modules = json!([{ "module": "scripted.Scripted", "config": { "notes": notes } }]);
        Ok(Self {
            name: "inside Synapse",
            homeserver: Homeserver::start_with(&modules, &settings())?,
            admin: Mutex::default(),
            notes: Notes::File(notes),
            _hosted: None,
            _files: files,
        })
    }

    /// The module in a Ganglion, which Synapse asks through the bridge.
    fn bridged() -> anyhow::Result<Self> {
        let files = tempfile::tempdir().context("cannot make a directory for a socket")?;
        let socket = files.path().join("ganglion.sock");
        let hosted = Hosted::start(&socket)?;
        let config = json!({ "socket": socket, "call_timeout": "60s" });
        let modules = json!([{ "module": "ganglion_synapse.Bridge", "config": config }]);
        Ok(Self {
            name: "behind Ganglion",
            homeserver: Homeserver::start_with(&modules, &settings())?,
            admin: Mutex::default(),
            notes: Notes::Memory,
            _hosted: Some(hosted),
            _files: files,
        })
    }
}

/// What the scenarios need beyond the settings of every test.
fn settings() -> Value {
    let unlimited = json!({ "per_second": 10_000, "burst_count": 10_000 });
    let invites = json!({ "per_second": 0.001, "burst_count": 4 });
    json!({
        "rc_login": { "address": unlimited, "account": unlimited, "failed_attempts": unlimited },
        "rc_3pid_validation": unlimited,
        "rc_third_party_invite": unlimited,
        "rc_invites": { "per_room": unlimited, "per_user": unlimited, "per_issuer": invites },
        "user_directory": { "enabled": true, "search_all_users": true },
        "room_list_publication_rules": [{ "action": "allow" }],
        "max_upload_size": "100K",
        "presence": { "enabled": true },
    })
}

/// Both, started once for all tests.
fn sides() -> &'static [Side; 2] {
    static SIDES: OnceLock<[Side; 2]> = OnceLock::new();
    SIDES.get_or_init(|| {
        let start = || {
            std::thread::scope(|scope| {
                let inside = scope.spawn(Side::inside);
                let bridged = Side::bridged()?;
                let inside = inside.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
                anyhow::Ok([inside, bridged])
            })
        };
        start().unwrap_or_else(|error| panic!("{error:?}"))
    })
}

/// Plays a scenario on both and shows that clients and modules cannot tell the difference.
pub(crate) fn on_both(scenario: impl Fn(&Stage) -> anyhow::Result<()>) {
    let [inside, bridged] = sides();
    let (expected, found) = (play(inside, &scenario), play(bridged, &scenario));
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(
            expected, found,
            "{} (left) and {} (right) differ",
            inside.name, bridged.name
        );
    }
    assert_eq!(expected.len(), found.len());
}

/// Plays a scenario behind Ganglion alone, because Synapse itself would not survive it.
pub(crate) fn behind_ganglion(scenario: impl Fn(&Stage) -> anyhow::Result<()>) {
    let [_, bridged] = sides();
    play(bridged, &scenario);
}

fn play(side: &'static Side, scenario: &impl Fn(&Stage) -> anyhow::Result<()>) -> Vec<String> {
    let stage = Stage {
        side,
        lines: Mutex::default(),
    };
    if let Err(error) = scenario(&stage) {
        panic!("the scenario broke off: {error:?}");
    }
    std::mem::take(&mut *stage.lines())
}

/// Where a scenario is played. What it asks with [`Stage::ask`] or [`Actor`] is compared.
pub(crate) struct Stage {
    side: &'static Side,
    lines: Mutex<Vec<String>>,
}

impl Drop for Stage {
    #[expect(
        clippy::print_stderr,
        reason = "the test harness shows what was printed this way, and only on failure"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- {} ----", self.side.name);
            for line in &*self.lines() {
                eprintln!("{line}");
            }
            eprintln!("---- Synapse ----\n{}\n", self.side.homeserver.tail());
        }
    }
}

/// A user in a scenario.
pub(crate) struct Actor<'a> {
    stage: &'a Stage,
    /// The full user id.
    pub(crate) id: String,
    token: String,
}

impl Stage {
    /// Registers a user.
    pub(crate) fn user(&self, name: &str) -> anyhow::Result<Actor<'_>> {
        let token = self.register(&json!({ "username": name, "password": name }))?;
        let token = token
            .success("access_token")
            .with_context(|| format!("no user {name}"))?;
        Ok(self.actor(name, token))
    }

    /// A user who has this token.
    pub(crate) fn actor(&self, name: &str, token: String) -> Actor<'_> {
        Actor {
            stage: self,
            id: format!("@{name}:example.com"),
            token,
        }
    }

    /// The administrator.
    pub(crate) fn admin(&self) -> anyhow::Result<Actor<'_>> {
        let mut admin = self.side.admin.lock().unwrap_or_else(PoisonError::into_inner);
        if admin.is_none() {
            self.side.homeserver.register_admin()?;
            let login = login("admin", "admin");
            let reply = self.peek("POST", "/_matrix/client/v3/login", None, &Body::Json(&login))?;
            *admin = Some(reply.success("access_token")?);
        }
        let token = admin.clone().context("no administrator")?;
        Ok(self.actor("admin", token))
    }

    /// Asks for an account.
    pub(crate) fn register(&self, form: &Value) -> anyhow::Result<Reply> {
        let mut form = form.clone();
        form["auth"] = json!({ "type": "m.login.dummy" });
        self.ask("POST", "/_matrix/client/v3/register", &form)
    }

    /// Asks as nobody, with a JSON body unless it is null.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Reply> {
        let body = if body.is_null() {
            Body::Nothing
        } else {
            Body::Json(body)
        };
        self.send(method, path, None, &body)
    }

    /// Asks, and notes what came of it.
    fn send(&self, method: &str, path: &str, token: Option<&str>, body: &Body<'_>) -> anyhow::Result<Reply> {
        let reply = self.peek(method, path, token, body)?;
        self.record(transcript::line(&format!("{method} {path}"), &reply));
        Ok(reply)
    }

    /// Asks what need not be the same on both sides.
    fn peek(&self, method: &str, path: &str, token: Option<&str>, body: &Body<'_>) -> anyhow::Result<Reply> {
        self.side.homeserver.client().ask(method, path, token, body)
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, line: String) {
        self.lines().push(line);
    }

    /// Waits until the module was told something by this callback that mentions `about`, and returns the args.
    pub(crate) fn noted(&self, callback: &str, about: &str) -> anyhow::Result<Value> {
        let what = format!("a note of {callback} about {about}");
        let note = self.wait(&what, || Ok(self.notes(callback, about)?.into_iter().next()))?;
        self.record(transcript::plain(&note.to_string()));
        Ok(note)
    }

    /// The notes so far of a callback that mention `about`.
    pub(crate) fn notes(&self, callback: &str, about: &str) -> anyhow::Result<Vec<Value>> {
        let notes = self.side.notes.read()?.into_iter();
        Ok(notes
            .filter(|note| note[0] == callback && note.to_string().contains(about))
            .collect())
    }

    /// All notes so far of a callback that mention `about`.
    pub(crate) fn all_noted(&self, callback: &str, about: &str) -> anyhow::Result<Vec<Value>> {
        let notes = self.notes(callback, about)?;
        self.record(transcript::plain(&json!(notes).to_string()));
        Ok(notes)
    }

    /// Looks again and again until it is there. In between, Synapse answers something else.
    pub(crate) fn wait<T>(&self, what: &str, look: impl Fn() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if start.elapsed() > PATIENCE {
                bail!("there is not {what}");
            }
            self.peek("GET", "/_matrix/client/versions", None, &Body::Nothing)?;
        }
    }
}

impl Actor<'_> {
    /// A GET of the client API.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.send("GET", &client(path), &Body::Nothing)
    }

    /// A POST of the client API.
    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Reply> {
        self.send("POST", &client(path), &Body::Json(body))
    }

    /// A PUT of the client API.
    pub(crate) fn put(&self, path: &str, body: &Value) -> anyhow::Result<Reply> {
        self.send("PUT", &client(path), &Body::Json(body))
    }

    /// Any request.
    pub(crate) fn send(&self, method: &str, path: &str, body: &Body<'_>) -> anyhow::Result<Reply> {
        self.stage.send(method, path, Some(&self.token), body)
    }

    /// A GET that need not be answered the same on both sides.
    pub(crate) fn peek(&self, path: &str) -> anyhow::Result<Reply> {
        self.stage.peek("GET", &client(path), Some(&self.token), &Body::Nothing)
    }

    /// A POST that need not be answered the same on both sides.
    pub(crate) fn peek_at(&self, path: &str, body: &Value) -> anyhow::Result<Reply> {
        self.stage
            .peek("POST", &client(path), Some(&self.token), &Body::Json(body))
    }

    /// Creates a room.
    pub(crate) fn room(&self, request: &Value) -> anyhow::Result<String> {
        self.post("createRoom", request)?.success("room_id")
    }

    /// Sends an event.
    pub(crate) fn event(&self, room: &str, event_type: &str, content: &Value) -> anyhow::Result<Reply> {
        let transaction = self.stage.lines().len();
        self.put(&format!("rooms/{room}/send/{event_type}/{transaction}"), content)
    }

    /// Sends a state event.
    pub(crate) fn state(&self, room: &str, event_type: &str, key: &str, content: &Value) -> anyhow::Result<Reply> {
        self.put(&format!("rooms/{room}/state/{event_type}/{key}"), content)
    }

    /// Uploads a file.
    pub(crate) fn upload(&self, file: &[u8]) -> anyhow::Result<Reply> {
        self.upload_as("text/plain", file)
    }

    /// Uploads a file of this media type.
    pub(crate) fn upload_as(&self, media_type: &str, file: &[u8]) -> anyhow::Result<Reply> {
        self.send("POST", "/_matrix/media/v3/upload", &Body::File(file, media_type))
    }
}

/// A login with a password.
pub(crate) fn login(user: &str, password: &str) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user },
        "password": password,
    })
}

fn client(path: &str) -> String {
    format!("/_matrix/client/v3/{path}")
}
