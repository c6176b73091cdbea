//! CreateTopics.

use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Topics to create.
    request CreateTopics CreateTopicsRequest -> CreateTopicsResponse {
        /// The topics.
        topics: Vec<CreatableTopic> [0..],
        /// For how many milliseconds the broker may work on it.
        timeout_ms: i32 [0..] [or 60000],
        /// Whether only to check, and change nothing.
        validate_only: bool [1..],
    }

    /// A topic to create.
    part CreatableTopic {
        /// The name.
        name: Text [0..],
        /// The number of partitions; -1 for the default.
        num_partitions: i32 [0..],
        /// The number of replicas; -1 for the default.
        replication_factor: i16 [0..],
        /// Where the replicas go, if the broker shall not choose.
        assignments: Vec<CreatableReplicaAssignment> [0..],
        /// The configuration entries.
        configs: Vec<CreatableTopicConfig> [0..],
    }

    /// Where one partition's replicas go.
    part CreatableReplicaAssignment {
        /// The partition's number.
        partition_index: i32 [0..],
        /// The replicas' broker ids, the preferred leader first.
        broker_ids: Vec<i32> [0..],
    }

    /// A configuration entry.
    part CreatableTopicConfig {
        /// The name.
        name: Text [0..],
        /// The value; null for none, or a secret.
        value: Option<Text> [0..] [null 0..],
    }

    /// The topics created.
    response CreateTopics CreateTopicsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [2..] [ignorable],
        /// The topics.
        topics: Vec<CreatableTopicResult> [0..],
    }

    /// What became of one topic.
    part CreatableTopicResult {
        /// The name.
        name: Text [0..],
        /// The topic's id.
        topic_id: TopicId [7..] [ignorable],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [1..] [null 0..] [ignorable],
        /// Why `configs` is missing, if it is.
        topic_config_error_code: ErrorCode [5..] [tag 0] [ignorable],
        /// The number of partitions; -1 for the default.
        num_partitions: i32 [5..] [or -1] [ignorable],
        /// The number of replicas; -1 for the default.
        replication_factor: i16 [5..] [or -1] [ignorable],
        /// The configuration entries.
        configs: Option<Vec<CreatableTopicConfigs>> [5..] [null 5..] [ignorable],
    }

    /// A configuration entry of the new topic.
    part CreatableTopicConfigs {
        /// The name.
        name: Text [5..],
        /// The value; null for none, or a secret.
        value: Option<Text> [5..] [null 5..],
        /// Whether it cannot be changed.
        read_only: bool [5..],
        /// Where the value is set: 1 topic, 2 and 3 dynamic broker, 4 static broker, 5 default.
        config_source: i8 [5..] [or -1] [ignorable],
        /// Whether it is a secret.
        is_sensitive: bool [5..],
    }
}
