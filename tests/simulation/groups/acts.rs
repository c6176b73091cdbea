//! What happens in a run: to members, and to the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ottla::protocol::error_code::ErrorCode;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cast::{Cast, Group};
use super::member::{Kind, Member, Order, Spec, Status, offsets};
use super::{INSTANCE, MEMBERLESS, REST_TIME_MAX, Rng, SESSION, Stage, TOPIC, classic, others, partitions};
use crate::workload::{self, IdempotentProducer};
use crate::world::Fault;

/// Batches that are produced to each partition, one now and then.
const BATCHES: usize = 60;
/// Members of each group, when a run and each of its acts begins.
const MEMBERS: usize = 3;
/// How often it is looked whether something has come about.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Operations of the disk after which a fault strikes, at most: a rebalance takes so many.
const OPERATIONS_MAX: u64 = 40;
/// Operations within which the shares of a generation are handed in, roughly.
const OPERATIONS_OF_SHARING: u64 = 12;
/// How often the broker is struck in each act of churn.
const CHURN_STRIKES: [usize; 2] = [3, 2];
/// Simulated time within which a fault that was planned strikes.
const STRIKE_TIME_MAX: Duration = Duration::from_secs(3);

/// What happens to members in churn. Each act has all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Crash,
    Leave,
    /// Silent for longer than its session: it is taken for dead, and commits when it wakes up.
    Sleep,
    /// Silent, but not for so long; or back under the same id, which its coordinator still knows.
    Nap,
    /// A static member comes back at once.
    Restart,
    /// A static member comes back before it was gone.
    Double,
    /// An administrator takes a static member out.
    Kick,
    Join,
    /// The coordinators cannot commit for a while.
    Refuse,
}

const EVENTS: [Event; 9] = [
    Event::Crash,
    Event::Leave,
    Event::Sleep,
    Event::Nap,
    Event::Restart,
    Event::Double,
    Event::Kick,
    Event::Join,
    Event::Refuse,
];

/// What happens to a broker and to groups that have no reason to rebalance.
#[derive(Clone, Copy, Debug)]
enum Calm {
    Power,
    Kill,
    Stop,
    /// The coordinators cannot commit for a while.
    Refuse,
    /// A member is silent, but not for too long.
    Nap,
    /// A static member comes back.
    Restart,
    /// A static member comes back, and the broker too.
    RestartOfBoth,
}

const CALM: [Calm; 7] =
    [Calm::Power, Calm::Kill, Calm::Stop, Calm::Refuse, Calm::Nap, Calm::Restart, Calm::RestartOfBoth];

/// What a run has when it was not broken off: faults that struck, events in churn, and times that groups kept their generations.
pub const STRUCK: usize = CHURN_STRIKES[0] + CHURN_STRIKES[1] + 4;
pub const HAPPENED: usize = 2 * EVENTS.len();
pub const KEPT: usize = CALM.len();

/// How each group rests.
pub type Resting = BTreeMap<&'static str, Rest>;

/// How a group rests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The generation, or the epoch of every member.
    generation: i32,
    /// The group's own epoch, if it is of the consumer protocol.
    epoch: Option<i32>,
    /// Who has what.
    shares: Shares,
}

/// Who has what.
type Shares = BTreeMap<String, BTreeSet<i32>>;

/// An id that a member makes for itself. Those of static members begin with their instance's.
fn member_id(instance: Option<&str>, seed: u64, born: usize) -> String {
    let mut rng = Rng(seed ^ (born as u64).rotate_left(32));
    let mut hex = |digits: usize| (0..digits).map(|_| format!("{:x}", rng.below(16))).collect::<String>();
    let uuid = [8, 4, 4, 4, 12].map(&mut hex).join("-");
    instance.map_or_else(|| uuid.clone(), |instance| format!("{instance}-{uuid}"))
}

/// A violation that ends the run.
pub struct Broken(pub String);

/// See the module's documentation.
pub struct Acts {
    stage: Stage,
    seed: u64,
    cast: Cast,
    rng: Rng,
    members: Vec<Member>,
    born: usize,
}

