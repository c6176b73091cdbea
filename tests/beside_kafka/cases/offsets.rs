//! ListOffsets, OffsetForLeaderEpoch, DeleteRecords and InitProducerId.

use ottla::ids::TopicId;
use ottla::protocol::compression::Compression;
use ottla::protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use ottla::protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use ottla::protocol::messages::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use ottla::protocol::messages::{
    DeleteRecordsRequest, InitProducerIdRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest,
};
use ottla::protocol::record::BatchBuilder;

use super::fetch::{self, Want};
use super::kit::{TIMEOUT_MS, append, batch, batch_of, create};
use crate::run::Run;

/// The cases.
pub fn cases(run: &mut Run) {
    create(run, "offsets", 2, &[]);
    for values in [&["a", "b", "c"][..], &["d"], &["e", "f"]] {
        append(run, "offsets", 0, batch(1000 * i64::try_from(values.len()).unwrap(), values));
    }
    list_offsets(run);
    list_offsets_errors(run);
    stored_otherwise(run);
    epochs(run);
    delete_records(run);
    delete_records_errors(run);
    init_producer_id(run);
}

/// A request for one or several (partition, leader epoch, timestamp).
fn listed(topic: &str, asked: &[(i32, i32, i64)]) -> ListOffsetsRequest {
    let partition = |(partition_index, current_leader_epoch, timestamp): &(i32, i32, i64)| ListOffsetsPartition {
        partition_index: *partition_index,
        current_leader_epoch: *current_leader_epoch,
        timestamp: *timestamp,
    };
    let partitions = asked.iter().map(partition).collect();
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic { name: topic.into(), partitions }],
        ..Default::default()
    }
}

fn list_offsets(run: &mut Run) {
    run.case("ListOffsets");
    for timestamp in [-1, -2, -3, -4, -5, -6, -7, 0, 1, 1000, 1001, 2001, 3000, 3002, 3003, i64::MAX] {
        run.step(&format!("timestamp {timestamp}"), |_| listed("offsets", &[(0, -1, timestamp)]));
    }
    for timestamp in [-1, -2, -3, -4, -5, -6, 0] {
        run.step(&format!("timestamp {timestamp} in an empty partition"), |_| listed("offsets", &[(1, -1, timestamp)]));
    }
    run.step_from("read committed", 2, |_| ListOffsetsRequest {
        isolation_level: 1,
        ..listed("offsets", &[(0, -1, -1), (1, -1, -1)])
    });
    for (what, timeout_ms) in [("some", 30_000), ("a negative", -1)] {
        run.step_from(&format!("{what} time to wait"), 10, |_| ListOffsetsRequest {
            timeout_ms,
            ..listed("offsets", &[(0, -1, -2), (1, -1, 5)])
        });
    }
    run.step("nothing", |_| ListOffsetsRequest { replica_id: -1, ..Default::default() });
    run.step("as the debugger", |_| ListOffsetsRequest { replica_id: -2, ..listed("offsets", &[(0, -1, -1)]) });
    run.step("as a follower", |_| ListOffsetsRequest { replica_id: 5, ..listed("offsets", &[(0, -1, -1)]) });
}

/// Times within batches that are compressed, or carry the broker's time, or are not in order of time.
fn stored_otherwise(run: &mut Run) {
    run.case("ListOffsets in other batches");
    create(run, "offsets-packed", 1, &[]);
    for (at, codec) in (0..).zip(Compression::ALL) {
        append(run, "offsets-packed", 0, batch_of(BatchBuilder::new(codec), 1000 + 10 * at, &["a", "b", "c"]));
    }
    append(run, "offsets-packed", 0, batch(500, &["late"]));
    for timestamp in [-3, 0, 501, 1001, 1003, 1011, 1022, 1032, 1042, 1043] {
        let first = if timestamp < 0 { 7 } else { 1 };
        run.step_from(&format!("timestamp {timestamp}"), first, |_| listed("offsets-packed", &[(0, -1, timestamp)]));
    }
    create(run, "offsets-now", 1, &[("message.timestamp.type", "LogAppendTime")]);
    append(run, "offsets-now", 0, batch(1000, &["a", "b", "c"]));
    for timestamp in [-3, 0, 1001, i64::MAX] {
        let first = if timestamp < 0 { 7 } else { 1 };
        run.step_from(&format!("the broker's time, {timestamp}"), first, |_| {
            listed("offsets-now", &[(0, -1, timestamp)])
        });
    }
}

