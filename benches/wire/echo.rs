//! The floor: frames go back as they come, at once or by way of another thread.

use std::path::Path;

use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt, StreamExt as _};
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

type Frames = Framed<UnixStream, LengthDelimitedCodec>;

/// Starts it on a thread of its own; it is there when this returns. `elsewhere`: it reads the JSON of each frame, and another
/// thread sends it back.
pub(crate) fn start(socket: &Path, elsewhere: bool) {
    let listener = std::os::unix::net::UnixListener::bind(socket).expect("a socket");
    listener.set_nonblocking(true).expect("a socket that does not block");
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = UnixListener::from_std(listener).expect("a listener");
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let frames = Framed::new(stream, LengthDelimitedCodec::new());
                if elsewhere {
                    tokio::spawn(by_another_thread(frames));
                } else {
                    tokio::spawn(at_once(frames));
                }
            }
        });
    });
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

/// What has arrived is answered in one write, as far as it fits.
async fn at_once(mut frames: Frames) {
    while let Some(Ok(frame)) = frames.next().await {
        let mut frame: Option<Bytes> = Some(frame.freeze());
        while let Some(contents) = frame {
            if frames.feed(contents).await.is_err() {
                return;
            }
            let next = frames.next().now_or_never();
            frame = next.flatten().and_then(Result::ok).map(bytes::BytesMut::freeze);
        }
        if SinkExt::<Bytes>::flush(&mut frames).await.is_err() {
            return;
        }
    }
}

type Read = (Value, Bytes);

async fn by_another_thread(frames: Frames) {
    let (there, mut go): (UnboundedSender<Read>, UnboundedReceiver<Read>) = unbounded_channel();
    let (back, mut come): (UnboundedSender<Read>, UnboundedReceiver<Read>) = unbounded_channel();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            while let Some(read) = go.recv().await {
                let _ = back.send(read);
            }
        });
    });
    let (mut write, mut read) = frames.split();
    let write = async move {
        while let Some((_, frame)) = come.recv().await {
            let mut frame = Some(frame);
            while let Some(contents) = frame {
                if write.feed(contents).await.is_err() {
                    return;
                }
                frame = come.try_recv().ok().map(|(_, frame)| frame);
            }
            if write.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::spawn(write);
    while let Some(Ok(frame)) = read.next().await {
        let value = serde_json::from_slice(&frame).expect("JSON");
        let _ = there.send((value, frame.freeze()));
    }
}
