use std::collections::{BTreeMap, BTreeSet};

use super::super::configs::{Change, DRAIN};
use super::super::names::OFFSETS_TOPIC;
use super::super::record::encode_entry;
use super::super::topics::{NewTopic, TopicDefaults};
use super::super::{Controller, DirectoryId, Endpoints, Kind, Record, Resource};
use super::*;
use crate::ids::{LogId, RaftIndex, Term, TopicId};
use crate::machine::{Committed, Machine, What};

const DEFAULTS: TopicDefaults = TopicDefaults { partitions: 2, replication_factor: 1 };

/// A cluster whose entries are applied one after the other.
struct Cluster {
    state: Controller,
    index: u64,
}

impl Cluster {
    fn new(brokers: i32) -> Self {
        let mut cluster = Self { state: Controller::default(), index: 1 };
        let founded = cluster.state.decide_found("cluster", BrokerId(1), DirectoryId([1; 16])).unwrap();
        cluster.apply(&founded);
        (1..=brokers).for_each(|broker| cluster.join(broker, ""));
        cluster
    }

    fn apply(&mut self, records: &[Record]) {
        let entry = encode_entry(records);
        self.index += 1;
        let id = LogId { term: Term(1), index: RaftIndex(self.index) };
        self.state.apply(Committed { id, what: What::Command(&entry) }).unwrap();
        assert_eq!(Controller::restore(&self.state.snapshot()).as_ref(), Ok(&self.state));
    }

    fn join(&mut self, broker: i32, rack: &str) {
        let endpoints = Endpoints { rack: rack.to_owned(), kafka_port: 1, ..Endpoints::default() };
        let joining = self.state.decide_join(BrokerId(broker), DirectoryId([1; 16]), &endpoints);
        self.apply(&joining.records);
    }

    fn topic(&mut self, name: &str, partitions: i32, replication_factor: i16) {
        let id = TopicId([u8::try_from(self.index).unwrap(); 16]);
        let topic = NewTopic { name: name.into(), partitions, replication_factor, id, ..NewTopic::default() };
        let created = self.state.decide_create_topics(&[topic], DEFAULTS, &|_| true).remove(0).unwrap();
        self.apply(&[created.record]);
    }

    fn drain(&mut self, broker: i32, on: bool) -> Result<(), super::super::Refusal> {
        let change = (DRAIN.to_owned(), Change::Set(Some(on.to_string())));
        let records = self.state.decide_alter_configs(Resource::Broker(BrokerId(broker)), &[change])?;
        self.apply(&records);
        Ok(())
    }

    fn all(&self) -> Presence {
        Presence { steady: self.state.brokers().map(|(broker, _)| broker).collect(), lost: BTreeSet::new() }
    }

    /// Every group is made as it shall be.
    fn settle(&mut self) {
        let moving: Vec<_> = self.state.all_moving().map(|(id, moving)| (id, moving.since)).collect();
        for (id, since) in moving {
            let replicas = self.state.replicas(id).unwrap().iter().copied().collect();
            let settled = self.state.decide_settled(id, &replicas, since);
            assert_eq!(settled.len(), 1);
            self.apply(&settled);
        }
    }

    /// Moves until nothing is to do; how many moves that took.
    fn run(&mut self, presence: &Presence, evens_out: bool) -> usize {
        let mut moves = 0;
        loop {
            let records = self.state.decide_moves(presence, evens_out);
            if records.is_empty() {
                return moves;
            }
            assert!(records.len() <= MOVES_AT_ONCE);
            moves += records.len();
            assert!(moves < 10_000, "it never ends");
            self.apply(&records);
            assert_eq!(self.state.all_moving().count(), records.len(), "each is on its way");
            self.settle();
        }
    }

    fn held(&self) -> BTreeMap<i32, usize> {
        self.state.brokers().map(|(broker, _)| (broker.0, self.state.replicas_on(broker).count())).collect()
    }

    fn led(&self) -> BTreeMap<i32, usize> {
        let mut led: BTreeMap<i32, usize> = self.state.brokers().map(|(broker, _)| (broker.0, 0)).collect();
        self.state.partitions().for_each(|(_, replicas, _)| *led.get_mut(&replicas[0].broker.0).unwrap() += 1);
        led
    }
}

