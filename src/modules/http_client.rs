//! Asking another service over HTTP: one request, and an answer of bounded length in bounded time.
//!
//! awc's client belongs to one thread, and one instance of a module runs on several. So each thread has a client for all
//! modules on it. It outlives a module that is made anew, and a thread that is given up takes it along.

mod names;

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use actix_tls::connect::{Connector as TcpConnector, Resolver};
use awc::error::{ConnectError, PayloadError, SendRequestError};
use awc::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use awc::http::{Method, Uri};
use awc::{Client, Connector};
use bytes::Bytes;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::runtime::{Handle, Id};

use self::names::Names;
use crate::config::Token;

/// How long a connection is kept that nobody uses: less than the five seconds after which Node.js and actix-web close one, so
/// that no request goes out on a connection that the other side is closing.
const IDLE: Duration = Duration::from_secs(4);

/// How long connecting may take by awc's own clocks: longer than any budget, which is the one limit of a request.
const UNLIMITED: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How long a request may take that nobody waits for with a budget.
const WITHOUT_BUDGET: Duration = Duration::from_secs(10);

/// The longest time that is kept back from a budget; of one that is shorter than ten times this it is a tenth.
const MAX_MARGIN: Duration = Duration::from_millis(100);

/// What a request may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From the first step of connecting to the last byte of the answer.
    time: Duration,
    /// The length of the answer's body.
    bytes: usize,
}

impl Limits {
    /// A little less time than a call has left, so that the module says itself what is wrong, and an answer of this
    /// length. A call without a budget has ten seconds.
    pub(super) fn within(budget: Option<Duration>, bytes: usize) -> Self {
        let time = budget.map_or(WITHOUT_BUDGET, |left| left - (left / 10).min(MAX_MARGIN));
        Self { time, bytes }
    }
}

/// Where a service is: an http or https URL that is checked, and not shown beyond its origin.
#[derive(Clone)]
pub(super) struct BaseUrl {
    origin: Arc<str>,
    host: String,
    path: String,
    is_https: bool,
}

impl BaseUrl {
    /// Checks a URL. Its path is kept as it is written, percent-encoding too.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let expected = "expected a URL such as https://antispam.example.com/path";
        if text.contains(['?', '#']) {
            return Err("a URL has no query and no fragment here");
        }
        let uri: Uri = text.parse().map_err(|_| expected)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(expected);
        };
        if authority.as_str().contains('@') {
            return Err("a URL has no user and no password here");
        }
        if authority.host().is_empty() || (authority.as_str() != authority.host() && authority.port_u16().is_none()) {
            return Err(expected);
        }
        let is_https = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err("expected a URL that begins with http:// or https://"),
        };
        if is_https && authority.host().starts_with('[') {
            return Err("with https an IPv6 address cannot be asked: write the name that the server's certificate has");
        }
        Ok(Self {
            origin: format!("{scheme}://{authority}").into(),
            host: authority.host().to_owned(),
            path: uri.path().to_owned(),
            is_https,
        })
    }

    /// The URL one segment below; a slash at the end of the path does not count.
    fn below(&self, segment: &str) -> String {
        format!("{}{}/{segment}", self.origin, self.path.trim_end_matches('/'))
    }

    /// The URL with a query of one parameter.
    fn with_query(&self, name: &str, value: &str) -> String {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair(name, value)
            .finish();
        format!("{}{}?{query}", self.origin, self.path)
    }
}

impl<'de> Deserialize<'de> for BaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

/// Why a service gave no answer. The text names the service's origin, and nothing else of what was sent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{origin} {problem}")]
pub(super) struct ServiceError {
    origin: Arc<str>,
    problem: Problem,
}

