//! Who may get a vote, and who is waited for.

use std::time::Duration;

use super::peer::Peer;
use super::{Liveness, PROMISE, Vote};
use crate::ids::{BrokerId, PartitionId, Term};

/// Whoever has begun a new life so lately was not elected in it: it grants no vote for as long, and is not asked to stand.
const NEW_FOR: Duration = PROMISE;

impl Liveness {
    /// Whether whoever was elected in `term` leads a group no more, as far as this broker knows: it was heard to and is not any more, or is not heard, or has
    /// begun a new life. One that has just been elected may not be heard to lead yet.
    #[must_use]
    pub fn is_over(&self, group: PartitionId, term: Term, leader: BrokerId, now: Duration) -> bool {
        let is_gone = |peer: &Peer| !peer.is_heard() || peer.born.is_some_and(|born| now < born + NEW_FOR);
        self.led.get(&group).is_some_and(|led| *led >= term) || self.peers.get(&leader).is_some_and(is_gone)
    }

    /// Whether somebody else leads the group, or may believe so: why `candidate` gets no vote now.
    #[must_use]
    pub fn refuses(&self, group: PartitionId, candidate: BrokerId, now: Duration) -> Option<&'static str> {
        let Some(state) = self.groups.get(&group) else { return Some("the group is not open here") };
        if state.is_alone(self.me) {
            return None;
        }
        if now < self.started + PROMISE {
            return Some("this broker has just started, and may have promised a leader to elect no other");
        }
        if candidate != self.me && self.has_lease(group, now) {
            return Some("this broker leads the group");
        }
        let leads = |(broker, peer): (&BrokerId, &Peer)| *broker != candidate && peer.binds(group, now);
        self.peers.iter().any(leads).then_some("the group has a leader that this broker hears")
    }

    /// The replica here is about to vote in `term`, for itself or for another. From now on it agrees to no earlier leader's claim: an ack that counted for one
    /// while the vote makes another would let two serve.
    pub fn vote(&mut self, group: PartitionId, candidate: BrokerId, term: Term) {
        self.changes += 1;
        let vote = Vote { term, candidate };
        if let Some(state) = self.groups.get_mut(&group)
            && !state.votes.contains(&vote)
        {
            state.votes.push(vote);
        }
    }

    /// It did not vote for that one after all, and stands at an earlier term.
    pub fn did_not_vote(&mut self, group: PartitionId, candidate: BrokerId, term: Term) {
        self.changes += 1;
        if let Some(state) = self.groups.get_mut(&group) {
            state.votes.retain(|vote| *vote != Vote { term, candidate });
        }
    }
}
