//! OffsetForLeaderEpoch: where a leader epoch ends (KIP-101, KIP-320).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// The epochs whose ends are wanted.
    request OffsetForLeaderEpoch OffsetForLeaderEpochRequest -> OffsetForLeaderEpochResponse {
        /// A follower's broker id, or -1 for a consumer.
        replica_id: i32 [3..] [or -2] [ignorable],
        /// The topics.
        topics: Vec<OffsetForLeaderTopic> [0..],
    }

    /// Partitions of one topic.
    part OffsetForLeaderTopic {
        /// The topic's name.
        topic: Text [0..],
        /// The partitions.
        partitions: Vec<OffsetForLeaderPartition> [0..],
    }

    /// The epoch in question in one partition.
    part OffsetForLeaderPartition {
        /// The partition's number.
        partition: i32 [0..],
        /// The leader epoch that the client knows, or -1 for none.
        current_leader_epoch: i32 [2..] [or -1] [ignorable],
        /// The epoch whose end is wanted.
        leader_epoch: i32 [0..],
    }

    /// Where the epochs end.
    response OffsetForLeaderEpoch OffsetForLeaderEpochResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [2..] [ignorable],
        /// The topics.
        topics: Vec<OffsetForLeaderTopicResult> [0..],
    }

    /// One topic's part of the answer.
    part OffsetForLeaderTopicResult {
        /// The topic's name.
        topic: Text [0..],
        /// The partitions.
        partitions: Vec<EpochEndOffset> [0..],
    }

    /// Where the epoch ends in one partition.
    part EpochEndOffset {
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The partition's number.
        partition: i32 [0..],
        /// The epoch that ends there: the one asked for or the last below it; -1 if there is none.
        leader_epoch: i32 [1..] [or -1] [ignorable],
        /// Where it ends, or -1.
        end_offset: i64 [0..] [or -1],
    }
}
