//! [`Log`]: one partition's log. This file holds its parts and its numbers; what is done with them is in [`super::append`],
//! [`super::flush`], [`super::fetch`], [`super::entries`], [`super::lookup`] and [`super::trim`].
//!
//! # Locks
//! `writer` is held by the one who changes the log (append, reserve, roll, truncate, purge, delete), also while it writes to the
//! file. `shared` is what readers see; it is held for moments only, never while touching the disk. A segment's own lock may be
//! taken under `shared`, never the other way round.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::descriptor::{Descriptor, Mark};
use super::disk::{Disk, Lane};
use super::epochs::EpochTable;
use super::error::{Damage, LogError};
use super::index::NO_TIMESTAMP;
use super::journal::{Done, Journal};
use super::mend::Tender;
use super::name::SegmentName;
use super::recent::Recent;
use super::segment::Segment;
use crate::ids::{LogId, Offset, PartitionId, RaftIndex, Term, Timestamp};

/// Loaded indexes of sealed segments that a log keeps.
const LOADED_INDEXES: usize = 4;

/// What an operator may set for one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment is rolled before it grows past this (Kafka: `segment.bytes`); a larger batch gets a segment alone.
    pub segment_bytes: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { segment_bytes: 1 << 30 }
    }
}

/// How the process before this one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenAfter {
    /// It closed this log with [`Log::seal_clean`] and wrote nothing afterwards.
    pub clean: bool,
}

/// The numbers of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// The raft cut: the last entry purged. Its bytes may still be there.
    pub purged: Option<LogId>,
    /// The last entry, or the raft cut if there is none behind it.
    pub last: Option<LogId>,
    /// The base offset of the next entry.
    pub next_offset: Offset,
    /// The last entry known to be durable.
    pub flushed: Option<LogId>,
}

/// What [`Log::append`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The last entry of the log now.
    pub last: LogId,
    /// The base offset of the next entry.
    pub next_offset: Offset,
}

/// One segment, for retention and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The index of its first entry.
    pub first_index: RaftIndex,
    /// The index behind its last entry.
    pub next_index: RaftIndex,
    /// The base offset of its first entry.
    pub base_offset: Offset,
    /// The offset behind its last entry.
    pub next_offset: Offset,
    /// Its data, in bytes.
    pub size_bytes: u64,
    /// Whether nothing is appended to it any more.
    pub sealed: bool,
}

/// See the module's documentation.
pub struct Log {
    pub(super) id: PartitionId,
    pub(super) dir: String,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) journal: Arc<Journal>,
    writer: Mutex<Writer>,
    shared: RwLock<Shared>,
    /// A write or sync failed.
    pub(super) failed: Arc<AtomicBool>,
    /// Sealed segments whose index is in memory, oldest first.
    loaded: Mutex<VecDeque<Arc<Segment>>>,
    /// Who sees to damage.
    pub(super) tender: OnceLock<Box<dyn Tender>>,
}

pub(super) struct Writer {
    pub(super) config: LogConfig,
    /// Of the next segment.
    pub(super) generation: u32,
    /// The last generation whose first file's name is durable. That of a log's very first file comes with its first flush.
    pub(super) named: u32,
}

pub(super) struct Shared {
    /// Oldest first, without holes between them.
    pub(super) segments: Vec<Arc<Segment>>,
    /// Whether entries are appended to the last of them; otherwise the next entry begins a new one.
    pub(super) has_active: bool,
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
    pub(super) next_offset: Offset,
    pub(super) flushed: Option<LogId>,
    /// The highest committed entry that the log was told of.
    pub(super) committed: Option<LogId>,
    pub(super) epochs: EpochTable,
    pub(super) recent: Recent,
    /// Segments with unsynced bytes, oldest first.
    pub(super) dirty: VecDeque<Arc<Segment>>,
    /// Files created, and how many of those have durable names.
    pub(super) names: u64,
    pub(super) names_synced: u64,
    /// How often the log was truncated: a flush that was begun before a truncation must not say what is durable after it.
    pub(super) truncations: u64,
    /// The newest point known to be durable, and the one that the journal was given.
    pub(super) durable: Option<Mark>,
    pub(super) marked: Option<Mark>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("id", &self.id).field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Log {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        journal: Arc<Journal>,
        id: PartitionId,
        writer: Writer,
        shared: Shared,
    ) -> Self {
        Self {
            id,
            dir: super::name::directory(id),
            disk,
            journal,
            writer: Mutex::new(writer),
            shared: RwLock::new(shared),
            failed: Arc::default(),
            loaded: Mutex::default(),
            tender: OnceLock::new(),
        }
    }

