//! What becomes of what a broker said when it begins a new life, and who says that it has.

use std::time::Duration;

use super::{Ack, Liveness, Reached};
use crate::ids::{BrokerId, PartitionId};

impl Liveness {
    /// A known peer has begun a new life. What it led in its last one it must claim anew, and what it has missed it must be told.
    pub(super) fn begins_anew(&mut self, peer: BrokerId, now: Duration) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        (known.born, known.steady_since) = (Some(now), Some(now));
        self.changed.extend(known.forget());
        self.changes += 1;
        self.anew.insert(peer);
        let groups = &self.groups;
        // Every broker has the controller's state.
        let concerns = |group: &PartitionId| {
            *group == PartitionId::CONTROLLER || groups.get(group).is_some_and(|state| state.has_voter(peer))
        };
        self.tell.extend(self.claims.groups().filter(concerns).map(|group| (group, (now, 0))));
    }

    /// For how long a peer has been heard, in one life and without a break. One that was away too briefly to be missed has just come all the same.
    #[must_use]
    pub fn heard_for(&self, peer: BrokerId, now: Duration) -> Option<Duration> {
        let since = self.peers.get(&peer).filter(|peer| peer.is_heard())?.steady_since?;
        Some(now.saturating_sub(since))
    }

    /// A peer has answered a beat.
    pub fn acked(&mut self, from: BrokerId, ack: Ack, now: Duration) -> Reached {
        let Some(peer) = self.peers.get(&from).filter(|_| ack.to == self.boot) else { return Reached::default() };
        if let Some((broker, life)) = ack.by {
            let is_another = peer.boot.is_some_and(|boot| boot != life);
            // A life that was over when the present one was first heard of may have answered before that, and unheard.
            let is_late = is_another && peer.born.is_some_and(|born| ack.sent <= born);
            if broker != from || peer.is_past(life) || is_late {
                return Reached::default();
            }
            // It may answer beats before it sends one: clients that were told what its last life claimed meanwhile would wait for who does not lead any more.
            if is_another {
                self.begins_anew(from, now);
                self.peers.entry(from).and_modify(|peer| peer.boot = Some(life));
            }
        }
        let Some(peer) = self.peers.get_mut(&from) else { return Reached::default() };
        let version = ack.version;
        let Reached { is_back, mut opened } = peer.acked(ack);
        // A claim that it does not know yet it has not agreed to.
        opened.retain(|group| self.claims.get(*group).is_some_and(|(_, since)| since <= version));
        Reached { is_back, opened }
    }
}
