//! Which directories above logs are durable by now, names and all: each has to be synced once after a start, not once for each log in it.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

use super::disk::Disk;
use super::error::LogError;
use super::name::parents;
use crate::ids::PartitionId;

/// The directories above logs, since this process began. One for each data directory.
#[derive(Debug, Default)]
pub(super) struct Parents {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Synced since this process began: whatever an earlier one left in them is durable.
    synced: HashSet<String>,
    /// Logs whose directories this process has made, and whose names may not be durable.
    made: HashSet<PartitionId>,
}

impl Parents {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no panic while noting a name")
    }

    /// To be called before the directory of a log is made.
    pub(super) fn will_make(&self, id: PartitionId) {
        self.known().made.insert(id);
    }

    /// Sees to it that the name of a log's directory is durable, and those above it. `clean`: whatever the process before this one left is.
    ///
    /// # Errors
    /// [`LogError::Sync`].
    pub(super) fn sync(&self, disk: &dyn Disk, id: PartitionId, clean: bool) -> Result<(), LogError> {
        let made = self.known().made.contains(&id);
        for parent in parents(id) {
            // Not while locked: syncs at the same time share the work of one. A name that was made meanwhile is in `made`, and syncs for itself.
            if made || !clean && !self.known().synced.contains(&parent) {
                disk.sync_dir(&parent).map_err(LogError::Sync)?;
                self.known().synced.insert(parent);
            }
        }
        self.known().made.remove(&id);
        Ok(())
    }
}
