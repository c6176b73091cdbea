//! Entries: what a segment is a run of.
//!
//! An entry is a Kafka v2 record batch exactly as a client fetches it, or one of Raft's own: the same 61-byte header with magic
//! 0x7F, no records, last offset delta -1, base offset = next offset, the kind in `attributes`, the body behind the header and the
//! same CRC. One kind of them, which a repair puts in the place of entries that are lost, has offsets all the same, so that those after it keep
//! theirs. The partition leader epoch holds the Raft term. An entry's Raft index is nowhere in its bytes: it is counted.
//!
//! Base offset, length, epoch and magic lie outside the CRC: a point between two entries checks them against the entry before.

use std::io::IoSlice;

use bytes::Bytes;

use super::name::SegmentName;
use crate::ids::{LogId, Offset, RaftIndex, Term};
use crate::protocol::batch::{BatchHeader, HEADER_BYTES, MAGIC, crc_matches, crc32c};

/// The magic of Raft's own entries. Produce refuses it, fetch leaves it out.
pub const RAFT_MAGIC: i8 = 0x7f;

/// Bytes of a batch's header that are stamped or lie between what is: base offset, length, leader epoch.
pub(super) const STAMP_BYTES: usize = 16;
/// The first byte that the CRC covers.
const CRC_FROM: usize = 21;

/// What an entry of Raft's own is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaftEntryKind {
    /// The entry that a new leader begins its term with.
    Blank = 0,
    /// A membership (the raft layer's bytes).
    Membership = 1,
    /// A command to the machine (the machine's bytes).
    Command = 2,
    /// What stands in for an entry that could not be read any more; what it was, nobody knows. Only a repair writes it.
    Lost = 3,
}

impl RaftEntryKind {
    /// The kind that `attributes` name.
    #[must_use]
    pub const fn from_attributes(attributes: i16) -> Option<Self> {
        match attributes {
            0 => Some(Self::Blank),
            1 => Some(Self::Membership),
            2 => Some(Self::Command),
            3 => Some(Self::Lost),
            _ => None,
        }
    }
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// One whole v2 batch. The base offset and leader epoch in it are overwritten when it is stored.
    Records(Bytes),
    /// One of Raft's own entries.
    Raft {
        /// What it is.
        kind: RaftEntryKind,
        /// Its content, without the header.
        body: Bytes,
    },
}

/// An entry to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// Its identity.
    pub id: LogId,
    /// Its content.
    pub body: Body,
}

/// An entry as it is stored, whole: for replication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its identity.
    pub id: LogId,
    /// Its base offset.
    pub base_offset: Offset,
    /// Its content; a batch with its base offset and leader epoch stamped.
    pub body: Body,
}

/// An entry without its records: what applying it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySummary {
    /// Its identity.
    pub id: LogId,
    /// Its header.
    pub header: BatchHeader,
    /// Its size in the log.
    pub size_bytes: u32,
    /// What it is and holds, for one of Raft's own.
    pub raft_body: Option<(RaftEntryKind, Bytes)>,
    /// Whether it is the first of its segment: the state before it is worth a roll descriptor.
    pub starts_segment: bool,
}

/// What is wrong with the bytes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no header: the bytes end, or hold something else.
    #[error("no entry header")]
    Header,
    /// The entry is said to be longer than the bytes there are.
    #[error("the entry's length goes past the end")]
    Length,
    /// It does not go on where the entry before ended.
    #[error("base offset {found} instead of {expected}")]
    BaseOffset {
        /// Where the entry before ended.
        expected: Offset,
        /// What the entry says.
        found: Offset,
    },
    /// Its term is not the one that the log has at this index.
    #[error("leader epoch {0} does not fit")]
    Epoch(i32),
    /// The CRC does not match.
    #[error("CRC mismatch")]
    Crc,
    /// The file ends, or goes on at another entry, where this one should be.
    #[error("entries are missing")]
    Missing,
}

/// A point between two entries of a segment: the next one begins here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) pos: u64,
    pub(super) index: RaftIndex,
    pub(super) offset: Offset,
}

impl Point {
    pub(super) fn start_of(name: SegmentName) -> Self {
        Self { pos: 0, index: name.first_index, offset: name.first_offset }
    }

    /// The point behind the entry with this header, if such an entry can begin here and ends at or before `limit`.
    pub(super) fn step(&self, header: &BatchHeader, limit: u64) -> Result<Self, Fault> {
        let well_formed = match header.magic {
            MAGIC => header.last_offset_delta >= 0,
            RAFT_MAGIC => match RaftEntryKind::from_attributes(header.attributes) {
                Some(RaftEntryKind::Lost) => header.last_offset_delta >= -1 && header.record_count == 0,
                Some(_) => header.last_offset_delta == -1 && header.record_count == 0,
                None => false,
            },
            _ => false,
        };
        if !well_formed {
            return Err(Fault::Header);
        }
        if header.base_offset != self.offset.0 {
            return Err(Fault::BaseOffset { expected: self.offset, found: Offset(header.base_offset) });
        }
        if header.leader_epoch < 0 {
            return Err(Fault::Epoch(header.leader_epoch));
        }
        let pos = self.pos + size_of(header);
        if pos > limit {
            return Err(Fault::Length);
        }
        let offset = header.base_offset.checked_add(i64::from(header.last_offset_delta) + 1).ok_or(Fault::Header)?;
        Ok(Self { pos, index: self.index.next(), offset: Offset(offset) })
    }
}

