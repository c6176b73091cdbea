//! The cluster's controller on this broker: reads of committed state, changes one at a time.
//!
//! A change is decided on committed state, proposed, and answered when it is applied; the next one is decided after that, so a
//! decision never rests on anything uncommitted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, Notify, watch};

use super::watermarks::Watermarks;
use crate::ids::{BrokerId, Offset, PartitionId, ProducerId, TopicId};
use crate::log::Log;
use crate::machine::controller::names::is_internal;
use crate::machine::controller::{Controller, Record, record};
use crate::machine::groups::{KnownTopic, Topics};
use crate::machine::topic_config::{BrokerValues, TopicConfig, Values};
use crate::protocol::batch::HEADER_BYTES;
use crate::protocol::value::Text;
use crate::raft::{AppliedState, Command, Group, Observer};

/// Learns when the controller has applied something.
#[derive(Debug)]
pub struct Wake {
    changed: Notify,
    applied: watch::Sender<u64>,
}

impl Wake {
    /// A fresh one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { changed: Notify::new(), applied: watch::Sender::new(0) })
    }
}

impl Observer<Controller> for Wake {
    fn applied(&self, _machine: &Controller, state: AppliedState) {
        self.applied.send_replace(state.last.index.0);
        self.changed.notify_one();
    }
}

