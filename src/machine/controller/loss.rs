//! Brokers that are gone for good, by an operator's word, and partitions whose majority is gone with them.
//!
//! A group without its majority decides nothing any more, and nobody may go on in its place: it might lack what was acknowledged last. Only an
//! operator can know that the majority will never come back, and says so with `ottla cluster unsafe-recover`. What is left of a partition then
//! goes on from the longest log that is left, as a replica with a new incarnation, alone, until others are filled from it.

use super::{Controller, DirectoryId, Moving, Record};
use crate::ids::{BrokerId, PartitionId, PartitionIndex, RaftIndex, ReplicaId};

impl Controller {
    /// Whether a broker is gone for good: what it had in its data directory does not count any more.
    #[must_use]
    pub fn is_lost(&self, broker: BrokerId) -> bool {
        self.brokers.get(&broker).is_some_and(|broker| broker.directory == DirectoryId::default())
    }

    /// Whether a data directory is that of a broker that was given up: it is never taken in again.
    #[must_use]
    pub fn is_given_up(&self, directory: DirectoryId) -> bool {
        self.given_up.contains(&directory)
    }

    /// Whether any is.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.brokers.values().any(|broker| broker.directory == DirectoryId::default())
    }

    /// Declares brokers gone for good, and gives the one that goes on with the cluster's metadata a new replica of it.
    #[must_use]
    pub fn decide_lost(&self, lost: &[BrokerId], survivor: ReplicaId) -> Vec<Record> {
        let lost = lost.iter().filter(|broker| self.brokers.contains_key(broker));
        let lost = lost.map(|broker| Record::BrokerLost { broker: *broker });
        lost.chain([Record::ControllerReplica { replica: survivor }]).collect()
    }

    /// The replicas of a partition that vote, as far as is known here.
    fn voters_of(&self, partition: PartitionId) -> Vec<ReplicaId> {
        let moving = self.moving.get(&partition);
        let adding = moving.map(|moving| moving.adding.as_slice()).unwrap_or_default();
        let removing = moving.map(|moving| moving.removing.as_slice()).unwrap_or_default();
        let present = self.replicas(partition).unwrap_or_default();
        present.iter().filter(|replica| !adding.contains(replica)).chain(removing).copied().collect()
    }

    /// Those of a partition's voters that are left, if its majority is gone for good; none if it is not.
    #[must_use]
    pub fn survivors(&self, partition: PartitionId) -> Option<Vec<ReplicaId>> {
        let voters = self.voters_of(partition);
        let left: Vec<ReplicaId> = voters.iter().copied().filter(|replica| !self.is_lost(replica.broker)).collect();
        (2 * left.len() <= voters.len() && left.len() < voters.len()).then_some(left)
    }

    /// All partitions whose majority is gone for good, with the voters that are left.
    pub fn without_majority(&self) -> impl Iterator<Item = (PartitionId, Vec<ReplicaId>)> {
        let all = self.topics.values().flat_map(|topic| {
            (0..).zip(&topic.partitions).map(|(at, _)| PartitionId { topic: topic.id, partition: PartitionIndex(at) })
        });
        all.filter_map(|partition| Some((partition, self.survivors(partition)?)))
    }

    /// Lets a partition whose majority is gone for good go on from what this replica has; nothing if it is not one of those that are left.
    #[must_use]
    pub fn decide_refound(&self, partition: PartitionId, old: ReplicaId) -> Vec<Record> {
        if !self.survivors(partition).is_some_and(|left| left.contains(&old)) {
            return Vec::new();
        }
        let new = ReplicaId { broker: old.broker, incarnation: self.next_incarnation };
        vec![Record::ReplicaRefounded { partition, old, new }]
    }

    pub(super) fn lose_broker(&mut self, broker: BrokerId) -> bool {
        let Some(lost) = self.brokers.get_mut(&broker) else { return false };
        if lost.directory != DirectoryId::default() {
            self.given_up.insert(lost.directory);
        }
        (lost.directory, lost.endpoints, lost.controller) = (DirectoryId::default(), None, None);
        true
    }

    /// `new` votes alone, and the others are to be added.
    pub(super) fn refound(&mut self, partition: PartitionId, old: ReplicaId, new: ReplicaId, at: RaftIndex) -> bool {
        let is_listed = self.replicas(partition).is_some_and(|replicas| replicas.contains(&old));
        if !is_listed || !self.replace_replica(partition, old, new, at) {
            return false;
        }
        self.founders.insert(partition, vec![new]);
        let present = self.replicas(partition).unwrap_or_default();
        let adding: Vec<ReplicaId> = present.iter().copied().filter(|replica| *replica != new).collect();
        if adding.is_empty() {
            self.moving.remove(&partition);
        } else {
            self.moving.insert(partition, Moving { adding, removing: Vec::new(), before: None, since: at });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Broker, Topic};
    use super::*;
    use crate::ids::{Incarnation, TopicId};
    use crate::machine::topic_config::Values;

    fn replica(broker: i32, incarnation: u64) -> ReplicaId {
        ReplicaId { broker: BrokerId(broker), incarnation: Incarnation(incarnation) }
    }

    fn partition(at: i32) -> PartitionId {
        PartitionId { topic: TopicId([1; 16]), partition: PartitionIndex(at) }
    }

    /// Three brokers; partitions on all of them, on the first two, and on the third alone.
    fn cluster() -> Controller {
        let mut controller = Controller::default();
        for id in 1..=3u8 {
            let broker = Broker { directory: DirectoryId([id; 16]), endpoints: None, controller: None };
            controller.brokers.insert(BrokerId(i32::from(id)), broker);
        }
        let partitions = vec![
            vec![replica(1, 1), replica(2, 2), replica(3, 3)],
            vec![replica(1, 4), replica(2, 5)],
            vec![replica(3, 6)],
        ];
        let topic = Topic { id: TopicId([1; 16]), name: "t".to_owned(), partitions, configs: Values::new() };
        assert!(controller.add_topic(topic));
        controller
    }

    fn apply(controller: &mut Controller, records: Vec<Record>) {
        for record in records {
            assert!(controller.fold(record, RaftIndex(1)));
        }
    }

    #[test]
    fn nothing_is_refounded_unless_an_operator_has_given_brokers_up() {
        let controller = cluster();
        assert_eq!(controller.without_majority().count(), 0);
        assert!(controller.decide_refound(partition(0), replica(1, 1)).is_empty());
    }

    #[test]
    fn what_is_left_goes_on_alone_and_is_not_refounded_again() {
        let mut controller = cluster();
        let records = controller.decide_lost(&[BrokerId(2), BrokerId(3)], replica(1, 9));
        apply(&mut controller, records);
        assert!(controller.is_lost(BrokerId(2)) && !controller.is_lost(BrokerId(1)));
        let left: Vec<_> = controller.without_majority().collect();
        let wanted =
            [(partition(0), vec![replica(1, 1)]), (partition(1), vec![replica(1, 4)]), (partition(2), Vec::new())];
        assert_eq!(left, wanted);
        assert!(controller.decide_refound(partition(0), replica(2, 2)).is_empty(), "one that is lost");
        let records = controller.decide_refound(partition(0), replica(1, 1));
        apply(&mut controller, records);
        let new = controller.replicas(partition(0)).expect("there")[0];
        assert_eq!((new.broker, controller.founders(partition(0))), (BrokerId(1), Some(&[new][..])));
        assert_eq!(controller.survivors(partition(0)), None, "it has its majority: itself");
        assert!(controller.decide_refound(partition(0), new).is_empty());
        assert_eq!(controller.moving(partition(0)).expect("others are to come").adding, [replica(2, 2), replica(3, 3)]);
    }

    #[test]
    fn a_broker_that_was_given_up_comes_back_with_an_empty_directory_only_as_a_new_one() {
        let mut controller = cluster();
        apply(&mut controller, vec![Record::BrokerLost { broker: BrokerId(2) }]);
        let joining = controller.decide_join(BrokerId(2), DirectoryId([9; 16]), &super::super::Endpoints::default());
        assert!(joining.forgotten);
        apply(&mut controller, joining.records);
        assert!(!controller.is_lost(BrokerId(2)));
        assert!(controller.is_given_up(DirectoryId([2; 16])) && !controller.is_given_up(DirectoryId([9; 16])));
        let restored =
            <Controller as crate::machine::Machine>::restore(&crate::machine::Machine::snapshot(&controller));
        assert_eq!(restored.as_ref(), Ok(&controller));
        let replicas = controller.replicas(partition(0)).expect("there").to_vec();
        assert!(replicas.iter().all(|it| *it != replica(2, 2)), "{replicas:?}");
    }
}
