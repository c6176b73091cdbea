//! Topics: created, found, widened, paged through, deleted. And ids for producers, and coordinators that there are none of.

use ottla::ids::TopicId;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::create_partitions::CreatePartitionsTopic;
use ottla::protocol::messages::delete_topics::DeleteTopicState;
use ottla::protocol::messages::describe_topic_partitions::{Cursor, TopicRequest};
use ottla::protocol::messages::metadata::{MetadataRequestTopic, MetadataResponseTopic};
use ottla::protocol::messages::*;

use crate::client::{batch, produce};
use crate::kit::{Client, Server, topic};

fn by_name(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic { name: Some(name.into()), ..Default::default() }
}

fn look_up(client: &mut Client, topics: Option<Vec<MetadataRequestTopic>>, create: bool) -> Vec<MetadataResponseTopic> {
    client.ask(&MetadataRequest { topics, allow_auto_topic_creation: create, ..Default::default() }).topics
}

#[test]
fn asking_for_a_topic_creates_it_if_both_sides_agree() {
    let server = Server::start();
    let mut client = server.connect();
    let answer = look_up(&mut client, Some(vec![by_name("t"), by_name("t"), by_name("a b")]), false);
    let codes: Vec<_> = answer.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::INVALID_TOPIC_EXCEPTION]);
    assert!(look_up(&mut client, None, true).is_empty(), "asking for all creates none");
    let created = look_up(&mut client, Some(vec![by_name("t")]), true).remove(0);
    assert_eq!((created.error_code, created.partitions.len()), (ErrorCode::NONE, 1));
    assert_eq!((created.partitions[0].leader_id, created.partitions[0].leader_epoch), (1, 1));
    let internal = look_up(&mut client, Some(vec![by_name("__consumer_offsets")]), true).remove(0);
    assert_eq!((internal.error_code, internal.is_internal), (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, true));

    let server = Server::start_with(|config| config.topics.auto_create = false);
    let refused = look_up(&mut server.connect(), Some(vec![by_name("t")]), true).remove(0);
    assert_eq!(refused.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[test]
fn a_topic_is_found_by_name_by_id_and_among_all() {
    let server = Server::start();
    let mut client = server.connect();
    let id = client.create_topic("t", 3);
    let by_id = |id| MetadataRequestTopic { topic_id: id, name: None };
    let found = look_up(&mut client, Some(vec![by_id(id), by_id(TopicId([3; 16])), by_name("ignored")]), true);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].name.as_deref(), found[0].partitions.len()), (Some("t"), 3));
    assert_eq!((found[1].error_code, found[1].name.as_deref()), (ErrorCode::UNKNOWN_TOPIC_ID, None));
    assert_eq!(look_up(&mut client, None, true).len(), 1);
    assert!(look_up(&mut client, Some(Vec::new()), true).is_empty());
    let all = client.ask_in(0, &MetadataRequest { topics: Some(Vec::new()), ..Default::default() });
    assert_eq!((all.topics.len(), all.brokers.len()), (1, 1), "in version 0 none means all");

    let early = client.ask_in(11, &MetadataRequest { topics: Some(vec![by_id(id)]), ..Default::default() });
    assert_eq!((early.topics[0].error_code, early.topics[0].topic_id), (ErrorCode::INVALID_REQUEST, id));
    let asked = MetadataRequest {
        topics: None,
        include_topic_authorized_operations: true,
        include_cluster_authorized_operations: true,
        ..Default::default()
    };
    let allowed = client.ask_in(10, &asked);
    assert_eq!((allowed.cluster_authorized_operations, allowed.topics[0].topic_authorized_operations), (8096, 3576));
    assert!(allowed.cluster_id.is_some_and(|id| id.len() == 22));
}

#[test]
fn creating_topics_says_what_was_made_and_what_was_not() {
    let server = Server::start();
    let mut client = server.connect();
    let only_checked = CreateTopicsRequest { topics: vec![topic("t", 2)], validate_only: true, ..Default::default() };
    let checked = client.ask(&only_checked).topics.remove(0);
    assert_eq!((checked.error_code, checked.num_partitions), (ErrorCode::NONE, 2));
    assert!(look_up(&mut client, None, false).is_empty());

    let topics = vec![topic("t", -1), topic("a.b", 1), topic("a_b", 1), topic("x", 0), topic("y", 1), topic("y", 1)];
    let response = client.ask(&CreateTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() });
    let codes: Vec<_> = response.topics.iter().map(|topic| (&*topic.name, topic.error_code)).collect();
    assert_eq!(
        codes,
        [
            ("t", ErrorCode::NONE),
            ("a.b", ErrorCode::NONE),
            ("a_b", ErrorCode::INVALID_TOPIC_EXCEPTION),
            ("x", ErrorCode::INVALID_PARTITIONS),
            ("y", ErrorCode::INVALID_REQUEST),
        ]
    );
    let made = &response.topics[0];
    assert_eq!((made.num_partitions, made.replication_factor), (1, 1));
    let configs = made.configs.as_ref().unwrap();
    assert!(configs.iter().any(|config| config.name == "segment.ms" && config.config_source == 5));
    let again = client.ask(&CreateTopicsRequest { topics: vec![topic("t", 1)], ..Default::default() });
    assert_eq!(again.topics[0].error_code, ErrorCode::TOPIC_ALREADY_EXISTS);
    client.produce("t", 0, 1, 10);
}

