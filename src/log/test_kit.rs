//! What the tests of the log share: a log on a disk in memory, and entries that are easy to tell apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::entry::{Body, NewEntry, RaftEntryKind};
use super::journal::Journal;
use super::mem_disk::MemDisk;
use super::{Descriptor, Log, LogConfig, OpenAfter, Reading, Recovered};
use crate::ids::{LogId, Offset, PartitionId, PartitionIndex, RaftIndex, Term, TopicId};
use crate::protocol::compression::Compression;
use crate::protocol::record::{BatchBuilder, NewRecord};

pub(super) const PARTITION: PartitionId = PartitionId { topic: TopicId([7; 16]), partition: PartitionIndex(3) };

/// A log on a disk.
pub(super) struct Kit {
    pub(super) disk: MemDisk,
    pub(super) journal: Arc<Journal>,
    pub(super) log: Log,
    pub(super) recovered: Recovered,
}

impl Kit {
    pub(super) fn new(segment_bytes: u64) -> Self {
        let disk = MemDisk::inline();
        Journal::create(Arc::new(disk.clone())).expect("a new disk");
        Self::open(disk, segment_bytes, false)
    }

    pub(super) fn open(disk: MemDisk, segment_bytes: u64, clean: bool) -> Self {
        let journal = Journal::open(Arc::new(disk.clone())).expect("a whole journal");
        let config = LogConfig { segment_bytes };
        let (log, recovered) =
            Log::open(Arc::new(disk.clone()), Arc::clone(&journal), PARTITION, config, OpenAfter { clean })
                .expect("the log opens");
        Self { disk, journal, log, recovered }
    }

    /// Kills the process and starts it again.
    pub(super) fn restart(self, segment_bytes: u64) -> Self {
        Self::open(self.disk.crash_process(), segment_bytes, false)
    }

    /// Stops cleanly and starts again.
    pub(super) fn stop_and_start(self, segment_bytes: u64) -> Self {
        self.log.seal_clean().expect("the disk works");
        self.sync_journal();
        Self::open(self.disk.crash_process(), segment_bytes, true)
    }

    pub(super) fn sync_journal(&self) {
        let done = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&done);
        self.journal.sync(Box::new(move |result| set.store(result.is_ok(), Ordering::SeqCst)));
        assert!(done.load(Ordering::SeqCst), "jobs run inline, and the disk works");
    }

    /// Appends one batch.
    pub(super) fn append(&self, term: u64, batch: Bytes) -> LogId {
        let index = self.log.state().last.map_or(RaftIndex(0), |last| last.index.next());
        self.append_at(term, index.0, Body::Records(batch))
    }

    pub(super) fn append_raft(&self, term: u64, kind: RaftEntryKind, body: &'static [u8]) -> LogId {
        let index = self.log.state().last.map_or(RaftIndex(0), |last| last.index.next());
        self.append_at(term, index.0, Body::Raft { kind, body: Bytes::from_static(body) })
    }

    pub(super) fn append_at(&self, term: u64, index: u64, body: Body) -> LogId {
        let id = LogId { term: Term(term), index: RaftIndex(index) };
        self.log.append(&[NewEntry { id, body }]).expect("the disk works").last
    }

    pub(super) fn flush(&self) {
        if let Some(plan) = self.log.begin_flush() {
            plan.run().expect("the disk works");
            self.log.end_flush(plan).expect("the disk works");
        }
    }

    /// Makes a durable descriptor of the log's flushed end.
    pub(super) fn checkpoint(&self, log_start: i64) -> Descriptor {
        self.flush();
        let last = self.log.state().last.expect("there are entries");
        self.checkpoint_at(last.index.0, log_start, false)
    }

    pub(super) fn checkpoint_at(&self, index: u64, log_start: i64, roll: bool) -> Descriptor {
        let point = self.log.point_at(RaftIndex(index)).expect("the entry is there");
        let descriptor = Descriptor {
            id: point.id,
            membership: Bytes::from_static(b"members"),
            next_offset: point.next_offset,
            log_start: Offset(log_start),
            epochs: point.epochs,
            machine: Bytes::from_static(b"machine"),
            place: Some(point.place),
            roll,
        };
        self.log
            .put_descriptor(descriptor.clone(), Box::new(|result| result.expect("the disk works")))
            .expect("flushed");
        descriptor
    }

    /// Reads as a client would, warming what is cold.
    pub(super) fn read(&self, offset: i64, max_bytes: usize, visible_end: i64) -> Result<Bytes, super::ReadError> {
        for _ in 0..100 {
            match self.log.read(Offset(offset), max_bytes, Offset(visible_end))? {
                Reading::Fetched(fetched) => {
                    assert_eq!(fetched.bytes, fetched.slices.iter().map(Bytes::len).sum::<usize>());
                    return Ok(fetched.slices.concat().into());
                }
                Reading::NeedsDevice(cold) => drop(self.log.warm(cold)?),
            }
        }
        panic!("warming goes on for ever");
    }

    /// All of the log's files, by name.
    pub(super) fn files(&self, suffix: &str) -> Vec<String> {
        use super::disk::Disk;
        let entries = self.disk.list(&super::directory(PARTITION)).expect("the disk works");
        entries.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(suffix)).collect()
    }
}

/// A batch of `records` records of about `value_bytes` each, filled from `seed`.
pub(super) fn batch(seed: u64, records: usize, value_bytes: usize) -> Bytes {
    timed_batch(seed, records, value_bytes, 1_000_000)
}

pub(super) fn timed_batch(seed: u64, records: usize, value_bytes: usize, timestamp: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for number in 0..records {
        let mut value = Vec::with_capacity(value_bytes + 8);
        while value.len() < value_bytes {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            value.extend_from_slice(&word.to_be_bytes());
        }
        value.truncate(value_bytes);
        let step = i64::try_from(number).expect("small");
        builder.push(&NewRecord {
            timestamp: timestamp + step,
            key: Some(&seed.to_be_bytes()),
            value: Some(&value),
            headers: &[],
        });
    }
    builder.build()
}

/// A batch as it is stored.
pub(super) fn stamped(batch: &Bytes, base_offset: i64, epoch: i32) -> Vec<u8> {
    let mut bytes = batch.to_vec();
    bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
    bytes
}

pub(super) fn entry(term: u64, index: u64, body: Body) -> NewEntry {
    NewEntry { id: LogId { term: Term(term), index: RaftIndex(index) }, body }
}

/// Compares with `tests/golden/log/<name>.hex`, which `OTTLA_WRITE_GOLDEN=1` writes anew: a difference is another format version.
pub(super) fn assert_golden(name: &str, bytes: &[u8]) {
    use std::fmt::Write;
    let mut text = String::new();
    for (number, line) in bytes.chunks(32).enumerate() {
        if line.iter().any(|byte| *byte != 0) {
            write!(text, "{:06x}:", number * 32).expect("a string takes all");
            line.iter().for_each(|byte| write!(text, " {byte:02x}").expect("a string takes all"));
            text.push('\n');
        }
    }
    writeln!(text, "{:06x}", bytes.len()).expect("a string takes all");
    let path = format!("{}/tests/golden/log/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("OTTLA_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(format!("{}/tests/golden/log", env!("CARGO_MANIFEST_DIR"))).expect("writable");
        std::fs::write(&path, &text).expect("writable");
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default(), "{path}");
}