    /// Which partition's log this is.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Where its work is done that blocks.
    #[must_use]
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    /// The log's numbers, all of one moment.
    #[must_use]
    pub fn state(&self) -> LogState {
        let shared = self.shared();
        LogState { purged: shared.purged, last: shared.last, next_offset: shared.next_offset, flushed: shared.flushed }
    }

    /// The first offset that this replica still has bytes of. Clients see the replicated log start instead.
    #[must_use]
    pub fn first_offset_kept(&self) -> Offset {
        let shared = self.shared();
        shared.segments.first().map_or(shared.next_offset, |segment| segment.name.first_offset)
    }

    /// Bytes of all segments' data.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared().segments.iter().map(|segment| segment.lock().end.pos).sum()
    }

    /// The segments, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let info = |segment: &Arc<Segment>| {
            let state = segment.lock();
            SegmentInfo {
                first_index: segment.name.first_index,
                next_index: state.end.index,
                base_offset: segment.name.first_offset,
                next_offset: state.end.offset,
                size_bytes: state.end.pos,
                sealed: state.sealed,
            }
        };
        self.shared().segments.iter().map(info).collect()
    }

    /// Whether all records of a segment are from before `than`. One whose records have no timestamps is not: nobody knows how old it is.
    /// May block: only the index knows the highest timestamp, and it may have to be read or built.
    ///
    /// # Errors
    /// Of the disk.
    pub fn is_older(&self, segment: &SegmentInfo, than: Timestamp) -> Result<bool, LogError> {
        if segment.base_offset == segment.next_offset {
            return Ok(true);
        }
        let is_it = |it: &&Arc<Segment>| {
            it.name.first_index == segment.first_index && it.lock().end.offset == segment.next_offset
        };
        let Some(found) = self.shared().segments.iter().find(is_it).cloned() else { return Ok(false) };
        // Nearly always enough, and much less to read.
        if self.first_timestamp_of(&found)? >= than {
            return Ok(false);
        }
        let newest = self.max_timestamp_of(&found)?;
        Ok(newest != NO_TIMESTAMP && newest < than)
    }

    pub(super) fn first_timestamp_of(&self, segment: &Arc<Segment>) -> io::Result<Timestamp> {
        segment.first_timestamp(|| self.load_index(segment).map(drop))
    }

    pub(super) fn max_timestamp_of(&self, segment: &Arc<Segment>) -> io::Result<Timestamp> {
        segment.max_timestamp(|| self.load_index(segment).map(drop))
    }

    /// All damage that is known.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        let segments = self.shared().segments.clone();
        let of = |segment: &Arc<Segment>| {
            let bad = segment.lock().all_bad().to_vec();
            bad.into_iter().map(|bad| segment.damage(bad)).collect::<Vec<_>>()
        };
        segments.iter().flat_map(of).collect()
    }

    /// Takes new settings; they count from the next entry on.
    pub fn reconfigure(&self, config: LogConfig) {
        self.writer().config = config;
        if let Some(active) = self.active() {
            active.lock().limit = config.segment_bytes;
        }
    }

    /// Remembers a descriptor of this log. It must not name an entry that is not durable here; `done` is called after the sync.
    ///
    /// # Errors
    /// [`LogError::NotFlushed`]: flush first; `done` is not called.
    pub fn put_descriptor(&self, descriptor: Descriptor, done: Done) -> Result<(), LogError> {
        let flushed = self.shared().flushed;
        if flushed.is_none_or(|flushed| flushed.index < descriptor.id.index) {
            return Err(LogError::NotFlushed { id: descriptor.id, flushed });
        }
        self.journal.put_descriptor(self.id, descriptor, done);
        Ok(())
    }

    /// Remembers, with the journal's next frame, that entries up to `id` are committed; never more than is flushed.
    pub fn save_committed(&self, id: LogId) {
        let mut shared = self.shared_mut();
        shared.committed = shared.committed.max(Some(id));
        self.put_committed(&shared);
    }

    /// The last entry that is known to be committed: what this life was told of, or the journal remembers.
    #[must_use]
    pub fn committed(&self) -> Option<LogId> {
        let remembered = self.journal.group(self.id).committed;
        let (told, purged) = {
            let shared = self.shared();
            (shared.committed, shared.purged)
        };
        [told, remembered, purged].into_iter().flatten().max_by_key(|id| id.index)
    }

    /// Whether a committed entry is in this log, or was and is purged by now.
    #[must_use]
    pub fn holds(&self, committed: LogId) -> bool {
        let is_purged = self.state().purged.is_some_and(|purged| purged.index > committed.index);
        is_purged || self.id_at(committed.index) == Some(committed)
    }

    pub(super) fn put_committed(&self, shared: &Shared) {
        let (Some(committed), Some(flushed)) = (shared.committed, shared.flushed) else { return };
        let id = if committed.index <= flushed.index { committed } else { flushed };
        self.journal.put_committed(self.id, id);
    }

    pub(super) fn check_not_failed(&self) -> Result<(), LogError> {
        if self.failed.load(Ordering::Acquire) { Err(LogError::Failed) } else { Ok(()) }
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shared(&self) -> RwLockReadGuard<'_, Shared> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shared_mut(&self) -> RwLockWriteGuard<'_, Shared> {
        self.shared.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn active(&self) -> Option<Arc<Segment>> {
        let shared = self.shared();
        shared.segments.last().filter(|_| shared.has_active).cloned()
    }

    /// Makes a segment's whole index available. Blocks. Drops that of another sealed segment if there are many.
    pub(super) fn load_index(&self, segment: &Arc<Segment>) -> Result<Vec<Damage>, std::io::Error> {
        let found = segment.load_index(self.disk.as_ref())?;
        self.tell(&found);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|it| !Arc::ptr_eq(it, segment));
        loaded.push_back(Arc::clone(segment));
        while loaded.len() > LOADED_INDEXES {
            let dropped = loaded.pop_front().expect("it was just counted");
            let mut state = dropped.lock();
            if state.sealed {
                state.drop_index();
            }
        }
        Ok(found)
    }

    /// Has a sealed segment's index written, when there is nothing better to do.
    pub(super) fn write_index_later(&self, segment: &Arc<Segment>) {
        let (disk, segment) = (Arc::clone(&self.disk), Arc::clone(segment));
        self.disk.offload(
            Lane::Background,
            // A cache: without it the index is built from the headers.
            Box::new(move || drop(segment.write_index(disk.as_ref()))),
        );
    }
}

