//! Decisions about topics: creating and deleting them, adding partitions.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{check_name, fold_name};
use super::placement::spread;
use super::{Controller, Kind, PARTITIONS_MAX, PARTITIONS_PER_REQUEST_MAX, Record, Refusal, Topic};
use crate::ids::{BrokerId, Incarnation, PartitionIndex, ReplicaId, TopicId};
use crate::machine::topic_config::{self, Values};

/// A topic that a client asks for, with what the caller drew for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions; -1 is the default, and what manual assignments ask for.
    pub partitions: i32,
    /// Number of replicas; -1 is the default, and what manual assignments ask for.
    pub replication_factor: i16,
    /// Brokers of each partition, when the client chooses them.
    pub assignments: Vec<(i32, Vec<BrokerId>)>,
    /// Configs to set.
    pub configs: Vec<(String, Option<String>)>,
    /// The id to give it: random, never zero.
    pub id: TopicId,
    /// Where placing begins: random.
    pub start: u32,
}

/// What a topic gets that does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicDefaults {
    /// Number of partitions.
    pub partitions: i32,
    /// Number of replicas.
    pub replication_factor: i16,
}

/// A topic that can be created: propose `record`, unless the client only wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// What to propose.
    pub record: Record,
    /// Its number of partitions.
    pub partitions: i32,
    /// Its number of replicas.
    pub replication_factor: i16,
}

/// More partitions that a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MorePartitions {
    /// The topic.
    pub name: String,
    /// How many it shall have in all.
    pub count: i32,
    /// Brokers of each new partition, when the client chooses them; an empty list is a choice.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
    /// Where placing begins: random.
    pub start: u32,
}

/// What a request has used up so far of what only the whole state shows.
#[derive(Default)]
struct Taken {
    incarnations: u64,
    partitions: usize,
    /// Names, folded, with the name itself.
    names: BTreeMap<String, String>,
}

impl Controller {
    /// Decides about each topic of a `CreateTopics` request by itself, in order, on brokers that are there; the answers stand in that order. A topic
    /// sees those before it. Each occurrence of a name that appears twice is refused.
    #[must_use]
    pub fn decide_create_topics(
        &self,
        request: &[NewTopic],
        defaults: TopicDefaults,
        is_alive: &dyn Fn(BrokerId) -> bool,
    ) -> Vec<Result<CreatedTopic, Refusal>> {
        let asked = request.iter().map(|topic| match topic.assignments.len() {
            0 => usize::try_from(topic.partitions).unwrap_or(1),
            manual => manual,
        });
        if asked.fold(0, usize::saturating_add) > PARTITIONS_PER_REQUEST_MAX {
            let refusal = Refusal::new(Kind::Limit, "Excessively large number of partitions per request.");
            return vec![Err(refusal); request.len()];
        }
        let twice = repeated(request.iter().map(|topic| topic.name.as_str()));
        let mut taken = Taken::default();
        let decide = |topic: &NewTopic| {
            if twice.contains(topic.name.as_str()) {
                return Err(Refusal::new(Kind::InvalidRequest, "Duplicate topic name."));
            }
            self.decide_create_topic(topic, defaults, is_alive, &mut taken)
        };
        request.iter().map(decide).collect()
    }

    fn decide_create_topic(
        &self,
        new: &NewTopic,
        defaults: TopicDefaults,
        is_alive: &dyn Fn(BrokerId) -> bool,
        taken: &mut Taken,
    ) -> Result<CreatedTopic, Refusal> {
        assert_ne!(new.id, TopicId::ZERO, "a topic's id is drawn by the caller");
        check_name(&new.name)?;
        self.check_name_is_free(&new.name, taken)?;
        let configs = check_new_configs(&new.configs)?;
        let brokers =
            if new.assignments.is_empty() { self.place(new, defaults, is_alive)? } else { self.check_manual(new)? };
        if self.partitions + taken.partitions + brokers.len() > PARTITIONS_MAX {
            return Err(too_many_partitions());
        }
        let count = i32::try_from(brokers.len()).expect("limited above");
        let replication_factor = i16::try_from(brokers[0].len()).expect("limited by the wire's own type");
        let partitions = self.incarnate(brokers, taken);
        taken.partitions += partitions.len();
        taken.names.insert(fold_name(&new.name), new.name.clone());
        let record = Record::TopicCreated(Topic { id: new.id, name: new.name.clone(), partitions, configs });
        Ok(CreatedTopic { record, partitions: count, replication_factor })
    }

    fn check_name_is_free(&self, name: &str, taken: &Taken) -> Result<(), Refusal> {
        let folded = fold_name(name);
        let present = self.folded.get(&folded).map(|id| &self.topics[id].name).or_else(|| taken.names.get(&folded));
        match present {
            None => Ok(()),
            Some(present) if present == name => {
                Err(Refusal::new(Kind::TopicExists, format!("Topic '{name}' already exists.")))
            }
            Some(present) => {
                let message = format!("Topic '{name}' collides with existing topic: {present}");
                Err(Refusal::new(Kind::InvalidTopic, message))
            }
        }
    }

