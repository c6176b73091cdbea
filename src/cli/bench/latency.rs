//! `ottla bench latency`: single records at a fixed rate, timed from when each was due.
//!
//! Open loop: a record is due when the clock says so, not when the one before it was answered, and its time counts from
//! then. A broker that stands still for a second makes a second's worth of late records, not one. One thread sends, one a
//! connection receives, all blocking: timers of a runtime are coarser than what is measured here.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde_json::json;

use super::arrivals::Arrivals;
use super::consume::Reading;
use super::frame::{ProduceFrames, Shape};
use super::meter::{Meter, Timing, Worker, histogram, record, watch};
use super::noise::Noise;
use super::produce::{check_produced, seed};
use super::setup::{Topic, runtime, shares};
use crate::cli::client::{ClientError, Connection};
use crate::cli::connect::{Connect, Failure};
use crate::cli::produce::{acks, now_ms};
use crate::protocol::frame::{SIZE_BYTES, response_size};
use crate::protocol::messages::ProduceRequest;

/// Answers to a produce are smaller than this.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// Write single records at a fixed rate and time each from the moment when it was due.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla bench latency --rate 5000 --connections 4 --broker-pid $(pidof ottla)\n  \
ottla bench echo --rate 5000 --connections 4      # what the machine itself takes")]
pub struct Args {
    #[command(flatten)]
    topic: Topic,
    #[command(flatten)]
    pace: Pace,
    /// Who must have a record before it counts: all or 1 (the leader).
    #[arg(long, default_value = "all", value_parser = acks, allow_hyphen_values = true)]
    acks: i16,
    /// Time each record until a consumer has it, instead of until it is acknowledged. Nobody else may write to the topic.
    #[arg(long)]
    end_to_end: bool,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    connect: Connect,
}

/// How many records of what size, and over how many connections.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Pace {
    /// Records a second, over all connections.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) rate: u32,
    /// Connections; they take turns.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) connections: u32,
    /// Bytes of each record's value.
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(super) record_size: u32,
}

/// A connection of the load.
pub(super) struct Lane {
    pub(super) broker: String,
    pub(super) stream: TcpStream,
    pub(super) frames: ProduceFrames,
    pub(super) version: i16,
}

/// Looks at an answer: the frame, the version, the correlation id that is due, the broker.
pub(super) type Check = fn(Bytes, i16, i32, &str) -> Result<(), Failure>;

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.acks == 0 {
        return Err(Failure::Usage("--acks 0 gets no answers, so there is nothing to time".to_owned()));
    }
    let (lanes, arrivals) = runtime()?.block_on(open(args))?;
    let meter = Arc::new(Meter::default());
    let schedule = Schedule::new(args.pace.rate, lanes.len());
    let consumers = arrivals.into_iter().map(|arrivals| arrivals.start(schedule, &meter));
    let mut workers = consumers.collect::<Result<Vec<_>, _>>()?;
    let times_answers = workers.is_empty();
    workers.extend(start(lanes, schedule, &meter, check_produced, times_answers)?);
    let measured = watch(&meter, workers, &args.timing, &args.connect)?;
    let settings = json!({
        "rate": args.pace.rate, "connections": args.pace.connections, "record_size": args.pace.record_size,
        "partitions": args.topic.partitions, "acks": args.acks, "end_to_end": args.end_to_end,
    });
    measured.print("latency", &settings, args.timing.format)
}

