//! What goes out on a connection: frames from any thread, written by one task, as many at once as there are.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// How many bytes may wait for a peer to read them, beside one frame of the largest size.
const MAX_WAITING: usize = 64 << 20;

/// How much is gathered for one write.
const GATHERED: usize = 64 << 10;

/// Why a frame was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotSent {
    /// It is larger than the peer accepts.
    TooLarge,
    /// The connection is gone, or its peer does not read.
    Gone,
}

/// The sending end.
#[derive(Clone)]
pub(super) struct Outbox {
    /// `None` is the end.
    frames: mpsc::UnboundedSender<Option<Vec<u8>>>,
    waiting: Arc<AtomicUsize>,
    max_frame: usize,
}

/// The end that writes.
pub(super) struct Outgoing {
    frames: mpsc::UnboundedReceiver<Option<Vec<u8>>>,
    waiting: Arc<AtomicUsize>,
}

/// Frames for a peer that accepts them up to this size.
pub(super) fn outbox(max_frame: usize) -> (Outbox, Outgoing) {
    let (sender, frames) = mpsc::unbounded_channel();
    let waiting = Arc::<AtomicUsize>::default();
    let outbox = Outbox {
        frames: sender,
        waiting: Arc::clone(&waiting),
        max_frame,
    };
    (outbox, Outgoing { frames, waiting })
}

impl Outbox {
    /// Sends a frame with these contents.
    pub(super) fn send(&self, contents: Vec<u8>) -> Result<(), NotSent> {
        let length = contents.len();
        if length > self.max_frame {
            return Err(NotSent::TooLarge);
        }
        let waiting = self.waiting.fetch_add(length, Ordering::Relaxed);
        if waiting > MAX_WAITING || self.frames.send(Some(contents)).is_err() {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
            return Err(NotSent::Gone);
        }
        Ok(())
    }

    /// What was sent is the last. Senders that are left send nothing.
    pub(super) fn close(&self) {
        let _ = self.frames.send(None);
    }

    /// Whether the peer has not read for so long that nothing more is kept for it.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > MAX_WAITING
    }
}

impl Outgoing {
    /// Writes frames until the end.
    pub(super) async fn write_to(mut self, mut stream: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut gathered = BytesMut::with_capacity(GATHERED);
        let mut over = false;
        while !over && let Some(Some(frame)) = self.frames.recv().await {
            let mut length = self.put(&mut gathered, &frame)?;
            while gathered.len() < GATHERED
                && !over
                && let Ok(frame) = self.frames.try_recv()
            {
                match frame {
                    Some(frame) => length += self.put(&mut gathered, &frame)?,
                    None => over = true,
                }
            }
            let written = stream.write_all(&gathered).await;
            self.waiting.fetch_sub(length, Ordering::Relaxed);
            written?;
            gathered.clear();
            if gathered.capacity() > 2 * GATHERED {
                gathered = BytesMut::with_capacity(GATHERED);
            }
        }
        stream.shutdown().await
    }

    fn put(&self, gathered: &mut BytesMut, frame: &[u8]) -> io::Result<usize> {
        let length = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        gathered.put_u32(length);
        gathered.put_slice(frame);
        Ok(frame.len())
    }
}
