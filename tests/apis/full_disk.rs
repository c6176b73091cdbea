//! A disk that fills up: produce is refused with a code that clients retry, everything else goes on, and the broker gets out of it by
//! itself once it may delete something.

use std::time::{Duration, Instant};

use ottla::ids::TopicId;
use ottla::log::mem_disk::MemDisk;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::create_topics::CreatableTopicConfig;
use ottla::protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use ottla::protocol::messages::{CreateTopicsRequest, DeleteRecordsRequest};

use crate::configs::{SET, TOPIC, alter};
use crate::fetch::{only, request};
use crate::kit::{Client, Server, topic};

const CAPACITY: u64 = 12 << 20;
const BATCH_BYTES: usize = 100_000;
const RECOVERY: Duration = Duration::from_secs(30);

fn create(client: &mut Client, name: &str) -> TopicId {
    let config = CreatableTopicConfig { name: "segment.bytes".into(), value: Some("1048576".into()) };
    let topics =
        vec![ottla::protocol::messages::create_topics::CreatableTopic { configs: vec![config], ..topic(name, 1) }];
    let response = client.ask(&CreateTopicsRequest { topics, ..Default::default() });
    assert_eq!(response.topics[0].error_code, ErrorCode::NONE);
    response.topics[0].topic_id
}

/// Produces until the broker refuses; answers how many records are in.
fn fill(client: &mut Client, name: &str) -> i64 {
    for count in 0..1000 {
        match client.try_produce(name, 0, 1, BATCH_BYTES) {
            Ok(offset) => assert_eq!(offset, count),
            Err(code) => {
                assert_eq!(code, ErrorCode::KAFKA_STORAGE_ERROR);
                return count;
            }
        }
    }
    panic!("the disk does not fill up");
}

fn produce_resumes(client: &mut Client, name: &str) -> i64 {
    let began = Instant::now();
    loop {
        match client.try_produce(name, 0, 1, BATCH_BYTES) {
            Ok(offset) => return offset,
            Err(code) => assert_eq!(code, ErrorCode::KAFKA_STORAGE_ERROR),
        }
        assert!(began.elapsed() < RECOVERY, "produce does not resume");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_read(client: &mut Client, name: &str, id: TopicId, offset: i64) {
    let response = client.ask(&request(17, name, id, 0, offset));
    let data = only(&response);
    assert_eq!(data.error_code, ErrorCode::NONE, "offset {offset}");
    let batch = data.records.clone().unwrap().into_bytes();
    assert_eq!(i64::from_be_bytes(batch[..8].try_into().unwrap()), offset);
}

#[test]
fn produce_resumes_when_retention_is_shortened_on_a_full_disk() {
    let disk = MemDisk::inline();
    let server = Server::start_in_memory(&disk);
    let mut client = server.connect();
    let id = create(&mut client, "t");
    disk.set_capacity(Some(CAPACITY));
    let held = fill(&mut client, "t");
    assert!(held > 20, "{held} records");
    (0..held).for_each(|offset| is_read(&mut client, "t", id, offset));
    let shorter = [("retention.bytes", SET, Some("2000000"))];
    assert_eq!(alter(&mut client, TOPIC, "t", &shorter), ErrorCode::NONE, "while the disk is full");
    assert_eq!(produce_resumes(&mut client, "t"), held);
    is_read(&mut client, "t", id, held);
}

#[test]
fn produce_resumes_when_records_are_deleted_on_a_full_disk() {
    let disk = MemDisk::inline();
    let server = Server::start_in_memory(&disk);
    let mut client = server.connect();
    let id = create(&mut client, "t");
    disk.set_capacity(Some(CAPACITY));
    let held = fill(&mut client, "t");
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: -1 }];
    let topics = vec![DeleteRecordsTopic { name: "t".into(), partitions }];
    let response = client.ask(&DeleteRecordsRequest { topics, timeout_ms: 10_000 });
    let answer = &response.topics[0].partitions[0];
    assert_eq!((answer.error_code, answer.low_watermark), (ErrorCode::NONE, held));
    assert_eq!(produce_resumes(&mut client, "t"), held);
    is_read(&mut client, "t", id, held);
}
