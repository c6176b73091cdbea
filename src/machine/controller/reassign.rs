//! Decisions about which replicas a partition shall have, as clients ask for them (KIP-455).

use super::{Controller, Kind, Record, Refusal};
use crate::ids::{BrokerId, PartitionId, PartitionIndex, ReplicaId};

/// Other replicas that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The brokers that shall have it, the preferred leader first; none calls off what is under way.
    pub brokers: Option<Vec<BrokerId>>,
}

/// A move that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassigning {
    /// All brokers with a replica, those that are to lose it included.
    pub replicas: Vec<BrokerId>,
    /// Those that did not have one before.
    pub adding: Vec<BrokerId>,
    /// Those that are to lose theirs.
    pub removing: Vec<BrokerId>,
}

impl Controller {
    /// Decides about each partition by itself; nothing for one that is as it shall be. `may_resize` allows another number of replicas.
    #[must_use]
    pub fn decide_reassign(&self, request: &[Reassignment], may_resize: bool) -> Vec<Result<Option<Record>, Refusal>> {
        let mut next = self.next_incarnation;
        let decide = |reassignment: &Reassignment| {
            let partition = self.find_partition(&reassignment.topic, reassignment.partition)?;
            let brokers = match &reassignment.brokers {
                Some(brokers) => {
                    self.check_reassignment(partition, brokers, may_resize)?;
                    brokers.clone()
                }
                None => self.brokers_before(partition)?,
            };
            let present = self.in_group(partition);
            let replicas = brokers.into_iter().map(|broker| {
                present.iter().find(|replica| replica.broker == broker).copied().unwrap_or_else(|| {
                    let incarnation = next;
                    next = next.next();
                    ReplicaId { broker, incarnation }
                })
            });
            let replicas: Vec<ReplicaId> = replicas.collect();
            let is_so = self.replicas(partition) == Some(&replicas);
            Ok((!is_so).then_some(Record::ReplicasChanged { partition, replicas }))
        };
        request.iter().map(decide).collect()
    }

    /// A partition by its topic's name.
    ///
    /// # Errors
    /// [`Kind::UnknownTopic`], which is of partitions too.
    pub fn find_partition(&self, topic: &str, partition: i32) -> Result<PartitionId, Refusal> {
        let unknown = |what: String| Refusal::new(Kind::UnknownTopic, format!("Unable to find {what}."));
        let found = self.topic(topic).ok_or_else(|| unknown(format!("a topic named {topic}")))?;
        let id = PartitionId { topic: found.id, partition: PartitionIndex(partition) };
        self.replicas(id).map(|_| id).ok_or_else(|| unknown(format!("partition {topic}:{partition}")))
    }

    fn check_reassignment(
        &self,
        partition: PartitionId,
        brokers: &[BrokerId],
        may_resize: bool,
    ) -> Result<(), Refusal> {
        self.check_assignment(brokers, None)?;
        let present = self.replicas(partition).unwrap_or_default();
        if !may_resize && brokers.len() != present.len() {
            let (from, to) = (present.len(), brokers.len());
            let message = format!("The replication factor is changed from {from} to {to}");
            return Err(Refusal::new(Kind::InvalidReplicationFactor, message));
        }
        let is_new = |broker: &&BrokerId| present.iter().all(|replica| replica.broker != **broker);
        let new: Vec<BrokerId> = brokers.iter().filter(is_new).copied().collect();
        self.check_none_draining(&new)
    }

    /// The brokers that had a partition before the move that is under way.
    fn brokers_before(&self, partition: PartitionId) -> Result<Vec<BrokerId>, Refusal> {
        let before = self.moving(partition).and_then(|moving| moving.before.as_deref()).unwrap_or_default();
        // One that was removed from the cluster meanwhile had lost its replica before.
        let brokers: Vec<BrokerId> =
            before.iter().map(|replica| replica.broker).filter(|broker| self.brokers.contains_key(broker)).collect();
        if brokers.is_empty() {
            return Err(Refusal::new(Kind::NoReassignment, "No partition reassignment is in progress."));
        }
        Ok(brokers)
    }

    /// The move of a partition that is under way; none for a replica that is only rebuilt.
    #[must_use]
    pub fn reassigning(&self, partition: PartitionId) -> Option<Reassigning> {
        let moving = self.moving(partition)?;
        let before = moving.before.as_ref()?;
        let brokers = |replicas: &mut dyn Iterator<Item = ReplicaId>| replicas.map(|it| it.broker).collect::<Vec<_>>();
        let had = |broker: BrokerId| before.iter().any(|replica| replica.broker == broker);
        let wanted = self.replicas(partition).unwrap_or_default();
        Some(Reassigning {
            replicas: brokers(&mut self.told_replicas(partition)),
            adding: brokers(&mut wanted.iter().copied().filter(|replica| !had(replica.broker))),
            removing: brokers(&mut moving.removing.iter().copied()),
        })
    }
}

#[cfg(test)]
#[path = "reassign_tests.rs"]
mod tests;
