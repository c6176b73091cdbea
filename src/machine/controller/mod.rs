//! The machine of the cluster's own group: which brokers, topics, partitions, configs and ids there are.
//!
//! Requests are decided on the leader by the `decide_*` functions (one file for each noun), which yield [`Record`]s to
//! propose as one entry ([`record::encode_entry`]), or a [`Refusal`] that says why not. Ids and choices at random come in
//! as arguments. Whoever proposes decides one request at a time: the next only when the entry before is applied, so that
//! every decision sees all that was decided.
//!
//! # Invariants
//! - A topic's name, its id, and its name with `.` read as `_`, each belong to one topic only.
//! - Incarnations and producer ids are handed out once, also across deletion of what they were handed to.
//! - A partition has at least one replica, and no two on one broker.
//!
//! [`Machine::apply`] keeps them whatever it is given: a record that does not fit the state is skipped, on every replica
//! alike. So a proposer learns from the state after its entry whether it took effect (a topic id is never used twice).

pub mod balance;
pub mod brokers;
pub mod configs;
pub mod loss;
pub mod moves;
pub mod names;
pub mod placement;
pub mod reassign;
pub mod record;
pub mod refusal;
pub mod topics;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::state_bytes::{Reader, StateError, Writer};
use super::topic_config::Values;
use super::{Committed, Machine, MachineError, What};
use crate::ids::{BrokerId, Incarnation, PartitionId, PartitionIndex, ProducerId, RaftIndex, ReplicaId, TopicId};
pub use moves::Moving;
use names::fold_name;
pub use record::{DirectoryId, Endpoints, Record, Resource};
pub use refusal::{Kind, Refusal};

const SNAPSHOT_VERSION: u8 = 4;

/// Partitions of all topics together.
pub const PARTITIONS_MAX: usize = 200_000;
/// Partitions that one request creates at most (Kafka's own limit).
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;
/// Producer ids that a broker reserves at a time (Kafka's block size).
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// A broker that has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// The data directory that it joined with.
    pub directory: DirectoryId,
    /// Where it is; none before it has said so.
    pub endpoints: Option<Endpoints>,
    /// Its replica of the controller's own group; none for the only broker of a cluster that never had another.
    pub controller: Option<ReplicaId>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id, new on each creation.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// The replicas of each partition, the preferred leader first.
    pub partitions: Vec<Vec<ReplicaId>>,
    /// The configs set on it.
    pub configs: Values,
}

/// The state of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controller {
    cluster_id: Option<String>,
    brokers: BTreeMap<BrokerId, Broker>,
    topics: BTreeMap<TopicId, Topic>,
    names: BTreeMap<String, TopicId>,
    /// Names with `.` read as `_`.
    folded: BTreeMap<String, TopicId>,
    partitions: usize,
    broker_configs: BTreeMap<BrokerId, Values>,
    default_broker_configs: Values,
    next_producer_id: ProducerId,
    next_incarnation: Incarnation,
    version: RaftIndex,
    /// The first replicas of partitions that have others now.
    founders: BTreeMap<PartitionId, Vec<ReplicaId>>,
    moving: BTreeMap<PartitionId, Moving>,
    /// The directories of brokers that were given up: whoever comes with one is not taken in again.
    given_up: BTreeSet<DirectoryId>,
    /// Partitions whose majority was given up, until they are refounded, and the replicas that are left of each.
    doomed: BTreeMap<PartitionId, Vec<ReplicaId>>,
}

impl Controller {
    /// The cluster's id; none before it is founded.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// The last entry that changed something: a decision holds as long as this is what it was decided on.
    #[must_use]
    pub const fn version(&self) -> RaftIndex {
        self.version
    }

    /// The first incarnation that was never handed out.
    #[must_use]
    pub const fn next_incarnation(&self) -> Incarnation {
        self.next_incarnation
    }

    /// A broker.
    #[must_use]
    pub fn broker(&self, broker: BrokerId) -> Option<&Broker> {
        self.brokers.get(&broker)
    }