/// What went wrong.
#[derive(Debug, Clone, thiserror::Error)]
enum Problem {
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("did not answer within {}ms", .0.as_millis())]
    Late(Duration),
    #[error("cannot be reached: its name was not looked up within {}ms, the name server does not answer", .0.as_millis())]
    NameLate(Duration),
    #[error("answered with more than {0} bytes")]
    TooLong(usize),
    #[error("closed the connection before its answer was whole")]
    BrokeOff,
    #[error("answered something that is not HTTP")]
    NotHttp,
    #[error("cannot be asked: the URL is not one that can be requested")]
    BadRequest,
    #[error("cannot be trusted: this system has no root certificates; install them, or name a file in SSL_CERT_FILE")]
    NoRoots,
    #[error("can be asked on a thread of modules only")]
    NoRuntime,
}

impl Problem {
    fn of_request(error: SendRequestError, limits: Limits) -> Self {
        match error {
            SendRequestError::Connect(ConnectError::Timeout) | SendRequestError::Timeout => Self::Late(limits.time),
            // So awc calls an end of the connection before a response.
            SendRequestError::Connect(ConnectError::Disconnected) | SendRequestError::Send(_) => Self::BrokeOff,
            SendRequestError::Connect(error) => Self::Unreachable(error.to_string()),
            SendRequestError::Response(_) => Self::NotHttp,
            _ => Self::BadRequest,
        }
    }

    fn of_body(error: &PayloadError, limits: Limits) -> Self {
        match error {
            PayloadError::Overflow => Self::TooLong(limits.bytes),
            PayloadError::EncodingCorrupted | PayloadError::UnknownLength => Self::NotHttp,
            _ => Self::BrokeOff,
        }
    }
}

/// What a service answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body, whole.
    pub(super) body: Bytes,
}

impl Answer {
    /// Whether the status is a success.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; `None` if it is none.
    pub(super) fn json(&self) -> Option<Value> {
        crate::json::read(&self.body).ok()
    }
}

/// A service that is asked over HTTP.
pub(super) struct Service {
    url: BaseUrl,
    tls: Option<Arc<ClientConfig>>,
    token: Option<Token>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl Service {
    /// A service at this URL, which is shown the token. For https it reads the system's root certificates, which takes a
    /// while: not where others wait.
    ///
    /// # Errors
    /// The URL is one of https, and there are no root certificates.
    pub(super) fn new(url: BaseUrl, token: Option<Token>) -> Result<Self, ServiceError> {
        let tls = url.is_https.then(tls).transpose();
        let tls = tls.map_err(|problem| ServiceError {
            origin: Arc::clone(&url.origin),
            problem,
        })?;
        Ok(Self { url, tls, token })
    }

    /// Its origin, which is all of its URL that may be shown.
    pub(super) fn origin(&self) -> &str {
        &self.url.origin
    }

    /// Posts JSON to a path one segment below the URL.
    ///
    /// # Errors
    /// There is no whole answer within the limits.
    ///
    /// # Cancellation
    /// Dropping the future closes the connection.
    pub(super) async fn post(&self, segment: &str, body: &Value, limits: Limits) -> Result<Answer, ServiceError> {
        let url = self.url.below(segment);
        self.ask(Method::POST, &url, Some(body), limits).await
    }

    /// Gets the URL with a parameter in its query.
    ///
    /// # Errors
    /// There is no whole answer within the limits.
    ///
    /// # Cancellation
    /// Dropping the future closes the connection.
    pub(super) async fn get(&self, name: &str, value: &str, limits: Limits) -> Result<Answer, ServiceError> {
        let url = self.url.with_query(name, value);
        self.ask(Method::GET, &url, None, limits).await
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        limits: Limits,
    ) -> Result<Answer, ServiceError> {
        let asked = tokio::time::timeout(limits.time, self.exchange(method, url, body, limits));
        let answered = asked.await.unwrap_or_else(|_elapsed| {
            let is_nameless = NAMES.is_under_way(&self.url.host);
            let late = if is_nameless { Problem::NameLate } else { Problem::Late };
            Err(late(limits.time))
        });
        answered.map_err(|problem| ServiceError {
            origin: Arc::clone(&self.url.origin),
            problem,
        })
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        limits: Limits,
    ) -> Result<Answer, Problem> {
        let mut request = client(self.tls.as_ref())?.request(method, url);
        if let Some(token) = &self.token {
            request = request.insert_header((AUTHORIZATION, token.to_bearer()));
        }
        let sent = match body {
            Some(body) => request
                .insert_header((CONTENT_TYPE, "application/json"))
                .send_body(body.to_string()),
            None => request.send(),
        };
        let mut response = sent.await.map_err(|error| Problem::of_request(error, limits))?;
        // Read even where only the status counts: else the connection could not be used again.
        let body = response.body().limit(limits.bytes).await;
        let body = body.map_err(|error| Problem::of_body(&error, limits))?;
        // To awc a connection that ends too early is the end of the body.
        let announced = response.headers().get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.trim().parse::<usize>().ok());
        if announced.is_some_and(|length| length > body.len()) {
            return Err(Problem::BrokeOff);
        }
        Ok(Answer {
            status: response.status().as_u16(),
            body,
        })
    }
}

