//! What librdkafka, through the `rdkafka` crate, writes to a broker: one producer, 1 KB records that do not compress, acks=all.
//!
//! `cargo bench --bench librdkafka -- --bootstrap 127.0.0.1:9092 [--topic T] [--seconds N] [--warmup N]` prints one line of JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

const RECORD_BYTES: usize = 1024;
const FLUSH_MAX: Duration = Duration::from_secs(60);

/// Counts what was acknowledged and what was not.
#[derive(Clone, Default)]
struct Counts(Arc<(AtomicU64, AtomicU64)>);

impl ClientContext for Counts {}

impl ProducerContext for Counts {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.0.0 } else { &self.0.1 };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Fills a record with noise that no other record has.
fn fill(record: &mut [u8; RECORD_BYTES], state: &mut u64) {
    for word in record.chunks_exact_mut(8) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
}

fn send_for(producer: &ThreadedProducer<Counts>, topic: &str, state: &mut u64, time: Duration) {
    let end = Instant::now() + time;
    let mut record = [0; RECORD_BYTES];
    let mut sent = 0_u64;
    fill(&mut record, state);
    while !sent.is_multiple_of(256) || Instant::now() < end {
        match producer.send(BaseRecord::<(), [u8], ()>::to(topic).payload(&record)) {
            Ok(()) => {
                sent += 1;
                fill(&mut record, state);
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                // The queue is the client's own brake.
                std::thread::yield_now();
                if Instant::now() >= end {
                    return;
                }
            }
            Err((error, _)) => panic!("produce: {error}"),
        }
    }
}

fn main() {
    let mut options: BTreeMap<String, String> = BTreeMap::new();
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_else(|| panic!("{name} wants a value"));
        options.insert(name.trim_start_matches('-').to_owned(), value);
    }
    let option = |name: &str, default: &str| options.get(name).map_or_else(|| default.to_owned(), Clone::clone);
    let seconds =
        |name: &str, default: &str| Duration::from_secs(option(name, default).parse().expect("a number of seconds"));
    let counts = Counts::default();
    let producer: ThreadedProducer<Counts> = ClientConfig::new()
        .set("bootstrap.servers", option("bootstrap", "127.0.0.1:9092"))
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.messages", "200000")
        .create_with_context(counts.clone())
        .expect("a producer");
    let topic = option("topic", "ottla-bench");
    let mut state = 0x9e37_79b9_7f4a_7c15;
    send_for(&producer, &topic, &mut state, seconds("warmup", "10"));
    let (began, before) = (Instant::now(), counts.0.0.load(Ordering::Relaxed));
    send_for(&producer, &topic, &mut state, seconds("seconds", "20"));
    let (elapsed, acked) = (began.elapsed().as_secs_f64(), counts.0.0.load(Ordering::Relaxed) - before);
    producer.flush(FLUSH_MAX).expect("everything is acknowledged");
    let failed = counts.0.1.load(Ordering::Relaxed);
    assert_eq!(failed, 0, "{failed} records were not acknowledged");
    let bytes = acked * u64::try_from(RECORD_BYTES).expect("fits");
    #[allow(clippy::cast_precision_loss)] // A rate for people.
    let (records, megabytes) = (acked as f64 / elapsed, bytes as f64 / 1e6 / elapsed);
    println!(
        r#"{{"load": "librdkafka", "seconds": {elapsed:.1}, "records_per_s": {records:.0}, "mb_per_s": {megabytes:.1}}}"#
    );
}
