//! The little of the Matrix client API that the tests need.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{Request, Response};

/// What the homeserver answered: the status, the body as it came, and as JSON, null where it is none.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Reply {
    /// Status and error code, which is all that a refusal promises; the text is for people.
    pub(crate) fn refusal(&self) -> (u16, &str) {
        (self.status, self.body["errcode"].as_str().unwrap_or_default())
    }

    /// The string at `key` of a reply that must be a success.
    pub(crate) fn success(self, key: &str) -> anyhow::Result<String> {
        ensure!(self.status == 200, "refused: {self:?}");
        let value = self.body[key]
            .as_str()
            .with_context(|| format!("no {key} in {self:?}"))?;
        Ok(value.to_owned())
    }
}

/// What a request carries.
pub(crate) enum Body<'a> {
    Nothing,
    Json(&'a Value),
    /// A file and its media type.
    File(&'a [u8], &'a str),
}

/// A connection to one homeserver.
pub(crate) struct Client {
    agent: Agent,
    base: String,
    transactions: AtomicU32,
}

impl Client {
    pub(crate) fn new(base: String) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None) // Loopback is never behind the proxy that the environment may name.
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Self {
            agent,
            base,
            transactions: AtomicU32::new(0),
        }
    }

    /// Where it is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Whether the homeserver itself says so.
    pub(crate) fn is_healthy(&self) -> anyhow::Result<bool> {
        Ok(self.ask("GET", "/health", None, &Body::Nothing)?.status == 200)
    }

    /// Registers a user and logs in.
    pub(crate) fn register(&self, name: &str) -> anyhow::Result<User<'_>> {
        let body = json!({ "username": name, "password": name, "auth": { "type": "m.login.dummy" } });
        let reply = self.ask("POST", "/_matrix/client/v3/register", None, &Body::Json(&body))?;
        let token = reply
            .success("access_token")
            .with_context(|| format!("cannot register {name}"))?;
        Ok(User { client: self, token })
    }

    /// Sends any request.
    pub(crate) fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &Body<'_>) -> anyhow::Result<Reply> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let answer = match body {
            Body::Nothing => self.agent.run(request.body(())?),
            Body::Json(json) => {
                let request = request.header("Content-Type", "application/json");
                self.agent.run(request.body(json.to_string())?)
            }
            Body::File(contents, media_type) => {
                let request = request.header("Content-Type", *media_type);
                self.agent.run(request.body(*contents)?)
            }
        };
        self.read(answer)
    }

    /// A number that no other request of this client has.
    fn transaction(&self) -> u32 {
        self.transactions.fetch_add(1, Ordering::Relaxed)
    }

    fn read(&self, answer: Result<Response<ureq::Body>, ureq::Error>) -> anyhow::Result<Reply> {
        let mut answer = answer.with_context(|| format!("cannot ask {}", self.base))?;
        let text = answer.body_mut().read_to_string().context("cannot read the answer")?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Reply {
            status: answer.status().as_u16(),
            text,
            body,
        })
    }
}

/// A user who is logged in.
pub(crate) struct User<'a> {
    client: &'a Client,
    token: String,
}

impl User<'_> {
    /// Asks for a room that everybody may join.
    pub(crate) fn try_create_room(&self) -> anyhow::Result<Reply> {
        self.ask("POST", "createRoom", &Body::Json(&json!({ "preset": "public_chat" })))
    }

    /// Creates a room that everybody may join, and returns its id.
    pub(crate) fn create_room(&self) -> anyhow::Result<String> {
        self.try_create_room()?
            .success("room_id")
            .context("cannot create a room")
    }

    /// Joins a room.
    pub(crate) fn try_join(&self, room: &str) -> anyhow::Result<Reply> {
        self.ask("POST", &format!("join/{room}"), &Body::Json(&json!({})))
    }

    /// Sends a text message.
    pub(crate) fn try_send(&self, room: &str, text: &str) -> anyhow::Result<Reply> {
        let path = format!("rooms/{room}/send/m.room.message/{}", self.client.transaction());
        self.ask("PUT", &path, &Body::Json(&json!({ "msgtype": "m.text", "body": text })))
    }

    /// The text messages of a room, newest first.
    pub(crate) fn messages(&self, room: &str) -> anyhow::Result<Vec<String>> {
        let reply = self.ask("GET", &format!("rooms/{room}/messages?dir=b&limit=100"), &Body::Nothing)?;
        let events = reply.body["chunk"]
            .as_array()
            .with_context(|| format!("no messages in {reply:?}"))?;
        let messages = events.iter().filter(|event| event["type"] == "m.room.message");
        Ok(messages
            .filter_map(|event| event["content"]["body"].as_str())
            .map(str::to_owned)
            .collect())
    }

    /// The access token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    fn ask(&self, method: &str, path: &str, body: &Body<'_>) -> anyhow::Result<Reply> {
        self.client
            .ask(method, &format!("/_matrix/client/v3/{path}"), Some(&self.token), body)
    }
}
