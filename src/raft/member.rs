//! One Raft group's replica on this broker, as its peers reach it.

use std::sync::{Arc, Mutex, MutexGuard};

use futures::StreamExt;
use futures::stream::BoxStream;
use openraft::RaftMetrics;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::raft::{TransferLeaderRequest, VoteRequest, VoteResponse};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};

use super::applier::decode_stored_membership;
use super::group::Raft;
use super::runtime::OrderedReceiver;
use super::transport::Member;
use super::transport::groups::{Answers, Behind, Standing};
use super::types::{AppendRequest, RaftVote, Runtime, TypeConfig, raft_log_id};
use crate::ids::{BrokerId, RaftIndex, ReplicaId, Term};
use crate::log::{Descriptor, Log, LogError};
use crate::machine::Machine;
use crate::net::BoxFuture;

/// A replica and its core.
pub(super) struct GroupMember<M: Machine> {
    me: ReplicaId,
    raft: Raft<M>,
    log: Arc<Log>,
    voted: Option<Term>,
    seed: u64,
    /// How it stood when its core said so last: asked for again and again.
    stood: Mutex<Stood>,
}

struct Stood {
    metrics: OrderedReceiver<RaftMetrics<TypeConfig>>,
    standing: Standing,
    last: Option<RaftIndex>,
    /// If it leads: the other voters, and what each is known to hold.
    held: Vec<(ReplicaId, Option<RaftIndex>)>,
}

impl Stood {
    fn new(mut metrics: OrderedReceiver<RaftMetrics<TypeConfig>>, me: ReplicaId) -> Self {
        let standing = standing(&metrics.borrow_and_update(), me);
        let mut stood = Self { metrics, standing, last: None, held: Vec::new() };
        stood.update(me);
        stood
    }

    fn look(&mut self, me: ReplicaId) -> &Self {
        if self.metrics.has_news() {
            self.update(me);
        }
        self
    }

    fn update(&mut self, me: ReplicaId) {
        let metrics = self.metrics.borrow_and_update();
        self.standing = standing(&metrics, me);
        self.last = metrics.last_log_index.map(RaftIndex);
        self.held.clear();
        if let Some(held) = &metrics.replication {
            let held = |replica| held.get(&replica).and_then(|id| id.as_ref().map(|id| RaftIndex(id.index())));
            let voters = metrics.membership_config.membership().voter_ids().filter(|replica| *replica != me);
            self.held.extend(voters.map(|replica| (replica, held(replica))));
        }
    }
}

fn standing(metrics: &RaftMetrics<TypeConfig>, me: ReplicaId) -> Standing {
    let leader = &metrics.vote.leader_id;
    Standing {
        term: Term(leader.term),
        voted_for: leader.voted_for,
        // A core that was restarted has the vote that it was elected with, and does not lead.
        elected: metrics.vote.committed && (leader.voted_for != me || metrics.state.is_leader()),
        alive: metrics.running_state.is_ok(),
    }
}

impl<M: Machine> GroupMember<M> {
    pub(super) fn new(me: ReplicaId, raft: Raft<M>, log: Arc<Log>, voted: Option<Term>, seed: u64) -> Self {
        let stood = Mutex::new(Stood::new(raft.metrics(), me));
        Self { me, raft, log, voted, seed, stood }
    }

    fn stood(&self) -> MutexGuard<'_, Stood> {
        self.stood.lock().expect("no panic under the lock of how it stands")
    }

    /// The vote of the leader that it follows, or is, if that one's term is at most `over`.
    fn leader_that_is_over(&self, over: Option<Term>) -> Option<RaftVote> {
        let vote = self.raft.metrics().borrow_watched().vote;
        (vote.committed && over.is_some_and(|over| vote.leader_id.term <= over.0)).then_some(vote)
    }

    /// Whether its core leads.
    fn leads(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.is_ok() && metrics.state.is_leader()
    }

    /// Its core waits for a leader that it follows no longer. To the core it looks as if that leader had handed over to another; one that follows somebody else
    /// by now leaves it at that.
    async fn give_up(&self, leader: Option<RaftVote>) -> Result<(), Fatal<TypeConfig>> {
        match leader.filter(|vote| vote.leader_id.voted_for != self.me) {
            Some(vote) => {
                let handed_over = TransferLeaderRequest::new(vote, vote.leader_id.voted_for, None);
                self.raft.handle_transfer_leader(handed_over).await.map(drop)
            }
            None => Ok(()),
        }
    }

    /// In the group's own randomness.
    fn seeded<'a, T: Send + 'a>(
        &self,
        work: impl Future<Output = Result<T, impl std::fmt::Display>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, String>> {
        let seed = self.seed;
        Box::pin(async move { Runtime::scope(seed, work).await.map_err(|error| error.to_string()) })
    }
}

