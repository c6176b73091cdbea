//! The journal's bytes: frames, and the records in them.
//!
//! A frame is `magic "OTJF", CRC-32C of what follows it, payload length, sequence number, payload`, big-endian, padded with zeros
//! to 512 bytes, so that writing a frame never touches a sector that holds an earlier one. Sequence numbers rise by one.

use std::io;

use bytes::{BufMut, Bytes};

use super::codec::{Malformed, Reader, put_bytes};
use super::descriptor::{Descriptor, Mark, decode_id, encode_id};
use super::disk::DiskFile;
use crate::ids::{LogId, PartitionId, PartitionIndex, TopicId};
use crate::protocol::batch::crc32c;

/// The version of the journal's, the segments' and the index files' bytes, in the journal's first frame.
pub const FORMAT_VERSION: u32 = 1;
/// Frames begin at multiples of this.
pub(super) const ALIGN: u64 = 512;
const ALIGN_BYTES: usize = 512;
const HEADER_BYTES: usize = 20;
const MAGIC: [u8; 4] = *b"OTJF";

/// One thing that the journal remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Format(u32),
    Group(PartitionId, Change),
}

/// What changed for one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Vote(Bytes),
    Committed(LogId),
    Purged(LogId),
    Mark(Mark),
    Descriptor(Box<Descriptor>),
    Removed,
}

/// What stands at a position of the file.
pub(super) enum Found {
    Frame { seq: u64, payload: Bytes, next: u64 },
    Nothing,
}

impl Record {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (tag, group) = match self {
            Self::Format(version) => {
                out.put_u8(1);
                out.put_u32(*version);
                return;
            }
            Self::Group(group, Change::Vote(_)) => (2, group),
            Self::Group(group, Change::Committed(_)) => (3, group),
            Self::Group(group, Change::Purged(_)) => (4, group),
            Self::Group(group, Change::Mark(_)) => (5, group),
            Self::Group(group, Change::Descriptor(_)) => (6, group),
            Self::Group(group, Change::Removed) => (7, group),
        };
        out.put_u8(tag);
        out.extend_from_slice(&group.topic.0);
        out.put_i32(group.partition.0);
        match self {
            Self::Format(_) | Self::Group(_, Change::Removed) => {}
            Self::Group(_, Change::Vote(vote)) => put_bytes(out, vote),
            Self::Group(_, Change::Committed(id) | Change::Purged(id)) => encode_id(*id, out),
            Self::Group(_, Change::Mark(mark)) => mark.encode(out),
            Self::Group(_, Change::Descriptor(descriptor)) => descriptor.encode(out),
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, Malformed> {
        let tag = from.u8()?;
        if tag == 1 {
            return Ok(Self::Format(from.u32()?));
        }
        let group = PartitionId { topic: TopicId(from.array()?), partition: PartitionIndex(from.i32()?) };
        let change = match tag {
            2 => Change::Vote(from.bytes()?),
            3 => Change::Committed(decode_id(from)?),
            4 => Change::Purged(decode_id(from)?),
            5 => Change::Mark(Mark::decode(from)?),
            6 => Change::Descriptor(Box::new(Descriptor::decode(from)?)),
            7 => Change::Removed,
            _ => return Err(Malformed),
        };
        Ok(Self::Group(group, change))
    }

    /// The records of a frame's payload.
    pub(super) fn decode_all(payload: Bytes) -> Result<Vec<Self>, Malformed> {
        let mut from = Reader::new(payload);
        let mut records = Vec::new();
        while !from.is_empty() {
            records.push(Self::decode(&mut from)?);
        }
        Ok(records)
    }
}

/// A whole frame, padding included.
pub(super) fn encode_frame(seq: u64, payload: &[u8]) -> Vec<u8> {
    let mut covered = Vec::with_capacity(12);
    covered.put_u32(u32::try_from(payload.len()).expect("a frame is bounded by its writer"));
    covered.put_u64(seq);
    let mut out = Vec::with_capacity((HEADER_BYTES + payload.len()).next_multiple_of(ALIGN_BYTES));
    out.extend_from_slice(&MAGIC);
    out.put_u32(crc32c(&[&covered, payload]));
    out.extend_from_slice(&covered);
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(ALIGN_BYTES), 0);
    out
}

/// Reads the frame at `pos` of a file that is `file_len` long.
pub(super) fn read_frame(file: &dyn DiskFile, pos: u64, file_len: u64) -> io::Result<Found> {
    let mut header = [0; HEADER_BYTES];
    if file.read_at(pos, &mut header)? < HEADER_BYTES || header[0..4] != MAGIC {
        return Ok(Found::Nothing);
    }
    let mut fields = Reader::new(Bytes::copy_from_slice(&header[4..]));
    let (Ok(crc), Ok(len), Ok(seq)) = (fields.u32(), fields.u32(), fields.u64()) else {
        return Ok(Found::Nothing);
    };
    let body = pos + 20;
    if u64::from(len) > file_len.saturating_sub(body) {
        return Ok(Found::Nothing);
    }
    let mut payload = vec![0; usize::try_from(len).expect("checked against the file's length")];
    let read = file.read_at(body, &mut payload)?;
    if read < payload.len() || crc32c(&[&header[8..], &payload]) != crc {
        return Ok(Found::Nothing);
    }
    let next = (body + u64::from(len)).next_multiple_of(ALIGN);
    Ok(Found::Frame { seq, payload: payload.into(), next })
}

/// Whether a valid frame that was written after number `seq` lies at or behind `pos`.
pub(super) fn later_frame(file: &dyn DiskFile, pos: u64, file_len: u64, seq: u64) -> io::Result<bool> {
    let mut pos = pos;
    while pos < file_len {
        if let Found::Frame { seq: found, .. } = read_frame(file, pos, file_len)?
            && found > seq
        {
            return Ok(true);
        }
        pos += ALIGN;
    }
    Ok(false)
}
