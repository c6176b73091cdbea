//! AlterPartitionReassignments: moves replicas of partitions to other brokers, or calls that off (KIP-455).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Partitions to move.
    request AlterPartitionReassignments AlterPartitionReassignmentsRequest -> AlterPartitionReassignmentsResponse {
        /// For how many milliseconds the broker may work on it.
        timeout_ms: i32 [0..] [or 60_000],
        /// Whether partitions may get another number of replicas (KIP-860).
        allow_replication_factor_change: bool [1..] [or true],
        /// The topics.
        topics: Vec<ReassignableTopic> [0..],
    }

    /// A topic of which partitions move.
    part ReassignableTopic {
        /// The name.
        name: Text [0..],
        /// The partitions.
        partitions: Vec<ReassignablePartition> [0..],
    }

    /// A partition that moves.
    part ReassignablePartition {
        /// The partition.
        partition_index: i32 [0..],
        /// The brokers that shall have it, the preferred leader first; null calls off what is under way.
        replicas: Option<Vec<i32>> [0..] [null 0..],
    }

    /// The moves begun or called off.
    response AlterPartitionReassignments AlterPartitionReassignmentsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..],
        /// Whether partitions might get another number of replicas.
        allow_replication_factor_change: bool [1..] [or true] [ignorable],
        /// What went wrong with the request as a whole, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [0..] [null 0..],
        /// What became of each topic.
        responses: Vec<ReassignableTopicResponse> [0..],
    }

    /// What became of a topic's partitions.
    part ReassignableTopicResponse {
        /// The name.
        name: Text [0..],
        /// What became of each partition.
        partitions: Vec<ReassignablePartitionResponse> [0..],
    }

    /// What became of one partition.
    part ReassignablePartitionResponse {
        /// The partition.
        partition_index: i32 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [0..] [null 0..],
    }
}
