//! CreateTopics, and the topics that Metadata creates by the way.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::alter::{Refused, not_made, refused};
use super::describe_configs;
use crate::ids::{BrokerId, PartitionId, PartitionIndex, TopicId};
use crate::machine::controller::topics::{CreatedTopic, NewTopic, TopicDefaults};
use crate::machine::controller::{Controller, Record};
use crate::machine::topic_config::Values;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::create_topics::{CreatableTopic, CreatableTopicResult};
use crate::protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use crate::protocol::value::Text;
use crate::replica::set::Held;
use crate::server::dispatch::Call;

/// Topics of one request whose configs are in the answer: they take kilobytes each.
const CONFIGS_SHOWN_MAX: usize = 1000;

/// However little time a client gives: deciding takes the controller no more, unless it has no leader.
const DECIDE_TIME_MIN: Duration = Duration::from_millis(500);

/// What becomes of one topic.
type Made = Result<CreatedTopic, Refused>;

/// Handles one CreateTopics request.
pub async fn handle(call: &Call, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let deadline = Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let made =
        create(call, &request.topics, request.validate_only, deadline.max(Instant::now() + DECIDE_TIME_MIN)).await;
    if !request.validate_only {
        let ids = made.iter().flatten().map(id_of).collect::<Vec<_>>();
        wait_until_served(call, &ids, deadline).await;
    }
    // A name that stands there twice is answered once.
    let mut seen = HashSet::new();
    let mut topics = Vec::with_capacity(made.len());
    for (topic, made) in request.topics.into_iter().zip(made) {
        if seen.insert(topic.name.clone()) {
            let has_configs = topics.len() < CONFIGS_SHOWN_MAX;
            topics.push(result(call, topic.name, made, request.validate_only, has_configs));
        }
    }
    CreateTopicsResponse { topics, ..Default::default() }
}

/// Decides about all topics on one committed state, and commits those that can be as one.
async fn create(call: &Call, topics: &[CreatableTopic], validate_only: bool, deadline: Instant) -> Vec<Made> {
    let wanted: Vec<NewTopic> = topics.iter().map(|topic| wanted(call, topic)).collect();
    let configured = &call.context.topics;
    let decide = |controller: &Controller| {
        let replication_factor = configured.replication_factor.unwrap_or_else(|| usual_replicas(controller));
        let defaults = TopicDefaults { partitions: configured.partitions, replication_factor };
        let decided = controller.decide_create_topics(&wanted, defaults, &|broker| call.context.is_alive(broker));
        let records: Vec<Record> = match validate_only {
            true => Vec::new(),
            false => decided.iter().flatten().map(|created| created.record.clone()).collect(),
        };
        Ok((records, decided))
    };
    let change = tokio::time::timeout_at(deadline, call.context.controller.change(decide));
    let Ok(changed) = change.await else {
        let late = (ErrorCode::REQUEST_TIMED_OUT, "The controller has not decided in time.".to_owned());
        return topics.iter().map(|_| Err(late.clone())).collect();
    };
    match changed {
        Ok(decided) => decided.into_iter().map(|made| made.map_err(refused)).collect(),
        Err(failure) => {
            let why = not_made(failure);
            topics.iter().map(|_| Err(why.clone())).collect()
        }
    }
}

/// As many replicas as survive the loss of one, or as there are brokers for.
fn usual_replicas(controller: &Controller) -> i16 {
    i16::try_from(controller.staying().take(3).count()).expect("at most three")
}

fn wanted(call: &Call, topic: &CreatableTopic) -> NewTopic {
    let assignments = topic.assignments.iter().map(|assignment| {
        let brokers = assignment.broker_ids.iter().map(|broker| BrokerId(*broker)).collect();
        (assignment.partition_index, brokers)
    });
    let configs = topic.configs.iter();
    let configs = configs.map(|config| (config.name.to_string(), config.value.as_deref().map(str::to_owned)));
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: assignments.collect(),
        configs: configs.collect(),
        id: call.context.draw_topic_id(),
        start: call.context.draw_start(),
    }
}

/// The id and the configs that a topic was created with.
fn parts(created: &CreatedTopic) -> (TopicId, &Values) {
    match &created.record {
        Record::TopicCreated(topic) => (topic.id, &topic.configs),
        other => panic!("a topic is created by its own record, not by {other:?}"),
    }
}

fn id_of(created: &CreatedTopic) -> TopicId {
    parts(created).0
}

/// Waits until this broker serves the topics' partitions, so that the client's next request finds them. The topics exist in any
/// case: a client that comes too soon is told to ask again.
pub(super) async fn wait_until_served(call: &Call, topics: &[TopicId], deadline: Instant) -> bool {
    let context = &call.context;
    let partitions: Vec<PartitionId> = context.controller.read(|controller| {
        let topics = topics.iter().filter_map(|id| controller.topic_by_id(*id));
        let ids = topics.flat_map(|topic| {
            let partitions = (0..).take(topic.partitions.len()).map(PartitionIndex);
            partitions.map(|partition| PartitionId { topic: topic.id, partition })
        });
        ids.collect()
    });
    let left = deadline.saturating_duration_since(Instant::now());
    let is_served = |id: &PartitionId| match context.replicas.held(*id) {
        Some(Held::Offline(_)) => true,
        Some(Held::Open(_)) | None => context.leader(*id).is_some(),
    };
    context.controller.wait_served(left, || partitions.iter().all(is_served)).await
}

fn result(call: &Call, name: Text, made: Made, validate_only: bool, has_configs: bool) -> CreatableTopicResult {
    match made {
        Ok(created) => {
            let (id, configs) = parts(&created);
            CreatableTopicResult {
                name,
                // A topic that was only checked has no id.
                topic_id: if validate_only { TopicId::ZERO } else { id },
                num_partitions: created.partitions,
                replication_factor: created.replication_factor,
                configs: has_configs.then(|| describe_configs::of_new_topic(&call.context, configs)),
                ..Default::default()
            }
        }
        Err((error_code, message)) => {
            call.context.metrics.error(call.header.api.key(), error_code.0);
            let error_message = Some(message.into());
            CreatableTopicResult { name, error_code, error_message, configs: Some(Vec::new()), ..Default::default() }
        }
    }
}

/// Creates a topic with the broker's defaults because a client asked for its metadata, and waits until it is served.
///
/// # Errors
/// What Metadata says of it.
pub(super) async fn create_automatically(call: &Call, name: &Text, deadline: Instant) -> Result<(), ErrorCode> {
    let topic = CreatableTopic { name: name.clone(), num_partitions: -1, replication_factor: -1, ..Default::default() };
    create_and_wait(call, topic, deadline).await
}

/// Creates a topic unless it is there, and waits until it is served.
///
/// # Errors
/// Why it is not.
pub(super) async fn create_and_wait(call: &Call, topic: CreatableTopic, deadline: Instant) -> Result<(), ErrorCode> {
    match create(call, std::slice::from_ref(&topic), false, deadline).await.pop() {
        Some(Ok(created)) => match wait_until_served(call, &[id_of(&created)], deadline).await {
            true => Ok(()),
            false => Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        },
        // Somebody was faster.
        Some(Err((ErrorCode::TOPIC_ALREADY_EXISTS, _))) => Ok(()),
        Some(Err((ErrorCode::NOT_CONTROLLER | ErrorCode::REQUEST_TIMED_OUT, _))) | None => {
            Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
        }
        Some(Err((code, _))) => Err(code),
    }
}
