//! Batches on their way to the leaders of their partitions, again until they are acknowledged or time is up.
//!
//! One batch of each partition is under way at a time, so a repeated one cannot overtake another.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::cli::client::{Client, ClientError, RETRY_PAUSE, by_leader};
use crate::protocol::batch::advance_sequence;
use crate::protocol::compression::Compression;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::metadata::MetadataResponseTopic;
use crate::protocol::messages::produce::{PartitionProduceData, PartitionProduceResponse, TopicProduceData};
use crate::protocol::messages::{InitProducerIdRequest, ProduceRequest};
use crate::protocol::record::{BatchBuilder, NewRecord, Producer};
use crate::protocol::value::Records;

/// A batch that is filled.
#[derive(Debug)]
pub(super) struct Batch(BatchBuilder);

impl Batch {
    pub(super) fn push(&mut self, record: &NewRecord<'_>) {
        self.0.push(record);
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.0.size_bytes()
    }
}

/// What one partition has acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    pub(super) records: i64,
    /// None when nobody said (no acknowledgements).
    pub(super) first_offset: Option<i64>,
    pub(super) last_offset: Option<i64>,
}

#[derive(Clone, Debug)]
struct Ready {
    bytes: Bytes,
    records: i64,
}

/// Sends to one topic.
#[derive(Debug)]
pub(super) struct Sender {
    client: Client,
    topic: MetadataResponseTopic,
    name: String,
    acks: i16,
    producer: Option<(i64, i16)>,
    sequences: BTreeMap<i32, i32>,
    written: BTreeMap<i32, Written>,
}

impl Sender {
    pub(super) fn new(client: Client, topic: MetadataResponseTopic, acks: i16) -> Self {
        let name = topic.name.as_deref().unwrap_or_default().to_owned();
        let (sequences, written) = (BTreeMap::new(), BTreeMap::new());
        Self { client, topic, name, acks, producer: None, sequences, written }
    }

    /// Gets a producer id, so that a repeated batch is written once.
    pub(super) async fn become_idempotent(&mut self) -> Result<(), ClientError> {
        let request = InitProducerIdRequest {
            producer_id: -1,
            producer_epoch: -1,
            transaction_timeout_ms: i32::MAX,
            transactional_id: None,
        };
        let until = Instant::now() + self.client.timeout();
        loop {
            let response = self.client.ask(&request).await?;
            if !response.error_code.is_error() {
                self.producer = Some((response.producer_id, response.producer_epoch));
                return Ok(());
            }
            if !response.error_code.is_retriable() || Instant::now() >= until {
                return Err(self.client.any().await?.refused("InitProducerId", response.error_code, None));
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// An empty batch for a partition. The one before it has been sent.
    pub(super) fn batch(&self, partition: i32, compression: Compression) -> Batch {
        let builder = BatchBuilder::new(compression);
        let base_sequence = self.sequences.get(&partition).copied().unwrap_or(0);
        Batch(match self.producer {
            Some((id, epoch)) => builder.producer(Producer { id, epoch, base_sequence }),
            None => builder,
        })
    }

    /// What has been acknowledged, by partition.
    pub(super) fn written(&self) -> &BTreeMap<i32, Written> {
        &self.written
    }

    /// Sends a batch to each of some partitions; returns when all are acknowledged.
    pub(super) async fn send(&mut self, batches: BTreeMap<i32, Batch>) -> Result<(), ClientError> {
        let mut left = BTreeMap::new();
        for (partition, Batch(builder)) in batches {
            let records = builder.count();
            let sequence = self.sequences.entry(partition).or_insert(0);
            *sequence = advance_sequence(*sequence, records);
            left.insert(partition, Ready { bytes: builder.build(), records: records.into() });
        }
        let until = Instant::now() + self.client.timeout();
        loop {
            let trouble = self.send_once(&mut left).await?;
            if left.is_empty() {
                return Ok(());
            }
            if let Some(trouble) = trouble.filter(|_| Instant::now() >= until) {
                return Err(trouble);
            }
            sleep(RETRY_PAUSE).await;
            self.topic = self.client.topic(&self.name, false).await?;
        }
    }

    /// Sends what is left to its leaders and takes out of it what is acknowledged. Returns what may pass.
    async fn send_once(&mut self, left: &mut BTreeMap<i32, Ready>) -> Result<Option<ClientError>, ClientError> {
        let partitions: Vec<i32> = left.keys().copied().collect();
        let mut trouble = None;
        let mut asked = Vec::new();
        for (leader, partitions) in by_leader(&self.topic, &partitions)? {
            let request = self.request(&partitions, left);
            match self.send_to(leader, &request).await {
                Ok(()) => asked.push((leader, partitions)),
                Err(error) if error.may_pass() => trouble = Some(error),
                Err(error) => return Err(error),
            }
        }
        for (leader, partitions) in asked {
            if self.acks == 0 {
                partitions.iter().for_each(|partition| self.note(*partition, None, left));
                continue;
            }
            let timeout = self.client.timeout();
            let connection = self.client.broker(leader).await?;
            let response = match connection.receive::<ProduceRequest>(timeout).await {
                Ok(response) => response,
                Err(error) if error.may_pass() => {
                    trouble = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            for partition in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
                match self.accept(leader, partition, left).await {
                    Err(error) if error.may_pass() => trouble = Some(error),
                    accepted => accepted?,
                }
            }
        }
        Ok(trouble)
    }

    fn request(&self, partitions: &[i32], left: &BTreeMap<i32, Ready>) -> ProduceRequest {
        let data = |index: &i32| PartitionProduceData {
            index: *index,
            records: Some(Records::from(left[index].bytes.clone())),
        };
        ProduceRequest {
            transactional_id: None,
            acks: self.acks,
            timeout_ms: i32::try_from(self.client.timeout().as_millis()).unwrap_or(i32::MAX),
            topic_data: vec![TopicProduceData {
                name: self.name.as_str().into(),
                partition_data: partitions.iter().map(data).collect(),
                ..TopicProduceData::default()
            }],
        }
    }

    async fn send_to(&mut self, leader: i32, request: &ProduceRequest) -> Result<(), ClientError> {
        let connection = self.client.broker(leader).await?;
        if self.acks == 0 { connection.send_unanswered(request).await } else { connection.send(request).await }
    }

    async fn accept(
        &mut self,
        leader: i32,
        response: &PartitionProduceResponse,
        left: &mut BTreeMap<i32, Ready>,
    ) -> Result<(), ClientError> {
        // A repeated batch may meet itself: then it is written, at an offset that nobody says.
        let duplicate = response.error_code == ErrorCode::DUPLICATE_SEQUENCE_NUMBER;
        if response.error_code.is_error() && !duplicate {
            let what = format!("Produce to partition {} of topic {}", response.index, self.name);
            let connection = self.client.broker(leader).await?;
            return Err(connection.refused(&what, response.error_code, response.error_message.as_deref()));
        }
        let offset = Some(response.base_offset).filter(|offset| *offset >= 0 && !duplicate);
        self.note(response.index, offset, left);
        Ok(())
    }

    fn note(&mut self, partition: i32, base_offset: Option<i64>, left: &mut BTreeMap<i32, Ready>) {
        let Some(ready) = left.remove(&partition) else { return };
        let written = self.written.entry(partition).or_default();
        written.records += ready.records;
        written.first_offset = written.first_offset.or(base_offset);
        written.last_offset = base_offset.map(|base| base + ready.records - 1).or(written.last_offset);
    }
}
