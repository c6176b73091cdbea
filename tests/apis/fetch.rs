//! Fetch: long polls, limits, epochs, sessions.

use std::time::{Duration, Instant};

use ottla::ids::TopicId;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::delete_topics::DeleteTopicState;
use ottla::protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use ottla::protocol::messages::{DeleteTopicsRequest, FetchRequest, FetchResponse};

use crate::kit::Server;

/// A fetch of one partition, named as the version names it.
pub fn request(version: i16, topic: &str, id: TopicId, partition: i32, offset: i64) -> FetchRequest {
    FetchRequest { max_wait_ms: 0, min_bytes: 1, topics: vec![part(version, topic, id, partition, offset)], ..base() }
}

fn base() -> FetchRequest {
    FetchRequest { max_bytes: 50 << 20, session_epoch: -1, replica_id: -1, ..Default::default() }
}

fn part(version: i16, topic: &str, id: TopicId, partition: i32, offset: i64) -> FetchTopic {
    let (topic, topic_id) = if version < 13 { (topic.into(), TopicId::ZERO) } else { ("".into(), id) };
    let partition =
        FetchPartition { partition, fetch_offset: offset, partition_max_bytes: 1 << 20, ..Default::default() };
    FetchTopic { topic, topic_id, partitions: vec![partition] }
}

/// The one partition of a response.
pub fn only(response: &FetchResponse) -> &PartitionData {
    assert_eq!(response.error_code, ErrorCode::NONE);
    assert_eq!(response.responses.iter().map(|topic| topic.partitions.len()).sum::<usize>(), 1);
    &response.responses[0].partitions[0]
}

fn bytes(data: &PartitionData) -> usize {
    data.records.as_ref().map_or(0, |records| records.len())
}

#[test]
fn records_come_back_with_the_ends_of_their_partition() {
    let server = Server::start();
    let mut client = server.connect();
    let id = client.create_topic("t", 1);
    assert_eq!(client.produce("t", 0, 5, 100), 0);
    assert_eq!(client.produce("t", 0, 5, 100), 5);
    for version in [4, 12, 13, 18] {
        let response = client.ask_in(version, &request(version, "t", id, 0, 7));
        let data = only(&response);
        assert_eq!((data.error_code, data.high_watermark, data.last_stable_offset), (ErrorCode::NONE, 10, 10));
        let batch = data.records.clone().unwrap().into_bytes();
        assert_eq!(i64::from_be_bytes(batch[..8].try_into().unwrap()), 5, "from the batch that holds the offset on");
        assert_eq!(data.aborted_transactions, None);
        assert_eq!(only(&client.ask_in(version, &request(version, "t", id, 0, 10))).error_code, ErrorCode::NONE);
        let beyond = client.ask_in(version, &request(version, "t", id, 0, 11));
        assert_eq!((only(&beyond).error_code, only(&beyond).high_watermark), (ErrorCode::OFFSET_OUT_OF_RANGE, -1));
    }
    let committed = FetchRequest { isolation_level: 1, ..request(18, "t", id, 0, 0) };
    assert_eq!(only(&client.ask(&committed)).aborted_transactions, Some(Vec::new()));
}

