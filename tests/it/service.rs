//! A service that answers what a test tells it to, over HTTP; also what no healthy one does.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// What the service was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// The path and the query, as they came.
    pub(crate) target: String,
    /// The headers, their names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// The value of a header; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().find(|(key, _)| key == name);
        header.map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What it does then.
#[derive(Debug, Clone)]
pub(crate) enum Does {
    /// Answers with this status, content type and body, and keeps the connection.
    Answers(u16, &'static str, String),
    /// Sends these bytes and closes the connection.
    Sends(Vec<u8>),
    /// Never answers.
    Hangs,
}

impl Does {
    /// Answers with JSON.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::Answers(status, "application/json", body.to_string())
    }

    /// Answers with text.
    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::Answers(status, "text/plain", body.to_owned())
    }
}

type Script = dyn Fn(&Asked) -> Does + Send + Sync;

/// A service on a port of its own; its threads end with their connections.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    heard: Arc<Heard>,
}

struct Heard {
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    script: Box<Script>,
}

impl Service {
    /// Starts a service that does what this function says.
    pub(crate) fn start(script: impl Fn(&Asked) -> Does + Send + Sync + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let heard = Arc::new(Heard {
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
            script: Box::new(script),
        });
        let hears = Arc::clone(&heard);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                hears.connections.fetch_add(1, Ordering::SeqCst);
                let hears = Arc::clone(&hears);
                // A client that goes away ends it.
                std::thread::spawn(move || hears.serve(connection));
            }
        });
        Ok(Self { address, heard })
    }

    /// Its URL with this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.heard.asked().clone()
    }

    /// How many connections came so far.
    pub(crate) fn connections(&self) -> usize {
        self.heard.connections.load(Ordering::SeqCst)
    }
}

impl Heard {
    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, connection: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(connection.try_clone()?);
        let mut writer = connection;
        while let Some(asked) = read(&mut reader)? {
            self.asked().push(asked.clone());
            match (self.script)(&asked) {
                Does::Answers(status, content_type, body) => {
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    writer.write_all(format!("{head}{body}").as_bytes())?;
                }
                Does::Sends(bytes) => return writer.write_all(&bytes),
                // Until the client has enough of it.
                Does::Hangs => return reader.read_to_end(&mut Vec::new()).map(drop),
            }
        }
        Ok(())
    }
}

/// The next request; `None` at the end of the connection.
pub(crate) fn read(reader: &mut impl std::io::BufRead) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked {
        method,
        target,
        headers,
        body: Vec::new(),
    };
    asked.body = vec![0; asked.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut asked.body)?;
    Ok(Some(asked))
}