fn list_offsets_errors(run: &mut Run) {
    run.case("ListOffsets, errors");
    run.step("no such topic", |_| listed("offsets-none", &[(0, -1, -1)]));
    run.step("no such topic, by time", |_| listed("offsets-none", &[(0, -1, 5)]));
    run.step("no such partition", |_| listed("offsets", &[(7, -1, -1)]));
    run.step("a name that cannot be", |_| listed("a/b", &[(0, -1, -1)]));
    run.step("a partition twice", |_| listed("offsets", &[(0, -1, -1), (0, -1, -2), (1, -1, -2)]));
    let epoch = run.epoch();
    run.step_from("the right epoch", 4, |_| listed("offsets", &[(0, epoch, -1)]));
    run.step_from("an epoch from the future", 4, |_| listed("offsets", &[(0, epoch + 1, -1)]));
    run.step_from("an epoch from the future, by time", 4, |_| listed("offsets", &[(0, epoch + 1, 5)]));
    run.step_from("no such partition of that epoch", 4, |_| listed("offsets", &[(7, epoch + 1, 5)]));
}

/// A request for one or several (partition, current epoch, epoch).
fn ended(topic: &str, asked: &[(i32, i32, i32)]) -> OffsetForLeaderEpochRequest {
    let partition = |(partition, current_leader_epoch, leader_epoch): &(i32, i32, i32)| OffsetForLeaderPartition {
        partition: *partition,
        current_leader_epoch: *current_leader_epoch,
        leader_epoch: *leader_epoch,
    };
    let partitions = asked.iter().map(partition).collect();
    OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: vec![OffsetForLeaderTopic { topic: topic.into(), partitions }],
    }
}

fn epochs(run: &mut Run) {
    run.case("OffsetForLeaderEpoch");
    let epoch = run.epoch();
    run.step("this epoch", |_| ended("offsets", &[(0, -1, epoch)]));
    run.step("this epoch of an empty partition", |_| ended("offsets", &[(1, -1, epoch)]));
    run.step("an epoch to come", |_| ended("offsets", &[(0, -1, epoch + 1)]));
    run.step("a negative epoch", |_| ended("offsets", &[(0, -1, -1)]));
    run.step("an epoch far below", |_| ended("offsets", &[(0, -1, -7)]));
    run.step("the client is of this epoch", |_| ended("offsets", &[(0, epoch, epoch)]));
    run.step("the client is of an epoch to come", |_| ended("offsets", &[(0, epoch + 1, epoch)]));
    run.step("no such topic", |_| ended("offsets-none", &[(0, -1, epoch)]));
    run.step("no such partition", |_| ended("offsets", &[(7, -1, epoch), (0, -1, epoch)]));
    run.step("a partition twice", |_| ended("offsets", &[(0, -1, epoch), (0, -1, epoch)]));
    run.step("nothing", |_| OffsetForLeaderEpochRequest::default());
}

fn deleted(topic: &str, asked: &[(i32, i64)]) -> DeleteRecordsRequest {
    let partition = |(partition_index, offset): &(i32, i64)| DeleteRecordsPartition {
        partition_index: *partition_index,
        offset: *offset,
    };
    let topic = DeleteRecordsTopic { name: topic.into(), partitions: asked.iter().map(partition).collect() };
    DeleteRecordsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS }
}

