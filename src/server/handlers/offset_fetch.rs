//! OffsetFetch: what is committed. An offset of a topic that was deleted, whatever has its name now, is none.

use std::collections::HashSet;

use super::group;
use crate::ids::{PartitionIndex, TopicId};
use crate::machine::groups::Answer;
use crate::machine::groups::offsets::ReaderOf;
use crate::machine::groups::record::Committed;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use crate::protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// The first version that asks for several groups (KIP-709).
const GROUPS_FROM: i16 = 8;
/// The first version that names topics by id (KIP-848).
const IDS_FROM: i16 = 10;
/// What stands for no offset and no epoch.
const NONE: i64 = -1;
const NO_EPOCH: i32 = -1;

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
    let named = |topic: OffsetFetchRequestTopic| (topic.name.detached(), topic.partition_indexes);
    let wanted: Wanted = request.topics.map(|topics| topics.into_iter().map(named).collect());
    let group = OffsetFetchRequestGroup { group_id: request.group_id, ..Default::default() };
    match fetch(call, &group, wanted.clone()).await {
        Ok(topics) => OffsetFetchResponse { topics, ..Default::default() },
        // Version 1 has no other place for an error.
        Err(error_code) => OffsetFetchResponse { error_code, topics: failed(wanted, error_code), ..Default::default() },
    }
}

async fn of_group(call: &Call, mut group: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let mut asked = Asked::default();
    let wanted = group.topics.take().map(|topics| asked.names(call, topics));
    let found = fetch(call, &group, wanted).await;
    let group_id = group.group_id;
    match found {
        Ok(found) => OffsetFetchResponseGroup { group_id, topics: asked.answer(call, found), ..Default::default() },
        Err(error_code) => OffsetFetchResponseGroup { group_id, error_code, ..Default::default() },
    }
}

/// The topics that a group was asked for, where they are named by id.
#[derive(Default)]
struct Asked {
    names: group::Names,
    /// Those that there are, in order.
    ids: Vec<TopicId>,
    /// Those that there are not.
    unknown: Vec<OffsetFetchRequestTopics>,
}

impl Asked {
    /// What is wanted, by name.
    fn names(&mut self, call: &Call, topics: Vec<OffsetFetchRequestTopics>) -> Vec<(Text, Vec<i32>)> {
        let mut wanted = Vec::with_capacity(topics.len());
        for topic in topics {
            if call.version() < IDS_FROM {
                wanted.push((topic.name.detached(), topic.partition_indexes));
            } else if let Some(name) = self.names.of(call, topic.topic_id) {
                self.ids.push(topic.topic_id);
                wanted.push((name, topic.partition_indexes));
            } else {
                self.unknown.push(topic);
            }
        }
        wanted
    }

    /// What was found, and behind it what there is not. A topic that nobody asked for has the id that its name has now.
    fn answer(self, call: &Call, found: Vec<OffsetFetchResponseTopic>) -> Vec<OffsetFetchResponseTopics> {
        let mut ids = self.ids.into_iter();
        let found = found.into_iter().filter_map(|OffsetFetchResponseTopic { name, partitions }| {
            let topic_id = match call.version() >= IDS_FROM {
                // One that went away meanwhile cannot be named.
                true => ids.next().or_else(|| call.context.controller.topic_id(&name))?,
                false => TopicId::ZERO,
            };
            let partitions = partitions.into_iter().map(batched).collect();
            Some(OffsetFetchResponseTopics { name, topic_id, partitions })
        });
        let unknown = self.unknown.iter().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|partition| OffsetFetchResponsePartitions {
                error_code: ErrorCode::UNKNOWN_TOPIC_ID,
                ..batched(shown(PartitionIndex(*partition), None))
            });
            OffsetFetchResponseTopics {
                topic_id: topic.topic_id,
                partitions: partitions.collect(),
                ..Default::default()
            }
        });
        found.chain(unknown).collect()
    }
}

/// Asks the coordinator of the group, of which all but the topics counts. The answer is as what was asked for: topic by topic.
async fn fetch(
    call: &Call,
    group: &OffsetFetchRequestGroup,
    wanted: Wanted,
) -> Result<Vec<OffsetFetchResponseTopic>, ErrorCode> {
    let id = group.group_id.detached();
    let reader = ReaderOf { member_id: group.member_id.as_ref().map(Text::detached), epoch: group.member_epoch };
    let shape: Option<Vec<(Text, usize)>> =
        wanted.as_ref().map(|wanted| wanted.iter().map(|(name, indexes)| (name.clone(), indexes.len())).collect());
    let asked = group::ask(call, &group.group_id, false, move |turn, ticket| {
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
    let Some(shape) = shape else { return Ok(all(found)) };
    let mut found = found.into_iter().map(|(_, partition, committed)| shown(partition, committed));
    let topic = |(name, count)| OffsetFetchResponseTopic { name, partitions: found.by_ref().take(count).collect() };
    Ok(shape.into_iter().map(topic).collect())
}

type Found = (Text, PartitionIndex, Option<Committed>);

/// All that there is, as topics in the order in which they come. What is of a topic that was deleted is not there.
fn all(found: Vec<Found>) -> Vec<OffsetFetchResponseTopic> {
    let mut topics: Vec<OffsetFetchResponseTopic> = Vec::new();
    for (name, partition, committed) in found.into_iter().filter(|(_, _, committed)| committed.is_some()) {
        let partition = shown(partition, committed);
        match topics.last_mut().filter(|last| last.name == name) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(OffsetFetchResponseTopic { name, partitions: vec![partition] }),
        }
    }
    topics
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
