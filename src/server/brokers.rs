//! The brokers as clients are told of them, and who leads what.

use super::Context;
use crate::ids::{BrokerId, PartitionId, Term};
use crate::protocol::value::Text;

/// A broker, as clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachable {
    /// Its id.
    pub id: BrokerId,
    /// Its host.
    pub host: Text,
    /// Its port.
    pub port: i32,
    /// Its rack.
    pub rack: Option<Text>,
}

impl Context {
    fn here(&self) -> Reachable {
        Reachable {
            id: self.broker,
            host: self.advertised_host.as_str().into(),
            port: self.advertised_port,
            rack: self.rack.as_deref().map(Into::into),
        }
    }

    /// A broker, if it has said how clients reach it.
    #[must_use]
    pub fn reachable(&self, broker: BrokerId) -> Option<Reachable> {
        if broker == self.broker {
            return Some(self.here());
        }
        self.controller.read(|controller| {
            let endpoints = controller.broker(broker)?.endpoints.as_ref()?;
            Some(Reachable {
                id: broker,
                host: endpoints.kafka_host.as_str().into(),
                port: endpoints.kafka_port.into(),
                rack: (!endpoints.rack.is_empty()).then(|| endpoints.rack.as_str().into()),
            })
        })
    }

    /// The brokers that are heard, this one among them, by id.
    #[must_use]
    pub fn brokers(&self) -> Vec<Reachable> {
        let mut brokers = self.all_brokers();
        brokers.retain(|broker| self.is_alive(broker.id));
        brokers
    }

    /// All brokers of the cluster that have said how clients reach them, by id.
    #[must_use]
    pub fn all_brokers(&self) -> Vec<Reachable> {
        let ids: Vec<BrokerId> = self.controller.read(|controller| controller.brokers().map(|(id, _)| id).collect());
        ids.into_iter().filter_map(|id| self.reachable(id)).collect()
    }

    /// Whether a broker is heard, by this one or by one that tells of it.
    #[must_use]
    pub fn is_alive(&self, broker: BrokerId) -> bool {
        broker == self.broker || self.among.as_ref().is_some_and(|node| node.is_heard_of(broker))
    }

    /// Who leads a partition, as far as this broker knows, and in which term.
    #[must_use]
    pub fn leader(&self, id: PartitionId) -> Option<(BrokerId, Term)> {
        if let Some(term) = self.replicas.get(id).and_then(|replica| replica.term()) {
            return Some((self.broker, term));
        }
        // It has just been elected, or cannot serve now: nobody is sent here.
        self.among.as_ref().and_then(|node| node.told_leader(id)).filter(|(leader, _)| *leader != self.broker)
    }

    /// The brokers of a partition's voters that lack something of what its leader had a moment ago.
    #[must_use]
    pub fn behind(&self, id: PartitionId) -> Vec<BrokerId> {
        self.among.as_ref().map(|node| node.behind(id)).unwrap_or_default()
    }

    /// How many replicas of a partition are in sync: those that vote in its group, on brokers that are heard.
    #[must_use]
    pub fn in_sync(&self, id: PartitionId) -> usize {
        let brokers = self.controller.read(|controller| controller.holders(id));
        brokers.into_iter().filter(|broker| self.is_alive(*broker)).count()
    }

    /// Who leads a partition, for a client that asked the wrong broker (KIP-951): -1 if nobody is known to.
    #[must_use]
    pub fn leader_hint(&self, id: PartitionId) -> (i32, i32) {
        self.leader(id).map_or((-1, -1), |(leader, term)| (leader.0, term.epoch()))
    }

    /// The broker to ask for what the controller decides; -1 if there is none now.
    #[must_use]
    pub fn controller_id(&self) -> i32 {
        self.controller.leader().map_or(-1, |leader| leader.0)
    }
}
