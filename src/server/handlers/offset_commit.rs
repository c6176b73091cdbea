//! OffsetCommit: for topics that are there, and with no more metadata than is allowed.

use super::group;
use crate::ids::{Offset, PartitionId, PartitionIndex, Timestamp, TopicId};
use crate::machine::groups::classic::MemberOf;
use crate::machine::groups::offsets::Commit;
use crate::machine::groups::record::Committed;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::offset_commit::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// The most that a client may keep with an offset: Kafka's `offset.metadata.max.bytes`.
const METADATA_BYTES_MAX: usize = 4096;
/// The first version whose clients know member epochs, and that a group may be missing.
const MEMBER_EPOCHS_FROM: i16 = 9;
/// The first version that names topics by id (KIP-848).
const IDS_FROM: i16 = 10;

/// Handles one OffsetCommit request.
pub async fn handle(call: &Call, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let now = call.context.clock.now();
    let expires = Some(request.retention_time_ms).filter(|ms| *ms >= 0).map(|ms| Timestamp(now.0.saturating_add(ms)));
    let mut names = group::Names::default();
    let mut offsets = Vec::new();
    let mut topics: Vec<OffsetCommitResponseTopic> = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let found = find(call, &mut names, topic);
        let partitions = topic.partitions.iter().map(|partition| {
            let checked = check(call, &found, partition).map(|(id, name)| {
                let committed = Committed {
                    offset: Offset(partition.committed_offset),
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata.as_ref().map(Text::detached).unwrap_or_default(),
                    at: now,
                    expires,
                    topic: Some(id),
                };
                offsets.push((name, PartitionIndex(partition.partition_index), committed));
            });
            let error_code = checked.err().unwrap_or(ErrorCode::NONE);
            OffsetCommitResponsePartition { partition_index: partition.partition_index, error_code }
        });
        let partitions = partitions.collect();
        topics.push(OffsetCommitResponseTopic { name: topic.name.clone(), topic_id: topic.topic_id, partitions });
    }
    let code = commit(call, &request, offsets).await;
    if code.is_error() {
        let partitions = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        partitions.filter(|it| !it.error_code.is_error()).for_each(|partition| partition.error_code = code);
    }
    OffsetCommitResponse { topics, ..Default::default() }
}

/// A topic's id and name.
type Found = (TopicId, Text);

/// The topic that is meant.
fn find(call: &Call, names: &mut group::Names, topic: &OffsetCommitRequestTopic) -> Result<Found, ErrorCode> {
    if call.version() >= IDS_FROM {
        let name = names.of(call, topic.topic_id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
        return Ok((topic.topic_id, name));
    }
    let id = call.context.controller.topic_id(&topic.name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    Ok((id, topic.name.detached()))
}

fn check(
    call: &Call,
    topic: &Result<Found, ErrorCode>,
    partition: &OffsetCommitRequestPartition,
) -> Result<Found, ErrorCode> {
    let (topic, name) = topic.clone()?;
    let id = PartitionId { topic, partition: PartitionIndex(partition.partition_index) };
    if !call.context.controller.has_partition(id) {
        return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
    let metadata = partition.committed_metadata.as_ref().map_or(0, |metadata| metadata.len());
    if metadata > METADATA_BYTES_MAX { Err(ErrorCode::OFFSET_METADATA_TOO_LARGE) } else { Ok((topic, name)) }
}

async fn commit(
    call: &Call,
    request: &OffsetCommitRequest,
    offsets: Vec<(Text, PartitionIndex, Committed)>,
) -> ErrorCode {
    let id = request.group_id.detached();
    let member = MemberOf {
        member_id: request.member_id.detached(),
        instance_id: request.group_instance_id.as_ref().map(Text::detached),
        generation: request.generation_id_or_member_epoch,
    };
    let knows_member_epochs = call.version() >= MEMBER_EPOCHS_FROM;
    let asked = group::ask(call, &request.group_id, false, move |turn, ticket| {
        let commit = Commit { ticket, member, offsets, knows_member_epochs };
        turn.coordinator.commit(turn.now, &id, commit, turn.out);
    });
    group::code(asked.await)
}