    /// The brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = (BrokerId, &Broker)> {
        self.brokers.iter().map(|(id, broker)| (*id, broker))
    }

    /// The topic of that name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.names.get(name).map(|id| &self.topics[id])
    }

    /// The topic of that id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.names.values().map(|id| &self.topics[id])
    }

    /// The topics whose names are not less than `name`, by name: to go on where an answer was cut.
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Topic> {
        self.names
            .range::<str, _>((std::ops::Bound::Included(name), std::ops::Bound::Unbounded))
            .map(|(_, id)| &self.topics[id])
    }

    /// Number of partitions of all topics.
    #[must_use]
    pub const fn partition_count(&self) -> usize {
        self.partitions
    }

    /// The replicas of one partition.
    #[must_use]
    pub fn replicas(&self, partition: PartitionId) -> Option<&[ReplicaId]> {
        let at = usize::try_from(partition.partition.0).ok()?;
        self.topics.get(&partition.topic)?.partitions.get(at).map(Vec::as_slice)
    }

    /// The replicas that found a partition's group: those that it was created with. Another one that finds nothing on its disk has to be told by a
    /// leader. An only replica founds it anew, since nobody else can tell it anything.
    #[must_use]
    pub fn founders(&self, partition: PartitionId) -> Option<&[ReplicaId]> {
        let present = self.replicas(partition)?;
        let first = self.founders.get(&partition).filter(|_| present.len() > 1 || self.moving.contains_key(&partition));
        Some(first.map_or(present, Vec::as_slice))
    }

    /// All replicas that one broker is to have, by partition; not those that are to go.
    pub fn replicas_on(&self, broker: BrokerId) -> impl Iterator<Item = (PartitionId, ReplicaId)> {
        self.topics.values().flat_map(move |topic| {
            (0..).zip(&topic.partitions).flat_map(move |(at, replicas)| {
                let id = PartitionId { topic: topic.id, partition: PartitionIndex(at) };
                replicas.iter().filter(move |replica| replica.broker == broker).map(move |replica| (id, *replica))
            })
        })
    }

    /// The configs set for one broker while it ran, by the broker's names.
    #[must_use]
    pub fn broker_configs(&self, broker: BrokerId) -> &Values {
        static NONE: Values = Values::new();
        self.broker_configs.get(&broker).unwrap_or(&NONE)
    }

    /// The configs set for all brokers while they ran.
    #[must_use]
    pub const fn default_broker_configs(&self) -> &Values {
        &self.default_broker_configs
    }

    /// Folds one record of the entry `at` in; says whether it fitted the state.
    fn fold(&mut self, record: Record, at: RaftIndex) -> bool {
        match record {
            Record::ClusterFounded { cluster_id } => {
                let fits = self.cluster_id.is_none();
                self.cluster_id.get_or_insert(cluster_id);
                fits
            }
            Record::BrokerJoined { broker, directory } => {
                let before = self.brokers.remove(&broker).filter(|before| before.directory == directory);
                let joined = Broker { directory, endpoints: None, controller: None };
                self.brokers.insert(broker, before.unwrap_or(joined));
                true
            }
            Record::BrokerDescribed { broker, endpoints } => match self.brokers.get_mut(&broker) {
                Some(broker) => {
                    broker.endpoints = Some(endpoints);
                    true
                }
                None => false,
            },
            Record::ControllerReplica { replica } => self.set_controller_replica(replica),
            Record::TopicCreated(topic) => self.add_topic(topic),
            Record::TopicDeleted { topic } => self.remove_topic(topic),
            Record::PartitionsAdded { topic, first, partitions } => self.add_partitions(topic, first, partitions),
            Record::ConfigSet { resource, name, value } => match self.values_mut(resource) {
                Some(values) => {
                    values.insert(name, value);
                    true
                }
                None => false,
            },
            Record::ConfigRemoved { resource, name } => {
                let removed = self.values_mut(resource).and_then(|values| values.remove(&name)).is_some();
                self.broker_configs.retain(|_, values| !values.is_empty());
                removed
            }
            Record::ProducerIdsReserved { first, next } => {
                let fits = first == self.next_producer_id && next > first;
                if fits {
                    self.next_producer_id = next;
                }
                fits
            }
            Record::ReplicaReplaced { partition, old, new } => self.replace_replica(partition, old, new, at),
            Record::ReplicasChanged { partition, replicas } => self.change_replicas(partition, replicas, at),
            Record::ReplicasSettled { partition, replicas, since } => {
                self.settle_replicas(partition, &replicas, (since != RaftIndex(0)).then_some(since))
            }
            Record::ReplicaDropped { partition, replica } => self.drop_replica(partition, replica, at),
            Record::BrokerRemoved { broker } => self.remove_broker(broker),
            Record::BrokerLost { broker } => self.lose_broker(broker),
            Record::ReplicaRefounded { partition, old, new } => self.refound(partition, old, new, at),
        }
    }

    fn set_controller_replica(&mut self, replica: ReplicaId) -> bool {
        if replica.incarnation < self.next_incarnation || replica.incarnation.0 == u64::MAX {
            return false;
        }
        let Some(broker) = self.brokers.get_mut(&replica.broker) else { return false };
        broker.controller = Some(replica);
        self.next_incarnation = replica.incarnation.next();
        true
    }

    fn add_topic(&mut self, topic: Topic) -> bool {
        let folded = fold_name(&topic.name);
        if self.topics.contains_key(&topic.id)
            || self.names.contains_key(&topic.name)
            || self.folded.contains_key(&folded)
        {
            return false;
        }
        if topic.partitions.is_empty() || !self.take_incarnations(&topic.partitions) {
            return false;
        }
        self.partitions += topic.partitions.len();
        self.names.insert(topic.name.clone(), topic.id);
        self.folded.insert(folded, topic.id);
        self.topics.insert(topic.id, topic);
        true
    }

    fn remove_topic(&mut self, id: TopicId) -> bool {
        let Some(topic) = self.topics.remove(&id) else { return false };
        self.founders.retain(|partition, _| partition.topic != id);
        self.moving.retain(|partition, _| partition.topic != id);
        self.doomed.retain(|partition, _| partition.topic != id);
        self.partitions -= topic.partitions.len();
        self.names.remove(&topic.name);
        self.folded.remove(&fold_name(&topic.name));
        true
    }

    fn add_partitions(&mut self, id: TopicId, first: PartitionIndex, added: Vec<Vec<ReplicaId>>) -> bool {
        let present = self.topics.get(&id).map(|topic| topic.partitions.len());
        if present.is_none() || usize::try_from(first.0).ok() != present || !self.take_incarnations(&added) {
            return false;
        }
        self.partitions += added.len();
        self.topics.get_mut(&id).expect("looked up above").partitions.extend(added);
        true
    }

    fn replace_replica(&mut self, partition: PartitionId, old: ReplicaId, new: ReplicaId, at: RaftIndex) -> bool {
        let Some(present) = self.replicas(partition).map(<[_]>::to_vec) else { return false };
        let Some(place) = present.iter().position(|replica| *replica == old) else { return false };
        if new.broker != old.broker || new.incarnation < self.next_incarnation || new.incarnation.0 == u64::MAX {
            return false;
        }
        let mut replicas = present.clone();
        replicas[place] = new;
        let is_alone = replicas.len() == 1;
        self.founders.entry(partition).or_insert(present);
        self.set_replicas(partition, replicas);
        self.next_incarnation = new.incarnation.next();
        if is_alone {
            // It begins anew, empty.
            self.doomed.remove(&partition);
        } else {
            self.note_replaced(partition, old, new, at);
        }
        true
    }

    fn set_replicas(&mut self, partition: PartitionId, replicas: Vec<ReplicaId>) {
        let at = usize::try_from(partition.partition.0).ok();
        let topic = self.topics.get_mut(&partition.topic);
        if let Some(place) = topic.and_then(|topic| topic.partitions.get_mut(at?)) {
            *place = replicas;
        }
    }

    /// Takes note of the incarnations of new replicas. Refuses the whole when one was handed out before, when a broker
    /// appears twice in a partition, or when a partition has none.
    fn take_incarnations(&mut self, partitions: &[Vec<ReplicaId>]) -> bool {
        let mut next = self.next_incarnation;
        for replicas in partitions {
            let distinct: BTreeSet<_> = replicas.iter().map(|replica| replica.broker).collect();
            if replicas.is_empty() || distinct.len() != replicas.len() {
                return false;
            }
            for replica in replicas {
                if replica.incarnation < next || replica.incarnation.0 == u64::MAX {
                    return false;
                }
                next = replica.incarnation.next();
            }
        }
        self.next_incarnation = next;
        true
    }

    fn values(&self, resource: Resource) -> Option<&Values> {
        match resource {
            Resource::Topic(id) => self.topics.get(&id).map(|topic| &topic.configs),
            Resource::Broker(broker) => Some(self.broker_configs(broker)),
            Resource::AllBrokers => Some(&self.default_broker_configs),
        }
    }

    fn values_mut(&mut self, resource: Resource) -> Option<&mut Values> {
        match resource {
            Resource::Topic(id) => self.topics.get_mut(&id).map(|topic| &mut topic.configs),
            Resource::Broker(broker) => Some(self.broker_configs.entry(broker).or_default()),
            Resource::AllBrokers => Some(&mut self.default_broker_configs),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let version = from.versions(1..=SNAPSHOT_VERSION)?;
        let mut state = Self::default();
        if version >= 2 {
            state.version = RaftIndex(from.u64("version")?);
        }
        if from.u8("whether founded")? != 0 {
            state.cluster_id = Some(from.text("cluster id")?.to_owned());
        }
        for _ in 0..from.count(20, "brokers")? {
            let broker = BrokerId(from.i32("broker id")?);
            let directory = DirectoryId(from.array("directory id")?);
            let (mut endpoints, mut controller) = (None, None);
            if version >= 2 {
                if from.u8("whether described")? != 0 {
                    endpoints = Some(record::read_endpoints(from)?);
                }
                if from.u8("whether with a replica")? != 0 {
                    controller = Some(record::read_replica(from)?);
                }
            }
            state.brokers.insert(broker, Broker { directory, endpoints, controller });
        }
        state.default_broker_configs = record::read_values(from)?;
        for _ in 0..from.count(8, "brokers with configs")? {
            let broker = BrokerId(from.i32("broker id")?);
            state.broker_configs.insert(broker, record::read_values(from)?);
        }
        // Replicas that were replaced have later incarnations than their neighbours, so topics are not `fold`ed in.
        for _ in 0..from.count(record::TOPIC_BYTES_MIN, "topics")? {
            let topic = record::read_topic(from)?;
            state.partitions += topic.partitions.len();
            let folded = state.folded.insert(fold_name(&topic.name), topic.id);
            let named = state.names.insert(topic.name.clone(), topic.id);
            if folded.is_some() || named.is_some() || state.topics.insert(topic.id, topic).is_some() {
                return Err(StateError::Invalid("topic: twice"));
            }
        }
        let changed = if version >= 2 { from.count(20, "partitions with other replicas")? } else { 0 };
        for _ in 0..changed {
            let topic = TopicId(from.array("topic id")?);
            let partition = PartitionId { topic, partition: PartitionIndex(from.i32("partition")?) };
            state.founders.insert(partition, record::read_replicas(from)?);
        }
        let moving = if version >= 2 { from.count(28, "partitions with replicas on their way")? } else { 0 };
        for _ in 0..moving {
            let partition = record::read_partition(from)?;
            state.moving.insert(partition, Moving::read(from, version)?);
        }
        state.next_producer_id = ProducerId(from.i64("next producer id")?);
        state.next_incarnation = Incarnation(from.u64("next incarnation")?);
        let given_up = if version >= 4 { from.count(16, "directories given up")? } else { 0 };
        for _ in 0..given_up {
            state.given_up.insert(DirectoryId(from.array("directory id")?));
        }
        let doomed = if version >= 4 { from.count(24, "partitions without majority")? } else { 0 };
        for _ in 0..doomed {
            let partition = record::read_partition(from)?;
            let left = from.count(record::REPLICA_BYTES, "replicas that are left")?;
            let left: Result<Vec<_>, _> = (0..left).map(|_| record::read_replica(from)).collect();
            state.doomed.insert(partition, left?);
        }
        from.end()?;
        Ok(state)
    }
}

