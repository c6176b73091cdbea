//! Brokers that are gone for good, by an operator's word, and partitions whose majority is gone with them.
//!
//! A group without its majority decides nothing any more, and nobody may go on in its place: it might lack what was acknowledged last. Only an
//! operator can know that the majority will never come back, and says so with `ottla cluster unsafe-recover`. What is left of a partition then
//! goes on from the longest log that is left, as a replica with a new incarnation, alone, until others are filled from it.
//!
//! Which partitions that are is written down when brokers are given up, with the replicas that are left of each: new brokers may take the places of the lost ones
//! before any of it is refounded, and would look as if there were a majority.

use super::{Controller, DirectoryId, Kind, Moving, Record, Refusal};
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

    /// Declares brokers gone for good, and gives the one that goes on with the cluster's metadata a new replica of it.
    #[must_use]
    pub fn decide_lost(&self, lost: &[BrokerId], survivor: ReplicaId) -> Vec<Record> {
        let lost = lost.iter().filter(|broker| self.brokers.contains_key(broker));
        let lost = lost.map(|broker| Record::BrokerLost { broker: *broker });
        lost.chain([Record::ControllerReplica { replica: survivor }]).collect()
    }

    /// Gives up a broker while the cluster's metadata has its majority: only partitions have lost theirs. Nothing if that is done.
    ///
    /// # Errors
    /// [`Kind::UnknownBroker`]; [`Kind::Limit`] if it is heard.
    pub fn decide_give_up(&self, broker: BrokerId, is_alive: bool) -> Result<Vec<Record>, Refusal> {
        match self.brokers.contains_key(&broker) {
            false => Err(Refusal::new(Kind::UnknownBroker, format!("Broker ID {broker} is not currently registered"))),
            true if is_alive => Err(Refusal::new(Kind::Limit, format!("Broker {broker} is running: it is not lost."))),
            true if self.is_lost(broker) => Ok(Vec::new()),
            true => Ok(vec![Record::BrokerLost { broker }]),
        }
    }

    /// Those of a partition's replicas that are left, if its majority was given up and it has not been refounded; none otherwise. Those that do not vote yet
    /// are among them: one may have what was acknowledged last.
    #[must_use]
    pub fn survivors(&self, partition: PartitionId) -> Option<&[ReplicaId]> {
        self.doomed.get(&partition).map(Vec::as_slice)
    }

    /// All partitions whose majority was given up, with the replicas that are left.
    pub fn without_majority(&self) -> impl Iterator<Item = (PartitionId, &[ReplicaId])> {
        self.doomed.iter().map(|(partition, left)| (*partition, left.as_slice()))
    }

    /// What is left of a partition, if most of the voters that its group may have are gone for good.
    fn left_of(&self, partition: PartitionId) -> Option<Vec<ReplicaId>> {
        let nothing = Moving::default();
        let moving = self.moving.get(&partition).unwrap_or(&nothing);
        let is_left = |replica: &ReplicaId| !self.is_lost(replica.broker);
        let group = self.in_group(partition);
        let voters: Vec<ReplicaId> = group.iter().copied().filter(|replica| !moving.adding.contains(replica)).collect();
        let (voting, left) = (voters.len() + moving.gone.len(), voters.iter().copied().filter(is_left).count());
        let is_doomed = left < voters.len() && 2 * left <= voting;
        is_doomed.then(|| group.into_iter().filter(is_left).collect())
    }

    /// Lets partitions whose majority is gone for good go on, each from what this replica has; not those of which it is none of those that are left.
    #[must_use]
    pub fn decide_refound(&self, partitions: &[(PartitionId, ReplicaId)]) -> Vec<Record> {
        let is_left = |(partition, old): &&(PartitionId, ReplicaId)| {
            self.survivors(*partition).is_some_and(|left| left.contains(old))
        };
        let mut incarnation = self.next_incarnation;
        let refounded = partitions.iter().filter(is_left).map(|&(partition, old)| {
            let new = ReplicaId { broker: old.broker, incarnation };
            incarnation = incarnation.next();
            Record::ReplicaRefounded { partition, old, new }
        });
        refounded.collect()
    }

    pub(super) fn lose_broker(&mut self, broker: BrokerId) -> bool {
        let Some(lost) = self.brokers.get_mut(&broker) else { return false };
        if lost.directory != DirectoryId::default() {
            self.given_up.insert(lost.directory);
        }
        (lost.directory, lost.endpoints, lost.controller) = (DirectoryId::default(), None, None);
        let all = self.topics.values().flat_map(|topic| {
            (0..).zip(&topic.partitions).map(|(at, _)| PartitionId { topic: topic.id, partition: PartitionIndex(at) })
        });
        let doomed: Vec<_> = all.filter_map(|partition| Some((partition, self.left_of(partition)?))).collect();
        for (partition, left) in doomed {
            // One that is waiting already knows who was left then: new ones may stand where others were lost.
            self.doomed.entry(partition).or_insert(left);
        }
        self.doomed.values_mut().for_each(|left| left.retain(|replica| replica.broker != broker));
        true
    }

    /// A replica has lost what it had: nothing can go on from it.
    pub(super) fn note_gone(&mut self, partition: PartitionId, replica: ReplicaId) {
        if let Some(left) = self.doomed.get_mut(&partition) {
            left.retain(|it| *it != replica);
        }
    }

    /// `new` votes alone, and the others are to be added. One that was to go still is, when they are there.
    pub(super) fn refound(&mut self, partition: PartitionId, old: ReplicaId, new: ReplicaId, at: RaftIndex) -> bool {
        let is_new = new.incarnation >= self.next_incarnation && new.incarnation.0 != u64::MAX;
        if !is_new || new.broker != old.broker || !self.in_group(partition).contains(&old) {
            return false;
        }
        let mut wanted = self.replicas(partition).unwrap_or_default().to_vec();
        wanted.iter_mut().filter(|replica| **replica == old).for_each(|replica| *replica = new);
        let adding: Vec<ReplicaId> = wanted.iter().copied().filter(|replica| *replica != new).collect();
        let removing = if wanted.contains(&new) { Vec::new() } else { vec![new] };
        self.doomed.remove(&partition);
        self.founders.insert(partition, vec![new]);
        self.set_replicas(partition, wanted);
        self.next_incarnation = new.incarnation.next();
        if adding.is_empty() {
            self.moving.remove(&partition);
        } else {
            self.moving.insert(partition, Moving { adding, removing, since: at, ..Moving::default() });
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
        assert!(controller.decide_refound(&[(partition(0), replica(1, 1))]).is_empty());
    }

    #[test]
    fn what_is_left_goes_on_alone_and_is_not_refounded_again() {
        let mut controller = cluster();
        let records = controller.decide_lost(&[BrokerId(2), BrokerId(3)], replica(1, 9));
        apply(&mut controller, records);
        assert!(controller.is_lost(BrokerId(2)) && !controller.is_lost(BrokerId(1)));
        let left: Vec<_> = controller.without_majority().collect();
        let wanted: [(_, &[_]); 3] =
            [(partition(0), &[replica(1, 1)]), (partition(1), &[replica(1, 4)]), (partition(2), &[])];
        assert_eq!(left, wanted);
        assert!(controller.decide_refound(&[(partition(0), replica(2, 2))]).is_empty(), "one that is lost");
        let records = controller.decide_refound(&[(partition(0), replica(1, 1))]);
        apply(&mut controller, records);
        let new = controller.replicas(partition(0)).expect("there")[0];
        assert_eq!((new.broker, controller.founders(partition(0))), (BrokerId(1), Some(&[new][..])));
        assert_eq!(controller.survivors(partition(0)), None, "it has its majority: itself");
        assert!(controller.decide_refound(&[(partition(0), new)]).is_empty());
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

    fn assert_restored(controller: &Controller) {
        let restored = <Controller as crate::machine::Machine>::restore(&crate::machine::Machine::snapshot(controller));
        assert_eq!(restored.as_ref(), Ok(controller));
    }

    fn join(controller: &mut Controller, broker: i32) {
        let directory = DirectoryId([0x40 + u8::try_from(broker).expect("small"); 16]);
        let joining = controller.decide_join(BrokerId(broker), directory, &super::super::Endpoints::default());
        assert!(joining.forgotten);
        apply(controller, joining.records);
    }

    #[test]
    fn new_brokers_in_the_places_of_the_lost_ones_do_not_keep_what_is_left_from_going_on() {
        let mut controller = cluster();
        let records = controller.decide_lost(&[BrokerId(2), BrokerId(3)], replica(1, 9));
        apply(&mut controller, records);
        join(&mut controller, 2);
        join(&mut controller, 3);
        assert_eq!(controller.survivors(partition(0)), Some(&[replica(1, 1)][..]));
        assert_restored(&controller);
        let records = controller.decide_refound(&[(partition(0), replica(1, 1))]);
        apply(&mut controller, records);
        assert_eq!(controller.survivors(partition(0)), None);
        assert_restored(&controller);
    }

    #[test]
    fn only_a_broker_that_is_known_and_silent_is_given_up_and_only_once() {
        let mut controller = cluster();
        let refused = |broker, is_alive| cluster().decide_give_up(BrokerId(broker), is_alive).unwrap_err().kind;
        assert_eq!((refused(9, false), refused(2, true)), (Kind::UnknownBroker, Kind::Limit));
        for broker in [2, 3] {
            let records = controller.decide_give_up(BrokerId(broker), false).expect("it is silent");
            apply(&mut controller, records);
            assert_eq!(controller.decide_give_up(BrokerId(broker), false), Ok(Vec::new()));
        }
        assert_eq!(controller.survivors(partition(0)), Some(&[replica(1, 1)][..]), "two of three, one after the other");
    }

    #[test]
    fn one_that_is_lost_itself_before_it_could_go_on_is_not_waited_for() {
        let mut controller = cluster();
        apply(&mut controller, vec![Record::BrokerLost { broker: BrokerId(2) }]);
        assert_eq!(controller.survivors(partition(1)), Some(&[replica(1, 4)][..]));
        join(&mut controller, 1);
        assert_eq!(controller.survivors(partition(1)), Some(&[][..]), "its disk was replaced");
        assert!(controller.decide_refound(&[(partition(1), replica(1, 4))]).is_empty());
    }

    #[test]
    fn replicas_that_were_replaced_and_not_filled_yet_are_no_majority() {
        let mut controller = cluster();
        join(&mut controller, 3);
        assert_eq!(controller.survivors(partition(0)), None, "nobody was given up");
        apply(&mut controller, vec![Record::BrokerLost { broker: BrokerId(2) }]);
        let left = controller.survivors(partition(0)).expect("of the three that vote, only the first is left");
        assert_eq!(left.iter().map(|it| it.broker.0).collect::<Vec<_>>(), [1, 3], "who is being filled may have most");
    }

    #[test]
    fn a_replica_that_was_to_go_goes_on_until_those_that_are_to_stay_are_filled() {
        let mut controller = cluster();
        for id in 4..=6u8 {
            let directory = DirectoryId([id; 16]);
            apply(&mut controller, vec![Record::BrokerJoined { broker: BrokerId(i32::from(id)), directory }]);
        }
        let wanted = vec![replica(4, 11), replica(5, 12), replica(6, 13)];
        let records = vec![Record::ReplicasChanged { partition: partition(0), replicas: wanted.clone() }];
        apply(&mut controller, records);
        let lost = [1, 2, 4, 5, 6].map(|broker| Record::BrokerLost { broker: BrokerId(broker) });
        apply(&mut controller, lost.to_vec());
        assert_eq!(controller.survivors(partition(0)), Some(&[replica(3, 3)][..]));
        let records = controller.decide_refound(&[(partition(0), replica(3, 3))]);
        apply(&mut controller, records);
        assert_eq!(controller.survivors(partition(0)), None, "it is not refounded again and again");
        let moving = controller.moving(partition(0)).expect("under way");
        assert_eq!((moving.adding.as_slice(), moving.removing.len()), (wanted.as_slice(), 1));
        assert_eq!(controller.founders(partition(0)), Some(moving.removing.as_slice()));
        assert_restored(&controller);
    }
}
