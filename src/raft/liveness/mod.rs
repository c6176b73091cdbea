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
//! An ack counts for a group only if the acker has a replica of it that follows that leader in that term: [`Ack::refused`] names the groups for which it does
//! not. What is refused in the ack is not taken into account here either: it is no leader, and nothing is promised to it.

mod claims;
mod lives;
mod peer;
mod relay;
mod steady;
#[cfg(test)]
mod tests;
mod votes;
#[cfg(test)]
mod votes_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{BrokerId, PartitionId, Term};
pub use claims::Claims;
use peer::Peer;
pub use peer::Reached;
use relay::Hearsay;
pub use relay::{RELAY_EVERY, Relay};
pub use steady::Footing;

/// How often a beat is sent to each peer.
pub const BEAT_EVERY: Duration = Duration::from_millis(100);
/// A broker that was not heard for so long is suspected.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(380);
/// How long a beat lets its sender serve reads, from when it was sent.
pub const LEASE: Duration = Duration::from_millis(330);
/// How long whoever acks a beat grants no vote against its sender, from when it came.
pub const PROMISE: Duration = Duration::from_millis(380);
/// A voter stands for election again after so long, and up to half as much more, twice, and then after longer times; each of those that stand before it
/// makes it wait as long again.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_DOUBLINGS_MAX: u32 = 4;
/// Beats reach those who promise at about the same time: whoever is free first waits a little for the others.
const TOGETHER: Duration = Duration::from_millis(10);
/// A broker that begins a new life is told of its groups so often, and so much later again: it opens them one after the other.
const TELL_TIMES: u32 = 3;
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Groups in which this broker stands at one look: what they ask has to be answered before it is asked again.
const STANDS_AT_ONCE: usize = 16;

/// Groups in which voters are behind, and on which brokers.
pub type Lagging = Vec<(PartitionId, Vec<BrokerId>)>;

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
    /// The digest of what the receiver refused last.
    pub refusals: u64,
    /// What brokers claim that the receiver does not hear.
    pub relays: Vec<Relay>,
    /// Groups that the sender leads in which voters' brokers are behind, and those.
    pub behind: Lagging,
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
    /// The digest of the groups among those claims in which the acker does not follow the sender in that term.
    pub refusals: u64,
    /// Those groups, unless the beat had their digest.
    pub refused: Option<Vec<PartitionId>>,
    /// Brokers that the acker does not hear.
    pub unheard: Vec<BrokerId>,
    /// The acker, and its life as in its beats.
    pub by: Option<(BrokerId, u64)>,
}

/// How the replica here stands: its term, and the broker that it voted for in it.
pub type Stand = (Term, BrokerId);

/// A vote that the replica here may have given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vote {
    term: Term,
    candidate: BrokerId,
}

/// A group that has a replica here.
#[derive(Debug)]
struct Group {
    /// The brokers of its voters; two sets while they change.
    voters: Vec<BTreeSet<BrokerId>>,
    /// The brokers that should lead it, the preferred one first; not more than a wish.
    order: Vec<BrokerId>,
    /// When this broker stands for election, and how often it has: while nobody claims the group.
    stands: Option<(Duration, u32)>,
    /// Votes that the replica here may have given and that do not show in how it stands yet: whoever claims less is not followed.
    votes: Vec<Vote>,
}

impl Group {
    fn has_voter(&self, broker: BrokerId) -> bool {
        self.voters.iter().any(|set| set.contains(&broker))
    }

    /// Whether nobody but this broker votes in it. One whose voters are not known is not alone.
    fn is_alone(&self, me: BrokerId) -> bool {
        !self.voters.is_empty() && self.voters.iter().all(|set| set.len() == 1 && set.contains(&me))
    }

    /// How many others stand before this broker does, of those that can: one of them will do, and they do not take votes from each other. Those that should
    /// lead come first; the rest in another order in each group, so that leaders spread.
    fn rank(&self, id: PartitionId, me: BrokerId, is_alive: impl Fn(BrokerId) -> bool) -> u32 {
        let mut able: BTreeSet<BrokerId> =
            self.voters.iter().flatten().copied().filter(|broker| *broker == me || is_alive(*broker)).collect();
        let wished: Vec<BrokerId> = self.order.iter().copied().filter(|broker| able.remove(broker)).collect();
        let turn = usize::try_from(id.partition.0).unwrap_or(0) % able.len().max(1);
        let order = wished.iter().chain(able.iter().cycle().skip(turn).take(able.len()));
        u32::try_from(order.take_while(|broker| **broker != me).count()).expect("voters are few")
    }

