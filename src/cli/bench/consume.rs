//! `ottla bench consume`: reads what is there over and over; checks every batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;

use super::meter::{Meter, Timing, histogram, record, watch};
use super::setup::{Share, runtime, shares, start, threads};
use crate::cli::client::{Batches, Connection};
use crate::cli::connect::{Connect, Failure};
use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use crate::protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use crate::protocol::messages::{FetchRequest, ListOffsetsRequest};
use crate::protocol::value::Records;

/// The timestamp that stands for a partition's start in ListOffsets.
const START: i64 = -2;
/// That for its end.
pub(super) const LAST: i64 = -1;
const MAX_WAIT_MS: i32 = 500;

/// Read as fast as the broker gives it; at the end of a partition, from its start again.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every batch's CRC is checked, and that no offset is missing. `ottla bench produce` fills the topic.\n\n\
Examples:\n  ottla bench produce --seconds 5 && ottla bench consume --broker-pid $(pidof ottla)\n  \
ottla bench consume --topic orders --fetch-bytes 65536 --connections 64 --format json"
)]
pub struct Args {
    /// The topic.
    #[arg(long, default_value = "ottla-bench")]
    topic: String,
    /// How many of its partitions are read; left out, all.
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Connections; each reads its share of the partitions.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// What a broker returns at most, of a request and of a partition.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(i32).range(1..=1 << 28))]
    fetch_bytes: i32,
    /// Threads of the generator.
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    connect: Connect,
}

/// What one connection reads.
pub(super) struct Reading {
    pub(super) share: Share,
    pub(super) topic: String,
    pub(super) topic_id: TopicId,
    pub(super) timeout: Duration,
}

/// One connection's work.
struct Job {
    reading: Reading,
    fetch_bytes: i32,
    meter: Arc<Meter>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let connections = args.connections as usize;
    let (topic, shares) = runtime()?.block_on(async {
        let mut client = args.connect.client().await?;
        let topic = client.topic(&args.topic, false).await?;
        let shares = shares(&client, &topic, args.partitions.unwrap_or(i32::MAX), connections)?;
        Ok::<_, Failure>((topic, shares))
    })?;
    let meter = Arc::new(Meter::default());
    let job = |share| Job {
        reading: Reading { share, topic: args.topic.clone(), topic_id: topic.topic_id, timeout: args.connect.timeout },
        fetch_bytes: args.fetch_bytes,
        meter: Arc::clone(&meter),
    };
    let jobs = shares.into_iter().map(job).collect();
    let threads = threads(args.threads, connections);
    let workers = start(threads, jobs, drive)?;
    let measured = watch(&meter, workers, &args.timing, &args.connect)?;
    let settings = json!({
        "connections": args.connections, "partitions": topic.partitions.len(), "fetch_bytes": args.fetch_bytes,
        "threads": threads,
    });
    measured.print("consume", &settings, args.timing.format)
}

async fn drive(job: Job) -> Result<Histogram<u64>, Failure> {
    let reading = &job.reading;
    let mut connection = Connection::open(&reading.share.broker, reading.timeout).await?;
    let mut cursors = Vec::new();
    for partition in &reading.share.partitions {
        cursors.push(Cursor::new(*partition, offset_of(&mut connection, reading, *partition, START).await?));
    }
    let mut times = histogram();
    while job.meter.runs() {
        let request = request(reading, &cursors, job.fetch_bytes);
        let asked = Instant::now();
        let response = connection.call(&request, reading.timeout).await?;
        if job.meter.measures() {
            record(&mut times, asked.elapsed());
        }
        if response.error_code.is_error() {
            return Err(connection.refused("Fetch", response.error_code, None).into());
        }
        let (mut records, mut bytes) = (0, 0);
        let mut restart = Vec::new();
        for data in response.responses.into_iter().flat_map(|topic| topic.partitions) {
            let Some(cursor) = cursors.iter_mut().find(|cursor| cursor.partition == data.partition_index) else {
                continue;
            };
            match data.error_code {
                ErrorCode::NONE => {
                    if cursor.check(data, &mut records, &mut bytes)? {
                        restart.push(cursor.partition);
                    }
                }
                ErrorCode::OFFSET_OUT_OF_RANGE => restart.push(cursor.partition),
                code => return Err(connection.refused("Fetch", code, None).into()),
            }
        }
        job.meter.count(records, bytes);
        for partition in restart {
            let next = offset_of(&mut connection, reading, partition, START).await?;
            cursors.iter_mut().filter(|cursor| cursor.partition == partition).for_each(|cursor| cursor.next = next);
        }
    }
    Ok(times)
}

