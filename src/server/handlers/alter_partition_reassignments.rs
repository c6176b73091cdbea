//! AlterPartitionReassignments: moves replicas of partitions to other brokers, or calls that off (KIP-455).

use super::alter::{self, not_made, refused};
use crate::ids::BrokerId;
use crate::machine::controller::Controller;
use crate::machine::controller::reassign::Reassignment;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::alter_partition_reassignments::{
    ReassignablePartitionResponse, ReassignableTopic, ReassignableTopicResponse,
};
use crate::protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};
use crate::server::dispatch::Call;

/// Handles one AlterPartitionReassignments request. It is answered when the moves are begun; ListPartitionReassignments tells when they are over.
pub async fn handle(call: &Call, request: AlterPartitionReassignmentsRequest) -> AlterPartitionReassignmentsResponse {
    // What older versions cannot say stays as Kafka has it.
    let may_resize = request.allow_replication_factor_change;
    let empty = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: may_resize,
        ..AlterPartitionReassignmentsResponse::default()
    };
    if request.topics.is_empty() {
        // Kafka's word for nothing to say, here alone.
        return AlterPartitionReassignmentsResponse {
            allow_replication_factor_change: true,
            error_message: Some("".into()),
            ..empty
        };
    }
    let wanted: Vec<Reassignment> = request.topics.iter().flat_map(wanted).collect();
    let decide = |controller: &Controller| {
        let decided = controller.decide_reassign(&wanted, may_resize);
        let records = decided.iter().flatten().flatten().cloned().collect();
        Ok((records, decided))
    };
    let decided = match call.context.controller.change(decide).await {
        Ok(decided) => decided,
        Err(failure) => {
            let (error_code, why) = not_made(failure);
            call.context.metrics.error(call.header.api.key(), error_code.0);
            return AlterPartitionReassignmentsResponse { error_code, error_message: Some(why.into()), ..empty };
        }
    };
    let mut outcomes = decided.into_iter();
    let responses = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let outcome = outcomes.next().map_or(Ok(()), |outcome| outcome.map(drop).map_err(refused));
            let (error_code, error_message) = alter::told(call, outcome);
            ReassignablePartitionResponse { partition_index: partition.partition_index, error_code, error_message }
        });
        let partitions = partitions.collect();
        ReassignableTopicResponse { name: topic.name, partitions }
    });
    AlterPartitionReassignmentsResponse { error_code: ErrorCode::NONE, responses: responses.collect(), ..empty }
}

fn wanted(topic: &ReassignableTopic) -> impl Iterator<Item = Reassignment> {
    topic.partitions.iter().map(|partition| Reassignment {
        topic: topic.name.to_string(),
        partition: partition.partition_index,
        brokers: partition.replicas.as_ref().map(|brokers| brokers.iter().copied().map(BrokerId).collect()),
    })
}
