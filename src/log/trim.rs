//! Making a log shorter: truncation of uncommitted entries at its end, the raft cut, deletion of segments at its beginning.
//!
//! # Invariants
//! - Truncation cuts nothing, since readers may be looking: it begins a file of a higher generation, which supersedes the rest. That file's
//!   name is durable before the truncation returns, so that what was truncated does not come back, not even in part behind another file.
//! - A segment's file is removed only after the journal has the raft cut that lies behind it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::append::SLACK_BYTES;
use super::descriptor::Mark;
use super::disk::{Disk, Lane};
use super::entry::Point;
use super::error::LogError;
use super::name::SegmentName;
use super::partition::Log;
use super::segment::Segment;
use super::walk::Walker;
use crate::ids::{LogId, Offset, RaftIndex};

/// What [`Log::delete_before`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Segments.
    pub segments: usize,
    /// Bytes of data.
    pub bytes: u64,
}

impl Log {
    /// Takes back the entries at and above `from`, none of which may be committed; durable on return. Blocks.
    ///
    /// # Errors
    /// [`LogError::TruncateCommitted`]; [`LogError::Damaged`] if the place cannot be found; of the disk.
    pub fn truncate_from(&self, from: RaftIndex) -> Result<(), LogError> {
        let mut writer = self.writer();
        self.check_not_failed()?;
        {
            let shared = self.shared();
            if shared.last.is_none_or(|last| last.index < from) {
                return Ok(());
            }
            if let Some(kept) = shared.purged.max(shared.committed).filter(|kept| kept.index >= from) {
                return Err(LogError::TruncateCommitted { from, kept });
            }
        }
        let cut = match self.shared().segment_of_index(from).cloned() {
            Some(segment) if segment.name.first_index < from => Some((self.find_index(&segment, from)?, segment)),
            Some(_) | None => None,
        };
        let kept = self.shared().segments.partition_point(|segment| segment.name.first_index < from);
        let first_offset = match &cut {
            Some((point, _)) => point.offset,
            None => self.shared().segments[kept].name.first_offset,
        };
        writer.generation += 1;
        let name = SegmentName { first_index: from, first_offset, generation: writer.generation };
        let segment = match self.create(&mut writer, name, SLACK_BYTES) {
            // A full disk still has room for a name.
            Err(LogError::Full) => self.create(&mut writer, name, 0)?,
            created => created?,
        };
        let mut guard = self.shared_mut();
        let shared = &mut *guard;
        let gone = shared.segments.split_off(kept);
        shared.next_offset = first_offset;
        if let Some((point, segment)) = cut {
            segment.lock().truncate(point);
        }
        shared.dirty.retain(|it| !gone.iter().any(|gone| Arc::ptr_eq(it, gone)));
        let last = shared.id_before(from);
        let begins = shared.segments.is_empty() && shared.purged.is_none();
        assert!(last.is_some() || begins, "log-is-contiguous: the term of the entry before {from} is known");
        shared.last = last;
        shared.activate(&segment);
        shared.names_synced = shared.names;
        shared.epochs.cut(from);
        shared.recent.cut(from);
        shared.flushed = shared.flushed.min(shared.last);
        shared.truncations += 1;
        shared.durable = None;
        drop(guard);
        self.remove_later(gone);
        Ok(())
    }

