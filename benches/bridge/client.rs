//! A client of a homeserver, on one connection that stays open. It does as little as possible.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

/// An answer that is not what it should be, or none.
pub(crate) type Wrong = Box<dyn Error + Send + Sync>;

/// More headers than any answer has.
const HEADERS: usize = 64;

/// Who is logged in, in a room.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The header, once somebody is logged in.
    authorization: String,
    room: String,
    transactions: u64,
}

impl Client {
    /// Registers a user with the homeserver on this port of loopback, and creates a room.
    pub(crate) fn register(port: u16) -> Result<Self, Wrong> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream,
            buffer: Vec::with_capacity(4096),
            authorization: String::new(),
            room: String::new(),
            transactions: 0,
        };
        let user = json!({"username": "alice", "password": "alice", "auth": {"type": "m.login.dummy"}});
        let token = text(
            &client.ask("POST", "/_matrix/client/v3/register", &user)?,
            "access_token",
        )?;
        client.authorization = format!("authorization: Bearer {token}\r\n");
        let room = json!({"preset": "private_chat"});
        client.room = text(&client.ask("POST", "/_matrix/client/v3/createRoom", &room)?, "room_id")?;
        Ok(client)
    }

    /// Sends a message into the room.
    pub(crate) fn send(&mut self) -> Result<(), Wrong> {
        self.transactions += 1;
        let path = format!(
            "/_matrix/client/v3/rooms/{}/send/m.room.message/{}",
            self.room, self.transactions
        );
        let body = "The quick brown fox jumps over the lazy dog. ".repeat(8);
        let sent = self.ask("PUT", &path, &json!({"msgtype": "m.text", "body": body}))?;
        text(&sent, "event_id").map(drop)
    }

    /// What stands at a path.
    pub(crate) fn get(&mut self, path: &str) -> Result<Value, Wrong> {
        self.ask("GET", path, &json!({}))
    }

    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Result<Value, Wrong> {
        let (body, authorization) = (body.to_string(), &self.authorization);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{authorization}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes())?;
        self.buffer.clear();
        let mut part = [0; 4096];
        loop {
            let read = self.stream.read(&mut part)?;
            if read == 0 {
                return Err("the homeserver closed the connection".into());
            }
            self.buffer.extend_from_slice(&part[..read]);
            if let Some((status, body)) = answer(&self.buffer)? {
                return match status {
                    200 => Ok(serde_json::from_slice(&body)?),
                    _ => Err(format!("{method} {path}: {status} {}", String::from_utf8_lossy(&body)).into()),
                };
            }
        }
    }
}

/// The status and the body of an answer, once it is whole.
fn answer(bytes: &[u8]) -> Result<Option<(u16, Vec<u8>)>, Wrong> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(begin) = answer.parse(bytes)? else {
        return Ok(None);
    };
    let length = answer
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body = match length {
        Some(length) => {
            let length: usize = std::str::from_utf8(length.value)?.parse()?;
            bytes.get(begin..begin + length).map(<[u8]>::to_vec)
        }
        // Synapse's way, if the connection stays open.
        None => chunks(&bytes[begin..])?,
    };
    Ok(body.map(|body| (answer.code.unwrap_or_default(), body)))
}

/// A body that comes in chunks, once it is whole.
fn chunks(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, Wrong> {
    let mut body = Vec::new();
    loop {
        let size = httparse::parse_chunk_size(bytes).map_err(|_| "an answer without a length")?;
        let httparse::Status::Complete((begin, size)) = size else {
            return Ok(None);
        };
        // Each ends with a line.
        let end = begin + usize::try_from(size)?;
        if bytes.len() < end + 2 {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(&bytes[begin..end]);
        bytes = &bytes[end + 2..];
    }
}

fn text(answer: &Value, key: &str) -> Result<String, Wrong> {
    let text = answer[key].as_str();
    Ok(text.ok_or_else(|| format!("no {key} in {answer}"))?.to_owned())
}
