//! openraft's network over the links to the peers.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{Either, select};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream};
use openraft::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};

use super::CHUNK_BYTES;
use super::groups::{Asked, Votes};
use super::link::Link;
use super::peers::Peers;
use super::proto::{self, vote_request::Kind};
use super::session::{self, Answer, Route};
use super::wire::{self, Malformed, Target};
use crate::ids::{PartitionId, ReplicaId, Term};
use crate::log::Descriptor;
use crate::protocol::batch::crc32c;
use crate::raft::types::{TypeConfig, encode_vote};

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

/// The network of one group.
#[derive(Clone, Debug)]
pub struct GroupNetwork {
    peers: Arc<Peers>,
    votes: Arc<dyn Votes>,
    group: PartitionId,
}

impl GroupNetwork {
    /// Of `group`, over the links to its peers.
    #[must_use]
    pub fn new(peers: Arc<Peers>, votes: Arc<dyn Votes>, group: PartitionId) -> Self {
        Self { peers, votes, group }
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = Peer;

    async fn new_client(&mut self, replica: ReplicaId, (): &()) -> Peer {
        let (peers, votes) = (Arc::clone(&self.peers), Arc::clone(&self.votes));
        Peer { peers, votes, target: Target { group: self.group, replica } }
    }
}

/// One other replica of a group.
#[derive(Clone, Debug)]
pub struct Peer {
    peers: Arc<Peers>,
    votes: Arc<dyn Votes>,
    target: Target,
}

impl Peer {
    fn link(&self) -> Result<Arc<Link>, Unreachable<TypeConfig>> {
        let broker = self.target.replica.broker;
        self.peers
            .link(broker)
            .ok_or_else(|| Unreachable::from_string(format!("no address of broker {} is known", broker.0)))
    }

    fn route(&self) -> Route {
        Route { target: self.target, peers: Arc::clone(&self.peers), votes: Arc::clone(&self.votes) }
    }

    async fn ask(&self, mut request: proto::VoteRequest, option: &RPCOption) -> Rpc<proto::VoteReply> {
        let link = self.link()?;
        request.target = Some(self.target.into());
        let mut control = link.control();
        let call = control.vote(link.request(request));
        match tokio::time::timeout(option.hard_ttl(), call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(unreachable(&link, &status).into()),
            Err(_) => Err(Unreachable::from_string(format!("{link:?} does not answer")).into()),
        }
    }

    async fn ask_vote(
        &self,
        kind: Kind,
        request: VoteRequest<TypeConfig>,
        option: &RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let asked = match kind {
            _ if request.leadership_transfer => Asked::Transfer,
            Kind::PreVote => Asked::PreVote,
            _ => Asked::Vote,
        };
        if !self.votes.may_stand(self.target.group, Term(request.vote.leader_id.term), asked) {
            return Err(Unreachable::from_string("the group has a leader again: no vote is asked for").into());
        }
        let question = proto::VoteRequest {
            kind: kind.into(),
            vote: encode_vote(&request.vote),
            last: request.last_log_id.as_ref().map(wire::put_id),
            transfer: request.leadership_transfer,
            ..proto::VoteRequest::default()
        };
        let reply = self.ask(question, option).await?;
        let vote = wire::vote(&reply.vote).map_err(unreadable)?;
        Ok(VoteResponse::new(vote, reply.last.as_ref().map(wire::id), reply.granted))
    }

    async fn send_snapshot(
        &self,
        vote: VoteOf<TypeConfig>,
        snapshot: &Descriptor,
    ) -> Rpc<SnapshotResponse<TypeConfig>> {
        let link = self.link()?;
        let encoded = Bytes::from(snapshot.to_bytes());
        let head = proto::SnapshotHead {
            target: Some(self.target.into()),
            vote: encode_vote(&vote),
            size_bytes: u64::try_from(encoded.len()).expect("a length fits"),
            crc: crc32c(&[&encoded]),
        };
        let first = proto::SnapshotChunk { head: Some(head), data: Bytes::new() };
        let parts = (0..encoded.len()).step_by(CHUNK_BYTES).map(move |from| {
            let data = encoded.slice(from..encoded.len().min(from + CHUNK_BYTES));
            proto::SnapshotChunk { head: None, data }
        });
        let chunks = stream::iter(std::iter::once(first).chain(parts));
        let reply =
            link.data().install_snapshot(link.request(chunks)).await.map_err(|status| unreachable(&link, &status))?;
        let vote = wire::vote(&reply.into_inner().vote).map_err(unreadable)?;
        Ok(SnapshotResponse::new(vote))
    }
}

fn unreachable(link: &Link, status: &tonic::Status) -> Unreachable<TypeConfig> {
    Unreachable::from_string(format!("{link:?}: {}: {}", status.code(), status.message()))
}

fn unreadable(malformed: Malformed) -> Unreachable<TypeConfig> {
    Unreachable::from_string(malformed.to_string())
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Descriptor;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let link = self.link()?;
        let mut answers = session::run(self.route(), stream::iter([rpc]));
        let answer = tokio::time::timeout(option.soft_ttl(), futures::StreamExt::next(&mut answers)).await;
        match answer {
            Ok(Some(answer)) => Ok(match answer? {
                Ok(upto) if upto == last => AppendEntriesResponse::Success,
                Ok(upto) => AppendEntriesResponse::PartialSuccess(upto),
                Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
                Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
            }),
            Ok(None) | Err(_) => Err(Unreachable::from_string(format!("{link:?} does not answer")).into()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> futures::future::BoxFuture<'s, Rpc<BoxStream<'s, Answer>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        futures::future::ready(Ok(session::run(self.route(), input))).boxed()
    }

    async fn vote(&mut self, rpc: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(Kind::Vote, rpc, &option).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(Kind::PreVote, rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, Descriptor>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = pin!(self.send_snapshot(vote, &snapshot.snapshot));
        match select(pin!(cancel), sending).await {
            Either::Left((closed, _)) => Err(StreamingError::Closed(closed)),
            Either::Right((Ok(sent), _)) => Ok(sent),
            Either::Right((Err(error), _)) => {
                Err(StreamingError::Unreachable(Unreachable::from_string(error.to_string())))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let request = proto::VoteRequest {
            kind: Kind::Transfer.into(),
            vote: encode_vote(req.from_leader()),
            last: req.last_log_id().map(wire::put_id),
            to_broker: req.to_node_id().broker.0,
            to_incarnation: req.to_node_id().incarnation.0,
            ..proto::VoteRequest::default()
        };
        self.ask(request, &option).await.map(|_| Ok(()))
    }
}
