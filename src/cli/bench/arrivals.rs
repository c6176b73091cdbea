//! The other end of `ottla bench latency --end-to-end`: a consumer of each connection's partitions, which times each record from when it was due.
//!
//! A connection's records go to its partitions in turn, so the offset says which record it is. Nobody else may write to the topic meanwhile.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::consume::{self, Cursor, LAST, Reading};
use super::latency::Schedule;
use super::meter::{Meter, Worker, histogram, record};
use super::setup::runtime;
use crate::cli::client::Connection;
use crate::cli::connect::Failure;

/// Bytes that a fetch may return: records are small here.
const FETCH_BYTES: i32 = 1 << 20;
/// What was due so shortly before the end may not have been sent.
const SENDING: Duration = Duration::from_millis(100);

/// A consumer of one connection's partitions.
pub(super) struct Arrivals {
    pub(super) reading: Reading,
    /// The connection's number.
    pub(super) lane: u64,
    /// The ends of its partitions before the load, in the order in which it writes to them.
    pub(super) from: Vec<i64>,
}

impl Arrivals {
    /// Of the lane with that number, whose load has not begun.
    ///
    /// # Errors
    /// If the broker does not say where the partitions end.
    pub(super) async fn open(reading: Reading, lane: u64) -> Result<Self, Failure> {
        let mut connection = Connection::open(&reading.share.broker, reading.timeout).await?;
        let mut from = Vec::new();
        for partition in &reading.share.partitions {
            from.push(consume::offset_of(&mut connection, &reading, *partition, LAST).await?);
        }
        Ok(Self { reading, lane, from })
    }

    /// Starts a thread that reads until the meter stops.
    pub(super) fn start(self, schedule: Schedule, meter: &Arc<Meter>) -> Result<Worker, Failure> {
        let meter = Arc::clone(meter);
        let thread = thread::Builder::new().name("arrivals".to_owned());
        let worker = thread.spawn(move || runtime()?.block_on(self.run(schedule, &meter)));
        worker.map_err(|source| Failure::Io { what: "starting a thread", source })
    }

    async fn run(self, schedule: Schedule, meter: &Meter) -> Result<Histogram<u64>, Failure> {
        let Self { reading, lane, from } = self;
        let mut connection = Connection::open(&reading.share.broker, reading.timeout).await?;
        let partitions = reading.share.partitions.iter().zip(&from);
        let mut cursors: Vec<Cursor> = partitions.map(|(partition, next)| Cursor::new(*partition, *next)).collect();
        let mut times = histogram();
        let due = |at: usize, offset: i64| {
            let number = |size: usize| u64::try_from(size).expect("a number of partitions");
            let round = u64::try_from(offset - from[at]).expect("read from there on");
            schedule.due(lane, round * number(from.len()) + number(at))
        };
        while meter.runs() {
            let request = consume::request(&reading, &cursors, FETCH_BYTES);
            let response = connection.call(&request, reading.timeout).await?;
            let now = Instant::now();
            if response.error_code.is_error() {
                return Err(connection.refused("Fetch", response.error_code, None).into());
            }
            for data in response.responses.into_iter().flat_map(|topic| topic.partitions) {
                if data.error_code.is_error() {
                    return Err(connection.refused("Fetch", data.error_code, None).into());
                }
                let Some(at) = cursors.iter().position(|cursor| cursor.is_of(data.partition_index)) else { continue };
                // Nothing was ever written to it: a load may begin slowly.
                if data.high_watermark <= data.log_start_offset.max(0) {
                    continue;
                }
                let before = cursors[at].next();
                cursors[at].check(data, &mut 0, &mut 0)?;
                for offset in before..cursors[at].next() {
                    if meter.measures() {
                        record(&mut times, now.saturating_duration_since(due(at, offset)));
                    }
                }
            }
        }
        // Those that have not come took at least so long. What was due when the load was told to end may not have been sent.
        let stopped = meter.stopped().unwrap_or_else(Instant::now);
        for (at, cursor) in cursors.iter().enumerate() {
            let late = (cursor.next()..).map(|offset| stopped.saturating_duration_since(due(at, offset)));
            late.take_while(|late| *late > SENDING).for_each(|late| record(&mut times, late));
        }
        Ok(times)
    }
}
