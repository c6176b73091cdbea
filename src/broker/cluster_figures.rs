//! What `/metrics` says of the cluster: counted when somebody asks.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Inner;
use crate::ids::BrokerId;
use crate::metrics::{ClusterFigures, Lag};
use crate::replica::Replica;

fn count(of: usize) -> u64 {
    u64::try_from(of).expect("a count fits")
}

impl Inner {
    /// Brings the figures up to date.
    pub(super) fn count_cluster(&self) {
        let node = self.among.as_ref();
        let is_heard = |broker: BrokerId| broker == self.broker || node.is_some_and(|node| node.is_alive(broker));
        let brokers: Vec<BrokerId> =
            self.controller.read(|controller| controller.brokers().map(|(id, _)| id).collect());
        let open = self.replicas.open();
        let (led, others): (Vec<_>, Vec<_>) = open.iter().partition(|replica| replica.term().is_some());
        let leaderless = others.iter().filter(|it| node.is_none_or(|node| node.leader(it.id()).is_none())).count();
        let lacks = |replica: &&&Arc<Replica>| {
            let id = replica.id();
            let behind = node.map(|node| node.behind(id)).unwrap_or_default();
            let (brokers, is_moving) = self.controller.read(|controller| {
                let replicas = controller.replicas(id).unwrap_or_default().iter();
                let brokers: BTreeSet<BrokerId> = replicas.map(|replica| replica.broker).collect();
                (brokers, controller.moving(id).is_some_and(|moving| !moving.adding.is_empty()))
            });
            is_moving || !behind.is_empty() || brokers.into_iter().any(|broker| !is_heard(broker))
        };
        let is_moving =
            |replica: &&&Arc<Replica>| self.controller.read(|controller| controller.moving(replica.id()).is_some());
        let lag =
            node.map(|node| node.lag()).unwrap_or_default().into_iter().map(|(broker, (partitions, entries_max))| {
                (broker.0, Lag { partitions: count(partitions), entries_max })
            });
        let (suspicions, elections) = node.map(|node| node.counted()).unwrap_or_default();
        self.metrics.show_cluster(ClusterFigures {
            brokers: count(brokers.len()),
            brokers_heard: count(brokers.into_iter().filter(|broker| is_heard(*broker)).count()),
            is_controller: self.controller.leads(),
            led: count(led.len()),
            leaderless: count(leaderless),
            under_replicated: count(led.iter().filter(lacks).count()),
            moving: count(led.iter().filter(is_moving).count()),
            lag: lag.collect(),
            suspicions,
            elections,
        });
    }
}
