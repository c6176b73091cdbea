//! Readers of a cluster: those that follow a partition, those that ask every broker how far it is, and the last one.

use std::time::Duration;

use ottla::protocol::batch::crc32c;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::fetch::{FetchPartition, FetchTopic};
use ottla::protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use ottla::protocol::messages::{FetchRequest, ListOffsetsRequest};
use ottla::protocol::record::read_records;

use super::clients::{Led, Stage, pause};
use super::room::host;
use crate::client::{Client, Lost};

const VERSION_FETCH: i16 = 11;
const VERSION_LIST_OFFSETS: i16 = 4;
/// How often a broker is asked how far it is.
const PROBE_EVERY: Duration = Duration::from_millis(40);
/// The bytes of a batch before its records, and those of them before its length counts.
const BATCH_PREFIX: usize = 12;
const EPOCH_AT: std::ops::Range<usize> = 12..16;
const CRC_AT: std::ops::Range<usize> = 17..21;
/// How often each broker is asked who leads.
const TELLS_EVERY: Duration = Duration::from_millis(200);

/// What one fetch returned.
struct Fetched {
    values: Vec<(i64, String)>,
    next_offset: i64,
}

impl Stage {
    async fn fetch(&self, led: &mut Led, partition: i32, offset: i64) -> Result<Fetched, Lost> {
        let wanted = FetchPartition {
            partition,
            current_leader_epoch: led.epoch,
            fetch_offset: offset,
            partition_max_bytes: 16 << 10,
            ..Default::default()
        };
        let topic = FetchTopic { topic: self.topic.into(), partitions: vec![wanted], ..Default::default() };
        let request = FetchRequest {
            max_wait_ms: 100,
            min_bytes: 1,
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let (floor, start) = {
            let seen = self.evidence.lock();
            (seen.floor(partition), seen.log_start(partition))
        };
        let response = led.client.call(VERSION_FETCH, &request).await?;
        let Some(data) = response.responses.first().and_then(|topic| topic.partitions.first()) else {
            return Err(Lost);
        };
        if data.error_code != ErrorCode::NONE {
            if data.error_code == ErrorCode::OFFSET_OUT_OF_RANGE && offset >= self.asked_start(partition) {
                let end = data.high_watermark;
                self.evidence.lock().broke(format!(
                    "read-past-hw: a reader of partition {partition} is at {offset}, the leader says {end}"
                ));
            }
            return Err(Lost);
        }
        {
            let mut seen = self.evidence.lock();
            seen.answered("a fetch", partition, floor, data.high_watermark);
            seen.starts("a fetch", partition, start, data.log_start_offset);
        }
        let bytes = data.records.clone().map(|records| records.into_bytes()).unwrap_or_default();
        let fetched = self.records(partition, offset, bytes);
        if fetched.next_offset > data.high_watermark {
            let (next, end) = (fetched.next_offset, data.high_watermark);
            self.evidence.lock().broke(format!("read-past-hw: partition {partition} served {next} of {end}"));
        }
        Ok(fetched)
    }

    fn records(&self, partition: i32, offset: i64, mut rest: bytes::Bytes) -> Fetched {
        let mut fetched = Fetched { values: Vec::new(), next_offset: offset };
        let mut last_epoch = -1;
        while rest.len() >= EPOCH_AT.end {
            let length = u32::from_be_bytes(rest[8..BATCH_PREFIX].try_into().expect("four bytes"));
            let size = BATCH_PREFIX + usize::try_from(length).expect("fits");
            if rest.len() < size {
                break;
            }
            let batch = rest.split_to(size);
            let crc = u32::from_be_bytes(batch[CRC_AT].try_into().expect("four bytes"));
            if crc32c(&[&batch[CRC_AT.end..]]) != crc {
                let what = format!("corrupt-served: a batch of partition {partition} at or behind {offset}");
                self.evidence.lock().broke(what);
                return fetched;
            }
            let epoch = i32::from_be_bytes(batch[EPOCH_AT].try_into().expect("four bytes"));
            if epoch < last_epoch {
                let what = format!("epoch-regress: partition {partition} near {offset}: {epoch} after {last_epoch}");
                self.evidence.lock().broke(what);
            }
            last_epoch = epoch;
            for record in read_records(&batch, 1 << 20).expect("a served batch can be read") {
                let record = record.expect("a served record can be read");
                if record.offset >= offset {
                    if record.offset != fetched.next_offset {
                        let (at, due) = (record.offset, fetched.next_offset);
                        let what = format!("poll-skip: partition {partition} served {at} where {due} was due");
                        self.evidence.lock().broke(what);
                    }
                    let value = String::from_utf8(record.value.expect("has a value").to_vec()).expect("is text");
                    fetched.values.push((record.offset, value));
                    fetched.next_offset = record.offset + 1;
                }
            }
        }
        fetched
    }

    fn asked_start(&self, partition: i32) -> i64 {
        self.evidence.lock().asked_starts.get(&partition).copied().unwrap_or(0)
    }

    /// Where a partition starts, as its leader says.
    pub async fn earliest(&self, turn: &mut u64, partition: i32) -> i64 {
        let floor = self.evidence.lock().log_start(partition);
        let start = self.offset_at(turn, partition, -2).await;
        self.evidence.lock().starts("a list of offsets", partition, floor, start);
        start
    }

    async fn offset_at(&self, turn: &mut u64, partition: i32, timestamp: i64) -> i64 {
        loop {
            let mut led = self.leader(turn, partition).await;
            let asked = ListOffsetsPartition { partition_index: partition, timestamp, ..Default::default() };
            let topic = ListOffsetsTopic { name: self.topic.into(), partitions: vec![asked] };
            let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
            if let Ok(response) = led.client.call(VERSION_LIST_OFFSETS, &request).await
                && let Some(found) = response.topics.first().and_then(|topic| topic.partitions.first())
                && found.error_code == ErrorCode::NONE
            {
                return found.offset;
            }
            pause().await;
        }
    }

    /// Asks one broker for ever who leads each partition.
    pub async fn tells(self, broker: usize) {
        for partition in 0..self.partitions {
            self.room.named(broker, partition, true);
        }
        loop {
            if let Ok(mut client) = Client::connect_to(&self.history, &host(broker), self.patience).await {
                while let Ok(metadata) = self.metadata(&mut client).await {
                    for told in metadata.topics.iter().flat_map(|topic| &topic.partitions) {
                        let is_named = told.leader_id >= 0 && told.error_code == ErrorCode::NONE;
                        self.room.named(broker, told.partition_index, is_named);
                    }
                    tokio::time::sleep(TELLS_EVERY).await;
                }
            }
            pause().await;
        }
    }

    /// Reads a partition from its beginning for ever, and records all that it sees.
    pub async fn follow(self, partition: i32, mut turn: u64) {
        let mut offset = 0;
        loop {
            let mut led = self.leader(&mut turn, partition).await;
            while let Ok(fetched) = self.fetch(&mut led, partition, offset).await {
                offset = fetched.next_offset;
                let polled = fetched.values.into_iter().map(|(at, value)| ((partition, at), value));
                self.history.lock().polled.extend(polled);
            }
            // What it wanted may be deleted.
            offset = offset.max(self.evidence.lock().log_start(partition));
            pause().await;
        }
    }

    /// Asks one broker for ever how far each partition is, whether it leads it or not: what it answers must be news.
    pub async fn probe(self, broker: usize) {
        loop {
            if let Ok(mut client) = Client::connect_to(&self.history, &host(broker), self.patience).await {
                while self.ask(&mut client, broker).await.is_ok() {
                    tokio::time::sleep(PROBE_EVERY).await;
                }
            }
            pause().await;
        }
    }

    async fn ask(&self, client: &mut Client, broker: usize) -> Result<(), Lost> {
        let partition = |partition_index| ListOffsetsPartition { partition_index, timestamp: -1, ..Default::default() };
        let partitions = (0..self.partitions).map(partition).collect();
        let topic = ListOffsetsTopic { name: self.topic.into(), partitions };
        let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
        let floors: Vec<i64> = {
            let seen = self.evidence.lock();
            (0..self.partitions).map(|partition| seen.floor(partition)).collect()
        };
        let response = client.call(VERSION_LIST_OFFSETS, &request).await?;
        let id = i32::try_from(broker + 1).expect("few brokers");
        let mut seen = self.evidence.lock();
        for found in response.topics.iter().flat_map(|topic| &topic.partitions) {
            if found.error_code == ErrorCode::NONE {
                let partition = found.partition_index;
                let floor = floors[usize::try_from(partition).expect("it was asked for")];
                seen.answered(&format!("broker {id}'s list of offsets"), partition, floor, found.offset);
                seen.leads(partition, found.leader_epoch, id);
            }
        }
        Ok(())
    }

    /// Reads everything there is, after all faults.
    pub async fn read_all(&self, turn: &mut u64) {
        for partition in 0..self.partitions {
            let mut offset = self.earliest(turn, partition).await;
            self.history.lock().log_starts.insert(partition, offset);
            // As far as anybody was ever told.
            let end = match self.may_lose {
                true => self.offset_at(turn, partition, -1).await,
                false => self.evidence.lock().floor(partition),
            };
            while offset < end {
                let mut led = self.leader(turn, partition).await;
                while offset < end
                    && let Ok(fetched) = self.fetch(&mut led, partition, offset).await
                {
                    offset = fetched.next_offset;
                    let read = fetched.values.into_iter().map(|(at, value)| ((partition, at), value));
                    self.history.lock().last_read.extend(read);
                }
                pause().await;
            }
        }
    }
}