    /// Chooses brokers for a topic that leaves it to us.
    fn place(
        &self,
        new: &NewTopic,
        defaults: TopicDefaults,
        is_alive: &dyn Fn(BrokerId) -> bool,
    ) -> Result<Vec<Vec<BrokerId>>, Refusal> {
        if new.replication_factor < -1 || new.replication_factor == 0 {
            let message = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(Refusal::new(Kind::InvalidReplicationFactor, message));
        }
        if new.partitions < -1 || new.partitions == 0 {
            let message = "Number of partitions was set to an invalid non-positive value.";
            return Err(Refusal::new(Kind::InvalidPartitions, message));
        }
        let or = |value: i32, default: i32| usize::try_from(if value == -1 { default } else { value }).unwrap_or(0);
        let partitions = or(new.partitions, defaults.partitions);
        let replicas = or(new.replication_factor.into(), defaults.replication_factor.into());
        self.spread(partitions, replicas, new.start, is_alive)
    }

    fn spread(
        &self,
        partitions: usize,
        replicas: usize,
        start: u32,
        is_alive: &dyn Fn(BrokerId) -> bool,
    ) -> Result<Vec<Vec<BrokerId>>, Refusal> {
        let (alive, away): (Vec<_>, Vec<_>) = self.staying().partition(|broker| is_alive(*broker));
        // A broker that is away for a while is filled when it is back: most replicas have to be there, as they have to for every write.
        let is_enough = replicas <= alive.len() + away.len() && replicas < 2 * alive.len().min(replicas);
        if replicas == 0 || !is_enough {
            let message = format!(
                "Unable to replicate the partition {replicas} time(s): The target replication factor of {replicas} cannot \
                 be reached because only {} broker(s) are registered or some brokers have all their log directories cordoned.",
                alive.len()
            );
            return Err(Refusal::new(Kind::InvalidReplicationFactor, message));
        }
        let mut placed = spread(&alive, partitions, replicas.min(alive.len()), start);
        for brokers in &mut placed {
            let missing = replicas - brokers.len();
            brokers.extend(away.iter().take(missing));
        }
        Ok(placed)
    }

    /// The brokers that a client chose for a new topic.
    fn check_manual(&self, new: &NewTopic) -> Result<Vec<Vec<BrokerId>>, Refusal> {
        let not_default = |what: &str| {
            let message = format!("A manual partition assignment was specified, but {what} was not set to -1.");
            Err(Refusal::new(Kind::InvalidRequest, message))
        };
        if new.replication_factor != -1 {
            return not_default("replication factor");
        }
        if new.partitions != -1 {
            return not_default("numPartitions");
        }
        let mut chosen = BTreeMap::new();
        let mut replicas = None;
        for (partition, brokers) in &new.assignments {
            if chosen.insert(*partition, brokers.clone()).is_some() {
                let message = format!("Found multiple manual partition assignments for partition {partition}");
                return Err(Refusal::new(Kind::InvalidReplicaAssignment, message));
            }
            self.check_assignment(brokers, replicas)?;
            self.check_none_draining(brokers)?;
            replicas = Some(brokers.len());
        }
        if !chosen.keys().copied().eq((0..).take(chosen.len())) {
            let message = "partitions should be a consecutive 0-based integer sequence";
            return Err(Refusal::new(Kind::InvalidReplicaAssignment, message));
        }
        Ok(chosen.into_values().collect())
    }

    /// The brokers that a client chose for one partition; `replicas` is how many those before have.
    pub(super) fn check_assignment(&self, brokers: &[BrokerId], replicas: Option<usize>) -> Result<(), Refusal> {
        let refuse = |message: String| Err(Refusal::new(Kind::InvalidReplicaAssignment, message));
        if brokers.is_empty() {
            return refuse("The manual partition assignment includes an empty replica list.".to_owned());
        }
        let mut sorted = brokers.to_vec();
        sorted.sort_unstable();
        let mut before = None;
        for broker in sorted {
            if !self.brokers.contains_key(&broker) {
                let what = format!("broker {broker}, but no such broker is registered.");
                return refuse(format!("The manual partition assignment includes {what}"));
            }
            if before == Some(broker) {
                return refuse(format!("The manual partition assignment includes the broker {broker} more than once."));
            }
            before = Some(broker);
        }
        match replicas {
            Some(replicas) if replicas != brokers.len() => refuse(format!(
                "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with \
                 previous partitions, which have {replicas} replica(s).",
                brokers.len()
            )),
            _ => Ok(()),
        }
    }

    /// Whether all these brokers may get new replicas.
    pub(super) fn check_none_draining(&self, brokers: &[BrokerId]) -> Result<(), Refusal> {
        match brokers.iter().find(|broker| self.is_draining(**broker)) {
            None => Ok(()),
            Some(broker) => {
                let message = format!(
                    "The manual partition assignment includes broker {broker}, which is being drained and gets no new replicas."
                );
                Err(Refusal::new(Kind::InvalidReplicaAssignment, message))
            }
        }
    }

