//! Reading by Raft index: whole entries for replication, summaries for applying, and points for descriptors. These block.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;

use super::descriptor::Place;
use super::entry::{EntrySummary, Fault, Point, RaftEntryKind, StoredEntry, body_of, kind_of, size_of, term_of};
use super::epochs::EpochStart;
use super::error::LogError;
use super::partition::Log;
use super::segment::{Bad, Segment};
use super::walk::Walker;
use crate::ids::{LogId, Offset, RaftIndex};
use crate::protocol::batch::{BatchHeader, HEADER_BYTES};

/// What a descriptor says of the log itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPoint {
    /// The last entry before the point.
    pub id: LogId,
    /// The base offset of the next entry.
    pub next_offset: Offset,
    /// The epoch table as it stood there.
    pub epochs: Vec<EpochStart>,
    /// Where the point is in this replica's files.
    pub place: Place,
    /// Whether the entry is the last of a segment that is sealed.
    pub ends_segment: bool,
}

/// An entry met by a walk.
pub(super) struct Met<'a> {
    pub(super) at: Point,
    pub(super) header: BatchHeader,
    pub(super) next: Point,
    pub(super) bytes: &'a [u8],
}

impl Log {
    /// Whole entries, from the range's first on: one at least, then while they fit into `max_bytes`. Each was checked.
    /// Blocks when they are not in memory.
    ///
    /// # Errors
    /// [`LogError::NoSuchEntries`] if the range is not all in the log; [`LogError::Damaged`] if the first cannot be read.
    pub fn stored(&self, range: Range<RaftIndex>, max_bytes: u64) -> Result<Vec<StoredEntry>, LogError> {
        if !range.is_empty() {
            self.check_range(&range)?;
            if let Some(found) = self.shared_mut().recent.stored(&range, max_bytes) {
                return Ok(found);
            }
        }
        let mut entries = Vec::new();
        let mut left = max_bytes;
        self.walk(range, true, |_, met| {
            let size = size_of(&met.header);
            if !entries.is_empty() && size > left {
                return Ok(false);
            }
            left = left.saturating_sub(size);
            let id = LogId { term: term_of(&met.header), index: met.at.index };
            let body = body_of(&met.header, Bytes::copy_from_slice(met.bytes));
            entries.push(StoredEntry { id, base_offset: met.at.offset, body });
            Ok(true)
        })?;
        Ok(entries)
    }

    /// Up to `max_entries` entries without their records, from the range's first on. From memory if they were appended lately,
    /// otherwise this blocks. Entries below the range are taken to be applied.
    ///
    /// # Errors
    /// As for [`Log::stored`].
    pub fn summaries(&self, range: Range<RaftIndex>, max_entries: usize) -> Result<Vec<EntrySummary>, LogError> {
        let wanted = usize::try_from(range.end.0.saturating_sub(range.start.0)).unwrap_or(usize::MAX).min(max_entries);
        if wanted == 0 {
            return Ok(Vec::new());
        }
        {
            let mut shared = self.shared_mut();
            let inside = range.start >= shared.first_index() && Some(range.end) <= shared.next_index();
            if inside && let Some(found) = shared.recent.summaries(range.start, wanted) {
                shared.recent.applied(range.start);
                return Ok(found);
            }
        }
        let mut found = Vec::new();
        self.walk(range, false, |_, met| {
            let body = |kind| (kind, Bytes::copy_from_slice(&met.bytes[HEADER_BYTES..]));
            let raft_body = kind_of(&met.header).map(body);
            found.push(EntrySummary {
                id: LogId { term: term_of(&met.header), index: met.at.index },
                header: met.header,
                size_bytes: u32::try_from(size_of(&met.header)).expect("an entry is at most 2 GiB"),
                raft_body,
                starts_segment: met.at.pos == 0,
            });
            Ok(found.len() < wanted)
        })?;
        Ok(found)
    }

