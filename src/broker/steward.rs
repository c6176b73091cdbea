//! Sees to it that groups have the members that the controller wants them to have: each group's leader does, for its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Inner, stopped};
use crate::ids::{BrokerId, ReplicaId};
use crate::machine::Machine;
use crate::machine::controller::brokers::FOUNDER;
use crate::raft::Group;

/// How often it is looked, besides whenever the controller has decided something.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A voter of the controller's group that was not heard for so long is replaced, if another broker can take its place.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// A learner becomes a voter when it is at most so many entries behind.
const BEHIND_MAX: u64 = 64;

/// Runs until `stop` turns true.
pub(super) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let mut decided = inner.controller.decided();
    let mut silent = BTreeMap::new();
    loop {
        inner.meet_all();
        inner.settle_controller(&mut silent).await;
        inner.settle_partitions().await;
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            changed = decided.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// How many voters the controller's group has among so many brokers: with an even number, one more would bear no more losses.
const fn voters_of(brokers: usize) -> usize {
    match brokers {
        0..=2 => brokers,
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
    async fn settle_controller(&self, silent: &mut BTreeMap<BrokerId, Instant>) {
        let Some(node) = &self.among else { return };
        if !self.controller.leads() {
            silent.clear();
            return;
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
        let present: BTreeSet<ReplicaId> = group.members().voters.into_iter().flatten().collect();
        settle(group, &choose(&all, &present, &lost), &all).await;
    }

    async fn settle_partitions(&self) {
        for replica in self.replicas.open() {
            if replica.term_to_propose().is_none() {
                continue;
            }
            let wanted: BTreeSet<ReplicaId> = self
                .controller
                .read(|controller| controller.replicas(replica.id()).unwrap_or_default().iter().copied().collect());
            if !wanted.is_empty() {
                settle(replica.group(), &wanted, &wanted).await;
            }
        }
    }
}

/// One step towards a group with these voters, of all these members.
async fn settle<M: Machine>(group: &Group<M>, voters: &BTreeSet<ReplicaId>, all: &BTreeSet<ReplicaId>) {
    let members = group.members();
    let is_settled = members.voters.len() == 1 && members.voters[0] == *voters;
    let present: BTreeSet<ReplicaId> = members.voters.iter().flatten().chain(&members.learners).copied().collect();
    if is_settled && present == *all {
        return;
    }
    let id = group.id();
    for replica in all.difference(&present) {
        tracing::info!(partition = %id, %replica, "adding a replica");
        if let Err(error) = group.add_learner(*replica).await {
            tracing::debug!(partition = %id, %replica, %error, "a replica could not be added; it is tried again");
            return;
        }
    }
    let is_ready = |replica: &ReplicaId| {
        members.voters.iter().any(|set| set.contains(replica)) || members.is_caught_up(*replica, BEHIND_MAX)
    };
    if !is_settled {
        if voters.iter().all(is_ready) {
            tracing::info!(partition = %id, ?voters, "changing the voters");
            if let Err(error) = group.change_voters(voters.clone()).await {
                tracing::debug!(partition = %id, %error, "the voters could not be changed; it is tried again");
            }
        }
        return;
    }
    let surplus: BTreeSet<ReplicaId> = members.learners.difference(all).copied().collect();
    if !surplus.is_empty()
        && let Err(error) = group.remove_learners(surplus).await
    {
        tracing::debug!(partition = %id, %error, "replicas could not be removed; it is tried again");
    }
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
        assert_eq!(chosen(&[1, 2], &[1], &[]), [1, 2]);
        assert_eq!(chosen(&[1, 2, 3, 4], &[2, 3, 4], &[]), [2, 3, 4]);
        assert_eq!(chosen(&[1, 2, 3, 4], &[2, 3, 4], &[3]), [1, 2, 4]);
        assert_eq!(chosen(&[1, 2, 3], &[1, 2, 3], &[3]), [1, 2, 3], "nobody can take its place");
        assert_eq!(chosen(&[1, 2, 3, 4, 5, 6], &[1, 2, 3], &[]).len(), 5);
    }
}
