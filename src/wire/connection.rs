//! One connection, from its hello to its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use ganglion_api::wire::{self, Goodbye, Hello, Incoming, MIN_FRAME, RpcError, method};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::args::ConnectedArgs;
use super::counts::WireCounts;
use super::hello;
use super::outbox::{Outbox, outbox};
use super::peer::Peer;
use super::questions::Questions;
use super::server::Shared;

/// How long who connects may take to say hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// How long a peer may take to read what it was sent last.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How much is read at once, if it is there.
const READ_AT_ONCE: usize = 64 << 10;

type Frames<R> = FramedRead<R, LengthDelimitedCodec>;

/// Why a connection ended.
enum End {
    /// The peer closed it, or it broke.
    Closed,
    /// The peer did what it must not.
    Broken(RpcError),
    /// Everything was answered after a goodbye.
    Done,
}

/// Serves a connection to its end.
pub(super) async fn serve<R, W>((read, write): (R, W), shared: Arc<Shared>)
where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let codec = LengthDelimitedCodec::builder()
        .max_frame_length(shared.max_frame)
        .new_codec();
    let mut frames = FramedRead::with_capacity(read, codec, READ_AT_ONCE);
    let refused = match timeout(HELLO_PATIENCE, frames.next()).await {
        Ok(Some(Ok(frame))) => match hello::read(&frame, &shared) {
            Ok((id, hello)) => return welcome(id, hello, frames, write, shared).await,
            Err(refused) => Some(refused),
        },
        Ok(_) | Err(_) => None,
    };
    WireCounts::count(&shared.bridges.counts().refused_connections);
    match &refused {
        Some((_, error)) => tracing::warn!(%error, "wire: a connection was refused"),
        None => tracing::debug!("wire: a connection without a hello"),
    }
    if let Some((id, error)) = refused
        && let Ok(message) = wire::error(id, &error)
    {
        let (outbox, outgoing) = outbox(MIN_FRAME);
        let _ = outbox.send(message);
        outbox.close();
        let _ = timeout(LAST_WORDS, outgoing.write_to(write)).await;
    }
}

/// Answers the hello, and everything that follows.
async fn welcome<R, W>(id: u64, hello: Hello, frames: Frames<R>, write: W, shared: Arc<Shared>)
where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let (outbox, outgoing) = outbox(hello.max_frame);
    let writer = tokio::task::spawn_local(outgoing.write_to(write));
    let mut announcements = shared.announcements.clone();
    let announcement = announcements.borrow_and_update().clone();
    if let Ok(message) = wire::result(id, &hello::welcome(&shared, announcement)) {
        let _ = outbox.send(message);
    }
    let (role, worker, software) = (hello.role, hello.worker_name.clone(), hello.software.clone());
    let (worker, role_word) = (worker.as_deref().unwrap_or("main"), role.as_str());
    tracing::info!(role = role_word, worker, software, "wire: connected");
    let peer = Peer::new(hello, outbox.clone());
    let connected = shared.bridges.counts().connected(role);
    shared.bridges.add(&peer);
    let connection = Connection {
        questions: Questions::new(
            Arc::clone(&shared),
            Arc::clone(&peer),
            Arc::new(ConnectedArgs(Arc::downgrade(&peer))),
            outbox.clone(),
        ),
        peer: Arc::clone(&peer),
        outbox,
        shared: Arc::clone(&shared),
    };
    let end = connection.run(frames, announcements).await;
    shared.bridges.remove(&peer);
    peer.gone();
    drop(connected);
    match end {
        End::Closed => tracing::info!(role = role_word, worker, "wire: disconnected"),
        End::Done => tracing::info!(role = role_word, worker, "wire: left after a goodbye"),
        End::Broken(error) => {
            tracing::warn!(role = role_word, worker, %error, "wire: disconnected, the other side broke the protocol");
            if let Ok(message) = wire::error(None, &error) {
                let _ = connection.outbox.send(message);
            }
        }
    }
    // What still runs goes on to its end or its deadline, and nobody waits for it.
    connection.outbox.close();
    let abort = writer.abort_handle();
    if timeout(LAST_WORDS, writer).await.is_err() {
        abort.abort();
    }
}

struct Connection {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    questions: std::rc::Rc<Questions>,
    outbox: Outbox,
}

impl Connection {
    async fn run<R: AsyncRead + Unpin>(
        &self,
        mut frames: Frames<R>,
        mut announcements: tokio::sync::watch::Receiver<wire::Announcement>,
    ) -> End {
        let mut stopping = false;
        loop {
            tokio::select! {
                frame = frames.next() => match frame {
                    Some(Ok(frame)) => {
                        if let Err(error) = self.take(&frame, stopping) {
                            return End::Broken(error);
                        }
                    }
                    Some(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                        let message = format!("a frame is larger than {} bytes", self.shared.max_frame);
                        return End::Broken(RpcError::new(wire::code::INVALID_REQUEST, message));
                    }
                    Some(Err(_)) | None => return End::Closed,
                },
                Ok(()) = announcements.changed() => {
                    let announcement = announcements.borrow_and_update().clone();
                    self.peer.notify(method::ANNOUNCE, &announcement);
                }
                () = self.questions.answered(), if stopping => {}
                () = self.shared.stopping.cancelled(), if !stopping => {
                    stopping = true;
                    self.peer.notify(method::GOODBYE, &Goodbye { reason: "stopping".into() });
                }
            }
            if self.outbox.is_full() {
                let error = RpcError::new(wire::code::INVALID_REQUEST, "the answers are not read");
                return End::Broken(error);
            }
            if stopping && self.questions.are_answered() && self.peer.waits_for() == 0 {
                return End::Done;
            }
        }
    }

    /// Takes a message.
    ///
    /// # Errors
    /// It is none.
    fn take(&self, frame: &BytesMut, stopping: bool) -> Result<(), RpcError> {
        match Incoming::read(frame)? {
            Incoming::Request { id, method, params } => self.questions.request(id, &method, params, stopping),
            Incoming::Notification { method, params } => {
                match &*method {
                    method::CANCEL => self.questions.cancel(params),
                    method::GOODBYE => self.peer.leave(),
                    _ => {}
                }
                Ok(())
            }
            Incoming::Answer { id: Some(id), result } => {
                self.peer
                    .answered(id, result.map(|result| result.map(RawValue::to_owned)));
                Ok(())
            }
            Incoming::Answer { id: None, result } => {
                if let Err(RpcError { code, message, .. }) = result {
                    let message = &*message;
                    tracing::warn!(code, message, "wire: the other side did not understand something");
                }
                Ok(())
            }
        }
    }
}
