//! A partition on a disk that fills up: what its producers and readers are told, and how it gets out of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::flaws::Flaws;
use crate::ids::{BrokerId, Incarnation, LogId, PartitionIndex, ReplicaId, TopicId};
use crate::log::journal::Journal;
use crate::log::mem_disk::MemDisk;
use crate::log::{OpenAfter, ReadError, Reading};
use crate::machine::Machine;
use crate::machine::topic_config::{BrokerValues, Values};
use crate::metrics::Metrics;
use crate::net::TokioNetwork;
use crate::protocol::compression::Compression;
use crate::protocol::record::{BatchBuilder, NewRecord};
use crate::raft::applier::Snapshots;
use crate::raft::{Node, Peers};

const ID: PartitionId = PartitionId { topic: TopicId([9; 16]), partition: PartitionIndex(0) };
const BATCH_BYTES: usize = 20_000;
const CAPACITY: u64 = 12 << 20;

struct Life {
    replica: Arc<Replica>,
    disk: MemDisk,
    journal: Arc<Journal>,
}

/// A topic's configs, from names and values.
fn config(values: &[(&str, &str)]) -> Arc<TopicConfig> {
    let values: Values = values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let none = Values::default();
    Arc::new(TopicConfig::resolve(&values, BrokerValues { dynamic: &none, dynamic_default: &none, fixed: &none }))
}

async fn live(disk: MemDisk, config: Arc<TopicConfig>) -> Life {
    let shared: Arc<dyn crate::log::disk::Disk> = Arc::new(disk.clone());
    let journal = Journal::open(Arc::clone(&shared)).or_else(|_| Journal::create(Arc::clone(&shared))).unwrap();
    let (log, recovered) =
        Log::open(Arc::clone(&shared), Arc::clone(&journal), ID, log_config(&config), OpenAfter { clean: false })
            .unwrap();
    let machine = match &recovered.descriptor {
        Some(descriptor) => PartitionMachine::restore(&descriptor.machine).unwrap(),
        None => PartitionMachine::default(),
    };
    let published = Publisher::new(ID, Arc::default(), None);
    let me = ReplicaId { broker: BrokerId(1), incarnation: Incarnation(1) };
    let group = GroupConfig {
        me,
        founders: BTreeSet::from([me]),
        order: Vec::new(),
        node: Node::new(me.broker, Peers::new(Arc::new(TokioNetwork), "test"), 1, Flaws::NONE),
        log: Arc::new(log),
        journal: Arc::clone(&journal),
        flusher: Flusher::new(shared, Arc::new(Metrics::new(&[], &[])), Arc::new(|fatal| panic!("{fatal:?}"))),
        page_cache: false,
        machine: Arc::new(Mutex::new(machine)),
        descriptor: recovered.descriptor,
        observer: Arc::clone(&published) as _,
        snapshots: Snapshots::AtLogStart,
        seed: 5,
    };
    let replica = Replica::open(group, config, published, |task| drop(tokio::spawn(task))).await.unwrap();
    Life { replica, disk, journal }
}

fn batch(bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&NewRecord { timestamp: 1000, key: None, value: Some(&vec![7; bytes]), headers: &[] });
    builder.build()
}

impl Life {
    async fn produce(&self) -> Result<Submitted, SubmitError> {
        let batch = batch(BATCH_BYTES);
        let header = BatchHeader::parse(&batch).unwrap();
        let (tell, outcome) = tokio::sync::oneshot::channel();
        let done: Done = Box::new(move |result| drop(tell.send(result)));
        self.replica.submit(Submission { batch, header, done }).await;
        outcome.await.unwrap()
    }

    /// Produces until the disk is full; answers how many records are in.
    async fn fill(&self) -> i64 {
        for _ in 0..1000 {
            match self.produce().await {
                Ok(_) => {}
                Err(SubmitError::StorageFull(ID)) => return self.replica.watermarks().high_watermark.0,
                Err(other) => panic!("{other}"),
            }
        }
        panic!("the disk does not fill up");
    }

    fn read(&self, offset: i64) -> Result<usize, ReadError> {
        let end = self.replica.watermarks().high_watermark;
        match self.replica.log().read(Offset(offset), 1, end)? {
            Reading::Fetched(fetched) => Ok(fetched.bytes),
            Reading::NeedsDevice(_) => panic!("it was just written"),
        }
    }

