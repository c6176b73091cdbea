//! The replicas of this broker, as their peers reach them.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use futures::stream::BoxStream;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendResult, TransferLeaderRequest, VoteRequest as Candidacy, VoteResponse,
};

use crate::ids::{PartitionId, ReplicaId};
use crate::log::{Descriptor, LogError};
use crate::net::BoxFuture;
use crate::raft::types::{RaftVote, TypeConfig};

/// What a follower answers, one for each request; an error is the end.
pub type Answers = BoxStream<'static, Result<StreamAppendResult<TypeConfig>, String>>;

/// One replica. Errors are texts: its core has stopped, and why.
pub trait Member: Send + Sync {
    /// Who it is.
    fn replica(&self) -> ReplicaId;
    /// Makes sure that entries of so many bytes can be appended behind the log's end: an append that fails ends the group's core.
    ///
    /// # Errors
    /// Of the log.
    fn reserve(&self, bytes: u64) -> Result<(), LogError>;
    /// Takes a session's requests, one after the other.
    fn append(&self, requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>) -> BoxFuture<'_, Answers>;
    /// A candidate asks for its vote; with `pre`, only whether it would get it.
    fn vote(
        &self,
        request: Candidacy<TypeConfig>,
        pre: bool,
    ) -> BoxFuture<'_, Result<VoteResponse<TypeConfig>, String>>;
    /// The leader asks it to lead.
    fn transfer(&self, request: TransferLeaderRequest<TypeConfig>) -> BoxFuture<'_, Result<(), String>>;
    /// Takes in a state from the leader of `vote`; the answer is its own vote then.
    fn install(&self, vote: RaftVote, snapshot: Descriptor) -> BoxFuture<'_, Result<RaftVote, String>>;
}

/// The replicas that are open on this broker, by their groups.
#[derive(Default)]
pub struct Groups {
    members: RwLock<HashMap<PartitionId, Arc<dyn Member>>>,
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

    /// Peers reach a replica from now on.
    pub fn insert(&self, group: PartitionId, member: Arc<dyn Member>) {
        self.members.write().expect("no panic under the groups' lock").insert(group, member);
    }

    /// Peers do not reach it any more. Sessions that are open go on until its core stops.
    pub fn remove(&self, group: PartitionId) {
        self.members.write().expect("no panic under the groups' lock").remove(&group);
    }
}