#[test]
fn a_topic_gets_more_partitions_never_fewer() {
    let server = Server::start();
    let mut client = server.connect();
    client.create_topic("t", 2);
    let mut widen = |name: &str, count| {
        let topics = vec![CreatePartitionsTopic { name: name.into(), count, assignments: None }];
        client.ask(&CreatePartitionsRequest { topics, timeout_ms: 10_000, validate_only: false }).results[0].error_code
    };
    assert_eq!(widen("t", 4), ErrorCode::NONE);
    assert_eq!(widen("t", 4), ErrorCode::INVALID_PARTITIONS);
    assert_eq!(widen("t", 3), ErrorCode::INVALID_PARTITIONS);
    assert_eq!(widen("no", 3), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    client.produce("t", 3, 1, 10);
}

#[test]
fn a_deleted_topic_comes_back_as_another_one() {
    let server = Server::start();
    let mut client = server.connect();
    let id = client.create_topic("t", 1);
    client.produce("t", 0, 3, 10);
    let mut delete = |topics: Vec<(Option<&str>, TopicId)>| {
        let state =
            |(name, topic_id): (Option<&str>, TopicId)| DeleteTopicState { name: name.map(Into::into), topic_id };
        let topics = topics.into_iter().map(state).collect();
        let response = client.ask(&DeleteTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() });
        response.responses.iter().map(|result| result.error_code).collect::<Vec<_>>()
    };
    assert_eq!(delete(vec![(Some("t"), TopicId::ZERO), (None, id)]), [ErrorCode::INVALID_REQUEST; 2]);
    assert_eq!(delete(vec![(Some("t"), id), (None, TopicId::ZERO)]), [ErrorCode::INVALID_REQUEST; 2]);
    assert_eq!(delete(vec![(Some("no"), TopicId::ZERO)]), [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION]);
    assert_eq!(delete(vec![(None, id)]), [ErrorCode::NONE]);
    assert_eq!(delete(vec![(None, id)]), [ErrorCode::UNKNOWN_TOPIC_ID]);
    assert_ne!(client.create_topic("t", 1), id);
    assert_eq!(client.produce("t", 0, 1, 10), 0, "and empty");
}

#[test]
fn topics_are_described_page_by_page() {
    let server = Server::start();
    let mut client = server.connect();
    for (name, partitions) in [("c", 2), ("a", 3), ("b", 1)] {
        client.create_topic(name, partitions);
    }
    let mut page = |names: &[&str], cursor: Option<(&str, i32)>, limit| {
        let response = client.ask(&DescribeTopicPartitionsRequest {
            topics: names.iter().map(|name| TopicRequest { name: (*name).into() }).collect(),
            response_partition_limit: limit,
            cursor: cursor.map(|(name, partition_index)| Cursor { topic_name: name.into(), partition_index }),
        });
        let indexes = |topic: &describe_topic_partitions::DescribeTopicPartitionsResponseTopic| {
            let indexes = topic.partitions.iter().map(|partition| partition.partition_index).collect::<Vec<_>>();
            (topic.name.as_deref().unwrap_or_default().to_owned(), topic.error_code.0, indexes)
        };
        let topics: Vec<_> = response.topics.iter().map(indexes).collect();
        (topics, response.next_cursor.map(|cursor| (cursor.topic_name.to_string(), cursor.partition_index)))
    };
    let row = |name: &str, code: i16, indexes: &[i32]| (name.to_owned(), code, indexes.to_vec());
    assert_eq!(page(&[], None, 2), (vec![row("a", 0, &[0, 1])], Some(("a".to_owned(), 2))));
    let rest = vec![row("a", 0, &[2]), row("b", 0, &[0])];
    assert_eq!(page(&[], Some(("a", 2)), 2), (rest, Some(("c".to_owned(), 0))));
    assert_eq!(page(&[], Some(("c", 0)), 2), (vec![row("c", 0, &[0, 1])], None));
    assert_eq!(page(&["x", "b"], None, 9), (vec![row("b", 0, &[0]), row("x", 3, &[])], None));
    assert_eq!(page(&["b"], Some(("a", 0)), 9), (vec![row("b", 42, &[])], None), "the cursor's topic is not asked for");
}

#[test]
fn the_log_directory_lists_its_partitions() {
    let server = Server::start();
    let mut client = server.connect();
    client.create_topic("t", 2);
    client.produce("t", 1, 1, 5000);
    let response = client.ask(&DescribeLogDirsRequest { topics: None });
    let dir = &response.results[0];
    assert!(dir.log_dir.ends_with("/data") && dir.total_bytes > dir.usable_bytes && dir.usable_bytes > 0);
    let sizes: Vec<_> = dir.topics[0].partitions.iter().map(|partition| partition.partition_size).collect();
    assert!(sizes.len() == 2 && sizes[0] < 5000 && sizes[1] > 5000, "{sizes:?}");
    assert!(client.ask(&DescribeLogDirsRequest { topics: Some(Vec::new()) }).results[0].topics.is_empty());
}

