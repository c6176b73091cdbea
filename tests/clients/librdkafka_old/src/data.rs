//! Writing and reading records.

use std::sync::Mutex;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header as Sent, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::Outcome;
use crate::calls::{Bytes, Header, Record};

/// How long anything may take.
pub const WAIT: Duration = Duration::from_secs(60);
/// How long the producer gathers, until it is flushed: a batch that does not shrink is sent without compression.
const LINGER_MS: &str = "500";
const LARGEST_REQUEST: &str = "10000000";

/// What became of each record.
#[derive(Default)]
struct Acknowledgements(Mutex<Vec<Option<Result<i64, KafkaError>>>>);

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Self::DeliveryOpaque) {
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        self.0.lock().expect("nobody panics here")[*number] = Some(outcome);
    }
}

/// A client that writes and reads.
pub struct Data {
    bootstrap: String,
}

impl Data {
    pub fn new(bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.to_owned() }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    pub fn produce(&self, topic: &str, records: &[Record], codec: &str, idempotent: bool) -> Outcome<Vec<i64>> {
        let mut config = self.config();
        let idempotence = if idempotent { "true" } else { "false" };
        config.set("compression.type", codec).set("enable.idempotence", idempotence).set("linger.ms", LINGER_MS);
        Ok(send(&config, topic, records)?.into_iter().collect::<Result<_, _>>()?)
    }

    /// Whether the broker refuses a value of that size.
    pub fn refused_as_too_large(&self, topic: &str, size: usize) -> Outcome<bool> {
        let value = Some(Bytes(vec![0; size]));
        let record = Record { partition: 0, offset: 0, key: None, value, headers: Vec::new(), timestamp: 1 };
        let outcomes = send(self.config().set("message.max.bytes", LARGEST_REQUEST), topic, &[record])?;
        match &outcomes[0] {
            Ok(_) => Ok(false),
            Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => Ok(true),
            Err(other) => Err(other.clone().into()),
        }
    }

    fn consumer(&self, group: &str) -> Outcome<BaseConsumer> {
        Ok(self
            .config()
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("check.crcs", "true")
            .create()?)
    }

    pub fn read(&self, topic: &str, partition: i32, start: i64, count: usize) -> Outcome<Vec<Record>> {
        let consumer = self.consumer("by-assignment")?;
        let mut places = TopicPartitionList::new();
        places.add_partition_offset(topic, partition, Offset::Offset(start))?;
        consumer.assign(&places)?;
        let mut got = Vec::new();
        while got.len() < count {
            let message = consumer.poll(WAIT).ok_or_else(|| format!("{} of {count} records", got.len()))??;
            got.push(received(&message));
        }
        Ok(got)
    }

    pub fn offset_for_time(&self, topic: &str, partition: i32, timestamp: i64) -> Outcome<i64> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(topic, partition, Offset::Offset(timestamp))?;
        let found = self.consumer("by-assignment")?.offsets_for_times(asked, WAIT)?;
        match found.find_partition(topic, partition).map(|place| place.offset()) {
            Some(Offset::Offset(offset)) => Ok(offset),
            _ => Ok(-1),
        }
    }

    pub fn bounds(&self, topic: &str, partition: i32) -> Outcome<(i64, i64)> {
        Ok(self.consumer("by-assignment")?.fetch_watermarks(topic, partition, WAIT)?)
    }

    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Outcome<i64> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, partition);
        let found = self.consumer(group)?.committed_offsets(asked, WAIT)?;
        match found.find_partition(topic, partition).map(|place| place.offset()) {
            Some(Offset::Offset(offset)) => Ok(offset),
            other => Err(format!("the group has committed {other:?}").into()),
        }
    }
}

/// Sends with acks=all and waits for every record.
fn send(config: &ClientConfig, topic: &str, records: &[Record]) -> Outcome<Vec<Result<i64, KafkaError>>> {
    let waiting = Acknowledgements(Mutex::new(records.iter().map(|_| None).collect()));
    let producer: BaseProducer<Acknowledgements> = config.clone().set("acks", "all").create_with_context(waiting)?;
    // Records of a topic that is not known yet are dealt out when it is, and whatever is there by then is sent: batches of one record, which do not shrink.
    producer.client().fetch_metadata(Some(topic), WAIT)?;
    for (number, record) in records.iter().enumerate() {
        let mut sent = BaseRecord::<[u8], [u8], Box<usize>>::with_opaque_to(topic, Box::new(number))
            .partition(record.partition)
            .timestamp(record.timestamp);
        sent.key = record.key.as_ref().map(|key| key.0.as_slice());
        sent.payload = record.value.as_ref().map(|value| value.0.as_slice());
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, header| {
            headers.insert(Sent { key: &header.key, value: header.value.as_ref().map(|value| &value.0) })
        });
        producer.send(sent.headers(headers)).map_err(|(error, _)| error)?;
    }
    producer.flush(WAIT)?;
    let outcomes = std::mem::take(&mut *producer.context().0.lock().expect("nobody panics here"));
    outcomes.into_iter().map(|outcome| outcome.ok_or_else(|| "a record without an outcome".into())).collect()
}

fn received(message: &BorrowedMessage<'_>) -> Record {
    let bytes = |slice: &[u8]| Bytes(slice.to_vec());
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| Header { key: header.key.to_owned(), value: header.value.map(bytes) }).collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(bytes),
        value: message.payload().map(bytes),
        headers: headers.unwrap_or_default(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
    }
}
