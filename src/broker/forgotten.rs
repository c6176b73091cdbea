//! What becomes of page-cache replicas when the page cache was lost.
//!
//! Such a replica may have acknowledged what is gone, and must not vote as if it had it (`forgotten-never-votes`). The controller gives it
//! a new incarnation before its group is opened, and the group's leader fills that. As the group's only voter it goes on with what has survived:
//! nobody else knows more, and nobody was promised a sync. So do the replicas of a group that nobody leads, when the power went everywhere at once: if they all
//! began anew, there would be no group left. One of those that have survived with most is elected.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::blocking::on_disk;
use super::identity::LifeState;
use super::open::Wanted;
use super::{BrokerError, Inner};
use crate::flaws::Flaw;
use crate::ids::{PartitionId, ReplicaId};
use crate::log::disk::Lane;
use crate::machine::controller::Controller;
use crate::machine::topic_config::Durability;

/// If most replicas of a group have not forgotten, they have a leader by then. To take part in an election before would be what must not be.
const LEADERS_HEARD_AFTER: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Inner {
    /// Those of the partitions with several replicas that nobody leads.
    async fn without_leader(&self, wanted: &BTreeMap<PartitionId, Wanted>) -> BTreeSet<PartitionId> {
        let shared = wanted.iter().filter(|(_, wanted)| wanted.is_shared).map(|(id, _)| *id);
        let mut orphans: BTreeSet<PartitionId> = shared.collect();
        let until = Instant::now() + LEADERS_HEARD_AFTER;
        loop {
            orphans.retain(|id| self.node.leader(*id).is_none());
            if orphans.is_empty() || Instant::now() >= until {
                return orphans;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Has every page-cache replica of this broker replaced, if the page cache was lost; before any partition is opened.
    ///
    /// # Errors
    /// If the controller or the data directory cannot take it down: nothing is opened then.
    pub(super) async fn replace_forgotten(&self) -> Result<(), BrokerError> {
        if !self.home.lost_page_cache(&self.env.boot_id) || self.env.flaws.has(Flaw::ForgottenVotes) {
            return Ok(());
        }
        let is_page_cache = |durability| durability == Durability::PageCache;
        let mut wanted = self.wanted();
        wanted.retain(|_, wanted| is_page_cache(wanted.config.durability));
        let orphans = self.without_leader(&wanted).await;
        for id in &orphans {
            tracing::error!(
                topic = wanted[id].name, partition = %id,
                "the page cache was lost since this partition was written to, and nobody leads it: it goes on with what has survived, and acknowledged \
                 records may be gone"
            );
        }
        let wanted = wanted.into_iter().filter(|(id, _)| !orphans.contains(id));
        let names: BTreeMap<PartitionId, (String, ReplicaId)> =
            wanted.map(|(id, wanted)| (id, (wanted.name, wanted.me))).collect();
        let forgotten: Vec<_> = names.iter().map(|(id, (_, me))| (*id, *me)).collect();
        let replace =
            |controller: &Controller| Ok::<_, Infallible>((controller.decide_replace_replicas(&forgotten), ()));
        if let Err(error) = self.controller.change(replace).await {
            return Err(BrokerError::Controller(format!(
                "replace the page-cache replicas that a power cut made forget: {error}"
            )));
        }
        for (id, wanted) in self.wanted() {
            if let Some((name, old)) = names.get(&id) {
                tracing::warn!(
                    topic = name, partition = %id, old = old.incarnation.0, new = wanted.me.incarnation.0,
                    "the page cache was lost since this partition was written to, and acknowledged records may be gone with it: it goes on \
                     as a new replica with what has survived"
                );
            }
        }
        // Only now: a crash before would leave replicas behind that nobody knows to have forgotten.
        let (home, boot_id) = (Arc::clone(&self.home), self.env.boot_id.clone());
        on_disk(&self.env.disk, Lane::Read, move || home.record(LifeState::Running, &boot_id)).await??;
        Ok(())
    }
}
