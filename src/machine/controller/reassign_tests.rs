use std::collections::BTreeSet;

use super::super::record::encode_entry;
use super::super::topics::{NewTopic, TopicDefaults};
use super::super::{Controller, DirectoryId, Endpoints, Kind, Record};
use super::*;
use crate::ids::{Incarnation, LogId, RaftIndex, Term, TopicId};
use crate::machine::{Committed, Machine, What};

const TOPIC: TopicId = TopicId([1; 16]);
const PARTITION: PartitionId = PartitionId { topic: TOPIC, partition: PartitionIndex(0) };

struct Cluster {
    state: Controller,
    index: u64,
}

impl Cluster {
    /// Four brokers, and a topic with one partition on some of them.
    fn with(brokers: &[i32]) -> Self {
        let mut cluster = Self { state: Controller::default(), index: 1 };
        let founded = cluster.state.decide_found("cluster", BrokerId(1), DirectoryId([1; 16])).unwrap();
        cluster.apply(&founded);
        (1..=4).for_each(|broker| cluster.join(broker, 1));
        let assignments = vec![(0, brokers.iter().copied().map(BrokerId).collect())];
        let topic = NewTopic {
            name: "orders".into(),
            partitions: -1,
            replication_factor: -1,
            assignments,
            id: TOPIC,
            ..NewTopic::default()
        };
        let defaults = TopicDefaults { partitions: 1, replication_factor: 1 };
        let created = cluster.state.decide_create_topics(&[topic], defaults, &|_| true).remove(0).unwrap();
        cluster.apply(&[created.record]);
        cluster
    }

    fn apply(&mut self, records: &[Record]) {
        self.index += 1;
        let id = LogId { term: Term(1), index: RaftIndex(self.index) };
        let entry = encode_entry(records);
        self.state.apply(Committed { id, what: What::Command(&entry) }).unwrap();
        assert_eq!(Controller::restore(&self.state.snapshot()).as_ref(), Ok(&self.state));
    }

    fn join(&mut self, broker: i32, directory: u8) {
        let joining = self.state.decide_join(BrokerId(broker), DirectoryId([directory; 16]), &Endpoints::default());
        self.apply(&joining.records);
    }

    fn decide(&self, brokers: Option<&[i32]>, may_resize: bool) -> Result<Option<Record>, Refusal> {
        let brokers = brokers.map(|brokers| brokers.iter().copied().map(BrokerId).collect());
        let request = Reassignment { topic: "orders".into(), partition: 0, brokers };
        self.state.decide_reassign(&[request], may_resize).remove(0)
    }

    fn reassign(&mut self, brokers: Option<&[i32]>) {
        let record = self.decide(brokers, true).unwrap().unwrap();
        self.apply(&[record]);
    }

    fn replicas(&self) -> Vec<ReplicaId> {
        self.state.replicas(PARTITION).unwrap().to_vec()
    }

    fn wanted(&self) -> Vec<i32> {
        self.replicas().into_iter().map(|replica| replica.broker.0).collect()
    }

    /// As ListPartitionReassignments shows it.
    fn shown(&self) -> Option<(Vec<i32>, Vec<i32>, Vec<i32>)> {
        let ids = |brokers: Vec<BrokerId>| brokers.into_iter().map(|broker| broker.0).collect();
        self.state.reassigning(PARTITION).map(|it| (ids(it.replicas), ids(it.adding), ids(it.removing)))
    }

    fn settled(&self) -> Vec<Record> {
        let since = self.state.moving(PARTITION).unwrap().since;
        self.state.decide_settled(PARTITION, &self.replicas().into_iter().collect::<BTreeSet<_>>(), since)
    }
}

#[test]
fn replicas_are_replaced_and_shown_on_their_way() {
    let mut cluster = Cluster::with(&[1, 2, 3]);
    let before = cluster.replicas();
    cluster.reassign(Some(&[4, 2, 3]));
    assert_eq!(cluster.shown(), Some((vec![4, 2, 3, 1], vec![4], vec![1])));
    assert_eq!(cluster.replicas()[1..], before[1..], "who stays is not touched");
    let holders = cluster.state.holders(PARTITION);
    assert_eq!(holders, [2, 3, 1].map(BrokerId), "the new one does not count yet");
    let settled = cluster.settled();
    cluster.apply(&settled);
    assert_eq!((cluster.shown(), cluster.wanted()), (None, vec![4, 2, 3]));
}

#[test]
fn another_order_needs_no_move() {
    let mut cluster = Cluster::with(&[1, 2, 3]);
    assert_eq!(cluster.decide(Some(&[1, 2, 3]), true), Ok(None), "it is so");
    cluster.reassign(Some(&[3, 2, 1]));
    assert_eq!((cluster.shown(), cluster.wanted()), (None, vec![3, 2, 1]));
}

#[test]
fn the_number_of_replicas_changes_if_it_may() {
    let mut cluster = Cluster::with(&[1]);
    let refused = cluster.decide(Some(&[1, 2]), false).unwrap_err();
    assert_eq!(refused.kind, Kind::InvalidReplicationFactor);
    assert_eq!(cluster.decide(Some(&[2]), false).map(|record| record.is_some()), Ok(true));
    cluster.reassign(Some(&[1, 2, 3]));
    assert_eq!(cluster.shown(), Some((vec![1, 2, 3], vec![2, 3], vec![])));
    let settled = cluster.settled();
    cluster.apply(&settled);
    cluster.reassign(Some(&[3]));
    assert_eq!(cluster.shown(), Some((vec![3, 1, 2], vec![], vec![1, 2])));
}

