use super::configs::Change;
use super::record::{decode_entry, encode_entry};
use super::topics::{CreatedTopic, MorePartitions, NewTopic, TopicDefaults};
use super::*;
use crate::ids::{LogId, RaftIndex, Term};
use crate::protocol::batch::BatchHeader;
use proptest::prelude::*;
use std::collections::BTreeSet;

const DEFAULTS: TopicDefaults = TopicDefaults { partitions: 2, replication_factor: 1 };

fn apply(state: &mut Controller, records: &[Record]) {
    let entry = encode_entry(records);
    assert_eq!(decode_entry(&entry).as_deref(), Ok(records));
    state.apply(Committed { id: LogId { term: Term(1), index: RaftIndex(1) }, what: What::Command(&entry) }).unwrap();
}

fn cluster(brokers: i32) -> Controller {
    let mut state = Controller::default();
    let founded = state.decide_found("cluster", BrokerId(1), DirectoryId([1; 16])).unwrap();
    apply(&mut state, &founded);
    for broker in 2..=brokers {
        let joining = state.decide_join(BrokerId(broker), DirectoryId([1; 16]), &at(broker));
        assert!(!joining.forgotten);
        apply(&mut state, &joining.records);
    }
    state
}
/// Where a broker is.
fn at(broker: i32) -> Endpoints {
    let host = format!("broker-{broker}");
    Endpoints { cluster: format!("{host}:9192"), kafka_host: host, kafka_port: 9092, rack: String::new() }
}

fn id(n: u8) -> TopicId {
    TopicId([n; 16])
}

fn new_topic(n: u8, name: &str) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions: -1, replication_factor: -1, id: id(n), ..NewTopic::default() }
}

fn decide(state: &Controller, topic: NewTopic) -> Result<CreatedTopic, Refusal> {
    state.decide_create_topics(&[topic], DEFAULTS, &|_| true).remove(0)
}

fn create(state: &mut Controller, n: u8, name: &str) {
    let created = decide(state, new_topic(n, name)).unwrap();
    apply(state, &[created.record]);
}

fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>) -> (Kind, String) {
    let refusal = result.unwrap_err();
    (refusal.kind, refusal.message)
}

fn pairs(configs: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
    configs.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect()
}

#[test]
fn a_topic_is_created_with_the_defaults_and_found_again() {
    let mut state = cluster(1);
    let mut topic = new_topic(1, "orders");
    topic.configs = pairs(&[("retention.ms", "5"), ("retention.ms", "6")]);
    let created = decide(&state, topic).unwrap();
    assert_eq!((created.partitions, created.replication_factor), (2, 1));
    assert_eq!(state, cluster(1), "to decide changes nothing");
    apply(&mut state, &[created.record]);
    let topic = state.topic("orders").unwrap();
    assert_eq!((topic.id, topic.partitions.len(), topic.configs["retention.ms"].as_str()), (id(1), 2, "6"));
    assert_eq!(state.topic_by_id(id(1)), Some(topic));
    assert_eq!(state.replicas_on(BrokerId(1)).count(), 2);
    assert_eq!(state.replicas_on(BrokerId(2)).count(), 0);
}

#[test]
fn names_are_refused_in_kafkas_words() {
    let mut state = cluster(1);
    create(&mut state, 1, "a.b");
    let long = "x".repeat(250);
    let expected = [
        ("", "Topic name is invalid: the empty string is not allowed".to_owned()),
        (".", "Topic name is invalid: '.' is not allowed".to_owned()),
        ("..", "Topic name is invalid: '..' is not allowed".to_owned()),
        (&long, format!("Topic name is invalid: the length of '{long}' is longer than the max allowed length 249")),
        (
            "a b",
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
                .to_owned(),
        ),
        ("a_b", "Topic 'a_b' collides with existing topic: a.b".to_owned()),
    ];
    for (name, message) in expected {
        assert_eq!(refused(decide(&state, new_topic(2, name))), (Kind::InvalidTopic, message));
    }
    let exists = (Kind::TopicExists, "Topic 'a.b' already exists.".to_owned());
    assert_eq!(refused(decide(&state, new_topic(2, "a.b"))), exists);
    assert!(decide(&state, new_topic(2, &"x".repeat(249))).is_ok());
}

