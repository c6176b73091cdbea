//! Makes this broker hold what the controller says it holds: opens what is new, drops what is gone, passes on changed settings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use tokio::sync::watch;

use super::blocking::on_disk;
use super::open::Wanted;
use super::{Inner, stopped};
use crate::ids::{PartitionId, PartitionIndex, ReplicaId, TopicId};
use crate::log::TOPICS;
use crate::log::disk::{Disk, Lane};
use crate::log::journal::Journal;
use crate::machine::controller::DirectoryId;
use crate::machine::controller::names::is_internal;
use crate::machine::topic_config::Durability;
use crate::replica::set::Held;

/// Partitions opened at the same time: recovery reads the disk, and elections share the journal's syncs.
const OPENING_MAX: usize = 64;

/// Reconciles whenever the controller has applied something, until `stop` turns true.
pub(super) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    // What a crash kept the last life from removing.
    inner.remove_deleted().await;
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            () = inner.controller.changed() => reconcile(&inner).await,
        }
    }
}

/// Reconciles once.
pub(super) async fn reconcile(inner: &Arc<Inner>) {
    if let Some(why) = inner.expulsion() {
        tracing::error!(why, "this broker serves nothing any more");
        inner.expelled.send_replace(Some(why));
    }
    inner.forget_leaders();
    let wanted = inner.wanted();
    let gone: Vec<PartitionId> =
        inner.replicas.all().into_iter().map(|(id, _)| id).filter(|id| !wanted.contains_key(id)).collect();
    let has_dropped = !gone.is_empty();
    for id in gone {
        inner.drop_partition(id).await;
    }
    let mut new = Vec::new();
    for (id, wanted) in wanted {
        match inner.replicas.held(id) {
            Some(Held::Open(replica)) if replica.group().me() == wanted.me => {
                inner.node.set_order(id, &wanted.order);
                replica.configure(wanted.config);
            }
            // Another has taken its place, which begins with what is there.
            Some(Held::Open(_)) => {
                inner.close_partition(id).await;
                new.push((id, wanted));
            }
            Some(Held::Offline(_)) => {}
            None => new.push((id, wanted)),
        }
    }
    let opening =
        futures::stream::iter(new).for_each_concurrent(OPENING_MAX, |(id, wanted)| inner.open_partition(id, wanted));
    opening.await;
    inner.count_partitions();
    inner.controller.served();
    if has_dropped {
        inner.has_dropped.store(true, Ordering::Relaxed);
        inner.remove_deleted().await;
    }
}

impl Inner {
    /// What the controller says that this broker holds.
    pub(super) fn wanted(&self) -> BTreeMap<PartitionId, Wanted> {
        if self.expulsion().is_some() {
            return BTreeMap::new();
        }
        self.controller.read(|controller| {
            let mut wanted = BTreeMap::new();
            for topic in controller.topics() {
                let mut config = self.controller.topic_config(controller, &topic.configs);
                if is_internal(&topic.name) {
                    // Whatever the broker or whoever made the topic says: what a coordinator has answered stays.
                    config.durability = Durability::Fsync;
                }
                let config = Arc::new(config);
                for (partition, replicas) in (0..).zip(&topic.partitions) {
                    let id = PartitionId { topic: topic.id, partition: PartitionIndex(partition) };
                    // One that is to go is kept until its group does without it.
                    let removing = controller.moving(id).map(|moving| moving.removing.as_slice()).unwrap_or_default();
                    let mut all = replicas.iter().chain(removing);
                    if let Some(me) = all.find(|replica| replica.broker == self.broker) {
                        let (name, config) = (topic.name.clone(), Arc::clone(&config));
                        let founders = controller.founders(id).unwrap_or_default().to_vec();
                        let order = replicas.iter().map(|replica| replica.broker).collect();
                        // Others that the group counts on, and that can fill this one therefore.
                        let is_shared = controller.holders(id).iter().any(|holder| *holder != self.broker);
                        wanted.insert(id, Wanted { name, me: *me, founders, order, is_shared, config });
                    }
                }
            }
            wanted
        })
    }

