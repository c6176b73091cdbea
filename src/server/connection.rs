//! One client's connection: frames in, replies out in the order of their requests.
//!
//! The reading half decodes frames and reserves each reply's slot before it looks at the next frame; the writing half waits for
//! the slots in order. So several produce requests of one connection are in flight at once, their batches are submitted in order, and
//! replies never overtake each other (protocol: strict FIFO per connection).
//!
//! A peer cannot take memory that it does not fill: room for a frame grows as its bytes arrive, and is taken from the broker's budget
//! before it is allocated.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::{Context, dispatch};
use crate::net::{Connection, Reader, Writer};
use crate::protocol::frame::{self, FrameError, SIZE_BYTES};
use crate::protocol::header::HeaderError;

/// Replies that may wait in a connection: a client that pipelines more waits in its socket.
const REPLIES_WAITING_MAX: usize = 64;
/// The first room for a frame; more follows as bytes arrive.
const READ_STEP_BYTES: usize = 64 << 10;
/// The largest room that is made ahead for a frame like the last one.
const READ_AHEAD_BYTES_MAX: usize = 256 << 10;
/// The budget's unit: a permit stands for this many bytes.
pub(super) const BUDGET_UNIT_BYTES: usize = 1 << 10;
/// Slices given to one vectored write.
const SLICES_PER_WRITE: usize = 64;

/// What a request is answered with.
#[derive(Debug)]
pub enum Reply {
    /// A whole frame, in slices.
    Frame(Vec<Bytes>),
    /// Nothing (acks=0).
    Nothing,
    /// Nothing, and the connection is closed: the protocol's way to refuse what has no error code.
    Close,
}

/// A reply that is ready, or will be.
pub enum Slot {
    /// Ready.
    Ready(Reply),
    /// Ready when the future is; it is polled in its turn.
    Later(Pin<Box<dyn Future<Output = Reply> + Send>>),
}

impl Slot {
    /// A slot for a future.
    pub fn later(reply: impl Future<Output = Reply> + Send + 'static) -> Self {
        Self::Later(Box::pin(reply))
    }
}

/// Why a connection ended, for the log.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The peer went away or stopped reading.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The frame's size or API is not allowed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The header cannot be understood.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The body cannot be understood.
    #[error(transparent)]
    Malformed(#[from] frame::Malformed),
    /// A frame took too long to arrive.
    #[error("a frame did not arrive within {} s", .0.as_secs())]
    SlowFrame(Duration),
    /// Nothing happened for too long.
    #[error("idle")]
    Idle,
}

/// A reply's slot with the memory that its request holds.
struct Queued {
    slot: Slot,
    _memory: Option<OwnedSemaphorePermit>,
}

/// Serves a connection until either side ends it.
///
/// # Errors
/// Why it ended, unless the peer just closed it.
pub async fn serve(context: Arc<Context>, connection: Connection) -> Result<(), ConnectionError> {
    let Connection { reader, writer, peer } = connection;
    let (slots, queue) = mpsc::channel(REPLIES_WAITING_MAX);
    // Tells parked fetches that the peer has gone and nobody will read their reply.
    let (closing, closed) = watch::channel(false);
    let peer = dispatch::Peer { address: peer, closed };
    let mut frames = Frames::new(reader, Arc::clone(&context));
    let reading = async {
        let outcome = read_requests(&context, &peer, &mut frames, &slots).await;
        drop(slots);
        closing.send_replace(true);
        outcome
    };
    let writing = write_replies(writer, queue);
    tokio::pin!(reading, writing);
    tokio::select! {
        biased;
        // The peer stopped reading, or a reply closes the connection: what it still sends is not read.
        written = &mut writing => Ok(written?),
        outcome = &mut reading => {
            writing.await?;
            outcome
        }
    }
}

