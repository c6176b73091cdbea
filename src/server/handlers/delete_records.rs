//! DeleteRecords: moves the start of partitions forward. Log start is replicated state: answered when the move is committed.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::time::{Instant, timeout_at};

use crate::ids::{Offset, PartitionId, PartitionIndex, TopicId};
use crate::machine::controller::names::is_internal;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use crate::protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use crate::server::dispatch::Call;
use crate::server::error;

/// An offset that stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;
/// Moves that one request has under way at the same time.
const MOVES_MAX: usize = 64;

/// Handles one DeleteRecords request.
pub async fn handle(call: &Call, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let deadline = Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let id = call.context.controller.topic_id(&topic.name);
        let is_internal = is_internal(&topic.name) && id.is_some();
        // Of a partition that is named more than once, the last wish counts.
        let asked: BTreeMap<i32, DeleteRecordsPartition> =
            topic.partitions.into_iter().map(|asked| (asked.partition_index, asked)).collect();
        let moves = stream::iter(asked.into_values()).map(async |asked| {
            let moved = match is_internal {
                true => Err(ErrorCode::INVALID_TOPIC_EXCEPTION),
                false => move_start(call, id, &asked, deadline).await,
            };
            let (low_watermark, error_code) = match moved {
                Ok(start) => (start.0, ErrorCode::NONE),
                Err(code) => (-1, code),
            };
            call.context.metrics.error(call.header.api.key(), error_code.0);
            DeleteRecordsPartitionResult { partition_index: asked.partition_index, low_watermark, error_code }
        });
        let partitions = moves.buffered(MOVES_MAX).collect().await;
        topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    DeleteRecordsResponse { topics, ..Default::default() }
}

async fn move_start(
    call: &Call,
    topic: Option<TopicId>,
    asked: &DeleteRecordsPartition,
    deadline: Instant,
) -> Result<Offset, ErrorCode> {
    let topic = topic.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    let id = PartitionId { topic, partition: PartitionIndex(asked.partition_index) };
    let replica = call.context.replicas.get(id).ok_or_else(|| error::missing_partition(&call.context, id))?;
    let marks = replica.watermarks();
    marks.term.ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)?;
    if !replica.config().delete {
        // Only compaction may take records out of the topic.
        return Err(ErrorCode::POLICY_VIOLATION);
    }
    let to = if asked.offset == HIGH_WATERMARK { marks.high_watermark } else { Offset(asked.offset) };
    if to < Offset(0) || to > marks.high_watermark {
        return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
    }
    if to > marks.log_start {
        let moved = timeout_at(deadline, replica.move_log_start(to)).await;
        // It may still be made; asking again tells.
        moved.map_err(|_| ErrorCode::REQUEST_TIMED_OUT)?.map_err(|refused| error::submit(&refused))?;
    }
    Ok(replica.watermarks().log_start)
}
