//! Writing: append, the space for it, and rolling to a new segment.
//!
//! # Invariants
//! - Indexes are contiguous and terms do not fall: checked before anything is written.
//! - Entries are written into space that has been allocated, so that a full disk is an error before the write, not in it.
//! - A disk that is full for batches is not full for what makes room on it: batches leave some of the filesystem free, and some
//!   allocated behind each log's end, to commands and to Raft's own entries.
//! - Entries are published only after they were written in full. After a failed write nothing is written to this log again:
//!   nobody knows what stands behind its end.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::disk::DiskFile;
use super::entry::{NewEntry, Point, Stamped};
use super::error::LogError;
use super::name::SegmentName;
use super::partition::{Appended, Log, Writer};
use super::segment::Segment;
use crate::ids::{RaftIndex, Term, Timestamp};

/// Space that batches leave allocated behind a log's end: for commands, and for Raft's own entries, which are appended without asking for
/// space first.
pub(super) const SLACK_BYTES: u64 = 16 << 10;
/// What commands leave of it to Raft's own entries.
const RAFT_BYTES: u64 = 8 << 10;
/// What batches leave free on the filesystem, or a [`KEPT_FREE_PART`]th of it if that is less: for commands, for the segments that
/// those roll to, for the journal and for indexes.
const KEPT_FREE_BYTES: u64 = 16 << 20;
const KEPT_FREE_PART: u64 = 32;
/// Entries written with one call.
const WRITE_MAX: usize = 256;

impl Log {
    /// Appends entries behind the log's end. They are readable on return, and durable only after a flush.
    /// The first entry of a log that never had any may have any index (openraft: 0).
    ///
    /// # Errors
    /// [`LogError::Gap`], [`LogError::TermFalls`], [`LogError::NotABatch`], [`LogError::OffsetsUsedUp`]: nothing was written.
    /// [`LogError::Full`]: entries that would have needed a new segment or more space were not written; those before them were. It does not
    /// happen within what [`Log::reserve`] granted. Any other error: the log has stopped.
    ///
    /// # Panics
    /// Without entries.
    pub fn append(&self, entries: &[NewEntry]) -> Result<Appended, LogError> {
        assert!(!entries.is_empty(), "an append has at least one entry");
        let mut writer = self.writer();
        self.check_not_failed()?;
        let stamped = self.stamp(entries)?;
        let mut rest = &stamped[..];
        while let Some(first) = rest.first() {
            let segment = self.segment_for(&mut writer, first)?;
            let (limit, end) = {
                let state = segment.lock();
                (state.limit, state.end.pos)
            };
            let mut bytes = first.size();
            let mut count = 1;
            while let Some(next) = rest.get(count).filter(|_| count < WRITE_MAX)
                && end + bytes + next.size() <= limit
            {
                bytes += next.size();
                count += 1;
            }
            allocate(&segment, end + bytes, u64::MAX)?;
            let (now, later) = rest.split_at(count);
            self.write(&segment, end, now)?;
            self.publish(&segment, now);
            rest = later;
        }
        let shared = self.shared();
        let last = shared.last.expect("an entry was just appended");
        Ok(Appended { last, next_offset: shared.next_offset })
    }

    /// Makes sure that batches of `bytes` bytes can be appended whatever else fills the disk, and commands and some of Raft's own entries
    /// behind them. `bytes` counts from the log's present end: what was reserved before and is not appended yet has to be in it.
    ///
    /// # Errors
    /// [`LogError::Full`], also while only what is kept for commands is left: nothing was changed.
    pub fn reserve(&self, bytes: u64) -> Result<(), LogError> {
        let mut writer = self.writer();
        self.check_not_failed()?;
        let needed = bytes.saturating_add(SLACK_BYTES);
        let Some(first) = self.shared().next_index() else {
            // Nobody knows the first index yet. Raft appends its first entry without asking, before any of a client's.
            return self.check_room(needed).map(drop);
        };
        let segment = match self.active().filter(|active| fits(active, bytes)) {
            Some(segment) => segment,
            None => {
                self.check_room(needed)?;
                self.roll_to(&mut writer, first, needed)?
            }
        };
        let (end, missing) = {
            let state = segment.lock();
            (state.end.pos, state.end.pos.saturating_add(needed).saturating_sub(state.allocated))
        };
        let room = if missing == 0 { 0 } else { self.check_room(missing)? };
        allocate(&segment, end.saturating_add(needed), room)?;
        raise_limit(&segment, bytes);
        Ok(())
    }

