//! The cluster: how brokers find each other, who belongs to it, and how its controller's decisions get to where they are made.
//!
//! - [`founding`]: whether a broker with an empty data directory founds a cluster, joins one, or waits. Pure.
//! - [`calls`]: asks other brokers.
//! - [`desk`]: answers them.
//! - [`port`]: the listener for other brokers.
//!
//! Never: trust in what a broker says of itself beyond where it listens; the controller's committed state says who belongs to the cluster.

pub mod calls;
pub mod desk;
pub mod founding;
pub mod port;

use std::time::Duration;

use crate::ids::{BrokerId, Incarnation, PartitionId, RaftIndex, Term};
use crate::machine::controller::{DirectoryId, Endpoints};
use crate::net::BoxFuture;

/// The version of what brokers say to each other. Brokers of different versions refuse each other.
pub const PROTOCOL: u32 = 1;

/// A broker, and where it listens for others (`host:port`).
pub type Peer = (BrokerId, String);

/// A broker as it shows itself to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Its id.
    pub broker: BrokerId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// Its cluster; none before it has one.
    pub cluster_id: Option<String>,
    /// Its cluster's name, as configured.
    pub cluster_name: String,
    /// Where it listens for others (`host:port`).
    pub address: String,
    /// The seeds that it was given.
    pub seeds: Vec<String>,
}

/// What a broker answers to an introduction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who it is.
    pub me: Introduction,
    /// The brokers that it knows, itself included.
    pub peers: Vec<Peer>,
    /// Whether the cluster knows the one who asks by another data directory.
    pub superseded: bool,
    /// Whether the one who asks was removed from the cluster.
    pub removed: bool,
}

/// What becomes of a broker that wants to come in, or back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It belongs to the cluster.
    In {
        /// The cluster's id.
        cluster_id: String,
        /// The incarnation of its replica of the controller's group.
        controller: Incarnation,
        /// The brokers of the cluster.
        peers: Vec<Peer>,
    },
    /// The cluster does not take it: why.
    Refused(String),
    /// Nobody can decide now: why.
    Unavailable(String),
}

/// What becomes of a change that another broker has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is applied on the controller's leader, as the entry of that index.
    Applied(RaftIndex),
    /// It was decided on another state than the newest, which is of this version. Nothing was changed.
    Conflict(RaftIndex),
    /// That broker does not lead the controller's group. Nothing was changed.
    NotLeader,
    /// Nobody knows whether it will be applied.
    Unknown,
    /// There is no room for it. Nothing was changed.
    Full,
}

/// How the controller's group stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// The broker that leads it.
    pub leader: BrokerId,
    /// Its term.
    pub term: Term,
    /// The first entry that is not known to be committed.
    pub high_watermark: RaftIndex,
    /// Its replicas, by broker.
    pub members: Vec<QuorumMember>,
}

/// A replica of the controller's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumMember {
    /// Its broker.
    pub broker: BrokerId,
    /// Whether it votes.
    pub votes: bool,
    /// The first entry that it is not known to hold.
    pub end: Option<RaftIndex>,
    /// Since when its broker was not heard; none for the leader itself, and if it never was.
    pub silence: Option<Duration>,
}

/// What becomes of a partition whose preferred replica is to lead it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elected {
    /// It leads now.
    Done,
    /// It led already.
    NotNeeded,
    /// It is not there, or does not have all that the leader has.
    Unavailable,
    /// The broker that was asked does not lead the partition.
    NotLeader,
}

/// Answers other brokers.
pub trait Desk: Send + Sync + 'static {
    /// A broker of that cluster takes this one for one of its own, while this one has no cluster.
    fn called(&self, cluster: &str);
    /// A broker introduces itself.
    fn hello(&self, from: Introduction) -> Hello;
    /// It wants to come in, or back.
    fn join(&self, from: Introduction, endpoints: Endpoints) -> BoxFuture<'_, Joined>;
    /// It has decided a change (an encoded entry) on the state of `version`.
    fn change(&self, version: RaftIndex, entry: bytes::Bytes) -> BoxFuture<'_, Changed>;
    /// Up to where the controller's log is applied here, if this broker leads the controller's group: all that was acknowledged is.
    fn barrier(&self) -> BoxFuture<'_, Option<RaftIndex>>;
    /// How the controller's group stands, if this broker leads it.
    fn quorum(&self) -> Option<Quorum>;

    /// The preferred replicas are to lead those partitions; what becomes of each, in their order.
    fn elect(&self, partitions: Vec<PartitionId>) -> BoxFuture<'_, Vec<Elected>>;
}