    /// What the janitor does of a partition.
    async fn janitor(&self) {
        if let Some(due) = self.replica.retention_due(Timestamp(1 << 40), true).unwrap() {
            self.replica.move_log_start(due).await.expect("a full disk takes what makes room on it");
        }
        if self.replica.take_purgeable() {
            self.replica.roll_below_log_start().unwrap();
            self.replica.group().checkpoint().await;
            self.replica.group().purge().await;
        }
    }

    /// Waits for the purge, which happens in the group's core.
    async fn purged(&self, before: Option<LogId>) {
        for _ in 0..500 {
            if self.replica.log().state().purged > before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let segments = self.replica.log().segments();
        panic!(
            "nothing was purged of {segments:#?}, at {:?} with {:#?}",
            self.replica.watermarks(),
            self.journal.group(ID)
        );
    }
}

#[tokio::test]
async fn a_full_disk_refuses_batches_serves_reads_and_recovers_when_retention_may_make_room() {
    for setting in [("retention.bytes", "1000000"), ("retention.ms", "1")] {
        let kept = [("segment.bytes", "1048576"), ("retention.ms", "-1")];
        let life = live(MemDisk::inline(), config(&kept)).await;
        life.disk.set_capacity(Some(CAPACITY));
        let held = life.fill().await;
        assert!(held > 50, "{held} records");
        for offset in 0..held {
            assert!(life.read(offset).expect("reads go on") > BATCH_BYTES);
        }
        assert!(matches!(life.produce().await, Err(SubmitError::StorageFull(ID))), "still full");
        life.replica.configure(config(&[kept[0], setting]));
        life.janitor().await;
        life.purged(None).await;
        let again = life.produce().await.unwrap_or_else(|error| panic!("{setting:?}: {error}"));
        assert_eq!(again.base_offset, Offset(held));
        assert!(life.replica.watermarks().log_start > Offset(0));
        assert!(life.read(held).is_ok());
    }
}

#[tokio::test]
async fn a_disk_that_others_have_filled_to_the_last_byte_still_takes_commands_and_restarts() {
    let config = config(&[("segment.bytes", "1048576"), ("retention.ms", "-1")]);
    let life = live(MemDisk::inline(), Arc::clone(&config)).await;
    for _ in 0..130 {
        life.produce().await.unwrap();
    }
    // From now on there is nothing to be had beyond what the logs and the journal hold already.
    life.disk.set_capacity(Some(0));
    life.fill().await;
    for start in 1..20 {
        life.replica.move_log_start(Offset(start)).await.expect("a command finds room");
    }
    assert_eq!(life.replica.watermarks().log_start, Offset(19));
    let held = life.replica.watermarks().high_watermark.0;
    // A new life begins a term with an entry of Raft's own.
    let life = live(life.disk.crash_process(), config).await;
    assert_eq!(life.fill().await, held);
    assert!(life.read(held - 1).is_ok());
    life.replica.move_log_start(Offset(60)).await.expect("a command finds room");
    let used = life.disk.clone();
    life.replica.group().checkpoint().await;
    life.replica.group().purge().await;
    life.purged(None).await;
    used.set_capacity(Some(CAPACITY));
    assert_eq!(life.produce().await.expect("there is room").base_offset, Offset(held));
}

#[tokio::test]
async fn commands_without_end_on_a_full_disk_are_refused_before_raft_sees_them() {
    let life = live(MemDisk::inline(), config(&[("segment.bytes", "1048576")])).await;
    for _ in 0..5 {
        life.produce().await.unwrap();
    }
    life.disk.set_capacity(Some(0));
    life.fill().await;
    let mut refused = None;
    for n in 0..2000 {
        match life.replica.command(Command::LogStart(Offset(1)).encode()).await {
            Ok(()) => {}
            Err(SubmitError::StorageFull(_)) => {
                refused = Some(n);
                break;
            }
            Err(other) => panic!("the group ended: {other}"),
        }
    }
    let refused = refused.expect("what is kept is not endless");
    assert!(refused > 50, "{refused} commands found room");
    life.disk.set_capacity(None);
    life.produce().await.expect("the group lives");
}
