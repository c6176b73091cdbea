//! ListOffsets: the ends of partitions, and offsets by time.

use std::collections::HashMap;
use std::sync::Arc;

use super::on_disk::on_disk;
use crate::ids::{Offset, PartitionId, PartitionIndex, Term, Timestamp, TopicId};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use crate::protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use crate::protocol::value::Text;
use crate::replica::Replica;
use crate::server::dispatch::Call;
use crate::server::error;

/// The first version whose answers carry leader epochs.
const EPOCH_FROM: i16 = 4;
/// A client that sends this is a consumer; any other id may see what is not committed yet.
const CONSUMER: i32 = -1;
/// Asks the broker itself how far its replica is, whether it leads or not (Kafka's debugging consumer).
const THIS_REPLICA: i32 = -2;
const UNKNOWN: i64 = -1;

/// What a timestamp below 0 stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Latest,
    Earliest,
    MaxTimestamp,
    /// The last offset that has moved to tiered storage, or the first that will: there is no such storage.
    Tiered,
    Time(Timestamp),
}

impl Wanted {
    /// `None` if that version does not have it.
    fn from_wire(timestamp: i64, version: i16) -> Option<Self> {
        let (wanted, from) = match timestamp {
            -1 => (Self::Latest, 0),
            -2 => (Self::Earliest, 0),
            -3 => (Self::MaxTimestamp, 7),
            // The start of what is on this broker, which is all there is.
            -4 => (Self::Earliest, 8),
            -5 => (Self::Tiered, 9),
            -6 => (Self::Tiered, 11),
            0.. => (Self::Time(Timestamp(timestamp)), 0),
            _ => return None,
        };
        (version >= from).then_some(wanted)
    }
}

/// What was found.
struct Found {
    offset: i64,
    timestamp: i64,
    epoch: Option<Term>,
}

/// Handles one ListOffsets request.
pub async fn handle(call: &Call, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut counts: HashMap<(Text, i32), usize> = HashMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            *counts.entry((topic.name.clone(), partition.partition_index)).or_default() += 1;
        }
    }
    let mut places: HashMap<Text, usize> = HashMap::new();
    let mut topics: Vec<ListOffsetsTopicResponse> = Vec::new();
    for topic in request.topics {
        let id = call.context.controller.topic_id(&topic.name);
        let place = *places.entry(topic.name.clone()).or_insert_with(|| {
            topics.push(ListOffsetsTopicResponse { name: topic.name.clone(), ..Default::default() });
            topics.len() - 1
        });
        for asked in topic.partitions {
            // Of a partition that is named more than once, one answer says so.
            let found = match counts.remove(&(topic.name.clone(), asked.partition_index)) {
                None => continue,
                Some(1) => find(call, id, &asked, request.replica_id).await,
                Some(_) => Err(ErrorCode::INVALID_REQUEST),
            };
            topics[place].partitions.push(answer(call, asked.partition_index, found));
        }
    }
    ListOffsetsResponse { topics, ..Default::default() }
}

fn answer(call: &Call, partition_index: i32, found: Result<Found, ErrorCode>) -> ListOffsetsPartitionResponse {
    match found {
        Err(error_code) => {
            call.context.metrics.error(call.header.api.key(), error_code.0);
            ListOffsetsPartitionResponse { partition_index, error_code, ..Default::default() }
        }
        Ok(found) => ListOffsetsPartitionResponse {
            partition_index,
            error_code: ErrorCode::NONE,
            timestamp: found.timestamp,
            offset: found.offset,
            leader_epoch: match found.epoch {
                Some(epoch) if call.version() >= EPOCH_FROM => epoch.epoch(),
                _ => -1,
            },
        },
    }
}

async fn find(
    call: &Call,
    topic: Option<TopicId>,
    asked: &ListOffsetsPartition,
    replica_id: i32,
) -> Result<Found, ErrorCode> {
    let wanted = Wanted::from_wire(asked.timestamp, call.version()).ok_or(ErrorCode::UNSUPPORTED_VERSION)?;
    let topic = topic.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    let id = PartitionId { topic, partition: PartitionIndex(asked.partition_index) };
    let replica = call.context.replicas.get(id).ok_or_else(|| error::missing_partition(&call.context, id))?;
    let marks = replica.watermarks();
    if replica_id != THIS_REPLICA {
        error::leader_epoch(marks.term, asked.current_leader_epoch)?;
    }
    let end = if replica_id == CONSUMER { marks.high_watermark } else { replica.log().state().next_offset };
    let at = |offset: Offset, epoch| Found { offset: offset.0, timestamp: UNKNOWN, epoch };
    Ok(match wanted {
        Wanted::Latest => at(end, marks.term),
        Wanted::Earliest => at(marks.log_start, replica.log().epoch_at(marks.log_start)),
        Wanted::Tiered => Found { offset: UNKNOWN, timestamp: UNKNOWN, epoch: None },
        Wanted::MaxTimestamp | Wanted::Time(_) => by_time(call, &replica, wanted, marks.log_start, end).await?,
    })
}

async fn by_time(
    call: &Call,
    replica: &Replica,
    wanted: Wanted,
    start: Offset,
    end: Offset,
) -> Result<Found, ErrorCode> {
    let log = Arc::clone(replica.log());
    let search = move || match wanted {
        Wanted::Time(timestamp) => log.offset_for_time(timestamp, start..end),
        _ => log.max_timestamp(start..end),
    };
    Ok(match on_disk(call, search).await?.map_err(|failure| error::read(&failure))? {
        Some(found) => Found { offset: found.offset.0, timestamp: found.timestamp.0, epoch: Some(found.epoch) },
        None => Found { offset: UNKNOWN, timestamp: UNKNOWN, epoch: None },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps_exist_from_their_versions_on() {
        assert_eq!(Wanted::from_wire(-1, 1), Some(Wanted::Latest));
        assert_eq!(Wanted::from_wire(-2, 1), Some(Wanted::Earliest));
        assert_eq!((Wanted::from_wire(-3, 6), Wanted::from_wire(-3, 7)), (None, Some(Wanted::MaxTimestamp)));
        assert_eq!((Wanted::from_wire(-4, 7), Wanted::from_wire(-4, 8)), (None, Some(Wanted::Earliest)));
        assert_eq!((Wanted::from_wire(-5, 8), Wanted::from_wire(-5, 9)), (None, Some(Wanted::Tiered)));
        assert_eq!((Wanted::from_wire(-6, 10), Wanted::from_wire(-6, 11)), (None, Some(Wanted::Tiered)));
        assert_eq!(Wanted::from_wire(-7, 11), None);
        assert_eq!(Wanted::from_wire(0, 1), Some(Wanted::Time(Timestamp(0))));
    }
}
