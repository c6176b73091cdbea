//! Partitions whose majority an operator has given up (`ottla cluster unsafe-recover`) go on from the longest log that is left.
//!
//! Each broker with one of the replicas that are left asks the others for the ends of theirs, and waits until all of them have answered: a shorter log must not
//! go on while a longer one may come. Nor may one that lacks what another one knows to be committed, however late its last term is: what a leader wrote that nobody
//! listened to may be newer than what a majority has. The one with the longest of those that have all of that has the controller note that it goes on, under a
//! new incarnation, and is then opened as its group's only voter (`raft/refound`). The others follow it.
//!
//! A partition that was moving may have its majority all the same, on the brokers that it was moving to. So one that somebody serves goes on as it is, and
//! those that are left get the time of an election before it is said that nobody does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Inner, stopped};
use crate::ids::{BrokerId, LogId, PartitionId, ReplicaId};
use crate::log::Log;
use crate::machine::controller::Controller;
use crate::raft::transport::lending::{self, End};
use crate::raft::transport::link::Link;

/// How often it is looked, while there is something to be refounded.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Partitions that are compared at the same time.
const AT_ONCE: usize = 16;
/// What one entry of the controller's log refounds.
const REFOUNDED_MAX: usize = 256;
/// For so long nobody may be heard to serve a partition: an election takes less.
const UNSERVED_FOR: Duration = Duration::from_secs(3);

/// What is known of a partition that waits.
#[derive(Default)]
struct Look {
    /// Since when all that are left answer, and none of them serves it.
    unserved: Option<Instant>,
    /// What was said last.
    said: String,
}

/// Runs until `stop` turns true.
pub(super) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        () = stopped(&mut stop) => {}
        () = look(&inner) => {}
    }
}

async fn look(inner: &Inner) {
    let mut decided = inner.controller.decided();
    let mut looks = BTreeMap::new();
    loop {
        if inner.refound_all(&mut looks).await {
            tokio::time::sleep(LOOK_EVERY).await;
        } else if decided.changed().await.is_err() {
            return;
        }
    }
}

impl Inner {
    /// Whether there are partitions left to be refounded.
    async fn refound_all(&self, looks: &mut BTreeMap<PartitionId, Look>) -> bool {
        let doomed: BTreeMap<PartitionId, Vec<ReplicaId>> = self.controller.read(|controller| {
            let mine = |left: &[ReplicaId]| left.iter().any(|replica| replica.broker == self.broker);
            let doomed = controller.without_majority().filter(|(_, left)| mine(left));
            doomed.map(|(id, left)| (id, left.to_vec())).collect()
        });
        let known = std::mem::take(looks);
        let has_left = !doomed.is_empty();
        let mut known: BTreeMap<_, _> = known.into_iter().filter(|(id, _)| doomed.contains_key(id)).collect();
        let due: Vec<_> =
            doomed.into_iter().map(|(id, left)| (id, left, known.remove(&id).unwrap_or_default())).collect();
        let looking = futures::stream::iter(due).map(|(id, left, mut look)| async move {
            let found = self.may_go_on(id, &left, &mut look).await;
            (id, look, found)
        });
        let looked_at: Vec<_> = looking.buffer_unordered(AT_ONCE).collect().await;
        let mut may_go_on = Vec::new();
        for (id, look, found) in looked_at {
            may_go_on.extend(found);
            looks.insert(id, look);
        }
        for some in may_go_on.chunks(REFOUNDED_MAX) {
            let replicas: Vec<_> = some.iter().map(|(id, me, _)| (*id, *me)).collect();
            let refound = |controller: &Controller| Ok::<_, Infallible>((controller.decide_refound(&replicas), ()));
            if let Err(error) = self.controller.change(refound).await {
                tracing::warn!(%error, "that partitions go on without their majority could not be written down; it is tried again");
                break;
            }
            for (id, _, last) in some {
                tracing::error!(
                    partition = %id, ?last,
                    "the majority of a partition was given up: it goes on from this broker's log, alone; what only the lost brokers had of it is gone"
                );
            }
        }
        has_left
    }

