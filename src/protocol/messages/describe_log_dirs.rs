//! DescribeLogDirs: what lies in the data directories (KIP-113, KIP-827).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// The partitions to look for.
    request DescribeLogDirs DescribeLogDirsRequest -> DescribeLogDirsResponse {
        /// The topics; null for all.
        topics: Option<Vec<DescribableLogDirTopic>> [0..] [null 0..],
    }

    /// Partitions of one topic.
    part DescribableLogDirTopic {
        /// The topic's name.
        topic: Text [0..],
        /// The partitions.
        partitions: Vec<i32> [0..],
    }

    /// The data directories.
    response DescribeLogDirs DescribeLogDirsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [3..] [ignorable],
        /// What became of each.
        results: Vec<DescribeLogDirsResult> [0..],
    }

    /// One data directory.
    part DescribeLogDirsResult {
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The directory's path.
        log_dir: Text [0..],
        /// The topics that it holds.
        topics: Vec<DescribeLogDirsTopic> [0..],
        /// The size of the volume in bytes, or -1.
        total_bytes: i64 [4..] [or -1] [ignorable],
        /// What is free on the volume in bytes, or -1.
        usable_bytes: i64 [4..] [or -1] [ignorable],
        /// Whether it takes no new partitions (KIP-1066).
        is_cordoned: bool [5..] [ignorable],
    }

    /// What it holds of one topic.
    part DescribeLogDirsTopic {
        /// The name.
        name: Text [0..],
        /// The partitions.
        partitions: Vec<DescribeLogDirsPartition> [0..],
    }

    /// What it holds of one partition.
    part DescribeLogDirsPartition {
        /// The partition's number.
        partition_index: i32 [0..],
        /// Its size in bytes.
        partition_size: i64 [0..],
        /// How far it is behind: the current log 0, a log that moves here behind that one.
        offset_lag: i64 [0..],
        /// Whether it is a log that moves here.
        is_future_key: bool [0..],
    }
}
