//! A segment's sparse index, and its file beside a sealed segment.
//!
//! One mark for each 16 KiB of log or each batch if that is larger, and the places of Raft's own entries, which fetch
//! leaves out. A cache: the file has a CRC, and is rebuilt from the segment's headers when it is missing or bad.

use bytes::{BufMut, Bytes};

use super::codec::{Malformed, Reader, put_count};
use super::entry::{Point, RAFT_MAGIC};
use super::journal_frame::FORMAT_VERSION;
use super::name::SegmentName;
use crate::ids::{Offset, RaftIndex, Timestamp};
use crate::protocol::batch::{BatchHeader, crc32c};

/// Bytes of log between two marks.
const SPACING: u64 = 16 << 10;
const MAGIC: [u8; 4] = *b"OTIX";
/// Kafka's "no timestamp".
pub(super) const NO_TIMESTAMP: Timestamp = Timestamp(-1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    at: Point,
    /// The highest timestamp of all before this point.
    max_before: Timestamp,
}

/// Bytes of adjacent entries of Raft's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// Where what it covers begins: the segment's beginning, or later when the part before has not been needed yet.
    from: Point,
    entries: Vec<Entry>,
    gaps: Vec<Gap>,
    first_timestamp: Timestamp,
    max_timestamp: Timestamp,
}

impl Index {
    pub(super) fn new(from: Point) -> Self {
        let (first_timestamp, max_timestamp) = (NO_TIMESTAMP, NO_TIMESTAMP);
        Self { from, entries: Vec::new(), gaps: Vec::new(), first_timestamp, max_timestamp }
    }

    pub(super) fn from(&self) -> Point {
        self.from
    }

    pub(super) fn max_timestamp(&self) -> Timestamp {
        self.max_timestamp
    }

    /// The highest timestamp of the segment's first batch.
    pub(super) fn first_timestamp(&self) -> Timestamp {
        self.first_timestamp
    }

    /// Takes note of the next entry.
    pub(super) fn add(&mut self, at: Point, header: &BatchHeader, next: Point) {
        if self.entries.last().is_none_or(|last| at.pos - last.at.pos >= SPACING) {
            self.entries.push(Entry { at, max_before: self.max_timestamp });
        }
        if header.magic == RAFT_MAGIC {
            match self.gaps.last_mut() {
                Some(last) if last.to == at.pos => last.to = next.pos,
                _ => self.gaps.push(Gap { from: at.pos, to: next.pos }),
            }
        } else {
            let timestamp = Timestamp(header.max_timestamp);
            if self.first_timestamp == NO_TIMESTAMP {
                self.first_timestamp = timestamp;
            }
            self.max_timestamp = self.max_timestamp.max(timestamp);
        }
    }

    /// Takes note that nothing between two points can be read.
    pub(super) fn skip(&mut self, to: Point) {
        self.entries.push(Entry { at: to, max_before: self.max_timestamp });
    }

    /// This index behind the one of the part before it.
    pub(super) fn behind(self, mut before: Self) -> Self {
        before.entries.extend(self.entries.into_iter().map(|mut entry| {
            entry.max_before = entry.max_before.max(before.max_timestamp);
            entry
        }));
        before.gaps.extend(self.gaps);
        if before.first_timestamp == NO_TIMESTAMP {
            before.first_timestamp = self.first_timestamp;
        }
        before.max_timestamp = before.max_timestamp.max(self.max_timestamp);
        before
    }

    /// The last mark at or before the entry with this index. `None`: it is before what this covers.
    pub(super) fn seek_index(&self, index: RaftIndex) -> Option<Point> {
        self.seek(index >= self.from.index, |entry| entry.at.index <= index)
    }

    /// The last mark at or before the batch with this offset.
    pub(super) fn seek_offset(&self, offset: Offset) -> Option<Point> {
        self.seek(self.from.pos == 0 || offset >= self.from.offset, |entry| entry.at.offset <= offset)
    }

