//! DescribeTopicPartitions: topics page by page (KIP-966).

use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// The topics to describe, and where to go on.
    request DescribeTopicPartitions DescribeTopicPartitionsRequest -> DescribeTopicPartitionsResponse {
        /// The topics.
        topics: Vec<TopicRequest> [0..],
        /// How many partitions to return at most.
        response_partition_limit: i32 [0..] [or 2000],
        /// Where to go on; null for the beginning.
        cursor: Option<Cursor> [0..] [null 0..],
    }

    /// A topic to describe.
    part TopicRequest {
        /// The name.
        name: Text [0..],
    }

    /// A place in the list of topics.
    part Cursor {
        /// The topic's name.
        topic_name: Text [0..],
        /// The partition's number.
        partition_index: i32 [0..],
    }

    /// One page of topics.
    response DescribeTopicPartitions DescribeTopicPartitionsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..] [ignorable],
        /// The topics.
        topics: Vec<DescribeTopicPartitionsResponseTopic> [0..],
        /// Where the next page begins; null after the last.
        next_cursor: Option<Cursor> [0..] [null 0..],
    }

    /// A topic.
    part DescribeTopicPartitionsResponseTopic {
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The topic's name.
        name: Option<Text> [0..] [null 0..],
        /// The topic's id.
        topic_id: TopicId [0..] [ignorable],
        /// Whether it is one of the cluster's own.
        is_internal: bool [0..] [ignorable],
        /// The partitions.
        partitions: Vec<DescribeTopicPartitionsResponsePartition> [0..],
        /// A bit set of what the client may do with the topic; the lowest value means that it was not asked.
        topic_authorized_operations: i32 [0..] [or i32::MIN],
    }

    /// A partition.
    part DescribeTopicPartitionsResponsePartition {
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The partition's number.
        partition_index: i32 [0..],
        /// The leader's broker id, or -1.
        leader_id: i32 [0..],
        /// The leader's epoch, or -1.
        leader_epoch: i32 [0..] [or -1] [ignorable],
        /// The replicas' broker ids.
        replica_nodes: Vec<i32> [0..],
        /// The broker ids of the replicas in sync.
        isr_nodes: Vec<i32> [0..],
        /// Replicas out of sync that may lead still.
        eligible_leader_replicas: Option<Vec<i32>> [0..] [null 0..],
        /// The last that might have led.
        last_known_elr: Option<Vec<i32>> [0..] [null 0..],
        /// The broker ids of the replicas that are down.
        offline_replicas: Vec<i32> [0..] [ignorable],
    }
}
