//! The section `wire`: where other processes connect.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ganglion_api::wire::MIN_FRAME;
use serde_yaml::Value;

use super::section::Section;
use super::token::Token;
use super::value;

/// The longest path of a Unix socket: the system has room for 108 bytes, a zero at the end.
const MAX_SOCKET_PATH: usize = 107;

/// Where other processes connect, such as the bridge inside Synapse. Without an address the wire is off.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WireConfig {
    /// The Unix socket.
    pub socket: Option<PathBuf>,
    /// Its mode.
    pub mode: u32,
    /// The TCP address; only with a token.
    pub tcp: Option<SocketAddr>,
    /// What who connects must give, if anything.
    pub token: Option<Token>,
    /// The largest frame that is accepted, in bytes.
    pub max_frame: usize,
}

impl WireConfig {
    pub(super) fn read(mut section: Section<'_>, directory: &Path) -> Self {
        let socket = section.optional("socket", |value| {
            let socket = directory.join(value::text(value)?);
            if socket.as_os_str().len() > MAX_SOCKET_PATH {
                return Err(format!(
                    "{} is longer than the {MAX_SOCKET_PATH} bytes that the path of a socket may have",
                    socket.display()
                ));
            }
            Ok(socket)
        });
        let mode = section.or("mode", 0o660, mode);
        let tcp = section.optional("tcp", value::address);
        let mut token_given = false;
        let token = section.optional("token_file", |value| {
            token_given = true;
            Token::read(&directory.join(value::text(value)?))
        });
        let max_frame = section.or("max_frame", 16 << 20, |value| {
            let size = value::size(value)?;
            if size < MIN_FRAME {
                return Err(format!("expected at least {}KiB", MIN_FRAME >> 10));
            }
            Ok(size)
        });
        if tcp.is_some() && !token_given {
            section.problems().push(
                section.path("tcp"),
                "set token_file too: over TCP everybody who reaches it could decide",
            );
        }
        section.finish();
        Self {
            socket,
            mode,
            tcp,
            token,
            max_frame,
        }
    }
}

/// The mode of a file: octal digits, as text.
fn mode(value: &Value) -> Result<u32, String> {
    let example = "write octal digits in quotes, such as \"0660\"";
    let Value::String(text) = value else {
        // An unquoted 660 is a decimal number, and not what it looks like.
        return Err(format!("{example}, found {}", value::kind(value)));
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = digits.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mode.filter(|mode| *mode <= 0o777).ok_or_else(|| example.to_owned())
}