#[test]
fn a_poll_waits_for_records_and_no_longer() {
    let server = Server::start();
    let (mut reader, mut writer) = (server.connect(), server.connect());
    let id = writer.create_topic("t", 2);
    let poll = FetchRequest { max_wait_ms: 20_000, ..request(17, "t", id, 1, 0) };
    let started = Instant::now();
    reader.send(17, &poll);
    writer.produce("t", 0, 1, 10);
    writer.produce("t", 1, 1, 10);
    let response: FetchResponse = reader.receive(17);
    assert!(bytes(only(&response)) > 0);
    assert!(started.elapsed() < Duration::from_secs(15), "it did not wait for its time to be up");

    let short = FetchRequest { max_wait_ms: 50, min_bytes: 1 << 20, ..poll.clone() };
    assert!(bytes(only(&reader.ask(&short))) > 0, "when time is up it gives what there is");
    let (at_once, before) = (FetchRequest { min_bytes: 0, ..request(17, "t", id, 1, 1) }, Instant::now());
    assert_eq!(bytes(only(&reader.ask(&FetchRequest { max_wait_ms: 20_000, ..at_once }))), 0);
    assert!(before.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_poll_ends_when_its_topic_is_deleted() {
    let server = Server::start();
    let (mut reader, mut other) = (server.connect(), server.connect());
    let id = other.create_topic("t", 1);
    reader.send(17, &FetchRequest { max_wait_ms: 25_000, ..request(17, "t", id, 0, 0) });
    // Deleting waits for nothing of the reader, so the two meet in either order.
    let topics = vec![DeleteTopicState { name: None, topic_id: id }];
    other.ask(&DeleteTopicsRequest { topics, timeout_ms: 1000, ..Default::default() });
    let started = Instant::now();
    let response: FetchResponse = reader.receive(17);
    let code = only(&response).error_code;
    assert!([ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::UNKNOWN_TOPIC_ID].contains(&code), "{code}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn the_first_batch_is_whole_and_the_rest_keeps_to_the_limits() {
    let server = Server::start();
    let mut client = server.connect();
    let id = client.create_topic("t", 2);
    for partition in [0, 1] {
        client.produce("t", partition, 1, 3000);
        client.produce("t", partition, 1, 3000);
    }
    let mut both = request(17, "t", id, 0, 0);
    let second = FetchPartition { partition: 1, ..both.topics[0].partitions[0].clone() };
    both.topics[0].partitions.push(second);
    let mut sizes = |max_bytes, partition_max_bytes| {
        let mut fetch = FetchRequest { max_bytes, ..both.clone() };
        for partition in &mut fetch.topics[0].partitions {
            partition.partition_max_bytes = partition_max_bytes;
        }
        let response = client.ask(&fetch);
        response.responses[0].partitions.iter().map(bytes).collect::<Vec<_>>()
    };
    let all = sizes(1 << 20, 1 << 20);
    assert_eq!(all[0], all[1]);
    let one = all[0] / 2;
    assert_eq!(sizes(10, 10), [one, 0], "one whole batch, however small the limit");
    assert_eq!(sizes(1 << 20, 10), [one, 0]);
    assert_eq!(sizes(i32::try_from(one * 3 + 10).unwrap(), 1 << 20), [one * 2, one]);
    assert_eq!(sizes(1 << 20, i32::try_from(one + 10).unwrap()), [one, one]);
    assert_eq!(sizes(0, 0), [one, 0]);
}

#[test]
fn unknown_topics_and_partitions_have_errors_of_their_own() {
    let server = Server::start();
    let mut client = server.connect();
    let id = client.create_topic("t", 1);
    let code = |response: FetchResponse| only(&response).error_code;
    assert_eq!(code(client.ask_in(12, &request(12, "no", id, 0, 0))), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(code(client.ask_in(12, &request(12, "t", id, 1, 0))), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(code(client.ask(&request(17, "t", TopicId([9; 16]), 0, 0))), ErrorCode::UNKNOWN_TOPIC_ID);
    assert_eq!(code(client.ask(&request(17, "t", TopicId::ZERO, 0, 0))), ErrorCode::UNKNOWN_TOPIC_ID);
    assert_eq!(code(client.ask(&request(17, "t", id, -1, 0))), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[test]
fn epochs_are_compared_with_the_leaders() {
    let server = Server::start();
    let mut client = server.connect();
    let id = client.create_topic("t", 1);
    client.produce("t", 0, 1, 10);
    let mut with = |current_leader_epoch, last_fetched_epoch, offset| {
        let mut fetch = request(17, "t", id, 0, offset);
        fetch.topics[0].partitions[0].current_leader_epoch = current_leader_epoch;
        fetch.topics[0].partitions[0].last_fetched_epoch = last_fetched_epoch;
        client.ask(&fetch)
    };
    assert_eq!(only(&with(1, -1, 0)).error_code, ErrorCode::NONE, "the first term is 1");
    assert_eq!(only(&with(2, -1, 0)).error_code, ErrorCode::UNKNOWN_LEADER_EPOCH);
    let fenced = with(0, -1, 0);
    assert_eq!(only(&fenced).error_code, ErrorCode::FENCED_LEADER_EPOCH);
    assert_eq!((only(&fenced).current_leader.leader_id, only(&fenced).current_leader.leader_epoch), (1, 1));
    assert_eq!(fenced.node_endpoints.len(), 1);
    let diverging = with(1, 1, 5);
    assert_eq!(only(&diverging).error_code, ErrorCode::NONE);
    assert_eq!((only(&diverging).diverging_epoch.epoch, only(&diverging).diverging_epoch.end_offset), (1, 1));
    assert_eq!(bytes(only(&diverging)), 0);
}

#[test]
fn a_session_carries_what_changed() {
    let server = Server::start();
    let mut client = server.connect();
    let id = client.create_topic("t", 2);
    let mut open = FetchRequest { session_epoch: 0, ..request(17, "t", id, 0, 0) };
    let second = FetchPartition { partition: 1, ..open.topics[0].partitions[0].clone() };
    open.topics[0].partitions.push(second);
    let opened = client.ask(&open);
    assert_eq!(opened.responses[0].partitions.len(), 2);
    let session_id = opened.session_id;
    assert!(session_id > 0);

    let next = |session_epoch| FetchRequest { session_id, session_epoch, max_wait_ms: 0, min_bytes: 1, ..base() };
    assert!(client.ask(&next(1)).responses.is_empty());
    client.produce("t", 1, 1, 10);
    let changed = client.ask(&next(2));
    assert_eq!((only(&changed).partition_index, changed.session_id), (1, session_id));
    assert_eq!(client.ask(&next(2)).error_code, ErrorCode::INVALID_FETCH_SESSION_EPOCH);
    assert_eq!(client.ask_in(12, &next(3)).error_code, ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
    let unknown = FetchRequest { session_id: session_id.wrapping_add(1).max(1), ..next(3) };
    assert_eq!(client.ask(&unknown).error_code, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
    assert_eq!(client.ask(&next(-1)).session_id, 0);
    assert_eq!(client.ask(&next(3)).error_code, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
}
