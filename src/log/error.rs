//! What can go wrong with a log.

use std::io;
use std::ops::Range;

use super::entry::Fault;
use super::name::SegmentName;
use crate::ids::{LogId, Offset, RaftIndex, Term};

/// A part of a log that cannot be read although it was durable once. It is never cut; what lies around it stays readable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path}: {fault} at byte {}; bytes {}..{}, raft indexes {}..{}, offsets {}..{} cannot be read",
    position.start, position.start, position.end, indexes.start, indexes.end, offsets.start, offsets.end
)]
pub struct Damage {
    /// The segment.
    pub segment: SegmentName,
    /// Its file, relative to the data directory.
    pub path: String,
    /// The bytes.
    pub position: Range<u64>,
    /// The entries.
    pub indexes: Range<RaftIndex>,
    /// The offsets.
    pub offsets: Range<Offset>,
    /// What was found at the first of the bytes.
    pub fault: Fault,
}

/// Why a log does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is no space left. Nothing was changed.
    #[error("the disk is full")]
    Full,
    /// A write or a sync failed earlier: nothing is written or acknowledged any more, and the process must stop.
    #[error("the log stopped after a failed write or sync")]
    Failed,
    /// The disk failed.
    #[error(transparent)]
    Io(io::Error),
    /// A sync failed. Later ones may succeed without having made durable what this one was to: the process must stop.
    #[error("sync: {0}")]
    Sync(io::Error),
    /// An entry does not have the next index. A bug of the caller; nothing was written.
    #[error("entry {found} does not follow, the next index is {expected}")]
    Gap {
        /// The next index.
        expected: RaftIndex,
        /// The entry.
        found: LogId,
    },
    /// An entry has a lower term than the one before it. A bug of the caller; nothing was written.
    #[error("entry {found} does not follow, the last term is {last}")]
    TermFalls {
        /// The last term.
        last: Term,
        /// The entry.
        found: LogId,
    },
    /// What an entry holds is not one whole record batch of version 2, or is too large. A bug of the caller; nothing was written.
    #[error("entry {0} is not one record batch")]
    NotABatch(LogId),
    /// The partition has no offsets left.
    #[error("the partition has no offsets left")]
    OffsetsUsedUp,
    /// The entries asked for are not in the log.
    #[error("raft indexes {}..{} are not all in the log, which has {}..{}", asked.start, asked.end, has.start, has.end)]
    NoSuchEntries {
        /// What was asked for.
        asked: Range<RaftIndex>,
        /// What there is.
        has: Range<RaftIndex>,
    },
    /// The entries asked for cannot be read.
    #[error(transparent)]
    Damaged(Box<Damage>),
    /// A purge beyond the log's end without a durable descriptor for that very point: nobody would know where the log goes on.
    #[error("cannot purge to {upto}: the log ends at {last:?} and no descriptor says what follows")]
    PurgeWithoutDescriptor {
        /// The purge's end.
        upto: LogId,
        /// The log's end.
        last: Option<LogId>,
    },
    /// A truncation of entries that are purged or known to be committed. A bug of the caller; nothing was changed.
    #[error("cannot truncate from index {from}: entries up to {kept} are committed")]
    TruncateCommitted {
        /// Where to truncate from.
        from: RaftIndex,
        /// The last entry that must stay.
        kept: LogId,
    },
    /// A descriptor that names an entry which is not durable here yet. Nothing was written.
    #[error("the descriptor at {id} is ahead of what is flushed, {flushed:?}")]
    NotFlushed {
        /// The descriptor's entry.
        id: LogId,
        /// The last entry that is durable.
        flushed: Option<LogId>,
    },
}

impl From<io::Error> for LogError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error),
        }
    }
}

/// Why a read by offset gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is before the first byte kept or behind the visible end.
    #[error("offset {offset} is not between {first} and {end}")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The first offset that there is.
        first: Offset,
        /// The visible end.
        end: Offset,
    },
    /// The offset lies in damaged bytes. The rest of the log can be read.
    #[error(transparent)]
    Corrupt(Box<Damage>),
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}
