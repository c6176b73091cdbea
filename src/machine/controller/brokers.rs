//! Decisions about the cluster itself: its founding, its brokers, and the ids that it hands out.

use std::ops::Range;

use super::configs::DRAIN;
use super::names::is_internal;
use super::{Controller, DirectoryId, Endpoints, Kind, PRODUCER_ID_BLOCK, Record, Refusal};
use crate::ids::{BrokerId, Incarnation, PartitionId, ProducerId, ReplicaId};

/// How a broker comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// What has to be recorded; nothing for a broker that comes back as it was.
    pub records: Vec<Record>,
    /// Whether it was known with another data directory: it comes back having forgotten all its replicas.
    pub forgotten: bool,
}

/// The incarnation of a founder's replica of the controller's group; later ones are greater.
pub const FOUNDER: Incarnation = Incarnation(1);

impl Controller {
    /// Gives a cluster its id and first broker; none when it has been founded already.
    #[must_use]
    pub fn decide_found(&self, cluster_id: &str, broker: BrokerId, directory: DirectoryId) -> Option<Vec<Record>> {
        if self.cluster_id.is_some() {
            return None;
        }
        let founded = Record::ClusterFounded { cluster_id: cluster_id.to_owned() };
        Some(vec![founded, Record::BrokerJoined { broker, directory }])
    }

    /// Takes a broker in, or back. One that is new, or comes with another data directory, gets a replica of the controller's group; in the place of each replica
    /// that it had in its lost directory comes a new one, which starts with nothing.
    #[must_use]
    pub fn decide_join(&self, broker: BrokerId, directory: DirectoryId, endpoints: &Endpoints) -> Joining {
        let known = self.brokers.get(&broker);
        let forgotten = known.is_some_and(|known| known.directory != directory);
        let mut records = Vec::new();
        if known.is_none() || forgotten {
            records.push(Record::BrokerJoined { broker, directory });
            let incarnation = self.next_incarnation.max(FOUNDER.next());
            records.push(Record::ControllerReplica { replica: ReplicaId { broker, incarnation } });
            let to_go = self.all_moving().flat_map(|(id, moving)| moving.removing.iter().map(move |it| (id, *it)));
            let lost: Vec<_> =
                self.replicas_on(broker).chain(to_go.filter(|(_, replica)| replica.broker == broker)).collect();
            records.extend(self.replacements(&lost, incarnation.next()));
        }
        if forgotten || known.and_then(|known| known.endpoints.as_ref()) != Some(endpoints) {
            records.push(Record::BrokerDescribed { broker, endpoints: endpoints.clone() });
        }
        Joining { records, forgotten }
    }

    /// Reserves the next block of producer ids for a broker, which may hand them out once the record is applied.
    ///
    /// # Errors
    /// [`Kind::Exhausted`] when all ids are handed out.
    pub fn decide_producer_ids(&self) -> Result<(Record, Range<i64>), Refusal> {
        let first = self.next_producer_id;
        let next = first.0.checked_add(PRODUCER_ID_BLOCK).ok_or_else(|| {
            let message =
                "Exhausted all producerIds as the next block's end producerId has exceeded the int64 type limit";
            Refusal::new(Kind::Exhausted, message)
        })?;
        Ok((Record::ProducerIdsReserved { first, next: ProducerId(next) }, first.0..next))
    }

    /// Gives replicas that have forgotten new incarnations; those that were to go are dropped. What is no replica of its partition (any more) is passed over.
    #[must_use]
    pub fn decide_replace_replicas(&self, forgotten: &[(PartitionId, ReplicaId)]) -> Vec<Record> {
        self.replacements(forgotten, self.next_incarnation)
    }

