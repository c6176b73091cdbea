//! What a produce and a fetch cost inside the process: decode and check a request, append a batch, find what a fetch returns.
//!
//! `cargo bench --bench hot_path`. No sync is timed: what the device takes belongs to `ottla bench`.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ottla::ids::{LogId, Offset, PartitionId, PartitionIndex, RaftIndex, Term, TopicId};
use ottla::log::disk::Disk;
use ottla::log::entry::{Body, NewEntry};
use ottla::log::journal::Journal;
use ottla::log::mmap::{MmapDisk, MmapOptions};
use ottla::log::{Log, LogConfig, OpenAfter};
use ottla::protocol::batch::check_client_batch;
use ottla::protocol::compression::Compression;
use ottla::protocol::frame::{decode_body, encode_request};
use ottla::protocol::header::RequestHeader;
use ottla::protocol::messages::ProduceRequest;
use ottla::protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use ottla::protocol::record::{BatchBuilder, NewRecord};

const VERSION: i16 = 9;
const PARTITION: PartitionId = PartitionId { topic: TopicId([7; 16]), partition: PartitionIndex(0) };
const FETCH_BYTES: usize = 1 << 20;
/// Appended before the log is made anew, so that the bench measures memory and not the disk's size.
const LOG_BYTES_MAX: u64 = 256 << 20;

fn batch(bytes: usize) -> Bytes {
    let value = vec![0x5a; 1024.min(bytes / 2)];
    let mut builder = BatchBuilder::new(Compression::None);
    while builder.size_bytes() + value.len() < bytes {
        builder.push(&NewRecord { timestamp: 1_700_000_000_000, key: None, value: Some(&value), headers: &[] });
    }
    builder.build()
}

fn produce_frame(batch: &Bytes) -> Bytes {
    let data = PartitionProduceData { index: 0, records: Some(batch.clone().into()) };
    let topic = TopicProduceData { name: "hot".into(), partition_data: vec![data], ..Default::default() };
    let request = ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
    let frame = encode_request(VERSION, 1, Some("bench"), &request).expect("the version exists").concat();
    Bytes::from(frame).slice(4..)
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    for bytes in [4 << 10, 64 << 10] {
        let batch = batch(bytes);
        let frame = produce_frame(&batch);
        group.throughput(Throughput::Bytes(u64::try_from(batch.len()).expect("fits")));
        group.bench_function(format!("decode a produce of {} KiB", bytes >> 10), |bencher| {
            bencher.iter(|| {
                let (_, body) = RequestHeader::decode(black_box(&frame).clone()).expect("a header");
                decode_body::<ProduceRequest>(body, VERSION).expect("a request")
            });
        });
        group.bench_function(format!("check a batch of {} KiB", bytes >> 10), |bencher| {
            bencher.iter(|| check_client_batch(black_box(&batch)).expect("a whole batch"));
        });
    }
    group.finish();
}

struct Bench {
    log: Log,
    next: u64,
    written: u64,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let disk: Arc<dyn Disk> =
            Arc::new(MmapDisk::open(directory.path().to_path_buf(), MmapOptions::default()).expect("a disk"));
        let journal = Journal::create(Arc::clone(&disk)).expect("a journal");
        let config = LogConfig { segment_bytes: 64 << 20 };
        let (log, _) = Log::open(disk, journal, PARTITION, config, OpenAfter { clean: true }).expect("a log");
        Self { log, next: 0, written: 0, _directory: directory }
    }

    fn append(&mut self, batch: &Bytes) {
        if self.written > LOG_BYTES_MAX {
            *self = Self::new();
        }
        let id = LogId { term: Term(1), index: RaftIndex(self.next) };
        self.log.append(&[NewEntry { id, body: Body::Records(batch.clone()) }]).expect("the disk works");
        self.next += 1;
        self.written += u64::try_from(batch.len()).expect("fits");
    }
}

fn logs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    for bytes in [4 << 10, 64 << 10] {
        let batch = batch(bytes);
        let mut bench = Bench::new();
        group.throughput(Throughput::Bytes(u64::try_from(batch.len()).expect("fits")));
        group.bench_function(format!("append a batch of {} KiB", bytes >> 10), |bencher| {
            bencher.iter_batched(|| batch.clone(), |batch| bench.append(&batch), BatchSize::SmallInput);
        });
    }
    let (mut bench, batch) = (Bench::new(), batch(64 << 10));
    for _ in 0..1000 {
        bench.append(&batch);
    }
    let end = bench.log.state().next_offset;
    let mut at = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("find 1 MiB for a fetch", |bencher| {
        bencher.iter(|| {
            at = (at + 7919) % end.0;
            bench.log.read(Offset(at), FETCH_BYTES, end).expect("a readable log")
        });
    });
    group.finish();
}

criterion_group!(benches, requests, logs);
criterion_main!(benches);
