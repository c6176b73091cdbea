//! OffsetDelete (KIP-496).

use super::group;
use crate::ids::{PartitionId, PartitionIndex, TopicId};
use crate::machine::groups::Answer;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::offset_delete::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use crate::protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// Handles one OffsetDelete request.
pub async fn handle(call: &Call, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    if request.group_id.is_empty() {
        return OffsetDeleteResponse { error_code: ErrorCode::INVALID_GROUP_ID, ..Default::default() };
    }
    let id = request.group_id.detached();
    let wanted: Vec<(Text, Vec<PartitionIndex>)> = request
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| PartitionIndex(partition.partition_index));
            let topic_id = call.context.controller.topic_id(&topic.name);
            (topic.name.detached(), partitions.filter(|partition| is_there(call, topic_id, *partition)).collect())
        })
        .collect();
    let asked = group::ask(call, &request.group_id, true, move |turn, ticket| {
        turn.coordinator.delete_offsets(&id, &wanted, turn.committed, ticket, turn.out);
    });
    let codes = match asked.await {
        Ok(Answer::Deleted(Ok(codes))) => codes,
        Ok(Answer::Deleted(Err(error_code))) | Err(error_code) => {
            return OffsetDeleteResponse { error_code, ..Default::default() };
        }
        Ok(other) => panic!("an offset delete was told {other:?}"),
    };
    let topics = request.topics.into_iter().zip(codes).map(|(topic, code)| {
        let topic_id = call.context.controller.topic_id(&topic.name);
        let partitions = topic.partitions.into_iter().map(|partition| {
            let partition_index = partition.partition_index;
            let is_there = is_there(call, topic_id, PartitionIndex(partition_index));
            let error_code = if is_there { code } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
            OffsetDeleteResponsePartition { partition_index, error_code }
        });
        OffsetDeleteResponseTopic { name: topic.name, partitions: partitions.collect() }
    });
    OffsetDeleteResponse { topics: topics.collect(), ..Default::default() }
}

fn is_there(call: &Call, topic: Option<TopicId>, partition: PartitionIndex) -> bool {
    topic.is_some_and(|topic| call.context.controller.has_partition(PartitionId { topic, partition }))
}
