//! What the controller's entries hold: records with numbered tags. Tags are stored and never used anew.

use std::fmt;

use bytes::Bytes;

use super::Topic;
use crate::ids::{BrokerId, Incarnation, PartitionId, PartitionIndex, ProducerId, RaftIndex, ReplicaId, TopicId};
use crate::machine::state_bytes::{Reader, StateError, Writer};
use crate::machine::topic_config::Values;

const CLUSTER_FOUNDED: u8 = 1;
const BROKER_JOINED: u8 = 2;
const TOPIC_CREATED: u8 = 3;
const TOPIC_DELETED: u8 = 4;
const PARTITIONS_ADDED: u8 = 5;
const CONFIG_SET: u8 = 6;
const CONFIG_REMOVED: u8 = 7;
const PRODUCER_IDS_RESERVED: u8 = 8;
const REPLICA_REPLACED: u8 = 9;
const BROKER_DESCRIBED: u8 = 10;
const CONTROLLER_REPLICA: u8 = 11;
const REPLICAS_CHANGED: u8 = 12;
/// Without the entry since when that was wanted.
const REPLICAS_SETTLED: u8 = 13;
const BROKER_LOST: u8 = 40;
const REPLICA_REFOUNDED: u8 = 41;
const REPLICAS_SETTLED_SINCE: u8 = 14;
const REPLICA_DROPPED: u8 = 15;
const BROKER_REMOVED: u8 = 16;

// Kafka's numbers of resource types; the last is Ottla's own.
const RESOURCE_TOPIC: u8 = 2;
const RESOURCE_BROKER: u8 = 4;
const RESOURCE_ALL_BROKERS: u8 = 100;

pub(super) const REPLICA_BYTES: usize = 4 + 8;
/// Id, name, and the three counts.
pub(super) const TOPIC_BYTES_MIN: usize = 16 + 4 + 4 + 4;

/// A data directory's id, drawn when it was set up: tells a broker that lost its disk from one that has it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryId(pub [u8; 16]);

impl fmt::Display for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a broker is, and how others reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Its address for other brokers (`host:port`); empty for a broker that has no others.
    pub cluster: String,
    /// Its host for clients.
    pub kafka_host: String,
    /// Its port for clients.
    pub kafka_port: u16,
    /// Its rack; empty if it says none.
    pub rack: String,
}

/// What configs are set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A topic.
    Topic(TopicId),
    /// One broker.
    Broker(BrokerId),
    /// All brokers.
    AllBrokers,
}

/// One change to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The cluster has an id.
    ClusterFounded {
        /// The id.
        cluster_id: String,
    },
    /// A broker joined, or came back with another data directory.
    BrokerJoined {
        /// The broker.
        broker: BrokerId,
        /// Its data directory.
        directory: DirectoryId,
    },
    /// A broker says where it is.
    BrokerDescribed {
        /// The broker.
        broker: BrokerId,
        /// Where it is.
        endpoints: Endpoints,
    },
    /// A broker has a replica of the controller's own group, in place of any that it had before.
    ControllerReplica {
        /// The replica.
        replica: ReplicaId,
    },
    /// A topic is there.
    TopicCreated(Topic),
    /// A topic is gone.
    TopicDeleted {
        /// The topic.
        topic: TopicId,
    },
    /// A topic has more partitions.
    PartitionsAdded {
        /// The topic.
        topic: TopicId,
        /// Number of the first new one: that of partitions so far.
        first: PartitionIndex,
        /// The replicas of each.
        partitions: Vec<Vec<ReplicaId>>,
    },
    /// A config has a value.
    ConfigSet {
        /// On what.
        resource: Resource,
        /// The config.
        name: String,
        /// Its value.
        value: String,
    },
    /// A config has its default again.
    ConfigRemoved {
        /// On what.
        resource: Resource,
        /// The config.
        name: String,
    },
    /// A broker may hand out the producer ids from `first` up to and without `next`.
    ProducerIdsReserved {
        /// The first id.
        first: ProducerId,
        /// The first of the next block.
        next: ProducerId,
    },
    /// A replica that has forgotten starts again under a new incarnation.
    ReplicaReplaced {
        /// The partition.
        partition: PartitionId,
        /// The one that has forgotten.
        old: ReplicaId,
        /// The one in its place, on the same broker.
        new: ReplicaId,
    },
    /// A partition is to have other replicas: those that are new to it are added to its group, those that are missing here are removed from it.
    ReplicasChanged {
        /// The partition.
        partition: PartitionId,
        /// What it is to have, the preferred leader first.
        replicas: Vec<ReplicaId>,
    },
    /// A partition's group is as it is to be.
    ReplicasSettled {
        /// The partition.
        partition: PartitionId,
        /// What it was to be when its leader saw that.
        replicas: Vec<ReplicaId>,
        /// The entry that had made that what is wanted. 0 stands for any: it was not written down once.
        since: RaftIndex,
    },
    /// A replica that was to go has lost what it had, and never votes again.
    ReplicaDropped {
        /// The partition.
        partition: PartitionId,
        /// The replica.
        replica: ReplicaId,
    },
    /// A broker without replicas belongs to the cluster no more.
    BrokerRemoved {
        /// The broker.
        broker: BrokerId,
    },
    /// A broker is gone for good, by an operator's word: what it had in its directory does not count any more.
    BrokerLost {
        /// The broker.
        broker: BrokerId,
    },
    /// A partition whose majority is gone for good goes on from what one replica has, alone, under a new incarnation.
    ReplicaRefounded {
        /// The partition.
        partition: PartitionId,
        /// The one whose log is taken.
        old: ReplicaId,
        /// The one in its place, on the same broker.
        new: ReplicaId,
    },
}

