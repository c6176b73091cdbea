//! Sees to it that groups have the members, and the leader, that the controller wants them to have: each group's leader does, for its own.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Inner, stopped};
use crate::ids::{BrokerId, PartitionId, RaftIndex, ReplicaId};
use crate::machine::Machine;
use crate::machine::controller::Controller;
use crate::machine::controller::brokers::FOUNDER;
use crate::raft::group::Members;
use crate::raft::{Group, Node, ProposeError};
use crate::replica::Replica;
use crate::replica::election::{AT_ONCE, BEHIND_MAX, hand_over};

/// How often it is looked, besides whenever the controller has decided something.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon it is looked again while members are on their way.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// A step that takes longer is given up, and taken again later: its group has lost its majority meanwhile, or its disk is stuck.
const STEP_PATIENCE: Duration = Duration::from_secs(5);
/// A voter of the controller's group that was not heard for so long is replaced, if another broker can take its place.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(30);
/// A broker leads its preferred partitions again, and gets replicas of others, when it was heard for so long.
pub(super) const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Leaderships that one broker gives back in one look: clients of a few at a time have to find the other one.
const RETURNS_MAX: usize = 8;
/// How long a stop waits until somebody else leads what this broker led.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(2);
/// How often it looks.
const HAND_OVER_LOOK: Duration = Duration::from_millis(10);

