//! Clients of a cluster: they find leaders by metadata, send again what was not acknowledged, and look everywhere for old news.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use ottla::protocol::compression::Compression;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use ottla::protocol::messages::metadata::{MetadataRequestTopic, MetadataResponse};
use ottla::protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use ottla::protocol::messages::{CreateTopicsRequest, InitProducerIdRequest, MetadataRequest, ProduceRequest};
use ottla::protocol::record::{BatchBuilder, NewRecord, Producer as ProducerId};

use super::evidence::Evidence;
use super::room::{Room, host};
use super::story::BROKERS;
use crate::client::{Client, Lost};
use crate::draw;
use crate::history::Shared;

/// The topic of these runs.
pub const TOPIC: &str = "replicated";
/// Batches that a producer has in flight: as many as Kafka allows an idempotent one.
const IN_FLIGHT: usize = 5;
/// Batches that a producer sends at least, and after the story is over.
const BATCHES_MIN: usize = 20;
const VERSION_PRODUCE: i16 = 8;
const VERSION_METADATA: i16 = 8;

/// What all clients of one run share.
#[derive(Clone)]
pub struct Stage {
    /// Records, offsets, bytes.
    pub history: Shared,
    /// Leaders and what they said.
    pub evidence: Evidence,
    /// The brokers.
    pub room: Room,
    /// The topic.
    pub topic: &'static str,
    /// How many partitions it has.
    pub partitions: i32,
    /// A connection or an answer that does not come within this is lost.
    pub patience: Duration,
    /// Configs of the topic beside those that it always has.
    pub configs: &'static [(&'static str, &'static str)],
    /// Whether what was acknowledged may be lost.
    pub may_lose: bool,
}

/// A leader, found.
pub struct Led {
    /// The connection to it.
    pub client: Client,
    /// The epoch that it leads in, as the broker that was asked knows.
    pub epoch: i32,
}

/// Waits before something is tried again.
pub fn pause() -> tokio::time::Sleep {
    tokio::time::sleep(Duration::from_millis(60))
}

impl Stage {
    /// Connects to any broker that answers. `turn` draws which.
    pub async fn anybody(&self, turn: &mut u64) -> Client {
        loop {
            let broker = usize::try_from(draw(turn, BROKERS as u64)).expect("small");
            if let Ok(client) = Client::connect_to(&self.history, &host(broker), self.patience).await {
                return client;
            }
            pause().await;
        }
    }

