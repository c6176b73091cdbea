//! One client's connection: frames in, replies out in the order of their requests.
//!
//! The reading half decodes frames and reserves each reply's slot before it looks at the next frame; the writing half waits for
//! the slots in order. So several produce requests of one connection are in flight at once, their batches are submitted in order, and
//! replies never overtake each other (protocol: strict FIFO per connection).
//!
//! A peer cannot take memory that it does not fill: room for a frame grows as its bytes arrive, and is taken from the broker's budget
//! before it is allocated. One that fills it slowly keeps it only while nobody else needs it, and one that does not read its replies
//! is not read from any more, and is closed after a while.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::memory::{Held, Stopping};
use super::{Context, dispatch};
use crate::net::{Connection, Reader, Writer};
use crate::protocol::frame::{self, FrameError, SIZE_BYTES};
use crate::protocol::header::HeaderError;

/// Replies that may wait in a connection: a client that pipelines more waits in its socket.
const REPLIES_WAITING_MAX: usize = 64;
/// Bytes of ready replies that may wait in a connection, beside the one that is written.
const REPLY_BYTES_WAITING_MAX: usize = 1 << 20;
/// Replies below this are not counted: there are at most [`REPLIES_WAITING_MAX`].
const REPLY_BYTES_COUNTED: usize = 4 << 10;
/// The first room for a frame; more follows as bytes arrive. So little that as many connections as there may be leave most of the
/// budget to others, whatever they announce.
const FIRST_ROOM_BYTES: usize = 8 << 10;
/// What an idle connection keeps.
const IDLE_ROOM_BYTES: usize = 4 << 10;
/// How long room for a frame like the last one is kept for the next.
const ROOM_KEPT: Duration = Duration::from_secs(1);
/// A rest of the buffer below this moves to memory of its own.
const MOVED_BYTES_MAX: usize = 64 << 10;
/// While others wait for memory, a frame that holds more than its first room must bring [`PACE_BYTES`] in each such time.
const PACE_PERIOD: Duration = Duration::from_secs(1);
/// See [`PACE_PERIOD`].
const PACE_BYTES: usize = 64 << 10;
/// The largest room that is made ahead for a frame like the last one.
const READ_AHEAD_BYTES_MAX: usize = 256 << 10;
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
    /// A frame arrived too slowly while others waited for the memory that it held.
    #[error("a frame stopped after {arrived} bytes while others waited for its memory (limits.in_flight_bytes)")]
    SlowWhileShort {
        /// What had arrived.
        arrived: usize,
    },
    /// Memory for a frame was not to be had within the time that it may take.
    #[error("memory for a frame did not come free within {} s (limits.in_flight_bytes)", .0.as_secs())]
    Starved(Duration),
    /// The broker is stopping.
    #[error(transparent)]
    Stopping(#[from] Stopping),
    /// The peer ended the connection inside a frame.
    #[error("the connection ended inside a frame")]
    CutShort,
    /// The peer does not take its replies.
    #[error("a reply was not taken within {} s", .0.as_secs())]
    Unread(Duration),
    /// Nothing happened for too long.
    #[error("idle")]
    Idle,
}

/// A reply's slot with the memory that its request holds.
struct Queued {
    slot: Slot,
    api_key: i16,
    read_at: Instant,
    _memory: Held,
    _waiting: Option<OwnedSemaphorePermit>,
}

