//! OffsetDelete: forgets how far a group has come in topics that it does not read any more (KIP-496).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Offsets to forget.
    request OffsetDelete OffsetDeleteRequest -> OffsetDeleteResponse {
        /// The group.
        group_id: Text [0..],
        /// The topics.
        topics: Vec<OffsetDeleteRequestTopic> [0..],
    }

    /// Partitions of one topic.
    part OffsetDeleteRequestTopic {
        /// The topic's name.
        name: Text [0..],
        /// The partitions.
        partitions: Vec<OffsetDeleteRequestPartition> [0..],
    }

    /// One partition.
    part OffsetDeleteRequestPartition {
        /// The partition's number.
        partition_index: i32 [0..],
    }

    /// What became of the offsets.
    response OffsetDelete OffsetDeleteResponse {
        /// What went wrong with the group, if anything.
        error_code: ErrorCode [0..],
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..] [ignorable],
        /// The topics.
        topics: Vec<OffsetDeleteResponseTopic> [0..],
    }

    /// Partitions of one topic.
    part OffsetDeleteResponseTopic {
        /// The topic's name.
        name: Text [0..],
        /// The partitions.
        partitions: Vec<OffsetDeleteResponsePartition> [0..],
    }

    /// What became of one partition's offset.
    part OffsetDeleteResponsePartition {
        /// The partition's number.
        partition_index: i32 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
    }
}