/// The names of all services.
static NAMES: LazyLock<Names> = LazyLock::new(Names::of_system);

thread_local! {
    /// The clients of this thread, without and with TLS, each with the runtime that its connections belong to.
    static CLIENTS: RefCell<[Option<(Id, Client)>; 2]> = const { RefCell::new([None, None]) };
}

/// The client of this thread. A client of another runtime that was here before is of no use any more.
fn client(tls: Option<&Arc<ClientConfig>>) -> Result<Client, Problem> {
    let runtime = Handle::try_current().map_err(|_| Problem::NoRuntime)?.id();
    CLIENTS.with_borrow_mut(|clients| {
        let place = &mut clients[usize::from(tls.is_some())];
        if let Some((of, client)) = place
            && *of == runtime
        {
            return Ok(client.clone());
        }
        let client = new_client(tls);
        *place = Some((runtime, client.clone()));
        Ok(client)
    })
}

fn new_client(tls: Option<&Arc<ClientConfig>>) -> Client {
    // No limit of connections: modules have limits of their own, and by a shared one a slow service would hold up all
    // others on this thread.
    let tcp = TcpConnector::new(Resolver::custom(NAMES.clone())).service();
    let connector = Connector::new().connector(tcp).limit(0).conn_keep_alive(IDLE);
    let connector = connector.timeout(UNLIMITED).handshake_timeout(UNLIMITED);
    let connector = match tls {
        Some(tls) => connector.rustls_0_23(Arc::clone(tls)),
        None => connector,
    };
    // awc looks for no proxy in the environment.
    Client::builder()
        .connector(connector)
        .disable_redirects()
        .disable_timeout()
        .add_default_header((USER_AGENT, concat!("ganglion/", env!("CARGO_PKG_VERSION"))))
        .finish()
}

