//! This broker among the others: sends beats, hears those of its peers, and does what the failure detector says.

mod said;
mod votes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::lag::Lag;
use super::liveness::{Ack, BEAT_EVERY, Beat, Due, Footing, LEASE, Liveness, Reached};
use super::transport::groups::{Groups, Member, Standing};
use super::transport::{Peers, wire};
use crate::flaws::{Flaw, Flaws};
use crate::ids::{BrokerId, PartitionId, ReplicaId, Term};

/// How often the time is looked at while some group has no leader.
const ORPHANS_EVERY: Duration = Duration::from_millis(10);

/// A claim that has just been made is told at once, but beats are not sent more often than this.
const BEAT_AGAIN_AFTER: Duration = Duration::from_millis(5);
/// One of so many groups that are claimed is looked at with each beat, in turns: whether its replica still works and leads.
const CLAIM_TURNS: u32 = 5;
/// Every so many rounds of that those with one voter are looked at, too: nobody else would lead them.
const ALONE_EVERY: u32 = 6;
/// Every so many beats it is looked at who is behind.
const LAG_EVERY: u32 = 5;

/// Hears that a group's replica here serves in a term, or does not any more.
pub type ServingHook = Box<dyn Fn(PartitionId, Option<Term>) + Send + Sync>;

/// What is served here.
#[derive(Default)]
struct Serving {
    /// As the hook was told.
    told: BTreeMap<PartitionId, Term>,
    /// Groups that are claimed and not served: the others have not agreed yet, or not lately.
    pending: BTreeSet<PartitionId>,
    /// What all of it was looked at on last.
    footing: Option<Footing>,
}

/// This broker among the others.
pub struct Node {
    me: BrokerId,
    flaws: Flaws,
    born: Instant,
    liveness: Mutex<Liveness>,
    serving: Mutex<Serving>,
    hook: OnceLock<ServingHook>,
    /// A claim is new.
    news: Notify,
    /// Groups whose replica here has applied the first entry of a term, with that term: it may lead in it.
    began: Mutex<BTreeMap<PartitionId, Term>>,
    groups: Groups,
    /// The voters of groups that have a replica here, both sets while they change.
    voters: Mutex<BTreeMap<PartitionId, BTreeSet<ReplicaId>>>,
    peers: Arc<Peers>,
    /// When it was said that somebody of another cluster is where a peer should be.
    strangers: Mutex<BTreeMap<BrokerId, Instant>>,
    lag: Mutex<Lag>,
    suspicions: AtomicU64,
    elections: AtomicU64,
    random: Mutex<StdRng>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node(broker {})", self.me.0)
    }
}

