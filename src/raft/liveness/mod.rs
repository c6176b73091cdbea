//! Who is alive, who leads what, and what hangs on it: reads, votes, elections. Pure: time and chance come in.
//!
//! Groups that rest send nothing. In their place each broker sends each other one a *beat*, with what it claims to lead, and gets an *ack*:
//!
//! - A broker that is not heard for [`SUSPECT_AFTER`] is suspected. Groups that it led, groups that nobody claims, and groups of a broker that
//!   has begun a new life without claiming them are *orphans*: their voters here stand for election, at random times, until somebody claims them.
//! - An ack is a promise: for [`PROMISE`] from the beat's arrival no vote is granted against a leader whose claim the acker agreed to. So a leader may
//!   serve reads while a majority of the voters' brokers has acked a beat that it sent within [`LEASE`], which is the shorter of the two: no other
//!   leader can have been elected meanwhile, whatever the network does. A broker that has just started may have promised in its last life, and
//!   grants no vote for as long.
//! - A vote against a leader that is heard and claims the group is refused: between three brokers of which two cannot talk, they would
//!   take its leadership from each other for ever.
//!
//! An ack counts for a group only if the acker follows that leader in that term: [`Ack::refused`] names the groups for which it does not.

mod claims;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{BrokerId, PartitionId, Term};
pub use claims::Claims;

/// How often a beat is sent to each peer.
pub const BEAT_EVERY: Duration = Duration::from_millis(150);
/// A broker that was not heard for so long is suspected.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(500);
/// How long a beat lets its sender serve reads, from when it was sent.
pub const LEASE: Duration = Duration::from_millis(400);
/// How long whoever acks a beat grants no vote against its sender, from when it came.
pub const PROMISE: Duration = Duration::from_millis(600);
/// A voter stands for election again after so long, and up to as much more.
const RETRY: Duration = Duration::from_millis(100);

/// One broker's sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The sender's life: another one each time it starts.
    pub boot: u64,
    /// When it was sent, by the sender's own clock: comes back in the ack.
    pub sent: Duration,
    /// What the receiver is taken to know; the rest says what has changed since. 0: nothing.
    pub since: u64,
    /// What the receiver knows when it has read this.
    pub version: u64,
    /// Groups that the sender leads, and in which term.
    pub claimed: Vec<(PartitionId, Term)>,
    /// Groups that it does not lead any more.
    pub withdrawn: Vec<PartitionId>,
}

/// The answer to a beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The life of the beat's sender that is answered.
    pub to: u64,
    /// When the beat was sent.
    pub sent: Duration,
    /// What the acker knows of the sender's claims; 0 if it has to be told all.
    pub version: u64,
    /// Groups among those claims in which the acker does not follow the sender in that term.
    pub refused: Vec<PartitionId>,
}

/// What is known of another broker.
#[derive(Debug, Default)]
struct Peer {
    /// Since when it is known at all.
    since: Duration,
    boot: Option<u64>,
    heard: Option<Duration>,
    /// What it claims, and up to which version.
    claims: BTreeMap<PartitionId, Term>,
    version: u64,
    /// When it was last acked, by this broker's clock.
    promised: Option<Duration>,
    /// What it has acked of this broker's beats: when that was sent, which claims it knew, and those that it refused.
    acked_sent: Option<Duration>,
    acked_version: u64,
    refused: BTreeSet<PartitionId>,
    suspected: bool,
}

/// A group with several voters that has a replica here.
#[derive(Debug)]
struct Group {
    /// The brokers of its voters; two sets while they change.
    voters: Vec<BTreeSet<BrokerId>>,
    /// Since when nobody claims it, and when this broker stands for election.
    orphan: Option<Duration>,
}

/// What the broker has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Stand for election in this group, and let time decide too from now on: nobody has promised anything to its leader any more.
    Elect(PartitionId),
    /// The group has a leader again.
    Claimed(PartitionId),
}

/// The failure detector of one broker.
#[derive(Debug)]
pub struct Liveness {
    me: BrokerId,
    boot: u64,
    started: Duration,
    claims: Claims,
    peers: BTreeMap<BrokerId, Peer>,
    groups: BTreeMap<PartitionId, Group>,
    /// Groups whose claims have changed since they were last looked at.
    changed: BTreeSet<PartitionId>,
    /// Groups of this broker without a leader.
    orphans: BTreeSet<PartitionId>,
    /// The term in which the replica here may have voted, while it is not known what became of it: whoever claims less is not followed.
    voted: BTreeMap<PartitionId, Term>,
}

impl Liveness {
    /// Of a broker that begins the life `boot` at `now`.
    #[must_use]
    pub fn new(me: BrokerId, boot: u64, now: Duration) -> Self {
        Self {
            me,
            boot,
            started: now,
            claims: Claims::default(),
            peers: BTreeMap::new(),
            groups: BTreeMap::new(),
            changed: BTreeSet::new(),
            orphans: BTreeSet::new(),
            voted: BTreeMap::new(),
        }
    }

