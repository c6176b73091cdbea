//! ListPartitionReassignments: the moves of replicas that are under way (KIP-455).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// The partitions that are asked about.
    request ListPartitionReassignments ListPartitionReassignmentsRequest -> ListPartitionReassignmentsResponse {
        /// For how many milliseconds the broker may work on it.
        timeout_ms: i32 [0..] [or 60_000],
        /// The topics; null for all.
        topics: Option<Vec<ListPartitionReassignmentsTopics>> [0..] [null 0..],
    }

    /// A topic that is asked about.
    part ListPartitionReassignmentsTopics {
        /// The name.
        name: Text [0..],
        /// Its partitions.
        partition_indexes: Vec<i32> [0..],
    }

    /// What is under way.
    response ListPartitionReassignments ListPartitionReassignmentsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [0..] [null 0..],
        /// The topics of which partitions move.
        topics: Vec<OngoingTopicReassignment> [0..],
    }

    /// A topic of which partitions move.
    part OngoingTopicReassignment {
        /// The name.
        name: Text [0..],
        /// The partitions.
        partitions: Vec<OngoingPartitionReassignment> [0..],
    }

    /// A partition that moves.
    part OngoingPartitionReassignment {
        /// The partition.
        partition_index: i32 [0..],
        /// All its replicas, those that are to go included.
        replicas: Vec<i32> [0..],
        /// Those that it did not have before.
        adding_replicas: Vec<i32> [0..],
        /// Those that are to go.
        removing_replicas: Vec<i32> [0..],
    }
}