    fn replacements(&self, forgotten: &[(PartitionId, ReplicaId)], mut incarnation: Incarnation) -> Vec<Record> {
        let mut records = Vec::with_capacity(forgotten.len());
        for &(partition, old) in forgotten {
            if self.replicas(partition).is_some_and(|replicas| replicas.contains(&old)) {
                let new = ReplicaId { broker: old.broker, incarnation };
                records.push(Record::ReplicaReplaced { partition, old, new });
                incarnation = incarnation.next();
            } else if self.in_group(partition).contains(&old) {
                records.push(Record::ReplicaDropped { partition, replica: old });
            }
        }
        records
    }

    /// Takes a broker out of the cluster. Whoever is alive has to be drained first, so that it gets nothing new meanwhile.
    ///
    /// # Errors
    /// [`Kind::UnknownBroker`]; [`Kind::Limit`] while it has replicas or may get some, or is the only one.
    pub fn decide_remove_broker(&self, broker: BrokerId, is_alive: bool) -> Result<Record, Refusal> {
        if !self.brokers.contains_key(&broker) {
            return Err(Refusal::new(Kind::UnknownBroker, format!("Broker ID {broker} is not currently registered")));
        }
        let refuse = |why: String| Err(Refusal::new(Kind::Limit, why));
        let held = self.partitions_with(broker);
        if held > 0 {
            return refuse(format!(
                "Broker {broker} holds replicas of {held} partition(s): drain it, and remove it when it is empty."
            ));
        }
        if is_alive && !self.is_draining(broker) {
            return refuse(format!("Broker {broker} is running: drain it first, so that it gets no new replicas."));
        }
        if self.staying().all(|other| other == broker) {
            return refuse(format!("Broker {broker} is the only one that is to stay."));
        }
        Ok(Record::BrokerRemoved { broker })
    }

    /// How many partitions' groups have a replica on a broker, those included that it is to lose.
    #[must_use]
    pub fn partitions_with(&self, broker: BrokerId) -> usize {
        let to_go = self.all_moving().filter(|(_, moving)| moving.removing.iter().any(|it| it.broker == broker));
        self.replicas_on(broker).count() + to_go.count()
    }

    /// Whether a broker gives its replicas away, and gets no new ones.
    #[must_use]
    pub fn is_draining(&self, broker: BrokerId) -> bool {
        self.broker_configs(broker).get(DRAIN).is_some_and(|value| value == "true")
    }

    /// The brokers that replicas are placed on: all but those that are drained.
    pub fn staying(&self) -> impl Iterator<Item = BrokerId> {
        self.brokers.keys().copied().filter(|broker| !self.is_draining(*broker))
    }

    /// Whether there is room for a broker's replicas on the others.
    pub(super) fn check_can_drain(&self, broker: BrokerId) -> Result<(), Refusal> {
        let left = self.staying().filter(|other| *other != broker).count();
        if left == 0 {
            return Err(Refusal::new(
                Kind::Limit,
                format!("No broker would be left to take what broker {broker} has."),
            ));
        }
        // The cluster's own topics make do with fewer.
        let topics = self.topics.values().filter(|topic| !is_internal(&topic.name));
        let is_tight = |replicas: &&Vec<ReplicaId>| {
            replicas.len() > left && replicas.iter().any(|replica| replica.broker == broker)
        };
        match topics.filter_map(|topic| Some((topic, topic.partitions.iter().find(is_tight)?))).next() {
            None => Ok(()),
            Some((topic, replicas)) => {
                let (name, count) = (&topic.name, replicas.len());
                let why = format!(
                    "Topic '{name}' has {count} replicas, and without broker {broker} only {left} broker(s) would be left: add a \
                     broker, or give it fewer replicas first."
                );
                Err(Refusal::new(Kind::Limit, why))
            }
        }
    }

    pub(super) fn remove_broker(&mut self, broker: BrokerId) -> bool {
        let fits =
            self.brokers.len() > 1 && self.partitions_with(broker) == 0 && self.brokers.remove(&broker).is_some();
        if fits {
            self.broker_configs.remove(&broker);
        }
        fits
    }
}
