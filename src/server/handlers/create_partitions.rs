//! CreatePartitions: adds partitions to topics (KIP-195).

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::alter::{self, not_made, refused};
use super::create_topics::wait_until_served;
use crate::ids::{BrokerId, TopicId};
use crate::machine::controller::topics::MorePartitions;
use crate::machine::controller::{Controller, Record};
use crate::protocol::messages::create_partitions::{CreatePartitionsTopic, CreatePartitionsTopicResult};
use crate::protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use crate::server::dispatch::Call;

/// Handles one CreatePartitions request.
pub async fn handle(call: &Call, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let deadline = Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let outcomes = widen(call, &request.topics, request.validate_only).await;
    if !request.validate_only {
        let ids: Vec<TopicId> = outcomes.iter().flatten().copied().collect();
        wait_until_served(call, &ids, deadline).await;
    }
    // A name that stands there twice is answered once.
    let mut seen = HashSet::new();
    let mut results = Vec::with_capacity(outcomes.len());
    for (topic, outcome) in request.topics.into_iter().zip(outcomes) {
        if seen.insert(topic.name.clone()) {
            let (error_code, error_message) = alter::told(call, outcome.map(drop));
            results.push(CreatePartitionsTopicResult { name: topic.name, error_code, error_message });
        }
    }
    CreatePartitionsResponse { results, ..Default::default() }
}

/// Decides about all topics on one committed state, and commits those that can be as one.
async fn widen(
    call: &Call,
    topics: &[CreatePartitionsTopic],
    validate_only: bool,
) -> Vec<Result<TopicId, alter::Refused>> {
    let wanted: Vec<MorePartitions> = topics.iter().map(|topic| wanted(call, topic)).collect();
    let decide = |controller: &Controller| {
        let decided = controller.decide_create_partitions(&wanted, &|broker| call.context.is_alive(broker));
        let records: Vec<Record> = match validate_only {
            true => Vec::new(),
            false => decided.iter().flatten().cloned().collect(),
        };
        Ok((records, decided))
    };
    match call.context.controller.change(decide).await {
        Ok(decided) => decided.into_iter().map(|widened| widened.map(id_of).map_err(refused)).collect(),
        Err(failure) => {
            let why = not_made(failure);
            topics.iter().map(|_| Err(why.clone())).collect()
        }
    }
}

fn wanted(call: &Call, topic: &CreatePartitionsTopic) -> MorePartitions {
    let brokers = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect();
    let assignments = topic.assignments.as_ref();
    MorePartitions {
        name: topic.name.to_string(),
        count: topic.count,
        assignments: assignments.map(|all| all.iter().map(|assignment| brokers(&assignment.broker_ids)).collect()),
        start: call.context.draw_start(),
    }
}

fn id_of(record: Record) -> TopicId {
    match record {
        Record::PartitionsAdded { topic, .. } => topic,
        other => panic!("partitions are added by their own record, not by {other:?}"),
    }
}
