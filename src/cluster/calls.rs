//! What a broker asks others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use super::desk::{introduction, put_introduction};
use super::{Changed, Elected, Hello, Introduction, Joined, Peer, Quorum, QuorumMember};
use crate::ids::{BrokerId, Incarnation, PartitionId, RaftIndex, Term};
use crate::machine::controller::Endpoints;
use crate::net::Network;
use crate::protocol::batch::crc32c;
use crate::raft::transport::link::Link;
use crate::raft::transport::proto::membership_client::MembershipClient;
use crate::raft::transport::proto::{self, barrier_reply, change_reply, elect_reply, join_reply, quorum_reply};
use crate::raft::transport::wire;

/// How long a hello may take, with its connection.
const HELLO_PATIENCE: Duration = Duration::from_secs(1);
/// How long a join may take: the controller may have to find a leader first.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);
/// How long the controller's leader may take to commit a change.
const CHANGE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a leader may take until others lead what it was asked to give away.
const ELECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to say how far it is.
const BARRIER_PATIENCE: Duration = Duration::from_secs(1);

/// A call that was not answered, or not as it must be: why, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CallFailed(String);

impl From<Status> for CallFailed {
    fn from(status: Status) -> Self {
        Self(status.message().to_owned())
    }
}

async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CallFailed> {
    match timeout(patience, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(CallFailed(format!("no answer within {} s", patience.as_secs()))),
    }
}

fn empty() -> CallFailed {
    CallFailed("an empty answer".to_owned())
}

/// A way to whoever listens at `address`, for a call or two.
fn way(network: &Arc<dyn Network>, address: &str, cluster: &str) -> Result<Arc<Link>, CallFailed> {
    Link::to_stranger(address, cluster, network).map_err(|error| CallFailed(error.to_string()))
}

fn client(link: &Link) -> MembershipClient<Channel> {
    link.membership()
}

fn peers(wire: Vec<proto::Peer>) -> Vec<Peer> {
    wire.into_iter().map(|peer| (BrokerId(peer.broker), peer.address)).collect()
}

/// Introduces this broker to whoever listens at `address`.
///
/// # Errors
/// If there is no answer, or none that can be read.
pub async fn hello(network: &Arc<dyn Network>, address: &str, me: &Introduction) -> Result<Hello, CallFailed> {
    let link = way(network, address, "")?;
    let request = link.request(proto::HelloRequest { me: Some(put_introduction(me)) });
    let reply = within(HELLO_PATIENCE, client(&link).hello(request)).await?;
    let me = introduction(reply.me).map_err(CallFailed)?;
    Ok(Hello { me, peers: peers(reply.peers), superseded: reply.superseded, removed: reply.removed })
}

/// Asks the cluster of whoever listens at `address` to take this broker in.
///
/// # Errors
/// As [`hello`].
pub async fn join(
    network: &Arc<dyn Network>,
    address: &str,
    cluster: &str,
    me: &Introduction,
    endpoints: &Endpoints,
) -> Result<Joined, CallFailed> {
    let link = way(network, address, cluster)?;
    let request = link.request(proto::JoinRequest {
        me: Some(put_introduction(me)),
        kafka_host: endpoints.kafka_host.clone(),
        kafka_port: endpoints.kafka_port.into(),
        rack: endpoints.rack.clone(),
    });
    let reply = within(JOIN_PATIENCE, client(&link).join(request)).await?;
    Ok(match reply.outcome.ok_or_else(empty)? {
        join_reply::Outcome::Joined(joined) => Joined::In {
            cluster_id: joined.cluster_id,
            controller: Incarnation(joined.controller_incarnation),
            peers: peers(joined.peers),
        },
        join_reply::Outcome::Refused(why) => Joined::Refused(why),
        join_reply::Outcome::Unavailable(why) => Joined::Unavailable(why),
    })
}

/// Hands the controller's leader a change that was decided on the state of `version`.
///
/// # Errors
/// As [`hello`]: nobody knows then whether it was changed.
pub async fn change(link: &Link, version: RaftIndex, entry: Bytes) -> Result<Changed, CallFailed> {
    let crc = crc32c(&[&entry]);
    let request = link.request(proto::ChangeRequest { version: version.0, entry, crc });
    let reply = within(CHANGE_PATIENCE, client(link).change(request)).await?;
    Ok(match reply.outcome.ok_or_else(empty)? {
        change_reply::Outcome::Applied(index) => Changed::Applied(RaftIndex(index)),
        change_reply::Outcome::Conflict(version) => Changed::Conflict(RaftIndex(version)),
        change_reply::Outcome::NotLeader(_) => Changed::NotLeader,
        change_reply::Outcome::Unknown(_) => Changed::Unknown,
        change_reply::Outcome::Full(_) => Changed::Full,
    })
}

/// Asks the controller's leader up to where its log is applied; none if it does not lead.
///
/// # Errors
/// As [`hello`].
pub async fn barrier(link: &Link) -> Result<Option<RaftIndex>, CallFailed> {
    let request = link.request(proto::BarrierRequest {});
    let reply = within(BARRIER_PATIENCE, client(link).barrier(request)).await?;
    Ok(match reply.outcome.ok_or_else(empty)? {
        barrier_reply::Outcome::Applied(index) => Some(RaftIndex(index)),
        barrier_reply::Outcome::NotLeader(_) => None,
    })
}

/// Asks the controller's leader how its group stands; none if it does not lead.
///
/// # Errors
/// As [`hello`].
pub async fn quorum(link: &Link) -> Result<Option<Quorum>, CallFailed> {
    let request = link.request(proto::QuorumRequest {});
    let reply = within(BARRIER_PATIENCE, client(link).quorum(request)).await?;
    let quorum_reply::Outcome::Quorum(quorum) = reply.outcome.ok_or_else(empty)? else { return Ok(None) };
    let member = |member: proto::QuorumMember| QuorumMember {
        broker: BrokerId(member.broker),
        votes: member.votes,
        end: member.end.map(RaftIndex),
        silence: member.silent_ms.map(Duration::from_millis),
    };
    Ok(Some(Quorum {
        leader: link.broker(),
        term: Term(quorum.term),
        high_watermark: RaftIndex(quorum.high_watermark),
        members: quorum.members.into_iter().map(member).collect(),
    }))
}

/// Asks a broker to have the preferred replicas lead partitions that it leads; what became of each, in their order.
///
/// # Errors
/// As [`hello`].
pub async fn elect(link: &Link, partitions: &[PartitionId]) -> Result<Vec<Elected>, CallFailed> {
    let groups = partitions.iter().map(|id| wire::put_group(*id)).collect();
    let reply = within(ELECT_PATIENCE, client(link).elect(link.request(proto::ElectRequest { groups }))).await?;
    if reply.outcomes.len() != partitions.len() {
        let (asked, told) = (partitions.len(), reply.outcomes.len());
        return Err(CallFailed(format!("an answer about {told} partitions, of {asked}")));
    }
    let elected = |outcome: elect_reply::Outcome| match outcome {
        elect_reply::Outcome::Done => Ok(Elected::Done),
        elect_reply::Outcome::NotNeeded => Ok(Elected::NotNeeded),
        elect_reply::Outcome::Unavailable => Ok(Elected::Unavailable),
        elect_reply::Outcome::NotLeader => Ok(Elected::NotLeader),
        elect_reply::Outcome::Unspecified => Err(empty()),
    };
    reply.outcomes().map(elected).collect()
}
