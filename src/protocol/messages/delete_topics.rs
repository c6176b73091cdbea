//! DeleteTopics, by name or by id.

use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Topics to delete.
    request DeleteTopics DeleteTopicsRequest -> DeleteTopicsResponse {
        /// The topics.
        topics: Vec<DeleteTopicState> [6..],
        /// The topics' names.
        topic_names: Vec<Text> [0..=5] [ignorable],
        /// For how many milliseconds the broker may work on it.
        timeout_ms: i32 [0..],
    }

    /// A topic to delete, by name or by id.
    part DeleteTopicState {
        /// The name.
        name: Option<Text> [6..] [null 6..],
        /// The topic's id.
        topic_id: TopicId [6..],
    }

    /// The topics deleted.
    response DeleteTopics DeleteTopicsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [1..] [ignorable],
        /// What became of each.
        responses: Vec<DeletableTopicResult> [0..],
    }

    /// What became of one topic.
    part DeletableTopicResult {
        /// The name.
        name: Option<Text> [0..] [null 6..],
        /// The topic's id.
        topic_id: TopicId [6..] [ignorable],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [5..] [null 5..] [ignorable],
    }
}
