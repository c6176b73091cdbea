//! Leaders that this broker does not hear itself, as a third broker tells of them: for what clients are told, never for votes or reads.
//!
//! When two brokers of several cannot talk, each still has replicas of groups that the other leads, and clients that ask it who leads them. It says in
//! its acks whom it does not hear, and whoever does hears that broker's claims passes them on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Liveness;
use super::peer::Peer;
use crate::ids::{BrokerId, PartitionId, Term};

/// How often another broker's claims are passed on to one that does not hear it.
pub const RELAY_EVERY: Duration = Duration::from_millis(400);
/// How long what was passed on counts.
const BELIEVED_FOR: Duration = Duration::from_millis(1500);

/// All that another broker claims, as the sender of a beat hears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Who claims it.
    pub broker: BrokerId,
    /// The groups that it leads, and in which term.
    pub claimed: Vec<(PartitionId, Term)>,
}

#[derive(Debug)]
struct Told {
    at: Duration,
    claimed: BTreeMap<PartitionId, Term>,
}

/// What was passed on, by whom it is about.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    told: BTreeMap<BrokerId, Told>,
}

impl Hearsay {
    pub(super) fn learn(&mut self, relay: Relay, now: Duration) {
        let claimed = relay.claimed.into_iter().collect();
        self.told.insert(relay.broker, Told { at: now, claimed });
    }

    /// Whether somebody hears a broker.
    pub(super) fn is_heard_of(&self, broker: BrokerId, now: Duration) -> bool {
        self.told.get(&broker).is_some_and(|told| now < told.at + BELIEVED_FOR)
    }

    /// Those of whom it is told that they lead a group.
    pub(super) fn leaders(&self, group: PartitionId, now: Duration) -> impl Iterator<Item = (BrokerId, Term)> {
        let recent = self.told.iter().filter(move |(_, told)| now < told.at + BELIEVED_FOR);
        recent.filter_map(move |(broker, told)| told.claimed.get(&group).map(|term| (*broker, *term)))
    }
}

impl Liveness {
    /// What is passed on to a peer now, of those that it does not hear.
    pub(super) fn relays(&mut self, to: BrokerId, now: Duration) -> Vec<Relay> {
        let unheard = match self.peers.get_mut(&to) {
            Some(peer) if !peer.unheard.is_empty() && peer.relayed.is_none_or(|at| now >= at + RELAY_EVERY) => {
                peer.relayed = Some(now);
                peer.unheard.clone()
            }
            _ => return Vec::new(),
        };
        let heard = unheard.into_iter().filter_map(|broker| Some((broker, self.peers.get(&broker)?)));
        let relay = |(broker, peer): (BrokerId, &Peer)| Relay {
            broker,
            claimed: peer.claims.iter().map(|(group, claim)| (*group, claim.term)).collect(),
        };
        heard.filter(|(_, peer)| peer.is_heard() && peer.doubted.is_none()).map(relay).collect()
    }

    /// Who is told to lead a group: whoever is heard to, or is said to by those that hear it. Nobody while there is reason to think that it has just died.
    #[must_use]
    pub fn told_leader(&self, group: PartitionId, now: Duration) -> Option<(BrokerId, Term)> {
        let unheard = |(broker, _): &(BrokerId, Term)| {
            *broker != self.me && self.peers.get(broker).is_some_and(|peer| !peer.is_gone && !peer.is_heard())
        };
        let heard = self.leader(group);
        let said = self.hearsay.leaders(group, now).filter(unheard);
        let newest = said.chain(heard).max_by_key(|(_, term)| *term);
        newest.filter(|(broker, term)| {
            let is_doubted = self.peers.get(broker).is_some_and(|peer| peer.doubted.is_some());
            !is_doubted && self.led.get(&group).is_none_or(|led| term >= led)
        })
    }

    /// Whether a broker is heard, by this broker or by one that tells it so.
    #[must_use]
    pub fn is_heard_of(&self, broker: BrokerId, now: Duration) -> bool {
        self.is_alive(broker) || self.hearsay.is_heard_of(broker, now)
    }
}