/// How far one partition has been read.
pub(super) struct Cursor {
    partition: i32,
    next: i64,
}

impl Cursor {
    /// Of a partition that is read from an offset on.
    pub(super) const fn new(partition: i32, next: i64) -> Self {
        Self { partition, next }
    }

    pub(super) const fn is_of(&self, partition: i32) -> bool {
        self.partition == partition
    }

    /// The offset that is read next.
    pub(super) const fn next(&self) -> i64 {
        self.next
    }

    /// Checks and counts what was fetched; says whether the partition's end is reached.
    pub(super) fn check(
        &mut self,
        mut data: PartitionData,
        records: &mut u64,
        bytes: &mut u64,
    ) -> Result<bool, Failure> {
        let partition = self.partition;
        let damaged = |problem: String| Failure::Data { what: format!("partition {partition}"), problem };
        let fetched = data.records.take().map(Records::into_bytes).unwrap_or_default();
        let empty = fetched.is_empty();
        let batches = Batches::new(fetched, self.next);
        for batch in batches {
            let (header, batch) = batch.map_err(|error| damaged(error.to_string()))?;
            if header.base_offset > self.next {
                return Err(damaged(format!("offset {} follows {}", header.base_offset, self.next - 1)));
            }
            self.next = header.next_offset();
            *records += u64::try_from(header.record_count).unwrap_or(0);
            *bytes += u64::try_from(batch.len()).expect("a size fits 64 bits");
        }
        if empty && data.high_watermark <= data.log_start_offset.max(0) {
            return Err(damaged("there is nothing to read in it".to_owned()));
        }
        Ok(self.next >= data.high_watermark)
    }
}

pub(super) fn request(reading: &Reading, cursors: &[Cursor], fetch_bytes: i32) -> FetchRequest {
    let partition = |cursor: &Cursor| FetchPartition {
        partition: cursor.partition,
        fetch_offset: cursor.next,
        partition_max_bytes: fetch_bytes,
        ..FetchPartition::default()
    };
    FetchRequest {
        max_wait_ms: MAX_WAIT_MS,
        min_bytes: 1,
        max_bytes: fetch_bytes,
        topics: vec![FetchTopic {
            topic: reading.topic.as_str().into(),
            topic_id: reading.topic_id,
            partitions: cursors.iter().map(partition).collect(),
        }],
        ..FetchRequest::default()
    }
}

/// The offset at a partition's start or end.
pub(super) async fn offset_of(
    connection: &mut Connection,
    reading: &Reading,
    partition: i32,
    timestamp: i64,
) -> Result<i64, Failure> {
    let wanted = ListOffsetsPartition { partition_index: partition, current_leader_epoch: -1, timestamp };
    let topic = ListOffsetsTopic { name: reading.topic.as_str().into(), partitions: vec![wanted] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
    let response = connection.call(&request, reading.timeout).await?;
    match response.topics.iter().flat_map(|topic| &topic.partitions).next() {
        Some(found) if !found.error_code.is_error() => Ok(found.offset),
        found => {
            let code = found.map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |found| found.error_code);
            Err(connection.refused("ListOffsets", code, None).into())
        }
    }
}
