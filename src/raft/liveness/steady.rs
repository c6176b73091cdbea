//! What need not be looked at again: groups that rest cost nothing at each beat, however many they are.

use std::time::Duration;

use super::{Liveness, Stand};
use crate::ids::{BrokerId, PartitionId};

/// How replicas stand changes without the failure detector having a part in it, too: they follow whoever sends them entries in a later term. Nobody
/// serves or votes by mistake if that is seen late: [`Liveness::vote`] is told of each vote before it counts.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// All that the leases of this broker hang on at one moment: at another one with the same they are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footing {
    changes: u64,
    gives: Vec<(BrokerId, (bool, u64, u64))>,
}

impl Liveness {
    /// What this broker's leases hang on at `now`.
    #[must_use]
    pub fn footing(&self, now: Duration) -> Footing {
        let gives = self.peers.iter().map(|(broker, peer)| (*broker, peer.gives(now))).collect();
        Footing { changes: self.changes, gives }
    }

    /// How a replica here stands has changed, or whether there is one: the next look is not put off.
    pub fn look_again(&mut self) {
        self.changes += 1;
    }

    /// Looks which of a peer's claims the replicas here agree to, unless that cannot have changed since the last look.
    pub(super) fn look(&mut self, from: BrokerId, now: Duration, stands: impl Fn(PartitionId) -> Option<Stand>) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let is_fresh = |(at, changes): (Duration, u64)| changes == self.changes && now < at + LOOK_EVERY;
        if peer.looked.is_some_and(is_fresh) {
            return;
        }
        peer.looked = Some((now, self.changes));
        peer.disagreed.clear();
        for (group, claim) in &mut peer.claims {
            let agrees = match (self.groups.get_mut(group), stands(*group)) {
                (Some(state), Some((term, voted_for))) => {
                    // What shows in how it stands needs no note any more.
                    // One against a claim of this broker itself is kept until that is withdrawn.
                    let claimed = self.claims.get(*group).map(|(term, _)| term);
                    state.votes.retain(|vote| vote.term > term || claimed.is_some_and(|claimed| vote.term > claimed));
                    let follows = term < claim.term || (term == claim.term && voted_for == from);
                    follows && state.voted().is_none_or(|voted| voted <= claim.term)
                }
                _ => false,
            };
            if !agrees {
                peer.disagreed.push(*group);
            }
            if claim.agree(agrees, peer.answered) {
                self.changed.insert(*group);
            }
        }
    }
}