/// Runs until `stop` turns true.
pub(super) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let mut decided = inner.controller.decided();
    let mut attendance = Attendance::default();
    loop {
        inner.meet_all();
        inner.take_attendance(&mut attendance);
        inner.raise_internal().await;
        inner.relocate(&mut attendance).await;
        let moved = inner.settle_controller(&attendance).await | inner.settle_partitions().await;
        inner.give_back(&attendance).await;
        let pause = if moved { LOOK_AGAIN_AFTER } else { LOOK_EVERY };
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            changed = decided.changed() => if changed.is_err() { return },
            () = inner.took_over.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// How many voters the controller's group has among so many brokers: with an even number, one more would bear no more losses, only add one that must not
/// be lost. The other brokers have its state all the same.
const fn voters_of(brokers: usize) -> usize {
    match brokers {
        0 => 0,
        1 | 2 => 1,
        3 | 4 => 3,
        _ => 5,
    }
}

/// Chooses the voters of the controller's group among the replicas on brokers that are to stay: those that are it already, `me` who leads first, unless they are
/// lost and others can take their place.
fn choose(
    staying: &BTreeSet<ReplicaId>,
    present: &BTreeSet<ReplicaId>,
    lost: &BTreeSet<BrokerId>,
    me: ReplicaId,
) -> BTreeSet<ReplicaId> {
    let mut by_merit: Vec<ReplicaId> = staying.iter().copied().collect();
    by_merit.sort_by_key(|it| (lost.contains(&it.broker), !present.contains(it), *it != me, *it));
    by_merit.into_iter().take(voters_of(staying.len())).collect()
}

/// Since when brokers are heard, or are not.
#[derive(Default)]
pub(super) struct Attendance {
    heard: BTreeMap<BrokerId, Instant>,
    silent: BTreeMap<BrokerId, Instant>,
    /// When moves were last looked for.
    pub(super) relocated: Option<Instant>,
}

impl Attendance {
    /// Whether a broker was heard for so long that it is not about to go again.
    pub(super) fn is_steady(&self, broker: BrokerId) -> bool {
        self.heard.get(&broker).is_some_and(|since| since.elapsed() > STEADY_AFTER)
    }

    /// Those that were heard for so long.
    pub(super) fn steady(&self) -> BTreeSet<BrokerId> {
        self.heard.keys().copied().filter(|broker| self.is_steady(*broker)).collect()
    }

    /// Those that were silent for so long that others take their place.
    pub(super) fn lost(&self) -> BTreeSet<BrokerId> {
        self.silent.iter().filter(|(_, since)| since.elapsed() > LOST_AFTER).map(|(broker, _)| *broker).collect()
    }
}

/// What a partition is to have, as the controller says it.
#[derive(Clone, PartialEq, Eq)]
struct Wish {
    replicas: Vec<ReplicaId>,
    /// Of a partition that is moving: since which entry.
    since: Option<RaftIndex>,
}

impl Inner {
    /// Gives internal topics that were made when there were fewer brokers the replicas that they are to have.
    async fn raise_internal(&self) {
        let Some(node) = self.among.as_ref().filter(|_| self.controller.leads()) else { return };
        let is_alive = |broker| broker == self.broker || node.is_alive(broker);
        let raise = |controller: &Controller| Ok::<_, Infallible>((controller.decide_raise_internal(is_alive), ()));
        if !self.controller.read(|controller| controller.decide_raise_internal(is_alive)).is_empty()
            && let Err(error) = self.controller.change(raise).await
        {
            tracing::debug!(%error, "internal topics could not be given more replicas; it is tried again");
        }
    }

    /// Sees who is there.
    fn take_attendance(&self, attendance: &mut Attendance) {
        let Some(node) = &self.among else { return };
        let brokers: BTreeSet<BrokerId> =
            self.controller.read(|controller| controller.brokers().map(|(id, _)| id).collect());
        let (heard, silent): (BTreeSet<_>, BTreeSet<_>) =
            brokers.into_iter().partition(|broker| *broker == self.broker || node.is_alive(*broker));
        for (since, now) in [(&mut attendance.heard, heard), (&mut attendance.silent, silent)] {
            since.retain(|broker, _| now.contains(broker));
            now.into_iter().for_each(|broker| {
                since.entry(broker).or_insert_with(Instant::now);
            });
        }
        let now = Instant::now();
        for (broker, since) in &mut attendance.heard {
            // It may have gone and come again between two looks.
            if let Some(steady_since) = node.heard_for(*broker).and_then(|time| now.checked_sub(time)) {
                *since = steady_since.max(*since);
            }
        }
    }

    /// Whether something is on its way.
    async fn settle_controller(&self, attendance: &Attendance) -> bool {
        let Some(node) = self.among.as_ref().filter(|_| self.controller.leads()) else { return false };
        let (all, staying) = self.controller.read(|controller| {
            let replica = |(broker, state): (BrokerId, &crate::machine::controller::Broker)| {
                state.controller.unwrap_or(ReplicaId { broker, incarnation: FOUNDER })
            };
            let known = controller.brokers().filter(|(broker, _)| !controller.is_lost(*broker));
            let all: BTreeSet<ReplicaId> = known.map(replica).collect();
            let staying = all.iter().copied().filter(|replica| !controller.is_draining(replica.broker));
            (all.clone(), staying.collect::<BTreeSet<ReplicaId>>())
        });
        let group = self.controller.group();
        self.nudge(group).await;
        let members = group.members();
        let present: BTreeSet<ReplicaId> = members.voters.iter().flatten().copied().collect();
        let voters = choose(&staying, &present, &attendance.lost(), group.me());
        !settle(node, group, &members, &Goal { voters: &voters, all: &all, preferred: None }).await
    }

    /// A member that missed the last entry of a group that rests since, or what of it is committed, would not hear of it before the next one.
    async fn nudge<M: Machine>(&self, group: &Group<M>) {
        let is_heard = |broker| self.among.as_ref().is_some_and(|node| node.is_alive(broker));
        let members = group.members();
        let mut all = members.voters.iter().flatten().chain(&members.learners);
        if all.any(|replica| is_heard(replica.broker) && !members.is_caught_up(*replica, 0)) {
            group.heartbeat().await;
        }
    }

    /// What a partition is to have; nothing for one that is no more.
    fn wish(&self, id: PartitionId) -> Option<Wish> {
        self.controller.read(|controller| {
            let replicas = controller.replicas(id)?.to_vec();
            Some(Wish { replicas, since: controller.moving(id).map(|moving| moving.since) })
        })
    }

    /// Whether something is on its way.
    async fn settle_partitions(&self) -> bool {
        let Some(node) = &self.among else { return false };
        let led: Vec<_> = self.replicas.open().into_iter().filter(|replica| replica.term().is_some()).collect();
        let mut open = Vec::new();
        for replica in led {
            self.nudge(replica.group()).await;
            let members = replica.group().members();
            let is_settled = |wish: &Wish| {
                let wanted: BTreeSet<ReplicaId> = wish.replicas.iter().copied().collect();
                wish.since.is_none() && Goal { voters: &wanted, all: &wanted, preferred: None }.is_met(&members)
            };
            if self.wish(replica.id()).is_some_and(|wish| !is_settled(&wish)) {
                // How they are was seen before what is wanted: what has changed meanwhile is noticed when they are changed.
                open.push((replica, members));
            }
        }
        // Whoever lags behind the controller would make groups what they are not to be any more.
        if open.is_empty() || !self.controller.catch_up().await {
            return !open.is_empty();
        }
        let settling = futures::stream::iter(open).map(|(replica, members)| async move {
            match self.wish(replica.id()) {
                Some(wish) => self.settle_partition(node, &replica, &members, &wish).await,
                None => false,
            }
        });
        settling.buffer_unordered(AT_ONCE).fold(false, |any, moves| std::future::ready(any | moves)).await
    }

    async fn settle_partition(&self, node: &Node, replica: &Replica, members: &Members, wish: &Wish) -> bool {
        let (id, group) = (replica.id(), replica.group());
        let wanted: BTreeSet<ReplicaId> = wish.replicas.iter().copied().collect();
        let preferred = wish.replicas.first().copied();
        if !settle(node, group, members, &Goal { voters: &wanted, all: &wanted, preferred }).await {
            return true;
        }
        // Brokers that are to lose their replicas remove them then: what is reported must not be undone by an election.
        if let Some(since) = wish.since.filter(|_| members.is_committed && wanted.contains(&group.me())) {
            let settled =
                |controller: &Controller| Ok::<_, Infallible>((controller.decide_settled(id, &wanted, since), ()));
            if let Err(error) = self.controller.change(settled).await {
                tracing::debug!(partition = %id, %error, "that a partition has its replicas could not be told; it is tried again");
            }
        }
        wish.since.is_some() && !members.is_committed
    }
}

impl Inner {
    /// Gives leaderships back to the replicas that are to have them, a few at a time, when their brokers have been there for a while.
    async fn give_back(&self, attendance: &Attendance) {
        let Some(node) = &self.among else { return };
        let mut returned = 0;
        for replica in self.replicas.open() {
            if returned == RETURNS_MAX {
                return;
            }
            if replica.term().is_none() {
                continue;
            }
            let preferred = self.controller.read(|controller| {
                let preferred = controller.replicas(replica.id())?.first().copied();
                preferred.filter(|preferred| !controller.is_draining(preferred.broker))
            });
            let Some(preferred) = preferred.filter(|preferred| *preferred != replica.group().me()) else { continue };
            if attendance.is_steady(preferred.broker) && hand_over(node, replica.group(), Some(preferred)).await {
                tracing::debug!(partition = %replica.id(), to = %preferred, "gave a leadership back");
                returned += 1;
            }
        }
    }

    /// Before this broker stops: has others lead what it leads, and waits until they do.
    pub(super) async fn hand_everything_over(&self) {
        let Some(node) = &self.among else { return };
        let led: Vec<_> = self.replicas.open().into_iter().filter(|replica| replica.term().is_some()).collect();
        let moving = futures::stream::iter(led)
            .map(|replica| async move { hand_over(node, replica.group(), None).await.then(|| replica.id()) });
        let mut moved: Vec<_> = moving.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
        if self.controller.leads() && hand_over(node, self.controller.group(), None).await {
            moved.push(PartitionId::CONTROLLER);
        }
        let count = moved.len();
        let deadline = Instant::now() + HAND_OVER_PATIENCE;
        while !moved.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(HAND_OVER_LOOK).await;
            moved.retain(|id| node.leader(*id).is_none());
        }
        if count > 0 {
            tracing::info!(count, without_leader = moved.len(), "handed leaderships over");
        }
    }
}

