//! The admin port on the broker's network seam, and what its probes are told.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Join;
use tokio::sync::watch;
use tokio::time::Instant;

use super::group_figures::GroupCounter;
use super::{BrokerError, Inner};
use crate::admin::{self, Health};
use crate::ids::{PartitionId, PartitionIndex, ReplicaId};
use crate::net::{BoxFuture, Listener, Reader, Writer};
use crate::raft::liveness::SUSPECT_AFTER;
use crate::replica::set::Held;

/// How long a broker that starts waits to hear who leads, and how often it looks. Longer than an election takes.
const HEAR_WITHIN: Duration = Duration::from_secs(1);
const HEAR_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Our listener as axum wants it.
struct AdminListener(Box<dyn Listener>);

impl axum::serve::Listener for AdminListener {
    type Io = Join<Reader, Writer>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(connection) => return (tokio::io::join(connection.reader, connection.writer), connection.peer),
                Err(error) => {
                    tracing::warn!(%error, "could not accept an admin connection");
                    tokio::time::sleep(crate::server::ACCEPT_REST).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local_addr())
    }
}

/// What the probes see of the broker.
struct Probe {
    inner: Arc<Inner>,
    stopping: watch::Receiver<bool>,
    groups: GroupCounter,
}

impl Health for Probe {
    fn healthy(&self) -> Result<(), String> {
        if self.inner.flusher.is_dead() { Err("a sync failed: the broker is stopping".to_owned()) } else { Ok(()) }
    }

    fn ready(&self) -> Result<(), String> {
        self.healthy()?;
        if *self.stopping.borrow() { Err("the broker is stopping".to_owned()) } else { Ok(()) }
    }

    fn count(&self) -> BoxFuture<'_, ()> {
        self.inner.count_cluster();
        Box::pin(self.groups.count(&self.inner))
    }
}

impl Inner {
    /// Serves the admin port, if one is configured. Returns where.
    pub(super) async fn start_admin(
        self: &Arc<Self>,
        stopping: watch::Receiver<bool>,
    ) -> Result<Option<SocketAddr>, BrokerError> {
        let Some(address) = &self.config.admin.listen else { return Ok(None) };
        let address = address.to_string();
        let listener = self.env.network.listen(&address).await.map_err(|source| BrokerError::Listen {
            address,
            what: "metrics and health checks",
            source,
        })?;
        let bound = listener.local_addr();
        let probe = Probe { inner: Arc::clone(self), stopping: stopping.clone(), groups: GroupCounter::default() };
        let metrics = Arc::clone(&self.metrics);
        let mut stop = stopping;
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        self.spawn(async move {
            if let Err(error) = admin::serve(AdminListener(listener), metrics, Arc::new(probe), stopped).await {
                tracing::error!(%error, "the admin port has stopped");
            }
        });
        Ok(Some(bound))
    }

    /// Waits until this broker knows who leads each partition that has a replica which may live, but not for long: some may have no leader. Clients that came
    /// before would be told that there is none, and ask again after a second; who is refused asks another broker.
    pub(super) async fn hear_of_leaders(&self) {
        let Some(node) = &self.among else { return };
        let lives = |replica: &ReplicaId| !node.is_silent_for(replica.broker, SUSPECT_AFTER);
        let knows = || {
            self.controller.read(|controller| {
                controller.topics().all(|topic| {
                    (0..).zip(&topic.partitions).all(|(at, replicas)| {
                        let id = PartitionId { topic: topic.id, partition: PartitionIndex(at) };
                        node.told_leader(id).is_some() || !replicas.iter().any(lives)
                    })
                })
            })
        };
        let until = Instant::now() + HEAR_WITHIN;
        while !knows() && Instant::now() < until {
            tokio::time::sleep(HEAR_AGAIN_AFTER).await;
        }
    }

    /// Counts served and offline partitions into the metrics.
    pub(super) fn count_partitions(&self) {
        let all = self.replicas.all();
        let offline = all.iter().filter(|(_, held)| matches!(held, Held::Offline(_))).count();
        let gauge = |count: usize| i64::try_from(count).expect("a count fits");
        self.metrics.partitions_online.set(gauge(all.len() - offline));
        self.metrics.partitions_offline.set(gauge(offline));
    }
}