    /// Forgets who led what is no more: partitions that were deleted, and those of which the only replica was replaced, which begin again with the first term.
    fn forget_leaders(&self) {
        let Some(node) = &self.among else { return };
        let present: BTreeMap<PartitionId, ReplicaId> = self.controller.read(|controller| {
            let only = |id| Some((id, *controller.replicas(id).filter(|replicas| replicas.len() == 1)?.first()?));
            node.ever_led().into_iter().filter_map(only).collect()
        });
        let mut before = self.only_replicas.lock().expect("no panic under the lock of replicas");
        let replaced = before.iter().filter(|(id, replica)| present.get(id).is_some_and(|new| new != *replica));
        let deleted = node
            .ever_led()
            .into_iter()
            .filter(|id| *id != PartitionId::CONTROLLER && !self.controller.has_partition(*id));
        node.forget(replaced.map(|(id, _)| *id).chain(deleted));
        *before = present;
    }

    /// Why this broker belongs to the cluster no more, if it does not.
    fn expulsion(&self) -> Option<String> {
        let mine = DirectoryId(self.home.identity.directory());
        let known = self.controller.read(|controller| controller.broker(self.broker).map(|broker| broker.directory));
        match known {
            _ if self.among.is_none() => None,
            Some(known) if known == mine => None,
            Some(_) => Some("another data directory has taken this broker's place in the cluster".to_owned()),
            None => Some("this broker was removed from the cluster".to_owned()),
        }
    }

    /// Stops a partition that this broker is not to have any more, and forgets it: the topic was deleted, or others have it.
    async fn drop_partition(&self, id: PartitionId) {
        self.close_partition(id).await;
        if self.expulsion().is_some() {
            return;
        }
        if self.controller.has_partition(id) {
            tracing::info!(partition = %id, "this broker's replica has gone to others: its files are removed");
            // What is deleted with its topic goes later, with all of it.
            self.remove_replica_files(id).await;
        } else {
            self.journal.remove_group(id, Box::new(drop));
        }
    }

    async fn close_partition(&self, id: PartitionId) {
        self.coordinators.stop(id);
        if let Some(Held::Open(replica)) = self.replicas.remove(id) {
            replica.close().await;
        }
    }

    /// Removes what others have by now: files of topics that the controller does not have, and of replicas that went elsewhere while this broker was
    /// away. A topic's id is never used twice, and what a broker is to hold is committed before its first file is made, so what is found here has gone.
    async fn remove_deleted(&self) {
        if self.expulsion().is_some() {
            return;
        }
        let mut known: BTreeSet<TopicId> =
            self.controller.read(|controller| controller.topics().map(|topic| topic.id).collect());
        let mut held: BTreeSet<PartitionId> = self.wanted().into_keys().collect();
        // A topic may have been deleted since the last look: its turn comes when its replicas are closed.
        held.extend(self.replicas.all().into_iter().map(|(id, _)| id));
        known.extend(held.iter().map(|id| id.topic));
        let (disk, journal) = (Arc::clone(&self.env.disk), Arc::clone(&self.journal));
        let removed = on_disk(&self.env.disk, Lane::Background, move || -> std::io::Result<usize> {
            let mut count = 0;
            for entry in disk.list(TOPICS)? {
                let Some(topic) = TopicId::parse(&entry.name) else { continue };
                if topic == TopicId::CONTROLLER {
                    continue;
                }
                if known.contains(&topic) {
                    remove_strays(disk.as_ref(), &journal, topic, &held)?;
                    continue;
                }
                for id in journal.groups().into_iter().filter(|id| id.topic == topic) {
                    journal.remove_group(id, Box::new(drop));
                }
                disk.remove_dir_all(&format!("{TOPICS}/{}", entry.name))?;
                count += 1;
            }
            Ok(count)
        });
        match removed.await {
            Ok(Ok(count)) if count > 0 => tracing::info!(count, "removed the files of deleted topics"),
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => tracing::error!(%error, "could not remove the files of deleted topics"),
        }
    }
}

/// Removes the files of a topic's partitions that are not held here.
fn remove_strays(
    disk: &dyn Disk,
    journal: &Arc<Journal>,
    topic: TopicId,
    held: &BTreeSet<PartitionId>,
) -> std::io::Result<()> {
    for entry in disk.list(&format!("{TOPICS}/{topic}"))? {
        let Ok(partition) = entry.name.parse::<i32>() else { continue };
        let id = PartitionId { topic, partition: PartitionIndex(partition) };
        if partition >= 0 && !held.contains(&id) {
            tracing::info!(partition = %id, "removing a replica that went to others while this broker was away");
            journal.remove_group(id, Box::new(drop));
            disk.remove_dir_all(&crate::log::directory(id))?;
        }
    }
    Ok(())
}