async fn open(args: &Args) -> Result<(Vec<Lane>, Vec<Arrivals>), Failure> {
    let mut client = args.connect.client().await?;
    let topic = args.topic.ready(&mut client).await?;
    let timeout = args.connect.timeout;
    let (mut lanes, mut arrivals) = (Vec::new(), Vec::new());
    let shares = shares(&client, &topic, args.topic.partitions, args.pace.connections as usize)?;
    for (at, share) in shares.into_iter().enumerate() {
        let connection = Connection::open(&share.broker, timeout).await?;
        let (stream, version) = connection.into_stream::<ProduceRequest>()?;
        let shape = Shape {
            topic: &args.topic.topic,
            version,
            acks: args.acks,
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            record_bytes: args.pace.record_size as usize,
            batch_bytes: 0,
            producer: None,
        };
        let noise = Noise::new(seed() ^ u64::try_from(at).expect("a connection's number"));
        let frames = ProduceFrames::new(&shape, &share.partitions, noise)
            .map_err(|source| ClientError::Encode { broker: share.broker.clone(), source })?;
        lanes.push(Lane { stream: blocking(stream)?, broker: share.broker.clone(), frames, version });
        if args.end_to_end {
            let reading = Reading { share, topic: args.topic.topic.clone(), topic_id: topic.topic_id, timeout };
            let lane = u64::try_from(at).expect("a connection's number");
            arrivals.push(Arrivals::open(reading, lane).await?);
        }
    }
    Ok((lanes, arrivals))
}

/// Takes a stream out of its runtime.
pub(super) fn blocking(stream: tokio::net::TcpStream) -> Result<TcpStream, Failure> {
    let stream = stream.into_std().and_then(|stream| stream.set_nonblocking(false).map(|()| stream));
    stream.map_err(|source| Failure::Io { what: "setting up a connection", source })
}

/// When each record is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: Instant,
    rate: u64,
    lanes: u64,
}

impl Schedule {
    /// So many records a second over so many lanes, from now on.
    pub(super) fn new(rate: u32, lanes: usize) -> Self {
        let lanes = u64::try_from(lanes).expect("a number of connections");
        Self { start: Instant::now(), rate: rate.into(), lanes }
    }

