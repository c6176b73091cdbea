//! The Membership service: what other brokers ask, read from the wire and handed to the [`Desk`].

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{Changed, Desk, Elected, Hello, Introduction, Joined, PROTOCOL, Quorum, QuorumMember};
use crate::ids::{BrokerId, RaftIndex};
use crate::machine::controller::{DirectoryId, Endpoints};
use crate::protocol::batch::crc32c;
use crate::raft::transport::proto::membership_server::Membership;
use crate::raft::transport::proto::{self, barrier_reply, change_reply, elect_reply, join_reply, quorum_reply};
use crate::raft::transport::service::check_cluster;
use crate::raft::transport::wire;

/// More seeds than this nobody lists.
const SEEDS_MAX: usize = 1_000;
/// No text that a broker says of itself is longer.
const TEXT_BYTES_MAX: usize = 1_024;

/// Hands calls to the desk. `cluster` is the id that calls must carry, but for hellos; none before there is one.
#[derive(Clone)]
pub(super) struct Counter {
    pub(super) cluster: Option<String>,
    pub(super) desk: Arc<dyn Desk>,
}

impl Counter {
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        match &self.cluster {
            Some(cluster) => check_cluster(cluster, request),
            None => Err(Status::unavailable("this broker has no cluster yet")),
        }
    }
}

/// Writes an introduction.
pub(super) fn put_introduction(from: &Introduction) -> proto::Introduction {
    proto::Introduction {
        protocol: PROTOCOL,
        broker: from.broker.0,
        directory: from.directory.0.to_vec().into(),
        cluster_id: from.cluster_id.clone().unwrap_or_default(),
        cluster_name: from.cluster_name.clone(),
        address: from.address.clone(),
        seeds: from.seeds.clone(),
    }
}

/// Reads one. What is wrong with it, as a text.
pub(super) fn introduction(wire: Option<proto::Introduction>) -> Result<Introduction, String> {
    let wire = wire.ok_or("nobody introduces himself")?;
    if wire.protocol != PROTOCOL {
        return Err(format!(
            "broker {} speaks version {} of the brokers' protocol, this one {PROTOCOL}: upgrade the older one",
            wire.broker, wire.protocol
        ));
    }
    let texts = wire.seeds.iter().chain([&wire.cluster_id, &wire.cluster_name, &wire.address]);
    if wire.seeds.len() > SEEDS_MAX || texts.into_iter().any(|text| text.len() > TEXT_BYTES_MAX) {
        return Err("an introduction that is too long".to_owned());
    }
    let directory = <[u8; 16]>::try_from(&*wire.directory).map_err(|_| "a directory id that is not of 16 bytes")?;
    if wire.broker < 0 {
        return Err(format!("a broker with the id {}", wire.broker));
    }
    Ok(Introduction {
        broker: BrokerId(wire.broker),
        directory: DirectoryId(directory),
        cluster_id: (!wire.cluster_id.is_empty()).then_some(wire.cluster_id),
        cluster_name: wire.cluster_name,
        address: wire.address,
        seeds: wire.seeds,
    })
}

/// Writes brokers with their addresses.
fn put_peers(peers: Vec<super::Peer>) -> Vec<proto::Peer> {
    peers.into_iter().map(|(broker, address)| proto::Peer { broker: broker.0, address }).collect()
}

#[tonic::async_trait]
impl Membership for Counter {
    async fn hello(&self, request: Request<proto::HelloRequest>) -> Result<Response<proto::HelloReply>, Status> {
        let from = introduction(request.into_inner().me).map_err(Status::invalid_argument)?;
        let Hello { me, peers, superseded, removed } = self.desk.hello(from);
        let me = Some(put_introduction(&me));
        Ok(Response::new(proto::HelloReply { me, peers: put_peers(peers), superseded, removed }))
    }

