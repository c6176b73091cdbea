//! The partitions that this broker holds.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use super::Replica;
use crate::ids::PartitionId;

/// What this broker knows of a partition that it holds.
#[derive(Clone)]
pub enum Held {
    /// It serves.
    Open(Arc<Replica>),
    /// It could not be opened and needs the operator; the reason is for the log and the admin port.
    Offline(Arc<str>),
}

/// The broker's partitions, by identity.
#[derive(Default)]
pub struct ReplicaSet {
    held: RwLock<BTreeMap<PartitionId, Held>>,
}

impl ReplicaSet {
    /// The replica that serves a partition, if one does.
    #[must_use]
    pub fn get(&self, id: PartitionId) -> Option<Arc<Replica>> {
        match self.read().get(&id) {
            Some(Held::Open(replica)) => Some(Arc::clone(replica)),
            Some(Held::Offline(_)) | None => None,
        }
    }

    /// What is known of a partition.
    #[must_use]
    pub fn held(&self, id: PartitionId) -> Option<Held> {
        self.read().get(&id).cloned()
    }

    /// Every partition that is held, in order of identity.
    #[must_use]
    pub fn all(&self) -> Vec<(PartitionId, Held)> {
        let mut all: Vec<_> = self.read().iter().map(|(id, held)| (*id, held.clone())).collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    /// The replicas that serve, in order of identity.
    #[must_use]
    pub fn open(&self) -> Vec<Arc<Replica>> {
        let open = self.all().into_iter().filter_map(|(_, held)| match held {
            Held::Open(replica) => Some(replica),
            Held::Offline(_) => None,
        });
        open.collect()
    }

    /// Adds or replaces a partition.
    pub fn insert(&self, id: PartitionId, held: Held) {
        self.held.write().expect("no panic under the replica set's lock").insert(id, held);
    }

    /// Removes a partition and returns it.
    pub fn remove(&self, id: PartitionId) -> Option<Held> {
        self.held.write().expect("no panic under the replica set's lock").remove(&id)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<PartitionId, Held>> {
        self.held.read().expect("no panic under the replica set's lock")
    }
}
