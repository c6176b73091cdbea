//! Decisions about the cluster itself: its founding, its brokers, and the ids that it hands out.

use std::ops::Range;

use super::{Controller, DirectoryId, Kind, PRODUCER_ID_BLOCK, Record, Refusal};
use crate::ids::{BrokerId, PartitionId, ProducerId, ReplicaId};

/// What joins a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joining {
    /// It is known, with this very data directory: nothing is to be done.
    Known,
    /// It is new.
    New(Record),
    /// It is known, with another data directory: it comes back having forgotten all its replicas.
    Forgotten(Record),
}

impl Controller {
    /// Gives a cluster its id and first broker; none when it has been founded already.
    #[must_use]
    pub fn decide_found(&self, cluster_id: &str, broker: BrokerId, directory: DirectoryId) -> Option<Vec<Record>> {
        if self.cluster_id.is_some() {
            return None;
        }
        let founded = Record::ClusterFounded { cluster_id: cluster_id.to_owned() };
        Some(vec![founded, Record::BrokerJoined { broker, directory }])
    }

    /// Takes a broker in.
    #[must_use]
    pub fn decide_join(&self, broker: BrokerId, directory: DirectoryId) -> Joining {
        let joined = Record::BrokerJoined { broker, directory };
        match self.brokers.get(&broker) {
            Some(known) if known.directory == directory => Joining::Known,
            Some(_) => Joining::Forgotten(joined),
            None => Joining::New(joined),
        }
    }

    /// Reserves the next block of producer ids for a broker, which may hand them out once the record is applied.
    ///
    /// # Errors
    /// [`Kind::Exhausted`] when all ids are handed out.
    pub fn decide_producer_ids(&self) -> Result<(Record, Range<i64>), Refusal> {
        let first = self.next_producer_id;
        let next = first.0.checked_add(PRODUCER_ID_BLOCK).ok_or_else(|| {
            let message =
                "Exhausted all producerIds as the next block's end producerId has exceeded the int64 type limit";
            Refusal::new(Kind::Exhausted, message)
        })?;
        Ok((Record::ProducerIdsReserved { first, next: ProducerId(next) }, first.0..next))
    }

    /// Gives replicas that have forgotten new incarnations. What is no replica of its partition (any more) is passed over.
    #[must_use]
    pub fn decide_replace_replicas(&self, forgotten: &[(PartitionId, ReplicaId)]) -> Vec<Record> {
        let mut incarnation = self.next_incarnation;
        let mut records = Vec::with_capacity(forgotten.len());
        for &(partition, old) in forgotten {
            if self.replicas(partition).is_some_and(|replicas| replicas.contains(&old)) {
                let new = ReplicaId { broker: old.broker, incarnation };
                records.push(Record::ReplicaReplaced { partition, old, new });
                incarnation = incarnation.next();
            }
        }
        records
    }
}