    /// Gives each new replica an incarnation that no other has had.
    fn incarnate(&self, partitions: Vec<Vec<BrokerId>>, taken: &mut Taken) -> Vec<Vec<ReplicaId>> {
        let mut next = || {
            let incarnation = Incarnation(self.next_incarnation.plus(taken.incarnations).0);
            taken.incarnations += 1;
            incarnation
        };
        let mut replicas = |brokers: Vec<BrokerId>| {
            brokers.into_iter().map(|broker| ReplicaId { broker, incarnation: next() }).collect()
        };
        partitions.into_iter().map(&mut replicas).collect()
    }

    /// Deletes the topic of that name.
    ///
    /// # Errors
    /// [`Kind::UnknownTopic`].
    pub fn decide_delete_topic(&self, name: &str) -> Result<Record, Refusal> {
        self.topic(name).map(|topic| Record::TopicDeleted { topic: topic.id }).ok_or_else(Refusal::unknown_topic)
    }

    /// Deletes the topic of that id.
    ///
    /// # Errors
    /// [`Kind::UnknownTopicId`].
    pub fn decide_delete_topic_id(&self, id: TopicId) -> Result<Record, Refusal> {
        let unknown = || Refusal::new(Kind::UnknownTopicId, "This server does not host this topic ID.");
        self.topics.get(&id).map(|_| Record::TopicDeleted { topic: id }).ok_or_else(unknown)
    }

    /// Decides about each topic of a `CreatePartitions` request by itself, as [`Controller::decide_create_topics`] does.
    #[must_use]
    pub fn decide_create_partitions(
        &self,
        request: &[MorePartitions],
        is_alive: &dyn Fn(BrokerId) -> bool,
    ) -> Vec<Result<Record, Refusal>> {
        let twice = repeated(request.iter().map(|topic| topic.name.as_str()));
        let mut taken = Taken::default();
        let decide = |more: &MorePartitions| {
            if twice.contains(more.name.as_str()) {
                return Err(Refusal::new(Kind::InvalidRequest, "Duplicate topic name."));
            }
            self.decide_more_partitions(more, is_alive, &mut taken)
        };
        request.iter().map(decide).collect()
    }

    fn decide_more_partitions(
        &self,
        more: &MorePartitions,
        is_alive: &dyn Fn(BrokerId) -> bool,
        taken: &mut Taken,
    ) -> Result<Record, Refusal> {
        let topic = self.topic(&more.name).ok_or_else(Refusal::unknown_topic)?;
        let present = i32::try_from(topic.partitions.len()).expect("limited at creation");
        let refuse = |message| Err(Refusal::new(Kind::InvalidPartitions, message));
        if more.count == present {
            return refuse(format!("Topic already has {present} partition(s)."));
        }
        if more.count < present {
            let (name, count) = (&more.name, more.count);
            return refuse(format!(
                "The topic {name} currently has {present} partition(s); {count} would not be an increase."
            ));
        }
        let added = usize::try_from(more.count - present).expect("an increase");
        let replicas = topic.partitions[0].len();
        let brokers = match &more.assignments {
            Some(chosen) if chosen.len() != added => {
                let message = format!(
                    "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
                    chosen.len()
                );
                return Err(Refusal::new(Kind::InvalidReplicaAssignment, message));
            }
            _ if added.saturating_add(taken.partitions) > PARTITIONS_PER_REQUEST_MAX => {
                return Err(Refusal::new(Kind::Limit, "Excessively large number of partitions per request."));
            }
            Some(chosen) => {
                chosen.iter().try_for_each(|brokers| {
                    self.check_assignment(brokers, Some(replicas)).and_then(|()| self.check_none_draining(brokers))
                })?;
                chosen.clone()
            }
            None => self.spread(added, replicas, more.start, is_alive)?,
        };
        if self.partitions + taken.partitions + added > PARTITIONS_MAX {
            return Err(too_many_partitions());
        }
        taken.partitions += added;
        let partitions = self.incarnate(brokers, taken);
        Ok(Record::PartitionsAdded { topic: topic.id, first: PartitionIndex(present), partitions })
    }
}

/// The configs of a new topic; of a name given twice the last value holds, as in Kafka.
fn check_new_configs(configs: &[(String, Option<String>)]) -> Result<Values, Refusal> {
    let without: Vec<_> = configs.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_str()).collect();
    if !without.is_empty() {
        let message = format!("Null value not supported for topic configs: {}", without.join(","));
        return Err(Refusal::new(Kind::InvalidConfig, message));
    }
    let values = configs.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
    topic_config::check_topic(&values)?;
    Ok(values)
}

fn too_many_partitions() -> Refusal {
    Refusal::new(Kind::Limit, format!("A cluster holds at most {PARTITIONS_MAX} partitions."))
}

fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}
