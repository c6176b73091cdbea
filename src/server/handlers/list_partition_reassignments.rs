//! ListPartitionReassignments: the moves of replicas that are under way (KIP-455).

use std::collections::BTreeMap;

use crate::ids::BrokerId;
use crate::machine::controller::Controller;
use crate::machine::controller::reassign::Reassigning;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::list_partition_reassignments::{
    ListPartitionReassignmentsTopics, OngoingPartitionReassignment, OngoingTopicReassignment,
};
use crate::protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};
use crate::server::dispatch::Call;

/// Handles one ListPartitionReassignments request.
pub async fn handle(call: &Call, request: ListPartitionReassignmentsRequest) -> ListPartitionReassignmentsResponse {
    let controller = &call.context.controller;
    // Whoever waits for the end of a move that it has begun elsewhere must not be told that there is none.
    if !controller.catch_up_soon().await {
        let error_code = ErrorCode::NOT_CONTROLLER;
        call.context.metrics.error(call.header.api.key(), error_code.0);
        let why = "The controller is not available.";
        return ListPartitionReassignmentsResponse {
            error_code,
            error_message: Some(why.into()),
            ..Default::default()
        };
    }
    let topics = controller.read(|controller| match &request.topics {
        None => all(controller),
        Some(topics) => topics.iter().filter_map(|topic| of_topic(controller, topic)).collect(),
    });
    ListPartitionReassignmentsResponse { topics, ..Default::default() }
}

fn all(controller: &Controller) -> Vec<OngoingTopicReassignment> {
    let mut found: BTreeMap<&str, Vec<OngoingPartitionReassignment>> = BTreeMap::new();
    for (id, _) in controller.all_moving() {
        if let (Some(topic), Some(moving)) = (controller.topic_by_id(id.topic), controller.reassigning(id)) {
            found.entry(&topic.name).or_default().push(told(id.partition.0, moving));
        }
    }
    found.into_iter().map(|(name, partitions)| OngoingTopicReassignment { name: name.into(), partitions }).collect()
}

fn of_topic(controller: &Controller, topic: &ListPartitionReassignmentsTopics) -> Option<OngoingTopicReassignment> {
    let partition = |index: &i32| {
        let id = controller.find_partition(&topic.name, *index).ok()?;
        Some(told(*index, controller.reassigning(id)?))
    };
    let partitions: Vec<_> = topic.partition_indexes.iter().filter_map(partition).collect();
    (!partitions.is_empty()).then(|| OngoingTopicReassignment { name: topic.name.clone(), partitions })
}

fn told(partition_index: i32, moving: Reassigning) -> OngoingPartitionReassignment {
    let ids = |brokers: Vec<BrokerId>| brokers.into_iter().map(|broker| broker.0).collect();
    OngoingPartitionReassignment {
        partition_index,
        replicas: ids(moving.replicas),
        adding_replicas: ids(moving.adding),
        removing_replicas: ids(moving.removing),
    }
}