    async fn join(&self, request: Request<proto::JoinRequest>) -> Result<Response<proto::JoinReply>, Status> {
        self.check(&request)?;
        let request = request.into_inner();
        let from = introduction(request.me).map_err(Status::invalid_argument)?;
        let kafka_port = u16::try_from(request.kafka_port).map_err(|_| Status::invalid_argument("a port too high"))?;
        if request.kafka_host.len().max(request.rack.len()) > TEXT_BYTES_MAX {
            return Err(Status::invalid_argument("endpoints that are too long"));
        }
        let endpoints =
            Endpoints { cluster: from.address.clone(), kafka_host: request.kafka_host, kafka_port, rack: request.rack };
        let outcome = match self.desk.join(from, endpoints).await {
            Joined::In { cluster_id, controller, peers } => join_reply::Outcome::Joined(proto::Joined {
                cluster_id,
                controller_incarnation: controller.0,
                peers: put_peers(peers),
            }),
            Joined::Refused(why) => join_reply::Outcome::Refused(why),
            Joined::Unavailable(why) => join_reply::Outcome::Unavailable(why),
        };
        Ok(Response::new(proto::JoinReply { outcome: Some(outcome) }))
    }

    async fn change(&self, request: Request<proto::ChangeRequest>) -> Result<Response<proto::ChangeReply>, Status> {
        self.check(&request)?;
        let request = request.into_inner();
        if crc32c(&[&request.entry]) != request.crc {
            return Err(Status::data_loss("a change that was damaged on its way"));
        }
        let outcome = match self.desk.change(RaftIndex(request.version), request.entry).await {
            Changed::Applied(index) => change_reply::Outcome::Applied(index.0),
            Changed::Conflict(version) => change_reply::Outcome::Conflict(version.0),
            Changed::NotLeader => change_reply::Outcome::NotLeader(true),
            Changed::Unknown => change_reply::Outcome::Unknown(true),
            Changed::Full => change_reply::Outcome::Full(true),
        };
        Ok(Response::new(proto::ChangeReply { outcome: Some(outcome) }))
    }

    async fn barrier(&self, request: Request<proto::BarrierRequest>) -> Result<Response<proto::BarrierReply>, Status> {
        self.check(&request)?;
        let outcome = match self.desk.barrier().await {
            Some(index) => barrier_reply::Outcome::Applied(index.0),
            None => barrier_reply::Outcome::NotLeader(true),
        };
        Ok(Response::new(proto::BarrierReply { outcome: Some(outcome) }))
    }

    async fn elect(&self, request: Request<proto::ElectRequest>) -> Result<Response<proto::ElectReply>, Status> {
        self.check(&request)?;
        let partitions = request.into_inner().groups.iter().map(wire::group).collect::<Result<Vec<_>, _>>()?;
        let told = |elected: Elected| match elected {
            Elected::Done => elect_reply::Outcome::Done,
            Elected::NotNeeded => elect_reply::Outcome::NotNeeded,
            Elected::Unavailable => elect_reply::Outcome::Unavailable,
            Elected::NotLeader => elect_reply::Outcome::NotLeader,
        };
        let outcomes = self.desk.elect(partitions).await.into_iter().map(|elected| told(elected).into()).collect();
        Ok(Response::new(proto::ElectReply { outcomes }))
    }

    async fn quorum(&self, request: Request<proto::QuorumRequest>) -> Result<Response<proto::QuorumReply>, Status> {
        self.check(&request)?;
        let outcome = match self.desk.quorum() {
            Some(quorum) => quorum_reply::Outcome::Quorum(put_quorum(quorum)),
            None => quorum_reply::Outcome::NotLeader(true),
        };
        Ok(Response::new(proto::QuorumReply { outcome: Some(outcome) }))
    }
}

fn put_quorum(quorum: Quorum) -> proto::Quorum {
    let member = |member: QuorumMember| proto::QuorumMember {
        broker: member.broker.0,
        votes: member.votes,
        end: member.end.map(|end| end.0),
        silent_ms: member.silence.and_then(|silence| u64::try_from(silence.as_millis()).ok()),
    };
    proto::Quorum {
        term: quorum.term.0,
        high_watermark: quorum.high_watermark.0,
        members: quorum.members.into_iter().map(member).collect(),
    }
}
