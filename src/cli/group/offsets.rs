//! How far a group has come, beside where its partitions begin and end.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::described::{Group, Share, described};
use crate::cli::client::{Client, ClientError, ListOffsets};
use crate::cli::connect::Failure;
use crate::protocol::api::ApiKey;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::metadata::MetadataResponseTopic;
use crate::protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use crate::protocol::messages::offset_fetch::OffsetFetchRequestGroup;
use crate::protocol::messages::{OffsetCommitRequest, OffsetFetchRequest};

/// The first version of OffsetFetch that asks for several groups (KIP-709).
const GROUPS_FROM: i16 = 8;

/// A partition, by topic and number.
pub(in crate::cli) type Partition = (String, i32);

/// A group's offset in one partition, and where that begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// None for a partition that a member has, and of which nothing was committed yet: only the member knows where it begins.
    pub(super) committed: Option<i64>,
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Standing {
    /// Records that the group has not read, of those that are still there.
    pub(super) fn lag(self) -> Option<i64> {
        self.committed.map(|committed| self.end.saturating_sub(committed.max(self.start)).max(0))
    }

    pub(super) fn json(self, partition: &Partition) -> Value {
        json!({"topic": partition.0, "partition": partition.1, "committed": self.committed, "log_start_offset": self.start,
               "high_watermark": self.end, "lag": self.lag()})
    }

    pub(super) fn row(self, partition: &Partition) -> [String; 6] {
        let numbers = [self.committed, Some(self.start), Some(self.end), self.lag()];
        let [committed, start, end, lag] =
            numbers.map(|number| number.map_or_else(|| "-".to_owned(), |number| number.to_string()));
        [partition.0.clone(), partition.1.to_string(), committed, start, end, lag]
    }
}

/// The columns of [`Standing::row`].
pub(super) const COLUMNS: [&str; 6] = ["TOPIC", "PARTITION", "COMMITTED", "LOG-START", "HIGH-WATERMARK", "LAG"];

/// Every offset that a group has committed.
pub(in crate::cli) async fn committed(
    client: &mut Client,
    group: &str,
) -> Result<BTreeMap<Partition, i64>, ClientError> {
    let coordinator = client.coordinator(group).await?;
    let version = client.broker(coordinator).await?.version(ApiKey::OffsetFetch)?;
    let mut request = OffsetFetchRequest::default();
    if version >= GROUPS_FROM {
        let all = OffsetFetchRequestGroup { group_id: group.into(), topics: None, ..Default::default() };
        request.groups = vec![all];
    } else {
        (request.group_id, request.topics) = (group.into(), None);
    }
    let response = client.ask_broker(coordinator, &request).await?;
    let refused = |code| ClientError::Refused { what: format!("OffsetFetch of group {group}"), code, message: None };
    let codes = response.groups.iter().map(|group| group.error_code).chain([response.error_code]);
    if let Some(code) = codes.into_iter().find(|code| code.is_error()) {
        return Err(refused(code));
    }
    let mut found = BTreeMap::new();
    for topic in &response.topics {
        let of = topic.partitions.iter().map(|it| ((topic.name.to_string(), it.partition_index), it.committed_offset));
        found.extend(of);
    }
    for topic in response.groups.iter().flat_map(|group| &group.topics) {
        let of = topic.partitions.iter().map(|it| ((topic.name.to_string(), it.partition_index), it.committed_offset));
        found.extend(of);
    }
    found.retain(|_, offset| *offset >= 0);
    Ok(found)
}