    /// Another broker belongs to the cluster.
    pub fn add_peer(&mut self, broker: BrokerId, now: Duration) {
        if broker != self.me {
            self.peers.entry(broker).or_insert_with(|| Peer { since: now, ..Peer::default() });
        }
    }

    /// It does not any more.
    pub fn remove_peer(&mut self, broker: BrokerId) {
        if let Some(gone) = self.peers.remove(&broker) {
            self.changed.extend(gone.claims.into_keys());
        }
    }

    /// A group with several voters has a replica here. It has no leader until one claims it.
    pub fn open(&mut self, group: PartitionId, voters: Vec<BTreeSet<BrokerId>>) {
        self.groups.insert(group, Group { voters, orphan: None });
        self.changed.insert(group);
    }

    /// The group's voters are others now.
    pub fn set_voters(&mut self, group: PartitionId, voters: Vec<BTreeSet<BrokerId>>) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.voters = voters;
        }
    }

    /// The replica here is gone.
    pub fn close(&mut self, group: PartitionId) {
        self.groups.remove(&group);
        self.orphans.remove(&group);
        self.voted.remove(&group);
        self.withdraw(group);
    }

    /// This broker leads the group in `term`, and serves.
    pub fn claim(&mut self, group: PartitionId, term: Term) {
        self.claims.claim(group, term);
        self.changed.insert(group);
    }

    /// It does not lead it any more.
    pub fn withdraw(&mut self, group: PartitionId) {
        self.claims.withdraw(group);
        self.changed.insert(group);
    }

    /// The beat for a peer.
    #[must_use]
    pub fn beat(&self, to: BrokerId, now: Duration) -> Beat {
        let known = self.peers.get(&to).map_or(0, |peer| peer.acked_version);
        let (since, claimed, withdrawn) = self.claims.since(known);
        Beat { boot: self.boot, sent: now, since, version: self.claims.version(), claimed, withdrawn }
    }

    /// A peer's beat has come. `follows` says whether the replica here follows that peer in a group and term, or is about to: it knows of no later
    /// term. A broker that is not known to belong to the cluster gets no answer.
    pub fn heard(
        &mut self,
        from: BrokerId,
        beat: Beat,
        now: Duration,
        follows: impl Fn(PartitionId, Term) -> bool,
    ) -> Option<Ack> {
        let peer = self.peers.get_mut(&from)?;
        if peer.boot != Some(beat.boot) {
            // What it led in its last life it must claim anew.
            self.changed.extend(std::mem::take(&mut peer.claims).into_keys());
            (peer.boot, peer.version, peer.acked_version, peer.acked_sent) = (Some(beat.boot), 0, 0, None);
        }
        peer.heard = Some(now);
        if beat.since == 0 {
            self.changed.extend(std::mem::take(&mut peer.claims).into_keys());
        }
        // A beat that builds on what was never read: nothing of it is understood, and the next one tells all.
        if beat.since == 0 || beat.since <= peer.version {
            for (group, term) in beat.claimed {
                peer.claims.insert(group, term);
                self.changed.insert(group);
            }
            for group in beat.withdrawn {
                peer.claims.remove(&group);
                self.changed.insert(group);
            }
            peer.version = beat.version;
        } else {
            peer.version = 0;
        }
        peer.promised = Some(now);
        let voted = &mut self.voted;
        voted.retain(|group, term| peer.claims.get(group).is_none_or(|claimed| claimed < term));
        let refuses = |(group, term): (&PartitionId, &Term)| {
            (voted.get(group).is_some_and(|voted| voted > term) || !follows(*group, *term)).then_some(*group)
        };
        let refused = peer.claims.iter().filter_map(refuses).collect();
        if std::mem::take(&mut peer.suspected) {
            self.changed.extend(peer.claims.keys());
        }
        Some(Ack { to: beat.boot, sent: beat.sent, version: peer.version, refused })
    }

    /// A peer has answered a beat.
    pub fn acked(&mut self, by: BrokerId, ack: Ack) {
        let Some(peer) = self.peers.get_mut(&by).filter(|_| ack.to == self.boot) else { return };
        if peer.acked_sent.is_some_and(|before| before > ack.sent) {
            return;
        }
        peer.acked_sent = Some(ack.sent);
        peer.acked_version = ack.version;
        peer.refused = ack.refused.into_iter().collect();
    }

    /// Whether some group has no leader: then there is more to do than at each beat.
    #[must_use]
    pub fn has_orphans(&self) -> bool {
        !self.orphans.is_empty() || !self.changed.is_empty()
    }

    /// The brokers that beats go to.
    pub fn peers(&self) -> impl Iterator<Item = BrokerId> {
        self.peers.keys().copied()
    }

    /// The groups that this broker claims, each with its term.
    #[must_use]
    pub fn claimed(&self) -> Vec<(PartitionId, Term)> {
        self.claims.since(0).1
    }

    /// Whether a broker is heard.
    #[must_use]
    pub fn is_alive(&self, broker: BrokerId) -> bool {
        broker == self.me || self.peers.get(&broker).is_some_and(|peer| peer.heard.is_some() && !peer.suspected)
    }

    /// Who leads a group, of those that are heard, and in which term.
    #[must_use]
    pub fn leader(&self, group: PartitionId) -> Option<(BrokerId, Term)> {
        let own = self.claims.get(group).map(|(term, _)| (self.me, term));
        let claimed = |(broker, peer): (&BrokerId, &Peer)| peer.claims.get(&group).map(|term| (*broker, *term));
        let heard = self.peers.iter().filter(|(_, peer)| peer.heard.is_some() && !peer.suspected);
        heard.filter_map(claimed).chain(own).max_by_key(|(_, term)| *term)
    }

    /// Whether this broker may serve reads of a group that it leads: no other can have been elected yet.
    #[must_use]
    pub fn has_lease(&self, group: PartitionId, now: Duration) -> bool {
        let Some((_, version)) = self.claims.get(group) else { return false };
        let Some(state) = self.groups.get(&group) else { return true };
        let agrees = |broker: &BrokerId| {
            *broker == self.me
                || self.peers.get(broker).is_some_and(|peer| {
                    peer.acked_sent.is_some_and(|sent| now < sent + LEASE)
                        && peer.acked_version >= version
                        && !peer.refused.contains(&group)
                })
        };
        state.voters.iter().all(|set| set.iter().filter(|broker| agrees(broker)).count() * 2 > set.len())
    }

    /// Whether somebody else leads the group, or may believe so: why `candidate` gets no vote now.
    #[must_use]
    pub fn refuses(&self, group: PartitionId, candidate: BrokerId, now: Duration) -> Option<&'static str> {
        if !self.groups.contains_key(&group) {
            return None;
        }
        if now < self.started + PROMISE {
            return Some("this broker has just started, and may have promised a leader to elect no other");
        }
        let leads = |(broker, peer): (&BrokerId, &Peer)| {
            let is_bound = !peer.suspected || peer.promised.is_some_and(|promised| now < promised + PROMISE);
            *broker != candidate && is_bound && peer.claims.contains_key(&group)
        };
        self.peers.iter().any(leads).then_some("the group has a leader that this broker hears")
    }

    /// The replica here is about to vote in `term`, for itself or for another. From now on it agrees to no earlier leader's claim: an ack that counted for one
    /// while the vote makes another would let two serve.
    pub fn vote(&mut self, group: PartitionId, term: Term) {
        if self.groups.contains_key(&group) {
            let voted = self.voted.entry(group).or_insert(term);
            *voted = term.max(*voted);
        }
    }

    /// It did not vote after all.
    pub fn did_not_vote(&mut self, group: PartitionId, term: Term) {
        if self.voted.get(&group) == Some(&term) {
            self.voted.remove(&group);
        }
    }

    /// Looks at the time, and says what has to be done. `draw` draws below its argument.
    pub fn due(&mut self, now: Duration, draw: &mut impl FnMut(u64) -> u64) -> Vec<Due> {
        for peer in self.peers.values_mut().filter(|peer| !peer.suspected) {
            if now >= peer.heard.unwrap_or(peer.since) + SUSPECT_AFTER {
                peer.suspected = true;
                self.changed.extend(peer.claims.keys());
            }
        }
        let mut out = Vec::new();
        for group in std::mem::take(&mut self.changed) {
            if !self.groups.contains_key(&group) {
                continue;
            }
            let has_leader = self.leader(group).is_some();
            if has_leader && self.orphans.remove(&group) {
                out.push(Due::Claimed(group));
            }
            if !has_leader && self.orphans.insert(group) {
                let first = self.bound_until(group, now) + jitter(draw);
                self.groups.get_mut(&group).expect("looked up above").orphan = Some(first);
            }
        }
        for group in &self.orphans {
            let state = self.groups.get_mut(group).expect("an orphan is open here");
            let votes = state.voters.iter().any(|set| set.contains(&self.me));
            if let Some(at) = state.orphan.filter(|at| votes && *at <= now) {
                out.push(Due::Elect(*group));
                state.orphan = Some(at.max(now) + RETRY + jitter(draw));
            }
        }
        out
    }

    /// When the other voters here are free to elect a leader of the group, as far as this broker knows: they have promised about when it has.
    fn bound_until(&self, group: PartitionId, now: Duration) -> Duration {
        let bound =
            self.peers.values().filter(|peer| peer.claims.contains_key(&group)).filter_map(|peer| peer.promised);
        let promised = bound.max().map_or(now, |promised| promised + PROMISE);
        promised.max(self.started + PROMISE).max(now)
    }
}

fn jitter(draw: &mut impl FnMut(u64) -> u64) -> Duration {
    Duration::from_millis(draw(u64::try_from(RETRY.as_millis()).expect("a constant fits")))
}
