use std::collections::BTreeSet;

use super::super::names::OFFSETS_TOPIC;
use super::super::record::{decode_entry, encode_entry};
use super::super::topics::{NewTopic, TopicDefaults};
use super::super::{Controller, DirectoryId, Endpoints, Record};
use super::*;
use crate::ids::{Incarnation, LogId, RaftIndex, Term, TopicId};
use crate::machine::{Committed, Machine, What};

const DEFAULTS: TopicDefaults = TopicDefaults { partitions: 2, replication_factor: 1 };
const TOPIC: TopicId = TopicId([1; 16]);
const PARTITION: PartitionId = PartitionId { topic: TOPIC, partition: PartitionIndex(0) };

fn apply(state: &mut Controller, records: &[Record]) {
    let entry = encode_entry(records);
    assert_eq!(decode_entry(&entry).as_deref(), Ok(records));
    state.apply(Committed { id: LogId { term: Term(1), index: RaftIndex(1) }, what: What::Command(&entry) }).unwrap();
    assert_eq!(Controller::restore(&state.snapshot()).as_ref(), Ok(&*state), "what is on its way is in snapshots");
}

fn join(state: &mut Controller, broker: i32) {
    let endpoints = Endpoints { cluster: String::new(), kafka_host: String::new(), kafka_port: 1, rack: String::new() };
    let joining = state.decide_join(BrokerId(broker), DirectoryId([1; 16]), &endpoints);
    apply(state, &joining.records);
}

/// A cluster with a topic of that name, made when there were so many brokers.
fn made(name: &str, brokers: i32, replication_factor: i16) -> Controller {
    let mut state = Controller::default();
    let founded = state.decide_found("cluster", BrokerId(1), DirectoryId([1; 16])).unwrap();
    apply(&mut state, &founded);
    (2..=brokers).for_each(|broker| join(&mut state, broker));
    let topic = NewTopic { name: name.into(), partitions: 4, replication_factor, id: TOPIC, ..NewTopic::default() };
    let created = state.decide_create_topics(&[topic], DEFAULTS, &|_| true).remove(0).unwrap();
    apply(&mut state, &[created.record]);
    state
}

fn replicas(state: &Controller) -> Vec<ReplicaId> {
    state.replicas(PARTITION).unwrap().to_vec()
}

#[test]
fn internal_topics_get_their_replicas_as_brokers_join() {
    let mut state = made(OFFSETS_TOPIC, 1, 1);
    assert_eq!(state.decide_raise_internal(|_| true), []);
    join(&mut state, 2);
    join(&mut state, 3);
    join(&mut state, 4);
    assert_eq!(state.decide_raise_internal(|broker| broker == BrokerId(1)), [], "nobody is there to take them");
    let first = replicas(&state)[0];
    let raised = state.decide_raise_internal(|_| true);
    apply(&mut state, &raised);
    for partition in 0..4 {
        let id = PartitionId { topic: TOPIC, partition: PartitionIndex(partition) };
        let brokers: BTreeSet<_> = state.replicas(id).unwrap().iter().map(|replica| replica.broker).collect();
        assert_eq!(brokers.len(), 3);
        assert_eq!(state.moving(id).unwrap().adding.len(), 2);
    }
    let held = |broker| state.replicas_on(BrokerId(broker)).count();
    assert!([2, 3, 4].iter().all(|broker| (2..=3).contains(&held(*broker))), "they are shared out");
    assert_eq!(replicas(&state)[0], first, "the leader stays");
    assert_eq!(state.founders(PARTITION).unwrap(), [first], "the others are told");
    assert_eq!(state.decide_raise_internal(|_| true), [], "one step at a time");
}

#[test]
fn other_topics_keep_what_they_were_made_with() {
    let mut state = made("orders", 1, 1);
    join(&mut state, 2);
    assert_eq!(state.decide_raise_internal(|_| true), []);
}

#[test]
fn a_partition_moves_until_its_leader_says_that_it_is_there() {
    let mut state = made("orders", 4, 2);
    let before = replicas(&state);
    let away = [1, 2, 3, 4].map(BrokerId).into_iter().find(|id| before.iter().all(|it| it.broker != *id)).unwrap();
    let new = ReplicaId { broker: away, incarnation: Incarnation(1_000) };
    let wanted = vec![new, before[1]];
    apply(&mut state, &[Record::ReplicasChanged { partition: PARTITION, replicas: wanted.clone() }]);
    let since = RaftIndex(1);
    let moving = Moving {
        adding: vec![new],
        removing: vec![before[0]],
        before: Some(before.clone()),
        since,
        ..Moving::default()
    };
    assert_eq!(state.moving(PARTITION), Some(&moving));
    let old: BTreeSet<_> = before.iter().copied().collect();
    assert_eq!(state.decide_settled(PARTITION, &old, since), [], "it is not as it is to be");
    // Back again before it has got anywhere: what was added has to go, what was to go stays.
    let mut cancelled = state.clone();
    apply(&mut cancelled, &[Record::ReplicasChanged { partition: PARTITION, replicas: before.clone() }]);
    let back = Moving { adding: vec![], removing: vec![new], before: None, since, ..Moving::default() };
    assert_eq!(cancelled.moving(PARTITION), Some(&back));
    let settled = state.decide_settled(PARTITION, &wanted.iter().copied().collect(), since);
    assert_eq!(settled, [Record::ReplicasSettled { partition: PARTITION, replicas: wanted.clone(), since }]);
    apply(&mut cancelled, &settled);
    assert!(cancelled.moving(PARTITION).is_some(), "that was about what was wanted before");
    apply(&mut state, &settled);
    assert_eq!((state.moving(PARTITION), replicas(&state)), (None, wanted));
}

