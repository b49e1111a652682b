//! The floor: frames go back as they come.

use std::path::Path;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt as _};
use tokio::net::UnixListener;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Starts it on a thread of its own; it is there when this returns.
pub(crate) fn start(socket: &Path) {
    let listener = std::os::unix::net::UnixListener::bind(socket).expect("a socket");
    listener.set_nonblocking(true).expect("a socket that does not block");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let listener = UnixListener::from_std(listener).expect("a listener");
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(async move {
                    let mut frames = Framed::new(stream, LengthDelimitedCodec::new());
                    while let Some(Ok(frame)) = frames.next().await {
                        // What has arrived is answered in one write, as far as it fits.
                        let mut frame: Option<Bytes> = Some(frame.freeze());
                        while let Some(contents) = frame {
                            if frames.feed(contents).await.is_err() {
                                return;
                            }
                            let next = futures_util::FutureExt::now_or_never(frames.next());
                            frame = next.flatten().and_then(Result::ok).map(bytes::BytesMut::freeze);
                        }
                        if SinkExt::<Bytes>::flush(&mut frames).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    });
}
