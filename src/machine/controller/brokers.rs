//! Decisions about the cluster itself: its founding, its brokers, and the ids that it hands out.

use std::ops::Range;

use super::{Controller, DirectoryId, Endpoints, Kind, PRODUCER_ID_BLOCK, Record, Refusal};
use crate::ids::{BrokerId, Incarnation, PartitionId, ProducerId, ReplicaId};

/// How a broker comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// What has to be recorded; nothing for a broker that comes back as it was.
    pub records: Vec<Record>,
    /// Whether it was known with another data directory: it comes back having forgotten all its replicas.
    pub forgotten: bool,
}

/// The incarnation of a founder's replica of the controller's group; later ones are greater.
pub const FOUNDER: Incarnation = Incarnation(1);

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

    /// Takes a broker in, or back. One that is new, or comes with another data directory, gets a replica of the controller's group; in the place of each replica
    /// that it had in its lost directory comes a new one, which starts with nothing.
    #[must_use]
    pub fn decide_join(&self, broker: BrokerId, directory: DirectoryId, endpoints: &Endpoints) -> Joining {
        let known = self.brokers.get(&broker);
        let forgotten = known.is_some_and(|known| known.directory != directory);
        let mut records = Vec::new();
        if known.is_none() || forgotten {
            records.push(Record::BrokerJoined { broker, directory });
            let incarnation = self.next_incarnation.max(FOUNDER.next());
            records.push(Record::ControllerReplica { replica: ReplicaId { broker, incarnation } });
            let lost: Vec<_> = self.replicas_on(broker).collect();
            records.extend(self.replacements(&lost, incarnation.next()));
        }
        if forgotten || known.and_then(|known| known.endpoints.as_ref()) != Some(endpoints) {
            records.push(Record::BrokerDescribed { broker, endpoints: endpoints.clone() });
        }
        Joining { records, forgotten }
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
        self.replacements(forgotten, self.next_incarnation)
    }

    fn replacements(&self, forgotten: &[(PartitionId, ReplicaId)], mut incarnation: Incarnation) -> Vec<Record> {
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