#[test]
fn a_new_broker_takes_its_share_of_replicas_and_of_leaders() {
    let mut cluster = Cluster::new(3);
    cluster.topic("orders", 60, 3);
    let before = cluster.all();
    assert_eq!(cluster.run(&before, true), 0, "three brokers hold all alike");
    cluster.join(4, "");
    assert_eq!(cluster.run(&before, true), 0, "it has not been there for a while");
    let all = cluster.all();
    assert_eq!(cluster.state.decide_moves(&all, false).len(), 0, "it was turned off");
    assert_eq!(cluster.run(&all, true), 45, "no more than its share is moved");
    assert_eq!(cluster.held(), [(1, 45), (2, 45), (3, 45), (4, 45)].into());
    assert!(cluster.led().values().all(|led| (12..=18).contains(led)), "{:?}", cluster.led());
}

#[test]
fn little_is_not_worth_a_move() {
    let mut cluster = Cluster::new(2);
    cluster.topic("a", 1, 1);
    cluster.topic("b", 1, 1);
    assert_eq!(cluster.held(), [(1, 2), (2, 0)].into());
    let all = cluster.all();
    assert_eq!(cluster.run(&all, true), 0);
}

#[test]
fn a_drained_broker_gives_everything_away_and_gets_nothing_new() {
    let mut cluster = Cluster::new(4);
    cluster.topic("orders", 40, 3);
    cluster.topic("single", 8, 1);
    cluster.drain(1, true).unwrap();
    let away = Presence { steady: [2, 3, 4].map(BrokerId).into(), lost: [BrokerId(1)].into() };
    assert!(cluster.run(&away, true) > 0, "also when it is gone");
    assert_eq!(cluster.state.partitions_with(BrokerId(1)), 0);
    let held = cluster.held();
    assert!([2, 3, 4].iter().all(|broker| held[broker].abs_diff(128 / 3) <= 1), "{held:?}");
    cluster.topic("new", 12, 3);
    assert_eq!(cluster.state.partitions_with(BrokerId(1)), 0);
    let manual = NewTopic {
        name: "manual".into(),
        partitions: -1,
        replication_factor: -1,
        assignments: vec![(0, vec![BrokerId(1)])],
        id: TopicId([99; 16]),
        ..NewTopic::default()
    };
    let refused = cluster.state.decide_create_topics(&[manual], DEFAULTS, &|_| true).remove(0).unwrap_err();
    assert_eq!(refused.kind, Kind::InvalidReplicaAssignment);
    cluster.drain(1, false).unwrap();
    let all = cluster.all();
    cluster.run(&all, true);
    assert!(cluster.held()[&1] > 30, "it takes its share again: {:?}", cluster.held());
}

#[test]
fn who_cannot_be_done_without_is_not_drained() {
    let mut cluster = Cluster::new(3);
    cluster.topic(OFFSETS_TOPIC, 4, 3);
    cluster.drain(1, true).unwrap();
    cluster.drain(1, false).unwrap();
    cluster.topic("orders", 4, 3);
    let refused = cluster.drain(1, true).unwrap_err();
    assert_eq!(refused.kind, Kind::Limit);
    assert!(refused.message.contains("orders"), "{}", refused.message);
    let odd = (DRAIN.to_owned(), Change::Set(Some("perhaps".to_owned())));
    assert!(cluster.state.decide_alter_configs(Resource::Broker(BrokerId(1)), std::slice::from_ref(&odd)).is_err());
    assert!(cluster.state.decide_alter_configs(Resource::AllBrokers, &[odd]).is_err(), "not all at once");
}

#[test]
fn the_clusters_own_topics_make_do_with_the_brokers_that_are_left() {
    let mut cluster = Cluster::new(3);
    cluster.topic(OFFSETS_TOPIC, 16, 3);
    cluster.drain(2, true).unwrap();
    let all = cluster.all();
    cluster.run(&all, true);
    assert_eq!(cluster.held(), [(1, 16), (2, 0), (3, 16)].into());
    assert_eq!(cluster.state.decide_raise_internal(|_| true), [], "they are not raised again while it is drained");
    cluster.drain(2, false).unwrap();
    assert_eq!(cluster.state.decide_raise_internal(|_| true).len(), 16);
}

