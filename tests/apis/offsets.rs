//! ListOffsets, OffsetForLeaderEpoch, DeleteRecords.

use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use ottla::protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use ottla::protocol::messages::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use ottla::protocol::messages::{DeleteRecordsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest};

use crate::kit::{Client, Server};

/// One partition of one topic.
pub fn asked(topic: &str, partition: i32, timestamp: i64) -> Vec<ListOffsetsTopic> {
    let partition = ListOffsetsPartition { partition_index: partition, timestamp, ..Default::default() };
    vec![ListOffsetsTopic { name: topic.into(), partitions: vec![partition] }]
}

/// Offset, timestamp, epoch.
fn find(client: &mut Client, version: i16, timestamp: i64) -> Result<(i64, i64, i32), ErrorCode> {
    let request = ListOffsetsRequest { replica_id: -1, topics: asked("t", 0, timestamp), ..Default::default() };
    let response = client.ask_in(version, &request);
    let found = &response.topics[0].partitions[0];
    match found.error_code {
        ErrorCode::NONE => Ok((found.offset, found.timestamp, found.leader_epoch)),
        code => Err(code),
    }
}

fn delete(client: &mut Client, partition: i32, offset: i64) -> (i64, ErrorCode) {
    let partitions = vec![DeleteRecordsPartition { partition_index: partition, offset }];
    let topics = vec![DeleteRecordsTopic { name: "t".into(), partitions }];
    let response = client.ask(&DeleteRecordsRequest { topics, timeout_ms: 10_000 });
    let result = &response.topics[0].partitions[0];
    (result.low_watermark, result.error_code)
}

#[test]
fn offsets_are_found_by_time_and_by_special_timestamps() {
    let server = Server::start();
    let mut client = server.connect();
    client.create_topic("t", 1);
    assert_eq!(find(&mut client, 9, -1), Ok((0, -1, 1)));
    assert_eq!(find(&mut client, 9, -3), Ok((-1, -1, -1)), "an empty partition has no highest timestamp");
    client.produce("t", 0, 5, 10);
    assert_eq!(find(&mut client, 9, -1), Ok((5, -1, 1)));
    assert_eq!(find(&mut client, 1, -1), Ok((5, -1, -1)), "old versions have no epochs");
    assert_eq!(find(&mut client, 9, -2), Ok((0, -1, 1)));
    assert_eq!(find(&mut client, 9, -3), Ok((4, 1004, 1)));
    assert_eq!(find(&mut client, 9, -4), Ok((0, -1, 1)));
    assert_eq!(find(&mut client, 9, -5), Ok((-1, -1, -1)), "nothing is tiered");
    assert_eq!(find(&mut client, 10, -6), Err(ErrorCode::UNSUPPORTED_VERSION));
    assert_eq!(find(&mut client, 11, -6), Ok((-1, -1, -1)), "nothing will be");
    assert_eq!(find(&mut client, 6, -3), Err(ErrorCode::UNSUPPORTED_VERSION));
    assert_eq!(find(&mut client, 9, 1002), Ok((2, 1002, 1)));
    assert_eq!(find(&mut client, 9, 2000), Ok((-1, -1, -1)));

    let mut twice = asked("t", 0, -1);
    twice.extend(asked("t", 0, -2));
    twice.extend(asked("no", 0, -1));
    let response = client.ask(&ListOffsetsRequest { replica_id: -1, topics: twice, ..Default::default() });
    let codes = response.topics.iter().map(|topic| (topic.partitions.len(), topic.partitions[0].error_code));
    assert_eq!(
        codes.collect::<Vec<_>>(),
        [(1, ErrorCode::INVALID_REQUEST), (1, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)]
    );
}

#[test]
fn deleted_records_are_gone_from_every_answer() {
    let server = Server::start();
    let mut client = server.connect();
    client.create_topic("t", 1);
    client.produce("t", 0, 5, 10);
    assert_eq!(delete(&mut client, 0, 3), (3, ErrorCode::NONE));
    assert_eq!(delete(&mut client, 0, 1), (3, ErrorCode::NONE), "the start never goes back");
    assert_eq!(delete(&mut client, 0, 6), (-1, ErrorCode::OFFSET_OUT_OF_RANGE));
    assert_eq!(delete(&mut client, 0, -2), (-1, ErrorCode::OFFSET_OUT_OF_RANGE));
    assert_eq!(delete(&mut client, 7, 0), (-1, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    assert_eq!(find(&mut client, 9, -2), Ok((3, -1, 1)));
    assert_eq!(find(&mut client, 9, 0), Ok((3, 1003, 1)), "found by time from there on only");
    assert_eq!(delete(&mut client, 0, -1), (5, ErrorCode::NONE), "-1 is the high watermark");
}

#[test]
fn an_epoch_ends_where_the_next_begins_or_the_log_does() {
    let server = Server::start();
    let mut client = server.connect();
    client.create_topic("t", 1);
    client.produce("t", 0, 5, 10);
    let mut end = |current_leader_epoch, leader_epoch| {
        let partition = OffsetForLeaderPartition { partition: 0, current_leader_epoch, leader_epoch };
        let topics = vec![OffsetForLeaderTopic { topic: "t".into(), partitions: vec![partition] }];
        let response = client.ask(&OffsetForLeaderEpochRequest { replica_id: -1, topics });
        let found = &response.topics[0].partitions[0];
        (found.error_code, found.leader_epoch, found.end_offset)
    };
    assert_eq!(end(-1, 1), (ErrorCode::NONE, 1, 5));
    assert_eq!(end(1, 0), (ErrorCode::NONE, 0, 0));
    assert_eq!(end(1, 2), (ErrorCode::NONE, -1, -1));
    assert_eq!(end(1, -1), (ErrorCode::NONE, -1, -1));
    assert_eq!(end(0, 1), (ErrorCode::FENCED_LEADER_EPOCH, -1, -1));
    assert_eq!(end(2, 1), (ErrorCode::UNKNOWN_LEADER_EPOCH, -1, -1));
}