fn delete_records(run: &mut Run) {
    run.case("DeleteRecords");
    let names: Vec<String> = (0..=2).map(|version| format!("delete-records-v{version}")).collect();
    for name in &names {
        create(run, name, 2, &[]);
        append(run, name, 0, batch(1, &["a", "b", "c", "d"]));
    }
    let name = |version: i16| names[usize::try_from(version).unwrap()].as_str();
    run.step("before the start", |version| deleted(name(version), &[(0, 0)]));
    run.step("within a batch", |version| deleted(name(version), &[(0, 2)]));
    run.step("back", |version| deleted(name(version), &[(0, 1)]));
    run.step("the same again", |version| deleted(name(version), &[(0, 2)]));
    run.step("behind the end", |version| deleted(name(version), &[(0, 5)]));
    run.step("a negative offset", |version| deleted(name(version), &[(0, -2)]));
    run.step("everything, and an empty partition", |version| deleted(name(version), &[(0, -1), (1, -1)]));
    for (at, name) in names.iter().enumerate() {
        let at = i16::try_from(at).unwrap();
        run.case(&format!("after DeleteRecords in version {at}"));
        run.step_in("the start", [9], |_| listed(name, &[(0, -1, -2), (0, -1, -1)]));
        run.step_in("the start of each", [9], |_| listed(name, &[(1, -1, -2)]));
        run.step_in("by time", [7], |_| listed(name, &[(0, -1, 0)]));
        let topic = (name.as_str(), TopicId::ZERO);
        for offset in [0, 3, 4, 5] {
            run.step_in(&format!("reading from {offset}"), [12], |version| {
                fetch::request(&[Want::new(topic, 0, offset)], version)
            });
        }
        run.step_in("the largest time", [7, 8], |_| listed(name, &[(0, -1, -3)]));
        let epoch = run.epoch();
        run.step_in("where the epoch ends", [4], |_| ended(name, &[(0, -1, epoch)]));
    }
}

fn delete_records_errors(run: &mut Run) {
    run.case("DeleteRecords, errors");
    create(run, "delete-records-compact", 1, &[("cleanup.policy", "compact")]);
    create(run, "delete-records-both", 1, &[("cleanup.policy", "compact,delete")]);
    run.step("a compacted topic", |_| deleted("delete-records-compact", &[(0, -1)]));
    run.step("a topic of both policies", |_| deleted("delete-records-both", &[(0, -1)]));
    run.step("no such topic", |_| deleted("delete-records-none", &[(0, 0)]));
    run.step("no such partition", |_| deleted("offsets", &[(9, 0)]));
    run.step("a name that cannot be", |_| deleted("a/b", &[(0, 0)]));
    run.step("an internal topic", |_| deleted("__consumer_offsets", &[(0, 0)]));
    run.step("a partition twice", |_| deleted("offsets", &[(1, 0), (1, -1)]));
    run.step("nothing", |_| DeleteRecordsRequest { timeout_ms: TIMEOUT_MS, ..Default::default() });
}

fn init_producer_id(run: &mut Run) {
    run.case("InitProducerId");
    let plain = || InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
    run.step("a new producer", |_| plain());
    run.step("another", |_| plain());
    run.step("no timeout", |_| InitProducerIdRequest { transaction_timeout_ms: 0, ..plain() });
    run.step("a negative timeout", |_| InitProducerIdRequest { transaction_timeout_ms: -1, ..plain() });
    for (what, id, epoch) in
        [("an id and an epoch", 3, 4), ("an id without an epoch", 3, -1), ("an epoch without an id", -1, 4)]
    {
        run.step_in(what, 3..=5, |_| InitProducerIdRequest { producer_id: id, producer_epoch: epoch, ..plain() });
    }
    run.step("an empty transactional id", |_| InitProducerIdRequest { transactional_id: Some("".into()), ..plain() });
}