/// The records as the body of one entry: they take effect together.
#[must_use]
pub fn encode_entry(records: &[Record]) -> Bytes {
    let mut out = Writer::default();
    for record in records {
        record.write(&mut out);
    }
    out.finish()
}

/// Reads what [`encode_entry`] wrote.
///
/// # Errors
/// When the bytes are damaged, or hold a record of a newer version.
pub fn decode_entry(bytes: &[u8]) -> Result<Vec<Record>, StateError> {
    let mut from = Reader::new(bytes);
    let mut records = Vec::new();
    while from.end().is_err() {
        records.push(Record::read(&mut from)?);
    }
    Ok(records)
}

impl Record {
    fn write(&self, out: &mut Writer) {
        match self {
            Self::ClusterFounded { cluster_id } => {
                out.u8(CLUSTER_FOUNDED);
                out.text(cluster_id);
            }
            Self::BrokerJoined { broker, directory } => {
                write_about_broker(out, BROKER_JOINED, *broker);
                out.raw(&directory.0);
            }
            Self::BrokerDescribed { broker, endpoints } => {
                write_about_broker(out, BROKER_DESCRIBED, *broker);
                write_endpoints(out, endpoints);
            }
            Self::ControllerReplica { replica } => {
                out.u8(CONTROLLER_REPLICA);
                write_replica(out, *replica);
            }
            Self::TopicCreated(topic) => {
                out.u8(TOPIC_CREATED);
                write_topic(out, topic);
            }
            Self::TopicDeleted { topic } => {
                out.u8(TOPIC_DELETED);
                out.raw(&topic.0);
            }
            Self::PartitionsAdded { topic, first, partitions } => {
                out.u8(PARTITIONS_ADDED);
                out.raw(&topic.0);
                out.i32(first.0);
                write_partitions(out, partitions);
            }
            Self::ConfigSet { resource, name, value } => {
                out.u8(CONFIG_SET);
                write_resource(out, *resource);
                out.text(name);
                out.text(value);
            }
            Self::ConfigRemoved { resource, name } => {
                out.u8(CONFIG_REMOVED);
                write_resource(out, *resource);
                out.text(name);
            }
            Self::ProducerIdsReserved { first, next } => {
                out.u8(PRODUCER_IDS_RESERVED);
                out.i64(first.0);
                out.i64(next.0);
            }
            Self::ReplicaReplaced { partition, old, new } => write_swap(out, REPLICA_REPLACED, *partition, *old, *new),
            Self::ReplicasChanged { partition, replicas } => {
                write_about_partition(out, REPLICAS_CHANGED, *partition, replicas)
            }
            Self::ReplicasSettled { partition, replicas, since } => {
                write_about_partition(out, REPLICAS_SETTLED_SINCE, *partition, replicas);
                out.u64(since.0);
            }
            Self::ReplicaDropped { partition, replica } => {
                out.u8(REPLICA_DROPPED);
                write_partition(out, *partition);
                write_replica(out, *replica);
            }
            Self::BrokerRemoved { broker } => write_about_broker(out, BROKER_REMOVED, *broker),
            Self::BrokerLost { broker } => write_about_broker(out, BROKER_LOST, *broker),
            Self::ReplicaRefounded { partition, old, new } => {
                write_swap(out, REPLICA_REFOUNDED, *partition, *old, *new)
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, StateError> {
        Ok(match from.u8("record")? {
            CLUSTER_FOUNDED => Self::ClusterFounded { cluster_id: from.text("cluster id")?.to_owned() },
            BROKER_JOINED => Self::BrokerJoined {
                broker: BrokerId(from.i32("broker id")?),
                directory: DirectoryId(from.array("directory id")?),
            },
            BROKER_DESCRIBED => {
                Self::BrokerDescribed { broker: BrokerId(from.i32("broker id")?), endpoints: read_endpoints(from)? }
            }
            CONTROLLER_REPLICA => Self::ControllerReplica { replica: read_replica(from)? },
            TOPIC_CREATED => Self::TopicCreated(read_topic(from)?),
            TOPIC_DELETED => Self::TopicDeleted { topic: TopicId(from.array("topic id")?) },
            PARTITIONS_ADDED => Self::PartitionsAdded {
                topic: TopicId(from.array("topic id")?),
                first: PartitionIndex(from.i32("first partition")?),
                partitions: read_partitions(from)?,
            },
            CONFIG_SET => Self::ConfigSet {
                resource: read_resource(from)?,
                name: from.text("config name")?.to_owned(),
                value: from.text("config value")?.to_owned(),
            },
            CONFIG_REMOVED => {
                Self::ConfigRemoved { resource: read_resource(from)?, name: from.text("config name")?.to_owned() }
            }
            PRODUCER_IDS_RESERVED => Self::ProducerIdsReserved {
                first: ProducerId(from.i64("first producer id")?),
                next: ProducerId(from.i64("next producer id")?),
            },
            REPLICA_REPLACED => Self::ReplicaReplaced {
                partition: read_partition(from)?,
                old: read_replica(from)?,
                new: read_replica(from)?,
            },
            REPLICAS_CHANGED => {
                Self::ReplicasChanged { partition: read_partition(from)?, replicas: read_replicas(from)? }
            }
            REPLICAS_SETTLED => Self::ReplicasSettled {
                partition: read_partition(from)?,
                replicas: read_replicas(from)?,
                since: RaftIndex(0),
            },
            REPLICAS_SETTLED_SINCE => Self::ReplicasSettled {
                partition: read_partition(from)?,
                replicas: read_replicas(from)?,
                since: RaftIndex(from.u64("entry")?),
            },
            REPLICA_DROPPED => Self::ReplicaDropped { partition: read_partition(from)?, replica: read_replica(from)? },
            BROKER_REMOVED => Self::BrokerRemoved { broker: BrokerId(from.i32("broker id")?) },
            BROKER_LOST => Self::BrokerLost { broker: BrokerId(from.i32("broker id")?) },
            REPLICA_REFOUNDED => Self::ReplicaRefounded {
                partition: read_partition(from)?,
                old: read_replica(from)?,
                new: read_replica(from)?,
            },
            tag => return Err(StateError::Newer { what: "controller record", number: tag.into() }),
        })
    }
}

fn write_swap(out: &mut Writer, tag: u8, partition: PartitionId, old: ReplicaId, new: ReplicaId) {
    out.u8(tag);
    write_partition(out, partition);
    write_replica(out, old);
    write_replica(out, new);
}

fn write_about_broker(out: &mut Writer, tag: u8, broker: BrokerId) {
    out.u8(tag);
    out.i32(broker.0);
}

fn write_about_partition(out: &mut Writer, tag: u8, partition: PartitionId, replicas: &[ReplicaId]) {
    out.u8(tag);
    write_partition(out, partition);
    write_replicas(out, replicas);
}

pub(super) fn write_topic(out: &mut Writer, topic: &Topic) {
    out.raw(&topic.id.0);
    out.text(&topic.name);
    write_partitions(out, &topic.partitions);
    write_values(out, &topic.configs);
}

pub(super) fn read_topic(from: &mut Reader<'_>) -> Result<Topic, StateError> {
    Ok(Topic {
        id: TopicId(from.array("topic id")?),
        name: from.text("topic name")?.to_owned(),
        partitions: read_partitions(from)?,
        configs: read_values(from)?,
    })
}

pub(super) fn write_values(out: &mut Writer, values: &Values) {
    out.count(values.len());
    for (name, value) in values {
        out.text(name);
        out.text(value);
    }
}

pub(super) fn read_values(from: &mut Reader<'_>) -> Result<Values, StateError> {
    let mut values = Values::new();
    for _ in 0..from.count(8, "configs")? {
        let name = from.text("config name")?.to_owned();
        values.insert(name, from.text("config value")?.to_owned());
    }
    Ok(values)
}

pub(super) fn write_endpoints(out: &mut Writer, endpoints: &Endpoints) {
    out.text(&endpoints.cluster);
    out.text(&endpoints.kafka_host);
    out.i32(endpoints.kafka_port.into());
    out.text(&endpoints.rack);
}

pub(super) fn read_endpoints(from: &mut Reader<'_>) -> Result<Endpoints, StateError> {
    Ok(Endpoints {
        cluster: from.text("cluster address")?.to_owned(),
        kafka_host: from.text("host")?.to_owned(),
        kafka_port: u16::try_from(from.i32("port")?).map_err(|_| StateError::Invalid("port: out of range"))?,
        rack: from.text("rack")?.to_owned(),
    })
}

fn write_partitions(out: &mut Writer, partitions: &[Vec<ReplicaId>]) {
    out.count(partitions.len());
    for replicas in partitions {
        write_replicas(out, replicas);
    }
}

pub(super) fn write_replicas(out: &mut Writer, replicas: &[ReplicaId]) {
    out.count(replicas.len());
    for replica in replicas {
        write_replica(out, *replica);
    }
}

pub(super) fn read_replicas(from: &mut Reader<'_>) -> Result<Vec<ReplicaId>, StateError> {
    let count = from.count(REPLICA_BYTES, "replicas")?;
    if count == 0 {
        return Err(StateError::Invalid("partition: no replicas"));
    }
    (0..count).map(|_| read_replica(from)).collect()
}

fn read_partitions(from: &mut Reader<'_>) -> Result<Vec<Vec<ReplicaId>>, StateError> {
    let count = from.count(4 + REPLICA_BYTES, "partitions")?;
    let mut partitions = Vec::with_capacity(count);
    for _ in 0..count {
        partitions.push(read_replicas(from)?);
    }
    Ok(partitions)
}

pub(super) fn write_partition(out: &mut Writer, partition: PartitionId) {
    out.raw(&partition.topic.0);
    out.i32(partition.partition.0);
}

pub(super) fn read_partition(from: &mut Reader<'_>) -> Result<PartitionId, StateError> {
    let topic = TopicId(from.array("topic id")?);
    Ok(PartitionId { topic, partition: PartitionIndex(from.i32("partition")?) })
}

pub(super) fn write_replica(out: &mut Writer, replica: ReplicaId) {
    out.i32(replica.broker.0);
    out.u64(replica.incarnation.0);
}

pub(super) fn read_replica(from: &mut Reader<'_>) -> Result<ReplicaId, StateError> {
    let broker = BrokerId(from.i32("replica's broker")?);
    Ok(ReplicaId { broker, incarnation: Incarnation(from.u64("replica's incarnation")?) })
}

fn write_resource(out: &mut Writer, resource: Resource) {
    match resource {
        Resource::Topic(topic) => {
            out.u8(RESOURCE_TOPIC);
            out.raw(&topic.0);
        }
        Resource::Broker(broker) => {
            out.u8(RESOURCE_BROKER);
            out.i32(broker.0);
        }
        Resource::AllBrokers => out.u8(RESOURCE_ALL_BROKERS),
    }
}

fn read_resource(from: &mut Reader<'_>) -> Result<Resource, StateError> {
    match from.u8("resource")? {
        RESOURCE_TOPIC => Ok(Resource::Topic(TopicId(from.array("topic id")?))),
        RESOURCE_BROKER => Ok(Resource::Broker(BrokerId(from.i32("broker id")?))),
        RESOURCE_ALL_BROKERS => Ok(Resource::AllBrokers),
        number => Err(StateError::Newer { what: "resource", number: number.into() }),
    }
}
