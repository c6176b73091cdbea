//! Produce: appends record batches to partitions.

use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::{Records, Text};
use crate::protocol::wire::message;

message! {
    /// Batches to append.
    request Produce ProduceRequest -> ProduceResponse {
        /// The transactional id, if there is one.
        transactional_id: Option<Text> [3..] [null 3..],
        /// Which acknowledgements to wait for: 0 none (and no response), 1 the leader's, -1 the quorum's.
        acks: i16 [0..],
        /// For how many milliseconds the broker may work on it.
        timeout_ms: i32 [0..],
        /// The batches, by topic.
        topic_data: Vec<TopicProduceData> [0..],
    }

    /// The batches for one topic.
    part TopicProduceData {
        /// The name.
        name: Text [0..=12] [ignorable],
        /// The topic's id.
        topic_id: TopicId [13..] [ignorable],
        /// The batches, by partition.
        partition_data: Vec<PartitionProduceData> [0..],
    }

    /// The batch for one partition.
    part PartitionProduceData {
        /// The partition's number.
        index: i32 [0..],
        /// Exactly one batch.
        records: Option<Records> [0..] [null 0..],
    }

    /// Where the batches went.
    response Produce ProduceResponse {
        /// What became of each.
        responses: Vec<TopicProduceResponse> [0..],
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [1..] [ignorable],
        /// Where the leaders named above are reached.
        node_endpoints: Vec<NodeEndpoint> [10..] [tag 0],
    }

    /// One topic's part of the answer.
    part TopicProduceResponse {
        /// The name.
        name: Text [0..=12] [ignorable],
        /// The topic's id.
        topic_id: TopicId [13..] [ignorable],
        /// Where the batches went, by partition.
        partition_responses: Vec<PartitionProduceResponse> [0..],
    }

    /// Where one partition's batch went.
    part PartitionProduceResponse {
        /// The partition's number.
        index: i32 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The offset of the batch's first record, or -1.
        base_offset: i64 [0..],
        /// The broker's time if the topic uses it, else -1.
        log_append_time_ms: i64 [2..] [or -1] [ignorable],
        /// Where the partition begins, or -1.
        log_start_offset: i64 [5..] [or -1] [ignorable],
        /// The records that made the broker refuse the batch.
        record_errors: Vec<BatchIndexAndErrorMessage> [8..] [ignorable],
        /// The error in words, if there is one.
        error_message: Option<Text> [8..] [null 8..] [ignorable],
        /// The leader, when the client asked another broker.
        current_leader: LeaderIdAndEpoch [10..] [tag 0],
    }

    /// A record that made the broker refuse its batch (KIP-467).
    part BatchIndexAndErrorMessage {
        /// The record's number in its batch.
        batch_index: i32 [8..],
        /// What is wrong with it.
        batch_index_error_message: Option<Text> [8..] [null 8..],
    }

    /// Who leads a partition now (KIP-951).
    part LeaderIdAndEpoch {
        /// The leader's broker id, or -1.
        leader_id: i32 [10..] [or -1],
        /// The leader's epoch, or -1.
        leader_epoch: i32 [10..] [or -1],
    }

    /// Where a leader named in the response is reached (KIP-951).
    part NodeEndpoint {
        /// The broker's id.
        node_id: i32 [10..],
        /// Its host name or address.
        host: Text [10..],
        /// Its port.
        port: i32 [10..],
        /// Its rack, if it has one.
        rack: Option<Text> [10..] [null 10..],
    }
}
