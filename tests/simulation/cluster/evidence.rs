//! What clients of a cluster saw beyond records and offsets: who led, how far everybody said to be, and whether it was old news.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the clients of one run share.
#[derive(Clone, Default)]
pub struct Evidence(Arc<Mutex<Seen>>);

impl Evidence {
    /// What was seen, locked.
    pub fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// Who leads each partition in each epoch.
    leaders: BTreeMap<(i32, i32), BTreeSet<i32>>,
    /// The ids of clusters that brokers said they are of.
    pub clusters: BTreeSet<String>,
    /// Up to where each partition is known to be committed: some reply that has come said so.
    known_end: BTreeMap<i32, i64>,
    /// Where each partition is known to start: whoever asks now must not be told less. And up to where it was asked to, by anybody.
    log_starts: BTreeMap<i32, i64>,
    pub asked_starts: BTreeMap<i32, i64>,
    /// Changes of a partition's replicas that were seen through, and that were called off.
    pub moves: u64,
    pub called_off: u64,
    /// Times that a log start was moved.
    pub moved_starts: u64,
    /// Answers that fell short of what was known when their request was sent, and what else cannot be.
    pub broken: Vec<String>,
    /// Answers of leaders that were compared with what was known.
    pub compared: u64,
    /// What the replicas lack to be the same, at last.
    pub waits_for: Option<String>,
    /// Refusals by brokers that did not lead.
    pub redirected: u64,
}

impl Seen {
    /// A broker said who leads a partition in an epoch.
    pub fn leads(&mut self, partition: i32, epoch: i32, leader: i32) {
        let leaders = self.leaders.entry((partition, epoch)).or_default();
        if leaders.insert(leader) && leaders.len() > 1 {
            self.broken.push(format!("two-leaders: partition {partition} has {leaders:?} in epoch {epoch}"));
        }
    }

    /// How many leaders a partition has had, as clients were told.
    pub fn epochs(&self) -> usize {
        self.leaders.len()
    }

    /// Up to where a partition is known to be committed. Whoever asks now must be told as much.
    pub fn floor(&self, partition: i32) -> i64 {
        self.known_end.get(&partition).copied().unwrap_or(0)
    }

    /// A leader answered a request that was sent when `floor` was known: the partition is committed up to `end`.
    pub fn answered(&mut self, what: &str, partition: i32, floor: i64, end: i64) {
        self.compared += 1;
        if end < floor {
            self.broken
                .push(format!("stale-read: {what} of partition {partition} ends at {end}, {floor} was known before"));
        }
        self.known(partition, end);
    }

    /// Where a partition is known to start.
    pub fn log_start(&self, partition: i32) -> i64 {
        self.log_starts.get(&partition).copied().unwrap_or(0)
    }

    /// A leader says where a partition starts; `floor` was known when it was asked.
    pub fn starts(&mut self, what: &str, partition: i32, floor: i64, start: i64) {
        if start < floor {
            let text = format!("{what} of partition {partition} starts at {start}, {floor} was known before");
            self.broken.push(format!("log-start-regress: {text}"));
        }
        let asked = self.asked_starts.get(&partition).copied().unwrap_or(0);
        if start > asked {
            let text = format!("partition {partition} starts at {start}, and nobody asked for more than {asked}");
            self.broken.push(format!("early-delete: {text}"));
        }
        let known = self.log_starts.entry(partition).or_insert(start);
        *known = start.max(*known);
    }

    /// An offset was acknowledged.
    pub fn known(&mut self, partition: i32, end: i64) {
        let known = self.known_end.entry(partition).or_insert(end);
        *known = end.max(*known);
    }

    /// Something that must not be.
    pub fn broke(&mut self, what: String) {
        self.broken.push(what);
    }
}