impl Machine for Controller {
    fn apply(&mut self, entry: Committed<'_>) -> Result<(), MachineError> {
        match entry.what {
            What::Blank => {}
            What::Records { .. } => return Err(MachineError::Records),
            What::Command(bytes) => {
                // All are read before the first takes effect: an entry counts as a whole or not at all.
                for record in record::decode_entry(bytes).map_err(MachineError::Command)? {
                    self.fold(record, entry.id.index);
                }
                self.version = entry.id.index;
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> Bytes {
        let mut out = Writer::tagged(SNAPSHOT_VERSION);
        out.u64(self.version.0);
        out.u8(u8::from(self.cluster_id.is_some()));
        if let Some(id) = &self.cluster_id {
            out.text(id);
        }
        out.count(self.brokers.len());
        for (id, broker) in &self.brokers {
            out.i32(id.0);
            out.raw(&broker.directory.0);
            out.u8(u8::from(broker.endpoints.is_some()));
            if let Some(endpoints) = &broker.endpoints {
                record::write_endpoints(&mut out, endpoints);
            }
            out.u8(u8::from(broker.controller.is_some()));
            if let Some(replica) = broker.controller {
                record::write_replica(&mut out, replica);
            }
        }
        record::write_values(&mut out, &self.default_broker_configs);
        out.count(self.broker_configs.len());
        for (broker, values) in &self.broker_configs {
            out.i32(broker.0);
            record::write_values(&mut out, values);
        }
        out.count(self.topics.len());
        for topic in self.topics.values() {
            record::write_topic(&mut out, topic);
        }
        out.count(self.founders.len());
        for (partition, replicas) in &self.founders {
            out.raw(&partition.topic.0);
            out.i32(partition.partition.0);
            record::write_replicas(&mut out, replicas);
        }
        out.count(self.moving.len());
        for (partition, moving) in &self.moving {
            record::write_partition(&mut out, *partition);
            moving.write(&mut out);
        }
        out.i64(self.next_producer_id.0);
        out.u64(self.next_incarnation.0);
        out.count(self.given_up.len());
        for directory in &self.given_up {
            out.raw(&directory.0);
        }
        out.count(self.doomed.len());
        for (partition, left) in &self.doomed {
            record::write_partition(&mut out, *partition);
            record::write_replicas(&mut out, left);
        }
        out.finish()
    }

    fn restore(snapshot: &[u8]) -> Result<Self, MachineError> {
        Self::read(&mut Reader::new(snapshot)).map_err(MachineError::Snapshot)
    }
}

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;
