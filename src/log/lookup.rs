//! Finding offsets: by timestamp, and by leader epoch. What looks for timestamps blocks.

use std::io;
use std::ops::Range;
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
    /// The first visible record with a timestamp at or above `timestamp`. Blocks.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] if its batch is damaged; of the disk.
    pub fn offset_for_time(
        &self,
        timestamp: Timestamp,
        visible: Range<Offset>,
    ) -> Result<Option<TimedOffset>, ReadError> {
        let segments = self.shared().segments.clone();
        for segment in segments.iter().take_while(|segment| segment.name.first_offset < visible.end) {
            if segment.lock().end.offset <= visible.start || self.max_timestamp_of(segment)? < timestamp {
                continue;
            }
            let marks = segment.lock().index.as_ref().map(|index| {
                let (by_time, by_offset) = (index.seek_time(timestamp), index.seek_offset(visible.start));
                by_time.into_iter().chain(by_offset).max_by_key(|mark| mark.pos)
            });
            let mut from = marks.flatten().unwrap_or(Point::start_of(segment.name));
            let wanted =
                |header: &BatchHeader| header.max_timestamp >= timestamp.0 && header.last_offset() >= visible.start.0;
            while let Some((at, next)) = find(segment, from, visible.end, wanted)? {
                if let Some(found) = record_in(segment, at, &visible, |found| found >= timestamp.0)? {
                    return Ok(Some(found));
                }
                from = next;
            }
        }
        Ok(None)
    }

    /// The first visible record with the highest timestamp of all (ListOffsets -3, KIP-734). Blocks. It may lie a little before what
    /// is visible, as in Kafka: in a segment that is visible in part.
    ///
    /// # Errors
    /// As for [`Log::offset_for_time`].
    pub fn max_timestamp(&self, visible: Range<Offset>) -> Result<Option<TimedOffset>, ReadError> {
        let segments = self.shared().segments.clone();
        let mut best: Option<(Timestamp, Arc<Segment>)> = None;
        for segment in segments.iter().take_while(|segment| segment.name.first_offset < visible.end) {
            let end = segment.lock().end.offset;
            if end <= visible.start {
                continue;
            }
            let mut highest = self.max_timestamp_of(segment)?;
            if end > visible.end {
                highest = highest_below(segment, visible.end)?;
            }
            if highest > best.as_ref().map_or(NO_TIMESTAMP, |(timestamp, _)| *timestamp) {
                best = Some((highest, Arc::clone(segment)));
            }
        }
        let Some((highest, segment)) = best else { return Ok(None) };
        self.load_index(&segment)?;
        let from = segment.lock().index.as_ref().and_then(|index| index.seek_time(highest));
        let from = from.unwrap_or(Point::start_of(segment.name));
        let wanted = |header: &BatchHeader| header.max_timestamp >= highest.0;
        match find(&segment, from, visible.end, wanted)? {
            Some((at, _)) => record_in(&segment, at, &(Offset(0)..visible.end), |found| found >= highest.0),
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
}

/// The first batch from a point on, below an offset, whose header is wanted, and where it ends. Damaged parts are passed over.
fn find(
    segment: &Segment,
    from: Point,
    visible_end: Offset,
    mut wanted: impl FnMut(&BatchHeader) -> bool,
) -> io::Result<Option<(Point, Point)>> {
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
            Ok((header, next)) if header.magic != RAFT_MAGIC && wanted(&header) => return Ok(Some((at, next))),
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

/// The first visible record of a batch whose timestamp is wanted.
fn record_in(
    segment: &Segment,
    at: Point,
    visible: &Range<Offset>,
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
        return Ok(Some(found(header.base_offset.max(visible.start.0), header.max_timestamp)));
    }
    let batch = Bytes::copy_from_slice(walker.bytes(at.pos, header.size_bytes())?);
    // A compressed batch was taken on trust from a client: if its records cannot be read, the batch as a whole answers.
    let records = read_records(&batch, DECOMPRESSED_MAX).into_iter().flatten().map_while(Result::ok);
    let mut readable = false;
    let mut records = records.take_while(|record| record.offset < visible.end.0).inspect(|_| readable = true);
    let record = records.find(|record| record.offset >= visible.start.0 && wanted(record.timestamp));
    Ok(match record {
        Some(record) => Some(found(record.offset, record.timestamp)),
        // The wanted ones lie before what is visible.
        None if readable && header.base_offset < visible.start.0 => None,
        None => Some(found(header.base_offset.max(visible.start.0), header.max_timestamp)),
    })
}
