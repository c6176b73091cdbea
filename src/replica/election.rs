//! Who leads next: leaderships that are handed over on purpose.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::Instant;

use super::controller::ControllerHandle;
use super::{Replica, ReplicaSet};
pub use crate::cluster::Elected;
use crate::cluster::calls;
use crate::ids::{BrokerId, PartitionId, ReplicaId};
use crate::machine::Machine;
use crate::raft::{Group, Node};

/// A replica can take over, or vote, when it is at most so many entries behind.
pub const BEHIND_MAX: u64 = 64;
/// Groups that are worked on at the same time.
pub const AT_ONCE: usize = 64;
/// How long it is waited until the one that is to lead has caught up, and then until it leads.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often it is tried while the one that is to lead catches up.
const CATCH_UP_LOOK: Duration = Duration::from_millis(100);

/// Has another replica lead, if one can; whether it was asked to. Nothing is served here from then on.
pub async fn hand_over<M: Machine>(node: &Node, group: &Group<M>, to: Option<ReplicaId>) -> bool {
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

/// Has the preferred replicas lead those of the partitions that this broker leads; in their order, what became of each.
pub async fn elect_preferred(
    node: Option<&Arc<Node>>,
    controller: &ControllerHandle,
    replicas: &ReplicaSet,
    partitions: &[PartitionId],
) -> Vec<Elected> {
    let elect = |id: PartitionId| async move {
        let Some(replica) = replicas.get(id).filter(|replica| replica.term().is_some()) else {
            return Elected::NotLeader;
        };
        let preferred = controller.read(|controller| controller.replicas(id)?.first().copied());
        match (node, preferred) {
            (Some(node), Some(preferred)) if preferred != replica.group().me() => {
                elect_one(node, &replica, preferred).await
            }
            _ => Elected::NotNeeded,
        }
    };
    let distinct: BTreeSet<PartitionId> = partitions.iter().copied().collect();
    let outcomes = futures::stream::iter(distinct).map(|id| async move { (id, elect(id).await) });
    let outcomes: std::collections::BTreeMap<PartitionId, Elected> = outcomes.buffer_unordered(AT_ONCE).collect().await;
    partitions.iter().map(|id| outcomes[id]).collect()
}

/// The same for partitions that another broker leads.
pub async fn elect_elsewhere(node: Option<&Arc<Node>>, leader: BrokerId, partitions: &[PartitionId]) -> Vec<Elected> {
    let asked = match node.and_then(|node| node.peers().link(leader)) {
        Some(link) => calls::elect(&link, partitions).await.map_err(|error| error.to_string()),
        None => Err("no address of it is known".to_owned()),
    };
    asked.unwrap_or_else(|error| {
        tracing::warn!(leader = leader.0, error, "a broker could not be asked to hand leaderships over");
        vec![Elected::Unavailable; partitions.len()]
    })
}

async fn elect_one(node: &Node, replica: &Replica, preferred: ReplicaId) -> Elected {
    let id = replica.id();
    let deadline = Instant::now() + PATIENCE;
    while !hand_over(node, replica.group(), Some(preferred)).await {
        if !node.is_alive(preferred.broker) || replica.term().is_none() || Instant::now() >= deadline {
            return Elected::Unavailable;
        }
        // One that has just come back has not been told of what it missed.
        replica.group().heartbeat().await;
        tokio::time::sleep(CATCH_UP_LOOK).await;
    }
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if node.leader(id).is_some_and(|(leader, _)| leader == preferred.broker) {
            return Elected::Done;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Elected::Unavailable
}
