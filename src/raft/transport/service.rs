//! What a broker does for its peers: hands their messages to the groups that are open here.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::raft::{TransferLeaderRequest, VoteRequest, VoteResponse};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::groups::{Answers, Asked, Member, Votes};
use super::proto::liveness_server::{Liveness, LivenessServer};
use super::proto::refusal::Reason;
use super::proto::replication_server::{Replication, ReplicationServer};
use super::proto::{self, vote_request::Kind};
use super::wire::{self, Malformed};
use super::{CLUSTER, MESSAGE_BYTES_MAX, SNAPSHOT_BYTES_MAX, lending};
use crate::ids::{BrokerId, Incarnation, PartitionId, ReplicaId, Term};
use crate::log::{Descriptor, LogError};
use crate::protocol::batch::crc32c;
use crate::raft::node::Node;
use crate::raft::types::{AppendRequest, TypeConfig, encode_vote};

/// How often it is said that a broker of another cluster calls.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// The replicas of this broker, for its peers.
#[derive(Clone, Debug)]
pub struct Service {
    cluster: String,
    node: Arc<Node>,
    /// When it was last said that a broker of another cluster calls.
    said: Arc<Mutex<Option<Instant>>>,
}

impl Service {
    /// For peers of the cluster with that id.
    #[must_use]
    pub fn new(cluster: &str, node: Arc<Node>) -> Self {
        Self { cluster: cluster.to_owned(), node, said: Arc::default() }
    }

    /// The id of the cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The services as tonic wants them.
    pub(crate) fn servers(self) -> (ReplicationServer<Self>, LivenessServer<Self>) {
        let replication = ReplicationServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        (replication, LivenessServer::new(self))
    }

    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        check_cluster(&self.cluster, request).inspect_err(|status| {
            let mut said = self.said.lock().expect("no panic under the lock of what was said");
            if said.is_none_or(|said| said.elapsed() > SAY_AGAIN_AFTER) {
                *said = Some(Instant::now());
                tracing::error!(
                    status = status.message(),
                    "a broker of another cluster calls, and is refused: one of the two has lost its data directory and founded a cluster of its own, or has \
                     an address that was another's"
                );
            }
        })
    }

    fn member(&self, target: Option<proto::Target>) -> Result<Arc<dyn Member>, (Reason, String)> {
        let target = wire::target(target).map_err(|error| (Reason::Malformed, error.to_string()))?;
        self.node.groups().get(target.group, target.replica).ok_or_else(|| {
            let text = format!("replica {} of {} is not open here", target.replica, target.group);
            (Reason::NoReplica, text)
        })
    }
}

/// Refuses a broker of another cluster.
pub(crate) fn check_cluster<T>(mine: &str, request: &Request<T>) -> Result<(), Status> {
    let theirs = request.metadata().get(CLUSTER).map(|id| id.as_bytes());
    if theirs == Some(mine.as_bytes()) {
        return Ok(());
    }
    let theirs = String::from_utf8_lossy(theirs.unwrap_or_default()).into_owned();
    Err(Status::failed_precondition(format!("this broker is of cluster {mine}, not of {theirs:?}")))
}

