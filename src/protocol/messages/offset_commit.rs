//! OffsetCommit: how far a group has come.

use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Offsets to remember.
    request OffsetCommit OffsetCommitRequest -> OffsetCommitResponse {
        /// The group.
        group_id: Text [0..],
        /// The member's generation, or its epoch in a group of the consumer protocol (KIP-848); -1 for a client that is no member.
        generation_id_or_member_epoch: i32 [1..] [or -1] [ignorable],
        /// The member's id.
        member_id: Text [1..] [ignorable],
        /// The id of a static member.
        group_instance_id: Option<Text> [7..] [null 7..],
        /// For how many milliseconds the offsets are kept; -1 for the broker's setting.
        retention_time_ms: i64 [2..=4] [or -1] [ignorable],
        /// The topics.
        topics: Vec<OffsetCommitRequestTopic> [0..],
    }

    /// Partitions of one topic.
    part OffsetCommitRequestTopic {
        /// The topic's name.
        name: Text [0..=9] [ignorable],
        /// The topic's id.
        topic_id: TopicId [10..] [ignorable],
        /// The partitions.
        partitions: Vec<OffsetCommitRequestPartition> [0..],
    }

    /// The offset of one partition.
    part OffsetCommitRequestPartition {
        /// The partition's number.
        partition_index: i32 [0..],
        /// The offset of the next record to read.
        committed_offset: i64 [0..],
        /// The leader epoch of the last record read, or -1.
        committed_leader_epoch: i32 [6..] [or -1] [ignorable],
        /// Anything the client wants to keep with it.
        committed_metadata: Option<Text> [0..] [null 0..],
    }

    /// What became of the offsets.
    response OffsetCommit OffsetCommitResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [3..] [ignorable],
        /// The topics.
        topics: Vec<OffsetCommitResponseTopic> [0..],
    }

    /// Partitions of one topic.
    part OffsetCommitResponseTopic {
        /// The topic's name.
        name: Text [0..=9] [ignorable],
        /// The topic's id.
        topic_id: TopicId [10..] [ignorable],
        /// The partitions.
        partitions: Vec<OffsetCommitResponsePartition> [0..],
    }

    /// What became of one partition's offset.
    part OffsetCommitResponsePartition {
        /// The partition's number.
        partition_index: i32 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
    }
}