    /// The membership entries' bodies and ids in a range, newest first, at most `max`. Blocks.
    ///
    /// # Errors
    /// As for [`Log::stored`].
    pub fn memberships(&self, range: Range<RaftIndex>, max: usize) -> Result<Vec<(LogId, Bytes)>, LogError> {
        let mut found = Vec::new();
        self.walk(range, false, |_, met| {
            if kind_of(&met.header) == Some(RaftEntryKind::Membership) {
                let id = LogId { term: term_of(&met.header), index: met.at.index };
                found.push((id, Bytes::copy_from_slice(&met.bytes[HEADER_BYTES..])));
            }
            Ok(true)
        })?;
        found.reverse();
        found.truncate(max);
        Ok(found)
    }

    /// The id of the entry at `index`, or of the raft cut if that is where it is.
    #[must_use]
    pub fn id_at(&self, index: RaftIndex) -> Option<LogId> {
        let shared = self.shared();
        if let Some(purged) = shared.purged.filter(|purged| purged.index >= index) {
            return Some(purged).filter(|purged| purged.index == index);
        }
        let inside = shared.last.is_some_and(|last| index <= last.index) && index >= shared.first_index();
        shared.epochs.term_at(index).filter(|_| inside).map(|term| LogId { term, index })
    }

    /// The last entry of each term in a range of entries, oldest first, without reading any; `None` if that is not known so far back.
    #[must_use]
    pub fn last_ids(&self, range: RangeInclusive<RaftIndex>) -> Option<Vec<LogId>> {
        self.shared().epochs.last_ids(range)
    }

    /// Where each term begins, as far back as the log knows.
    #[must_use]
    pub fn epochs(&self) -> Vec<EpochStart> {
        self.shared().epochs.starts().to_vec()
    }

    /// What a descriptor for the state at the entry with this index says of the log. Blocks, unless the entry was appended lately.
    ///
    /// # Errors
    /// [`LogError::NoSuchEntries`], [`LogError::Damaged`].
    pub fn point_at(&self, index: RaftIndex) -> Result<LogPoint, LogError> {
        let recent = {
            let shared = self.shared();
            shared.recent.behind(index).map(|(id, segment, next)| (id, Arc::clone(segment), next))
        };
        let (id, segment, next) = match recent {
            Some(found) => found,
            None => {
                let mut found = None;
                self.walk(index..index.next(), false, |segment, met| {
                    let id = LogId { term: term_of(&met.header), index };
                    found = Some((id, Arc::clone(segment), met.next));
                    Ok(false)
                })?;
                found.expect("a range of one that is in the log has one entry")
            }
        };
        let ends_segment = {
            let state = segment.lock();
            state.sealed && state.end == next
        };
        Ok(LogPoint {
            id,
            next_offset: next.offset,
            epochs: self.shared().epochs.upto(index),
            place: Place { segment: segment.name, position: next.pos },
            ends_segment,
        })
    }

