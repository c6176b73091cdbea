//! Replicas on their way: partitions whose group does not have the members yet that it is to have.
//!
//! The list of a partition's replicas says what is wanted. Until its group's leader reports that the group is so ([`Record::ReplicasSettled`]), the
//! partition is *moving*: replicas that are added do not vote yet, and replicas that are removed still may, so that their brokers keep them.

use std::collections::BTreeSet;

use super::names::is_internal;
use super::{Controller, Record, Topic, record};
use crate::ids::{BrokerId, PartitionId, PartitionIndex, RaftIndex, ReplicaId};
use crate::machine::state_bytes::{Reader, StateError, Writer};

/// What is on its way in a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moving {
    /// Replicas that do not vote yet, of those that the partition is to have.
    pub adding: Vec<ReplicaId>,
    /// Replicas that may vote still, and are to go.
    pub removing: Vec<ReplicaId>,
    /// Voters whose disks were lost and that nobody brings back: the group counts on them until those in their places are filled.
    pub gone: Vec<ReplicaId>,
    /// What the partition had before somebody asked for other replicas, in order: what it gets again if that is called off. None when nothing was asked for:
    /// a replica is rebuilt, or a move was called off.
    pub before: Option<Vec<ReplicaId>>,
    /// The entry that last changed what is wanted. Who reports that it is so names it: the same may have been wanted before, and something else meanwhile.
    pub since: RaftIndex,
}

impl Moving {
    fn is_over(&self) -> bool {
        self.adding.is_empty() && self.removing.is_empty()
    }

    pub(super) fn write(&self, out: &mut Writer) {
        record::write_replicas(out, &self.adding);
        record::write_replicas(out, &self.removing);
        record::write_replicas(out, self.before.as_deref().unwrap_or_default());
        out.u64(self.since.0);
        record::write_replicas(out, &self.gone);
    }

    pub(super) fn read(from: &mut Reader<'_>, version: u8) -> Result<Self, StateError> {
        let replicas = |from: &mut Reader<'_>| -> Result<Vec<ReplicaId>, StateError> {
            let count = from.count(record::REPLICA_BYTES, "replicas on their way")?;
            (0..count).map(|_| record::read_replica(from)).collect()
        };
        let (adding, removing) = (replicas(from)?, replicas(from)?);
        if version < 3 {
            return Ok(Self { adding, removing, ..Self::default() });
        }
        let before = Some(replicas(from)?).filter(|before| !before.is_empty());
        let since = RaftIndex(from.u64("entry")?);
        let gone = if version < 4 { Vec::new() } else { replicas(from)? };
        Ok(Self { adding, removing, gone, before, since })
    }
}

/// Replicas that an internal topic's partitions have, once there are as many brokers.
const INTERNAL_REPLICAS: usize = 3;
/// Partitions that are raised by one entry.
const RAISED_MAX: usize = 64;

impl Controller {
    /// What is on its way in a partition; none when its group is as it is to be.
    #[must_use]
    pub fn moving(&self, partition: PartitionId) -> Option<&Moving> {
        self.moving.get(&partition)
    }

    /// All partitions in which something is on its way.
    pub fn all_moving(&self) -> impl Iterator<Item = (PartitionId, &Moving)> {
        self.moving.iter().map(|(partition, moving)| (*partition, moving))
    }

    /// The replicas that clients are told of: those that are to go stand behind those that are to stay until they are gone, as in Kafka.
    pub fn told_replicas(&self, partition: PartitionId) -> impl Iterator<Item = ReplicaId> {
        let moving = self.moving.get(&partition).filter(|moving| moving.before.is_some());
        let removing = moving.map(|moving| moving.removing.as_slice()).unwrap_or_default();
        self.replicas(partition).unwrap_or_default().iter().chain(removing).copied()
    }

    /// The brokers of the replicas that a partition's group counts on now: not those that are on their way to it.
    #[must_use]
    pub fn holders(&self, partition: PartitionId) -> Vec<BrokerId> {
        let adding = self.moving.get(&partition).map(|moving| moving.adding.as_slice()).unwrap_or_default();
        self.told_replicas(partition).filter(|replica| !adding.contains(replica)).map(|it| it.broker).collect()
    }

    /// The partition's group is as it was to be since that entry: nothing if that is known, or if it is to be otherwise by now.
    #[must_use]
    pub fn decide_settled(
        &self,
        partition: PartitionId,
        replicas: &BTreeSet<ReplicaId>,
        since: RaftIndex,
    ) -> Vec<Record> {
        let wanted = self.replicas(partition).unwrap_or_default();
        let is_so = wanted.iter().copied().collect::<BTreeSet<_>>() == *replicas;
        if !is_so || self.moving.get(&partition).is_none_or(|moving| moving.since != since) {
            return Vec::new();
        }
        vec![Record::ReplicasSettled { partition, replicas: wanted.to_vec(), since }]
    }

