//! Looking for damage that nobody reads: a log's bytes, as the device holds them, a little at a time.

use std::io::IoSlice;
use std::sync::Arc;

use super::entry::{Fault, Point, term_of};
use super::error::LogError;
use super::partition::Log;
use super::segment::Segment;
use super::walk::Walker;
use crate::ids::RaftIndex;

/// What is appended to is not looked at so close to its end: to read it from the device would make the kernel write it first.
const BEHIND_APPENDS: u64 = 1 << 20;

/// Where to go on.
#[derive(Clone, Debug)]
pub struct ScrubPlace {
    segment: Arc<Segment>,
    at: Point,
}

/// What was looked at.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// Where to go on; none at the log's end.
    pub next: Option<ScrubPlace>,
    /// Bytes that were read.
    pub bytes: u64,
    /// Entries that were damaged on the device and whole in memory, and were written again.
    pub rewritten: u64,
}

impl Log {
    /// Reads some `max_bytes` from a place on, the log's beginning if none is given, and checks them. Damage is noted, and told of, as when it is read. Blocks.
    ///
    /// # Errors
    /// Of the disk.
    pub fn scrub(&self, from: Option<ScrubPlace>, max_bytes: u64) -> Result<Scrubbed, LogError> {
        let mut done = Scrubbed::default();
        let Some(ScrubPlace { segment, mut at }) = self.scrub_from(from) else { return Ok(done) };
        if at.pos == 0
            && !segment.lock().all_bad().is_empty()
            && let Some(tender) = self.tender.get()
        {
            tender.still_there();
        }
        let (end, upto) = {
            let state = segment.lock();
            (state.end, if state.sealed { state.end.pos } else { state.synced.saturating_sub(BEHIND_APPENDS) })
        };
        let mut walker = Walker::of_device(segment.file.as_ref(), end.pos);
        while at.pos < upto && done.bytes < max_bytes {
            let known = segment.lock().bad_at(at.pos);
            if let Some(bad) = known {
                at = bad.to;
                continue;
            }
            let term = self.shared().epochs.term_at(at.index);
            let fault = match walker.entry(at)? {
                Ok((header, next)) if term.is_none_or(|term| term == term_of(&header)) => {
                    done.bytes += next.pos - at.pos;
                    at = next;
                    continue;
                }
                Ok((header, _)) => Fault::Epoch(header.leader_epoch),
                Err(fault) => fault,
            };
            at = match self.rewrite(&segment, at)? {
                Some(next) => {
                    done.rewritten += 1;
                    next
                }
                None => self.note(&segment, at, fault)?.to,
            };
        }
        let is_over = at.pos >= end.pos;
        if is_over && at.index < end.index && !segment.lock().all_bad().iter().any(|bad| bad.from == at) {
            self.note_missing(&segment, at, end);
        }
        done.next = if at.pos < upto { Some(ScrubPlace { segment, at }) } else { self.scrub_next(&segment) };
        Ok(done)
    }

    fn scrub_from(&self, from: Option<ScrubPlace>) -> Option<ScrubPlace> {
        match from {
            Some(place) if self.is_live(&place.segment) => Some(place),
            Some(place) => self.scrub_behind(place.segment.name.first_index),
            None => {
                let first = self.shared().segments.first().cloned()?;
                Some(ScrubPlace { at: Point::start_of(first.name), segment: first })
            }
        }
    }

    fn scrub_next(&self, segment: &Segment) -> Option<ScrubPlace> {
        self.scrub_behind(segment.name.first_index)
    }

    fn scrub_behind(&self, index: RaftIndex) -> Option<ScrubPlace> {
        let shared = self.shared();
        let next = shared.segments.iter().find(|it| it.name.first_index > index)?;
        Some(ScrubPlace { segment: Arc::clone(next), at: Point::start_of(next.name) })
    }

    /// Writes an entry again that is whole in memory, though not on the device. Answers the point behind it.
    fn rewrite(&self, segment: &Arc<Segment>, at: Point) -> Result<Option<Point>, LogError> {
        let next = {
            let _writer = self.writer();
            self.check_not_failed()?;
            let end = segment.lock().end;
            if at.pos >= end.pos || !self.is_live(segment) {
                return Ok(Some(end));
            }
            let Some((bytes, next)) = self.reads(segment, at, end)? else { return Ok(None) };
            segment.file.write_at(at.pos, &[IoSlice::new(&bytes)]).map_err(|error| self.unless_full(error.into()))?;
            next
        };
        self.sync_if_live(segment)?;
        Ok(Some(next))
    }
}
