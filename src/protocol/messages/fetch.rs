//! Fetch: reads record batches; sessions (KIP-227), epochs (KIP-320), topic ids (KIP-516).

use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::{Records, Text};
use crate::protocol::wire::message;

message! {
    /// What to read, and for how long to wait.
    request Fetch FetchRequest -> FetchResponse {
        /// The cluster that the request is meant for, if it says.
        cluster_id: Option<Text> [12..] [null 12..] [tag 0] [ignorable],
        /// A follower's broker id, or -1 for a consumer.
        replica_id: i32 [0..=14] [or -1],
        /// The follower that reads, if one does.
        replica_state: ReplicaState [15..] [tag 1],
        /// For how many milliseconds to wait for `min_bytes`.
        max_wait_ms: i32 [0..],
        /// How many bytes make waiting unnecessary.
        min_bytes: i32 [0..],
        /// How many bytes to return at most; the first batch is returned whole nevertheless.
        max_bytes: i32 [3..] [or i32::MAX] [ignorable],
        /// 0 reads everything committed to the log, 1 only what committed transactions wrote.
        isolation_level: i8 [4..] [ignorable],
        /// The fetch session, or 0.
        session_id: i32 [7..] [ignorable],
        /// The request's number in its session: 0 opens one, -1 closes it.
        session_epoch: i32 [7..] [or -1] [ignorable],
        /// The topics.
        topics: Vec<FetchTopic> [0..],
        /// What leaves the session.
        forgotten_topics_data: Vec<ForgottenTopic> [7..],
        /// The client's rack.
        rack_id: Text [11..] [ignorable],
    }

    /// A follower's identity (KIP-903).
    part ReplicaState {
        /// A follower's broker id, or -1 for a consumer.
        replica_id: i32 [15..] [or -1],
        /// Its broker epoch.
        replica_epoch: i64 [15..] [or -1],
    }

    /// What to read of one topic.
    part FetchTopic {
        /// The topic's name.
        topic: Text [0..=12] [ignorable],
        /// The topic's id.
        topic_id: TopicId [13..] [ignorable],
        /// The partitions.
        partitions: Vec<FetchPartition> [0..],
    }

    /// What to read of one partition.
    part FetchPartition {
        /// The partition's number.
        partition: i32 [0..],
        /// The leader epoch that the client knows, or -1 for none.
        current_leader_epoch: i32 [9..] [or -1] [ignorable],
        /// The first offset to read.
        fetch_offset: i64 [0..],
        /// The epoch of the last record read, or -1.
        last_fetched_epoch: i32 [12..] [or -1],
        /// Where a follower's log begins, or -1.
        log_start_offset: i64 [5..] [or -1] [ignorable],
        /// How many bytes of the partition to return at most.
        partition_max_bytes: i32 [0..],
        /// The id of the follower's data directory.
        replica_directory_id: [u8; 16] [17..] [tag 0] [ignorable],
        /// The high watermark that a follower knows; the largest number for none (KIP-1166).
        high_watermark: i64 [18..] [tag 1] [or i64::MAX] [ignorable],
    }

    /// Partitions that leave the session.
    part ForgottenTopic {
        /// The topic's name.
        topic: Text [7..=12] [ignorable],
        /// The topic's id.
        topic_id: TopicId [13..] [ignorable],
        /// The partitions.
        partitions: Vec<i32> [7..],
    }

    /// What was read.
    response Fetch FetchResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [1..] [ignorable],
        /// What went wrong, if anything.
        error_code: ErrorCode [7..] [ignorable],
        /// The fetch session, or 0.
        session_id: i32 [7..],
        /// What was read, by topic.
        responses: Vec<FetchableTopicResponse> [0..],
        /// Where the leaders named above are reached.
        node_endpoints: Vec<NodeEndpoint> [16..] [tag 0],
    }

    /// One topic's part of the answer.
    part FetchableTopicResponse {
        /// The topic's name.
        topic: Text [0..=12] [ignorable],
        /// The topic's id.
        topic_id: TopicId [13..] [ignorable],
        /// The partitions.
        partitions: Vec<PartitionData> [0..],
    }

    /// What was read of one partition.
    part PartitionData {
        /// The partition's number.
        partition_index: i32 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// Up to where records are committed, or -1.
        high_watermark: i64 [0..],
        /// Up to where all transactions are decided, or -1.
        last_stable_offset: i64 [4..] [or -1] [ignorable],
        /// Where the partition begins, or -1.
        log_start_offset: i64 [5..] [or -1] [ignorable],
        /// Where the reader's log and this one part, if they do.
        diverging_epoch: EpochEndOffset [12..] [tag 0],
        /// The leader, when the client asked another broker.
        current_leader: LeaderIdAndEpoch [12..] [tag 1],
        /// The snapshot to read instead.
        snapshot_id: SnapshotId [12..] [tag 2],
        /// The aborted transactions among the records; null unless they were asked for.
        aborted_transactions: Option<Vec<AbortedTransaction>> [4..] [null 4..] [ignorable],
        /// A nearer replica to read from, or -1 (KIP-392).
        preferred_read_replica: i32 [11..] [or -1],
        /// The record batches, as they are stored.
        records: Option<Records> [0..] [null 0..],
    }

    /// Where the last epoch that reader and leader share ends.
    part EpochEndOffset {
        /// The epoch, or -1.
        epoch: i32 [12..] [or -1],
        /// Where it ends, or -1.
        end_offset: i64 [12..] [or -1],
    }

    /// Who leads a partition now (KIP-951).
    part LeaderIdAndEpoch {
        /// The leader's broker id, or -1.
        leader_id: i32 [12..] [or -1],
        /// The leader's epoch, or -1.
        leader_epoch: i32 [12..] [or -1],
    }

    /// The snapshot to read instead; only in KRaft's own log.
    part SnapshotId {
        /// Its end offset.
        end_offset: i64 [0..] [or -1],
        /// Its epoch.
        epoch: i32 [0..] [or -1],
    }

    /// An aborted transaction among the records (KIP-98).
    part AbortedTransaction {
        /// The producer's id.
        producer_id: i64 [4..],
        /// The offset of its first record.
        first_offset: i64 [4..],
    }

    /// Where a leader named in the response is reached (KIP-951).
    part NodeEndpoint {
        /// The broker's id.
        node_id: i32 [16..],
        /// Its host name or address.
        host: Text [16..],
        /// Its port.
        port: i32 [16..],
        /// Its rack, if it has one.
        rack: Option<Text> [16..] [null 16..],
    }
}