    /// Whether a partition is to go on from what is here: then from which replica, and where its log ends.
    async fn may_go_on(
        &self,
        id: PartitionId,
        left: &[ReplicaId],
        look: &mut Look,
    ) -> Option<(PartitionId, ReplicaId, Option<LogId>)> {
        let me = left.iter().copied().find(|replica| replica.broker == self.broker)?;
        match self.compare(id, me, left, look).await {
            Ok(last) => Some((id, me, last)),
            Err(why) => {
                if look.said != why {
                    tracing::warn!(partition = %id, why, "a partition whose majority was given up waits to go on");
                    look.said = why;
                }
                None
            }
        }
    }

    /// Where the log here ends, if it is the one to go on with. An error is why not, or not yet.
    async fn compare(
        &self,
        id: PartitionId,
        me: ReplicaId,
        left: &[ReplicaId],
        look: &mut Look,
    ) -> Result<Option<LogId>, String> {
        let replica = self.replicas.get(id).ok_or("it is not open here")?;
        let log = Arc::clone(replica.log());
        drop(replica);
        let mut links = Vec::new();
        for other in left.iter().filter(|other| **other != me) {
            let link = self.node.peers().link(other.broker);
            links.push((other.broker, link.ok_or_else(|| format!("no address of broker {} is known", other.broker))?));
        }
        let committed =
            self.ends(&log, &links, None).await?.values().filter_map(|end| end.committed).max_by_key(|id| id.index);
        let ends = self.ends(&log, &links, committed).await?;
        if let Some((leader, _)) = ends.iter().find(|(_, end)| end.serves) {
            look.unserved = None;
            return Err(format!("broker {leader} leads it, and most of those that vote are there"));
        }
        if look.unserved.get_or_insert_with(Instant::now).elapsed() < UNSERVED_FOR {
            return Err("some of those that are left may be about to elect one of them".to_owned());
        }
        match best(&ends) {
            Some(best) if best == self.broker => Ok(ends[&best].last),
            Some(better) => Err(format!("it goes on from the log of broker {better}")),
            None => Err("none of those that are left holds all that is known to be committed".to_owned()),
        }
    }

    /// What each of those that are left has, and whether an entry is there.
    async fn ends(
        &self,
        log: &Log,
        others: &[(BrokerId, Arc<Link>)],
        holds: Option<LogId>,
    ) -> Result<BTreeMap<BrokerId, End>, String> {
        let mut ends = BTreeMap::from([(self.broker, End::here(&self.node, log, holds))]);
        for (broker, link) in others {
            ends.insert(*broker, lending::end(link, log.id(), holds).await?);
        }
        Ok(ends)
    }
}

/// From whose log a partition goes on: the longest, as in an election, of those that hold everything that any of them knows to be committed.
fn best(ends: &BTreeMap<BrokerId, End>) -> Option<BrokerId> {
    let whole = ends.iter().filter(|(_, end)| end.holds);
    let order = |end: &End| end.last.map(|last| (last.term, last.index));
    whole.max_by_key(|(broker, end)| (order(end), std::cmp::Reverse(**broker))).map(|(broker, _)| *broker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{RaftIndex, Term};

    fn end((term, index): (u64, u64), holds: bool) -> End {
        let last = Some(LogId { term: Term(term), index: RaftIndex(index) });
        End { last, committed: None, holds, serves: false }
    }

    fn best_of(ends: &[End]) -> Option<i32> {
        let ends = (1..).map(BrokerId).zip(ends.iter().copied()).collect();
        best(&ends).map(|broker| broker.0)
    }

    #[test]
    fn the_longest_log_goes_on_but_never_one_that_lacks_what_is_committed() {
        assert_eq!(best_of(&[end((2, 7), true), end((2, 9), true), end((1, 20), true)]), Some(2));
        assert_eq!(best_of(&[end((2, 7), true), end((2, 7), true)]), Some(1), "one of them, and all agree which");
        // The last wrote in term 3 what nobody listened to, while the others committed entries of term 2 in term 4.
        assert_eq!(best_of(&[end((2, 7), true), end((2, 6), true), end((3, 30), false)]), Some(1));
        let empty = End { last: None, committed: None, holds: true, serves: false };
        assert_eq!(best_of(&[empty, end((0, 0), true)]), Some(2));
        assert_eq!(best_of(&[empty]), Some(1));
        assert_eq!(best_of(&[end((1, 1), false)]), None);
    }
}
