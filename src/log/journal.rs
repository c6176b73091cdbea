//! `raft.journal`: the one record log of a data directory that remembers, for all its groups, votes, committed and purged
//! indexes, flushed marks and descriptors.
//!
//! # Invariants
//! - One frame at a time: the next frame is written only after the one before was synced. So a bad frame with a valid one
//!   behind it is damage, and the journal refuses to open; a bad last frame was never acknowledged, and is cut.
//! - A value counts (its callback says `Ok`) only after the sync. Marks, committed and purged indexes have no callback: they
//!   may be old after a crash, and all who read them know.
//! - There is always allocated space for a MiB of frames, so that votes can be written on a full disk.
//! - After a failed sync nothing is ever written or acknowledged again.
//!
//! It never looks into votes, memberships or machines, and knows nothing of segments.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::descriptor::{Descriptor, Mark};
use super::disk::{Disk, Lane};
use super::journal_file::JournalFile;
use super::journal_frame::{Change, Record};
use super::journal_state::{Groups, Lazy};
use super::parents::Parents;
use crate::ids::{LogId, PartitionId};

pub use super::journal_file::{JOURNAL, JournalError};
pub use super::journal_frame::FORMAT_VERSION;
pub use super::journal_state::GroupState;

/// Called once, after the sync that made a value durable, or with the error because of which it never will be.
/// `ErrorKind::StorageFull`: this value was not written, the journal goes on. Any other error is final.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// See the module's documentation.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    /// Locked for a moment only, never while writing.
    queue: Mutex<Queue>,
    /// Locked by the one commit in flight.
    file: Mutex<JournalFile>,
    parents: Parents,
}

/// Called with the reason when a journal fails.
pub type OnFailure = Box<dyn FnOnce(String) + Send>;

#[derive(Default)]
struct Queue {
    groups: Groups,
    waiting: Vec<(Option<Record>, Option<Done>)>,
    lazy: Lazy,
    committing: bool,
    failed: bool,
    on_failure: Option<OnFailure>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("waiting", &self.waiting.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Founds the journal of a new data directory; it is durable on return.
    ///
    /// # Errors
    /// [`JournalError::Exists`] if there is one.
    pub fn create(disk: Arc<dyn Disk>) -> Result<Arc<Self>, JournalError> {
        let file = JournalFile::create(disk.as_ref())?;
        Ok(Self::with(disk, file, Groups::default()))
    }

    /// Reads the journal back, from the device rather than from memory. A torn last frame is cut.
    ///
    /// # Errors
    /// [`JournalError::Missing`]; [`JournalError::Damaged`] and [`JournalError::Version`] name where and what.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Arc<Self>, JournalError> {
        let (file, groups) = JournalFile::open(disk.as_ref())?;
        Ok(Self::with(disk, file, groups))
    }

    /// What a journal holds of each group, read without changing anything: for when no broker runs.
    ///
    /// # Errors
    /// As for [`Journal::open`].
    pub fn look(disk: &dyn Disk) -> Result<BTreeMap<PartitionId, GroupState>, JournalError> {
        JournalFile::look(disk).map(|groups| groups.0)
    }

    fn with(disk: Arc<dyn Disk>, file: JournalFile, groups: Groups) -> Arc<Self> {
        let queue = Queue { groups, ..Queue::default() };
        Arc::new(Self { disk, queue: Mutex::new(queue), file: Mutex::new(file), parents: Parents::default() })
    }

    /// The directories above the logs of this data directory.
    pub(super) fn parents(&self) -> &Parents {
        &self.parents
    }

    /// What is remembered of a group: votes and descriptors only once they are durable, the others as last put.
    #[must_use]
    pub fn group(&self, id: PartitionId) -> GroupState {
        let queue = self.queue();
        queue.lazy.over(id, queue.groups.0.get(&id).cloned().unwrap_or_default())
    }

    /// All groups of which something durable is remembered.
    #[must_use]
    pub fn groups(&self) -> Vec<PartitionId> {
        self.queue().groups.0.keys().copied().collect()
    }

    /// Remembers a vote; `done` is called after the sync. Votes are made durable in the order of the calls.
    pub fn put_vote(self: &Arc<Self>, id: PartitionId, vote: Bytes, done: Done) {
        self.put(Some(Record::Group(id, Change::Vote(vote))), Some(done));
    }

    /// Remembers a descriptor. For one of this replica's own log use [`super::Log::put_descriptor`], which makes sure that the
    /// log is durable as far as the descriptor says; one that came from another replica is put here, before the log is purged to it.
    pub fn put_descriptor(self: &Arc<Self>, id: PartitionId, descriptor: Descriptor, done: Done) {
        self.put(Some(Record::Group(id, Change::Descriptor(Box::new(descriptor)))), Some(done));
    }

    /// Forgets a group and all of its values.
    pub fn remove_group(self: &Arc<Self>, id: PartitionId, done: Done) {
        self.queue().lazy.forget(id);
        self.put(Some(Record::Group(id, Change::Removed)), Some(done));
    }

