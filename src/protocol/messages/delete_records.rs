//! DeleteRecords: moves the start of partitions forward (KIP-107).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Partitions whose start moves.
    request DeleteRecords DeleteRecordsRequest -> DeleteRecordsResponse {
        /// The topics.
        topics: Vec<DeleteRecordsTopic> [0..],
        /// For how many milliseconds the broker may work on it.
        timeout_ms: i32 [0..],
    }

    /// Partitions of one topic.
    part DeleteRecordsTopic {
        /// The name.
        name: Text [0..],
        /// The partitions.
        partitions: Vec<DeleteRecordsPartition> [0..],
    }

    /// A partition and its new start.
    part DeleteRecordsPartition {
        /// The partition's number.
        partition_index: i32 [0..],
        /// The new start; -1 for the high watermark.
        offset: i64 [0..],
    }

    /// The new starts.
    response DeleteRecords DeleteRecordsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..],
        /// The topics.
        topics: Vec<DeleteRecordsTopicResult> [0..],
    }

    /// One topic's part of the answer.
    part DeleteRecordsTopicResult {
        /// The name.
        name: Text [0..],
        /// The partitions.
        partitions: Vec<DeleteRecordsPartitionResult> [0..],
    }

    /// One partition's new start.
    part DeleteRecordsPartitionResult {
        /// The partition's number.
        partition_index: i32 [0..],
        /// The new start, or -1.
        low_watermark: i64 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
    }
}
