//! Sees to it that groups have the members, and the leader, that the controller wants them to have: each group's leader does, for its own.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Inner, stopped};
use crate::ids::{BrokerId, PartitionId, ReplicaId};
use crate::machine::Machine;
use crate::machine::controller::Controller;
use crate::machine::controller::brokers::FOUNDER;
use crate::raft::group::Members;
use crate::raft::{Group, Node, ProposeError};
use crate::replica::Replica;

/// How often it is looked, besides whenever the controller has decided something.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon it is looked again while members are on their way.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// A step that takes longer is given up, and taken again later: its group has lost its majority meanwhile, or its disk is stuck.
const STEP_PATIENCE: Duration = Duration::from_secs(5);
/// A voter of the controller's group that was not heard for so long is replaced, if another broker can take its place.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// A learner becomes a voter when it is at most so many entries behind.
const BEHIND_MAX: u64 = 64;

/// A broker leads its preferred partitions again when it was heard for so long.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Leaderships that one broker gives back in one look: clients of a few at a time have to find the other one.
const RETURNS_MAX: usize = 8;
/// Groups that are worked on at the same time.
const AT_ONCE: usize = 64;
/// How long a stop waits until somebody else leads what this broker led.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(2);
/// How often it looks.
const HAND_OVER_LOOK: Duration = Duration::from_millis(10);