/// Serves a connection until either side ends it.
///
/// # Errors
/// Why it ended, unless the peer just closed it.
pub async fn serve(context: Arc<Context>, connection: Connection) -> Result<(), ConnectionError> {
    let Connection { reader, writer, peer, .. } = connection;
    let (slots, queue) = mpsc::channel(REPLIES_WAITING_MAX);
    // Tells parked fetches that the peer has gone and nobody will read their reply.
    let (closing, closed) = watch::channel(false);
    let peer = dispatch::Peer { address: peer, closed };
    let mut frames = Frames::new(reader);
    let reading = async {
        let outcome = read_requests(&context, &peer, &mut frames, &slots).await;
        drop(slots);
        closing.send_replace(true);
        outcome
    };
    let writing = write_replies(&context, writer, queue);
    tokio::pin!(reading, writing);
    tokio::select! {
        biased;
        // The peer stopped reading, or a reply closes the connection: what it still sends is not read.
        written = &mut writing => written,
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
    let room = Arc::new(Semaphore::new(REPLY_BYTES_WAITING_MAX));
    while let Some((frame, mut memory)) = frames.next(context).await? {
        let api_key = i16::from_be_bytes(*frame.first_chunk().expect("no request is shorter"));
        let read_at = Instant::now();
        let slot = dispatch::dispatch(context, peer, frame, &mut memory).await?;
        if let Slot::Ready(_) = slot {
            context.metrics.answered(api_key, read_at.elapsed());
        }
        let waiting = match counted(&slot) {
            0 => None,
            bytes => Arc::clone(&room).acquire_many_owned(bytes).await.ok(),
        };
        // The writer ends when the peer stops reading or a reply closes the connection.
        let queued = Queued { slot, api_key, read_at, _memory: memory, _waiting: waiting };
        if slots.send(queued).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// What a ready reply counts among those that wait; one that is larger than all may be counts as all.
fn counted(slot: &Slot) -> u32 {
    let Slot::Ready(Reply::Frame(slices)) = slot else { return 0 };
    match slices.iter().map(Bytes::len).sum::<usize>() {
        ..REPLY_BYTES_COUNTED => 0,
        bytes => u32::try_from(bytes.min(REPLY_BYTES_WAITING_MAX)).expect("at most 1 MiB"),
    }
}

/// How far a frame has come, for who watches the time.
#[derive(Default)]
struct Progress {
    arrived: AtomicUsize,
    granted: AtomicUsize,
    /// Whether it waits for the broker and not for the peer.
    is_starved: AtomicBool,
}

/// Cuts the byte stream into frames.
struct Frames {
    reader: Reader,
    buffer: BytesMut,
    last_frame_bytes: usize,
}

impl Frames {
    fn new(reader: Reader) -> Self {
        Self { reader, buffer: BytesMut::new(), last_frame_bytes: 0 }
    }

    /// The next frame without its size, and the memory it is accounted with; `None` when the peer has closed the connection.
    async fn next(&mut self, context: &Context) -> Result<Option<(Bytes, Held)>, ConnectionError> {
        if self.buffer.is_empty() {
            let read = self.first_bytes(context.limits.idle).await?;
            if read == 0 {
                return Ok(None);
            }
            context.metrics.received(read);
        }
        let (limit, began, progress) = (context.limits.frame, Instant::now(), Progress::default());
        let frame = self.frame(context, &progress);
        tokio::pin!(frame);
        let (mut look, mut before) = (began, 0);
        loop {
            look = (look + PACE_PERIOD).min(began + limit);
            if let Ok(outcome) = tokio::time::timeout_at(look, &mut frame).await {
                return outcome.map(Some);
            }
            let (arrived, granted) = (progress.arrived.load(Relaxed), progress.granted.load(Relaxed));
            match progress.is_starved.load(Relaxed) {
                true if look >= began + limit => return Err(ConnectionError::Starved(limit)),
                false if look >= began + limit => return Err(ConnectionError::SlowFrame(limit)),
                false
                    if arrived - before < PACE_BYTES
                        && granted > FIRST_ROOM_BYTES
                        && context.request_memory.is_short() =>
                {
                    return Err(ConnectionError::SlowWhileShort { arrived });
                }
                _ => before = arrived,
            }
        }
    }

    /// Waits for the first bytes of a frame, and says how many; 0 when the peer has closed the connection.
    async fn first_bytes(&mut self, idle: Duration) -> Result<usize, ConnectionError> {
        let began = Instant::now();
        // The likely size of the next frame, so that it arrives in one read and is never moved.
        let mut room = (self.last_frame_bytes + FRONT_BYTES).clamp(IDLE_ROOM_BYTES, READ_AHEAD_BYTES_MAX);
        loop {
            self.buffer = BytesMut::with_capacity(room);
            let until = if room > IDLE_ROOM_BYTES { idle.min(ROOM_KEPT) } else { idle };
            match tokio::time::timeout_at(began + until, self.reader.read_buf(&mut self.buffer)).await {
                Ok(read) => return Ok(read?),
                Err(_) if until == idle => return Err(ConnectionError::Idle),
                Err(_) => room = IDLE_ROOM_BYTES,
            }
        }
    }

    /// The rest of the frame whose first bytes are there.
    async fn frame(&mut self, context: &Context, progress: &Progress) -> Result<(Bytes, Held), ConnectionError> {
        while self.buffer.len() < FRONT_BYTES {
            // Of a frame too short for an API key nothing more would come.
            if let Some(size) = self.buffer.first_chunk() {
                frame::check_least_size(*size)?;
            }
            self.buffer.reserve(FRONT_BYTES);
            match self.reader.read_buf(&mut self.buffer).await? {
                0 => return Err(ConnectionError::CutShort),
                read => context.metrics.received(read),
            }
        }
        let front = self.buffer.first_chunk().expect("the loop has read this much");
        let whole = SIZE_BYTES + frame::request_size(*front, context.limits.request_bytes)?;
        let (mut memory, mut granted) = (Held::default(), 0);
        while granted < whole || self.buffer.len() < whole {
            // Room for at most as much again as has arrived: a frame that is announced and never sent costs little.
            let wanted = whole.min((self.buffer.len() * 2).max(FIRST_ROOM_BYTES));
            if granted < wanted {
                progress.is_starved.store(true, Relaxed);
                context.request_memory.grow(&mut memory, wanted - granted, whole).await?;
                progress.is_starved.store(false, Relaxed);
                granted = wanted;
                progress.granted.store(granted, Relaxed);
            }
            if self.buffer.len() < whole {
                self.buffer.reserve(wanted - self.buffer.len());
                let room = wanted - self.buffer.len();
                let mut limited = (&mut self.reader).take(u64::try_from(room + READ_AHEAD).unwrap_or(u64::MAX));
                match limited.read_buf(&mut self.buffer).await? {
                    0 => return Err(ConnectionError::CutShort),
                    read => context.metrics.received(read),
                }
                progress.arrived.store(self.buffer.len(), Relaxed);
            }
        }
        self.last_frame_bytes = whole;
        let mut frame = self.buffer.split_to(whole);
        if self.buffer.len() < MOVED_BYTES_MAX {
            // What was read of the next frame moves to its own memory, so that this frame's is freed when it is answered.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        let body = frame.split_off(SIZE_BYTES);
        Ok((body.freeze(), memory))
    }
}

/// The size and API key that a frame begins with.
const FRONT_BYTES: usize = SIZE_BYTES + 2;
/// Bytes read beyond a frame in the hope of the next one's front.
const READ_AHEAD: usize = 512;

async fn write_replies(
    context: &Context,
    mut writer: Writer,
    mut queue: mpsc::Receiver<Queued>,
) -> Result<(), ConnectionError> {
    while let Some(queued) = queue.recv().await {
        let reply = match queued.slot {
            Slot::Ready(reply) => reply,
            Slot::Later(future) => {
                let reply = future.await;
                context.metrics.answered(queued.api_key, queued.read_at.elapsed());
                reply
            }
        };
        match reply {
            Reply::Frame(slices) => write_all(context, &mut writer, slices).await?,
            Reply::Nothing => {}
            Reply::Close => break,
        }
    }
    Ok(writer.shutdown().await?)
}

/// Writes all slices with as few calls as the system allows. The peer must take something of them in each idle time.
async fn write_all(context: &Context, writer: &mut Writer, slices: Vec<Bytes>) -> Result<(), ConnectionError> {
    let (patience, mut first, mut skip) = (context.limits.idle, 0, 0);
    while first < slices.len() {
        let end = slices.len().min(first + SLICES_PER_WRITE);
        let write = async {
            if let [slice] = &slices[..] {
                return writer.write(&slice[skip..]).await;
            }
            let mut parts = Vec::with_capacity(end - first);
            parts.push(io::IoSlice::new(&slices[first][skip..]));
            parts.extend(slices[first + 1..end].iter().map(|slice| io::IoSlice::new(slice)));
            writer.write_vectored(&parts).await
        };
        let Ok(written) = tokio::time::timeout(patience, write).await else {
            return Err(ConnectionError::Unread(patience));
        };
        let mut written = written?;
        context.metrics.sent(written);
        if written == 0 && slices[first..end].iter().any(|slice| !slice.is_empty()) {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        while first < slices.len() && written >= slices[first].len() - skip {
            written -= slices[first].len() - skip;
            (first, skip) = (first + 1, 0);
        }
        skip += written;
    }
    Ok(())
}
