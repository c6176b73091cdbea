//! Partitions whose majority an operator has given up (`ottla cluster unsafe-recover`) go on from the longest log that is left.
//!
//! Each broker with one of the replicas that are left asks the others for the ends of theirs, and waits until all of them have answered: a shorter log must not
//! go on while a longer one may come. The one with the longest has the controller note that it goes on, under a new incarnation, and is then opened
//! as its group's only voter (`raft/refound`). The others follow it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Inner, stopped};
use crate::ids::{LogId, PartitionId, ReplicaId};
use crate::machine::controller::Controller;
use crate::raft::transport::lending;

/// How often it is looked, while there is something to be refounded.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs until `stop` turns true.
pub(super) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let mut decided = inner.controller.decided();
    let mut said = BTreeMap::new();
    loop {
        let has_left = inner.refound_all(&mut said).await;
        let pause =
            async { if has_left { tokio::time::sleep(LOOK_EVERY).await } else { std::future::pending().await } };
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            () = pause => {}
            changed = decided.changed(), if !has_left => if changed.is_err() { return },
        }
    }
}

impl Inner {
    /// Whether there are partitions left to be refounded.
    async fn refound_all(&self, said: &mut BTreeMap<PartitionId, String>) -> bool {
        let doomed: Vec<(PartitionId, Vec<ReplicaId>)> =
            self.controller.read(|controller| match controller.has_lost() {
                true => controller.without_majority().collect(),
                false => Vec::new(),
            });
        let mut has_left = false;
        for (id, left) in doomed {
            let Some(me) = left.iter().copied().find(|replica| replica.broker == self.broker) else { continue };
            has_left = true;
            if let Err(why) = self.refound(id, me, &left).await
                && said.get(&id) != Some(&why)
            {
                tracing::warn!(partition = %id, why, "a partition whose majority was given up waits to be refounded");
                said.insert(id, why);
            }
        }
        has_left
    }

    async fn refound(&self, id: PartitionId, me: ReplicaId, left: &[ReplicaId]) -> Result<(), String> {
        let mine = self.replicas.get(id).ok_or("it is not open here")?.log().state().last;
        for other in left.iter().filter(|other| **other != me) {
            let link = self.node.peers().link(other.broker);
            let link = link.ok_or_else(|| format!("no address of broker {} is known", other.broker))?;
            let theirs: Option<LogId> = lending::end(&link, id).await?;
            let (mine, theirs) = (mine.map(|it| (it.term, it.index)), theirs.map(|it| (it.term, it.index)));
            if theirs > mine || (theirs == mine && other.broker < me.broker) {
                return Err(format!("broker {} has the longer log", other.broker));
            }
        }
        let refound = |controller: &Controller| Ok::<_, Infallible>((controller.decide_refound(id, me), ()));
        self.controller.change(refound).await.map_err(|error| error.to_string())?;
        tracing::error!(
            partition = %id, last = ?mine,
            "the majority of a partition was given up: it goes on from this broker\'s log, alone; what only the lost brokers had of it is gone"
        );
        Ok(())
    }
}
