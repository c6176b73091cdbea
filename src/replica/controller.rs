//! The cluster's controller on this broker: reads of committed state, and changes, one at a time in the whole cluster.
//!
//! Every broker has the controller's state and decides by itself; what it has decided is proposed by the controller's leader, if the state
//! has not changed since (`decided-on-newest`); else it is decided again. A change is answered when it is applied, here too; the next one
//! is decided after that, so a decision never rests on anything uncommitted. A refusal rests on what was committed when it was asked for: another
//! broker asks the leader first how far that is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, watch};
use tokio::time::Instant;

use super::watermarks::Watermarks;
use crate::cluster::{Changed, calls};
use crate::ids::{BrokerId, Offset, PartitionId, ProducerId, RaftIndex, ReplicaId, Term, TopicId};
use crate::log::Log;
use crate::machine::controller::names::is_internal;
use crate::machine::controller::{Controller, Record, record};
use crate::machine::groups::{KnownTopic, Topics};
use crate::machine::topic_config::{BrokerValues, TopicConfig, Values};
use crate::protocol::batch::HEADER_BYTES;
use crate::protocol::value::Text;
use crate::raft::group::Proposed;
use crate::raft::{AppliedState, Command, Group, Node, Observer, ProposeError};

/// Learns when the controller has applied something.
#[derive(Debug)]
pub struct Wake {
    changed: Notify,
    applied: watch::Sender<u64>,
    term: std::sync::Mutex<Option<Term>>,
    among: Option<Arc<Node>>,
}

impl Wake {
    /// A fresh one; `among` are the other brokers, if there are any.
    #[must_use]
    pub fn new(among: Option<Arc<Node>>) -> Arc<Self> {
        let term = std::sync::Mutex::default();
        Arc::new(Self { changed: Notify::new(), applied: watch::Sender::new(0), term, among })
    }

    /// Everything up to `index` was in the checkpoint that the machine was restored from.
    pub fn restored(&self, index: RaftIndex) {
        self.applied.send_if_modified(|applied| {
            let is_later = *applied < index.0;
            *applied = (*applied).max(index.0);
            is_later
        });
    }

    /// The term whose first entry was applied last.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        *self.term.lock().expect("no panic under the lock of a term")
    }
}

impl Observer<Controller> for Wake {
    fn voters(&self, voters: &[BTreeSet<ReplicaId>]) {
        if let Some(node) = &self.among {
            node.set_voters(PartitionId::CONTROLLER, voters);
        }
    }

    fn applied(&self, _machine: &Controller, state: AppliedState) {
        let before =
            std::mem::replace(&mut *self.term.lock().expect("no panic under the lock of a term"), state.blank_term);
        self.applied.send_replace(state.last.index.0);
        if let (Some(node), Some(term)) = (&self.among, state.blank_term.filter(|_| before != state.blank_term)) {
            node.began_term(PartitionId::CONTROLLER, term);
        }
        self.changed.notify_one();
    }
}

/// How long a change waits for the controller to have a leader.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How often it is looked whether other brokers serve what a client waits for.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How long a change may take to be committed, before nobody waits for it any more.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long this broker may take to apply what the leader has.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(5);

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
    group: Arc<Group<Controller>>,
    wake: Arc<Wake>,
    order: Arc<Mutex<()>>,
    /// The other brokers, if this one has others.
    among: Option<Arc<Node>>,
    producer_ids: Mutex<ProducerIds>,
    served: Notify,
    broker: BrokerId,
    fixed: Values,
}

impl ControllerHandle {
    /// A handle on a group. `among` are the other brokers; without any, the group leads. `fixed` is what this broker's file says, by the broker's
    /// names of the configs.
    #[must_use]
    pub fn new(
        group: Group<Controller>,
        wake: Arc<Wake>,
        among: Option<Arc<Node>>,
        broker: BrokerId,
        fixed: Values,
    ) -> Self {
        let (order, producer_ids, served) = (Arc::default(), Mutex::default(), Notify::new());
        Self { group: Arc::new(group), wake, order, among, producer_ids, served, broker, fixed }
    }