#[test]
fn counts_are_refused_in_kafkas_words() {
    let state = cluster(2);
    let with = |partitions, replication_factor| NewTopic { partitions, replication_factor, ..new_topic(1, "t") };
    for partitions in [0, -2, i32::MIN] {
        let message = "Number of partitions was set to an invalid non-positive value.";
        assert_eq!(refused(decide(&state, with(partitions, -1))), (Kind::InvalidPartitions, message.to_owned()));
    }
    for replicas in [0, -2] {
        let message = "Replication factor must be larger than 0, or -1 to use the default value.";
        assert_eq!(refused(decide(&state, with(0, replicas))), (Kind::InvalidReplicationFactor, message.to_owned()));
    }
    let message = "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached \
        because only 2 broker(s) are registered or some brokers have all their log directories cordoned.";
    assert_eq!(refused(decide(&state, with(1, 3))), (Kind::InvalidReplicationFactor, message.to_owned()));
    let message = "Excessively large number of partitions per request.";
    assert_eq!(refused(decide(&state, with(i32::MAX, 1))), (Kind::Limit, message.to_owned()));
    let many = [with(5000, 1), NewTopic { name: "u".to_owned(), ..with(5001, 1) }];
    assert!(
        state
            .decide_create_topics(&many, DEFAULTS, &|_| true)
            .into_iter()
            .all(|result| refused(result).0 == Kind::Limit)
    );
}

#[test]
fn configs_of_a_new_topic_are_checked_before_its_counts() {
    let state = cluster(1);
    let with = |configs| NewTopic { configs, partitions: 0, ..new_topic(1, "t") };
    let unknown = (Kind::InvalidConfig, "Unknown topic config name: nosuch".to_owned());
    assert_eq!(refused(decide(&state, with(pairs(&[("nosuch", "1")])))), unknown);
    let null = (Kind::InvalidConfig, "Null value not supported for topic configs: retention.ms".to_owned());
    assert_eq!(refused(decide(&state, with(vec![("retention.ms".to_owned(), None)]))), null);
}

