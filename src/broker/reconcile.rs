//! Makes this broker hold what the controller says it holds: opens what is new, drops what is gone, passes on changed settings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use tokio::sync::watch;

use super::blocking::on_disk;
use super::open::Wanted;
use super::{Inner, stopped};
use crate::ids::{PartitionId, PartitionIndex, TopicId};
use crate::log::TOPICS;
use crate::log::disk::Lane;
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
    if inner.is_superseded() {
        tracing::error!(
            "another data directory has taken this broker's place in the cluster: it serves nothing any more"
        );
    }
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
            Some(Held::Open(replica)) if replica.group().me() == wanted.me => replica.configure(wanted.config),
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
        if self.is_superseded() {
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
                        wanted.insert(id, Wanted { name, me: *me, founders, config });
                    }
                }
            }
            wanted
        })
    }

    /// Whether the cluster knows this broker by another data directory.
    fn is_superseded(&self) -> bool {
        let mine = DirectoryId(self.home.identity.directory());
        let known = self.controller.read(|controller| controller.broker(self.broker).map(|broker| broker.directory));
        self.among.is_some() && known.is_some_and(|known| known != mine)
    }

    /// Stops a partition that this broker is not to have any more, and forgets it: the topic was deleted, or others have it.
    async fn drop_partition(&self, id: PartitionId) {
        self.close_partition(id).await;
        if self.is_superseded() {
            return;
        }
        self.node.forget(id);
        let is_there = self.controller.has_partition(id);
        if is_there {
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

    /// Removes the files of topics that the controller does not have and no replica works on. An id is never used twice, and a topic
    /// is committed before its first file is made, so what is found here was deleted.
    async fn remove_deleted(&self) {
        if self.is_superseded() {
            return;
        }
        let mut known: BTreeSet<TopicId> =
            self.controller.read(|controller| controller.topics().map(|topic| topic.id).collect());
        // A topic may have been deleted since the last look: its turn comes when its replicas are closed.
        known.extend(self.replicas.all().into_iter().map(|(id, _)| id.topic));
        let (disk, journal) = (Arc::clone(&self.env.disk), Arc::clone(&self.journal));
        let removed = on_disk(&self.env.disk, Lane::Background, move || -> std::io::Result<usize> {
            let mut count = 0;
            for entry in disk.list(TOPICS)? {
                let Some(topic) = TopicId::parse(&entry.name) else { continue };
                if known.contains(&topic) || topic == TopicId::CONTROLLER {
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
