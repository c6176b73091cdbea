//! A member of a group that commits each record, and leaves when the standard input ends.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::Outcome;

const POLL: Duration = Duration::from_millis(100);

/// What the member has, and what it has shown and not committed.
struct Seat {
    topic: String,
    partitions: Mutex<BTreeSet<i32>>,
    /// For a partition the offset behind the last record shown.
    uncommitted: Mutex<BTreeMap<i32, i64>>,
    consumer: OnceLock<Weak<BaseConsumer<Seat>>>,
}

impl ClientContext for Seat {}

impl ConsumerContext for Seat {
    fn pre_rebalance(&self, rebalance: &Rebalance<'_>) {
        let places = |list: &TopicPartitionList| -> BTreeSet<i32> {
            list.elements().iter().map(|place| place.partition()).collect()
        };
        let mut partitions = self.partitions.lock().expect("nobody panics here");
        match rebalance {
            Rebalance::Assign(given) => partitions.extend(places(given)),
            Rebalance::Revoke(taken) => {
                if let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) {
                    self.commit(&consumer).expect("what was read is committed before it is given away");
                }
                let taken = places(taken);
                partitions.retain(|partition| !taken.contains(partition));
            }
            Rebalance::Error(error) => panic!("rebalance: {error}"),
        }
        let words: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        println!("ASSIGNED {}", words.join(" "));
    }
}

impl Seat {
    /// Commits what was read, unless a rebalance is in its way: then a later call does.
    fn commit(&self, consumer: &BaseConsumer<Self>) -> Outcome<()> {
        let mut uncommitted = self.uncommitted.lock().expect("nobody panics here");
        if uncommitted.is_empty() {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in &*uncommitted {
            offsets.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))?;
        }
        match consumer.commit(&offsets, CommitMode::Sync) {
            Ok(()) => uncommitted.clear(),
            Err(KafkaError::ConsumerCommit(
                RDKafkaErrorCode::RebalanceInProgress | RDKafkaErrorCode::IllegalGeneration,
            )) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Runs until the standard input ends.
pub fn run(bootstrap: &str, group: &str, topic: &str, assignor: &str, instance: &str) -> Outcome<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", group).set("enable.auto.commit", "false");
    config.set("auto.offset.reset", "earliest").set("partition.assignment.strategy", assignor);
    config.set("session.timeout.ms", if instance.is_empty() { "10000" } else { "30000" });
    config.set("heartbeat.interval.ms", "500");
    if !instance.is_empty() {
        config.set("group.instance.id", instance);
    }
    let seat = Seat {
        topic: topic.to_owned(),
        partitions: Mutex::default(),
        uncommitted: Mutex::default(),
        consumer: OnceLock::new(),
    };
    let consumer: Arc<BaseConsumer<Seat>> = Arc::new(config.create_with_context(seat)?);
    let seat = consumer.context();
    seat.consumer.set(Arc::downgrade(&consumer)).expect("set once");
    consumer.subscribe(&[topic])?;
    let leaving = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&leaving);
    std::thread::spawn(move || {
        let mut nothing = Vec::new();
        std::io::stdin().read_to_end(&mut nothing).expect("the standard input ends");
        tell.store(true, Ordering::SeqCst);
    });
    let is_done = || leaving.load(Ordering::SeqCst) && seat.uncommitted.lock().expect("nobody panics here").is_empty();
    while !is_done() {
        if let Some(message) = consumer.poll(POLL) {
            let message = message?;
            if !leaving.load(Ordering::SeqCst) {
                let value = String::from_utf8(message.payload().unwrap_or_default().to_vec())?;
                println!("READ {} {} {value}", message.partition(), message.offset());
                let mut uncommitted = seat.uncommitted.lock().expect("nobody panics here");
                uncommitted.insert(message.partition(), message.offset() + 1);
            }
        }
        seat.commit(&consumer)?;
    }
    leave(&consumer)
}

/// Leaves, or as a static member just goes. The consumer is not dropped: that of a static member would wait for ever.
fn leave(consumer: &BaseConsumer<Seat>) -> Outcome<()> {
    // SAFETY: the handle is alive as long as the consumer, and nothing else uses it here.
    let code = unsafe { rdkafka_sys::rd_kafka_consumer_close(consumer.client().native_ptr()) };
    match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::NoError => std::process::exit(0),
        failed => Err(failed.to_string().into()),
    }
}