/// How services are known that are asked over https: by the system's root certificates, which are read once.
fn tls() -> Result<Arc<ClientConfig>, Problem> {
    static TLS: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(tls) = TLS.get() {
        return Ok(Arc::clone(tls));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(Problem::NoRoots);
    }
    // Named, and not installed for the whole process: a program that embeds this one may have another.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.expect("ring has the suites of TLS 1.2 and 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::clone(TLS.get_or_init(|| Arc::new(config))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_without_a_host_or_with_more_than_a_path_is_refused() {
        let expected = "expected a URL such as https://antispam.example.com/path";
        for (url, reason) in [
            ("", expected),
            ("antispam.example.com", expected),
            ("/path", expected),
            ("http://", expected),
            ("http:///path", expected),
            ("http://:80/", expected),
            ("http://host:/", expected),
            ("http://host:65536/", expected),
            ("http://ho st/", expected),
            ("http://hö.example/", expected),
            ("ftp://host/", "expected a URL that begins with http:// or https://"),
            ("http://bob:secret@host/", "a URL has no user and no password here"),
            ("http://bob@host/", "a URL has no user and no password here"),
            ("http://host/?a=b", "a URL has no query and no fragment here"),
            ("http://host/#a", "a URL has no query and no fragment here"),
            (
                "https://[::1]:8443/",
                "with https an IPv6 address cannot be asked: write the name that the server's certificate has",
            ),
        ] {
            assert_eq!(BaseUrl::parse(url).map(|url| url.origin), Err(reason), "{url}");
        }
    }

    #[test]
    fn a_path_goes_out_as_it_is_written() {
        for (url, below, query) in [
            (
                "https://m.example:29339/_meowlnir/antispam/%21abc%3Aexample.com",
                "https://m.example:29339/_meowlnir/antispam/%21abc%3Aexample.com/ping",
                "https://m.example:29339/_meowlnir/antispam/%21abc%3Aexample.com?user_id=%40bob%3Aexample.com",
            ),
            (
                "http://host/a/",
                "http://host/a/ping",
                "http://host/a/?user_id=%40bob%3Aexample.com",
            ),
            (
                "http://[::1]:80",
                "http://[::1]:80/ping",
                "http://[::1]:80/?user_id=%40bob%3Aexample.com",
            ),
        ] {
            let url = BaseUrl::parse(url).unwrap();
            assert_eq!(url.below("ping"), below);
            assert_eq!(url.with_query("user_id", "@bob:example.com"), query);
        }
    }

    #[test]
    fn only_the_origin_of_a_url_is_shown() {
        let url = BaseUrl::parse("https://host:8443/hooks/s3cret").unwrap();
        assert_eq!(format!("{url:?}"), "https://host:8443");
        let error = ServiceError {
            origin: url.origin,
            problem: Problem::Late(Duration::from_millis(900)),
        };
        assert_eq!(error.to_string(), "https://host:8443 did not answer within 900ms");
    }

    /// A server that accepts connections, and says nothing.
    #[tokio::test(start_paused = true)]
    async fn connecting_and_the_handshake_have_all_of_the_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let trusts_nobody = versions.unwrap().with_root_certificates(RootCertStore::empty());
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let service = Service {
            url: BaseUrl::parse(&url).unwrap(),
            tls: Some(Arc::new(trusts_nobody.with_no_client_auth())),
            token: None,
        };
        let begun = tokio::time::Instant::now();
        let limits = Limits::within(Some(Duration::from_secs(60)), 1);
        let asked = service.get("a", "b", limits);
        let error = tokio::task::LocalSet::new().run_until(asked).await.unwrap_err();
        assert!(error.to_string().ends_with(" did not answer within 59900ms"), "{error}");
        assert_eq!(begun.elapsed(), limits.time);
    }

    #[tokio::test]
    async fn a_thread_has_one_client_for_as_long_as_its_runtime() {
        let of = |client: &Option<(Id, Client)>| client.as_ref().map(|(runtime, _)| *runtime);
        client(None).unwrap();
        let here = Handle::current().id();
        CLIENTS.with_borrow(|clients| assert_eq!(clients.each_ref().map(of), [Some(here), None]));
        let elsewhere = std::thread::spawn(|| client(None).err().map(|problem| problem.to_string()));
        assert_eq!(
            elsewhere.join().unwrap(),
            Some("can be asked on a thread of modules only".to_owned())
        );
    }

    proptest! {
        #[test]
        fn a_module_answers_before_its_budget_ends(budget in 0_u64..1_000_000) {
            let budget = Duration::from_micros(budget);
            let time = Limits::within(Some(budget), 1).time;
            prop_assert!(time <= budget && budget - time <= MAX_MARGIN);
            prop_assert!(time >= budget / 10 * 9);
        }

        #[test]
        fn no_text_is_a_url_that_cannot_be_requested(url in "(https?://)?[a-z\\[\\]:@?#%/.0-9 ö]{0,30}") {
            if let Ok(url) = BaseUrl::parse(&url) {
                for url in [url.below("ping"), url.with_query("user_id", "@bob:example.com")] {
                    let uri: Uri = url.parse().unwrap();
                    prop_assert!(uri.host().is_some_and(|host| !host.is_empty()) && uri.path().starts_with('/'), "{}", url);
                }
            }
        }
    }
}