    /// When record `number` of that lane is due: the lanes take turns.
    pub(super) fn due(&self, lane: u64, number: u64) -> Instant {
        let turn = u128::from(number * self.lanes + lane);
        let nanos = turn * 1_000_000_000 / u128::from(self.rate);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// One thread sends on all lanes, one for each receives.
pub(super) fn start(
    lanes: Vec<Lane>,
    schedule: Schedule,
    meter: &Arc<Meter>,
    check: Check,
    times_answers: bool,
) -> Result<Vec<Worker>, Failure> {
    let io = |source| Failure::Io { what: "starting a thread", source };
    let mut workers = Vec::new();
    let mut outgoing = Vec::new();
    for (lane, at) in lanes.into_iter().zip(0..) {
        let sent = Arc::new(AtomicU64::new(0));
        let receiver = Receiver {
            stream: lane.stream.try_clone().map_err(io)?,
            broker: lane.broker.clone(),
            version: lane.version,
            lane: at,
            schedule,
            sent: Arc::clone(&sent),
            bytes: u64::try_from(lane.frames.batch_bytes()).expect("a size fits 64 bits"),
            meter: Arc::clone(meter),
            check,
            times_answers,
        };
        workers.push(thread::Builder::new().spawn(move || receiver.run()).map_err(io)?);
        outgoing.push((lane, sent));
    }
    let meter = Arc::clone(meter);
    workers.push(thread::Builder::new().spawn(move || send_all(outgoing, schedule, &meter)).map_err(io)?);
    Ok(workers)
}

fn send_all(
    mut lanes: Vec<(Lane, Arc<AtomicU64>)>,
    schedule: Schedule,
    meter: &Meter,
) -> Result<Histogram<u64>, Failure> {
    sharpen_timer();
    let mut number = 0;
    while meter.runs() {
        for (at, (lane, sent)) in (0..).zip(&mut lanes) {
            let early = schedule.due(at, number).saturating_duration_since(Instant::now());
            if !early.is_zero() {
                thread::sleep(early);
            }
            // Counted first: the answer may be there before the write returns.
            sent.fetch_add(1, Ordering::Release);
            let frame = lane.frames.next(now_ms());
            if let Err(source) = lane.stream.write_all(frame) {
                return Err(ClientError::Io { broker: lane.broker.clone(), source }.into());
            }
        }
        number += 1;
    }
    // Wakes the receivers, which look at the meter then.
    lanes.iter().for_each(|(lane, _)| drop(lane.stream.shutdown(Shutdown::Both)));
    Ok(histogram())
}

/// Lets this thread's sleeps end on time: by default the kernel may add 50 microseconds. Best effort.
fn sharpen_timer() {
    let thread = fs::read_link("/proc/thread-self").ok();
    if let Some(id) = thread.as_deref().and_then(|path| path.file_name()?.to_str()) {
        let _ = fs::write(format!("/proc/{id}/timerslack_ns"), "1");
    }
}

/// Takes the answers of one connection.
struct Receiver {
    stream: TcpStream,
    broker: String,
    version: i16,
    lane: u64,
    schedule: Schedule,
    sent: Arc<AtomicU64>,
    bytes: u64,
    meter: Arc<Meter>,
    check: Check,
    /// Or else a consumer times the records.
    times_answers: bool,
}

impl Receiver {
    fn run(mut self) -> Result<Histogram<u64>, Failure> {
        let mut times = histogram();
        let mut answered = 0;
        while let Some(frame) = self.frame()? {
            let now = Instant::now();
            // Correlation ids count as the records do, and wrap.
            let expected = i32::from_be_bytes(u32::try_from(answered & 0xffff_ffff).expect("masked").to_be_bytes());
            (self.check)(frame, self.version, expected, &self.broker)?;
            if self.times_answers && self.meter.measures() {
                record(&mut times, now.saturating_duration_since(self.schedule.due(self.lane, answered)));
            }
            self.meter.count(1, self.bytes);
            answered += 1;
        }
        // Those without an answer took at least so long.
        let now = Instant::now();
        let unanswered = if self.times_answers { self.sent.load(Ordering::Acquire) } else { 0 };
        for number in answered..unanswered {
            record(&mut times, now.saturating_duration_since(self.schedule.due(self.lane, number)));
        }
        Ok(times)
    }

    /// The next answer, or nothing when the load is over.
    fn frame(&mut self) -> Result<Option<Bytes>, Failure> {
        let mut front = [0; SIZE_BYTES];
        if let Err(source) = self.stream.read_exact(&mut front) {
            return self.ended(source);
        }
        let size = response_size(front).map_err(|source| ClientError::Frame { broker: self.broker.clone(), source })?;
        if size > ANSWER_MAX_BYTES {
            let problem = format!("an answer of {size} bytes to a produce");
            return Err(Failure::Data { what: self.broker.clone(), problem });
        }
        let mut frame = vec![0; size];
        match self.stream.read_exact(&mut frame) {
            Ok(()) => Ok(Some(Bytes::from(frame))),
            Err(source) => self.ended(source),
        }
    }

    fn ended(&self, source: std::io::Error) -> Result<Option<Bytes>, Failure> {
        match source.kind() {
            _ if !self.meter.runs() => Ok(None),
            ErrorKind::UnexpectedEof => {
                let api = crate::protocol::api::ApiKey::Produce;
                Err(ClientError::Closed { broker: self.broker.clone(), api }.into())
            }
            _ => Err(ClientError::Io { broker: self.broker.clone(), source }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_take_turns_at_the_rate_asked_for() {
        let start = Instant::now();
        let schedule = Schedule { start, rate: 1000, lanes: 4 };
        let due = |lane, number| schedule.due(lane, number) - start;
        assert_eq!(due(0, 0), Duration::ZERO);
        assert_eq!(due(1, 0), Duration::from_millis(1));
        assert_eq!(due(0, 1), Duration::from_millis(4));
        assert_eq!(due(3, 1_000_000), Duration::from_millis(4_000_003));
    }
}
