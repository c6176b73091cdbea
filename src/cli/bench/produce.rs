//! `ottla bench produce`: as many batches as the broker takes, so many in flight on each connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frame::{ProduceFrames, Shape};
use super::meter::{Meter, Timing, histogram, record, watch};
use super::noise::Noise;
use super::setup::{Share, Topic, runtime, shares, start, threads};
use crate::cli::client::{ClientError, Connection, take_frame};
use crate::cli::connect::{Connect, Failure};
use crate::cli::produce::{acks, now_ms};
use crate::protocol::api::ApiKey;
use crate::protocol::frame::decode_response;
use crate::protocol::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse};

/// Room for answers, which are small.
const READ_BYTES: usize = 16 << 10;

/// Write as fast as the broker takes it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla bench produce --broker-pid $(pidof ottla)\n  \
ottla bench produce --record-size 100 --batch-bytes 16384 --partitions 100 --connections 20 --in-flight 8\n  \
ottla bench produce --fresh --config retention.bytes=100663296 --config segment.bytes=25165824 --format json")]
pub struct Args {
    #[command(flatten)]
    topic: Topic,
    /// Bytes of each record's value.
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=64 << 20))]
    record_size: u32,
    /// Bytes of each batch, at most.
    #[arg(long, value_name = "BYTES", default_value_t = 65536, value_parser = clap::value_parser!(u32).range(100..=64 << 20))]
    batch_bytes: u32,
    /// Connections; each writes to its share of the partitions in turn.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Requests under way on each connection, one batch each.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Who must have a record before it counts: all, 1 (the leader) or 0 (nobody).
    #[arg(long, default_value = "all", value_parser = acks, allow_hyphen_values = true)]
    acks: i16,
    /// With a producer id for each connection.
    #[arg(long)]
    idempotent: bool,
    /// Threads of the generator.
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    connect: Connect,
}

/// One connection's work.
struct Job {
    share: Share,
    settings: Settings,
    seed: u64,
    meter: Arc<Meter>,
}

/// What holds for all connections.
#[derive(Clone)]
struct Settings {
    topic: String,
    record_bytes: usize,
    batch_bytes: usize,
    in_flight: usize,
    acks: i16,
    idempotent: bool,
    timeout: Duration,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let connections = args.connections as usize;
    let shares = runtime()?.block_on(async {
        let mut client = args.connect.client().await?;
        let topic = args.topic.ready(&mut client).await?;
        shares(&client, &topic, args.topic.partitions, connections)
    })?;
    let settings = Settings {
        topic: args.topic.topic.clone(),
        record_bytes: args.record_size as usize,
        batch_bytes: args.batch_bytes as usize,
        in_flight: args.in_flight as usize,
        acks: args.acks,
        idempotent: args.idempotent,
        timeout: args.connect.timeout,
    };
    let meter = Arc::new(Meter::default());
    let seed = seed();
    let job = |(at, share)| Job {
        share,
        settings: settings.clone(),
        seed: seed ^ u64::try_from(at).expect("a connection's number"),
        meter: Arc::clone(&meter),
    };
    let jobs = shares.into_iter().enumerate().map(job).collect();
    let threads = threads(args.threads, connections);
    let workers = start(threads, jobs, drive)?;
    let measured = watch(&meter, workers, &args.timing, &args.connect)?;
    let settings = json!({
        "record_size": args.record_size, "batch_bytes": args.batch_bytes, "connections": args.connections,
        "partitions": args.topic.partitions, "in_flight": args.in_flight, "acks": args.acks,
        "idempotent": args.idempotent, "threads": threads,
    });
    measured.print("produce", &settings, args.timing.format)
}

/// A seed that no other run has.
pub(super) fn seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos() & u128::from(u64::MAX)).expect("masked to 64 bits") << 16
}

async fn drive(job: Job) -> Result<Histogram<u64>, Failure> {
    let settings = &job.settings;
    let mut connection = Connection::open(&job.share.broker, settings.timeout).await?;
    let producer = if settings.idempotent { Some(producer_id(&mut connection, settings.timeout).await?) } else { None };
    let (stream, version) = connection.into_stream::<ProduceRequest>()?;
    let shape = Shape {
        topic: &settings.topic,
        version,
        acks: settings.acks,
        timeout_ms: i32::try_from(settings.timeout.as_millis()).unwrap_or(i32::MAX),
        record_bytes: settings.record_bytes,
        batch_bytes: settings.batch_bytes,
        producer,
    };
    let frames = ProduceFrames::new(&shape, &job.share.partitions, Noise::new(job.seed))
        .map_err(|source| ClientError::Encode { broker: job.share.broker.clone(), source })?;
    let (times, sent, buffer) = (histogram(), VecDeque::new(), BytesMut::with_capacity(READ_BYTES));
    let mut load = Load { job: &job, stream, version, frames, sent, buffer, next_answer: 0, times };
    load.run().await?;
    Ok(load.times)
}