type Chosen<'a> = &'a [(i32, &'a [i32])];

#[test]
fn manual_assignments_are_checked() {
    let state = cluster(3);
    let topic = |assignments: Chosen<'_>| NewTopic {
        assignments: assignments.iter().map(|(p, b)| (*p, b.iter().copied().map(BrokerId).collect())).collect(),
        ..new_topic(1, "t")
    };
    let created = decide(&state, topic(&[(1, &[3, 1]), (0, &[2, 3])])).unwrap();
    let Record::TopicCreated(created) = created.record else { panic!("creates a topic") };
    let brokers: Vec<Vec<_>> = created.partitions.iter().map(|r| r.iter().map(|r| r.broker.0).collect()).collect();
    assert_eq!(brokers, [[2, 3], [3, 1]]);

    let wrong: [(Chosen<'_>, &str); 6] = [
        (&[(0, &[])], "The manual partition assignment includes an empty replica list."),
        (&[(0, &[9])], "The manual partition assignment includes broker 9, but no such broker is registered."),
        (&[(0, &[2, 2])], "The manual partition assignment includes the broker 2 more than once."),
        (&[(0, &[1]), (0, &[1])], "Found multiple manual partition assignments for partition 0"),
        (&[(0, &[1]), (2, &[1])], "partitions should be a consecutive 0-based integer sequence"),
        (
            &[(0, &[1]), (1, &[1, 2])],
            "The manual partition assignment includes a partition with 2 replica(s), but this is not consistent with previous \
             partitions, which have 1 replica(s).",
        ),
    ];
    for (assignments, message) in wrong {
        let expected = (Kind::InvalidReplicaAssignment, message.to_owned());
        assert_eq!(refused(decide(&state, topic(assignments))), expected);
    }
    let counted = NewTopic { partitions: 1, ..topic(&[(0, &[1])]) };
    let message = "A manual partition assignment was specified, but numPartitions was not set to -1.";
    assert_eq!(refused(decide(&state, counted)), (Kind::InvalidRequest, message.to_owned()));
}

#[test]
fn topics_of_one_request_see_each_other() {
    let mut state = cluster(1);
    let request = [new_topic(1, "a.b"), new_topic(2, "c"), new_topic(3, "a_b"), new_topic(4, "c"), new_topic(5, "d")];
    let mut results = state.decide_create_topics(&request, DEFAULTS, &|_| true);
    assert_eq!(refused(results.remove(3)).1, "Duplicate topic name.");
    assert_eq!(refused(results.remove(2)).1, "Topic 'a_b' collides with existing topic: a.b");
    assert_eq!(refused(results.remove(1)).1, "Duplicate topic name.");
    let records: Vec<_> = results.into_iter().map(|result| result.unwrap().record).collect();
    apply(&mut state, &records);
    assert_eq!(state.topics().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["a.b", "d"]);
    assert_eq!(state.topics_from("b").map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["d"]);
    check(&state);
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_is_free() {
    let mut state = cluster(1);
    create(&mut state, 1, "a.b");
    let deleted = state.decide_delete_topic("a.b").unwrap();
    assert_eq!(state.decide_delete_topic_id(id(1)), Ok(deleted.clone()));
    apply(&mut state, &[deleted]);
    assert_eq!(refused(state.decide_delete_topic("a.b")).0, Kind::UnknownTopic);
    assert_eq!(refused(state.decide_delete_topic_id(id(1))).0, Kind::UnknownTopicId);
    create(&mut state, 2, "a_b");
    check(&state);
}

#[test]
fn partitions_are_added_with_kafkas_rules() {
    let mut state = cluster(2);
    create(&mut state, 1, "t");
    let ask = |state: &Controller, count, assignments: Option<&[&[i32]]>| {
        let assignments = assignments.map(|a| a.iter().map(|b| b.iter().copied().map(BrokerId).collect()).collect());
        state
            .decide_create_partitions(&[MorePartitions { name: "t".to_owned(), count, assignments, start: 0 }], &|_| {
                true
            })
            .remove(0)
    };
    let invalid = |message: &str| (Kind::InvalidPartitions, message.to_owned());
    assert_eq!(refused(ask(&state, 2, None)), invalid("Topic already has 2 partition(s)."));
    let message = "The topic t currently has 2 partition(s); 1 would not be an increase.";
    assert_eq!(refused(ask(&state, 1, None)), invalid(message));
    let assignment = |message: &str| (Kind::InvalidReplicaAssignment, message.to_owned());
    // None at all leaves the choice to us; an empty list chooses for no partition.
    let message = "Attempted to add 2 additional partition(s), but only 0 assignment(s) were specified.";
    assert_eq!(refused(ask(&state, 4, Some(&[]))), assignment(message));
    assert_eq!(refused(ask(&state, 3, Some(&[&[1, 2]]))).0, Kind::InvalidReplicaAssignment);
    assert_eq!(refused(ask(&state, i32::MAX, None)).0, Kind::Limit);

    let four = ask(&state, 4, None).unwrap();
    apply(&mut state, &[four]);
    let five = ask(&state, 5, Some(&[&[2]])).unwrap();
    apply(&mut state, &[five]);
    let partition = PartitionId { topic: id(1), partition: PartitionIndex(4) };
    assert_eq!(state.replicas(partition).unwrap()[0].broker, BrokerId(2));
    assert_eq!(state.partition_count(), 5);
    check(&state);
}

#[test]
fn configs_change_one_by_one_or_all_at_once() {
    let mut state = cluster(1);
    create(&mut state, 1, "t");
    let topic = state.find_resource(2, "t").unwrap();
    let text = |text: &str| Some(text.to_owned());
    let changes = [
        ("retention.ms".to_owned(), Change::Set(text("5"))),
        ("cleanup.policy".to_owned(), Change::Append(text("compact,delete"))),
        ("segment.ms".to_owned(), Change::Delete),
    ];
    let records = state.decide_alter_configs(topic, &changes).unwrap();
    apply(&mut state, &records);
    assert_eq!(state.topic("t").unwrap().configs["cleanup.policy"], "delete,compact");

    let subtract = [("cleanup.policy".to_owned(), Change::Subtract(text("delete")))];
    let records = state.decide_alter_configs(topic, &subtract).unwrap();
    assert_eq!(records.len(), 1);
    apply(&mut state, &records);
    assert_eq!(state.topic("t").unwrap().configs["cleanup.policy"], "compact");

    let records = state.decide_replace_configs(topic, &pairs(&[("segment.ms", "7")])).unwrap();
    apply(&mut state, &records);
    assert_eq!(state.topic("t").unwrap().configs, [("segment.ms".to_owned(), "7".to_owned())].into());
    assert_eq!(state.decide_replace_configs(topic, &pairs(&[("segment.ms", "7")])), Ok(vec![]));
}

#[test]
fn wrong_config_changes_are_refused_in_kafkas_words() {
    let mut state = cluster(1);
    create(&mut state, 1, "t");
    let topic = Resource::Topic(id(1));
    let alter = |resource, name: &str, change| state.decide_alter_configs(resource, &[(name.to_owned(), change)]);
    let one = || Some("1".to_owned());
    let null = (Kind::InvalidRequest, "Null value not supported for : segment.ms".to_owned());
    assert_eq!(refused(alter(topic, "segment.ms", Change::Set(None))), null);
    let no_list = (Kind::InvalidConfig, "Can't APPEND to key segment.ms because its type is not LIST.".to_owned());
    assert_eq!(refused(alter(topic, "segment.ms", Change::Append(one()))), no_list);
    assert_eq!(refused(alter(topic, "nosuch", Change::Set(one()))).0, Kind::InvalidConfig);
    assert_eq!(alter(topic, "nosuch", Change::Delete), Ok(vec![]));
    let twice = [("segment.ms".to_owned(), Change::Set(one())), ("segment.ms".to_owned(), Change::Delete)];
    let expected = (Kind::InvalidRequest, "Error due to duplicate config keys".to_owned());
    assert_eq!(refused(state.decide_alter_configs(topic, &twice)), expected);
    assert_eq!(refused(alter(Resource::Topic(id(9)), "segment.ms", Change::Delete)).0, Kind::UnknownTopic);
    assert_eq!(refused(alter(Resource::AllBrokers, "log.dirs", Change::Set(one()))).0, Kind::InvalidRequest);
    let message = "Invalid value x for configuration log.retention.ms: Not a number of type LONG";
    let bad = refused(alter(Resource::Broker(BrokerId(1)), "log.retention.ms", Change::Set(Some("x".to_owned()))));
    assert_eq!(bad, (Kind::InvalidRequest, message.to_owned()));

    for (kind, name, expected) in [
        (2, "u", Kind::UnknownTopic),
        (2, "u u", Kind::InvalidTopic),
        (2, "", Kind::InvalidRequest),
        (4, "7", Kind::UnknownBroker),
        (4, "x", Kind::InvalidRequest),
        (4, "-1", Kind::InvalidRequest),
        (8, "1", Kind::InvalidRequest),
    ] {
        assert_eq!(refused(state.find_resource(kind, name)).0, expected, "{kind} {name}");
    }
    assert_eq!(state.find_resource(4, ""), Ok(Resource::AllBrokers));
}

#[test]
fn broker_configs_are_kept_by_broker_and_for_all() {
    let mut state = cluster(2);
    for (resource, value) in [(Resource::Broker(BrokerId(2)), "5"), (Resource::AllBrokers, "6")] {
        let records = state.decide_replace_configs(resource, &pairs(&[("log.retention.ms", value)])).unwrap();
        apply(&mut state, &records);
    }
    assert!(state.broker_configs(BrokerId(1)).is_empty());
    assert_eq!(state.broker_configs(BrokerId(2))["log.retention.ms"], "5");
    assert_eq!(state.default_broker_configs()["log.retention.ms"], "6");
    check(&state);
    let records = state.decide_replace_configs(Resource::Broker(BrokerId(2)), &[]).unwrap();
    apply(&mut state, &records);
    assert!(state.broker_configs(BrokerId(2)).is_empty());
}

#[test]
fn producer_ids_come_in_blocks_that_never_meet() {
    let mut state = cluster(1);
    let mut taken = BTreeSet::new();
    for _ in 0..3 {
        let (record, block) = state.decide_producer_ids().unwrap();
        assert!(block.clone().all(|id| taken.insert(id)));
        // The same record again hands out nothing.
        apply(&mut state, &[record.clone(), record]);
    }
    assert_eq!(taken.len(), 3000);
    state.next_producer_id = ProducerId(i64::MAX - 5);
    assert_eq!(refused(state.decide_producer_ids()).0, Kind::Exhausted);
}

#[test]
fn a_replica_that_forgot_gets_an_incarnation_of_its_own() {
    let mut state = cluster(1);
    create(&mut state, 1, "t");
    create(&mut state, 2, "u");
    let partition = PartitionId { topic: id(1), partition: PartitionIndex(1) };
    let other = PartitionId { topic: id(2), partition: PartitionIndex(0) };
    let forgotten = [partition, other].map(|partition| (partition, state.replicas(partition).unwrap()[0]));
    let records = state.decide_replace_replicas(&forgotten);
    apply(&mut state, &records);
    let new = forgotten.map(|(partition, _)| state.replicas(partition).unwrap()[0].incarnation);
    assert!(new[0] > forgotten[0].1.incarnation && new[1] > new[0], "each one of its own: {new:?}");
    assert_eq!(state.decide_replace_replicas(&forgotten), [], "they are replaced already");
    create(&mut state, 3, "v");
    check(&state);
}

#[test]
fn a_cluster_is_founded_once_and_brokers_are_known_by_their_directory() {
    let mut state = cluster(1);
    assert_eq!(state.cluster_id(), Some("cluster"));
    assert_eq!(state.decide_found("other", BrokerId(1), DirectoryId([2; 16])), None);
    let described = Record::BrokerDescribed { broker: BrokerId(1), endpoints: at(1) };
    let joining = state.decide_join(BrokerId(1), DirectoryId([1; 16]), &at(1));
    assert_eq!(joining.records, std::slice::from_ref(&described));
    apply(&mut state, &[described]);
    assert_eq!(state.decide_join(BrokerId(1), DirectoryId([1; 16]), &at(1)).records, []);
    let moved = state.decide_join(BrokerId(1), DirectoryId([1; 16]), &at(7));
    assert_eq!((moved.records.len(), moved.forgotten), (1, false));
}

#[test]
fn a_broker_that_lost_its_directory_comes_back_with_new_replicas_that_found_nothing() {
    let mut state = cluster(3);
    let topic = NewTopic { replication_factor: 3, partitions: 2, ..new_topic(1, "t") };
    let created = decide(&state, topic).unwrap();
    apply(&mut state, &[created.record]);
    let partition = PartitionId { topic: id(1), partition: PartitionIndex(1) };
    let first = state.replicas(partition).unwrap().to_vec();
    assert_eq!(state.founders(partition).unwrap(), first);
    let controller = state.broker(BrokerId(2)).unwrap().controller.unwrap();
    let joining = state.decide_join(BrokerId(2), DirectoryId([9; 16]), &at(2));
    assert!(joining.forgotten);
    apply(&mut state, &joining.records);
    let state = Controller::restore(&state.snapshot()).unwrap();
    let now = state.replicas(partition).unwrap();
    assert_eq!(state.founders(partition).unwrap(), first, "whoever opens it first with them is right");
    let place = first.iter().position(|replica| replica.broker == BrokerId(2)).unwrap();
    assert!(now[place].incarnation > first[place].incarnation);
    assert!(!state.founders(partition).unwrap().contains(&now[place]));
    assert!(state.broker(BrokerId(2)).unwrap().controller.unwrap().incarnation > controller.incarnation);
    assert_eq!(state.decide_join(BrokerId(2), DirectoryId([9; 16]), &at(2)).records, []);
}

#[test]
fn what_a_newer_version_wrote_stops_and_changes_nothing() {
    let mut state = cluster(1);
    let mut entry =
        encode_entry(&[Record::BrokerJoined { broker: BrokerId(9), directory: DirectoryId::default() }]).to_vec();
    entry.push(200);
    let newer = StateError::Newer { what: "controller record", number: 200 };
    let id = LogId::default();
    assert_eq!(state.apply(Committed { id, what: What::Command(&entry) }), Err(MachineError::Command(newer)));
    assert_eq!(state, cluster(1));
    let header = BatchHeader::parse(&[&[0; 11][..], &[49], &[0; 49]].concat()).unwrap();
    assert_eq!(
        state.apply(Committed { id, what: What::Records { header: &header, batch: None } }),
        Err(MachineError::Records)
    );
    assert_eq!(
        Controller::restore(&[9]),
        Err(MachineError::Snapshot(StateError::Newer { what: "version", number: 9 }))
    );
}

#[test]
fn records_keep_their_bytes() {
    let replica = |broker, incarnation| ReplicaId { broker: BrokerId(broker), incarnation: Incarnation(incarnation) };
    let topic = TopicId([7; 16]);
    let golden: [(Record, &[&[u8]]); 9] = [
        (Record::ClusterFounded { cluster_id: "c".to_owned() }, &[&[1, 0, 0, 0, 1, b'c']]),
        (Record::BrokerJoined { broker: BrokerId(3), directory: DirectoryId([5; 16]) }, &[&[2, 0, 0, 0, 3], &[5; 16]]),
        (
            Record::TopicCreated(Topic {
                id: topic,
                name: "t".to_owned(),
                partitions: vec![vec![replica(1, 2)]],
                configs: [("k".to_owned(), "v".to_owned())].into(),
            }),
            &[
                &[3],
                &[7; 16],
                &[0, 0, 0, 1, b't'],
                &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2],
                &[0, 0, 0, 1, 0, 0, 0, 1, b'k', 0, 0, 0, 1, b'v'],
            ],
        ),
        (Record::TopicDeleted { topic }, &[&[4], &[7; 16]]),
        (
            Record::PartitionsAdded { topic, first: PartitionIndex(1), partitions: vec![vec![replica(1, 2)]] },
            &[&[5], &[7; 16], &[0, 0, 0, 1], &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]],
        ),
        (
            Record::ConfigSet { resource: Resource::Topic(topic), name: "k".to_owned(), value: "v".to_owned() },
            &[&[6, 2], &[7; 16], &[0, 0, 0, 1, b'k', 0, 0, 0, 1, b'v']],
        ),
        (
            Record::ConfigRemoved { resource: Resource::Broker(BrokerId(1)), name: "k".to_owned() },
            &[&[7, 4, 0, 0, 0, 1, 0, 0, 0, 1, b'k']],
        ),
        (
            Record::ProducerIdsReserved { first: ProducerId(0), next: ProducerId(1000) },
            &[&[8], &[0; 8], &[0, 0, 0, 0, 0, 0, 3, 232]],
        ),
        (
            Record::ReplicaReplaced {
                partition: PartitionId { topic, partition: PartitionIndex(1) },
                old: replica(1, 2),
                new: replica(1, 3),
            },
            &[
                &[9],
                &[7; 16],
                &[0, 0, 0, 1],
                &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2],
                &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3],
            ],
        ),
    ];
    for (record, bytes) in golden {
        assert_eq!(encode_entry(std::slice::from_ref(&record)).as_ref(), bytes.concat(), "{record:?}");
        assert_eq!(decode_entry(&bytes.concat()), Ok(vec![record]));
    }
}