/// An entry ready to be written: the caller's bytes behind a small stamped prefix.
pub(super) struct Stamped {
    pub(super) id: LogId,
    pub(super) header: BatchHeader,
    prefix: [u8; HEADER_BYTES],
    prefix_len: usize,
    rest: Bytes,
    pub(super) raft_body: Option<(RaftEntryKind, Bytes)>,
}

impl Stamped {
    /// Stamps an entry; `None` if it is not one whole v2 batch.
    pub(super) fn new(entry: &NewEntry, base_offset: Offset) -> Option<Self> {
        match &entry.body {
            Body::Records(batch) => {
                let mut header = BatchHeader::parse(batch).ok()?;
                if header.magic != MAGIC || header.last_offset_delta < 0 || header.size_bytes() != batch.len() {
                    return None;
                }
                header.base_offset = base_offset.0;
                header.leader_epoch = entry.id.term.epoch();
                let rest = batch.slice(STAMP_BYTES..);
                Some(Self {
                    id: entry.id,
                    prefix: header.encode(),
                    header,
                    prefix_len: STAMP_BYTES,
                    rest,
                    raft_body: None,
                })
            }
            Body::Raft { kind, body } => {
                let header = raft_header(entry.id, base_offset, *kind, body)?;
                Some(Self {
                    id: entry.id,
                    prefix: header.encode(),
                    header,
                    prefix_len: HEADER_BYTES,
                    rest: body.clone(),
                    raft_body: Some((*kind, body.clone())),
                })
            }
        }
    }

    pub(super) fn size(&self) -> u64 {
        size_of(&self.header)
    }

    /// A batch without its stamped beginning.
    pub(super) fn batch(&self) -> Option<Bytes> {
        self.raft_body.is_none().then(|| self.rest.clone())
    }

    pub(super) fn slices(&self) -> [IoSlice<'_>; 2] {
        [IoSlice::new(&self.prefix[..self.prefix_len]), IoSlice::new(&self.rest)]
    }
}

/// The least that an entry takes.
pub(super) const MIN_ENTRY_BYTES: u64 = HEADER_BYTES as u64;

/// An entry that stands in for one that is lost: a header, and zeros.
pub(super) struct Lost {
    pub(super) header: [u8; HEADER_BYTES],
    pub(super) body_bytes: u64,
}

impl Lost {
    /// For so many offsets from one on.
    ///
    /// # Panics
    /// If it were longer, or had more offsets, than an entry can have.
    pub(super) fn new(id: LogId, base_offset: Offset, offsets: i64, body_bytes: u64) -> Self {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let body = usize::try_from(body_bytes).expect("the caller splits what is longer");
        let mut header =
            own_header(id, base_offset, RaftEntryKind::Lost, body).expect("the caller splits what is longer");
        header.last_offset_delta = i32::try_from(offsets - 1).expect("the caller splits what is more");
        let encoded = header.encode();
        let mut parts = vec![&encoded[CRC_FROM..]];
        parts.extend(std::iter::repeat_n(&ZEROS[..], body / ZEROS.len()));
        parts.push(&ZEROS[..body % ZEROS.len()]);
        header.crc = crc32c(&parts);
        Self { header: header.encode(), body_bytes }
    }
}

fn raft_header(id: LogId, base_offset: Offset, kind: RaftEntryKind, body: &[u8]) -> Option<BatchHeader> {
    let mut header = own_header(id, base_offset, kind, body.len())?;
    header.crc = crc32c(&[&header.encode()[CRC_FROM..], body]);
    Some(header)
}

/// The header of one of Raft's own entries, without its CRC.
fn own_header(id: LogId, base_offset: Offset, kind: RaftEntryKind, body_bytes: usize) -> Option<BatchHeader> {
    Some(BatchHeader {
        base_offset: base_offset.0,
        batch_length: i32::try_from(HEADER_BYTES - 12 + body_bytes).ok()?,
        leader_epoch: id.term.epoch(),
        magic: RAFT_MAGIC,
        crc: 0,
        attributes: kind as i16,
        last_offset_delta: -1,
        base_timestamp: -1,
        max_timestamp: -1,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: 0,
    })
}

/// What an entry of Raft's own is; `None`: a batch.
pub(super) fn kind_of(header: &BatchHeader) -> Option<RaftEntryKind> {
    RaftEntryKind::from_attributes(header.attributes).filter(|_| header.magic == RAFT_MAGIC)
}

/// An entry's size in the log.
pub(super) fn size_of(header: &BatchHeader) -> u64 {
    u64::try_from(header.size_bytes()).expect("a size in memory")
}

/// The term in a header that has passed [`Point::step`].
pub(super) fn term_of(header: &BatchHeader) -> Term {
    Term(u64::try_from(header.leader_epoch).expect("checked not to be negative"))
}

/// Whether an entry's bytes, header included, match its CRC.
pub(super) fn is_intact(entry: &[u8]) -> bool {
    crc_matches(entry)
}

/// Takes whole bytes of an entry apart.
pub(super) fn body_of(header: &BatchHeader, entry: Bytes) -> Body {
    match kind_of(header) {
        Some(kind) => Body::Raft { kind, body: entry.slice(HEADER_BYTES..) },
        None => Body::Records(entry),
    }
}
