//! What clients saw, and the check of it against what may be seen. Violations carry the names of `docs/invariants.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The history, shared by the clients of one run.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<History>>);

impl Shared {
    /// The history, locked.
    pub fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A position: partition and offset.
pub type Position = (i32, i64);

/// What clients saw.
#[derive(Default)]
pub struct History {
    /// Values that were sent, with their partition, in the order of their sending.
    pub sent: Vec<(i32, String)>,
    /// Acknowledged values with the position that was acknowledged.
    pub acked: Vec<(Position, String)>,
    /// What readers saw, at every position, in the order of seeing.
    pub polled: Vec<(Position, String)>,
    /// What the last read of everything, after all faults, found.
    pub last_read: BTreeMap<Position, String>,
    /// The highest high watermark seen for each partition, and each fall below it.
    pub high_watermarks: BTreeMap<i32, i64>,
    /// Falls of a high watermark.
    pub regressions: Vec<String>,
    /// Where each partition's log started at last, if it was moved.
    pub log_starts: BTreeMap<i32, i64>,
    /// Retries that the broker knew for duplicates cannot be seen by a client; how many batches were sent again.
    pub resent: u64,
    wire_hash: u64,
    /// Messages that crossed the wire.
    pub wire_events: u64,
}

impl History {
    /// Takes bytes on the wire into the hash.
    pub fn wire(&mut self, direction: &[u8], bytes: &[u8]) {
        self.wire_events += 1;
        for byte in direction.iter().chain(bytes) {
            self.wire_hash = (self.wire_hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The hash over all bytes on the wire.
    pub fn wire_hash(&self) -> u64 {
        self.wire_hash
    }

    /// Takes note of a high watermark that a reply carried.
    pub fn high_watermark(&mut self, partition: i32, high_watermark: i64) {
        let highest = self.high_watermarks.entry(partition).or_insert(high_watermark);
        if high_watermark < *highest {
            self.regressions.push(format!("hw-regress: partition {partition} from {highest} to {high_watermark}"));
        }
        *highest = high_watermark.max(*highest);
    }

    fn is_deleted(&self, (partition, offset): Position) -> bool {
        self.log_starts.get(&partition).is_some_and(|start| offset < *start)
    }

    /// What cannot be, whatever a last read would find: one position has two values.
    pub fn contradictions(&self) -> Vec<String> {
        let mut known: BTreeMap<Position, &String> = BTreeMap::new();
        let mut found = Vec::new();
        for (position, value) in self.acked.iter().chain(&self.polled) {
            let first = known.entry(*position).or_insert(value);
            if *first != value {
                found.push(format!("inconsistent-offset: {position:?} was {first}, and {value}").replace("..", ""));
            }
        }
        found
    }

    /// Every violation.
    pub fn violations(&self) -> Vec<String> {
        let mut found = self.regressions.clone();
        self.check_acked(&mut found);
        self.check_polled(&mut found);
        self.check_last_read(&mut found);
        // Values are padded with dots.
        found.into_iter().map(|text| text.replace("..", "")).collect()
    }

    fn check_acked(&self, found: &mut Vec<String>) {
        let present: BTreeSet<&String> = self.last_read.values().collect();
        for (position, value) in self.acked.iter().filter(|(position, _)| !self.is_deleted(*position)) {
            match self.last_read.get(position) {
                Some(there) if there == value => {}
                Some(there) => found.push(format!("inconsistent-offset: {position:?} acked {value}, holds {there}")),
                None => found.push(format!("lost-write: {value} was acked at {position:?}")),
            }
            if !present.contains(value) {
                found.push(format!("unseen: {value} was acked at {position:?}"));
            }
        }
    }

    fn check_polled(&self, found: &mut Vec<String>) {
        for (position, value) in self.polled.iter().filter(|(position, _)| !self.is_deleted(*position)) {
            if self.last_read.get(position) != Some(value) {
                found.push(format!("read-past-hw: {value} was read at {position:?} and is gone"));
            }
        }
    }

    fn check_last_read(&self, found: &mut Vec<String>) {
        let order: BTreeMap<&String, usize> = self.sent.iter().enumerate().map(|(n, (_, value))| (value, n)).collect();
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<(i32, &str), usize> = BTreeMap::new();
        let mut next_offset: BTreeMap<i32, i64> = BTreeMap::new();
        for ((partition, offset), value) in &self.last_read {
            if !seen.insert(value) {
                found.push(format!("duplicate: {value} again at ({partition}, {offset})"));
            }
            let Some(&number) = order.get(value) else {
                found.push(format!("phantom: {value} at ({partition}, {offset}) was never sent"));
                continue;
            };
            let producer = value.split('-').next().unwrap_or_default();
            if last.insert((*partition, producer), number).is_some_and(|before| before > number) {
                found.push(format!("nonmonotonic-send: {value} at ({partition}, {offset}) after a later one"));
            }
            let start = self.log_starts.get(partition).copied().unwrap_or(0);
            let expected = next_offset.entry(*partition).or_insert(start);
            if *offset != *expected {
                found.push(format!("poll-skip: partition {partition} has {offset} where {expected} was due"));
            }
            *expected = offset + 1;
        }
    }
}
