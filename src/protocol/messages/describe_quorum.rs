//! DescribeQuorum (KIP-595, KIP-836, KIP-853).

use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Asks how the replicas of the cluster's metadata stand.
    request DescribeQuorum DescribeQuorumRequest -> DescribeQuorumResponse {
        /// The topics.
        topics: Vec<DescribeQuorumRequestTopic> [0..],
    }

    /// How they stand.
    response DescribeQuorum DescribeQuorumResponse {
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [2..] [null 2..] [ignorable],
        /// The topics.
        topics: Vec<DescribeQuorumResponseTopic> [0..],
        /// The brokers that have replicas.
        nodes: Vec<DescribeQuorumNode> [2..] [ignorable],
    }

    /// A topic asked for.
    part DescribeQuorumRequestTopic {
        /// Its name.
        topic_name: Text [0..],
        /// The partitions.
        partitions: Vec<DescribeQuorumRequestPartition> [0..],
    }

    /// A partition asked for.
    part DescribeQuorumRequestPartition {
        /// Its index.
        partition_index: i32 [0..],
    }

    /// A topic answered.
    part DescribeQuorumResponseTopic {
        /// Its name.
        topic_name: Text [0..],
        /// Its partitions.
        partitions: Vec<DescribeQuorumResponsePartition> [0..],
    }

    /// How a partition's replicas stand.
    part DescribeQuorumResponsePartition {
        /// Its index.
        partition_index: i32 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [2..] [null 2..] [ignorable],
        /// The broker that leads it; -1 if that is not known.
        leader_id: i32 [0..],
        /// Its epoch.
        leader_epoch: i32 [0..],
        /// The first entry that is not committed.
        high_watermark: i64 [0..],
        /// Replicas that vote.
        current_voters: Vec<DescribeQuorumReplica> [0..],
        /// Replicas that do not.
        observers: Vec<DescribeQuorumReplica> [0..],
    }

    /// A replica.
    part DescribeQuorumReplica {
        /// Its broker.
        replica_id: i32 [0..],
        /// Its directory's id.
        replica_directory_id: TopicId [2..] [ignorable],
        /// The first entry that it is not known to hold; -1 if that is not known.
        log_end_offset: i64 [0..],
        /// When it was heard last (milliseconds of the epoch); -1 for the leader, and if that is not known.
        last_fetch_timestamp: i64 [1..] [or -1] [ignorable],
        /// When it held all that its leader had (milliseconds of the epoch); -1 if that is not known.
        last_caught_up_timestamp: i64 [1..] [or -1] [ignorable],
    }

    /// A broker with a replica.
    part DescribeQuorumNode {
        /// Its id.
        node_id: i32 [2..],
        /// Where it listens for the others.
        listeners: Vec<DescribeQuorumListener> [2..],
    }

    /// Where a broker listens.
    part DescribeQuorumListener {
        /// The listener's name.
        name: Text [2..],
        /// Its host.
        host: Text [2..],
        /// Its port.
        port: u16 [2..],
    }
}