#[test]
fn what_was_on_its_way_to_a_broker_that_is_lost_goes_elsewhere() {
    let mut cluster = Cluster::new(4);
    cluster.topic("orders", 1, 2);
    let on: Vec<i32> = (1..=4).filter(|broker| cluster.held()[broker] == 1).collect();
    let off: Vec<i32> = (1..=4).filter(|broker| !on.contains(broker)).collect();
    cluster.drain(on[0], true).unwrap();
    let records = cluster.state.decide_moves(&cluster.all(), true);
    cluster.apply(&records);
    let target = if cluster.held()[&off[0]] == 1 { off[0] } else { off[1] };
    let other = if target == off[0] { off[1] } else { off[0] };
    let mut presence = cluster.all();
    presence.steady.remove(&BrokerId(target));
    assert_eq!(cluster.state.decide_moves(&presence, true), [], "it may come back in a moment");
    presence.lost.insert(BrokerId(target));
    let records = cluster.state.decide_moves(&presence, true);
    cluster.apply(&records);
    assert_eq!(cluster.held()[&other], 1);
    cluster.settle();
    assert_eq!(cluster.state.partitions_with(BrokerId(target)), 0);
    assert_eq!(cluster.state.partitions_with(BrokerId(on[0])), 0);
}

#[test]
fn replicas_keep_to_racks_of_their_own() {
    let mut cluster = Cluster::new(1);
    cluster.join(1, "a");
    cluster.join(2, "b");
    cluster.topic("orders", 30, 2);
    cluster.join(3, "a");
    let all = cluster.all();
    assert!(cluster.run(&all, true) > 0);
    assert_eq!(cluster.held(), [(1, 15), (2, 30), (3, 15)].into(), "broker 2 is alone on its rack");
    let rack = |replica: &ReplicaId| cluster.state.rack(replica.broker).unwrap().to_owned();
    for (id, replicas, _) in cluster.state.partitions() {
        let racks: BTreeSet<String> = replicas.iter().map(rack).collect();
        assert_eq!(racks.len(), 2, "{id}");
    }
    cluster.join(4, "b");
    cluster.drain(2, true).unwrap();
    let all = cluster.all();
    cluster.run(&all, true);
    assert_eq!(cluster.held(), [(1, 15), (2, 0), (3, 15), (4, 30)].into());
}

#[test]
fn a_broker_is_removed_when_it_is_empty() {
    let mut cluster = Cluster::new(3);
    cluster.topic("orders", 6, 2);
    let remove = |cluster: &Cluster, broker, is_alive| cluster.state.decide_remove_broker(BrokerId(broker), is_alive);
    assert_eq!(remove(&cluster, 9, false).unwrap_err().kind, Kind::UnknownBroker);
    assert!(remove(&cluster, 1, false).unwrap_err().message.contains("4 partition"));
    cluster.apply(&[Record::BrokerRemoved { broker: BrokerId(1) }]);
    assert!(cluster.state.broker(BrokerId(1)).is_some(), "whatever a proposer says");
    cluster.drain(1, true).unwrap();
    let records = cluster.state.decide_moves(&cluster.all(), false);
    cluster.apply(&records);
    assert_eq!(remove(&cluster, 1, true).unwrap_err().kind, Kind::Limit, "its replicas are on their way");
    cluster.settle();
    let removed = remove(&cluster, 1, true).unwrap();
    cluster.apply(&[removed]);
    assert!(cluster.state.broker(BrokerId(1)).is_none() && !cluster.state.is_draining(BrokerId(1)));
    // It comes back anew.
    cluster.join(1, "");
    assert!(remove(&cluster, 1, true).unwrap_err().message.contains("running"));
    let removed = remove(&cluster, 1, false).unwrap();
    cluster.apply(&[removed]);
    let mut alone = Cluster::new(1);
    assert!(remove(&alone, 1, false).unwrap_err().message.contains("only one"));
    alone.apply(&[Record::BrokerRemoved { broker: BrokerId(1) }]);
    assert!(alone.state.broker(BrokerId(1)).is_some());
}