    /// Moves the raft cut: entries up to `upto` cannot be read by index any more. Deletes nothing that the log still continues from.
    /// Beyond the log's end the log begins anew behind `upto`: a descriptor for exactly that point must be durable.
    /// Does not wait for the journal.
    ///
    /// # Errors
    /// [`LogError::PurgeWithoutDescriptor`]: nothing was changed.
    pub fn purge(&self, upto: LogId) -> Result<(), LogError> {
        let mut writer = self.writer();
        let (last, purged) = {
            let shared = self.shared();
            (shared.last, shared.purged)
        };
        if purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        if last.is_some_and(|last| last.index >= upto.index) {
            self.shared_mut().purged = Some(upto);
            self.journal.put_purged(self.id, upto);
            return Ok(());
        }
        let group = self.journal.group(self.id);
        let Some(descriptor) = group.descriptors.into_iter().find(|it| it.id == upto) else {
            return Err(LogError::PurgeWithoutDescriptor { upto, last });
        };
        writer.generation += 1;
        let beginning = Mark::beginning(&descriptor, writer.generation);
        let removed = {
            let mut shared = self.shared_mut();
            shared.purged = Some(upto);
            shared.last = Some(upto);
            // The descriptor is durable, and there is nothing behind it.
            shared.flushed = Some(upto);
            shared.next_offset = descriptor.next_offset;
            shared.epochs = super::epochs::EpochTable::new(descriptor.epochs).unwrap_or_default();
            shared.recent.clear();
            shared.dirty.clear();
            shared.has_active = false;
            shared.truncations += 1;
            shared.durable = None;
            shared.marked = Some(beginning);
            std::mem::take(&mut shared.segments)
        };
        self.journal.put_purged(self.id, upto);
        // Before the files go: the old mark would call them forgotten.
        self.journal.put_mark(self.id, beginning);
        self.remove_later(removed);
        Ok(())
    }

    /// Removes the oldest segments that hold nothing at or above log start and nothing above the raft cut; never the one that is
    /// appended to. The files go later, after the journal has the raft cut.
    pub fn delete_before(&self, log_start: Offset) -> Deleted {
        let _writer = self.writer();
        let removed = {
            let mut guard = self.shared_mut();
            let shared = &mut *guard;
            let Some(purged) = shared.purged else { return Deleted::default() };
            let gone = |segment: &Arc<Segment>| {
                let state = segment.lock();
                state.sealed && state.end.offset <= log_start && state.end.index <= purged.index.next()
            };
            // Unsynced bytes of one that goes need no sync, but those of the ones behind it do: the order of `dirty` stays.
            let count = shared.segments.iter().take_while(|segment| gone(segment)).count();
            // The last one stays even if it is sealed: its end is where the log's end is found again.
            let count = count.min(shared.segments.len().saturating_sub(1));
            let removed: Vec<_> = shared.segments.drain(..count).collect();
            shared.dirty.retain(|it| !removed.iter().any(|gone| Arc::ptr_eq(it, gone)));
            // What is still there keeps its terms: a truncation needs that of the entry before.
            if let Some(first) = shared.segments.first() {
                shared.epochs.forget_before(first.name.first_index);
            }
            removed
        };
        let bytes = removed.iter().map(|segment| segment.lock().end.pos).sum();
        let deleted = Deleted { segments: removed.len(), bytes };
        self.remove_later(removed);
        deleted
    }

    /// Removes files once everything that the journal was given before is durable.
    pub(super) fn remove_later(&self, segments: Vec<Arc<Segment>>) {
        if segments.is_empty() {
            return;
        }
        let (disk, dir, failed) = (Arc::clone(&self.disk), self.dir.clone(), Arc::clone(&self.failed));
        self.journal.sync(Box::new(move |synced| {
            if synced.is_err() {
                return;
            }
            let job_disk = Arc::clone(&disk);
            let job = move || {
                if remove_all(job_disk.as_ref(), &dir, &segments).is_err() {
                    failed.store(true, Ordering::Release);
                }
            };
            disk.offload(Lane::Background, Box::new(job));
        }));
    }

    /// The point before the entry with an index, which the segment holds.
    fn find_index(&self, segment: &Arc<Segment>, index: RaftIndex) -> Result<Point, LogError> {
        let (mut at, end) = self.seek_index(segment, index)?;
        let mut walker = Walker::headers(segment.file.as_ref(), end.pos);
        while at.index < index && at.pos < end.pos {
            let known = segment.lock().bad_at(at.pos);
            at = match known {
                Some(bad) => bad.to,
                None => match walker.header(at)? {
                    Ok((_, next)) => next,
                    Err(_) => break,
                },
            };
        }
        if at.index == index { Ok(at) } else { Err(LogError::Damaged(Box::new(segment.missing(at, end)))) }
    }
}

/// Oldest first, so that what a power cut leaves of the removals is a log with its beginning missing.
fn remove_all(disk: &dyn Disk, dir: &str, segments: &[Arc<Segment>]) -> io::Result<()> {
    for segment in segments {
        segment.remove(disk)?;
    }
    disk.sync_dir(dir)
}
