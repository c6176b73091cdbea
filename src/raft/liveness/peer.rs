//! What is known of another broker.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Ack, Beat, LEASE, PROMISE, SUSPECT_AFTER};
use crate::ids::{BrokerId, PartitionId, Term};

/// Lives of a broker whose late beats are told from those of its present one.
const LIVES: usize = 8;

/// A group that a broker says it leads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) term: Term,
    /// Whether the replica here follows it, as of the last look: what the leader is told.
    pub(super) agrees: bool,
    /// When the leader was told so last, if it is not told so any more: a promise all the same.
    agreed: Option<Duration>,
}

impl Claim {
    /// Takes down what the leader is told from now on; whether that is news. `answered`: when it was told anything before.
    pub(super) fn agree(&mut self, agrees: bool, answered: Option<Duration>) -> bool {
        let agreed_before = std::mem::replace(&mut self.agrees, agrees);
        if agreed_before && !agrees {
            self.agreed = answered;
        }
        agreed_before != agrees
    }
}

/// A peer that has left two beats unanswered, and answers again, is back: what was sent to it meanwhile may wait to be sent again.
pub(super) const BACK_AFTER: Duration = Duration::from_millis(250);

/// Who can be reached from now on, and could not before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Whether the peer had not answered for a while, or not at all in its present life.
    pub is_back: bool,
    /// Groups that it refused before, and does not any more: their replica has just been opened there.
    pub opened: Vec<PartitionId>,
}

/// Another broker.
#[derive(Debug)]
pub(super) struct Peer {
    /// Since when it is known at all.
    since: Duration,
    /// Whether it has left the cluster.
    pub(super) is_gone: bool,
    pub(super) boot: Option<u64>,
    /// When its present life was first heard of.
    pub(super) born: Option<Duration>,
    /// Lives that are over.
    past: VecDeque<u64>,
    /// When its last beat was sent, by its clock, and came, by this broker's.
    pub(super) sent: Option<Duration>,
    pub(super) heard: Option<Duration>,
    /// What it claims, and up to which version.
    pub(super) claims: BTreeMap<PartitionId, Claim>,
    pub(super) version: u64,
    /// When a beat of its was answered last: a promise about each claim that was agreed to.
    pub(super) answered: Option<Duration>,
    /// Which claims were not agreed to when that was looked at last: when, and what [`Liveness`](super::Liveness) had seen change until then.
    pub(super) looked: Option<(Duration, u64)>,
    pub(super) disagreed: Vec<PartitionId>,
    /// What it has acked of this broker's beats: when that was sent, which claims it knew, and those that it refused.
    acked_sent: Option<Duration>,
    pub(super) acked_version: u64,
    pub(super) refusals: u64,
    refused: BTreeSet<PartitionId>,
    pub(super) suspected: bool,
    /// Since when it has been heard, in one life and without a break.
    pub(super) steady_since: Option<Duration>,
    /// When its connections ended, if it was not heard since.
    pub(super) doubted: Option<Duration>,
    /// Groups that it leads in which voters' brokers are behind, and those.
    pub(super) behind: BTreeMap<PartitionId, Vec<BrokerId>>,
    /// Brokers that it does not hear, as of its last ack, and when claims of those were passed on to it.
    pub(super) unheard: Vec<BrokerId>,
    pub(super) relayed: Option<Duration>,
}

impl Peer {
    pub(super) fn new(since: Duration) -> Self {
        Self {
            since,
            is_gone: false,
            boot: None,
            born: None,
            past: VecDeque::new(),
            sent: None,
            heard: None,
            claims: BTreeMap::new(),
            version: 0,
            answered: None,
            looked: None,
            disagreed: Vec::new(),
            acked_sent: None,
            acked_version: 0,
            refusals: 0,
            refused: BTreeSet::new(),
            suspected: false,
            steady_since: None,
            doubted: None,
            behind: BTreeMap::new(),
            unheard: Vec::new(),
            relayed: None,
        }
    }

    /// Whether a beat is later than all that came before.
    pub(super) fn is_next(&self, beat: &Beat) -> bool {
        !self.is_past(beat.boot) && (self.boot != Some(beat.boot) || self.sent.is_none_or(|sent| beat.sent > sent))
    }

    /// Whether a life of it is over.
    pub(super) fn is_past(&self, life: u64) -> bool {
        self.past.contains(&life)
    }

    /// Whether a beat is the first of a life.
    pub(super) fn begins(&self, beat: &Beat) -> bool {
        self.boot != Some(beat.boot)
    }

    /// Its last life is over; the groups that it claimed.
    pub(super) fn forget(&mut self) -> Vec<PartitionId> {
        if let Some(past) = self.boot.take() {
            self.past.push_back(past);
            if self.past.len() > LIVES {
                self.past.pop_front();
            }
        }
        (self.sent, self.version, self.looked) = (None, 0, None);
        (self.acked_sent, self.acked_version, self.refusals) = (None, 0, 0);
        self.refused.clear();
        // Nobody serves what a dead process claimed: nothing is promised any more.
        std::mem::take(&mut self.claims).into_keys().collect()
    }