/// Runs until `stop` turns true.
pub(super) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let mut decided = inner.controller.decided();
    let (mut silent, mut steady) = (BTreeMap::new(), BTreeMap::new());
    loop {
        inner.meet_all();
        inner.raise_internal().await;
        let moved = inner.settle_controller(&mut silent).await | inner.settle_partitions().await;
        inner.give_back(&mut steady).await;
        let pause = if moved { LOOK_AGAIN_AFTER } else { LOOK_EVERY };
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            changed = decided.changed() => if changed.is_err() { return },
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

/// Chooses the voters of the controller's group: those that are it already, unless they are lost and others can take their place.
fn choose(all: &BTreeSet<ReplicaId>, present: &BTreeSet<ReplicaId>, lost: &BTreeSet<BrokerId>) -> BTreeSet<ReplicaId> {
    let mut by_merit: Vec<ReplicaId> = all.iter().copied().collect();
    by_merit.sort_by_key(|replica| (lost.contains(&replica.broker), !present.contains(replica), *replica));
    by_merit.into_iter().take(voters_of(all.len())).collect()
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

    /// Whether something is on its way.
    async fn settle_controller(&self, silent: &mut BTreeMap<BrokerId, Instant>) -> bool {
        let Some(node) = &self.among else { return false };
        if !self.controller.leads() {
            silent.clear();
            return false;
        }
        let all: BTreeSet<ReplicaId> = self.controller.read(|controller| {
            let replica = |(broker, state): (BrokerId, &crate::machine::controller::Broker)| {
                state.controller.unwrap_or(ReplicaId { broker, incarnation: FOUNDER })
            };
            controller.brokers().map(replica).collect()
        });
        silent.retain(|broker, _| !node.is_alive(*broker));
        for replica in &all {
            if !node.is_alive(replica.broker) {
                silent.entry(replica.broker).or_insert_with(Instant::now);
            }
        }
        let lost = silent.iter().filter(|(_, since)| since.elapsed() > LOST_AFTER).map(|(broker, _)| *broker).collect();
        let group = self.controller.group();
        self.nudge(group).await;
        let present: BTreeSet<ReplicaId> = group.members().voters.into_iter().flatten().collect();
        !settle(group, &choose(&all, &present, &lost), &all).await
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

    /// Whether something is on its way.
    async fn settle_partitions(&self) -> bool {
        let led = self.replicas.open().into_iter().filter(|replica| replica.term().is_some());
        let settling = futures::stream::iter(led).map(|replica| self.settle_partition(replica));
        settling.buffer_unordered(AT_ONCE).fold(false, |any, moves| std::future::ready(any | moves)).await
    }

    async fn settle_partition(&self, replica: Arc<Replica>) -> bool {
        let id = replica.id();
        let (wanted, is_moving) = self.controller.read(|controller| {
            let wanted: BTreeSet<ReplicaId> = controller.replicas(id).unwrap_or_default().iter().copied().collect();
            (wanted, controller.moving(id).is_some())
        });
        if wanted.is_empty() {
            return false;
        }
        self.nudge(replica.group()).await;
        if !settle(replica.group(), &wanted, &wanted).await {
            return true;
        }
        if is_moving {
            let settled = |controller: &Controller| Ok::<_, Infallible>((controller.decide_settled(id, &wanted), ()));
            if let Err(error) = self.controller.change(settled).await {
                tracing::debug!(partition = %id, %error, "that a partition has its replicas could not be told; it is tried again");
            }
        }
        false
    }
}

/// Has another replica lead, if one can; whether it was asked to. Nothing is served here from then on.
async fn hand_over<M: Machine>(node: &Node, group: &Group<M>, to: Option<ReplicaId>) -> bool {
    let members = group.members();
    let [voters] = members.voters.as_slice() else { return false };
    let fits = |replica: &ReplicaId| {
        *replica != group.me() && node.is_alive(replica.broker) && members.is_caught_up(*replica, BEHIND_MAX)
    };
    let able: Vec<ReplicaId> = voters.iter().copied().filter(fits).collect();
    let spread = usize::try_from(group.id().partition.0).unwrap_or(0);
    let to = match to {
        Some(to) => able.contains(&to).then_some(to),
        None => able.get(spread % able.len().max(1)).copied(),
    };
    let Some(to) = to else { return false };
    // The others would not elect anybody while this broker claims the group.
    node.withdraw(group.id());
    group.transfer(to).await;
    true
}

impl Inner {
    /// Gives leaderships back to the replicas that are to have them, a few at a time, when their brokers have been there for a while.
    async fn give_back(&self, steady: &mut BTreeMap<BrokerId, Instant>) {
        let Some(node) = &self.among else { return };
        let brokers: Vec<BrokerId> =
            self.controller.read(|controller| controller.brokers().map(|(id, _)| id).collect());
        steady.retain(|broker, _| node.is_alive(*broker));
        for broker in brokers.into_iter().filter(|broker| node.is_alive(*broker)) {
            steady.entry(broker).or_insert_with(Instant::now);
        }
        let mut returned = 0;
        for replica in self.replicas.open() {
            if returned == RETURNS_MAX {
                return;
            }
            if replica.term().is_none() {
                continue;
            }
            let preferred = self.controller.read(|controller| controller.replicas(replica.id())?.first().copied());
            let Some(preferred) = preferred.filter(|preferred| *preferred != replica.group().me()) else { continue };
            let is_steady = steady.get(&preferred.broker).is_some_and(|since| since.elapsed() > STEADY_AFTER);
            if is_steady && hand_over(node, replica.group(), Some(preferred)).await {
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

/// One step towards a group with these voters, of all these members. Whether it is so already.
async fn settle<M: Machine>(group: &Group<M>, voters: &BTreeSet<ReplicaId>, all: &BTreeSet<ReplicaId>) -> bool {
    let members = group.members();
    let is_settled = members.voters.len() == 1 && members.voters[0] == *voters;
    let present: BTreeSet<ReplicaId> = members.voters.iter().flatten().chain(&members.learners).copied().collect();
    if is_settled && present == *all {
        return true;
    }
    match tokio::time::timeout(STEP_PATIENCE, step(group, &members, voters, all)).await {
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
    group: &Group<M>,
    members: &Members,
    voters: &BTreeSet<ReplicaId>,
    all: &BTreeSet<ReplicaId>,
) -> Result<(), ProposeError> {
    let present: BTreeSet<ReplicaId> = members.voters.iter().flatten().chain(&members.learners).copied().collect();
    for replica in all.difference(&present) {
        tracing::info!(partition = %group.id(), %replica, "adding a replica");
        group.add_learner(*replica).await?;
    }
    if members.voters.len() != 1 || members.voters[0] != *voters {
        let is_ready = |replica: &ReplicaId| {
            members.voters.iter().any(|set| set.contains(replica)) || members.is_caught_up(*replica, BEHIND_MAX)
        };
        if voters.iter().all(is_ready) {
            let names: Vec<String> = voters.iter().map(ToString::to_string).collect();
            tracing::info!(partition = %group.id(), voters = names.join(" "), "changing the voters");
            group.change_voters(voters.clone()).await?;
        }
        return Ok(());
    }
    let surplus: BTreeSet<ReplicaId> = members.learners.difference(all).copied().collect();
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
        choose(&replicas(all), &replicas(present), &lost).into_iter().map(|replica| replica.broker.0).collect()
    }

    #[test]
    fn the_controllers_voters_stay_until_they_are_lost() {
        assert_eq!(chosen(&[1], &[1], &[]), [1]);
        assert_eq!(chosen(&[1, 2], &[1], &[]), [1]);
        assert_eq!(chosen(&[1, 2, 3, 4], &[2, 3, 4], &[]), [2, 3, 4]);
        assert_eq!(chosen(&[1, 2, 3, 4], &[2, 3, 4], &[3]), [1, 2, 4]);
        assert_eq!(chosen(&[1, 2, 3], &[1, 2, 3], &[3]), [1, 2, 3], "nobody can take its place");
        assert_eq!(chosen(&[1, 2, 3, 4, 5, 6], &[1, 2, 3], &[]).len(), 5);
    }
}
