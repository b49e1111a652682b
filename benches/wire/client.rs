//! A client that does as little as possible: one blocking connection.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// More than the answers that are in flight take.
const BUFFER: usize = 256 << 10;

/// A message as a frame.
pub(crate) fn frame(message: &Value) -> Vec<u8> {
    let contents = message.to_string();
    let length = u32::try_from(contents.len()).expect("a short message");
    [&length.to_be_bytes()[..], contents.as_bytes()].concat()
}

pub(crate) struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        Self {
            stream: UnixStream::connect(socket).expect("a connection"),
            buffer: vec![0; BUFFER],
            filled: 0,
        }
    }

    /// Connects to a Ganglion.
    pub(crate) fn welcome(socket: &Path) -> Self {
        let mut client = Self::connect(socket);
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "hello", "params": {"version": 1, "role": "client",
            "server_name": "example.com", "max_frame": 1 << 20}});
        let welcome = client.first(&hello);
        assert!(welcome["result"].is_object(), "{welcome}");
        client
    }

    /// Asks once, and reads the whole answer.
    pub(crate) fn first(&mut self, message: &Value) -> Value {
        self.stream.write_all(&frame(message)).expect("a request");
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("an answer");
        let mut contents = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut contents).expect("an answer");
        serde_json::from_slice(&contents).expect("JSON")
    }

    /// Asks so often, so many at once, and says how long it took.
    pub(crate) fn run(&mut self, frame: &[u8], count: u64, in_flight: usize) -> Duration {
        let mut numbered = Numbered::new(frame);
        let begun = Instant::now();
        let (mut sent, mut answered) = (0, 0);
        let mut batch = Vec::with_capacity(frame.len() * in_flight);
        let mut room = count.min(in_flight as u64);
        while answered < count {
            if room > 0 {
                batch.clear();
                for _ in 0..room {
                    batch.extend_from_slice(numbered.next());
                }
                self.stream.write_all(&batch).expect("a request");
                sent += room;
            }
            let arrived = self.read();
            answered += arrived;
            room = arrived.min(count - sent);
        }
        begun.elapsed()
    }

    /// Waits for answers, and says how many came.
    fn read(&mut self) -> u64 {
        let read = self.stream.read(&mut self.buffer[self.filled..]).expect("an answer");
        assert_ne!(read, 0, "the connection was closed");
        self.filled += read;
        let (mut begin, mut frames) = (0, 0);
        while let Some(length) = self.buffer[begin..self.filled].first_chunk() {
            let end = begin + 4 + u32::from_be_bytes(*length) as usize;
            if end > self.filled {
                break;
            }
            begin = end;
            frames += 1;
        }
        self.buffer.copy_within(begin..self.filled, 0);
        self.filled -= begin;
        frames
    }
}

/// The same frame with one number after the other: digits of a fixed length, so that the frame keeps its own.
struct Numbered {
    frame: Vec<u8>,
    at: usize,
    next: u64,
}

/// How many digits a number has.
const DIGITS: usize = 8;

impl Numbered {
    fn new(frame: &[u8]) -> Self {
        let mut message: Value = serde_json::from_slice(&frame[4..]).expect("JSON");
        message["id"] = json!(10_u64.pow(7));
        let frame = self::frame(&message);
        let key = br#""id":1"#;
        let found = frame.windows(key.len()).position(|window| window == key);
        Self {
            at: found.expect("a number") + key.len() - 1,
            frame,
            next: 10_u64.pow(7),
        }
    }

    fn next(&mut self) -> &[u8] {
        let digits = self.next.to_string();
        self.frame[self.at..self.at + DIGITS].copy_from_slice(digits.as_bytes());
        self.next += 1;
        &self.frame
    }
}