    /// Reads what a beat says; the groups that it is about.
    pub(super) fn learn(&mut self, beat: Beat) -> Vec<PartitionId> {
        let mut changed = Vec::new();
        // A beat that builds on what was never read: nothing of it is understood, and the next one tells all.
        if beat.since > self.version {
            self.version = 0;
            return changed;
        }
        if beat.since == 0 {
            let kept: BTreeSet<PartitionId> = beat.claimed.iter().map(|(group, _)| *group).collect();
            let gone: Vec<PartitionId> = self.claims.keys().filter(|group| !kept.contains(group)).copied().collect();
            gone.into_iter().for_each(|group| self.drop_claim(group, &mut changed));
        }
        for (group, term) in beat.claimed {
            match self.claims.get(&group) {
                Some(before) if before.term == term => {}
                _ => {
                    self.drop_claim(group, &mut changed);
                    self.claims.insert(group, Claim { term, agrees: false, agreed: None });
                    changed.push(group);
                }
            }
        }
        for group in beat.withdrawn {
            self.drop_claim(group, &mut changed);
        }
        self.version = beat.version;
        changed
    }

    fn drop_claim(&mut self, group: PartitionId, changed: &mut Vec<PartitionId>) {
        // Whoever withdraws a claim has stopped to serve before: nothing is promised to it any more.
        if self.claims.remove(&group).is_some() {
            changed.push(group);
        }
    }

    /// When it was told last that it is followed in a group; none if it never was.
    pub(super) fn promised(&self, group: PartitionId) -> Option<Duration> {
        let claim = self.claims.get(&group)?;
        if claim.agrees { self.answered } else { claim.agreed }
    }

    /// Whether a vote against it would break faith: it is heard and followed in a group, or may still count on what it was told.
    pub(super) fn binds(&self, group: PartitionId, now: Duration) -> bool {
        let is_followed = self.is_heard() && self.claims.get(&group).is_some_and(|claim| claim.agrees);
        is_followed || self.promised(group).is_some_and(|promised| now < promised + PROMISE)
    }

    /// Whether it lives, as far as this broker knows.
    pub(super) fn is_heard(&self) -> bool {
        self.heard.is_some() && !self.suspected && !self.is_gone
    }

    /// When it was last heard, or first known.
    pub(super) fn last_sign(&self) -> Duration {
        self.heard.unwrap_or(self.since)
    }

    /// When it is suspected if it is not heard before.
    pub(super) fn suspect_at(&self) -> Duration {
        self.last_sign() + SUSPECT_AFTER
    }

    /// Looks at the time; whether it is suspected from now on.
    pub(super) fn suspect(&mut self, now: Duration) -> bool {
        let is_late = now >= self.suspect_at();
        is_late && !std::mem::replace(&mut self.suspected, true)
    }

    /// It has answered a beat. What is new in that.
    pub(super) fn acked(&mut self, ack: Ack) -> Reached {
        if self.acked_sent.is_some_and(|before| before > ack.sent) {
            return Reached::default();
        }
        let is_back = self.acked_sent.is_none_or(|before| ack.sent >= before + BACK_AFTER);
        let mut opened = Vec::new();
        // One that it sent before its connections ended says nothing of its life.
        self.doubted = self.doubted.filter(|at| *at > ack.sent);
        self.unheard = ack.unheard;
        match ack.refused {
            Some(refused) => {
                let before = std::mem::replace(&mut self.refused, refused.into_iter().collect());
                opened.extend(before.difference(&self.refused));
            }
            // It refuses what it did before; if that is not known, nothing of the ack counts.
            None if ack.refusals == self.refusals => {}
            None => return Reached::default(),
        }
        (self.acked_sent, self.acked_version, self.refusals) = (Some(ack.sent), ack.version, ack.refusals);
        Reached { is_back, opened }
    }

    /// Whether its last ack lets this broker serve a group that it has claimed since a version.
    pub(super) fn gives_lease(&self, group: PartitionId, version: u64, now: Duration) -> bool {
        self.is_fresh(now) && self.acked_version >= version && !self.refused.contains(&group)
    }

    /// Whether its last ack still counts.
    fn is_fresh(&self, now: Duration) -> bool {
        self.acked_sent.is_some_and(|sent| now < sent + LEASE)
    }

    /// All that [`Peer::gives_lease`] hangs on.
    pub(super) fn gives(&self, now: Duration) -> (bool, u64, u64) {
        (self.is_fresh(now), self.acked_version, self.refusals)
    }
}

/// A digest of a list of groups (FNV-1a): 0 for none.
pub(super) fn digest(groups: &[PartitionId]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut digest = OFFSET;
    for group in groups {
        let bytes = group.topic.0.iter().copied().chain(group.partition.0.to_be_bytes());
        bytes.for_each(|byte| digest = (digest ^ u64::from(byte)).wrapping_mul(PRIME));
    }
    if groups.is_empty() { 0 } else { digest }
}
