//! Making a log durable.
//!
//! # Invariants
//! - What a flush says is durable was captured before its first sync began, and each file with unsynced bytes of it, oldest first,
//!   and the names of new files were synced since.
//! - A sync that failed is never tried again: all later flushes of the log fail.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::append::allocate_slack;
use super::descriptor::{Mark, Place};
use super::disk::Disk;
use super::error::LogError;
use super::partition::{Log, Shared};
use super::segment::Segment;
use crate::ids::LogId;

/// A flushed mark goes to the journal when so many bytes were synced since the last one.
const MARK_BYTES: u64 = 8 << 20;

/// One flush of one log: what to sync, and what is durable then.
#[must_use = "a flush does nothing until it is run, and says nothing until it is ended"]
pub struct FlushPlan {
    upto: LogId,
    /// The point behind that entry.
    mark: Mark,
    truncations: u64,
    /// Oldest first, with the bytes that count.
    files: Vec<(Arc<Segment>, u64)>,
    names: u64,
    /// The directory, if files in it are new.
    dir: Option<(Arc<dyn Disk>, String)>,
    failed: Arc<AtomicBool>,
}

impl std::fmt::Debug for FlushPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlushPlan").field("upto", &self.upto).field("files", &self.files).finish_non_exhaustive()
    }
}

impl FlushPlan {
    /// The last entry that is durable when the flush has ended.
    #[must_use]
    pub fn upto(&self) -> LogId {
        self.upto
    }

    /// Syncs. Blocks; to be called inside [`Disk::offload`].
    ///
    /// # Errors
    /// Of the first sync that failed, or that one failed earlier: final, the process must stop.
    pub fn run(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier write or sync of this log failed"));
        }
        let result = self.sync();
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }

    fn sync(&self) -> io::Result<()> {
        for (segment, _) in &self.files {
            segment.file.sync()?;
        }
        match &self.dir {
            Some((disk, dir)) => disk.sync_dir(dir),
            None => Ok(()),
        }
    }
}

impl Log {
    /// Begins a flush of all that has been appended; `None` if all of it is durable.
    pub fn begin_flush(&self) -> Option<FlushPlan> {
        let shared = self.shared();
        let upto = shared.last?;
        if shared.flushed == Some(upto) || shared.segments.is_empty() {
            return None;
        }
        let segment = shared.segments.last()?;
        let position = segment.lock().end.pos;
        let place = Place { segment: segment.name, position };
        let files = shared.dirty.iter().map(|segment| (Arc::clone(segment), segment.lock().end.pos)).collect();
        let new_names = shared.names > shared.names_synced;
        Some(FlushPlan {
            upto,
            mark: Mark { id: upto, next_offset: shared.next_offset, place },
            truncations: shared.truncations,
            files,
            names: shared.names,
            dir: new_names.then(|| (Arc::clone(&self.disk), self.dir.clone())),
            failed: Arc::clone(&self.failed),
        })
    }

    /// Ends a flush that ran: answers up to where the log is durable now. That is less than the plan said if the log was truncated
    /// meanwhile; begin another flush then while [`super::LogState::flushed`] is behind `last`.
    ///
    /// # Errors
    /// [`LogError::Failed`] if it, or any flush, failed.
    pub fn end_flush(&self, plan: FlushPlan) -> Result<Option<LogId>, LogError> {
        self.check_not_failed()?;
        let mut shared = self.shared_mut();
        if plan.truncations != shared.truncations {
            return Ok(shared.flushed);
        }
        for (segment, bytes) in &plan.files {
            let mut state = segment.lock();
            state.synced = state.synced.max(*bytes);
        }
        shared.dirty.retain(|segment| {
            let state = segment.lock();
            state.synced < state.end.pos
        });
        shared.names_synced = shared.names_synced.max(plan.names);
        if shared.flushed.is_none_or(|flushed| flushed.index < plan.upto.index) {
            let before = shared.flushed.replace(plan.upto);
            shared.durable = Some(plan.mark);
            if shared.mark_is_due() {
                self.put_mark(&mut shared);
            }
            if shared.committed > before {
                self.put_committed(&shared);
            }
        }
        Ok(shared.flushed)
    }

    /// Gives the journal a flushed mark of now, if it has an older one. To be called each second while the log is written to; flushes
    /// do it by themselves at each roll and each 8 MiB.
    pub fn mark_flushed(&self) {
        let mut shared = self.shared_mut();
        self.put_mark(&mut shared);
    }

    fn put_mark(&self, shared: &mut Shared) {
        if let Some(durable) = shared.durable
            && shared.marked != Some(durable)
        {
            shared.marked = Some(durable);
            self.journal.put_mark(self.id, durable);
        }
    }

    /// Ends the log's use: flushes it, writes the active segment's index, gives back space that was allocated ahead, and puts the final
    /// mark. Blocks. Nothing may be appended afterwards; sync the journal when all logs are done.
    ///
    /// # Errors
    /// The log is then not clean, and the next start must not say that it is.
    pub fn seal_clean(&self) -> Result<(), LogError> {
        let _writer = self.writer();
        self.check_not_failed()?;
        if let Some(plan) = self.begin_flush() {
            plan.run()?;
            self.end_flush(plan)?;
        }
        self.mark_flushed();
        let unnamed = {
            let shared = self.shared();
            shared.names > shared.names_synced
        };
        if unnamed {
            // An empty file, since the flush has synced the names of others: a clean start takes its name for durable.
            self.disk.sync_dir(&self.dir)?;
        }
        if let Some(active) = self.active() {
            let end = active.lock().end.pos;
            active.file.set_len(end)?;
            // What Raft may append before anything is reserved again must not depend on how full the disk is then.
            allocate_slack(active.file.as_ref(), end)?;
            active.file.sync()?;
            active.write_index(self.disk.as_ref())?;
        }
        Ok(())
    }
}

impl Shared {
    fn mark_is_due(&self) -> bool {
        match (self.durable, self.marked) {
            (Some(durable), Some(marked)) => {
                durable.place.segment != marked.place.segment
                    || durable.place.position.saturating_sub(marked.place.position) >= MARK_BYTES
            }
            (durable, _) => durable.is_some(),
        }
    }
}