#[test]
fn what_is_called_off_goes_back_to_where_it_was() {
    let mut cluster = Cluster::with(&[1, 2, 3]);
    assert_eq!(cluster.decide(None, true).unwrap_err().kind, Kind::NoReassignment);
    let before = cluster.replicas();
    cluster.reassign(Some(&[4, 3]));
    cluster.reassign(Some(&[4, 2]));
    cluster.reassign(None);
    assert_eq!(cluster.replicas(), before);
    assert_eq!(cluster.shown(), None);
    let moving = cluster.state.moving(PARTITION).unwrap();
    assert_eq!(moving.removing.iter().map(|it| it.broker.0).collect::<Vec<_>>(), [4], "it has to go yet");
    assert_eq!(cluster.decide(None, true).unwrap_err().kind, Kind::NoReassignment);
}

/// What was wanted once, then not, and then again is not what somebody saw settled the first time.
#[test]
fn a_report_of_an_earlier_wish_does_not_end_a_later_one() {
    let mut cluster = Cluster::with(&[1]);
    cluster.reassign(Some(&[2]));
    let early = cluster.settled();
    cluster.reassign(None);
    cluster.reassign(Some(&[2]));
    assert_eq!(cluster.shown(), Some((vec![2, 1], vec![2], vec![1])));
    cluster.apply(&early);
    assert!(cluster.shown().is_some(), "broker 1 must keep what it has until broker 2 has all of it");
    let settled = cluster.settled();
    cluster.apply(&settled);
    assert_eq!(cluster.state.moving(PARTITION), None);
}

#[test]
fn what_cannot_be_is_refused_partition_by_partition() {
    let cluster = Cluster::with(&[1, 2]);
    let ask = |topic: &str, partition, brokers: &[i32]| Reassignment {
        topic: topic.into(),
        partition,
        brokers: Some(brokers.iter().copied().map(BrokerId).collect()),
    };
    let request = [
        ask("nothing", 0, &[1]),
        ask("orders", 1, &[1]),
        ask("orders", -1, &[1]),
        ask("orders", 0, &[]),
        ask("orders", 0, &[1, 1]),
        ask("orders", 0, &[1, 9]),
        ask("orders", 0, &[3, 4]),
    ];
    let kinds = cluster.state.decide_reassign(&request, true).into_iter().map(|it| it.map_err(|refused| refused.kind));
    let kinds: Vec<_> = kinds.collect();
    let assignment = || Err(Kind::InvalidReplicaAssignment);
    let unknown = || Err(Kind::UnknownTopic);
    assert_eq!(kinds[..6], [unknown(), unknown(), unknown(), assignment(), assignment(), assignment()]);
    assert!(kinds[6].is_ok());
}

/// A source that lost its disk while it was to go anyway: it must not be opened as the voter that it was.
#[test]
fn a_replica_that_was_to_go_and_has_forgotten_is_dropped() {
    let mut cluster = Cluster::with(&[1, 2, 3]);
    let first = cluster.replicas()[0];
    cluster.reassign(Some(&[4, 2, 3]));
    let early = cluster.settled();
    cluster.join(1, 9);
    assert_eq!(cluster.shown(), Some((vec![4, 2, 3], vec![4], vec![])), "broker 1 has it no more");
    assert_eq!(cluster.state.decide_replace_replicas(&[(PARTITION, first)]), [], "once is enough");
    cluster.apply(&early);
    assert!(cluster.shown().is_some());
    // Called off, it begins anew there.
    cluster.reassign(None);
    assert_eq!(cluster.wanted(), [1, 2, 3]);
    assert!(cluster.replicas()[0].incarnation > first.incarnation);
    assert_eq!(cluster.state.moving(PARTITION).unwrap().adding, [cluster.replicas()[0]]);
}

#[test]
fn a_rebuilt_replica_is_no_reassignment() {
    let mut cluster = Cluster::with(&[1, 2, 3]);
    cluster.join(2, 9);
    assert!(cluster.state.moving(PARTITION).is_some());
    assert_eq!(cluster.shown(), None);
    assert_eq!(cluster.decide(None, true).unwrap_err().kind, Kind::NoReassignment);
    assert_eq!(cluster.state.holders(PARTITION), [1, 3].map(BrokerId));
    cluster.reassign(Some(&[1, 2, 4]));
    assert_eq!(cluster.shown(), Some((vec![1, 2, 4, 3], vec![4], vec![3])));
    // The target loses its disk too: another incarnation of it is filled.
    let target = cluster.replicas()[2];
    cluster.join(4, 9);
    assert!(cluster.replicas()[2].incarnation > target.incarnation && target.incarnation > Incarnation(0));
    assert_eq!(cluster.shown(), Some((vec![1, 2, 4, 3], vec![4], vec![3])));
    cluster.reassign(None);
    assert_eq!(cluster.wanted(), [1, 2, 3]);
}
