//! ElectLeaders: has partitions led by the replicas that are to lead them (KIP-183, KIP-460).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// The partitions to elect leaders of.
    request ElectLeaders ElectLeadersRequest -> ElectLeadersResponse {
        /// 0 elects the preferred replica, 1 any that is there when none is in sync.
        election_type: i8 [1..],
        /// The partitions; null for all.
        topic_partitions: Option<Vec<TopicPartitions>> [0..] [null 0..],
        /// For how many milliseconds the broker may work on it.
        timeout_ms: i32 [0..] [or 60_000],
    }

    /// Partitions of a topic.
    part TopicPartitions {
        /// The name.
        topic: Text [0..],
        /// The partitions.
        partitions: Vec<i32> [0..],
    }

    /// The elections.
    response ElectLeaders ElectLeadersResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..],
        /// What went wrong with the request as a whole, if anything.
        error_code: ErrorCode [1..],
        /// What became of each topic.
        replica_election_results: Vec<ReplicaElectionResult> [0..],
    }

    /// What became of a topic's partitions.
    part ReplicaElectionResult {
        /// The name.
        topic: Text [0..],
        /// What became of each partition.
        partition_result: Vec<PartitionResult> [0..],
    }

    /// What became of one partition.
    part PartitionResult {
        /// The partition.
        partition_id: i32 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [0..] [null 0..],
    }
}
