//! What is remembered of a log outside its segments: descriptors (checkpoints), flushed marks, places. Their bytes.

use bytes::{BufMut, Bytes};

use super::codec::{Malformed, Reader, put_bytes, put_count};
use super::epochs::{EpochStart, EpochTable};
use super::name::SegmentName;
use crate::ids::{LogId, Offset, RaftIndex, Term};

/// A position in a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment.
    pub segment: SegmentName,
    /// Bytes from the file's beginning.
    pub position: u64,
}

/// A point between two entries of a log: all up to `id` lies before `place`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The last entry before the point.
    pub id: LogId,
    /// The base offset of the entry behind the point.
    pub next_offset: Offset,
    /// Where the point is.
    pub place: Place,
}

/// A partition's state at one entry, without its records: from here on the log is read back after a restart, and this
/// is what a replica that lags behind the raft cut is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The last entry that is folded in.
    pub id: LogId,
    /// The membership in force at that entry (the raft layer's bytes).
    pub membership: Bytes,
    /// The base offset of the next entry.
    pub next_offset: Offset,
    /// The replicated log start at that entry.
    pub log_start: Offset,
    /// The epoch table at that entry.
    pub epochs: Vec<EpochStart>,
    /// The machine's state at that entry (the machine's bytes).
    pub machine: Bytes,
    /// Where the next entry is in this replica's files. `None`: the descriptor came from another replica, and this log may end
    /// before it.
    pub place: Option<Place>,
    /// Whether the entry is the last of its segment: such descriptors are kept while their segment is (design: a lagging
    /// replica is sent the last one at or below log start).
    pub roll: bool,
}

impl Place {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.segment.first_index.0);
        out.put_i64(self.segment.first_offset.0);
        out.put_u32(self.segment.generation);
        out.put_u64(self.position);
    }

    fn decode(from: &mut Reader) -> Result<Self, Malformed> {
        let segment = SegmentName {
            first_index: RaftIndex(from.u64()?),
            first_offset: Offset(from.i64()?),
            generation: from.u32()?,
        };
        Ok(Self { segment, position: from.u64()? })
    }
}

impl Mark {
    /// Of a log that begins anew behind a descriptor, with files of this generation.
    pub(super) fn beginning(at: &Descriptor, generation: u32) -> Self {
        let segment = SegmentName { first_index: at.id.index.next(), first_offset: at.next_offset, generation };
        Self { id: at.id, next_offset: at.next_offset, place: Place { segment, position: 0 } }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        encode_id(self.id, out);
        out.put_i64(self.next_offset.0);
        self.place.encode(out);
    }

    pub(super) fn decode(from: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { id: decode_id(from)?, next_offset: Offset(from.i64()?), place: Place::decode(from)? })
    }
}

impl Descriptor {
    /// The descriptor's bytes, as the journal keeps them.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        encode_id(self.id, out);
        out.put_i64(self.next_offset.0);
        out.put_i64(self.log_start.0);
        out.put_u8(u8::from(self.roll));
        out.put_u8(u8::from(self.place.is_some()));
        if let Some(place) = &self.place {
            place.encode(out);
        }
        put_count(out, self.epochs.len());
        for start in &self.epochs {
            out.put_u64(start.term.0);
            out.put_u64(start.index.0);
            out.put_i64(start.offset.0);
        }
        put_bytes(out, &self.membership);
        put_bytes(out, &self.machine);
    }

    pub(super) fn decode(from: &mut Reader) -> Result<Self, Malformed> {
        let id = decode_id(from)?;
        let next_offset = Offset(from.i64()?);
        let log_start = Offset(from.i64()?);
        let roll = decode_bool(from)?;
        let place = if decode_bool(from)? { Some(Place::decode(from)?) } else { None };
        let count = from.count(24)?;
        let mut epochs = Vec::with_capacity(count);
        for _ in 0..count {
            epochs.push(EpochStart {
                term: Term(from.u64()?),
                index: RaftIndex(from.u64()?),
                offset: Offset(from.i64()?),
            });
        }
        let epochs = EpochTable::new(epochs).ok_or(Malformed)?.starts().to_vec();
        let (membership, machine) = (from.bytes()?, from.bytes()?);
        Ok(Self { id, membership, next_offset, log_start, epochs, machine, place, roll })
    }

    /// The descriptor's bytes, for another replica.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.membership.len() + self.machine.len());
        self.encode(&mut out);
        out
    }

    /// Reads [`Descriptor::to_bytes`] of another replica, if it is that: where the next entry is in its files says nothing here.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let mut from = Reader::new(bytes);
        let descriptor = Self::decode(&mut from).ok().filter(|_| from.is_empty())?;
        Some(Self { place: None, ..descriptor })
    }

    /// The point of the log that this descriptor stands at, when it is this replica's own.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        self.place.map(|place| Mark { id: self.id, next_offset: self.next_offset, place })
    }
}

pub(super) fn encode_id(id: LogId, out: &mut Vec<u8>) {
    out.put_u64(id.term.0);
    out.put_u64(id.index.0);
}

pub(super) fn decode_id(from: &mut Reader) -> Result<LogId, Malformed> {
    Ok(LogId { term: Term(from.u64()?), index: RaftIndex(from.u64()?) })
}

fn decode_bool(from: &mut Reader) -> Result<bool, Malformed> {
    match from.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed),
    }
}
