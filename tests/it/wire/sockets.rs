//! Where the wire listens, and who may connect.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use ganglion::api::wire;
use ganglion::registry;
use serde_json::{Value, json};

use super::pass_and_deny;
use crate::support::{TestServer, config_with, with_modules, write};
use crate::wire_client::hello;

#[test]
fn the_socket_has_its_mode_and_takes_the_place_of_one_that_nobody_listens_on() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ganglion.sock");
    let yaml = |wire: &str| format!("{}wire: {{socket: '{}'{wire}}}\n", with_modules("[]"), socket.display());
    let mode = || std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    let server = TestServer::start(&yaml(""));
    assert_eq!(mode(), 0o660);
    // Somebody listens there already.
    let bind = |yaml: &str| {
        let config = config_with(yaml, &registry());
        ganglion::wire::WireListeners::bind(&config.wire)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let refused = format!("wire.socket: cannot listen on {}", socket.display());
    assert_eq!(bind(&yaml("")), Err(refused.clone()));
    drop(server);
    assert!(!socket.exists());
    // A process that was killed leaves its socket, and perhaps what it was about to put there.
    drop(UnixListener::bind(&socket).unwrap());
    let half_made = socket.with_extension(format!("{}.new", std::process::id()));
    std::fs::create_dir(&half_made).unwrap();
    drop(UnixListener::bind(half_made.join("s")).unwrap());
    let server = TestServer::start(&yaml(", mode: '0600'"));
    assert_eq!(mode(), 0o600);
    drop(server);
    // What is no socket is nobody's to remove.
    std::fs::write(&socket, "precious").unwrap();
    assert_eq!(bind(&yaml("")), Err(refused));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
    assert_eq!(entries(directory.path()), 1);
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn over_tcp_the_token_decides() {
    let files = tempfile::tempdir().unwrap();
    let token = write(files.path(), "token", "s3cret");
    let yaml = format!(
        "{}wire: {{tcp: '127.0.0.1:0', token_file: '{}'}}\n",
        with_modules(&pass_and_deny().to_string()),
        token.display()
    );
    let server = TestServer::start(&yaml);
    let address = server.wire.unwrap();
    let say = |message: &Value| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let contents = message.to_string();
        stream
            .write_all(&u32::try_from(contents.len()).unwrap().to_be_bytes())
            .unwrap();
        stream.write_all(contents.as_bytes()).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut frame).unwrap();
        serde_json::from_slice::<Value>(&frame).unwrap()
    };
    assert_eq!(say(&hello(&json!({})))["error"]["code"], wire::code::UNAUTHORIZED);
    assert_eq!(say(&hello(&json!({"token": "s3cret"})))["result"]["role"], "ganglion");
}
