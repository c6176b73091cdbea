//! What the simulated clients do: idempotent producers that send again after every loss, a tailing reader, a last read of everything.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use ottla::protocol::compression::Compression;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use ottla::protocol::messages::fetch::{FetchPartition, FetchTopic};
use ottla::protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use ottla::protocol::messages::metadata::MetadataRequestTopic;
use ottla::protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use ottla::protocol::messages::{
    CreateTopicsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
};
use ottla::protocol::record::{BatchBuilder, NewRecord, Producer, read_records};

use crate::client::{Client, Lost};
use crate::history::Shared;

/// A topic.
#[derive(Clone, Copy, Debug)]
pub struct Topic {
    /// Its name.
    pub name: &'static str,
    /// How many partitions it has.
    pub partitions: i32,
}

/// The topic of the runs without groups.
pub const TOPIC: Topic = Topic { name: "simulated", partitions: 2 };
/// Batches that a producer has in flight: as many as Kafka allows an idempotent one.
const IN_FLIGHT: usize = 5;
const VERSION_PRODUCE: i16 = 8;
const VERSION_FETCH: i16 = 11;

fn pause() -> tokio::time::Sleep {
    tokio::time::sleep(Duration::from_millis(100))
}

/// Creates the topic, or finds that it is there.
pub async fn create_topic(history: &Shared, topic: Topic) {
    loop {
        let mut client = Client::connect(history).await;
        let configs = vec![CreatableTopicConfig { name: "segment.bytes".into(), value: Some("1048576".into()) }];
        let topic = CreatableTopic {
            name: topic.name.into(),
            num_partitions: topic.partitions,
            replication_factor: 1,
            configs,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 5_000, ..Default::default() };
        if let Ok(response) = client.call(5, &request).await {
            let code = response.topics[0].error_code;
            if code == ErrorCode::NONE || code == ErrorCode::TOPIC_ALREADY_EXISTS {
                return;
            }
        }
        pause().await;
    }
}

/// Whether the topic is known: a topic whose creation was acknowledged must be (`metadata-lost`).
pub async fn topic_exists(history: &Shared, topic: Topic) -> bool {
    loop {
        let mut client = Client::connect(history).await;
        let topics = vec![MetadataRequestTopic { name: Some(topic.name.into()), ..Default::default() }];
        let request = MetadataRequest { topics: Some(topics), allow_auto_topic_creation: false, ..Default::default() };
        if let Ok(response) = client.call(5, &request).await {
            return response.topics[0].error_code != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        }
        pause().await;
    }
}

struct Batch {
    values: Vec<String>,
    bytes: Bytes,
}

/// One idempotent producer that writes `batches` batches to one partition.
pub struct IdempotentProducer {
    /// Its name in the values.
    pub name: String,
    /// Where it writes.
    pub topic: Topic,
    /// To which of its partitions.
    pub partition: i32,
    /// How many batches.
    pub batches: usize,
    /// The bytes of each value, so that segments roll.
    pub value_bytes: usize,
    /// How long it waits before each batch.
    pub rest: Duration,
}

impl IdempotentProducer {
    /// Runs until every batch is acknowledged.
    pub async fn run(self, history: Shared) {
        let id = producer_id(&history).await;
        let mut sent = 0;
        let mut sequence = 0;
        let mut unacked: VecDeque<Batch> = VecDeque::new();
        loop {
            let mut client = Client::connect(&history).await;
            let mut on_wire: VecDeque<i32> = VecDeque::new();
            let lost = loop {
                while on_wire.len() < IN_FLIGHT && (on_wire.len() < unacked.len() || sent < self.batches) {
                    if on_wire.len() == unacked.len() {
                        // Without a pause now and then all batches under way would move in step, and share every sync.
                        if sent.wrapping_mul(0x9e37_79b9) >> 7 & 3 == 0 {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        if !self.rest.is_zero() {
                            tokio::time::sleep(self.rest).await;
                        }
                        let batch = self.batch(sent, id, sequence);
                        sequence += i32::try_from(batch.values.len()).expect("small");
                        sent += 1;
                        let mut history = history.lock();
                        history.sent.extend(batch.values.iter().map(|value| (self.partition, value.clone())));
                        drop(history);
                        unacked.push_back(batch);
                    } else {
                        history.lock().resent += 1;
                    }
                    let request = self.request(&unacked[on_wire.len()]);
                    match client.send(VERSION_PRODUCE, &request).await {
                        Ok(correlation) => on_wire.push_back(correlation),
                        Err(Lost) => break,
                    }
                }
                let Some(correlation) = on_wire.pop_front() else { break unacked.is_empty() && sent == self.batches };
                match self.acknowledged(&mut client, correlation).await {
                    Ok(base_offset) => {
                        let batch = unacked.pop_front().expect("one batch a reply");
                        let mut history = history.lock();
                        for (at, value) in (base_offset..).zip(batch.values) {
                            history.acked.push(((self.partition, at), value));
                        }
                    }
                    Err(Lost) => break false,
                }
            };
            if lost {
                return;
            }
            pause().await;
        }
    }

    fn batch(&self, number: usize, id: (i64, i16), base_sequence: i32) -> Batch {
        let mut values = Vec::new();
        let producer = Producer { id: id.0, epoch: id.1, base_sequence };
        let mut builder = BatchBuilder::new(Compression::None).producer(producer);
        for record in 0..=number % 3 {
            let mut value = format!("{}-{number:05}-{record}", self.name);
            value.extend(std::iter::repeat_n('.', self.value_bytes.saturating_sub(value.len())));
            let timestamp = 1_700_000_000_000 + i64::try_from(number).expect("small");
            builder.push(&NewRecord { timestamp, key: None, value: Some(value.as_bytes()), headers: &[] });
            values.push(value);
        }
        Batch { values, bytes: builder.build() }
    }

    fn request(&self, batch: &Batch) -> ProduceRequest {
        let data = PartitionProduceData { index: self.partition, records: Some(batch.bytes.clone().into()) };
        let topic = TopicProduceData { name: self.topic.name.into(), partition_data: vec![data], ..Default::default() };
        ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data: vec![topic], ..Default::default() }
    }