    /// Walks the entries of a range while `each` says so. Damage before the first is an error; later, it ends the walk.
    pub(super) fn walk(
        &self,
        range: Range<RaftIndex>,
        whole: bool,
        mut each: impl FnMut(&Arc<Segment>, &Met<'_>) -> Result<bool, LogError>,
    ) -> Result<(), LogError> {
        if range.is_empty() {
            return Ok(());
        }
        self.check_range(&range)?;
        let mut index = range.start;
        while index < range.end {
            let segment = {
                let shared = self.shared();
                shared.segment_of_index(index).cloned().ok_or_else(|| no_such(&range, shared.first_index(), index))?
            };
            let (mut at, end) = self.seek_index(&segment, index)?;
            let mut walker = if whole {
                Walker::entries(segment.file.as_ref(), end.pos)
            } else {
                Walker::headers(segment.file.as_ref(), end.pos)
            };
            while at.pos < end.pos && at.index < range.end {
                let wanted = (at.index >= index).then_some(whole);
                let (header, next) = match self.met(&segment, &mut walker, at, wanted)? {
                    Ok(step) => step,
                    Err(bad) if bad.to.index <= index => {
                        at = bad.to;
                        continue;
                    }
                    Err(_) if index > range.start => return Ok(()),
                    Err(bad) => return Err(LogError::Damaged(Box::new(segment.damage(bad)))),
                };
                if at.index >= index {
                    let wanted = if whole || has_body(&header) { header.size_bytes() } else { HEADER_BYTES };
                    let bytes = walker.bytes(at.pos, wanted)?;
                    if !each(&segment, &Met { at, header, next, bytes })? {
                        return Ok(());
                    }
                    index = next.index;
                }
                at = next;
            }
            if index >= range.end {
                break;
            }
            if index < end.index {
                // The file has fewer entries than its neighbour's name says.
                self.note_missing(&segment, at, end);
                return match index > range.start {
                    true => Ok(()),
                    false => Err(LogError::Damaged(Box::new(segment.missing(at, end)))),
                };
            }
            let shared = self.shared();
            if shared.segment_of_index(index).is_none_or(|next| Arc::ptr_eq(next, &segment)) {
                return Err(no_such(&range, shared.first_index(), index));
            }
        }
        Ok(())
    }

    /// The entry at a point, checked if it is wanted (whole, or not); damage is noted.
    fn met(
        &self,
        segment: &Arc<Segment>,
        walker: &mut Walker<'_>,
        at: Point,
        wanted: Option<bool>,
    ) -> std::io::Result<Result<(BatchHeader, Point), Bad>> {
        let known = segment.lock().bad_at(at.pos);
        if let Some(bad) = known {
            return Ok(Err(bad));
        }
        let met = match wanted {
            Some(whole) => self.checked(walker, at, whole)?,
            None => walker.header(at)?,
        };
        match met {
            Ok(met) => Ok(Ok(met)),
            Err(fault) => self.note(segment, at, fault).map(Err),
        }
    }

    /// The entry at a point, checked as far as can be: its term by the epoch table; its CRC, for entries of Raft's own always, for batches
    /// when they are wanted whole.
    fn checked(
        &self,
        walker: &mut Walker<'_>,
        at: Point,
        whole: bool,
    ) -> std::io::Result<Result<(BatchHeader, Point), Fault>> {
        let found = match walker.header(at)? {
            Ok((header, _)) if whole || has_body(&header) => walker.entry(at)?,
            other => other,
        };
        Ok(found.and_then(|(header, next)| match self.shared().epochs.term_at(at.index) {
            Some(term) if term != term_of(&header) => Err(Fault::Epoch(header.leader_epoch)),
            Some(_) | None => Ok((header, next)),
        }))
    }

    /// Where to walk from to an entry.
    pub(super) fn seek_index(&self, segment: &Arc<Segment>, index: RaftIndex) -> Result<(Point, Point), LogError> {
        let (seek, end) = {
            let state = segment.lock();
            (state.seek_index(index), state.end)
        };
        if let Some(seek) = seek {
            return Ok((seek.from, seek.end));
        }
        if index == segment.name.first_index {
            // Raft asks for it at each start; the whole index would be built from the headers of everything behind it.
            return Ok((Point::start_of(segment.name), end));
        }
        self.load_index(segment)?;
        let state = segment.lock();
        Ok(state.seek_index(index).map_or((Point::start_of(segment.name), state.end), |seek| (seek.from, seek.end)))
    }

    fn check_range(&self, range: &Range<RaftIndex>) -> Result<(), LogError> {
        let shared = self.shared();
        let end = shared.next_index().unwrap_or(RaftIndex(0));
        if range.start < shared.first_index() || range.end > end {
            return Err(no_such(range, shared.first_index(), end));
        }
        Ok(())
    }
}

/// Whether an entry's body is wanted with its header: those of Raft's own are, but for one that only fills the place of another.
fn has_body(header: &BatchHeader) -> bool {
    kind_of(header).is_some_and(|kind| kind != RaftEntryKind::Lost)
}

fn no_such(asked: &Range<RaftIndex>, first: RaftIndex, end: RaftIndex) -> LogError {
    LogError::NoSuchEntries { asked: asked.clone(), has: first..end }
}
