//! The other side of the wire, for tests: blocking, one connection.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// A connection.
pub(crate) struct WireClient {
    stream: UnixStream,
    next: u64,
    /// Answers that came before they were asked for.
    early: Vec<Value>,
}

impl WireClient {
    /// Connects, and says nothing.
    pub(crate) fn silent(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self {
            stream,
            next: 1,
            early: Vec::new(),
        }
    }

    /// A bridge that said hello; its welcome is given too.
    pub(crate) fn bridge(socket: &Path) -> (Self, Value) {
        let mut client = Self::silent(socket);
        client.send(&hello(&json!({})));
        let welcome = client.receive().unwrap();
        assert!(welcome["result"].is_object(), "{welcome}");
        (client, welcome["result"].clone())
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, message: &Value) {
        self.send_bytes(message.to_string().as_bytes());
    }

    /// Sends a frame with these contents.
    pub(crate) fn send_bytes(&mut self, contents: &[u8]) {
        let length = u32::try_from(contents.len()).unwrap().to_be_bytes();
        self.send_raw(&[&length[..], contents].concat());
    }

    /// Sends these bytes. The other side may have gone.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next message; `None` at the end of the connection.
    pub(crate) fn receive(&mut self) -> Option<Value> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut frame).ok()?;
        Some(serde_json::from_slice(&frame).unwrap())
    }

    /// Sends a request, and gives its number.
    pub(crate) fn request(&mut self, method: &str, params: &Value) -> u64 {
        let id = self.next;
        self.next += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// The answer to a request. What the other side asks or says meanwhile fails the test.
    pub(crate) fn answer(&mut self, id: u64) -> Value {
        if let Some(at) = self.early.iter().position(|early| early["id"] == id) {
            return self.early.swap_remove(at);
        }
        loop {
            let message = self.receive().expect("an answer");
            assert!(message.get("method").is_none(), "{message}");
            if message["id"] == id {
                return message;
            }
            self.early.push(message);
        }
    }

    /// Asks a callback, and gives the decision.
    pub(crate) fn decide(&mut self, callback: &str, args: &Value) -> Value {
        let id = self.request("callback", &json!({"callback": callback, "args": args}));
        let answer = self.answer(id);
        assert!(answer["result"].is_object(), "{answer}");
        answer["result"].clone()
    }

    /// Answers what the other side asked.
    pub(crate) fn reply(&mut self, request: &Value, result: &Value) {
        self.send(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    }
}

/// The hello of a bridge, with other params.
pub(crate) fn hello(other: &Value) -> Value {
    let mut params = json!({
        "version": 1, "role": "bridge", "features": ["state", "media", "module_api"], "server_name": "example.com",
        "worker_name": null, "software": "test", "max_frame": 1 << 20, "token": null,
    });
    params
        .as_object_mut()
        .unwrap()
        .extend(other.as_object().unwrap().clone());
    json!({"jsonrpc": "2.0", "id": 0, "method": "hello", "params": params})
}
