//! OffsetForLeaderEpoch: where a leader epoch ends (KIP-320), so that a consumer notices that its position was cut off.

use crate::ids::{PartitionId, PartitionIndex, Term, TopicId};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use crate::protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use crate::server::dispatch::Call;
use crate::server::error;

/// Handles one OffsetForLeaderEpoch request.
pub async fn handle(call: &Call, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let id = call.context.controller.topic_id(&topic.topic);
        let partitions = topic.partitions.iter().map(|asked| match end_of_epoch(call, id, asked) {
            Ok(end) => end,
            Err(error_code) => EpochEndOffset { error_code, partition: asked.partition, ..Default::default() },
        });
        OffsetForLeaderTopicResult { partitions: partitions.collect(), topic: topic.topic }
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() }
}

fn end_of_epoch(
    call: &Call,
    topic: Option<TopicId>,
    asked: &OffsetForLeaderPartition,
) -> Result<EpochEndOffset, ErrorCode> {
    let topic = topic.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    let id = PartitionId { topic, partition: PartitionIndex(asked.partition) };
    let replica = call.context.replicas.get(id).ok_or_else(|| error::missing_partition(&call.context, id))?;
    error::leader_epoch(replica.term(), asked.current_leader_epoch)?;
    let epoch = u64::try_from(asked.leader_epoch).ok().map(Term);
    let end = epoch.and_then(|epoch| replica.log().end_of_epoch(epoch));
    let (leader_epoch, end_offset) = end.map_or((-1, -1), |(term, offset)| (term.epoch(), offset.0));
    Ok(EpochEndOffset { error_code: ErrorCode::NONE, partition: asked.partition, leader_epoch, end_offset })
}