    /// Calls `done` when everything put before is durable, the lazy values too.
    pub fn sync(self: &Arc<Self>, done: Done) {
        self.put(None, Some(done));
    }

    /// Remembers a committed index with the next frame. [`super::Log::save_committed`] keeps it at or below what is flushed.
    pub fn put_committed(&self, id: PartitionId, committed: LogId) {
        self.queue().lazy.put_committed(id, committed);
    }

    /// Remembers the raft cut with the next frame.
    pub fn put_purged(&self, id: PartitionId, purged: LogId) {
        self.queue().lazy.put_purged(id, purged);
    }

    /// Remembers, with the next frame, up to where a log's files are synced.
    pub fn put_mark(&self, id: PartitionId, mark: Mark) {
        self.queue().lazy.put_mark(id, mark);
    }

    /// Has `hook` called once, with the reason, when a write or sync fails, or now if one has: whoever put a value may not be waiting for it, and nothing
    /// that needs the journal can be done from then on.
    pub fn on_failure(&self, hook: OnFailure) {
        let mut queue = self.queue();
        if queue.failed {
            drop(queue);
            return hook(failed_before().to_string());
        }
        queue.on_failure = Some(hook);
    }

    fn fail(&self, error: &io::Error) {
        let hook = {
            let mut queue = self.queue();
            queue.failed = true;
            queue.on_failure.take()
        };
        if let Some(hook) = hook {
            hook(format!("the journal: {error}"));
        }
    }

    /// Whether a sync failed: nothing will ever be acknowledged again, and the process must stop.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.queue().failed
    }

    fn put(self: &Arc<Self>, record: Option<Record>, done: Option<Done>) {
        let mut queue = self.queue();
        queue.waiting.push((record, done));
        if queue.committing {
            return;
        }
        queue.committing = true;
        drop(queue);
        self.start();
    }

    fn start(self: &Arc<Self>) {
        let journal = Arc::clone(self);
        self.disk.offload(Lane::Flush, Box::new(move || journal.commit()));
    }

    /// Writes all that waits as one frame. What is put meanwhile goes into the next.
    fn commit(self: &Arc<Self>) {
        let (waiting, lazy, failed) = {
            let mut queue = self.queue();
            (std::mem::take(&mut queue.waiting), queue.lazy.take(), queue.failed)
        };
        let (records, dones): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let results = if failed { Err(failed_before()) } else { self.write(&records, &lazy) };
        let count = dones.len();
        let results = results.unwrap_or_else(|error| {
            self.fail(&error);
            (0..count).map(|_| Err(again(&error))).collect()
        });
        for (done, result) in dones.into_iter().zip(results) {
            if let Some(done) = done {
                done(result);
            }
        }
        let mut queue = self.queue();
        queue.committing = !queue.waiting.is_empty();
        if queue.committing {
            drop(queue);
            self.start();
        }
    }

    /// Writes a frame, folds its records in, and compacts when it is time. On a full disk descriptors are left out first.
    fn write(&self, records: &[Option<Record>], lazy: &[Record]) -> io::Result<Vec<io::Result<()>>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<&Record> = records.iter().flatten().chain(lazy).collect();
        let (written, without_descriptors) = if file.has_room_for(&all)? {
            (all, false)
        } else {
            (all.into_iter().filter(|it| !is_descriptor(it)).collect(), true)
        };
        if without_descriptors && !file.has_room_for_urgent(&written) {
            // Nothing of this frame is durable; the lazy values wait for the next one.
            self.put_back(lazy);
            return Ok(records.iter().map(|_| Err(io::ErrorKind::StorageFull.into())).collect());
        }
        file.append(&written)?;
        let compact = {
            let mut queue = self.queue();
            for record in written {
                queue.groups.apply(record.clone());
            }
            file.wants_compaction(&queue.groups).then(|| queue.groups.records().collect::<Vec<_>>())
        };
        if let Some(live) = compact {
            file.compact(self.disk.as_ref(), &live)?;
        }
        let left_out = |it: &Option<Record>| without_descriptors && it.as_ref().is_some_and(is_descriptor);
        Ok(records
            .iter()
            .map(|it| if left_out(it) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) })
            .collect())
    }

    fn put_back(&self, lazy: &[Record]) {
        let mut queue = self.queue();
        for record in lazy {
            match record {
                Record::Group(id, Change::Committed(committed)) => queue.lazy.put_committed(*id, *committed),
                Record::Group(id, Change::Purged(purged)) => queue.lazy.put_purged(*id, *purged),
                Record::Group(id, Change::Mark(mark)) => queue.lazy.put_mark(*id, *mark),
                Record::Group(..) | Record::Format(_) => {}
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No code that can panic runs under this lock except on a bug, after which the process stops anyway.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_descriptor(record: &Record) -> bool {
    matches!(record, Record::Group(_, Change::Descriptor(_)))
}

fn failed_before() -> io::Error {
    io::Error::other("the journal stopped after an earlier failed write")
}

/// The same error once more, for the next callback. A final one must not look like a full disk, which is not.
fn again(error: &io::Error) -> io::Error {
    io::Error::other(error.to_string())
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
