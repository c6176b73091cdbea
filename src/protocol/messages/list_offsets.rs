//! ListOffsets: offsets by time, and the special timestamps that stand for ends of a partition.

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// The offsets to find.
    request ListOffsets ListOffsetsRequest -> ListOffsetsResponse {
        /// A follower's broker id, or -1 for a consumer.
        replica_id: i32 [0..],
        /// 0 reads everything committed to the log, 1 only what committed transactions wrote.
        isolation_level: i8 [2..],
        /// The topics.
        topics: Vec<ListOffsetsTopic> [0..],
        /// For how many milliseconds the broker may look in tiered storage (KIP-1075).
        timeout_ms: i32 [10..] [ignorable],
    }

    /// The offsets to find in one topic.
    part ListOffsetsTopic {
        /// The name.
        name: Text [0..],
        /// The partitions.
        partitions: Vec<ListOffsetsPartition> [0..],
    }

    /// The offset to find in one partition.
    part ListOffsetsPartition {
        /// The partition's number.
        partition_index: i32 [0..],
        /// The leader epoch that the client knows, or -1 for none.
        current_leader_epoch: i32 [4..] [or -1] [ignorable],
        /// The time in milliseconds; -1 is the end, -2 the start, others below 0 are special too.
        timestamp: i64 [0..],
    }

    /// The offsets found.
    response ListOffsets ListOffsetsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [2..] [ignorable],
        /// The topics.
        topics: Vec<ListOffsetsTopicResponse> [0..],
    }

    /// The offsets found in one topic.
    part ListOffsetsTopicResponse {
        /// The name.
        name: Text [0..],
        /// The partitions.
        partitions: Vec<ListOffsetsPartitionResponse> [0..],
    }

    /// The offset found in one partition.
    part ListOffsetsPartitionResponse {
        /// The partition's number.
        partition_index: i32 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The time of the record found, or -1.
        timestamp: i64 [1..] [or -1],
        /// The offset, or -1.
        offset: i64 [1..] [or -1],
        /// The leader's epoch, or -1.
        leader_epoch: i32 [4..] [or -1],
    }
}