    pub(super) async fn metadata(&self, client: &mut Client) -> Result<MetadataResponse, Lost> {
        let topics = vec![MetadataRequestTopic { name: Some(self.topic.into()), ..Default::default() }];
        let request = MetadataRequest { topics: Some(topics), allow_auto_topic_creation: false, ..Default::default() };
        let response = client.call(VERSION_METADATA, &request).await?;
        let mut seen = self.evidence.lock();
        seen.clusters.extend(response.cluster_id.as_ref().map(ToString::to_string));
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            if partition.leader_id >= 0 {
                seen.leads(partition.partition_index, partition.leader_epoch, partition.leader_id);
            }
        }
        Ok(response)
    }

    /// Connects to whoever leads a partition, as some broker knows.
    pub async fn leader(&self, turn: &mut u64, partition: i32) -> Led {
        loop {
            let mut client = self.anybody(turn).await;
            if let Ok(metadata) = self.metadata(&mut client).await
                && let Some((at, epoch)) = leader_in(&metadata, partition)
                && let Ok(client) = Client::connect_to(&self.history, &at, self.patience).await
            {
                return Led { client, epoch };
            }
            pause().await;
        }
    }

    /// Creates the topic with a replica on each broker, or finds that it is there.
    pub async fn create_topic(&self, turn: &mut u64) {
        loop {
            let mut client = self.anybody(turn).await;
            let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
                name: (*name).into(),
                value: Some((*value).into()),
            };
            let configs = [("segment.bytes", "1048576")].iter().chain(self.configs).map(config).collect();
            let topic = CreatableTopic {
                name: self.topic.into(),
                num_partitions: self.partitions,
                replication_factor: 3,
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

    async fn producer_id(&self, turn: &mut u64) -> (i64, i16) {
        loop {
            let mut client = self.anybody(turn).await;
            let request = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
            if let Ok(response) = client.call(1, &request).await
                && response.error_code == ErrorCode::NONE
            {
                return (response.producer_id, response.producer_epoch);
            }
            pause().await;
        }
    }
}

fn leader_in(metadata: &MetadataResponse, partition: i32) -> Option<(String, i32)> {
    let partitions = &metadata.topics.first()?.partitions;
    let found = partitions.iter().find(|found| found.partition_index == partition)?;
    let broker = metadata.brokers.iter().find(|broker| broker.node_id == found.leader_id)?;
    Some((broker.host.to_string(), found.leader_epoch))
}

struct Batch {
    values: Vec<String>,
    bytes: Bytes,
    /// Up to where the partition was known to be committed before it was first sent.
    floor: i64,
}

/// An idempotent producer of one partition.
pub struct Producer {
    /// What it shares.
    pub stage: Stage,
    /// Its name in the values.
    pub name: String,
    /// Where it writes.
    pub partition: i32,
    /// The bytes of each value.
    pub value_bytes: usize,
    /// How long it waits before each batch.
    pub rest: Duration,
    /// Whether it asks anew who leads before each batch, and waits before that.
    pub asks_anew: bool,
    /// Draws whom it asks.
    pub turn: u64,
    /// Whether a leader did not know what it has acknowledged, in a run that may lose that.
    pub is_forgotten: bool,
}

/// What a producer has to send.
#[derive(Default)]
struct Outbox {
    sent: usize,
    sequence: i32,
    unacked: VecDeque<Batch>,
}

/// Why a connection was left.
enum Left {
    Done,
    Lost,
}

impl Producer {
    /// Runs until the story is over and every batch acknowledged.
    pub async fn run(mut self) {
        let mut turn = self.turn;
        let mut id = self.stage.producer_id(&mut turn).await;
        let mut outbox = Outbox::default();
        loop {
            if self.asks_anew && outbox.unacked.is_empty() && self.has_more(&outbox) {
                tokio::time::sleep(self.rest).await;
                self.write(id, &mut outbox);
            }
            let led = self.stage.leader(&mut turn, self.partition).await;
            if let Left::Done = self.produce(led.client, id, &mut outbox).await {
                return;
            }
            if std::mem::take(&mut self.is_forgotten) {
                // It begins anew, as one that nobody knows. What was under way may be there.
                id = self.stage.producer_id(&mut turn).await;
                (outbox.sequence, outbox.unacked) = (0, VecDeque::new());
            }
            pause().await;
        }
    }

    fn has_more(&self, outbox: &Outbox) -> bool {
        outbox.sent < BATCHES_MIN || !self.stage.room.is_over()
    }

    /// Whether there is something to send on this connection.
    fn goes_on(&self, outbox: &Outbox, under_way: usize) -> bool {
        under_way < outbox.unacked.len() || (!self.asks_anew && self.has_more(outbox))
    }

    /// Sends all that is unacknowledged, in order, and then what is new, until the connection or its broker's leadership is lost.
    async fn produce(&mut self, mut client: Client, id: (i64, i16), outbox: &mut Outbox) -> Left {
        let mut on_wire: VecDeque<i32> = VecDeque::new();
        loop {
            while on_wire.len() < IN_FLIGHT && self.goes_on(outbox, on_wire.len()) {
                if on_wire.len() == outbox.unacked.len() {
                    tokio::time::sleep(self.rest).await;
                    self.write(id, outbox);
                } else {
                    self.stage.history.lock().resent += 1;
                }
                match client.send(VERSION_PRODUCE, &self.request(&outbox.unacked[on_wire.len()])).await {
                    Ok(correlation) => on_wire.push_back(correlation),
                    Err(Lost) => break,
                }
            }
            let Some(correlation) = on_wire.pop_front() else {
                return if outbox.unacked.is_empty() && !self.has_more(outbox) { Left::Done } else { Left::Lost };
            };
            match self.acknowledged(&mut client, correlation).await {
                Ok(base_offset) => self.note(base_offset, outbox),
                Err(Lost) => return Left::Lost,
            }
        }
    }

    /// Makes the next batch.
    fn write(&mut self, id: (i64, i16), outbox: &mut Outbox) {
        let number = outbox.sent;
        let mut values = Vec::new();
        let producer = ProducerId { id: id.0, epoch: id.1, base_sequence: outbox.sequence };
        let mut builder = BatchBuilder::new(Compression::None).producer(producer);
        for record in 0..=number % 3 {
            let mut value = format!("{}-{number:05}-{record}", self.name);
            value.extend(std::iter::repeat_n('.', self.value_bytes.saturating_sub(value.len())));
            let timestamp = 1_700_000_000_000 + i64::try_from(number).expect("small");
            builder.push(&NewRecord { timestamp, key: None, value: Some(value.as_bytes()), headers: &[] });
            values.push(value);
        }
        outbox.sequence += i32::try_from(values.len()).expect("small");
        outbox.sent += 1;
        self.stage.history.lock().sent.extend(values.iter().map(|value| (self.partition, value.clone())));
        let floor = self.stage.evidence.lock().floor(self.partition);
        outbox.unacked.push_back(Batch { values, bytes: builder.build(), floor });
    }

    fn request(&self, batch: &Batch) -> ProduceRequest {
        let data = PartitionProduceData { index: self.partition, records: Some(batch.bytes.clone().into()) };
        let topic =
            TopicProduceData { name: self.stage.topic.into(), partition_data: vec![data], ..Default::default() };
        ProduceRequest { acks: -1, timeout_ms: 1_500, topic_data: vec![topic], ..Default::default() }
    }

    async fn acknowledged(&mut self, client: &mut Client, correlation: i32) -> Result<i64, Lost> {
        let response = client.receive::<ProduceRequest>(VERSION_PRODUCE, correlation).await?;
        let partition = &response.responses[0].partition_responses[0];
        let code = partition.error_code;
        if code == ErrorCode::NONE {
            return Ok(partition.base_offset);
        }
        let mut seen = self.stage.evidence.lock();
        if code == ErrorCode::NOT_LEADER_OR_FOLLOWER {
            seen.redirected += 1;
        }
        // Everything before the first unacknowledged batch was acknowledged: whoever leads knows it.
        let forgotten = [ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode::UNKNOWN_PRODUCER_ID];
        if forgotten.contains(&code) {
            self.is_forgotten = self.stage.may_lose;
            seen.broke(format!(
                "producer-forgotten: {} was answered {code:?} in partition {}",
                self.name, self.partition
            ));
        }
        Err(Lost)
    }

    fn note(&self, base_offset: i64, outbox: &mut Outbox) {
        let batch = outbox.unacked.pop_front().expect("one batch a reply");
        let mut seen = self.stage.evidence.lock();
        if base_offset < batch.floor {
            let (floor, value) = (batch.floor, &batch.values[0]);
            seen.broke(format!("offset-vs-realtime: {value} got {base_offset}, {floor} was known when it was sent"));
        }
        self.stage.room.acked(self.partition);
        seen.known(self.partition, base_offset + i64::try_from(batch.values.len()).expect("small"));
        drop(seen);
        let acked = (base_offset..).zip(batch.values).map(|(at, value)| ((self.partition, at), value));
        self.stage.history.lock().acked.extend(acked);
    }
}
