//! OffsetFetch: how far groups have come.

use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Whose offsets are wanted, and of which partitions.
    request OffsetFetch OffsetFetchRequest -> OffsetFetchResponse {
        /// The group.
        group_id: Text [0..=7],
        /// The topics; null for all.
        topics: Option<Vec<OffsetFetchRequestTopic>> [0..=7] [null 2..=7] [or Some(Vec::new())],
        /// The groups.
        groups: Vec<OffsetFetchRequestGroup> [8..],
        /// Whether an offset that an open transaction may still change is refused (KIP-447).
        require_stable: bool [7..],
    }

    /// Partitions of one topic.
    part OffsetFetchRequestTopic {
        /// The topic's name.
        name: Text [0..=7],
        /// The partitions' numbers.
        partition_indexes: Vec<i32> [0..=7],
    }

    /// One group.
    part OffsetFetchRequestGroup {
        /// The group.
        group_id: Text [8..],
        /// The member that asks, in a group of the consumer protocol (KIP-848).
        member_id: Option<Text> [9..] [null 9..] [ignorable],
        /// That member's epoch, or -1.
        member_epoch: i32 [9..] [or -1] [ignorable],
        /// The topics; null for all.
        topics: Option<Vec<OffsetFetchRequestTopics>> [8..] [null 8..] [or Some(Vec::new())],
    }

    /// Partitions of one topic.
    part OffsetFetchRequestTopics {
        /// The topic's name.
        name: Text [8..=9] [ignorable],
        /// The topic's id.
        topic_id: TopicId [10..] [ignorable],
        /// The partitions' numbers.
        partition_indexes: Vec<i32> [8..],
    }

    /// The offsets.
    response OffsetFetch OffsetFetchResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [3..] [ignorable],
        /// The topics.
        topics: Vec<OffsetFetchResponseTopic> [0..=7],
        /// What went wrong, if anything.
        error_code: ErrorCode [2..=7] [ignorable],
        /// The groups.
        groups: Vec<OffsetFetchResponseGroup> [8..],
    }

    /// Partitions of one topic.
    part OffsetFetchResponseTopic {
        /// The topic's name.
        name: Text [0..=7],
        /// The partitions.
        partitions: Vec<OffsetFetchResponsePartition> [0..=7],
    }

    /// The offset of one partition.
    part OffsetFetchResponsePartition {
        /// The partition's number.
        partition_index: i32 [0..=7],
        /// The offset of the next record to read, or -1 if none was committed.
        committed_offset: i64 [0..=7],
        /// The leader epoch of the last record read, or -1.
        committed_leader_epoch: i32 [5..=7] [or -1] [ignorable],
        /// What the client kept with it.
        metadata: Option<Text> [0..=7] [null 0..=7],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..=7],
    }

    /// One group's offsets.
    part OffsetFetchResponseGroup {
        /// The group.
        group_id: Text [8..],
        /// The topics.
        topics: Vec<OffsetFetchResponseTopics> [8..],
        /// What went wrong, if anything.
        error_code: ErrorCode [8..],
    }

    /// Partitions of one topic.
    part OffsetFetchResponseTopics {
        /// The topic's name.
        name: Text [8..=9] [ignorable],
        /// The topic's id.
        topic_id: TopicId [10..] [ignorable],
        /// The partitions.
        partitions: Vec<OffsetFetchResponsePartitions> [8..],
    }

    /// The offset of one partition.
    part OffsetFetchResponsePartitions {
        /// The partition's number.
        partition_index: i32 [8..],
        /// The offset of the next record to read, or -1 if none was committed.
        committed_offset: i64 [8..],
        /// The leader epoch of the last record read, or -1.
        committed_leader_epoch: i32 [8..] [or -1] [ignorable],
        /// What the client kept with it.
        metadata: Option<Text> [8..] [null 8..],
        /// What went wrong, if anything.
        error_code: ErrorCode [8..],
    }
}