#[test]
fn every_producer_gets_another_id_and_transactions_are_refused_for_good() {
    let server = Server::start();
    let mut client = server.connect();
    let mut new = || client.ask(&InitProducerIdRequest { producer_id: -1, producer_epoch: -1, ..Default::default() });
    let (one, two) = (new(), new());
    assert_eq!((one.error_code, one.producer_epoch), (ErrorCode::NONE, 0));
    assert_ne!(one.producer_id, two.producer_id);
    let transactional = InitProducerIdRequest {
        transactional_id: Some("x".into()),
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    assert_eq!(client.ask(&transactional).error_code, ErrorCode::INVALID_REQUEST);
    let half = InitProducerIdRequest { producer_id: 5, producer_epoch: -1, ..Default::default() };
    assert_eq!(client.ask(&half).error_code, ErrorCode::INVALID_REQUEST);
    let find = FindCoordinatorRequest { key: "x".into(), key_type: 1, ..Default::default() };
    let found = client.ask_in(3, &find);
    assert!(found.error_code == ErrorCode::INVALID_REQUEST && found.error_message.is_some());
}

#[test]
fn the_cluster_is_described_to_those_who_ask_for_brokers() {
    let server = Server::start();
    let mut client = server.connect();
    let ask = |endpoint_type| DescribeClusterRequest { endpoint_type, ..Default::default() };
    let response = client.ask(&ask(1));
    assert_eq!((response.controller_id, response.brokers.len()), (1, 1));
    assert_eq!(client.ask(&ask(2)).error_code, ErrorCode::MISMATCHED_ENDPOINT_TYPE);
    assert_eq!(client.ask(&ask(9)).error_code, ErrorCode::UNSUPPORTED_ENDPOINT_TYPE);
}

#[test]
fn a_list_of_all_topics_names_no_partition_without_a_leader() {
    let server = Server::start();
    let mut client = server.connect();
    let mut maker = server.connect();
    let making = std::thread::spawn(move || {
        for number in 0..10 {
            maker.create_topic(&format!("t{number}"), 16);
            if number % 2 == 0 {
                let topic_names = vec![format!("t{number}").as_str().into()];
                maker.ask_in(5, &DeleteTopicsRequest { topic_names, ..Default::default() });
            }
        }
    });
    while !making.is_finished() {
        for topic in look_up(&mut client, None, false) {
            let leaderless = topic.partitions.iter().filter(|partition| partition.error_code != ErrorCode::NONE);
            assert_eq!(leaderless.count(), 0, "{:?}", topic.name);
            assert!(!topic.partitions.is_empty(), "{:?} has no partitions", topic.name);
        }
    }
    making.join().expect("all topics are created");
    let all = look_up(&mut client, None, false);
    assert_eq!(all.iter().map(|topic| topic.partitions.len()).collect::<Vec<_>>(), [16; 5]);
}

#[test]
fn a_stop_while_topics_are_being_deleted_is_a_clean_one() {
    for _ in 0..5 {
        // Dropping the server stops it, and demands that the stop was clean.
        let server = Server::start();
        let mut client = server.connect();
        let names: Vec<String> = (0..12).map(|number| format!("t{number}")).collect();
        for name in &names {
            client.create_topic(name, 1);
            client.produce(name, 0, 1, 10);
        }
        for name in &names {
            client.ask_in(5, &DeleteTopicsRequest { topic_names: vec![name.as_str().into()], ..Default::default() });
        }
    }
}

#[test]
fn a_topic_is_written_to_by_its_id_as_long_as_it_is_there() {
    let server = Server::start();
    let mut client = server.connect();
    let id = client.create_topic("t", 1);
    let mut write = |id| {
        let mut request = produce("", 0, -1, batch(1000, 1, 10));
        request.topic_data[0].topic_id = id;
        let response = client.ask_in(13, &request);
        assert_eq!(response.responses[0].topic_id, id);
        response.responses[0].partition_responses[0].error_code
    };
    assert_eq!(write(id), ErrorCode::NONE);
    assert_eq!(write(TopicId([9; 16])), ErrorCode::UNKNOWN_TOPIC_ID);
    assert_eq!(write(TopicId::ZERO), ErrorCode::UNKNOWN_TOPIC_ID);
    let mut other = server.connect();
    let gone = DeleteTopicState { name: Some("t".into()), ..Default::default() };
    other.ask(&DeleteTopicsRequest { topics: vec![gone], timeout_ms: 10_000, ..Default::default() });
    let again = other.create_topic("t", 1);
    assert_eq!((write(id), write(again)), (ErrorCode::UNKNOWN_TOPIC_ID, ErrorCode::NONE));
}