    fn voted(&self) -> Option<Term> {
        self.votes.iter().map(|vote| vote.term).max()
    }
}

/// What the broker has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Stand for election in this group: nobody has promised anything to its leader any more.
    Elect(PartitionId),
    /// A follower has begun a new life: what is committed may not have reached it.
    Heartbeat(PartitionId),
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
    /// Groups that a broker which has begun a new life has to hear of: when, and how often that was done.
    tell: BTreeMap<PartitionId, (Duration, u32)>,
    /// The latest term in which somebody was heard to lead each group: clients are not sent back to a leader of an earlier one.
    led: BTreeMap<PartitionId, Term>,
    /// What is told of brokers that are not heard.
    hearsay: Hearsay,
    /// Groups that this broker leads in which voters are behind.
    behind: Lagging,
    /// Brokers that are suspected, or have begun a new life, since the time was looked at last; when that was, and before when nobody is suspected.
    anew: BTreeSet<BrokerId>,
    last_look: Duration,
    patient_until: Duration,
    /// Counts changes of all that acks and leases hang on, but for the time, what peers answer, and how replicas here stand.
    changes: u64,
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
            tell: BTreeMap::new(),
            led: BTreeMap::new(),
            hearsay: Hearsay::default(),
            behind: Vec::new(),
            anew: BTreeSet::new(),
            last_look: now,
            patient_until: now,
            changes: 0,
        }
    }

    /// Another broker belongs to the cluster.
    pub fn add_peer(&mut self, broker: BrokerId, now: Duration) {
        self.changes += 1;
        if broker != self.me {
            self.peers.entry(broker).or_insert_with(|| Peer::new(now)).is_gone = false;
        }
    }

    /// It does not any more. What was promised to it holds all the same.
    pub fn remove_peer(&mut self, broker: BrokerId) {
        self.changes += 1;
        if let Some(gone) = self.peers.get_mut(&broker) {
            gone.is_gone = true;
            self.changed.extend(gone.claims.keys());
        }
    }

    /// A group has a replica here, which has voted in `voted` last. It has no leader until one claims it. `order`: who should lead it, the preferred leader first.
    pub fn open(
        &mut self,
        group: PartitionId,
        voters: Vec<BTreeSet<BrokerId>>,
        order: Vec<BrokerId>,
        voted: Option<Term>,
    ) {
        self.changes += 1;
        let votes = voted.map(|term| Vote { term, candidate: self.me }).into_iter().collect();
        self.groups.insert(group, Group { voters, order, stands: None, votes });
        self.orphans.remove(&group);
        self.changed.insert(group);
    }

    /// The group's voters are others now.
    pub fn set_voters(&mut self, group: PartitionId, voters: Vec<BTreeSet<BrokerId>>) {
        self.changes += 1;
        if let Some(state) = self.groups.get_mut(&group) {
            state.voters = voters;
            self.changed.insert(group);
        }
    }

    /// Others should lead the group now.
    pub fn set_order(&mut self, group: PartitionId, order: &[BrokerId]) {
        if let Some(state) = self.groups.get_mut(&group).filter(|state| state.order != order) {
            state.order = order.to_vec();
        }
    }

    /// The replica here is gone.
    pub fn close(&mut self, group: PartitionId) {
        self.changes += 1;
        self.groups.remove(&group);
        self.orphans.remove(&group);
        self.withdraw(group);
    }

    /// The group is no more, or begins anew without what it had.
    pub fn forget(&mut self, group: PartitionId) {
        self.led.remove(&group);
    }

    /// Groups that somebody was ever heard to lead.
    pub fn ever_led(&self) -> impl Iterator<Item = PartitionId> {
        self.led.keys().copied()
    }

    /// This broker leads the group in `term`, and serves.
    pub fn claim(&mut self, group: PartitionId, term: Term) {
        if self.groups.contains_key(&group) {
            note_led(&mut self.led, group, term);
            self.changes += 1;
            self.claims.claim(group, term);
            self.changed.insert(group);
        }
    }

    /// It does not lead it any more.
    pub fn withdraw(&mut self, group: PartitionId) {
        self.changes += 1;
        self.claims.withdraw(group);
        self.changed.insert(group);
    }

    /// The beat for a peer.
    #[must_use]
    pub fn beat(&mut self, to: BrokerId, now: Duration) -> Beat {
        let (known, refusals) = self.peers.get(&to).map_or((0, 0), |peer| (peer.acked_version, peer.refusals));
        let (since, claimed, withdrawn) = self.claims.since(known);
        let relays = self.relays(to, now);
        let (version, behind) = (self.claims.version(), self.behind.clone());
        Beat { boot: self.boot, sent: now, since, version, claimed, withdrawn, refusals, relays, behind }
    }

    /// Takes down in which groups that this broker leads voters are behind, in the groups' order.
    pub fn set_behind(&mut self, behind: Lagging) {
        self.behind = behind;
    }

    /// The brokers of a group's voters that are behind, as its leader says.
    #[must_use]
    pub fn behind(&self, group: PartitionId) -> Vec<BrokerId> {
        let Some((leader, _)) = self.leader(group) else { return Vec::new() };
        let own = || self.behind.binary_search_by_key(&group, |(id, _)| *id).ok().map(|at| &self.behind[at].1);
        let told = match self.peers.get(&leader) {
            Some(peer) => peer.behind.get(&group),
            None => own(),
        };
        told.cloned().unwrap_or_default()
    }

    /// A peer's connections ended: it has died, or the network has hiccups. What it led may be led by another soon. Whether that is news.
    pub fn doubt(&mut self, broker: BrokerId, now: Duration) -> bool {
        let heard = self.peers.get_mut(&broker).filter(|peer| peer.is_heard());
        heard.is_some_and(|peer| peer.doubted.replace(now).is_none())
    }

    /// A peer's beat has come. `stands` says how the replica here stands in a group, if there is one. No answer: the sender is not known to belong to the
    /// cluster, or a later beat of it came before.
    pub fn heard(
        &mut self,
        from: BrokerId,
        mut beat: Beat,
        now: Duration,
        stands: impl Fn(PartitionId) -> Option<Stand>,
    ) -> Option<Ack> {
        let peer = self.peers.get_mut(&from).filter(|peer| !peer.is_gone && peer.is_next(&beat))?;
        let begins = peer.begins(&beat);
        if begins {
            self.begins_anew(from, now);
        }
        let peer = self.peers.get_mut(&from)?;
        (peer.boot, peer.sent, peer.heard) = (Some(beat.boot), Some(beat.sent), Some(now));
        // One that it sent before its connections ended may be read only now.
        peer.doubted = peer.doubted.filter(|at| !begins && now < *at + BEAT_EVERY);
        let (to, sent, refusals) = (beat.boot, beat.sent, beat.refusals);
        for (group, term) in &beat.claimed {
            note_led(&mut self.led, *group, *term);
        }
        peer.behind = std::mem::take(&mut beat.behind).into_iter().collect();
        for relay in std::mem::take(&mut beat.relays) {
            relay.claimed.iter().for_each(|(group, term)| note_led(&mut self.led, *group, *term));
            self.hearsay.learn(relay, now);
        }
        let news = peer.learn(beat);
        self.changes += u64::from(!news.is_empty());
        self.changed.extend(news);
        self.look(from, now, stands);
        let peer = self.peers.get_mut(&from)?;
        peer.answered = Some(now);
        if std::mem::take(&mut peer.suspected) {
            peer.steady_since = Some(now);
            self.changed.extend(peer.claims.keys());
        }
        let digest = peer::digest(&peer.disagreed);
        let refused = (digest != refusals).then(|| peer.disagreed.clone());
        let version = peer.version;
        let is_unheard = |(broker, peer): (&BrokerId, &Peer)| (!peer.is_gone && !peer.is_heard()).then_some(*broker);
        let unheard = self.peers.iter().filter_map(is_unheard).collect();
        Some(Ack { to, sent, version, refusals: digest, refused, unheard, by: Some((self.me, self.boot)) })
    }

    /// Whether some group has no leader: then there is more to do than at each beat.
    #[must_use]
    pub fn has_orphans(&self) -> bool {
        !self.orphans.is_empty() || !self.changed.is_empty()
    }

    /// The brokers that beats go to.
    pub fn peers(&self) -> impl Iterator<Item = BrokerId> {
        self.peers.iter().filter(|(_, peer)| !peer.is_gone).map(|(broker, _)| *broker)
    }

    /// The groups that this broker claims, each with its term.
    #[must_use]
    pub fn claimed(&self) -> Vec<(PartitionId, Term)> {
        self.claims.since(0).1
    }

    /// One in `turns` of them, of those that have other voters; with `alone`, of all.
    #[must_use]
    pub fn claimed_of(&self, alone: bool, turns: u32, turn: u32) -> Vec<(PartitionId, Term)> {
        let counts =
            |group: &PartitionId| alone || !self.groups.get(group).is_some_and(|state| state.is_alone(self.me));
        let taken = self.claims.iter().skip(turn as usize).step_by(turns as usize);
        taken.filter(|(group, _)| counts(group)).collect()
    }

    /// Whether this broker claims a group.
    #[must_use]
    pub fn claims(&self, group: PartitionId) -> bool {
        self.claims.get(group).is_some()
    }

    /// The term in which this broker claims a group, whoever agrees.
    #[must_use]
    pub fn claimed_in(&self, group: PartitionId) -> Option<Term> {
        self.claims.get(group).map(|(term, _)| term)
    }

    /// The term in which this broker leads a group and may serve reads of it.
    #[must_use]
    pub fn serving(&self, group: PartitionId, now: Duration) -> Option<Term> {
        if self.has_lease(group, now) { self.claimed_in(group) } else { None }
    }

    /// Whether a broker is heard.
    #[must_use]
    pub fn is_alive(&self, broker: BrokerId) -> bool {
        broker == self.me || self.peers.get(&broker).is_some_and(Peer::is_heard)
    }

    /// Who leads a group, of those that are heard, and in which term.
    #[must_use]
    pub fn leader(&self, group: PartitionId) -> Option<(BrokerId, Term)> {
        let own = self.claims.get(group).map(|(term, _)| (self.me, term));
        let claimed = |(broker, peer): (&BrokerId, &Peer)| peer.claims.get(&group).map(|claim| (*broker, claim.term));
        let heard = self.peers.iter().filter(|(_, peer)| peer.is_heard());
        let newest = heard.filter_map(claimed).chain(own).max_by_key(|(_, term)| *term);
        newest.filter(|(_, term)| self.led.get(&group).is_none_or(|led| term >= led))
    }

    /// Whether somebody was ever heard to lead a group, since this broker has started.
    #[must_use]
    pub fn was_led(&self, group: PartitionId) -> bool {
        self.led.contains_key(&group)
    }

    /// When the next broker is suspected if it is not heard before.
    #[must_use]
    pub fn suspects_at(&self) -> Option<Duration> {
        let first = self.peers.values().filter(|peer| peer.is_heard()).map(Peer::suspect_at).min();
        first.map(|first| first.max(self.patient_until))
    }

    /// Whether a broker has been silent for at least so long.
    #[must_use]
    pub fn is_silent_for(&self, broker: BrokerId, at_least: Duration, now: Duration) -> bool {
        broker != self.me && self.peers.get(&broker).is_none_or(|peer| now >= peer.last_sign() + at_least)
    }

    /// Since when a broker was not heard; none if it never was.
    #[must_use]
    pub fn silence(&self, broker: BrokerId, now: Duration) -> Option<Duration> {
        self.peers.get(&broker)?.heard.map(|heard| now.saturating_sub(heard))
    }

    /// Whether this broker, or one that is heard and followed, leads a group.
    fn has_leader(&self, group: PartitionId) -> bool {
        let follows = |peer: &Peer| peer.is_heard() && peer.claims.get(&group).is_some_and(|claim| claim.agrees);
        self.claims.get(group).is_some() || self.peers.values().any(follows)
    }

    /// Whether this broker may serve reads of a group that it leads: no other can have been elected yet.
    #[must_use]
    pub fn has_lease(&self, group: PartitionId, now: Duration) -> bool {
        let (Some((term, version)), Some(state)) = (self.claims.get(group), self.groups.get(&group)) else {
            return false;
        };
        let is_later = |peer: &Peer| peer.claims.get(&group).is_some_and(|claim| claim.term > term);
        if state.voted().is_some_and(|voted| voted > term) || self.peers.values().any(is_later) {
            return false;
        }
        let agrees = |broker: &BrokerId| {
            *broker == self.me || self.peers.get(broker).is_some_and(|peer| peer.gives_lease(group, version, now))
        };
        state.voters.iter().all(|set| set.iter().filter(|broker| agrees(broker)).count() * 2 > set.len())
    }

    /// Looks at the time, and says what has to be done. `draw` draws below its argument.
    pub fn due(&mut self, now: Duration, draw: &mut impl FnMut(u64) -> u64) -> Vec<Due> {
        self.mind_own_pause(now);
        for (broker, peer) in &mut self.peers {
            if now >= self.patient_until && peer.suspect(now) {
                self.changed.extend(peer.claims.keys());
                self.anew.insert(*broker);
            }
        }
        self.stand_anew(now, draw);
        let mut out = Vec::new();
        self.tell.retain(|group, (at, times)| {
            if *at <= now {
                out.push(Due::Heartbeat(*group));
                *at = now + TELL_AGAIN_AFTER;
                *times += 1;
            }
            *times < TELL_TIMES
        });
        for group in std::mem::take(&mut self.changed) {
            if !self.groups.contains_key(&group) {
                continue;
            }
            let has_leader = self.has_leader(group);
            if has_leader {
                self.orphans.remove(&group);
            }
            if !has_leader && self.orphans.insert(group) {
                let first = self.bound_until(group, now, draw);
                self.groups.get_mut(&group).expect("looked up above").stands = Some((first, 0));
            }
        }
        let stands = |group: &PartitionId| {
            let state = &self.groups[group];
            let (at, times) = state.stands.filter(|(at, _)| state.has_voter(self.me) && *at <= now)?;
            Some((at, times, *group))
        };
        let mut standing: Vec<(Duration, u32, PartitionId)> = self.orphans.iter().filter_map(stands).collect();
        standing.sort_unstable();
        for (_, times, group) in standing.into_iter().take(STANDS_AT_ONCE) {
            out.push(Due::Elect(group));
            let wait = RETRY * 2u32.pow(times.saturating_sub(1).min(RETRY_DOUBLINGS_MAX));
            let again = now + wait + self.waits(group) + jitter(RETRY / 2, draw);
            self.groups.get_mut(&group).expect("it is an orphan").stands = Some((again, times + 1));
        }
        out
    }

    /// Whoever was not heard while this broker itself stood still is heard first, before it is suspected: what it sent is waiting to be read.
    fn mind_own_pause(&mut self, now: Duration) {
        if now >= self.last_look + BEAT_EVERY * 2 {
            self.patient_until = now + BEAT_EVERY;
        }
        self.last_look = now;
    }

    /// Some brokers are suspected, or have begun a new life: whoever waits for one that was elected, and not heard to lead yet, may wait in vain.
    fn stand_anew(&mut self, now: Duration, draw: &mut impl FnMut(u64) -> u64) {
        let anew = std::mem::take(&mut self.anew);
        if anew.is_empty() {
            return;
        }
        for group in self.orphans.clone() {
            if anew.iter().any(|broker| self.groups[&group].has_voter(*broker)) {
                let first = self.bound_until(group, now, draw);
                let state = self.groups.get_mut(&group).expect("it is an orphan");
                state.stands = Some(state.stands.map_or((first, 0), |(at, times)| (at.min(first), times)));
            }
        }
    }

    /// How much later than others this broker stands.
    fn waits(&self, group: PartitionId) -> Duration {
        let rank = self.groups.get(&group).map_or(0, |state| {
            state.rank(group, self.me, |broker| self.peers.get(&broker).is_some_and(Peer::is_heard))
        });
        RETRY * rank
    }

    /// When the voters are free to elect a leader of the group, as far as this broker knows: the others have promised about when it has.
    fn bound_until(&self, group: PartitionId, now: Duration, draw: &mut impl FnMut(u64) -> u64) -> Duration {
        if self.groups.get(&group).is_some_and(|state| state.is_alone(self.me)) {
            return now;
        }
        let promised = self.peers.values().filter_map(|peer| peer.promised(group));
        let bound = promised.max().map_or(now, |promised| promised + PROMISE + TOGETHER);
        bound.max(self.started + PROMISE).max(now) + self.waits(group) + jitter(TOGETHER / 2, draw)
    }
}

fn note_led(led: &mut BTreeMap<PartitionId, Term>, group: PartitionId, term: Term) {
    let latest = led.entry(group).or_insert(term);
    *latest = (*latest).max(term);
}

fn jitter(below: Duration, draw: &mut impl FnMut(u64) -> u64) -> Duration {
    Duration::from_millis(draw(u64::try_from(below.as_millis()).expect("a constant fits")))
}