async fn read_requests(
    context: &Arc<Context>,
    peer: &dispatch::Peer,
    frames: &mut Frames,
    slots: &mpsc::Sender<Queued>,
) -> Result<(), ConnectionError> {
    while let Some((frame, memory)) = frames.next().await? {
        let slot = dispatch::dispatch(context, peer, frame).await?;
        // The writer ends when the peer stops reading or a reply closes the connection.
        if slots.send(Queued { slot, _memory: memory }).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Cuts the byte stream into frames.
struct Frames {
    reader: Reader,
    context: Arc<Context>,
    buffer: BytesMut,
    last_frame_bytes: usize,
}

impl Frames {
    fn new(reader: Reader, context: Arc<Context>) -> Self {
        Self { reader, context, buffer: BytesMut::new(), last_frame_bytes: 0 }
    }

    /// The next frame without its size, and the memory it is accounted with; `None` when the peer has closed the connection.
    async fn next(&mut self) -> Result<Option<(Bytes, Option<OwnedSemaphorePermit>)>, ConnectionError> {
        let (idle, frame_time) = (self.context.limits.idle, self.context.limits.frame);
        let front = SIZE_BYTES + 2;
        if self.buffer.is_empty() {
            // The likely size of the next frame, so that it arrives in one read and is never moved.
            let room = (self.last_frame_bytes + front).clamp(4 << 10, READ_AHEAD_BYTES_MAX);
            self.buffer = BytesMut::with_capacity(room);
            match tokio::time::timeout(idle, self.reader.read_buf(&mut self.buffer)).await {
                Err(_) => return Err(ConnectionError::Idle),
                Ok(Ok(0)) => return Ok(None),
                Ok(read) => drop(read?),
            }
        }
        let frame = async {
            while self.buffer.len() < front {
                self.buffer.reserve(front);
                if self.reader.read_buf(&mut self.buffer).await? == 0 {
                    return Ok(None);
                }
            }
            let first = self.buffer.first_chunk().expect("the loop has read this much");
            let size = frame::request_size(*first, self.context.limits.request_bytes)?;
            self.fill(size).await
        };
        match tokio::time::timeout(frame_time, frame).await {
            Err(_) => Err(ConnectionError::SlowFrame(frame_time)),
            Ok(outcome) => outcome,
        }
    }

    async fn fill(&mut self, size: usize) -> Result<Option<(Bytes, Option<OwnedSemaphorePermit>)>, ConnectionError> {
        let whole = SIZE_BYTES + size;
        let mut memory: Option<OwnedSemaphorePermit> = None;
        let mut granted = 0;
        while self.buffer.len() < whole || granted < whole.min(self.buffer.len()) {
            // Room for at most as much again as has arrived: a frame that is announced and never sent costs little.
            let wanted = whole.min((self.buffer.len() * 2).max(READ_STEP_BYTES));
            if granted < wanted {
                let more = u32::try_from((wanted - granted).div_ceil(BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX);
                let permit = Arc::clone(&self.context.request_memory).acquire_many_owned(more).await;
                let permit = permit.map_err(|_| io::Error::other("the broker is stopping"))?;
                match &mut memory {
                    Some(held) => held.merge(permit),
                    None => memory = Some(permit),
                }
                granted = wanted;
            }
            if self.buffer.len() >= whole {
                break;
            }
            self.buffer.reserve(wanted - self.buffer.len());
            let room = wanted - self.buffer.len();
            let mut limited = (&mut self.reader).take(u64::try_from(room + READ_AHEAD).unwrap_or(u64::MAX));
            if limited.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
        self.last_frame_bytes = whole;
        let mut frame = self.buffer.split_to(whole);
        if self.buffer.len() < READ_STEP_BYTES {
            // What was read of the next frame moves to its own memory, so that this frame's is freed when it is answered.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        let body = frame.split_off(SIZE_BYTES);
        Ok(Some((body.freeze(), memory)))
    }
}

/// Bytes read beyond a frame in the hope of the next one's front.
const READ_AHEAD: usize = 512;

async fn write_replies(mut writer: Writer, mut queue: mpsc::Receiver<Queued>) -> io::Result<()> {
    while let Some(queued) = queue.recv().await {
        let reply = match queued.slot {
            Slot::Ready(reply) => reply,
            Slot::Later(future) => future.await,
        };
        match reply {
            Reply::Frame(slices) => write_all(&mut writer, slices).await?,
            Reply::Nothing => {}
            Reply::Close => break,
        }
    }
    writer.shutdown().await
}

/// Writes all slices with as few calls as the system allows.
async fn write_all(writer: &mut Writer, slices: Vec<Bytes>) -> io::Result<()> {
    if let [slice] = &slices[..] {
        return writer.write_all(slice).await;
    }
    let (mut first, mut skip) = (0, 0);
    while first < slices.len() {
        let end = slices.len().min(first + SLICES_PER_WRITE);
        let mut parts = Vec::with_capacity(end - first);
        parts.push(io::IoSlice::new(&slices[first][skip..]));
        parts.extend(slices[first + 1..end].iter().map(|slice| io::IoSlice::new(slice)));
        let mut written = writer.write_vectored(&parts).await?;
        if written == 0 && parts.iter().any(|part| !part.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while first < slices.len() && written >= slices[first].len() - skip {
            written -= slices[first].len() - skip;
            (first, skip) = (first + 1, 0);
        }
        skip += written;
    }
    Ok(())
}