    /// Gives partitions of internal topics that were made when there were fewer brokers the replicas that they are to have, on brokers that are there.
    /// A few at a time, those first that have the fewest.
    #[must_use]
    pub fn decide_raise_internal(&self, is_alive: impl Fn(BrokerId) -> bool) -> Vec<Record> {
        let staying: Vec<BrokerId> = self.staying().collect();
        let wanted = staying.len().min(INTERNAL_REPLICAS);
        let alive: Vec<BrokerId> = staying.into_iter().filter(|broker| is_alive(*broker)).collect();
        let mut held: std::collections::BTreeMap<BrokerId, usize> = alive.iter().map(|broker| (*broker, 0)).collect();
        let internal = || self.topics.values().filter(|topic| is_internal(&topic.name));
        for replica in internal().flat_map(|topic| topic.partitions.iter().flatten()) {
            held.entry(replica.broker).and_modify(|count| *count += 1);
        }
        let mut incarnation = self.next_incarnation;
        let mut records = Vec::new();
        let partitions =
            internal().flat_map(|topic: &Topic| (0..).zip(&topic.partitions).map(move |(at, it)| (topic.id, at, it)));
        for (topic, at, replicas) in partitions {
            let partition = PartitionId { topic, partition: PartitionIndex(at) };
            if replicas.len() >= wanted || self.moving.contains_key(&partition) || records.len() == RAISED_MAX {
                continue;
            }
            let mut raised = replicas.clone();
            while raised.len() < wanted {
                let is_free = |broker: &BrokerId| raised.iter().all(|replica| replica.broker != *broker);
                let Some(broker) = alive.iter().copied().filter(is_free).min_by_key(|broker| held[broker]) else {
                    break;
                };
                *held.get_mut(&broker).expect("counted above") += 1;
                raised.push(ReplicaId { broker, incarnation });
                incarnation = incarnation.next();
            }
            if raised.len() > replicas.len() {
                records.push(Record::ReplicasChanged { partition, replicas: raised });
            }
        }
        records
    }

    /// The replicas of its partition's group, those included that are to go.
    pub(super) fn in_group(&self, partition: PartitionId) -> Vec<ReplicaId> {
        let removing = self.moving.get(&partition).map(|moving| moving.removing.as_slice()).unwrap_or_default();
        self.replicas(partition).unwrap_or_default().iter().chain(removing).copied().collect()
    }

    pub(super) fn change_replicas(&mut self, partition: PartitionId, wanted: Vec<ReplicaId>, at: RaftIndex) -> bool {
        let present = self.in_group(partition);
        let distinct: BTreeSet<BrokerId> = wanted.iter().map(|replica| replica.broker).collect();
        let added: Vec<ReplicaId> = wanted.iter().copied().filter(|replica| !present.contains(replica)).collect();
        let mut next = self.next_incarnation;
        for replica in &added {
            if replica.incarnation < next || replica.incarnation.0 == u64::MAX {
                return false;
            }
            next = replica.incarnation.next();
        }
        if present.is_empty() || wanted.is_empty() || distinct.len() != wanted.len() {
            return false;
        }
        let last = self.moving.remove(&partition).unwrap_or_default();
        let first = self.replicas(partition).expect("has replicas").to_vec();
        let still_added = last.adding.into_iter().filter(|replica| wanted.contains(replica));
        let before = last.before.unwrap_or_else(|| first.clone());
        let moving = Moving {
            adding: still_added.chain(added).collect(),
            removing: present.into_iter().filter(|replica| !wanted.contains(replica)).collect(),
            gone: last.gone,
            before: Some(before).filter(|before| !are_same(before, &wanted)),
            since: at,
        };
        self.founders.entry(partition).or_insert(first);
        self.set_replicas(partition, wanted);
        self.next_incarnation = next;
        if !moving.is_over() {
            self.moving.insert(partition, moving);
        }
        true
    }

    pub(super) fn settle_replicas(
        &mut self,
        partition: PartitionId,
        replicas: &[ReplicaId],
        since: Option<RaftIndex>,
    ) -> bool {
        let is_meant = |moving: &Moving| since.is_none_or(|since| since == moving.since);
        let fits = self.replicas(partition) == Some(replicas) && self.moving.get(&partition).is_some_and(is_meant);
        if fits {
            // Its group works, whatever was thought of it.
            self.doomed.remove(&partition);
        }
        fits && self.moving.remove(&partition).is_some()
    }

    /// A replica that was to go has lost what it had: it must not vote any more.
    pub(super) fn drop_replica(&mut self, partition: PartitionId, replica: ReplicaId, at: RaftIndex) -> bool {
        let Some(moving) = self.moving.get_mut(&partition) else { return false };
        let count = moving.removing.len();
        moving.removing.retain(|removing| *removing != replica);
        let fits = moving.removing.len() < count;
        if fits {
            moving.since = at;
            moving.gone.push(replica);
            self.note_gone(partition, replica);
        }
        fits
    }

    /// `new` stands where `old` stood, and does not vote yet.
    pub(super) fn note_replaced(&mut self, partition: PartitionId, old: ReplicaId, new: ReplicaId, at: RaftIndex) {
        let moving = self.moving.entry(partition).or_default();
        let count = moving.adding.len();
        moving.adding.retain(|replica| *replica != old);
        if moving.adding.len() == count {
            moving.gone.push(old);
        }
        moving.adding.push(new);
        moving.before.iter_mut().flatten().filter(|replica| **replica == old).for_each(|replica| *replica = new);
        moving.since = at;
        self.note_gone(partition, old);
    }
}

fn are_same(one: &[ReplicaId], other: &[ReplicaId]) -> bool {
    one.iter().collect::<BTreeSet<_>>() == other.iter().collect()
}

#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;