/// The invariants of the module, and that a snapshot gives back an equal state.
fn check(state: &Controller) {
    let mut incarnations = BTreeSet::new();
    let mut folded = BTreeSet::new();
    let mut partitions = 0;
    for topic in state.topics() {
        assert_eq!(state.topic(&topic.name), Some(topic));
        assert_eq!(state.topic_by_id(topic.id), Some(topic));
        assert!(folded.insert(fold_name(&topic.name)), "names do not collide");
        for replicas in &topic.partitions {
            let brokers: BTreeSet<_> = replicas.iter().map(|replica| replica.broker).collect();
            assert!(!replicas.is_empty() && brokers.len() == replicas.len());
            for replica in replicas {
                assert!(incarnations.insert(replica.incarnation), "an incarnation is handed out once");
                assert!(replica.incarnation < state.next_incarnation);
            }
            partitions += 1;
        }
    }
    assert_eq!(partitions, state.partition_count());
    assert_eq!(state.topics.len(), state.names.len());
    assert_eq!(state.topics.len(), state.folded.len());
    assert_eq!(Controller::restore(&state.snapshot()).as_ref(), Ok(state));
}

#[derive(Clone, Debug)]
enum Step {
    Create(Vec<(u8, String, i32, i16)>),
    Delete(String),
    Grow(String, i32),
    Alter(String, String, String),
    Replace(String, i32),
    ProducerIds,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name =
        || prop_oneof![Just("a.b"), Just("a_b"), Just("a"), Just("b"), Just("c-1"), Just("..")].prop_map(str::to_owned);
    let config = prop_oneof![Just("retention.ms"), Just("cleanup.policy"), Just("nosuch")].prop_map(str::to_owned);
    let value = prop_oneof![Just("5"), Just("compact"), Just("-9")].prop_map(str::to_owned);
    let step = prop_oneof![
        3 => proptest::collection::vec((1..30u8, name(), -2..6i32, -2..5i16), 1..4).prop_map(Step::Create),
        1 => name().prop_map(Step::Delete),
        1 => (name(), -1..9i32).prop_map(|(name, count)| Step::Grow(name, count)),
        1 => (name(), config, value).prop_map(|(name, config, value)| Step::Alter(name, config, value)),
        1 => (name(), 0..4i32).prop_map(|(name, partition)| Step::Replace(name, partition)),
        1 => Just(Step::ProducerIds),
    ];
    proptest::collection::vec(step, 1..40)
}