    /// As [`Log::reserve`], for commands: they may take what batches have to leave, so that what makes room (log start moves, a topic is
    /// deleted or gets other configs) can be written on a full disk.
    ///
    /// # Errors
    /// [`LogError::Full`] if even that is used up: nothing was changed.
    pub fn reserve_command(&self, bytes: u64) -> Result<(), LogError> {
        let mut writer = self.writer();
        self.check_not_failed()?;
        let needed = bytes.saturating_add(SLACK_BYTES);
        let Some(first) = self.shared().next_index() else {
            return if self.disk.space()?.free_bytes < needed { Err(LogError::Full) } else { Ok(()) };
        };
        let active = self.active();
        let granted = match active.as_ref().filter(|active| fits(active, bytes)) {
            Some(active) => {
                let end = active.lock().end.pos;
                allocate(active, end.saturating_add(needed), u64::MAX)
            }
            None => self.roll_to(&mut writer, first, needed).map(drop),
        };
        match (granted, active) {
            (Err(LogError::Full), Some(active)) => {
                // Past its limit, and from what is kept, rather than not at all.
                let end = active.lock().end.pos;
                allocate(&active, end.saturating_add(bytes).saturating_add(RAFT_BYTES), u64::MAX)?;
                raise_limit(&active, bytes);
                Ok(())
            }
            (granted, _) => granted,
        }
    }

    /// What may be allocated for batches; an error if that is less than `bytes`.
    fn check_room(&self, bytes: u64) -> Result<u64, LogError> {
        let space = self.disk.space()?;
        let room = space.free_bytes.saturating_sub(KEPT_FREE_BYTES.min(space.total_bytes / KEPT_FREE_PART));
        if room < bytes { Err(LogError::Full) } else { Ok(room) }
    }

    /// Whether the active segment should be rolled because its first batch is older than `segment_ms` (Kafka: `segment.ms`).
    /// May block for a moment, on the first call after a start.
    ///
    /// # Errors
    /// Of the disk.
    pub fn roll_due(&self, now: Timestamp, segment_ms: i64) -> Result<bool, LogError> {
        let Some(active) = self.active() else { return Ok(false) };
        let first = self.first_timestamp_of(&active)?.0;
        Ok(first >= 0 && now.0.saturating_sub(first) >= segment_ms)
    }

    /// Ends the active segment, unless it is empty; the next entry begins a new one.
    ///
    /// # Errors
    /// [`LogError::Full`] if there is no space for the new one: nothing was changed.
    pub fn roll(&self) -> Result<(), LogError> {
        let mut writer = self.writer();
        self.check_not_failed()?;
        let next = self.shared().next_index();
        if let (Some(first), Some(active)) = (next, self.active())
            && active.lock().end.pos > 0
        {
            self.roll_to(&mut writer, first, SLACK_BYTES)?;
        }
        Ok(())
    }

    fn stamp(&self, entries: &[NewEntry]) -> Result<Vec<Stamped>, LogError> {
        let (mut next, mut last_term, mut offset) = {
            let shared = self.shared();
            (shared.next_index(), shared.last_term(), shared.next_offset)
        };
        let mut stamped = Vec::with_capacity(entries.len());
        for entry in entries {
            let expected = next.unwrap_or(entry.id.index);
            if entry.id.index != expected {
                return Err(LogError::Gap { expected, found: entry.id });
            }
            if entry.id.term < last_term {
                return Err(LogError::TermFalls { last: last_term, found: entry.id });
            }
            if entry.id.term > Term::MAX {
                return Err(LogError::NotABatch(entry.id));
            }
            let one = Stamped::new(entry, offset).ok_or(LogError::NotABatch(entry.id))?;
            let at = Point { pos: 0, index: expected, offset };
            offset = at.step(&one.header, u64::MAX).map_err(|_| LogError::OffsetsUsedUp)?.offset;
            (next, last_term) = (Some(expected.next()), entry.id.term);
            stamped.push(one);
        }
        Ok(stamped)
    }

    /// The segment that an entry goes to: the active one if it fits, otherwise a new one.
    fn segment_for(&self, writer: &mut Writer, entry: &Stamped) -> Result<Arc<Segment>, LogError> {
        let active = self.active();
        if let Some(active) = active.as_ref().filter(|active| fits(active, entry.size())) {
            return Ok(Arc::clone(active));
        }
        match (self.roll_to(writer, entry.id.index, entry.size()), active) {
            // Past its limit rather than not at all: an entry that Raft cannot append ends the group.
            (Err(LogError::Full), Some(active)) => {
                let end = active.lock().end.pos;
                allocate(&active, end + entry.size(), u64::MAX).map(|()| active)
            }
            (rolled, _) => rolled,
        }
    }

