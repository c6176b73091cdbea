//! CreatePartitions: adds partitions to topics (KIP-195).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Topics to widen.
    request CreatePartitions CreatePartitionsRequest -> CreatePartitionsResponse {
        /// The topics.
        topics: Vec<CreatePartitionsTopic> [0..],
        /// For how many milliseconds the broker may work on it.
        timeout_ms: i32 [0..],
        /// Whether only to check, and change nothing.
        validate_only: bool [0..],
    }

    /// A topic to widen.
    part CreatePartitionsTopic {
        /// The name.
        name: Text [0..],
        /// The new number of partitions in all.
        count: i32 [0..],
        /// Where the new partitions' replicas go; null if the broker shall choose.
        assignments: Option<Vec<CreatePartitionsAssignment>> [0..] [null 0..],
    }

    /// Where one new partition's replicas go.
    part CreatePartitionsAssignment {
        /// The replicas' broker ids, the preferred leader first.
        broker_ids: Vec<i32> [0..],
    }

    /// The topics widened.
    response CreatePartitions CreatePartitionsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..],
        /// What became of each.
        results: Vec<CreatePartitionsTopicResult> [0..],
    }

    /// What became of one topic.
    part CreatePartitionsTopicResult {
        /// The name.
        name: Text [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [0..] [null 0..],
    }
}