    async fn acknowledged(&self, client: &mut Client, correlation: i32) -> Result<i64, Lost> {
        let response = client.receive::<ProduceRequest>(VERSION_PRODUCE, correlation).await?;
        let partition = &response.responses[0].partition_responses[0];
        // A batch that follows a refused one is refused for its sequence: everything unacknowledged is sent again, in order.
        if partition.error_code == ErrorCode::NONE { Ok(partition.base_offset) } else { Err(Lost) }
    }
}

async fn producer_id(history: &Shared) -> (i64, i16) {
    loop {
        let mut client = Client::connect(history).await;
        let request = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
        if let Ok(response) = client.call(1, &request).await
            && response.error_code == ErrorCode::NONE
        {
            return (response.producer_id, response.producer_epoch);
        }
        pause().await;
    }
}

/// What one fetch of a partition returned.
struct Fetched {
    values: Vec<(i64, String)>,
    next_offset: i64,
    high_watermark: i64,
}

async fn fetch(client: &mut Client, topic: Topic, partition: i32, offset: i64) -> Result<Option<Fetched>, Lost> {
    let wanted = FetchPartition { partition, fetch_offset: offset, partition_max_bytes: 4096, ..Default::default() };
    let topic = FetchTopic { topic: topic.name.into(), partitions: vec![wanted], ..Default::default() };
    let request = FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let response = client.call(VERSION_FETCH, &request).await?;
    let data = &response.responses[0].partitions[0];
    if data.error_code != ErrorCode::NONE {
        return Ok(None);
    }
    let mut fetched = Fetched { values: Vec::new(), next_offset: offset, high_watermark: data.high_watermark };
    let mut rest = data.records.clone().map(|records| records.into_bytes()).unwrap_or_default();
    while rest.len() > 17 {
        let size = 12 + usize::try_from(u32::from_be_bytes(rest[8..12].try_into().expect("four bytes"))).expect("fits");
        if rest.len() < size {
            break;
        }
        let batch = rest.split_to(size);
        for record in read_records(&batch, 1 << 20).expect("a served batch can be read") {
            let record = record.expect("a served record can be read");
            if record.offset >= offset {
                let value = String::from_utf8(record.value.expect("has a value").to_vec()).expect("is text");
                fetched.values.push((record.offset, value));
                fetched.next_offset = record.offset + 1;
            }
        }
    }
    Ok(Some(fetched))
}

/// Reads one partition from its beginning for ever, and records all that it sees.
pub async fn tail(history: Shared, topic: Topic, partition: i32) {
    let mut offset = 0;
    loop {
        let mut client = Client::connect(&history).await;
        while let Ok(fetched) = fetch(&mut client, topic, partition, offset).await {
            let Some(fetched) = fetched else {
                pause().await;
                continue;
            };
            offset = fetched.next_offset;
            let mut history = history.lock();
            history.high_watermark(partition, fetched.high_watermark);
            history.polled.extend(fetched.values.into_iter().map(|(at, value)| ((partition, at), value)));
        }
        pause().await;
    }
}

/// Reads everything there is, after all faults.
pub async fn read_all(history: &Shared, topic: Topic) {
    for partition in 0..topic.partitions {
        let end = latest(history, topic, partition).await;
        let mut offset = 0;
        while offset < end {
            let mut client = Client::connect(history).await;
            while let Ok(fetched) = fetch(&mut client, topic, partition, offset).await {
                let Some(fetched) = fetched else { break };
                offset = fetched.next_offset;
                let mut history = history.lock();
                history.high_watermark(partition, fetched.high_watermark);
                history.last_read.extend(fetched.values.into_iter().map(|(at, value)| ((partition, at), value)));
                if offset >= end {
                    break;
                }
            }
            pause().await;
        }
    }
}

pub async fn latest(history: &Shared, topic: Topic, partition: i32) -> i64 {
    loop {
        let mut client = Client::connect(history).await;
        let wanted = ListOffsetsPartition { partition_index: partition, timestamp: -1, ..Default::default() };
        let topic = ListOffsetsTopic { name: topic.name.into(), partitions: vec![wanted] };
        let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
        if let Ok(response) = client.call(1, &request).await {
            let found = &response.topics[0].partitions[0];
            if found.error_code == ErrorCode::NONE {
                history.lock().high_watermark(partition, found.offset);
                return found.offset;
            }
        }
        pause().await;
    }
}