impl Shared {
    /// Of a log that never had an entry.
    pub(super) fn empty() -> Self {
        Self {
            segments: Vec::new(),
            has_active: false,
            purged: None,
            last: None,
            next_offset: Offset(0),
            flushed: None,
            committed: None,
            epochs: EpochTable::default(),
            recent: Recent::default(),
            dirty: VecDeque::new(),
            names: 0,
            names_synced: 0,
            truncations: 0,
            durable: None,
            marked: None,
        }
    }

    /// Appends to a new segment from now on.
    pub(super) fn activate(&mut self, segment: &Arc<Segment>) {
        self.segments.push(Arc::clone(segment));
        self.has_active = true;
        self.names += 1;
    }

    /// Where the next entry goes, if the log has begun.
    pub(super) fn next_index(&self) -> Option<RaftIndex> {
        self.last.map(|last| last.index.next())
    }

    pub(super) fn last_term(&self) -> Term {
        self.last.map_or(Term(0), |last| last.term)
    }

    /// The segment that holds the entry with this index.
    pub(super) fn segment_of_index(&self, index: RaftIndex) -> Option<&Arc<Segment>> {
        let after = self.segments.partition_point(|segment| segment.name.first_index <= index);
        self.segments.get(after.checked_sub(1)?)
    }

    /// The number of the segment that holds the batch with this offset: the last that begins at or below it, unless it only begins with
    /// Raft's own entries there.
    pub(super) fn segment_of_offset(&self, offset: Offset) -> Option<usize> {
        let after = self.segments.partition_point(|segment| segment.name.first_offset <= offset);
        after.checked_sub(1)
    }

    /// The first index that can be read.
    pub(super) fn first_index(&self) -> RaftIndex {
        let kept = self
            .segments
            .first()
            .map_or_else(|| self.next_index().unwrap_or(RaftIndex(0)), |segment| segment.name.first_index);
        self.purged.map_or(kept, |purged| kept.max(purged.index.next()))
    }

    /// The id of the last entry before `index`, as far as the log knows.
    pub(super) fn id_before(&self, index: RaftIndex) -> Option<LogId> {
        let before = RaftIndex(index.0.checked_sub(1)?);
        if self.purged.is_some_and(|purged| purged.index >= before) {
            return self.purged;
        }
        self.epochs.term_at(before).map(|term| LogId { term, index: before })
    }

    /// The name of the segment that the next entry would begin.
    pub(super) fn next_name(&self, first: RaftIndex, generation: u32) -> SegmentName {
        SegmentName { first_index: first, first_offset: self.next_offset, generation }
    }
}
