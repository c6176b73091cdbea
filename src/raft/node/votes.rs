//! Every vote goes by the failure detector: it is what promises are made of.

use super::Node;
use crate::flaws::Flaw;
use crate::ids::{PartitionId, ReplicaId, Term};
use crate::raft::transport::groups::{Asked, Member, Votes};

impl Node {
    /// The term of the leader that a replica here follows, or is, if that one leads no more for all that this broker knows.
    pub fn over(&self, group: PartitionId, member: &dyn Member) -> Option<Term> {
        let (standing, now) = (member.standing(), self.now());
        let is_over = self.liveness().is_over(group, standing.term, standing.voted_for.broker, now);
        is_over.then_some(standing.term)
    }
}

impl Votes for Node {
    fn may_stand(&self, group: PartitionId, term: Term, asked: Asked) -> bool {
        let now = self.now();
        let mut liveness = self.liveness();
        let may = asked == Asked::Transfer || liveness.refuses(group, self.me, now).is_none();
        if may && asked != Asked::PreVote {
            liveness.vote(group, self.me, term);
        }
        may
    }

    fn may_vote(&self, group: PartitionId, candidate: ReplicaId, term: Term, asked: Asked) -> Result<(), &'static str> {
        let now = self.now();
        let mut liveness = self.liveness();
        if asked != Asked::Transfer
            && !self.flaws.has(Flaw::VoteDespitePromise)
            && let Some(why) = liveness.refuses(group, candidate.broker, now)
        {
            return Err(why);
        }
        if asked != Asked::PreVote {
            liveness.vote(group, candidate.broker, term);
        }
        Ok(())
    }

    fn votes(&self, group: PartitionId, replica: ReplicaId) -> bool {
        let voters = self.voters.lock().expect("no panic under the lock of voters");
        voters.get(&group).is_none_or(|voters| voters.contains(&replica))
    }

    fn did_not_vote(&self, group: PartitionId, candidate: ReplicaId, term: Term) {
        self.liveness().did_not_vote(group, candidate.broker, term);
    }
}
