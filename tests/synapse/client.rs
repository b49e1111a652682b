//! The little of the Matrix client API that the tests need.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;

/// What the homeserver answered: the status, and the body where it is JSON, else null.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Reply {
    /// Status and error code, which is all that a refusal promises; the text is for people.
    pub(crate) fn refusal(&self) -> (u16, &str) {
        (self.status, self.body["errcode"].as_str().unwrap_or_default())
    }

    /// The string at `key` of a reply that must be a success.
    fn success(self, key: &str) -> anyhow::Result<String> {
        ensure!(self.status == 200, "refused: {self:?}");
        let value = self.body[key]
            .as_str()
            .with_context(|| format!("no {key} in {self:?}"))?;
        Ok(value.to_owned())
    }
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

    /// Whether the homeserver itself says so.
    pub(crate) fn is_healthy(&self) -> anyhow::Result<bool> {
        Ok(self
            .read(self.agent.get(format!("{}/health", self.base)).call())?
            .status
            == 200)
    }

    /// Registers a user and logs in.
    pub(crate) fn register(&self, name: &str) -> anyhow::Result<User<'_>> {
        let body = json!({ "username": name, "password": name, "auth": { "type": "m.login.dummy" } });
        let url = format!("{}/_matrix/client/v3/register", self.base);
        let reply = self.read(self.agent.post(url).send_json(body))?;
        let token = reply
            .success("access_token")
            .with_context(|| format!("cannot register {name}"))?;
        Ok(User { client: self, token })
    }

    fn read(&self, answer: Result<Response<ureq::Body>, ureq::Error>) -> anyhow::Result<Reply> {
        let mut answer = answer.with_context(|| format!("cannot ask {}", self.base))?;
        let text = answer.body_mut().read_to_string().context("cannot read the answer")?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Reply {
            status: answer.status().as_u16(),
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
        self.post("createRoom", &json!({ "preset": "public_chat" }))
    }

    /// Creates a room that everybody may join, and returns its id.
    pub(crate) fn create_room(&self) -> anyhow::Result<String> {
        self.try_create_room()?
            .success("room_id")
            .context("cannot create a room")
    }

    /// Joins a room.
    pub(crate) fn try_join(&self, room: &str) -> anyhow::Result<Reply> {
        self.post(&format!("join/{room}"), &json!({}))
    }

    /// Sends a text message.
    pub(crate) fn try_send(&self, room: &str, text: &str) -> anyhow::Result<Reply> {
        let transaction = self.client.transactions.fetch_add(1, Ordering::Relaxed);
        let request = self
            .client
            .agent
            .put(self.url(&format!("rooms/{room}/send/m.room.message/{transaction}")));
        let body = json!({ "msgtype": "m.text", "body": text });
        self.client
            .read(request.header("Authorization", &self.bearer()).send_json(body))
    }

    /// The text messages of a room, newest first.
    pub(crate) fn messages(&self, room: &str) -> anyhow::Result<Vec<String>> {
        let request = self
            .client
            .agent
            .get(self.url(&format!("rooms/{room}/messages?dir=b&limit=100")));
        let reply = self
            .client
            .read(request.header("Authorization", &self.bearer()).call())?;
        let events = reply.body["chunk"]
            .as_array()
            .with_context(|| format!("no messages in {reply:?}"))?;
        let messages = events.iter().filter(|event| event["type"] == "m.room.message");
        Ok(messages
            .filter_map(|event| event["content"]["body"].as_str())
            .map(str::to_owned)
            .collect())
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<Reply> {
        let request = self.client.agent.post(self.url(path));
        self.client
            .read(request.header("Authorization", &self.bearer()).send_json(body))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/_matrix/client/v3/{path}", self.client.base)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}