impl From<Malformed> for Status {
    fn from(malformed: Malformed) -> Self {
        Self::invalid_argument(malformed.to_string())
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<proto::AppendReply, Status>> + Send>>;

#[tonic::async_trait]
impl Replication for Service {
    type AppendStream = Replies;

    async fn append(&self, request: Request<Streaming<proto::AppendFrame>>) -> Result<Response<Replies>, Status> {
        self.check(&request)?;
        let (tell, mut replies) = mpsc::unbounded_channel();
        let stream = Incoming { service: self.clone(), tell, sessions: BTreeMap::new() };
        tokio::spawn(stream.run(request.into_inner()));
        let replies = futures::stream::poll_fn(move |context| replies.poll_recv(context)).map(Ok);
        Ok(Response::new(replies.boxed()))
    }

    async fn vote(&self, request: Request<proto::VoteRequest>) -> Result<Response<proto::VoteReply>, Status> {
        self.check(&request)?;
        let request = request.into_inner();
        let target = wire::target(request.target.clone())?;
        let member = self.member(request.target.clone()).map_err(|(_, text)| Status::not_found(text))?;
        let vote = wire::vote(&request.vote)?;
        let last = request.last.as_ref().map(wire::id);
        let asked = match request.kind() {
            Kind::Vote | Kind::PreVote if request.transfer => Asked::Transfer,
            Kind::Vote => Asked::Vote,
            Kind::PreVote => Asked::PreVote,
            Kind::Transfer => {
                let broker = BrokerId(request.to_broker);
                let to = ReplicaId { broker, incarnation: Incarnation(request.to_incarnation) };
                let asked = member.transfer(TransferLeaderRequest::new(vote, to, last)).await;
                asked.map_err(Status::unavailable)?;
                return Ok(Response::new(proto::VoteReply::default()));
            }
            Kind::Unspecified => return Err(Status::invalid_argument("what is asked?")),
        };
        let candidacy = VoteRequest { vote, last_log_id: last, leadership_transfer: request.transfer };
        let is_pre = request.kind() == Kind::PreVote;
        // In a task of its own: a candidate that does not wait any more must not keep what became of its vote from being noted.
        let voting = vote_for(Arc::clone(&self.node), member, target.group, candidacy, asked, is_pre);
        let answer = tokio::spawn(voting).await.map_err(|_| Status::aborted("this broker stops"))??;
        Ok(Response::new(proto::VoteReply {
            vote: encode_vote(&answer.vote),
            granted: answer.vote_granted,
            last: answer.last_log_id.as_ref().map(wire::put_id),
        }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotChunk>>,
    ) -> Result<Response<proto::SnapshotReply>, Status> {
        self.check(&request)?;
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.and_then(|chunk| chunk.head);
        let head = first.ok_or_else(|| Status::invalid_argument("a snapshot without a head"))?;
        if head.size_bytes > SNAPSHOT_BYTES_MAX {
            return Err(Status::out_of_range(format!("a snapshot of {} bytes", head.size_bytes)));
        }
        let member = self.member(head.target).map_err(|(_, text)| Status::not_found(text))?;
        let vote = wire::vote(&head.vote)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            bytes.extend_from_slice(&chunk.data);
            if bytes.len() as u64 > head.size_bytes {
                return Err(Status::out_of_range("a snapshot that is longer than was said"));
            }
        }
        if (bytes.len() as u64) < head.size_bytes {
            return Err(Status::data_loss("a snapshot that is shorter than was said"));
        }
        if crc32c(&[&bytes]) != head.crc {
            return Err(Status::data_loss("a snapshot that was damaged on its way"));
        }
        let snapshot = Descriptor::from_bytes(bytes.into())
            .ok_or_else(|| Status::invalid_argument("a snapshot that cannot be read"))?;
        let vote = member.install(vote, snapshot).await.map_err(Status::unavailable)?;
        Ok(Response::new(proto::SnapshotReply { vote: encode_vote(&vote) }))
    }

    async fn lend(&self, request: Request<proto::LendRequest>) -> Result<Response<proto::LendReply>, Status> {
        self.check(&request)?;
        lending::lend(self.node.groups(), request.into_inner()).await.map(Response::new)
    }

    async fn end(&self, request: Request<proto::EndRequest>) -> Result<Response<proto::EndReply>, Status> {
        self.check(&request)?;
        lending::tell_end(&self.node, request.into_inner()).map(Response::new)
    }
}

/// Gives a vote, if nobody has a say against it.
async fn vote_for(
    node: Arc<Node>,
    member: Arc<dyn Member>,
    group: PartitionId,
    candidacy: VoteRequest<TypeConfig>,
    asked: Asked,
    is_pre: bool,
) -> Result<VoteResponse<TypeConfig>, Status> {
    let (candidate, term) = (candidacy.vote.leader_id.voted_for, Term(candidacy.vote.leader_id.term));
    node.may_vote(group, candidate, term, asked).map_err(Status::unavailable)?;
    let answer = member.vote(candidacy, is_pre, node.over(group, &*member)).await.map_err(Status::unavailable)?;
    // A core that is at that term by now may have voted for it, or may vote on.
    if asked != Asked::PreVote && !answer.vote_granted && answer.vote.leader_id.term < term.0 {
        node.did_not_vote(group, candidate, term);
    }
    Ok(answer)
}

#[tonic::async_trait]
impl Liveness for Service {
    async fn beat(&self, request: Request<proto::BeatRequest>) -> Result<Response<proto::BeatReply>, Status> {
        self.check(&request)?;
        let (from, beat) = wire::beat(request.into_inner())?;
        let ack = self.node.heard(from, beat);
        let ack = ack.ok_or_else(|| {
            Status::not_found(format!("broker {} does not belong to this cluster, or has sent a later beat", from.0))
        })?;
        Ok(Response::new(wire::put_ack(ack)))
    }
}

/// Bytes of each request that was handed on and is not answered yet: space for them has been asked for.
#[derive(Debug, Default)]
struct UnderWay {
    sizes: VecDeque<u64>,
    total: u64,
}

/// A session, as its follower sees it.
struct Open {
    member: Arc<dyn Member>,
    requests: mpsc::UnboundedSender<AppendRequest>,
    under_way: Arc<Mutex<UnderWay>>,
    /// Set when the session ends: what is queued of it is not for the core any more.
    is_over: Arc<AtomicBool>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// One stream of a peer.
struct Incoming {
    service: Service,
    tell: mpsc::UnboundedSender<proto::AppendReply>,
    sessions: BTreeMap<u64, Open>,
}

fn lock(under_way: &Mutex<UnderWay>) -> MutexGuard<'_, UnderWay> {
    under_way.lock().expect("no panic under a session's lock")
}

impl Incoming {
    async fn run(mut self, mut frames: Streaming<proto::AppendFrame>) {
        loop {
            match frames.message().await {
                Ok(Some(frame)) => self.take(frame).await,
                Ok(None) => return,
                Err(status) => return tracing::debug!(%status, "the stream of a peer broke"),
            }
        }
    }

    async fn take(&mut self, mut frame: proto::AppendFrame) {
        let session = frame.session;
        if frame.closes {
            self.sessions.remove(&session);
            return;
        }
        let target = frame.target.take();
        let taken = match target {
            Some(target) => self.open(session, target).await,
            None => Ok(()),
        };
        if let Err((reason, text)) = taken.and_then(|()| self.hand_on(frame)) {
            self.sessions.remove(&session);
            // A peer that does not listen any more has closed the stream.
            drop(self.tell.send(wire::refuse(session, reason, text)));
        }
    }

    async fn open(&mut self, session: u64, target: proto::Target) -> Result<(), (Reason, String)> {
        let member = self.service.member(Some(target))?;
        let (requests, mut queue) = mpsc::unbounded_channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let queue = futures::stream::poll_fn(move |context| match ends.load(Ordering::Relaxed) {
            true => Poll::Ready(None),
            false => queue.poll_recv(context),
        });
        let answers = member.append(queue.boxed()).await;
        let under_way = Arc::default();
        tokio::spawn(answer(session, answers, Arc::clone(&under_way), self.tell.clone()));
        self.sessions.insert(session, Open { member, requests, under_way, is_over });
        Ok(())
    }

    fn hand_on(&mut self, frame: proto::AppendFrame) -> Result<(), (Reason, String)> {
        // What was on its way when a session ended.
        let Some(open) = self.sessions.get(&frame.session) else { return Ok(()) };
        let bytes = u64::try_from(wire::size_bytes(&frame)).expect("a length fits");
        let has_records = wire::has_records(&frame);
        let request = wire::append(frame).map_err(|error| (Reason::Malformed, error.to_string()))?;
        let total = {
            let mut under_way = lock(&open.under_way);
            under_way.sizes.push_back(bytes);
            under_way.total += bytes;
            under_way.total
        };
        if bytes > 0 {
            let reserved = if has_records { open.member.reserve(total) } else { open.member.reserve_command(total) };
            reserved.map_err(|error| match error {
                LogError::Full => (Reason::Full, error.to_string()),
                _ => (Reason::Stopped, error.to_string()),
            })?;
        }
        // A core that has stopped says so in its answers.
        drop(open.requests.send(request));
        Ok(())
    }
}

/// Passes a follower's answers on, until there are no more.
async fn answer(
    session: u64,
    mut answers: Answers,
    under_way: Arc<Mutex<UnderWay>>,
    tell: mpsc::UnboundedSender<proto::AppendReply>,
) {
    while let Some(answer) = answers.next().await {
        {
            let mut under_way = lock(&under_way);
            let bytes = under_way.sizes.pop_front().unwrap_or_default();
            under_way.total -= bytes;
        }
        let reply = match answer {
            Ok(result) => wire::put_result(session, result),
            Err(stopped) => wire::refuse(session, Reason::Stopped, stopped),
        };
        if tell.send(reply).is_err() {
            return;
        }
    }
}
