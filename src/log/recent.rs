//! The last entries of a log, in memory: applying them and reading at the log's end need no look into its files.
//!
//! Always a contiguous run that ends with the log's last entry, or empty. It is long only while entries wait to be applied.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::entry::{Body, EntrySummary, Point, RaftEntryKind, STAMP_BYTES, Stamped, StoredEntry, size_of};
use super::segment::Segment;
use crate::ids::{LogId, Offset, RaftIndex};
use crate::protocol::batch::BatchHeader;

/// Kept although applied, for readers at the end.
const KEEP: usize = 16;
/// Kept at most, applied or not.
const KEEP_MAX: usize = 1024;
/// Bytes of batches that are kept until they are applied, for followers.
const BATCH_BYTES_MAX: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct RecentEntry {
    id: LogId,
    header: BatchHeader,
    raft_body: Option<(RaftEntryKind, Bytes)>,
    /// What a batch has behind its stamped beginning, if it is kept.
    batch: Option<Bytes>,
    at: Point,
    next: Point,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Recent {
    entries: VecDeque<(Arc<Segment>, RecentEntry)>,
    /// Whether somebody reads entries whole: a leader with followers.
    keeps_batches: bool,
    batch_bytes: usize,
}

impl Recent {
    pub(super) fn push(&mut self, segment: &Arc<Segment>, entry: &Stamped, at: Point, next: Point) {
        if self.entries.len() == KEEP_MAX {
            self.let_batch_go(0);
            self.entries.pop_front();
        }
        let raft_body = entry.raft_body.clone();
        let kept = self.keeps_batches && self.batch_bytes < BATCH_BYTES_MAX;
        let batch = entry.batch().filter(|_| kept);
        self.batch_bytes += batch.as_ref().map_or(0, Bytes::len);
        let recent = RecentEntry { id: entry.id, header: entry.header, raft_body, batch, at, next };
        self.entries.push_back((Arc::clone(segment), recent));
    }

    fn let_batch_go(&mut self, at: usize) {
        let batch = self.entries.get_mut(at).and_then(|(_, entry)| entry.batch.take());
        self.batch_bytes -= batch.map_or(0, |batch| batch.len());
    }

    /// Forgets the entries at and above `index`.
    pub(super) fn cut(&mut self, index: RaftIndex) {
        // Who has to cut follows another.
        self.keeps_batches = false;
        while self.entries.back().is_some_and(|(_, entry)| entry.id.index >= index) {
            self.let_batch_go(self.entries.len() - 1);
            self.entries.pop_back();
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets what lies below `applied` but for a few.
    pub(super) fn applied(&mut self, applied: RaftIndex) {
        if self.batch_bytes > 0 {
            let below = self.entries.partition_point(|(_, entry)| entry.id.index < applied);
            (0..below).for_each(|at| self.let_batch_go(at));
        }
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

    /// Whole entries of `range` from its first on, one at least, then while they fit into `max_bytes`; `None` if one of them is not kept. Batches are kept from then
    /// on.
    pub(super) fn stored(&mut self, range: &Range<RaftIndex>, max_bytes: u64) -> Option<Vec<StoredEntry>> {
        self.keeps_batches = true;
        let skip = usize::try_from(range.start.0.checked_sub(self.entries.front()?.1.id.index.0)?).ok()?;
        let (mut found, mut left) = (Vec::new(), max_bytes);
        for (_, entry) in self.entries.iter().skip(skip).take_while(|(_, entry)| entry.id.index < range.end) {
            let size = size_of(&entry.header);
            if !found.is_empty() && size > left {
                break;
            }
            let body = entry.body()?;
            left = left.saturating_sub(size);
            found.push(StoredEntry { id: entry.id, base_offset: entry.at.offset, body });
        }
        (!found.is_empty()).then_some(found)
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
    fn body(&self) -> Option<Body> {
        if let Some((kind, body)) = &self.raft_body {
            return Some(Body::Raft { kind: *kind, body: body.clone() });
        }
        let rest = self.batch.as_ref()?;
        let stamp = &self.header.encode()[..STAMP_BYTES];
        let mut batch = BytesMut::with_capacity(STAMP_BYTES + rest.len());
        batch.extend_from_slice(stamp);
        batch.extend_from_slice(rest);
        Some(Body::Records(batch.freeze()))
    }

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