/// What a group is to be.
struct Goal<'a> {
    voters: &'a BTreeSet<ReplicaId>,
    /// The voters, and those that only learn.
    all: &'a BTreeSet<ReplicaId>,
    /// Who leads it best, of the voters.
    preferred: Option<ReplicaId>,
}

impl Goal<'_> {
    fn is_met(&self, members: &Members) -> bool {
        let present: BTreeSet<ReplicaId> = members.voters.iter().flatten().chain(&members.learners).copied().collect();
        self.has_voters(members) && present == *self.all
    }

    fn has_voters(&self, members: &Members) -> bool {
        members.voters.len() == 1 && members.voters[0] == *self.voters
    }

    /// Who of the voters that are to stay can lead now: the preferred one first.
    fn heirs(&self, node: &Node, members: &Members) -> Vec<ReplicaId> {
        let [present] = members.voters.as_slice() else { return Vec::new() };
        let fits = |replica: &&ReplicaId| {
            node.is_alive(replica.broker) && members.is_caught_up(**replica, BEHIND_MAX) && present.contains(replica)
        };
        let mut heirs: Vec<ReplicaId> = self.voters.iter().filter(fits).copied().collect();
        heirs.sort_by_key(|replica| Some(*replica) != self.preferred);
        heirs
    }
}

