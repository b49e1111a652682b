//! A module asks over https: whom it trusts, and what it says of those whom it does not.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::cli::ganglion;
use crate::service::read;
use crate::support::write;

/// A certificate for `localhost` that signs itself, and its key, which guards nothing.
const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls/localhost.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls/localhost.key");

/// A server that denies everything, over TLS.
fn denies() -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let certificate = CertificateDer::from_pem_file(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_file(KEY).unwrap();
    let config = config
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    let config = Arc::new(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            // A client that does not trust it goes away.
            let _ = deny(connection, Arc::clone(&config));
        }
    });
    address
}

fn deny(connection: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let tls = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(tls, connection));
    while read(&mut reader)?.is_some() {
        reader
            .get_mut()
            .write_all(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\n{}")?;
    }
    Ok(())
}

/// Asks whether a room may be made, where these root certificates are the system's.
fn call(url: &str, roots: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let module = json!({"module": "ganglion.modules.HttpAntispam", "call_timeout": "20s",
        "config": {"base_url": url, "do_ping": false}});
    let config = json!({"server_name": "example.com", "dispatch": {"deadline": "30s"}, "modules": [module]});
    let config = write(directory.path(), "ganglion.yaml", &config.to_string());
    let args = r#"{"user_id": "@bob:example.com"}"#;
    let mut call = ganglion(&[
        "call",
        "--json",
        "-c",
        config.to_str().unwrap(),
        "user_may_create_room",
        args,
    ]);
    call.env("SSL_CERT_FILE", roots)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap()
}

#[test]
fn who_has_a_certificate_of_the_system_s_roots_is_asked() {
    let server = denies();
    let output = call(&format!("https://localhost:{}/", server.port()), CERTIFICATE);
    let decision: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(decision["outcome"]["verdict"], "deny", "{decision}");
}

#[test]
fn a_certificate_for_another_name_is_a_failure_and_no_roots_stop_the_start() {
    let url = format!("https://{}/s3cret", denies());
    let output = call(&url, CERTIFICATE);
    let decision: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(decision["outcome"]["verdict"], "error", "{decision}");
    let detail = decision["steps"][0]["detail"].as_str().unwrap();
    assert!(
        detail.contains(" cannot be reached: invalid peer certificate"),
        "{detail}"
    );
    assert!(!detail.contains("s3cret"), "{detail}");

    let output = call(&url, "/dev/null");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("cannot be trusted: this system has no root certificates"),
        "{error}"
    );
    assert!(!error.contains("s3cret"), "{error}");
}
