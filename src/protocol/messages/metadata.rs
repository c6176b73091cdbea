//! Metadata: brokers, topics, partitions and their leaders.

use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// The topics to describe.
    request Metadata MetadataRequest -> MetadataResponse {
        /// The topics; null for all (in version 0: none for all).
        topics: Option<Vec<MetadataRequestTopic>> [0..] [null 1..],
        /// Whether to create topics that do not exist, if the broker does that.
        allow_auto_topic_creation: bool [4..] [or true],
        /// Whether to say what the client may do with the cluster.
        include_cluster_authorized_operations: bool [8..=10],
        /// Whether to say what the client may do with each topic.
        include_topic_authorized_operations: bool [8..],
    }

    /// A topic to describe, by name or id.
    part MetadataRequestTopic {
        /// The topic's id.
        topic_id: TopicId [10..] [ignorable],
        /// The topic's name; null where it is asked by id.
        name: Option<Text> [0..] [null 10..],
    }

    /// The cluster as the broker knows it.
    response Metadata MetadataResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [3..] [ignorable],
        /// The brokers.
        brokers: Vec<MetadataResponseBroker> [0..],
        /// The cluster's id.
        cluster_id: Option<Text> [2..] [null 2..] [ignorable],
        /// A broker that takes administrative requests.
        controller_id: i32 [1..] [or -1] [ignorable],
        /// The topics.
        topics: Vec<MetadataResponseTopic> [0..],
        /// A bit set of what the client may do with the cluster; the lowest value means that it was not asked.
        cluster_authorized_operations: i32 [8..=10] [or i32::MIN],
        /// What went wrong with the request as a whole, if anything.
        error_code: ErrorCode [13..] [ignorable],
    }

    /// A broker.
    part MetadataResponseBroker {
        /// The broker's id.
        node_id: i32 [0..],
        /// Its host name or address.
        host: Text [0..],
        /// Its port.
        port: i32 [0..],
        /// Its rack, if it has one.
        rack: Option<Text> [1..] [null 1..] [ignorable],
    }

    /// A topic.
    part MetadataResponseTopic {
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The topic's name; null if it was asked by an id that is not known.
        name: Option<Text> [0..] [null 12..],
        /// The topic's id.
        topic_id: TopicId [10..] [ignorable],
        /// Whether it is one of the cluster's own.
        is_internal: bool [1..] [ignorable],
        /// The partitions.
        partitions: Vec<MetadataResponsePartition> [0..],
        /// A bit set of what the client may do with the topic; the lowest value means that it was not asked.
        topic_authorized_operations: i32 [8..] [or i32::MIN],
    }

    /// A partition.
    part MetadataResponsePartition {
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The partition's number.
        partition_index: i32 [0..],
        /// The leader's broker id, or -1.
        leader_id: i32 [0..],
        /// The leader's epoch, or -1.
        leader_epoch: i32 [7..] [or -1] [ignorable],
        /// The replicas' broker ids.
        replica_nodes: Vec<i32> [0..],
        /// The broker ids of the replicas in sync.
        isr_nodes: Vec<i32> [0..],
        /// The broker ids of the replicas that are down.
        offline_replicas: Vec<i32> [5..] [ignorable],
    }
}
