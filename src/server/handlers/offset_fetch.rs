//! OffsetFetch: what is committed. An offset of a topic that was deleted, whatever has its name now, is none.

use std::collections::HashSet;

use super::group;
use crate::ids::PartitionIndex;
use crate::machine::groups::Answer;
use crate::machine::groups::offsets::ReaderOf;
use crate::machine::groups::record::Committed;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use crate::protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// The first version that asks for several groups (KIP-709).
const GROUPS_FROM: i16 = 8;
/// What stands for no offset and no epoch.
const NONE: i64 = -1;
const NO_EPOCH: i32 = -1;

/// Who reads in versions that do not say so.
const NOBODY: ReaderOf = ReaderOf { member_id: None, epoch: -1 };

/// What is wanted of a group: partitions by topic; all, if `None`.
type Wanted = Option<Vec<(Text, Vec<i32>)>>;

/// Handles one OffsetFetch request.
pub async fn handle(call: &Call, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if call.version() >= GROUPS_FROM {
        let mut groups = Vec::with_capacity(request.groups.len());
        let mut seen = HashSet::new();
        // Asked for once more, it is answered once: an answer may be large.
        for group in request.groups.into_iter().filter(|group| seen.insert(group.group_id.clone())) {
            groups.push(of_group(call, group).await);
        }
        return OffsetFetchResponse { groups, ..Default::default() };
    }
    let wanted = request.topics.map(|topics| {
        topics.into_iter().map(|topic| (topic.name.detached(), topic.partition_indexes)).collect::<Vec<_>>()
    });
    match fetch(call, &request.group_id, NOBODY, wanted.clone()).await {
        Ok(found) => OffsetFetchResponse { topics: topics(found).collect(), ..Default::default() },
        // Version 1 has no other place for an error.
        Err(error_code) => OffsetFetchResponse { error_code, topics: failed(wanted, error_code), ..Default::default() },
    }
}

async fn of_group(call: &Call, group: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let wanted = group.topics.map(|topics| {
        topics.into_iter().map(|topic| (topic.name.detached(), topic.partition_indexes)).collect::<Vec<_>>()
    });
    let group_id = group.group_id;
    let reader = ReaderOf { member_id: group.member_id.as_ref().map(Text::detached), epoch: group.member_epoch };
    match fetch(call, &group_id, reader, wanted).await {
        Ok(found) => {
            let topics = topics(found).map(|topic| OffsetFetchResponseTopics {
                name: topic.name,
                partitions: topic.partitions.into_iter().map(batched).collect(),
                ..Default::default()
            });
            OffsetFetchResponseGroup { group_id, topics: topics.collect(), ..Default::default() }
        }
        Err(error_code) => OffsetFetchResponseGroup { group_id, error_code, ..Default::default() },
    }
}

async fn fetch(
    call: &Call,
    group: &Text,
    reader: ReaderOf,
    wanted: Wanted,
) -> Result<Vec<(Text, PartitionIndex, Option<Committed>)>, ErrorCode> {
    let id = group.detached();
    let asked = group::ask(call, group, false, move |turn, ticket| {
        let found = turn.coordinator.fetch(&id, &reader, wanted.as_deref(), turn.committed);
        turn.out.answer(ticket, Answer::Fetched(found));
    });
    let mut found = match asked.await? {
        Answer::Fetched(found) => found?,
        other => panic!("an offset fetch was told {other:?}"),
    };
    for (topic, _, committed) in &mut found {
        let of = committed.as_ref().and_then(|committed| committed.topic);
        if of.is_some() && of != call.context.controller.topic_id(topic) {
            *committed = None;
        }
    }
    Ok(found)
}

/// As topics in the order in which they come.
fn topics(found: Vec<(Text, PartitionIndex, Option<Committed>)>) -> impl Iterator<Item = OffsetFetchResponseTopic> {
    let mut topics: Vec<OffsetFetchResponseTopic> = Vec::new();
    for (name, partition, committed) in found {
        let partition = shown(partition, committed);
        match topics.last_mut().filter(|last| last.name == name) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(OffsetFetchResponseTopic { name, partitions: vec![partition] }),
        }
    }
    topics.into_iter()
}

fn shown(partition: PartitionIndex, committed: Option<Committed>) -> OffsetFetchResponsePartition {
    let (offset, epoch, metadata) = match committed {
        Some(committed) => (committed.offset.0, committed.leader_epoch, committed.metadata),
        None => (NONE, NO_EPOCH, Text::default()),
    };
    OffsetFetchResponsePartition {
        partition_index: partition.0,
        committed_offset: offset,
        committed_leader_epoch: epoch,
        metadata: Some(metadata),
        error_code: ErrorCode::NONE,
    }
}

fn batched(partition: OffsetFetchResponsePartition) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    }
}

fn failed(wanted: Wanted, error_code: ErrorCode) -> Vec<OffsetFetchResponseTopic> {
    let topics = wanted.into_iter().flatten().map(|(name, partitions)| {
        let partitions = partitions
            .into_iter()
            .map(|partition| OffsetFetchResponsePartition { error_code, ..shown(PartitionIndex(partition), None) });
        OffsetFetchResponseTopic { name, partitions: partitions.collect() }
    });
    topics.collect()
}
