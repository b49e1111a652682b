//! A server in this process, and a client for it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use ganglion::http::{Listeners, Server};
use ganglion::wire::{Bridges, WireListeners, WireServer};
use ganglion::{Config, Ganglion, api, registry};
use serde_json::Value;
use tokio::sync::oneshot;

/// Reads a config with the modules that ship.
pub(crate) fn config(yaml: &str) -> Config {
    config_with(yaml, &registry())
}

/// A runtime like that of a program that embeds Ganglion.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// Reads a config with these modules.
pub(crate) fn config_with(yaml: &str, registry: &api::Registry) -> Config {
    Config::from_yaml(yaml, "ganglion.yaml", registry).unwrap_or_else(|problems| panic!("{problems}\n{yaml}"))
}

/// A config that listens on free ports and has these modules: a YAML or JSON list.
pub(crate) fn with_modules(modules: &str) -> String {
    format!(
        "server_name: example.com\nhttp: {{bind: '127.0.0.1:0'}}\nadmin: {{bind: '127.0.0.1:0'}}\n\
         dispatch: {{workers: 2}}\nmodules: {modules}\n"
    )
}

/// A port where nobody listens, and none else can while the socket is there.
#[cfg(feature = "http-client")]
pub(crate) fn closed_port() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A config entry of a `Canned` module with this id and these answers, as JSON (which is YAML).
pub(crate) fn canned(id: &str, answers: &Value) -> Value {
    serde_json::json!({"module": "ganglion.modules.Canned", "id": id, "config": {"answers": answers}})
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) text: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The first header with this name, in lower case; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().find(|(key, _)| key == name);
        header.map_or("", |(_, value)| value)
    }

    /// The error code of a Matrix error.
    pub(crate) fn errcode(&self) -> String {
        self.json()["errcode"]
            .as_str()
            .unwrap_or_else(|| panic!("no errcode: {self:?}"))
            .to_owned()
    }
}

/// Both listeners of a Ganglion in this process, on a thread with an actix system of its own. Stopped on drop.
pub(crate) struct TestServer {
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Where the wire listens over TCP, if it does.
    pub(crate) wire: Option<SocketAddr>,
    pub(crate) ganglion: Ganglion,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    /// Serves this config with the modules that ship.
    pub(crate) fn start(yaml: &str) -> Self {
        Self::serve(config(yaml))
    }

    /// Serves a config.
    pub(crate) fn serve(config: Config) -> Self {
        let (started, start) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let listeners = Listeners::bind(&config).unwrap();
                let wire = WireListeners::bind(&config.wire).unwrap();
                let bridges = Arc::<Bridges>::default();
                let ganglion = Ganglion::start_with(&config, Arc::clone(&bridges) as Arc<dyn api::Homeserver>);
                let ganglion = ganglion.await.unwrap();
                let server = Server::start(&config, listeners, &ganglion, &bridges).unwrap();
                let wire = WireServer::start(&config, wire, &ganglion, &bridges).unwrap();
                let addresses = (server.http(), server.admin(), wire.tcp());
                started.send((addresses, ganglion)).unwrap();
                let _ = stopped.await;
                futures_util::future::join(server.drain(), wire.drain()).await;
            });
        });
        let ((http, admin, wire), ganglion) = start.recv().expect("the server starts");
        Self {
            http,
            admin,
            wire,
            ganglion,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Begins nothing any more, and waits for what is in flight.
    pub(crate) fn drain(mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends");
        }
    }

    /// Asks a callback on the admin listener.
    pub(crate) fn ask(&self, callback: &str, args: &Value) -> Answer {
        self.post(
            &format!("/_ganglion/v1/callbacks/{callback}"),
            args.to_string().as_bytes(),
        )
    }

    /// The decision about a callback; anything else fails the test.
    pub(crate) fn decide(&self, callback: &str, args: &Value) -> Value {
        let answer = self.ask(callback, args);
        assert_eq!(answer.status, 200, "{callback}: {answer:?}");
        answer.json()
    }

    /// Asks in the antispam dialect.
    pub(crate) fn antispam(&self, callback: &str, args: &Value) -> Answer {
        self.post(&format!("/_ganglion/antispam/{callback}"), args.to_string().as_bytes())
    }

    /// Posts to the admin listener.
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Answer {
        request("POST", self.admin, path, &[], body)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.ganglion.shutdown();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes one request.
pub(crate) fn request(method: &str, server: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .build()
        .into();
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{server}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.to_vec()).unwrap();
    let mut response = agent
        .run(request)
        .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let header = |name| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
            .to_owned()
    };
    let content_type = header("content-type");
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("").to_owned()))
        .collect();
    let status = response.status().as_u16();
    let bytes = response.body_mut().read_to_vec().unwrap();
    Answer {
        status,
        content_type,
        text: String::from_utf8_lossy(&bytes).into_owned(),
        bytes,
        headers,
    }
}

/// Sends these very bytes and reads until the server closes; for what a well-behaved client does not send.
pub(crate) fn raw(server: SocketAddr, request: &[u8]) -> String {
    let mut connection = TcpStream::connect(server).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    connection.write_all(request).unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Writes a file into a directory and gives its path.
pub(crate) fn write(directory: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = directory.join(name);
    std::fs::File::create(&path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    path
}

/// Polls until something holds; a bound ends a test that would wait for ever.
pub(crate) fn poll_until(holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed().as_secs() < 30, "it never came to hold");
        std::thread::yield_now();
    }
}

/// The text of a refusal; its body is the two Matrix keys and nothing else, above all neither `code` nor `msg`.
#[track_caller]
pub(crate) fn refused(answer: &Answer, status: u16, errcode: &str) -> String {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.content_type, "application/json");
    let body = answer.json();
    let keys: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["errcode", "error"], "{answer:?}");
    assert_eq!(body["errcode"], errcode, "{answer:?}");
    body["error"].as_str().unwrap().to_owned()
}

/// What each module on the route said.
pub(crate) fn results(decision: &Value) -> Vec<(&str, &str)> {
    let steps = decision["steps"].as_array().unwrap().iter();
    steps
        .map(|step| (step["module"].as_str().unwrap(), step["result"].as_str().unwrap()))
        .collect()
}

/// A decision without what differs from run to run: durations are 0, details are gone.
pub(crate) fn normalized(mut decision: Value) -> Value {
    for step in decision["steps"].as_array_mut().into_iter().flatten() {
        step["duration_us"] = 0.into();
        step.as_object_mut().unwrap().remove("detail");
    }
    decision
}

#[test]
fn a_server_starts_decides_and_stops() {
    let server = TestServer::start(&with_modules("[{module: demo.DemoModule}]"));
    let args = serde_json::json!({"user_id": "@evilguy:example.com"});
    assert_eq!(
        server.decide("user_may_create_room", &args)["decided_by"],
        "demo.DemoModule"
    );
}