impl<M: Machine> Member for GroupMember<M> {
    fn replica(&self) -> ReplicaId {
        self.me
    }

    fn standing(&self) -> Standing {
        self.stood().look(self.me).standing
    }

    fn voted(&self) -> Option<Term> {
        self.voted
    }

    fn behind(&self, mark: Option<RaftIndex>) -> Behind {
        let mut stood = self.stood();
        let Stood { last, held, .. } = stood.look(self.me);
        let end = |last: Option<RaftIndex>| last.map_or(0, |last| last.0 + 1);
        let behind = held.iter().filter(|(_, held)| *held < mark);
        let voters = behind.map(|(replica, held)| (replica.broker, end(*last).saturating_sub(end(*held)))).collect();
        Behind { last: *last, voters }
    }

    fn lacks(&self, broker: BrokerId) -> bool {
        let mut stood = self.stood();
        let Stood { last, held, .. } = stood.look(self.me);
        held.iter().any(|(replica, held)| replica.broker == broker && held < last)
    }

    fn heartbeat(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let trigger = self.raft.trigger();
            // A stopped core tells nobody anything.
            let told = async { trigger.reset_backoff([]).await.and(trigger.heartbeat().await) };
            drop(Runtime::scope(self.seed, told).await);
        })
    }

    fn elect(&self, over: Option<Term>) -> BoxFuture<'_, ()> {
        let leader = self.leader_that_is_over(over);
        Box::pin(async move {
            let stand = async {
                self.give_up(leader).await?;
                self.raft.trigger().elect(true).await
            };
            // A stopped core stands for nothing.
            drop(Runtime::scope(self.seed, stand).await);
        })
    }

    fn reserve(&self, bytes: u64) -> Result<(), LogError> {
        self.log.reserve(bytes)
    }

    fn reserve_command(&self, bytes: u64) -> Result<(), LogError> {
        self.log.reserve_command(bytes)
    }

    fn append(&self, requests: BoxStream<'static, AppendRequest>) -> BoxFuture<'_, Answers> {
        let answers = Runtime::scope(self.seed, async { self.raft.stream_append(requests) });
        Box::pin(async move { answers.await.map(|answer| answer.map_err(|error| error.to_string())).boxed() })
    }

    fn vote(
        &self,
        mut request: VoteRequest<TypeConfig>,
        pre: bool,
        over: Option<Term>,
    ) -> BoxFuture<'_, Result<VoteResponse<TypeConfig>, String>> {
        let leader = self.leader_that_is_over(over);
        // One that leads by its own account has no lease that it could be told to end.
        if let Some(vote) = leader.filter(|_| self.leads()) {
            if pre {
                // What openraft would answer, but for the lease. It binds nobody: the vote itself is asked for afterwards.
                let last = self.log.state().last.map(raft_log_id);
                let would = request.last_log_id >= last && request.vote.leader_id.term > vote.leader_id.term;
                return Box::pin(std::future::ready(Ok(VoteResponse::new(vote, last, would))));
            }
            // As if it had asked for another to lead in its place.
            request.leadership_transfer = true;
        }
        self.seeded(async move {
            self.give_up(leader).await?;
            if pre { self.raft.pre_vote(request).await } else { self.raft.vote(request).await }
        })
    }

    fn transfer(&self, request: TransferLeaderRequest<TypeConfig>) -> BoxFuture<'_, Result<(), String>> {
        self.seeded(async move { self.raft.handle_transfer_leader(request).await.map(drop) })
    }

    fn install(&self, vote: RaftVote, snapshot: Descriptor) -> BoxFuture<'_, Result<RaftVote, String>> {
        self.seeded(async move {
            // openraft takes it for granted.
            if snapshot.id.term.0 > vote.leader_id.term {
                return Err(format!("a snapshot at {} of a leader in term {}", snapshot.id, vote.leader_id.term));
            }
            // What this replica cannot take in would end its core: better that the leader tries again.
            M::restore(&snapshot.machine).map_err(|error| format!("a snapshot at {}: {error}", snapshot.id))?;
            let last_membership = decode_stored_membership(&snapshot.membership).map_err(|error| error.to_string())?;
            let meta = SnapshotMetaOf::<TypeConfig> { last_log_id: Some(raft_log_id(snapshot.id)), last_membership };
            let snapshot = SnapshotOf::<TypeConfig, Descriptor> { meta, snapshot };
            let installed = self.raft.install_full_snapshot(vote, snapshot).await;
            installed.map(|response| response.vote).map_err(|error| error.to_string())
        })
    }
}
