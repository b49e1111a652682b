//! What makes the load: connections that ask, wait for the answer, and ask again.
//!
//! It writes the same bytes each time and reads no more of an answer than it has to, since whatever the client takes is missing to the
//! server: with a client library a good part of the machine would measure that library. One thread is enough for it.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ganglion_benches::work::{MODULES, json_args};
use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// The callbacks endpoint.
pub(crate) const CALLBACKS: &str = "/_ganglion/v1/callbacks/check_event_for_spam";

/// The antispam dialect.
const ANTISPAM: &str = "/_ganglion/antispam/check_event_for_spam";

/// What stands near the beginning of a decision that passes.
const PASSED: &[u8] = br#""outcome":{"verdict":"pass"}"#;

/// Where it begins at the latest.
const NEAR: usize = 64;

/// More headers than any answer has.
const HEADERS: usize = 16;

/// The longest latency that is told apart, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// An answer that is not what it should be, or none.
pub(crate) type Wrong = Box<dyn std::error::Error + Send + Sync>;

/// Who is asked, and what the answer is.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    address: SocketAddr,
    request: Vec<u8>,
    is_right: fn(&[u8]) -> bool,
}

impl Target {
    fn new(name: &'static str, address: SocketAddr, path: &str, is_right: fn(&[u8]) -> bool) -> Self {
        let body = json_args().to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self {
            name,
            address,
            request: request.into_bytes(),
            is_right,
        }
    }

    /// The callbacks endpoint.
    pub(crate) fn callbacks(address: SocketAddr) -> Self {
        Self::new("callbacks endpoint", address, CALLBACKS, |body| {
            body.windows(PASSED.len()).take(NEAR).any(|part| part == PASSED)
        })
    }

    /// The same question in the antispam dialect.
    pub(crate) fn antispam(address: SocketAddr) -> Self {
        Self::new("antispam dialect", address, ANTISPAM, |body| body == b"{}")
    }

    /// With another name.
    pub(crate) fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

/// What came of asking for some time.
pub(crate) struct Found {
    pub(crate) took: Duration,
    /// Of each request, in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
}

/// The client, with a thread of its own for its connections: the one that waits for them.
pub(crate) struct Client(Runtime);

impl Client {
    pub(crate) fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        Self(builder.enable_all().build().expect("a runtime"))
    }

    /// Asks once, and gives the decision.
    pub(crate) fn first(&self, target: &Target) -> Result<Value, Wrong> {
        self.0.block_on(async {
            let mut connection = Connection::open(target).await?;
            let decision: Value = serde_json::from_slice(connection.ask(target).await?)?;
            let steps = decision["steps"].as_array().ok_or("a decision without steps")?;
            if steps.len() == MODULES && steps.iter().all(|step| step["result"] == "pass") {
                Ok(decision)
            } else {
                Err(format!("{}: not all modules were asked: {decision}", target.name).into())
            }
        })
    }

    /// Asks for some time, over so many connections.
    pub(crate) fn ask(&self, target: &Target, connections: usize, time: Duration) -> Result<Found, Wrong> {
        self.0.block_on(async {
            let mut open = Vec::with_capacity(connections);
            for _ in 0..connections {
                let mut connection = Connection::open(target).await?;
                // The first answer has more to wait for than any other.
                connection.ask(target).await?;
                open.push(connection);
            }
            let begun = Instant::now();
            let asking: Vec<_> = open
                .into_iter()
                .map(|connection| tokio::spawn(connection.ask_until(target.clone(), begun + time)))
                .collect();
            let mut latencies = histogram()?;
            for asking in asking {
                latencies.add(asking.await??)?;
            }
            let took = begun.elapsed();
            Ok(Found { took, latencies })
        })
    }
}

fn histogram() -> Result<Histogram<u64>, Wrong> {
    Ok(Histogram::new_with_bounds(1, LONGEST, 3)?)
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(target: &Target) -> io::Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
        })
    }

    async fn ask_until(mut self, target: Target, end: Instant) -> Result<Histogram<u64>, Wrong> {
        let mut latencies = histogram()?;
        let mut asked = Instant::now();
        while asked < end {
            self.ask(&target).await?;
            let answered = Instant::now();
            let latency = answered.duration_since(asked).as_nanos();
            latencies.saturating_record(u64::try_from(latency).unwrap_or(LONGEST));
            asked = answered;
        }
        Ok(latencies)
    }

    /// Asks, and gives the body of the answer.
    async fn ask(&mut self, target: &Target) -> Result<&[u8], Wrong> {
        self.stream.write_all(&target.request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the connection was closed".into());
            }
            if let Some((status, body, end)) = head(&self.buffer)?
                && self.buffer.len() >= end
            {
                let body = &self.buffer[body..end];
                return if status == 200 && (target.is_right)(body) {
                    Ok(body)
                } else {
                    Err(format!("{}: {status} {}", target.name, String::from_utf8_lossy(body)).into())
                };
            }
        }
    }
}

/// The status of an answer, and where its body begins and ends. `None` as long as its head is not whole.
fn head(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>, Wrong> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body) = answer.parse(bytes)? else {
        return Ok(None);
    };
    let length = answer
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = std::str::from_utf8(length.ok_or("an answer without a length")?.value)?.parse()?;
    Ok(Some((answer.code.unwrap_or_default(), body, body + length)))
}