/// Where the group stands: in each partition that it has committed an offset of, and in those that its members have. Topics that are gone are
/// left out.
pub(super) async fn standings(
    client: &mut Client,
    name: &str,
    group: &Group,
) -> Result<BTreeMap<Partition, Standing>, Failure> {
    let mut offsets: BTreeMap<Partition, Option<i64>> = BTreeMap::new();
    for member in &group.members {
        let Share::Partitions(share) = &member.share else { continue };
        let all = share.iter().flat_map(|(topic, partitions)| partitions.iter().map(|it| (topic.clone(), *it)));
        offsets.extend(all.map(|partition| (partition, None)));
    }
    offsets.extend(committed(client, name).await?.into_iter().map(|(partition, offset)| (partition, Some(offset))));
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in offsets.keys() {
        topics.entry(topic).or_default().push(*partition);
    }
    let mut standings = BTreeMap::new();
    for (name, partitions) in topics {
        let topic = match client.topic(name, false).await {
            Ok(topic) => topic,
            Err(error) if error.code().is_some() => continue,
            Err(error) => return Err(error.into()),
        };
        let (start, end) = bounds(client, &topic, &partitions).await?;
        for partition in partitions {
            let (Some(start), Some(end)) = (start.get(&partition), end.get(&partition)) else { continue };
            let key = (name.to_owned(), partition);
            let standing = Standing { committed: offsets[&key], start: *start, end: *end };
            standings.insert(key, standing);
        }
    }
    Ok(standings)
}

async fn bounds(
    client: &mut Client,
    topic: &MetadataResponseTopic,
    partitions: &[i32],
) -> Result<(BTreeMap<i32, i64>, BTreeMap<i32, i64>), ClientError> {
    let there: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
    let wanted: Vec<i32> = partitions.iter().copied().filter(|partition| there.contains(partition)).collect();
    let start = client.list_offsets(topic, &wanted, ListOffsets::Start).await?;
    let end = client.list_offsets(topic, &wanted, ListOffsets::End).await?;
    let offsets = |found: BTreeMap<i32, crate::cli::client::Found>| {
        found.into_iter().map(|(partition, found)| (partition, found.offset)).collect()
    };
    Ok((offsets(start), offsets(end)))
}

/// Who has to leave before the group's offsets can be set, as words; nothing if it has no members, or is not there yet.
pub(super) async fn in_the_way(client: &mut Client, group: &str) -> Result<Option<String>, Failure> {
    match described(client, group).await {
        Ok(found) => Ok(match found.members.len() {
            0 => None,
            1 => Some("its member".to_owned()),
            more => Some(format!("its {more} members")),
        }),
        Err(Failure::NoGroup(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Commits offsets for a group that has no members.
pub(super) async fn commit(
    client: &mut Client,
    group: &str,
    offsets: &BTreeMap<Partition, i64>,
) -> Result<(), Failure> {
    let coordinator = client.coordinator(group).await?;
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition), offset) in offsets {
        topics.entry(topic).or_default().push(OffsetCommitRequestPartition {
            partition_index: *partition,
            committed_offset: *offset,
            ..Default::default()
        });
    }
    let topic = |(name, partitions): (&str, Vec<OffsetCommitRequestPartition>)| OffsetCommitRequestTopic {
        name: name.into(),
        partitions,
        ..Default::default()
    };
    let request = OffsetCommitRequest {
        group_id: group.into(),
        topics: topics.into_iter().map(topic).collect(),
        ..Default::default()
    };
    let response = client.ask_broker(coordinator, &request).await?;
    let answers = response.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |it| (&topic.name, it)));
    for (topic, partition) in answers {
        if partition.error_code == ErrorCode::UNKNOWN_MEMBER_ID {
            return Err(occupied(group, "members that have just joined").into());
        }
        if partition.error_code.is_error() {
            let what = format!("committing for group {group}, {topic} partition {}", partition.partition_index);
            return Err(ClientError::Refused { what, code: partition.error_code, message: None }.into());
        }
    }
    Ok(())
}

/// The error for a group whose members have its offsets in their hands.
pub(super) fn occupied(group: &str, members: &str) -> ClientError {
    let what = format!("setting the offsets of group {group}");
    ClientError::Refused { what, code: ErrorCode::NON_EMPTY_GROUP, message: Some(format!("stop {members} first")) }
}