/// One step towards what a group is to be, from how its members were seen. Whether it is so already.
async fn settle<M: Machine>(node: &Node, group: &Group<M>, members: &Members, goal: &Goal<'_>) -> bool {
    if goal.is_met(members) && goal.voters.contains(&group.me()) {
        return true;
    }
    match tokio::time::timeout(STEP_PATIENCE, step(node, group, members, goal)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(partition = %group.id(), %error, "a group's members could not be changed; it is tried again")
        }
        Err(_) => {
            tracing::debug!(partition = %group.id(), "changing a group's members takes too long; it is tried again")
        }
    }
    false
}

async fn step<M: Machine>(
    node: &Node,
    group: &Group<M>,
    members: &Members,
    goal: &Goal<'_>,
) -> Result<(), ProposeError> {
    let present: BTreeSet<ReplicaId> = members.voters.iter().flatten().chain(&members.learners).copied().collect();
    let missing: Vec<ReplicaId> = goal.all.difference(&present).copied().collect();
    if !missing.is_empty() {
        for replica in missing {
            tracing::info!(partition = %group.id(), %replica, "adding a replica");
            group.add_learner(replica).await?;
        }
        return Ok(());
    }
    let is_ready = |replica: &ReplicaId| {
        members.voters.iter().any(|set| set.contains(replica)) || members.is_caught_up(*replica, BEHIND_MAX)
    };
    if !goal.voters.iter().all(is_ready) {
        return Ok(());
    }
    // Whoever is to go has one lead that is to stay, and that one goes on from here. If none is a voter yet, one becomes it first.
    if !goal.voters.contains(&group.me())
        && let Some(heir) = goal.heirs(node, members).first()
    {
        tracing::info!(partition = %group.id(), to = %heir, "handing over: this replica is to go");
        hand_over(node, group, Some(*heir)).await;
        return Ok(());
    }
    if !goal.has_voters(members) {
        let names: Vec<String> = goal.voters.iter().map(ToString::to_string).collect();
        tracing::info!(partition = %group.id(), voters = names.join(" "), "changing the voters");
        return group.change_voters(goal.voters.clone(), members.at).await;
    }
    let mut surplus: BTreeSet<ReplicaId> = members.learners.difference(goal.all).copied().collect();
    // Whoever leads goes when somebody else does.
    surplus.remove(&group.me());
    if surplus.is_empty() { Ok(()) } else { group.remove_learners(surplus).await }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;

    fn replicas(ids: &[i32]) -> BTreeSet<ReplicaId> {
        ids.iter().map(|id| ReplicaId { broker: BrokerId(*id), incarnation: Incarnation(1) }).collect()
    }

    fn chosen(all: &[i32], present: &[i32], lost: &[i32]) -> Vec<i32> {
        let lost = lost.iter().copied().map(BrokerId).collect();
        let me = *replicas(&[2]).first().unwrap();
        choose(&replicas(all), &replicas(present), &lost, me).into_iter().map(|replica| replica.broker.0).collect()
    }

    #[test]
    fn the_controllers_voters_stay_until_they_are_lost() {
        assert_eq!(chosen(&[1], &[1], &[]), [1]);
        assert_eq!(chosen(&[1, 2], &[1], &[]), [1]);
        assert_eq!(chosen(&[1, 2], &[1, 2, 3], &[]), [2], "whoever leads stays it");
        assert_eq!(chosen(&[1, 2, 3, 4], &[2, 3, 4], &[]), [2, 3, 4]);
        assert_eq!(chosen(&[1, 2, 3, 4], &[2, 3, 4], &[3]), [1, 2, 4]);
        assert_eq!(chosen(&[1, 2, 3], &[1, 2, 3], &[3]), [1, 2, 3], "nobody can take its place");
        assert_eq!(chosen(&[1, 2, 3, 4, 5, 6], &[1, 2, 3], &[]).len(), 5);
    }
}