#[test]
fn replicas_that_were_handed_out_before_or_share_a_broker_are_not_taken() {
    let mut state = made("orders", 3, 2);
    let before = state.clone();
    let [first, second] = replicas(&state)[..] else { panic!("two replicas") };
    let again = ReplicaId { broker: first.broker, incarnation: Incarnation(2_000) };
    for wanted in [vec![], vec![first, again], vec![ReplicaId { incarnation: Incarnation(1), ..first }, second]] {
        let records = [Record::ReplicasChanged { partition: PARTITION, replicas: wanted.clone() }];
        // A list without replicas is not even written by anybody who reads it back.
        if !wanted.is_empty() {
            apply(&mut state, &records);
            assert_eq!(state.replicas(PARTITION), before.replicas(PARTITION), "{wanted:?}");
        }
    }
}

#[test]
fn a_replica_that_has_forgotten_is_on_its_way_until_it_is_filled() {
    let mut state = made("orders", 3, 3);
    let before = replicas(&state);
    let records = state.decide_replace_replicas(&[(PARTITION, before[1])]);
    apply(&mut state, &records);
    let new = replicas(&state)[1];
    assert_eq!(state.moving(PARTITION).unwrap().adding, [new]);
    let records = state.decide_replace_replicas(&[(PARTITION, new)]);
    apply(&mut state, &records);
    let newer = replicas(&state)[1];
    assert_eq!(state.moving(PARTITION).unwrap().adding, [newer], "it has forgotten again");
    let alone = made("orders", 1, 1);
    let mut state = alone;
    let records = state.decide_replace_replicas(&[(PARTITION, replicas(&state)[0])]);
    apply(&mut state, &records);
    assert_eq!(state.moving(PARTITION), None, "nobody could fill it");
}

#[test]
fn a_topic_that_is_deleted_takes_along_what_is_on_its_way() {
    let mut state = made("orders", 3, 3);
    let records = state.decide_replace_replicas(&[(PARTITION, replicas(&state)[0])]);
    apply(&mut state, &records);
    apply(&mut state, &[Record::TopicDeleted { topic: TOPIC }]);
    assert_eq!(state.all_moving().count(), 0);
}

#[test]
fn brokers_that_are_away_are_filled_later_if_most_are_there() {
    let state = made("orders", 3, 1);
    let decide = |away: &[i32], replication_factor| {
        let topic = NewTopic {
            name: "t".into(),
            partitions: 3,
            replication_factor,
            id: TopicId([2; 16]),
            ..NewTopic::default()
        };
        let is_alive = |broker: BrokerId| !away.contains(&broker.0);
        let created = state.decide_create_topics(&[topic], DEFAULTS, &is_alive).remove(0).ok()?;
        let Record::TopicCreated(topic) = created.record else { panic!("a topic is created") };
        let brokers = |replicas: &Vec<ReplicaId>| replicas.iter().map(|replica| replica.broker.0).collect::<Vec<_>>();
        Some(topic.partitions.iter().map(brokers).collect::<Vec<_>>())
    };
    for placed in decide(&[2], 3).unwrap() {
        assert_eq!((placed.len(), placed[2]), (3, 2), "the last place is that of the broker that is away");
    }
    assert!(decide(&[2], 2).unwrap().iter().flatten().all(|broker| *broker != 2));
    assert_eq!(decide(&[2, 3], 3), None, "nothing could be written");
    assert_eq!(decide(&[2, 3], 2), None);
    assert!(decide(&[2, 3], 1).is_some());
}

#[test]
fn the_bytes_of_moves_stay_as_they_are() {
    let replica = ReplicaId { broker: BrokerId(3), incarnation: Incarnation(4) };
    let changed = Record::ReplicasChanged { partition: PARTITION, replicas: vec![replica] };
    let settled = |since| Record::ReplicasSettled { partition: PARTITION, replicas: vec![replica], since };
    let bytes = |tag: u8| {
        [&[tag][..], &[1; 16], &[0, 0, 0, 0], &[0, 0, 0, 1], &[0, 0, 0, 3], &[0, 0, 0, 0, 0, 0, 0, 4]].concat()
    };
    assert_eq!(encode_entry(&[changed]), bytes(12));
    assert_eq!(decode_entry(&bytes(13)), Ok(vec![settled(RaftIndex(0))]), "as it was written once");
    let since = [bytes(14), vec![0, 0, 0, 0, 0, 0, 0, 5]].concat();
    assert_eq!(encode_entry(&[settled(RaftIndex(5))]), since);
    let dropped = Record::ReplicaDropped { partition: PARTITION, replica };
    let about = [&[15][..], &[1; 16], &[0, 0, 0, 0], &[0, 0, 0, 3], &[0, 0, 0, 0, 0, 0, 0, 4]].concat();
    assert_eq!(encode_entry(&[dropped]), about);
    assert_eq!(encode_entry(&[Record::BrokerRemoved { broker: BrokerId(3) }]), [16u8, 0, 0, 0, 3][..]);
}
