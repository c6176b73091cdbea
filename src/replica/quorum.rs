//! How the replicas of the controller's group stand, as its leader knows: asked here, or there.

use crate::cluster::calls;
pub use crate::cluster::{Quorum, QuorumMember};
use crate::ids::{PartitionId, RaftIndex};
use crate::replica::controller::ControllerHandle;

impl ControllerHandle {
    /// How the controller's group stands, if this broker leads it.
    #[must_use]
    pub fn own_quorum(&self) -> Option<Quorum> {
        let term = self.group().term().filter(|_| self.leads())?;
        let members = self.group().members();
        let end = |index: RaftIndex| RaftIndex(index.0 + 1);
        let me = self.group().me();
        let all = members.voters.iter().flatten().chain(&members.learners);
        let mut listed: Vec<QuorumMember> = all
            .map(|replica| QuorumMember {
                broker: replica.broker,
                votes: members.voters.iter().any(|set| set.contains(replica)),
                end: if *replica == me { members.last } else { members.held.get(replica).copied().flatten() }.map(end),
                silence: self.among().filter(|_| *replica != me).and_then(|node| node.silence(replica.broker)),
            })
            .collect();
        listed.sort_unstable_by_key(|member| member.broker);
        listed.dedup_by_key(|member| member.broker);
        Some(Quorum { leader: me.broker, term, high_watermark: end(self.applied()), members: listed })
    }

    /// How the controller's group stands, from whoever leads it; none if nobody is known to, or it does not answer.
    pub async fn quorum(&self) -> Option<Quorum> {
        if let Some(own) = self.own_quorum() {
            return Some(own);
        }
        let node = self.among()?;
        let (leader, _) = node.leader(PartitionId::CONTROLLER)?;
        calls::quorum(node.peers().link(leader)?.as_ref()).await.ok()?
    }
}
