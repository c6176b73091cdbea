//! Questions that only the leaders of partitions answer, asked of all of them and put together.

use std::collections::BTreeMap;

use super::{Client, ClientError};
use crate::protocol::messages::ListOffsetsRequest;
use crate::protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use crate::protocol::messages::metadata::MetadataResponseTopic;

/// What ListOffsets takes for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListOffsets {
    /// The first offset that is still there.
    Start,
    /// The offset behind the last record that is committed.
    End,
    /// The first record of that time or later, milliseconds since the epoch.
    Time(i64),
}

/// What ListOffsets found in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The offset; -1 where no record is that late.
    pub offset: i64,
    /// The time of the record, or -1.
    pub timestamp: i64,
}

impl Client {
    /// Finds an offset in each of the given partitions of a topic.
    ///
    /// # Errors
    /// If a partition has no leader, or a leader does not answer or refuses.
    pub async fn list_offsets(
        &mut self,
        topic: &MetadataResponseTopic,
        partitions: &[i32],
        what: ListOffsets,
    ) -> Result<BTreeMap<i32, Found>, ClientError> {
        let mut found = BTreeMap::new();
        for (leader, partitions) in by_leader(topic, partitions)? {
            self.list_offsets_of(leader, topic, &partitions, what, &mut found).await?;
        }
        Ok(found)
    }

    async fn list_offsets_of(
        &mut self,
        leader: i32,
        topic: &MetadataResponseTopic,
        partitions: &[i32],
        what: ListOffsets,
        found: &mut BTreeMap<i32, Found>,
    ) -> Result<(), ClientError> {
        let name = topic.name.clone().unwrap_or_default();
        let timestamp = match what {
            ListOffsets::Start => -2,
            ListOffsets::End => -1,
            ListOffsets::Time(timestamp) => timestamp,
        };
        let wanted =
            |partition: &i32| ListOffsetsPartition { partition_index: *partition, current_leader_epoch: -1, timestamp };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic { name: name.clone(), partitions: partitions.iter().map(wanted).collect() }],
            ..ListOffsetsRequest::default()
        };
        let timeout = self.timeout();
        let connection = self.broker(leader).await?;
        let response = connection.call(&request, timeout).await?;
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            let index = partition.partition_index;
            if partition.error_code.is_error() {
                let what = format!("ListOffsets of partition {index} of topic {name}");
                return Err(connection.refused(&what, partition.error_code, None));
            }
            found.insert(index, Found { offset: partition.offset, timestamp: partition.timestamp });
        }
        match partitions.iter().find(|index| !found.contains_key(index)) {
            None => Ok(()),
            Some(index) => Err(ClientError::Missing {
                broker: connection.broker().to_owned(),
                api: crate::protocol::api::ApiKey::ListOffsets,
                what: format!("partition {index} of topic {name}"),
            }),
        }
    }
}

/// The given partitions of a topic by the broker that leads them.
///
/// # Errors
/// If the topic does not have one of them.
pub fn by_leader(topic: &MetadataResponseTopic, partitions: &[i32]) -> Result<BTreeMap<i32, Vec<i32>>, ClientError> {
    let mut leaders: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for wanted in partitions {
        let partition = topic.partitions.iter().find(|partition| partition.partition_index == *wanted);
        let partition = partition.ok_or_else(|| ClientError::NoPartition {
            topic: topic.name.as_deref().unwrap_or_default().to_owned(),
            partition: *wanted,
            count: topic.partitions.len(),
        })?;
        leaders.entry(partition.leader_id).or_default().push(*wanted);
    }
    Ok(leaders)
}