    /// Begins a new segment at the log's end, with space for so many bytes.
    fn roll_to(&self, writer: &mut Writer, first: RaftIndex, bytes: u64) -> Result<Arc<Segment>, LogError> {
        let name = self.shared().next_name(first, writer.generation);
        let segment = self.create(writer, name, bytes)?;
        let sealed = {
            let mut shared = self.shared_mut();
            let sealed = shared.segments.last().filter(|_| shared.has_active).cloned();
            if let Some(sealed) = &sealed {
                sealed.lock().sealed = true;
            }
            shared.activate(&segment);
            sealed
        };
        if let Some(sealed) = sealed {
            // Gives back what was allocated ahead; nothing is mapped past the data's end.
            let end = sealed.lock().end.pos;
            if let Err(error) = sealed.file.set_len(end) {
                return Err(self.stop(error));
            }
            self.write_index_later(&sealed);
        }
        Ok(segment)
    }

    /// Creates a segment's file, with space for so many bytes and more if that is to be had.
    pub(super) fn create(&self, writer: &mut Writer, name: SegmentName, bytes: u64) -> Result<Arc<Segment>, LogError> {
        let limit = writer.config.segment_bytes;
        let ahead = bytes.max(step(0).min(limit));
        let create = |space| {
            let created = Segment::create(self.disk.as_ref(), &self.dir, name, space, limit);
            created.map_err(|error| self.stop_unless_full(error.into()))
        };
        let segment = match create(ahead) {
            Err(LogError::Full) if ahead > bytes => create(bytes)?,
            created => created?,
        };
        if writer.named != name.generation {
            // The file that supersedes must not be missing while later ones of its generation are there: those would seem to follow what
            // it supersedes.
            self.disk.sync_dir(&self.dir).map_err(|error| self.stop(error))?;
            writer.named = name.generation;
        }
        Ok(segment)
    }

    fn write(&self, segment: &Segment, pos: u64, entries: &[Stamped]) -> Result<(), LogError> {
        let slices: Vec<IoSlice<'_>> = entries.iter().flat_map(Stamped::slices).collect();
        segment.file.write_at(pos, &slices).map_err(|error| self.stop(error))
    }

    /// Makes written entries readable.
    fn publish(&self, segment: &Arc<Segment>, entries: &[Stamped]) {
        let mut guard = self.shared_mut();
        let shared = &mut *guard;
        let mut state = segment.lock();
        if state.synced == state.end.pos {
            shared.dirty.push_back(Arc::clone(segment));
        }
        state.publish(entries, |entry, at, next| {
            shared.epochs.observe(entry.id, at.offset);
            shared.recent.push(segment, entry, at, next);
        });
        shared.next_offset = state.end.offset;
        shared.last = entries.last().map(|entry| entry.id);
    }

    fn stop(&self, error: io::Error) -> LogError {
        self.failed.store(true, Ordering::Release);
        LogError::Io(error)
    }

    fn stop_unless_full(&self, error: LogError) -> LogError {
        if !matches!(error, LogError::Full) {
            self.failed.store(true, Ordering::Release);
        }
        error
    }
}

/// Whether an entry of so many bytes may go to a segment.
fn fits(segment: &Arc<Segment>, bytes: u64) -> bool {
    let state = segment.lock();
    state.end.pos == 0 || state.end.pos.saturating_add(bytes) <= state.limit
}

/// Lets so many bytes go to a segment, although it is rolled then.
fn raise_limit(segment: &Segment, bytes: u64) {
    let mut state = segment.lock();
    state.limit = state.limit.max(state.end.pos.saturating_add(bytes));
}

/// Makes sure that a segment has space up to `needed`, and more if that is to be had within `room` bytes.
fn allocate(segment: &Segment, needed: u64, room: u64) -> Result<(), LogError> {
    let (allocated, end, limit) = {
        let state = segment.lock();
        (state.allocated, state.end.pos, state.limit)
    };
    if needed <= allocated {
        return Ok(());
    }
    let ahead = needed.max((end + step(end)).min(limit).min(allocated.saturating_add(room)));
    let to = match segment.file.allocate(allocated, ahead - allocated) {
        Ok(()) => ahead,
        Err(_) if ahead > needed => {
            segment.file.allocate(allocated, needed - allocated)?;
            needed
        }
        Err(error) => return Err(error.into()),
    };
    segment.lock().allocated = to;
    Ok(())
}

/// Allocates what is kept behind the data's end of a log that begins or ends its use, or what there is left of it on a full disk. Answers
/// up to where there is space.
pub(super) fn allocate_slack(file: &dyn DiskFile, end: u64) -> io::Result<u64> {
    let mut bytes = SLACK_BYTES;
    while bytes > 0 {
        match file.allocate(end, bytes) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => bytes /= 2,
            other => return other.map(|()| end + bytes),
        }
    }
    Ok(end)
}

/// By how much the space of a segment with so many bytes grows.
fn step(end: u64) -> u64 {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match end {
        0..KIB => 64 * KIB,
        KIB..MIB => MIB,
        MIB..8_388_608 => 4 * MIB,
        8_388_608..67_108_864 => 16 * MIB,
        _ => 32 * MIB,
    }
}
