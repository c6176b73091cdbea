//! Requests that many cases make.

use bytes::{Bytes, BytesMut};
use ottla::ids::TopicId;
use ottla::protocol::batch::{BatchHeader, HEADER_BYTES, stamp_crc};
use ottla::protocol::compression::Compression;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use ottla::protocol::messages::delete_topics::DeleteTopicState;
use ottla::protocol::messages::metadata::MetadataRequestTopic;
use ottla::protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use ottla::protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, InitProducerIdRequest, MetadataRequest, ProduceRequest,
};
use ottla::protocol::record::{BatchBuilder, NewRecord, Producer};
use ottla::protocol::value::Records;
use ottla::protocol::wire::Request;

pub use crate::ids::NO_TOPIC;
use crate::run::Run;

/// What a request waits for at most.
pub const TIMEOUT_MS: i32 = 30_000;

/// Brings the broker to where its first answers are like all others, and learns what leaders' epochs begin with.
pub fn warm_up(run: &mut Run) {
    create(run, "warm-up", 1, &[]);
    run.learn_epoch("warm-up");
    // Kafka reserves its first producer ids when somebody asks.
    run.await_answer(&InitProducerIdRequest::default(), |response| response.error_code == ErrorCode::NONE);
}

/// Every version of an API.
pub fn versions<R: Request>() -> impl Iterator<Item = i16> {
    R::API.spec().versions.clone()
}

/// A topic that keeps its records for ever (they are from 1970), with these configs.
pub fn topic(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    let configs = configs.iter().chain(&[("retention.ms", "-1")]);
    let config =
        |(name, value): &(&str, &str)| CreatableTopicConfig { name: (*name).into(), value: Some((*value).into()) };
    CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: 1,
        configs: configs.map(config).collect(),
        ..Default::default()
    }
}

/// Creates a topic, waits until it is led, and returns its id.
pub fn create(run: &mut Run, name: &str, partitions: i32, configs: &[(&str, &str)]) -> TopicId {
    let topics = vec![topic(name, partitions, configs)];
    let response = run.ask(&CreateTopicsRequest { topics, timeout_ms: TIMEOUT_MS, ..Default::default() });
    assert_eq!(response.topics[0].error_code, ErrorCode::NONE, "{name}: {:?}", response.topics[0].error_message);
    run.know_topic(name, response.topics[0].topic_id);
    response.topics[0].topic_id
}

/// Deletes a topic, creates it again, and waits until the new one is led. Its old id is nobody's then.
pub fn recreate(run: &mut Run, name: &str, partitions: i32) -> TopicId {
    let state = DeleteTopicState { name: Some(name.into()), ..Default::default() };
    let topics = vec![state];
    let deleted = run.ask(&DeleteTopicsRequest { topics, timeout_ms: TIMEOUT_MS, ..Default::default() });
    assert_eq!(deleted.responses[0].error_code, ErrorCode::NONE, "{name}");
    let id = create(run, name, partitions, &[]);
    let topics = Some(vec![MetadataRequestTopic { topic_id: id, name: None }]);
    run.await_answer(&MetadataRequest { topics, ..Default::default() }, |response| {
        let topic = &response.topics[0];
        topic.error_code == ErrorCode::NONE && topic.partitions.iter().all(|partition| partition.leader_id >= 0)
    });
    id
}

/// A batch of one record for each value, one millisecond apart from `timestamp` on.
pub fn batch(timestamp: i64, values: &[&str]) -> Bytes {
    batch_of(BatchBuilder::new(Compression::None), timestamp, values)
}

/// The same in a batch that was begun.
pub fn batch_of(mut builder: BatchBuilder, timestamp: i64, values: &[&str]) -> Bytes {
    for (at, value) in (0..).zip(values) {
        let (key, value) = (Some(&b"k"[..]), Some(value.as_bytes()));
        builder.push(&NewRecord { timestamp: timestamp + at, key, value, ..Default::default() });
    }
    builder.build()
}

/// A batch of an idempotent producer.
pub fn sequenced(id: i64, epoch: i16, base_sequence: i32, values: &[&str]) -> Bytes {
    let builder = BatchBuilder::new(Compression::None).producer(Producer { id, epoch, base_sequence });
    batch_of(builder, 1000, values)
}

/// The batch with another header, and the CRC that fits it.
pub fn with_header(batch: &Bytes, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(batch).unwrap();
    change(&mut header);
    let mut bytes = BytesMut::from(&batch[..]);
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    stamp_crc(&mut bytes);
    bytes.freeze()
}

/// A request to append those bytes.
pub fn produce(acks: i16, parts: &[(&str, i32, Option<Bytes>)]) -> ProduceRequest {
    let mut topic_data: Vec<TopicProduceData> = Vec::new();
    for (topic, index, records) in parts {
        let data = PartitionProduceData { index: *index, records: records.clone().map(Records::from) };
        match topic_data.last_mut() {
            Some(last) if last.name == *topic => last.partition_data.push(data),
            _ => topic_data.push(TopicProduceData {
                name: (*topic).into(),
                partition_data: vec![data],
                ..Default::default()
            }),
        }
    }
    ProduceRequest { acks, timeout_ms: TIMEOUT_MS, topic_data, ..Default::default() }
}

/// Appends one batch.
pub fn append(run: &mut Run, topic: &str, partition: i32, batch: Bytes) -> i64 {
    let response = run.ask(&produce(-1, &[(topic, partition, Some(batch))]));
    let answer = &response.responses[0].partition_responses[0];
    assert_eq!(answer.error_code, ErrorCode::NONE, "{:?}", answer.error_message);
    answer.base_offset
}
