//! The replicas of this broker, as their peers reach them.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, Weak};

use futures::stream::BoxStream;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendResult, TransferLeaderRequest, VoteRequest as Candidacy, VoteResponse,
};

use crate::ids::{BrokerId, PartitionId, RaftIndex, ReplicaId, Term};
use crate::log::{Descriptor, Log, LogError};
use crate::net::BoxFuture;
use crate::raft::types::{RaftVote, TypeConfig};

/// What a follower answers, one for each request; an error is the end.
pub type Answers = BoxStream<'static, Result<StreamAppendResult<TypeConfig>, String>>;

/// How a replica stands in its group, as far as it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The term of its vote.
    pub term: Term,
    /// Whom it has voted for or follows.
    pub voted_for: ReplicaId,
    /// Whether that one was elected.
    pub elected: bool,
    /// Whether its core works.
    pub alive: bool,
}

/// Whom a leader's log is ahead of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// The last entry of its log.
    pub last: Option<RaftIndex>,
    /// Voters' brokers that lack something, and how many entries each lacks of all.
    pub voters: Vec<(BrokerId, u64)>,
}

/// One replica. Errors are texts: its core has stopped, and why.
pub trait Member: Send + Sync {
    /// Who it is.
    fn replica(&self) -> ReplicaId;
    /// How it stands.
    fn standing(&self) -> Standing;
    /// The term that it had voted in when its core was started: until the core says how it stands, it is that at least.
    fn voted(&self) -> Option<Term>;
    /// If it leads: who is not known to hold everything up to `mark`.
    fn behind(&self, mark: Option<RaftIndex>) -> Behind;
    /// If it leads: whether a voter on that broker is not known to hold all that this one has.
    fn lacks(&self, broker: BrokerId) -> bool;
    /// Lets its followers show that it still leads, and tells them what is committed. Those that could not be reached are tried again at once.
    fn heartbeat(&self) -> BoxFuture<'_, ()>;
    /// Stands for election, if the others would elect it. Leaders of terms up to `over` are waited for no longer: for all that this broker knows, they lead no
    /// more.
    fn elect(&self, over: Option<Term>) -> BoxFuture<'_, ()>;
    /// Makes sure that entries of so many bytes can be appended behind the log's end: an append that fails ends the group's core.
    ///
    /// # Errors
    /// Of the log.
    fn reserve(&self, bytes: u64) -> Result<(), LogError>;
    /// As [`Member::reserve`], for entries without clients' records: they may take what batches have to leave, for what makes room is among them.
    ///
    /// # Errors
    /// Of the log.
    fn reserve_command(&self, bytes: u64) -> Result<(), LogError>;
    /// Takes a session's requests, one after the other.
    fn append(&self, requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>) -> BoxFuture<'_, Answers>;
    /// A candidate asks for its vote; with `pre`, only whether it would get it. It is not refused for the sake of leaders of terms up to `over`, even if this
    /// replica is one.
    fn vote(
        &self,
        request: Candidacy<TypeConfig>,
        pre: bool,
        over: Option<Term>,
    ) -> BoxFuture<'_, Result<VoteResponse<TypeConfig>, String>>;
    /// The leader asks it to lead.
    fn transfer(&self, request: TransferLeaderRequest<TypeConfig>) -> BoxFuture<'_, Result<(), String>>;
    /// Takes in a state from the leader of `vote`; the answer is its own vote then.
    fn install(&self, vote: RaftVote, snapshot: Descriptor) -> BoxFuture<'_, Result<RaftVote, String>>;
}

/// What a candidate asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A vote.
    Vote,
    /// Whether it would get one.
    PreVote,
    /// A vote, because the leader itself asked it to stand.
    Transfer,
}

/// Has a say in every vote that goes out or comes in.
pub trait Votes: Send + Sync + std::fmt::Debug {
    /// Whether the replica here may ask others now. It has voted for itself already, if it is about a vote.
    fn may_stand(&self, group: PartitionId, term: Term, asked: Asked) -> bool;
    /// Whether the replica here may give `candidate` what it asks for.
    ///
    /// # Errors
    /// Why not.
    fn may_vote(&self, group: PartitionId, candidate: ReplicaId, term: Term, asked: Asked) -> Result<(), &'static str>;
    /// Whether a replica votes in its group, or is about to: else it only learns.
    fn votes(&self, group: PartitionId, replica: ReplicaId) -> bool;
    /// What [`Votes::may_vote`] allowed was not done.
    fn did_not_vote(&self, group: PartitionId, candidate: ReplicaId, term: Term);
}

/// The replicas that are open on this broker, by their groups.
#[derive(Default)]
pub struct Groups {
    members: RwLock<BTreeMap<PartitionId, Arc<dyn Member>>>,
    /// The logs that peers may borrow from, whether their replicas are open or not.
    logs: RwLock<BTreeMap<PartitionId, Weak<Log>>>,
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.members.read().expect("no panic under the groups' lock").len();
        write!(f, "Groups({count})")
    }
}

impl Groups {
    /// The replica of a group, if it is the one that is meant.
    #[must_use]
    pub fn get(&self, group: PartitionId, replica: ReplicaId) -> Option<Arc<dyn Member>> {
        let members = self.members.read().expect("no panic under the groups' lock");
        members.get(&group).filter(|member| member.replica() == replica).cloned()
    }

    /// The replica of a group, whichever it is.
    #[must_use]
    pub fn here(&self, group: PartitionId) -> Option<Arc<dyn Member>> {
        self.members.read().expect("no panic under the groups' lock").get(&group).cloned()
    }

    /// Peers may borrow from a log, for as long as somebody uses it.
    pub fn lend(&self, log: &Arc<Log>) {
        let mut logs = self.logs.write().expect("no panic under the logs' lock");
        logs.retain(|_, log| log.strong_count() > 0);
        logs.insert(log.id(), Arc::downgrade(log));
    }

    /// A group's log here, if there is one.
    #[must_use]
    pub fn log(&self, group: PartitionId) -> Option<Arc<Log>> {
        self.logs.read().expect("no panic under the logs' lock").get(&group).and_then(Weak::upgrade)
    }

    /// Peers reach a replica from now on.
    pub fn insert(&self, group: PartitionId, member: Arc<dyn Member>) {
        self.members.write().expect("no panic under the groups' lock").insert(group, member);
    }

    /// Peers do not reach it any more. Sessions that are open go on until its core stops.
    pub fn remove(&self, group: PartitionId) {
        self.members.write().expect("no panic under the groups' lock").remove(&group);
    }
}