    /// The last mark at or before a position.
    pub(super) fn seek_pos(&self, pos: u64) -> Option<Point> {
        self.seek(pos >= self.from.pos, |entry| entry.at.pos <= pos)
    }

    /// The last mark before the first batch whose timestamp is at or above `timestamp`.
    pub(super) fn seek_time(&self, timestamp: Timestamp) -> Option<Point> {
        self.seek(self.from.pos == 0, |entry| entry.max_before < timestamp)
    }

    /// The first mark behind a position.
    pub(super) fn after(&self, pos: u64) -> Option<Point> {
        let at = self.entries.partition_point(|entry| entry.at.pos <= pos);
        self.entries.get(at).map(|entry| entry.at)
    }

    /// The gaps that touch `from..to`.
    pub(super) fn gaps(&self, from: u64, to: u64) -> Vec<Gap> {
        let first = self.gaps.partition_point(|gap| gap.to <= from);
        self.gaps[first..].iter().copied().take_while(|gap| gap.from < to).collect()
    }

    fn seek(&self, covered: bool, before: impl FnMut(&Entry) -> bool) -> Option<Point> {
        if !covered {
            return None;
        }
        let at = self.entries.partition_point(before);
        Some(at.checked_sub(1).map_or(self.from, |at| self.entries[at].at))
    }

    /// The bytes of the file that keeps the index of a segment whose data ends at `end`.
    pub(super) fn encode(&self, name: SegmentName, end: Point) -> Vec<u8> {
        assert_eq!(self.from.pos, 0, "only a whole index is written");
        let mut body = Vec::with_capacity(64 + self.entries.len() * 32 + self.gaps.len() * 16);
        body.put_u32(FORMAT_VERSION);
        put_point(&mut body, Point::start_of(name));
        body.put_u32(name.generation);
        put_point(&mut body, end);
        body.put_i64(self.first_timestamp.0);
        body.put_i64(self.max_timestamp.0);
        put_count(&mut body, self.entries.len());
        for entry in &self.entries {
            put_point(&mut body, entry.at);
            body.put_i64(entry.max_before.0);
        }
        put_count(&mut body, self.gaps.len());
        for gap in &self.gaps {
            body.put_u64(gap.from);
            body.put_u64(gap.to);
        }
        let mut out = Vec::with_capacity(body.len() + 8);
        out.extend_from_slice(&MAGIC);
        out.put_u32(crc32c(&[&body]));
        out.extend_from_slice(&body);
        out
    }

    /// Reads such a file: the index, and where the data ended. An error means that the file is of no use.
    pub(super) fn decode(name: SegmentName, bytes: Bytes) -> Result<(Self, Point), Malformed> {
        let mut from = Reader::new(bytes.clone());
        let (magic, crc) = (from.array::<4>()?, from.u32()?);
        if magic != MAGIC || crc32c(&[&bytes[8..]]) != crc || from.u32()? != FORMAT_VERSION {
            return Err(Malformed);
        }
        let start = read_point(&mut from)?;
        if start != Point::start_of(name) || from.u32()? != name.generation {
            return Err(Malformed);
        }
        let end = read_point(&mut from)?;
        let mut index = Self::new(start);
        index.first_timestamp = Timestamp(from.i64()?);
        index.max_timestamp = Timestamp(from.i64()?);
        for _ in 0..from.count(32)? {
            index.entries.push(Entry { at: read_point(&mut from)?, max_before: Timestamp(from.i64()?) });
        }
        for _ in 0..from.count(16)? {
            index.gaps.push(Gap { from: from.u64()?, to: from.u64()? });
        }
        from.end()?;
        Ok((index, end))
    }
}

fn put_point(out: &mut Vec<u8>, point: Point) {
    out.put_u64(point.pos);
    out.put_u64(point.index.0);
    out.put_i64(point.offset.0);
}

fn read_point(from: &mut Reader) -> Result<Point, Malformed> {
    Ok(Point { pos: from.u64()?, index: RaftIndex(from.u64()?), offset: Offset(from.i64()?) })
}