fn records_of(state: &Controller, step: &Step) -> Vec<Record> {
    match step {
        Step::Create(topics) => {
            let request: Vec<_> = topics
                .iter()
                .map(|(n, name, partitions, replication_factor)| NewTopic {
                    partitions: *partitions,
                    replication_factor: *replication_factor,
                    ..new_topic(*n, name)
                })
                .collect();
            let decided = state.decide_create_topics(&request, DEFAULTS, &|_| true);
            decided.into_iter().filter_map(Result::ok).map(|created| created.record).collect()
        }
        Step::Delete(name) => state.decide_delete_topic(name).into_iter().collect(),
        Step::Grow(name, count) => {
            let more = MorePartitions { name: name.clone(), count: *count, assignments: None, start: 1 };
            state.decide_create_partitions(&[more], &|_| true).into_iter().filter_map(Result::ok).collect()
        }
        Step::Alter(name, config, value) => {
            let Ok(resource) = state.find_resource(2, name) else { return vec![] };
            let change = [(config.clone(), Change::Set(Some(value.clone())))];
            state.decide_alter_configs(resource, &change).unwrap_or_default()
        }
        Step::Replace(name, partition) => {
            let Some(topic) = state.topic(name) else { return vec![] };
            let partition = PartitionId { topic: topic.id, partition: PartitionIndex(*partition) };
            let old = state.replicas(partition).map(|replicas| replicas[0]);
            let forgotten: Vec<_> = old.map(|old| (partition, old)).into_iter().collect();
            state.decide_replace_replicas(&forgotten)
        }
        Step::ProducerIds => state.decide_producer_ids().map(|(record, _)| record).into_iter().collect(),
    }
}

proptest! {
    #[test]
    fn what_is_decided_keeps_the_invariants(steps in steps()) {
        let mut state = cluster(3);
        for step in &steps {
            let before = state.clone();
            let records = records_of(&state, step);
            prop_assert_eq!(&state, &before);
            apply(&mut state, &records);
            check(&state);
        }
    }

    /// Decided on an old state, applied late and twice: some records no longer fit and are skipped.
    #[test]
    fn what_no_longer_fits_breaks_nothing(steps in steps(), lag in 1..4usize) {
        let mut state = cluster(3);
        for steps in steps.chunks(lag) {
            let records: Vec<_> = steps.iter().flat_map(|step| records_of(&state, step)).collect();
            apply(&mut state, &records);
            check(&state);
            apply(&mut state, &records);
            check(&state);
        }
    }

    #[test]
    fn damaged_bytes_never_panic(junk in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let _ = decode_entry(&junk);
        let _ = Controller::restore(&junk);
        let mut state = cluster(2);
        create(&mut state, 1, "t");
        let mut snapshot = state.snapshot().to_vec();
        let at = at.index(snapshot.len());
        snapshot[at] = to;
        let _ = Controller::restore(&snapshot);
    }
}