impl Node {
    /// A broker that begins a new life. `seed` draws which, and when it stands for elections.
    #[must_use]
    pub fn new(me: BrokerId, peers: Arc<Peers>, seed: u64, flaws: Flaws) -> Arc<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let liveness = Mutex::new(Liveness::new(me, random.random(), Duration::ZERO));
        let (groups, began, lag, random) = (Groups::default(), Mutex::default(), Mutex::default(), Mutex::new(random));
        let (serving, hook, news, strangers) = (Mutex::default(), OnceLock::new(), Notify::new(), Mutex::default());
        let voters = Mutex::default();
        let node = Arc::new(Self {
            me,
            flaws,
            born: Instant::now(),
            liveness,
            serving,
            hook,
            news,
            began,
            groups,
            voters,
            peers,
            strangers,
            lag,
            suspicions: AtomicU64::new(0),
            elections: AtomicU64::new(0),
            random,
        });
        let doubting = Arc::downgrade(&node);
        node.peers.on_ended(Box::new(move |peer| doubting.upgrade().iter().for_each(|node| node.doubt(peer))));
        node
    }

    /// This broker.
    #[must_use]
    pub fn me(&self) -> BrokerId {
        self.me
    }

    /// A connection to a peer has ended. Whether it lives is asked at once; until then clients are not sent to it.
    fn doubt(&self, peer: BrokerId) {
        let now = self.now();
        if self.liveness().doubt(peer, now) {
            self.news.notify_one();
        }
    }

    /// Says who hears what is served here. Once; nothing is told before.
    pub fn on_serving(&self, hook: ServingHook) {
        let _ = self.hook.set(hook);
    }

    /// The term in which the replica here leads its group and may serve reads now.
    #[must_use]
    pub fn serving(&self, group: PartitionId) -> Option<Term> {
        self.serving_now(&self.liveness(), group)
    }

    fn serving_now(&self, liveness: &Liveness, group: PartitionId) -> Option<Term> {
        if self.flaws.has(Flaw::ReadWithoutLease) {
            return liveness.claimed_in(group);
        }
        liveness.serving(group, self.now())
    }

    /// The bug that is planted, if one is.
    #[must_use]
    pub fn flaws(&self) -> Flaws {
        self.flaws
    }

    fn served(&self) -> MutexGuard<'_, Serving> {
        self.serving.lock().expect("no panic under the lock of what is served")
    }

    /// Looks whether a group is served, and tells if that has changed. Told under a lock, so that what is told last is what is.
    fn refresh(&self, group: PartitionId) {
        let mut served = self.served();
        let (serving, claims) = {
            let liveness = self.liveness();
            (self.serving_now(&liveness, group), liveness.claims(group))
        };
        let waits = claims && serving.is_none();
        let waited = if waits { !served.pending.insert(group) } else { served.pending.remove(&group) };
        let before = match serving {
            Some(term) => served.told.insert(group, term),
            None => served.told.remove(&group),
        };
        if before != serving || waited != waits {
            // It may have been looked at on another footing than the rest.
            served.footing = None;
        }
        if before != serving
            && let Some(hook) = self.hook.get()
        {
            hook(group, serving);
        }
    }

    /// Looks at all groups, unless nothing has changed that they hang on.
    fn refresh_all(&self) {
        let footing = || self.liveness().footing(self.now());
        let before = footing();
        let groups: BTreeSet<PartitionId> = {
            let mut served = self.served();
            if served.footing.as_ref() == Some(&before) {
                return;
            }
            served.footing = None;
            served.told.keys().chain(&served.pending).copied().collect()
        };
        groups.into_iter().for_each(|group| self.refresh(group));
        // What has changed meanwhile is looked at again: some groups may have been looked at before that, and some after.
        if footing() == before {
            self.served().footing = Some(before);
        }
    }

    /// Tells whether a group is served, whether that has changed or not: to a replica that is new to whoever hears it.
    pub fn tell_again(&self, group: PartitionId) {
        self.served().told.remove(&group);
        self.refresh(group);
        let served = self.served();
        if let (None, Some(hook)) = (served.told.get(&group), self.hook.get()) {
            hook(group, None);
        }
    }

    /// Whether a broker has been silent for at least so long.
    #[must_use]
    pub fn is_silent_for(&self, broker: BrokerId, at_least: Duration) -> bool {
        let now = self.now();
        self.liveness().is_silent_for(broker, at_least, now)
    }

    /// Since when a broker was not heard; none if it never was.
    #[must_use]
    pub fn silence(&self, broker: BrokerId) -> Option<Duration> {
        let now = self.now();
        self.liveness().silence(broker, now)
    }

    /// Whether somebody was ever heard to lead a group, since this broker has started.
    #[must_use]
    pub fn was_led(&self, group: PartitionId) -> bool {
        self.liveness().was_led(group)
    }

    /// These groups are no more, or begin anew without what they had.
    pub fn forget(&self, groups: impl IntoIterator<Item = PartitionId>) {
        let mut liveness = self.liveness();
        groups.into_iter().for_each(|group| liveness.forget(group));
    }

    /// Groups that somebody was ever heard to lead.
    #[must_use]
    pub fn ever_led(&self) -> Vec<PartitionId> {
        self.liveness().ever_led().collect()
    }

    /// Whether a broker is heard.
    #[must_use]
    pub fn is_alive(&self, broker: BrokerId) -> bool {
        self.liveness().is_alive(broker)
    }

    /// For how long a peer has been heard, in one life and without a break.
    #[must_use]
    pub fn heard_for(&self, peer: BrokerId) -> Option<Duration> {
        let now = self.now();
        self.liveness().heard_for(peer, now)
    }

    /// A broker has left the cluster.
    pub fn remove_peer(&self, broker: BrokerId) {
        self.liveness().remove_peer(broker);
        self.peers.remove(broker);
    }

    /// The replicas of this broker.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The ways to the other brokers.
    #[must_use]
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    fn now(&self) -> Duration {
        self.born.elapsed()
    }

    fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.liveness.lock().expect("no panic under the failure detector's lock")
    }

    fn began(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Term>> {
        self.began.lock().expect("no panic under the lock of what was begun")
    }

    /// Another broker belongs to the cluster, and listens there for its peers.
    ///
    /// # Errors
    /// If that is no address.
    pub fn add_peer(&self, broker: BrokerId, address: &str) -> Result<(), tonic::transport::Error> {
        self.peers.set_address(broker, address)?;
        let now = self.now();
        self.liveness().add_peer(broker, now);
        Ok(())
    }

    /// A replica is open here, of a group with these voters. `order`: who should lead it, the preferred leader first.
    pub fn open(
        &self,
        group: PartitionId,
        member: Arc<dyn Member>,
        voters: &[BTreeSet<ReplicaId>],
        order: &[BrokerId],
    ) {
        let mut began = self.began();
        began.remove(&group);
        self.note_voters(group, voters);
        // Before anybody can ask it for a vote.
        self.liveness().open(group, brokers(voters), order.to_vec(), member.voted());
        self.groups.insert(group, member);
        // A peer's beat that came in between has found nobody here.
        self.liveness().look_again();
    }

    /// It is not any more.
    pub fn close(&self, group: PartitionId) {
        self.groups.remove(group);
        self.voters.lock().expect("no panic under the lock of voters").remove(&group);
        let mut began = self.began();
        began.remove(&group);
        self.liveness().close(group);
        drop(began);
        self.refresh(group);
    }

    /// The group's voters are others now.
    pub fn set_voters(&self, group: PartitionId, voters: &[BTreeSet<ReplicaId>]) {
        self.note_voters(group, voters);
        self.liveness().set_voters(group, brokers(voters));
    }

    /// The brokers that should lead a group, the preferred one first, are others now.
    pub fn set_order(&self, group: PartitionId, order: &[BrokerId]) {
        self.liveness().set_order(group, order);
    }

    fn note_voters(&self, group: PartitionId, voters: &[BTreeSet<ReplicaId>]) {
        let all = voters.iter().flatten().copied().collect();
        self.voters.lock().expect("no panic under the lock of voters").insert(group, all);
    }

    /// The replica here has applied the first entry of a term. If it leads in it, it claims the group from now on.
    pub fn began_term(&self, group: PartitionId, term: Term) {
        let mut began = self.began();
        began.insert(group, term);
        if self.claim(&began, group) {
            drop(began);
            self.refresh(group);
            self.news.notify_one();
        }
    }

    /// Claims a group if its replica here leads in the term that it has begun. Under the lock, so that nobody withdraws it meanwhile.
    /// Whether it leads.
    fn claim(&self, began: &BTreeMap<PartitionId, Term>, group: PartitionId) -> bool {
        let Some(term) = began.get(&group) else { return false };
        let leads = || self.groups.here(group).is_some_and(|member| leads(&member.standing(), member.replica(), *term));
        if !leads() {
            return false;
        }
        self.liveness().claim(group, *term);
        // It may have voted for another between the look and the claim, and a peer's beat may have taken that for news of long ago.
        let still = leads();
        if !still {
            self.liveness().withdraw(group);
        }
        still
    }

    /// Before it asks another to lead: nothing is served from now on.
    pub fn withdraw(&self, group: PartitionId) {
        let mut began = self.began();
        began.remove(&group);
        self.liveness().withdraw(group);
        drop(began);
        self.refresh(group);
    }

    /// Who leads a group, as far as this broker hears.
    #[must_use]
    pub fn leader(&self, group: PartitionId) -> Option<(BrokerId, Term)> {
        self.liveness().leader(group)
    }

    /// Who clients are told leads a group: as others hear it, too, and nobody while there is reason to think that it has just died.
    #[must_use]
    pub fn told_leader(&self, group: PartitionId) -> Option<(BrokerId, Term)> {
        // A client whose leader has died asks at once, and may be answered before this broker has read that its own connections have ended.
        self.peers.look_for_ended();
        let now = self.now();
        self.liveness().told_leader(group, now)
    }

    /// Whether a broker is heard, here or by one that tells of it.
    #[must_use]
    pub fn is_heard_of(&self, broker: BrokerId) -> bool {
        let now = self.now();
        self.liveness().is_heard_of(broker, now)
    }

    /// Whether this broker may serve reads of a group that it leads.
    #[must_use]
    pub fn has_lease(&self, group: PartitionId) -> bool {
        let now = self.now();
        self.liveness().has_lease(group, now)
    }

    /// A peer's beat has come.
    #[must_use]
    pub fn heard(&self, from: BrokerId, beat: Beat) -> Option<Ack> {
        let stands = |group| {
            let standing = self.groups.here(group)?.standing();
            standing.alive.then_some((standing.term, standing.voted_for.broker))
        };
        let now = self.now();
        self.liveness().heard(from, beat, now, stands)
    }

    /// Sends beats, and stands for elections, until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut beats = JoinSet::new();
        let (mut next_beat, mut count, mut heard) = (Instant::now(), 0u32, BTreeMap::new());
        let mut last_beat = next_beat;
        loop {
            if Instant::now() >= next_beat {
                last_beat = Instant::now();
                next_beat = last_beat + BEAT_EVERY;
                self.check_claims(count);
                self.refresh_all();
                if count.is_multiple_of(LAG_EVERY) {
                    self.look_behind();
                }
                self.say_who_is_heard(&mut heard);
                count = count.wrapping_add(1);
                while beats.try_join_next().is_some() {}
                for peer in self.liveness().peers().collect::<Vec<_>>() {
                    beats.spawn(Arc::clone(&self).beat(peer));
                }
            }
            let (due, has_orphans) = self.due();
            for due in due {
                self.act(due);
            }
            let wake = if has_orphans { next_beat.min(Instant::now() + ORPHANS_EVERY) } else { next_beat };
            let suspects_at = self.liveness().suspects_at().map(|at| self.born + at);
            let wake = suspects_at.map_or(wake, |at| wake.min(at));
            tokio::select! {
                biased;
                () = self.news.notified() => next_beat = next_beat.min(last_beat + BEAT_AGAIN_AFTER),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Sees who is behind in groups with other voters, to tell the others.
    fn look_behind(&self) {
        let led = self.liveness().claimed_of(false, 1, 0);
        let members: Vec<_> =
            led.into_iter().filter_map(|(group, _)| Some((group, self.groups.here(group)?))).collect();
        let behind = {
            let mut lag = self.lag.lock().expect("no panic under the lag's lock");
            lag.look(members.iter().map(|(group, member)| (*group, &**member)));
            lag.behind()
        };
        self.liveness().set_behind(behind);
    }

    /// The brokers that are behind in groups that are led here: in how many, and how many entries they lack of the one of which they lack most.
    #[must_use]
    pub fn lag(&self) -> BTreeMap<BrokerId, (usize, u64)> {
        self.lag.lock().expect("no panic under the lag's lock").by_broker()
    }

    /// How often another broker was not heard for too long, and how often this one stood for election.
    #[must_use]
    pub fn counted(&self) -> (u64, u64) {
        (self.suspicions.load(Ordering::Relaxed), self.elections.load(Ordering::Relaxed))
    }

    /// Voters' brokers that lack something of what their leader had a moment ago, as it says.
    #[must_use]
    pub fn behind(&self, group: PartitionId) -> Vec<BrokerId> {
        self.liveness().behind(group)
    }

    fn due(&self) -> (Vec<Due>, bool) {
        let now = self.now();
        let mut random = self.random.lock().expect("no panic while drawing");
        let mut liveness = self.liveness();
        let due = liveness.due(now, &mut |below| random.random_range(0..below));
        (due, liveness.has_orphans())
    }

    /// Waits for nobody: a core that is stuck must not keep beats from being sent.
    fn act(&self, due: Due) {
        let (Due::Elect(group) | Due::Heartbeat(group)) = due;
        let Some(member) = self.groups.here(group) else { return };
        match due {
            Due::Elect(_) if self.flaws.has(Flaw::LeaderOnRecord) && member.standing().elected => {}
            Due::Elect(_) => {
                self.elections.fetch_add(1, Ordering::Relaxed);
                let over = self.over(group, &*member);
                drop(tokio::spawn(async move { member.elect(over).await }));
            }
            Due::Heartbeat(_) => drop(tokio::spawn(async move { member.heartbeat().await })),
        }
    }

    /// A claim says that its replica works and leads. Whoever has begun a term and leads in it by now claims its group.
    fn check_claims(&self, count: u32) {
        let alone = (count / CLAIM_TURNS).is_multiple_of(ALONE_EVERY);
        let claimed = self.liveness().claimed_of(alone, CLAIM_TURNS, count % CLAIM_TURNS);
        for (group, term) in claimed {
            let stands = |member: Arc<dyn Member>| leads(&member.standing(), member.replica(), term);
            if !self.groups.here(group).is_some_and(stands) {
                self.liveness().withdraw(group);
            }
        }
        let mut began = self.began();
        let unclaimed: Vec<PartitionId> = {
            let liveness = self.liveness();
            began.keys().filter(|group| !liveness.claims(**group)).copied().collect()
        };
        let (mut claimed, mut over) = (Vec::new(), BTreeSet::new());
        for group in unclaimed {
            if self.claim(&began, group) {
                claimed.push(group);
            } else if self.cannot_lead(group, began[&group]) {
                over.insert(group);
            }
        }
        began.retain(|group, _| !over.contains(group));
        drop(began);
        claimed.into_iter().for_each(|group| self.refresh(group));
    }

    /// Whether the replica here does not lead its group in a term, and never will.
    fn cannot_lead(&self, group: PartitionId, term: Term) -> bool {
        self.groups.here(group).is_some_and(|member| {
            let standing = member.standing();
            let another = standing.elected && standing.voted_for != member.replica();
            standing.term > term || (standing.term == term && another)
        })
    }

    /// Sends a peer that can be reached again what its replicas lack, of the groups that are led here.
    fn reach(&self, peer: BrokerId, reached: Reached) {
        let mut groups: BTreeSet<PartitionId> = reached.opened.into_iter().collect();
        if reached.is_back {
            let led = self.liveness().claimed_of(false, 1, 0);
            let lacks = |group: &PartitionId| self.groups.here(*group).is_some_and(|member| member.lacks(peer));
            groups.extend(led.into_iter().map(|(group, _)| group).filter(lacks));
        }
        groups.into_iter().for_each(|group| self.act(Due::Heartbeat(group)));
    }

    async fn beat(self: Arc<Self>, to: BrokerId) {
        let Some(link) = self.peers.link(to) else { return };
        let beat = {
            let now = self.now();
            self.liveness().beat(to, now)
        };
        let mut client = link.liveness();
        let call = client.beat(link.request(wire::put_beat(self.me, beat)));
        // An answer that comes later than this gives no lease.
        match timeout(LEASE, call).await {
            Ok(Ok(reply)) => match wire::ack(&reply.into_inner()) {
                Ok(ack) => {
                    let now = self.now();
                    let reached = self.liveness().acked(to, ack, now);
                    self.reach(to, reached);
                    // A leader that has just been elected serves from here on.
                    let pending = self.served().pending.clone();
                    pending.into_iter().for_each(|group| self.refresh(group));
                }
                Err(error) => tracing::warn!(peer = to.0, %error, "an answer to a beat"),
            },
            Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => self.say_stranger(to, &status),
            Ok(Err(status)) => tracing::debug!(peer = to.0, %status, "a beat was not answered"),
            Err(_) => {}
        }
    }
}

fn leads(standing: &Standing, me: ReplicaId, term: Term) -> bool {
    standing.alive && standing.elected && standing.voted_for == me && standing.term == term
}

/// The brokers of replicas.
fn brokers(voters: &[BTreeSet<ReplicaId>]) -> Vec<BTreeSet<BrokerId>> {
    voters.iter().map(|set| set.iter().map(|replica| replica.broker).collect()).collect()
}
