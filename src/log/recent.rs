//! The last entries of a log, in memory: applying them and reading at the log's end need no look into its files.
//!
//! Always a contiguous run that ends with the log's last entry, or empty. It is long only while entries wait to be applied.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::{EntrySummary, Point, RaftEntryKind, Stamped};
use super::segment::Segment;
use crate::ids::{LogId, Offset, RaftIndex};
use crate::protocol::batch::BatchHeader;

/// Kept although applied, for readers at the end.
const KEEP: usize = 16;
/// Kept at most, applied or not.
const KEEP_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct RecentEntry {
    id: LogId,
    header: BatchHeader,
    raft_body: Option<(RaftEntryKind, Bytes)>,
    at: Point,
    next: Point,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Recent {
    entries: VecDeque<(Arc<Segment>, RecentEntry)>,
}

impl Recent {
    pub(super) fn push(&mut self, segment: &Arc<Segment>, entry: &Stamped, at: Point, next: Point) {
        if self.entries.len() == KEEP_MAX {
            self.entries.pop_front();
        }
        let raft_body = entry.raft_body.clone();
        let recent = RecentEntry { id: entry.id, header: entry.header, raft_body, at, next };
        self.entries.push_back((Arc::clone(segment), recent));
    }

    /// Forgets the entries at and above `index`.
    pub(super) fn cut(&mut self, index: RaftIndex) {
        while self.entries.back().is_some_and(|(_, entry)| entry.id.index >= index) {
            self.entries.pop_back();
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.entries = VecDeque::new();
    }

    /// Forgets what lies below `applied` but for a few.
    pub(super) fn applied(&mut self, applied: RaftIndex) {
        while self.entries.len() > KEEP && self.entries.front().is_some_and(|(_, entry)| entry.id.index < applied) {
            self.entries.pop_front();
        }
        if self.entries.len() <= KEEP && self.entries.capacity() > 8 * KEEP {
            self.entries.shrink_to(KEEP);
        }
    }

    /// The summaries of up to `max` entries from `first` on; `None` if the ring does not reach back to it.
    pub(super) fn summaries(&self, first: RaftIndex, max: usize) -> Option<Vec<EntrySummary>> {
        let skip = usize::try_from(first.0.checked_sub(self.entries.front()?.1.id.index.0)?).ok()?;
        let found = self.entries.iter().skip(skip).take(max).map(|(_, entry)| entry.summary());
        Some(found.collect())
    }

    /// Where the entry that holds `offset` is: its segment, its beginning and its end.
    pub(super) fn find_offset(&self, offset: Offset) -> Option<(&Arc<Segment>, Point, Point)> {
        // The first that ends above the offset: Raft's own entries end where they begin and never do.
        let at = self.entries.partition_point(|(_, entry)| entry.next.offset <= offset);
        let (segment, entry) = self.entries.get(at)?;
        (entry.at.offset <= offset).then_some((segment, entry.at, entry.next))
    }

    /// The point behind the entry with this index.
    pub(super) fn behind(&self, index: RaftIndex) -> Option<(LogId, &Arc<Segment>, Point)> {
        let at = usize::try_from(index.0.checked_sub(self.entries.front()?.1.id.index.0)?).ok()?;
        self.entries.get(at).map(|(segment, entry)| (entry.id, segment, entry.next))
    }
}

impl RecentEntry {
    fn summary(&self) -> EntrySummary {
        EntrySummary {
            id: self.id,
            header: self.header,
            size_bytes: u32::try_from(self.next.pos - self.at.pos).expect("an entry is at most 2 GiB"),
            raft_body: self.raft_body.clone(),
            starts_segment: self.at.pos == 0,
        }
    }
}
