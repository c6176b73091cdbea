//! ConsumerGroupHeartbeat: joins, stays in and leaves a group of the consumer protocol, and hands out its partitions (KIP-848).

use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Who is alive, what it wants and what it has. Null and -1 stand for what is as it was in the last heartbeat.
    request ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest -> ConsumerGroupHeartbeatResponse {
        /// The group.
        group_id: Text [0..],
        /// The member's id, which it chooses itself (KIP-1082) and keeps for as long as it lives; in version 0 it may be empty at first.
        member_id: Text [0..],
        /// The member's epoch; 0 to join, -1 to leave, -2 for a static member that leaves and will be back.
        member_epoch: i32 [0..],
        /// The id of a static member.
        instance_id: Option<Text> [0..] [null 0..],
        /// The member's rack.
        rack_id: Option<Text> [0..] [null 0..],
        /// For how many milliseconds the coordinator waits for the member to give up partitions.
        rebalance_timeout_ms: i32 [0..] [or -1],
        /// The topics that it wants.
        subscribed_topic_names: Option<Vec<Text>> [0..] [null 0..],
        /// The topics that it wants, as a regular expression.
        subscribed_topic_regex: Option<Text> [1..] [null 1..],
        /// Who shares out the partitions.
        server_assignor: Option<Text> [0..] [null 0..],
        /// The partitions that it has.
        topic_partitions: Option<Vec<TopicPartitions>> [0..] [null 0..],
    }

    /// What the member is to have.
    response ConsumerGroupHeartbeat ConsumerGroupHeartbeatResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [0..] [null 0..],
        /// The member's id.
        member_id: Option<Text> [0..] [null 0..],
        /// The member's epoch.
        member_epoch: i32 [0..],
        /// After how many milliseconds the next heartbeat is due.
        heartbeat_interval_ms: i32 [0..],
        /// The partitions that it may use; null if they are as they were.
        assignment: Option<Assignment> [0..] [null 0..],
    }

    /// A member's partitions.
    part Assignment {
        /// The partitions, by topic.
        topic_partitions: Vec<TopicPartitions> [0..],
    }

    /// Partitions of one topic.
    part TopicPartitions {
        /// The topic's id.
        topic_id: TopicId [0..],
        /// The partitions' numbers.
        partitions: Vec<i32> [0..],
    }
}