async fn producer_id(connection: &mut Connection, timeout: Duration) -> Result<(i64, i16), ClientError> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        producer_id: -1,
        producer_epoch: -1,
    };
    let response = connection.call(&request, timeout).await?;
    match response.error_code.is_error() {
        true => Err(connection.refused("InitProducerId", response.error_code, None)),
        false => Ok((response.producer_id, response.producer_epoch)),
    }
}

/// A connection at work.
struct Load<'a> {
    job: &'a Job,
    stream: TcpStream,
    version: i16,
    frames: ProduceFrames,
    /// When each request under way was sent.
    sent: VecDeque<Instant>,
    buffer: BytesMut,
    next_answer: i32,
    times: Histogram<u64>,
}

impl Load<'_> {
    async fn run(&mut self) -> Result<(), Failure> {
        let in_flight = self.job.settings.in_flight;
        while self.job.meter.runs() {
            self.send().await?;
            if self.job.settings.acks == 0 {
                self.answered(1);
            } else if self.sent.len() >= in_flight {
                self.receive().await?;
            }
        }
        // What is under way is waited for, so that the next load starts on an idle broker.
        let (after, broker) = (self.job.settings.timeout, self.job.share.broker.clone());
        let drained = tokio::time::timeout(after, async {
            while !self.sent.is_empty() {
                self.receive().await?;
            }
            Ok(())
        });
        drained.await.unwrap_or_else(|_| Err(ClientError::Timeout { broker, api: ApiKey::Produce, after }.into()))
    }

    async fn send(&mut self) -> Result<(), Failure> {
        let frame = self.frames.next(now_ms());
        if self.job.settings.acks != 0 {
            self.sent.push_back(Instant::now());
        }
        self.stream.write_all(frame).await.map_err(|source| self.io(source))
    }

    /// Takes at least one answer, and all that came with it.
    async fn receive(&mut self) -> Result<(), Failure> {
        self.buffer.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.buffer).await.map_err(|source| self.io(source))? == 0 {
            let broker = self.job.share.broker.clone();
            return Err(ClientError::Closed { broker, api: ApiKey::Produce }.into());
        }
        let now = Instant::now();
        let mut answers = 0;
        while let Ok(frame) = take_frame(&mut self.buffer).map_err(|source| self.frame_error(source))? {
            self.check(frame)?;
            answers += 1;
            let Some(sent) = self.sent.pop_front() else { break };
            if self.job.meter.measures() {
                record(&mut self.times, now - sent);
            }
        }
        self.answered(answers);
        Ok(())
    }

    fn answered(&self, answers: u64) {
        let number = |count: usize| u64::try_from(count).expect("a size fits 64 bits");
        for _ in 0..answers {
            self.job.meter.count(number(self.frames.records()), number(self.frames.batch_bytes()));
        }
    }

    fn check(&mut self, frame: Bytes) -> Result<(), Failure> {
        let expected = self.next_answer;
        self.next_answer = expected.wrapping_add(1);
        check_produced(frame, self.version, expected, &self.job.share.broker)
    }

    fn io(&self, source: std::io::Error) -> Failure {
        ClientError::Io { broker: self.job.share.broker.clone(), source }.into()
    }

    fn frame_error(&self, source: crate::protocol::frame::FrameError) -> Failure {
        ClientError::Frame { broker: self.job.share.broker.clone(), source }.into()
    }
}

/// Fails unless the frame is the answer that is due and says that everything was written.
pub(super) fn check_produced(frame: Bytes, version: i16, expected: i32, broker: &str) -> Result<(), Failure> {
    let broker = || broker.to_owned();
    let (got, response): (i32, ProduceResponse) =
        decode_response(frame, version).map_err(|source| ClientError::Malformed { broker: broker(), source })?;
    if got != expected {
        return Err(ClientError::OutOfOrder { broker: broker(), expected, got }.into());
    }
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    match partitions.find(|partition| partition.error_code.is_error()) {
        None => Ok(()),
        Some(partition) => Err(ClientError::Refused {
            what: format!("Produce to partition {} refused by broker {}", partition.index, broker()),
            code: partition.error_code,
            message: partition.error_message.as_deref().map(ToOwned::to_owned),
        }
        .into()),
    }
}