impl Acts {
    /// The acts of one run.
    pub fn new(stage: &Stage, cast: Cast, seed: u64) -> Self {
        let rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x67_726f_7570);
        Self { stage: stage.clone(), seed, cast, rng, members: Vec::new(), born: 0 }
    }

    /// Plays them all, and notes what was wrong.
    pub async fn play(mut self) {
        workload::create_topic(&self.stage.wire, TOPIC).await;
        let (mut producers, mut others) = (JoinSet::new(), JoinSet::new());
        for partition in 0..TOPIC.partitions {
            let (name, rest) = (format!("p{partition}"), Duration::from_millis(100));
            let producer =
                IdempotentProducer { name, topic: TOPIC, partition, batches: BATCHES, value_bytes: 100, rest };
            producers.spawn(producer.run(self.stage.wire.clone()));
        }
        for group in self.groups().iter().map(|group| group.name).chain([MEMBERLESS]) {
            others.spawn(others::observe(self.stage.clone(), group));
            if !Cast::is_classic(group) {
                others.spawn(others::watch(self.stage.clone(), group));
            }
        }
        for n in 0..2 {
            others.spawn(others::commit_alone(self.stage.clone(), format!("alone-{n}"), self.rng.below(u64::MAX)));
        }
        if let Err(Broken(what)) = self.acts(&mut producers).await {
            self.stage.log.lock().wrong(what);
        }
        self.members.iter().for_each(Member::crash);
        others.shutdown().await;
        producers.join_all().await;
        workload::read_all(&self.stage.wire, TOPIC).await;
    }

    /// Every group has as many members as it begins with, and comes to rest.
    ///
    /// # Errors
    /// If one does not.
    pub async fn settle(&mut self) -> Result<Resting, Broken> {
        self.fill_up();
        self.come_to_rest().await
    }

    /// Something happens to a member, and a while passes.
    pub async fn happen_to_somebody(&mut self) {
        let events = EVENTS.len() as u64 - 1;
        // Not the last of them, which is about the coordinators.
        let event = EVENTS[usize::try_from(self.rng.below(events)).expect("small")];
        self.happen(event).await;
        tokio::time::sleep(self.rng.between(100, 700)).await;
    }

    /// Nothing that is a reason to rebalance has happened since the groups rested like that.
    ///
    /// # Errors
    /// If a group does not rest like that, or a member was fenced.
    pub async fn must_rest_as(&mut self, before: &Resting, fenced_before: usize, what: &str) -> Result<(), Broken> {
        let after = self.come_to_rest().await?;
        if after != *before {
            return Err(Broken(format!("needless-rebalance: {what}: {before:?} became {after:?}")));
        }
        let fenced = self.stage.log.lock().fenced;
        if fenced != fenced_before {
            return Err(Broken(format!("needless-rebalance: {what}: {} members were fenced", fenced - fenced_before)));
        }
        self.stage.log.lock().kept += 1;
        Ok(())
    }

    /// The members vanish.
    pub fn end(&self) {
        self.members.iter().for_each(Member::crash);
    }

    async fn acts(&mut self, producers: &mut JoinSet<()>) -> Result<(), Broken> {
        self.fill_up();
        self.come_to_rest().await?;
        self.churn(CHURN_STRIKES[0]).await?;
        let resting = self.come_to_rest().await?;
        self.quiet(&resting).await?;
        self.churn(CHURN_STRIKES[1]).await?;
        self.come_to_rest().await?;
        self.vanish();
        self.come_to_rest().await?;
        while producers.join_next().await.is_some() {}
        self.read_to_the_end().await
    }

    // ---- members ----------------------------------------------------------------------------------------------------

    const fn groups(&self) -> &'static [Group] {
        self.cast.groups()
    }

    /// A member begins, of one of the kinds that its group has.
    fn spawn(&mut self, group: &'static str, instance: Option<String>) {
        let (one, other) = self.kinds(group, instance.is_some());
        let kind = if self.born.is_multiple_of(2) { one } else { other.unwrap_or(one) };
        self.spawn_as(group, instance, kind);
    }

    fn kinds(&self, group: &'static str, is_static: bool) -> (Kind, Option<Kind>) {
        let join = if is_static { [5, 9] } else { [3, 9] }[(self.born + 1) % 2];
        let found = self.groups().iter().find(|known| known.name == group).expect("it is in the cast");
        found.speaks.kinds(Kind::Classic { join })
    }

    fn spawn_as(&mut self, group: &'static str, instance: Option<String>, kind: Kind) {
        self.born += 1;
        let spec = Spec {
            group,
            name: format!("client-{}", self.born),
            id: member_id(instance.as_deref(), self.seed, self.born),
            instance,
            kind,
            commits_every: self.rng.between(30, 150),
            thinks: self.rng.between(0, 100),
        };
        self.members.push(Member::spawn(&self.stage, spec));
    }

    fn live(&self, group: &'static str) -> impl Iterator<Item = (&Member, Status)> {
        let of_group = self.members.iter().filter(move |member| member.spec.group == group);
        of_group.map(|member| (member, member.status())).filter(|(_, status)| !status.gone)
    }

    /// Every group has as many members as it begins with, at least.
    fn fill_up(&mut self) {
        for Group { name: group, static_members, .. } in self.groups().iter().copied() {
            for n in 0..static_members {
                let instance = format!("{INSTANCE}{n}");
                if !self.live(group).any(|(member, _)| member.spec.instance.as_ref() == Some(&instance)) {
                    self.spawn(group, Some(instance));
                }
            }
            while self.live(group).count() < MEMBERS {
                self.spawn(group, None);
            }
            let (one, other) = self.kinds(group, false);
            for kind in [Some(one), other].into_iter().flatten() {
                if !self.live(group).any(|(member, _)| member.spec.kind.is_as(kind)) {
                    self.spawn_as(group, None, kind);
                }
            }
        }
    }

    /// One of the members, static or dynamic.
    fn pick(&mut self, is_static: bool) -> usize {
        let fitting = |members: &[Member]| {
            let fits = |member: &Member| member.spec.instance.is_some() == is_static && !member.status().gone;
            (0..members.len()).filter(|at| fits(&members[*at])).collect::<Vec<usize>>()
        };
        if fitting(&self.members).is_empty() {
            self.fill_up();
        }
        let fitting = fitting(&self.members);
        fitting[usize::try_from(self.rng.below(fitting.len() as u64)).expect("few")]
    }

    async fn happen(&mut self, event: Event) {
        let is_static = match event {
            Event::Restart | Event::Double | Event::Kick => true,
            Event::Leave | Event::Join | Event::Refuse => false,
            Event::Crash | Event::Sleep | Event::Nap => self.rng.below(2) == 0,
        };
        let at = self.pick(is_static);
        let Spec { group, instance, kind, .. } = self.members[at].spec.clone();
        let member = &self.members[at];
        match event {
            Event::Crash => member.crash(),
            Event::Leave => member.order(Order::Leave),
            Event::Sleep => member.order(Order::Pause(SESSION + self.rng.between(200, 800))),
            Event::Nap if kind == Kind::Consumer && self.rng.below(2) == 0 => member.order(Order::Again),
            Event::Nap => member.order(Order::Pause(self.rng.between(50, 400))),
            Event::Restart => {
                if kind != Kind::Consumer || self.rng.below(2) == 0 {
                    member.crash();
                } else {
                    member.order(Order::Away);
                }
                self.spawn(group, instance);
            }
            Event::Double => self.spawn(group, instance),
            Event::Kick => {
                // It may be lost like any request.
                let _ = classic::kick(&self.stage, group, &instance.expect("it is a static one")).await;
            }
            Event::Join => self.spawn(group, None),
            Event::Refuse => self.refuse().await,
        }
        self.stage.log.lock().happened += 1;
    }

    /// The coordinators cannot commit for a while, as on a full disk.
    async fn refuse(&mut self) {
        self.stage.front.refuse(true);
        tokio::time::sleep(self.rng.between(20, 300)).await;
        self.stage.front.refuse(false);
    }

    // ---- acts -------------------------------------------------------------------------------------------------------

    /// Everything happens, in some order, and the broker is struck so many times: when something has just happened to a member. One of those is
    /// when a member has left.
    async fn churn(&mut self, strikes: usize) -> Result<(), Broken> {
        let (mut events, mut struck) = (EVENTS, EVENTS);
        self.rng.shuffle(&mut events);
        self.rng.shuffle(&mut struck);
        struck.sort_by_key(|event| *event != Event::Leave);
        for event in events {
            self.happen(event).await;
            if struck[..strikes].contains(&event) {
                let within = self.moment_after(event).await;
                self.strike(None, within).await?;
            }
            let rest = if self.rng.below(2) == 0 { (10, 150) } else { (300, 900) };
            tokio::time::sleep(self.rng.between(rest.0, rest.1)).await;
        }
        self.fill_up();
        Ok(())
    }

    /// Waits for a moment at which a broker that is struck may forget something: when a member was told that it has left, of a generation whose
    /// shares are not handed in yet, or what it has to give up. Or for none. Within how many operations it is struck.
    async fn moment_after(&mut self, event: Event) -> u64 {
        if event != Event::Leave && self.rng.below(2) == 0 {
            return OPERATIONS_MAX;
        }
        let count = || {
            let events = self.stage.log.lock();
            match self.cast {
                _ if event == Event::Leave => events.removed.len(),
                Cast::Classic => events.joined.len(),
                Cast::Consumer => events.revoked,
            }
        };
        // It may have no such consequence.
        let (before, began) = (count(), Instant::now());
        while count() == before && began.elapsed() < SESSION {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        OPERATIONS_OF_SHARING
    }

    /// Strikes the broker at one of its next operations, and waits until it is struck.
    async fn strike(&mut self, how: Option<Calm>, within: u64) -> Result<(), Broken> {
        let world = self.stage.world.clone().expect("there is one broker");
        let at = world.disk().ops() + 1 + self.rng.below(within);
        let any = [Calm::Power, Calm::Kill, Calm::Stop][usize::try_from(self.rng.below(3)).expect("small")];
        let fault = match how.unwrap_or(any) {
            Calm::Kill => Fault::Kill(at),
            Calm::Stop => Fault::Stop(at),
            _ => Fault::Power(at),
        };
        let (before, began) = (world.struck(), Instant::now());
        world.strike(fault);
        while world.struck() == before {
            if began.elapsed() > STRIKE_TIME_MAX {
                return Err(Broken(format!("{fault:?} was never reached")));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Nothing happens that is a reason to rebalance.
    async fn quiet(&mut self, before: &Resting) -> Result<(), Broken> {
        let mut events = CALM;
        self.rng.shuffle(&mut events);
        for calm in events {
            let fenced = self.stage.log.lock().fenced;
            match calm {
                Calm::Power | Calm::Kill | Calm::Stop => self.strike(Some(calm), OPERATIONS_MAX).await?,
                Calm::Refuse => self.refuse().await,
                Calm::Nap => {
                    let (is_static, time) = (self.rng.below(2) == 0, self.rng.between(50, 400));
                    let at = self.pick(is_static);
                    self.members[at].order(Order::Pause(time));
                }
                Calm::Restart | Calm::RestartOfBoth => {
                    let at = self.pick(true);
                    let Spec { group, instance, kind, .. } = self.members[at].spec.clone();
                    self.go_away(at).await;
                    tokio::time::sleep(self.rng.between(1, 200)).await;
                    let (one, other) = self.kinds(group, true);
                    let kind = other.filter(|other| other.is_as(kind)).unwrap_or(one);
                    self.spawn_as(group, instance, kind);
                    if let Calm::RestartOfBoth = calm {
                        self.strike(None, OPERATIONS_MAX).await?;
                    }
                }
            }
            self.must_rest_as(before, fenced, &format!("{calm:?}")).await?;
        }
        for group in self.groups().iter().map(|group| group.name) {
            let code = others::intrude(&self.stage, group).await;
            if code != ErrorCode::UNKNOWN_MEMBER_ID {
                return Err(Broken(format!(
                    "zombie-commit: group {group} told {code:?} to a client that is no member"
                )));
            }
        }
        Ok(())
    }

    /// One member of each group vanishes, and nobody comes who would make the others rebalance: they take over what it had all the same.
    fn vanish(&mut self) {
        for group in self.groups().iter().map(|group| group.name) {
            let drawn = self.rng.below(u64::MAX);
            let live: Vec<&Member> = self.live(group).map(|(member, _)| member).collect();
            live[usize::try_from(drawn % live.len() as u64).expect("few")].crash();
        }
    }

    /// A static member goes away, and will be back: so that its place is kept. Of the classic protocol, it says nothing.
    async fn go_away(&self, at: usize) {
        let member = &self.members[at];
        if member.spec.kind != Kind::Consumer {
            return member.crash();
        }
        member.order(Order::Away);
        while !member.status().gone {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until every group is stable, all its live members share all partitions, and each has committed since.
    async fn come_to_rest(&mut self) -> Result<Resting, Broken> {
        let began = Instant::now();
        let acked: Vec<u64> = self.members.iter().map(|member| member.status().acked).collect();
        let mut all = Resting::new();
        for group in self.groups().iter().map(|group| group.name) {
            let rest = loop {
                let why_not = match self.resting(group, &acked) {
                    Ok((generation, members)) => {
                        let described = others::describe(&self.stage, group).await;
                        let is_told = |(member, share): (&String, &BTreeSet<i32>)| {
                            described.shares.get(member).is_none_or(|told| *told == (generation, share.clone()))
                        };
                        let is_same = described.members.iter().eq(members.keys()) && members.iter().all(is_told);
                        if described.state == "Stable" && is_same {
                            let events = self.stage.log.lock();
                            let whose = |member: &String| events.whose(member).to_owned();
                            let shares = members.iter().map(|(member, share)| (whose(member), share.clone()));
                            break Rest { generation, epoch: described.epoch, shares: shares.collect() };
                        }
                        format!("described as {described:?}")
                    }
                    Err(why_not) => why_not,
                };
                if began.elapsed() > REST_TIME_MAX {
                    let members: Vec<_> =
                        self.live(group).map(|(member, status)| (&member.spec.name, status)).collect();
                    let time = REST_TIME_MAX.as_secs();
                    return Err(Broken(format!("stuck-group: {group} after {time} s: {why_not}: {members:?}")));
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            };
            all.insert(group, rest);
        }
        Ok(all)
    }

    /// The generation in which a group rests, and what each of its members has; or why it does not.
    fn resting(&self, group: &'static str, acked: &[u64]) -> Result<(i32, Shares), String> {
        let (mut owned, mut generations, mut members) = (Vec::new(), BTreeSet::new(), Shares::new());
        for (at, member) in self.members.iter().enumerate().filter(|(_, member)| member.spec.group == group) {
            let status = member.status();
            if status.gone {
                continue;
            }
            if !member.has_obeyed() {
                return Err(format!("{} has still something to do", member.spec.name));
            }
            let Some(share) = &status.owned else { return Err(format!("{} has no share", member.spec.name)) };
            if !share.is_empty() && acked.get(at).is_some_and(|before| status.acked <= *before) {
                return Err(format!("{} does not commit", member.spec.name));
            }
            generations.insert(status.generation);
            owned.extend(share.iter().copied());
            members.insert(status.member.clone(), share.clone());
        }
        owned.sort_unstable();
        if !owned.iter().eq(&partitions()) || generations.len() != 1 {
            return Err(format!("{owned:?} have owners, in generations {generations:?}"));
        }
        Ok((generations.into_iter().next().expect("one"), members))
    }

    /// Everything was produced: the groups must come to the end of it.
    async fn read_to_the_end(&mut self) -> Result<(), Broken> {
        let mut ends = BTreeMap::new();
        for partition in 0..TOPIC.partitions {
            ends.insert(partition, Some(workload::latest(&self.stage.wire, TOPIC, partition).await));
        }
        let began = Instant::now();
        for group in self.groups().iter().map(|group| group.name) {
            let mut line = super::line::Line::new(&self.stage, "observer", group);
            loop {
                let found = offsets(&self.stage, &mut line, group, &partitions()).await;
                if found.as_ref().is_ok_and(|found| *found == ends) {
                    break;
                }
                if began.elapsed() > REST_TIME_MAX {
                    return Err(Broken(format!("stuck-group: {group} is at {found:?} of {ends:?}")));
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }
}
