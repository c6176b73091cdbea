//! Finding offsets: by timestamp, and by leader epoch. What looks for timestamps blocks.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::{Point, RAFT_MAGIC};
use super::error::ReadError;
use super::index::NO_TIMESTAMP;
use super::partition::Log;
use super::segment::{Bad, Segment};
use super::walk::Walker;
use crate::ids::{Offset, Term, Timestamp};
use crate::protocol::batch::BatchHeader;
use crate::protocol::record::read_records;

/// A batch is decompressed up to this size to find a record in it; of a larger one the first record answers.
const DECOMPRESSED_MAX: usize = 64 << 20;

/// A record found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOffset {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// The leader epoch of its batch.
    pub epoch: Term,
}

impl Log {
    /// The first record below `visible_end` with a timestamp at or above `timestamp`. Blocks.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] if its batch is damaged; of the disk.
    pub fn offset_for_time(&self, timestamp: Timestamp, visible_end: Offset) -> Result<Option<TimedOffset>, ReadError> {
        let segments = self.shared().segments.clone();
        for segment in segments.iter().take_while(|segment| segment.name.first_offset < visible_end) {
            if self.max_timestamp_of(segment)? < timestamp {
                continue;
            }
            let from = segment.lock().index.as_ref().and_then(|index| index.seek_time(timestamp));
            let from = from.unwrap_or(Point::start_of(segment.name));
            let wanted = |header: &BatchHeader| header.max_timestamp >= timestamp.0;
            if let Some(at) = find(segment, from, visible_end, wanted)? {
                return record_in(segment, at, visible_end, |found| found >= timestamp.0);
            }
        }
        Ok(None)
    }

    /// The first record below `visible_end` with the highest timestamp of all (ListOffsets -3, KIP-734). Blocks.
    ///
    /// # Errors
    /// As for [`Log::offset_for_time`].
    pub fn max_timestamp(&self, visible_end: Offset) -> Result<Option<TimedOffset>, ReadError> {
        let segments = self.shared().segments.clone();
        let mut best: Option<(Timestamp, Arc<Segment>)> = None;
        for segment in segments.iter().take_while(|segment| segment.name.first_offset < visible_end) {
            let mut highest = self.max_timestamp_of(segment)?;
            if segment.lock().end.offset > visible_end {
                highest = highest_below(segment, visible_end)?;
            }
            if highest > best.as_ref().map_or(NO_TIMESTAMP, |(timestamp, _)| *timestamp) {
                best = Some((highest, Arc::clone(segment)));
            }
        }
        let Some((highest, segment)) = best else { return Ok(None) };
        let from = segment.lock().index.as_ref().and_then(|index| index.seek_time(highest));
        let from = from.unwrap_or(Point::start_of(segment.name));
        let wanted = |header: &BatchHeader| header.max_timestamp >= highest.0;
        match find(&segment, from, visible_end, wanted)? {
            Some(at) => record_in(&segment, at, visible_end, |found| found >= highest.0),
            None => Ok(None),
        }
    }

    /// For a consumer that last saw `epoch`: the largest epoch at or below it that led here, and the offset where that one's records
    /// end (KIP-101). `None` if it is higher than all.
    #[must_use]
    pub fn end_of_epoch(&self, epoch: Term) -> Option<(Term, Offset)> {
        let shared = self.shared();
        shared.epochs.end_of(epoch, shared.next_offset)
    }

    /// The leader epoch of the batch that holds `offset`, or that the next one would follow.
    #[must_use]
    pub fn epoch_at(&self, offset: Offset) -> Option<Term> {
        self.shared().epochs.term_at_offset(offset)
    }

    fn max_timestamp_of(&self, segment: &Arc<Segment>) -> io::Result<Timestamp> {
        let known = segment.lock().timestamps();
        if let Some((_, max)) = known {
            return Ok(max);
        }
        self.load_index(segment)?;
        let known = segment.lock().timestamps();
        Ok(known.map_or(NO_TIMESTAMP, |(_, max)| max))
    }
}

/// The first batch from a point on, below an offset, whose header is wanted. Damaged parts are passed over.
fn find(
    segment: &Segment,
    from: Point,
    visible_end: Offset,
    mut wanted: impl FnMut(&BatchHeader) -> bool,
) -> io::Result<Option<Point>> {
    let end = segment.lock().end;
    let mut walker = Walker::headers(segment.file.as_ref(), end.pos);
    let mut at = from;
    while at.pos < end.pos && at.offset < visible_end {
        let known = segment.lock().bad_at(at.pos);
        if let Some(bad) = known {
            at = bad.to;
            continue;
        }
        match walker.header(at)? {
            Ok((header, _)) if header.magic != RAFT_MAGIC && wanted(&header) => return Ok(Some(at)),
            Ok((_, next)) => at = next,
            Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

fn highest_below(segment: &Segment, visible_end: Offset) -> io::Result<Timestamp> {
    let mut highest = NO_TIMESTAMP;
    find(segment, Point::start_of(segment.name), visible_end, |header| {
        highest = highest.max(Timestamp(header.max_timestamp));
        false
    })?;
    Ok(highest)
}

/// The first record of a batch, below an offset, whose timestamp is wanted.
fn record_in(
    segment: &Segment,
    at: Point,
    visible_end: Offset,
    wanted: impl Fn(i64) -> bool,
) -> Result<Option<TimedOffset>, ReadError> {
    let end = segment.lock().end;
    let mut walker = Walker::entries(segment.file.as_ref(), end.pos);
    let header = match walker.entry(at)? {
        Ok((header, _)) => header,
        Err(fault) => {
            return Err(ReadError::Corrupt(Box::new(segment.damage(Bad { from: at, to: end, fault }))));
        }
    };
    let epoch = super::entry::term_of(&header);
    let found =
        |offset: i64, timestamp: i64| TimedOffset { offset: Offset(offset), timestamp: Timestamp(timestamp), epoch };
    if header.is_log_append_time() {
        return Ok(Some(found(header.base_offset, header.max_timestamp)));
    }
    let batch = Bytes::copy_from_slice(walker.bytes(at.pos, header.size_bytes())?);
    // A compressed batch was taken on trust from a client: if its records cannot be read, the batch as a whole answers.
    let records = read_records(&batch, DECOMPRESSED_MAX).into_iter().flatten().map_while(Result::ok);
    let mut records = records.take_while(|record| record.offset < visible_end.0);
    let record = records.find(|record| wanted(record.timestamp));
    Ok(Some(record.map_or_else(
        || found(header.base_offset, header.max_timestamp),
        |record| found(record.offset, record.timestamp),
    )))
}