    /// The controller's group.
    #[must_use]
    pub fn group(&self) -> &Group<Controller> {
        &self.group
    }

    /// The other brokers, if there are to be any.
    pub(super) fn among(&self) -> Option<&Arc<Node>> {
        self.among.as_ref()
    }

    /// The last entry that is applied here.
    pub(super) fn applied(&self) -> RaftIndex {
        RaftIndex(*self.wake.applied.borrow())
    }

    /// The broker that leads the controller's group, as far as this one knows.
    #[must_use]
    pub fn leader(&self) -> Option<BrokerId> {
        match &self.among {
            None => Some(self.broker),
            Some(node) => {
                let leader = node.leader(PartitionId::CONTROLLER).map(|(broker, _)| broker);
                leader.filter(|leader| *leader != self.broker || self.leads())
            }
        }
    }

    /// Whether decisions are proposed here.
    #[must_use]
    pub fn leads(&self) -> bool {
        match &self.among {
            None => self.group.term().is_some(),
            Some(node) => node.serving(PartitionId::CONTROLLER).is_some(),
        }
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

    /// Decides on committed state and commits what was decided. Returns the decision's value once its records are applied, here too. It may be
    /// decided several times, when others change the state meanwhile.
    ///
    /// # Errors
    /// The decision's own refusal, or that the controller is not available.
    pub async fn change<T, E>(
        &self,
        decide: impl Fn(&Controller) -> Result<(Vec<Record>, T), E>,
    ) -> Result<T, ChangeError<E>> {
        let deadline = Instant::now() + LEADER_PATIENCE;
        loop {
            match self.try_change(&decide).await? {
                Some(value) => return Ok(value),
                None if Instant::now() < deadline => tokio::time::sleep(AGAIN_AFTER).await,
                None => return Err(Unavailable.into()),
            }
        }
    }

    /// Nothing: there is no leader now, or the state has changed.
    async fn try_change<T, E>(
        &self,
        decide: &impl Fn(&Controller) -> Result<(Vec<Record>, T), E>,
    ) -> Result<Option<T>, ChangeError<E>> {
        let Some(node) = self.among.as_ref().filter(|_| !self.leads()) else {
            let Some((order, term)) = self.begin().await else { return Ok(None) };
            let (records, value) = self.read(decide).map_err(ChangeError::Refused)?;
            if records.is_empty() {
                return Ok(self.leads().then_some(value));
            }
            return match self.commit(order, term, record::encode_entry(&records)).await {
                Changed::Applied(_) => Ok(Some(value)),
                Changed::NotLeader if self.among.is_some() => Ok(None),
                _ => Err(Unavailable.into()),
            };
        };
        let link = node.leader(PartitionId::CONTROLLER).and_then(|(leader, _)| node.peers().link(leader));
        let Some(link) = link else { return Ok(None) };
        let Ok(Some(newest)) = calls::barrier(&link).await else { return Ok(None) };
        if !self.wait_applied(newest).await {
            return Err(Unavailable.into());
        }
        let (version, decided) = self.read(|controller| (controller.version(), decide(controller)));
        let (records, value) = decided.map_err(ChangeError::Refused)?;
        if records.is_empty() {
            return Ok(Some(value));
        }
        match calls::change(&link, version, record::encode_entry(&records)).await {
            Ok(Changed::Applied(index)) if self.wait_applied(index).await => Ok(Some(value)),
            Ok(Changed::Conflict(_) | Changed::NotLeader) => Ok(None),
            Ok(Changed::Applied(_) | Changed::Unknown | Changed::Full) | Err(_) => Err(Unavailable.into()),
        }
    }

    /// Commits a change that another broker has decided on the state of `version`, if that is the newest.
    pub async fn propose(&self, version: RaftIndex, entry: Bytes) -> Changed {
        if record::decode_entry(&entry).is_err() {
            // No replica could apply it.
            return Changed::Unknown;
        }
        let Some((order, term)) = self.begin().await else { return Changed::NotLeader };
        let newest = self.read(Controller::version);
        if newest == version { self.commit(order, term, entry).await } else { Changed::Conflict(newest) }
    }

    /// Waits for the turn to decide here, and says in which term: everything that was decided before it is applied. Nothing if this broker does not
    /// lead, or those before do not end.
    async fn begin(&self) -> Option<(OwnedMutexGuard<()>, Term)> {
        let order = tokio::time::timeout(LEADER_PATIENCE, Arc::clone(&self.order).lock_owned()).await.ok()?;
        // The state that is read after this is at least that of the term; should it be over, nothing is committed in it any more.
        let term = self.group.term().filter(|term| self.wake.term() == Some(*term))?;
        self.leads().then_some((order, term))
    }

    /// Up to where everything that was acknowledged is applied here, if this broker leads the controller's group.
    #[must_use]
    pub fn barrier(&self) -> Option<RaftIndex> {
        // What was applied before the lease was looked at.
        let applied = self.applied();
        self.leads().then_some(applied)
    }

    /// Waits until this broker has applied the controller's log up to `index`; whether it has.
    async fn wait_applied(&self, index: RaftIndex) -> bool {
        let mut applied = self.wake.applied.subscribe();
        let wait = applied.wait_for(|applied| *applied >= index.0);
        matches!(tokio::time::timeout(CATCH_UP_PATIENCE, wait).await, Ok(Ok(_)))
    }

    /// Waits until this broker knows what the controller has decided; whether it does.
    pub async fn catch_up(&self) -> bool {
        let Some(node) = self.among.as_ref().filter(|_| !self.leads()) else { return true };
        let link = node.leader(PartitionId::CONTROLLER).and_then(|(leader, _)| node.peers().link(leader));
        let Some(link) = link else { return false };
        match calls::barrier(&link).await {
            Ok(Some(newest)) => self.wait_applied(newest).await,
            Ok(None) | Err(_) => false,
        }
    }

    /// The same, tried again for as long as a change would be: the controller may be between two leaders.
    pub async fn catch_up_soon(&self) -> bool {
        let deadline = Instant::now() + LEADER_PATIENCE;
        loop {
            if self.catch_up().await {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Proposes and waits, in a task of its own: whoever asked may go away, the next decision waits all the same.
    async fn commit(&self, order: OwnedMutexGuard<()>, term: Term, entry: Bytes) -> Changed {
        let group = Arc::clone(&self.group);
        let commit = tokio::spawn(async move {
            let outcome = commit(&group, term, entry).await;
            drop(order);
            outcome
        });
        // A leader that is cut off hears nothing for as long as that lasts.
        match tokio::time::timeout(COMMIT_PATIENCE, commit).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Changed::Unknown,
        }
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

    /// Moves whenever something was applied.
    #[must_use]
    pub fn decided(&self) -> watch::Receiver<u64> {
        self.wake.applied.subscribe()
    }

    /// Waits until something was applied since the last call.
    pub async fn changed(&self) {
        self.wake.changed.notified().await;
    }

    /// As if something had been applied: what this broker holds is compared with it once more.
    pub fn look_again(&self) {
        self.wake.changed.notify_one();
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
                // What other brokers serve is heard from their beats.
                drop(tokio::time::timeout(LOOK_AGAIN_AFTER, served).await);
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

async fn commit(group: &Group<Controller>, term: Term, entry: Bytes) -> Changed {
    // An append that finds no room ends the group: ask before Raft sees the entry. On a full disk these changes still find some, since
    // it takes one (a topic's deletion, a shorter retention) to make room.
    let room = u64::try_from(entry.len() + HEADER_BYTES).expect("a length fits");
    if group.log().reserve_command(room).is_err() {
        return Changed::Full;
    }
    let (tell, outcome) = tokio::sync::oneshot::channel();
    let done = move |result: Result<Proposed, ProposeError>| {
        // Nobody waits any more if the broker stops.
        let _ = tell.send(result);
    };
    group.propose(term, Command::Machine(entry), done).await;
    match outcome.await {
        Ok(Ok(proposed)) => Changed::Applied(proposed.id.index),
        Ok(Err(ProposeError::NotLeader)) => Changed::NotLeader,
        Ok(Err(ProposeError::Unknown | ProposeError::Stopped)) | Err(_) => Changed::Unknown,
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