/// The controller's group has stopped or lost its leadership: ask again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the controller is not available")]
pub struct Unavailable;

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError<E> {
    /// The decision refused it.
    #[error("{0}")]
    Refused(E),
    /// The controller cannot decide now; whether a proposed change was made is unknown.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Ids left of the block that was reserved last.
#[derive(Debug, Default)]
struct ProducerIds {
    next: i64,
    end: i64,
}

/// The controller, as the rest of the broker sees it.
pub struct ControllerHandle {
    group: Group<Controller>,
    wake: Arc<Wake>,
    order: Mutex<()>,
    producer_ids: Mutex<ProducerIds>,
    served: Notify,
    broker: BrokerId,
    fixed: Values,
}

impl ControllerHandle {
    /// A handle on a group that leads. `fixed` is what this broker's file says, by the broker's names of the configs.
    #[must_use]
    pub fn new(group: Group<Controller>, wake: Arc<Wake>, broker: BrokerId, fixed: Values) -> Self {
        let (order, producer_ids, served) = (Mutex::default(), Mutex::default(), Notify::new());
        Self { group, wake, order, producer_ids, served, broker, fixed }
    }

    /// What this broker says where a topic says nothing.
    #[must_use]
    pub fn broker_values<'a>(&'a self, controller: &'a Controller) -> BrokerValues<'a> {
        BrokerValues {
            dynamic: controller.broker_configs(self.broker),
            dynamic_default: controller.default_broker_configs(),
            fixed: &self.fixed,
        }
    }

    /// A topic's configs as values, from what is set on it and on this broker.
    #[must_use]
    pub fn topic_config(&self, controller: &Controller, topic: &Values) -> TopicConfig {
        TopicConfig::resolve(topic, self.broker_values(controller))
    }

    /// The controller's log.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        self.group.log()
    }

    /// Reads committed state, under a short lock.
    pub fn read<T>(&self, read: impl FnOnce(&Controller) -> T) -> T {
        read(&self.group.machine().lock().expect("a machine's apply does not panic"))
    }

    /// A topic's id by its name.
    #[must_use]
    pub fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.read(|controller| controller.topic(name).map(|topic| topic.id))
    }

    /// The name of the topic that has the id.
    #[must_use]
    pub fn topic_name(&self, id: TopicId) -> Option<Text> {
        self.read(|controller| controller.topic_by_id(id).map(|topic| topic.name.as_str().into()))
    }

    /// Whether the cluster has such a partition.
    #[must_use]
    pub fn has_partition(&self, id: PartitionId) -> bool {
        self.read(|controller| controller.replicas(id).is_some())
    }

    /// Decides on committed state and commits what was decided. Returns the decision's value once its records are applied.
    ///
    /// # Errors
    /// The decision's own refusal, or that the controller is not available.
    pub async fn change<T, E>(
        &self,
        decide: impl FnOnce(&Controller) -> Result<(Vec<Record>, T), E>,
    ) -> Result<T, ChangeError<E>> {
        let _one_at_a_time = self.order.lock().await;
        let (records, value) = self.read(decide).map_err(ChangeError::Refused)?;
        if !records.is_empty() {
            self.commit(record::encode_entry(&records)).await?;
        }
        Ok(value)
    }

    async fn commit(&self, entry: Bytes) -> Result<(), Unavailable> {
        let term = self.group.term().ok_or(Unavailable)?;
        // An append that finds no room ends the group: ask before Raft sees the entry. On a full disk these changes still find some, since
        // it takes one (a topic's deletion, a shorter retention) to make room.
        let room = u64::try_from(entry.len() + HEADER_BYTES).expect("a length fits");
        self.group.log().reserve_command(room).map_err(|_| Unavailable)?;
        let (tell, outcome) = tokio::sync::oneshot::channel();
        let done = move |result: Result<_, _>| {
            // Nobody waits any more if the request was given up.
            let _ = tell.send(result.map(|_| ()));
        };
        self.group.propose(term, Command::Machine(entry), done).await;
        outcome.await.map_err(|_| Unavailable)?.map_err(|_| Unavailable)
    }

    /// A producer id that was never given out.
    ///
    /// # Errors
    /// If a new block cannot be reserved.
    pub async fn producer_id(&self) -> Result<ProducerId, Unavailable> {
        let mut ids = self.producer_ids.lock().await;
        if ids.next == ids.end {
            let reserve =
                |controller: &Controller| controller.decide_producer_ids().map(|(record, block)| (vec![record], block));
            let block = self.change(reserve).await.map_err(|error| {
                tracing::error!(%error, "no producer ids could be reserved");
                Unavailable
            })?;
            *ids = ProducerIds { next: block.start, end: block.end };
        }
        let id = ProducerId(ids.next);
        ids.next += 1;
        Ok(id)
    }

    /// Waits until something was applied since the last call.
    pub async fn changed(&self) {
        self.wake.changed.notified().await;
    }

    /// This broker holds what the controller said when it was last asked.
    pub fn served(&self) {
        self.served.notify_waiters();
    }

    /// Waits until `is_served` holds, asking again whenever this broker has caught up with the controller; at most for `timeout`.
    pub async fn wait_served(&self, timeout: Duration, is_served: impl Fn() -> bool) -> bool {
        let wait = async {
            loop {
                let served = self.served.notified();
                if is_served() {
                    return;
                }
                served.await;
            }
        };
        tokio::time::timeout(timeout, wait).await.is_ok()
    }

    /// The controller's own watermarks, for the admin port.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        let state = self.group.log().state();
        Watermarks {
            applied: state.last,
            term: self.group.term(),
            high_watermark: state.next_offset,
            log_start: Offset(0),
        }
    }

    /// Captures a checkpoint, and lets the log before it be purged.
    pub async fn checkpoint(&self) {
        self.group.checkpoint().await;
        self.group.purge().await;
    }

    /// Stops the group after a last checkpoint.
    pub async fn stop(&self) {
        self.group.checkpoint().await;
        self.group.stop().await;
    }
}

impl Topics for ControllerHandle {
    fn version(&self) -> u64 {
        // Whatever the controller applies may be about topics.
        *self.wake.applied.borrow()
    }

    fn find(&self, name: &str) -> Option<KnownTopic> {
        self.read(|controller| {
            let topic = controller.topic(name)?;
            let partitions = i32::try_from(topic.partitions.len()).expect("partitions are numbered in 32 bits");
            Some(KnownTopic { id: topic.id, partitions })
        })
    }

    fn name(&self, id: TopicId) -> Option<Text> {
        self.read(|controller| controller.topic_by_id(id).map(|topic| topic.name.as_str().into()))
    }

    fn names(&self) -> Vec<Text> {
        self.read(|controller| {
            let names = controller.topics().map(|topic| &*topic.name).filter(|name| !is_internal(name));
            names.map(Text::from).collect()
        })
    }
}
