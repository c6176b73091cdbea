//! ConsumerGroupDescribe: groups of the consumer protocol and their members (KIP-848).

use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// The groups in question.
    request ConsumerGroupDescribe ConsumerGroupDescribeRequest -> ConsumerGroupDescribeResponse {
        /// The groups.
        group_ids: Vec<Text> [0..],
        /// Whether to say what the client may do with each.
        include_authorized_operations: bool [0..],
    }

    /// The groups.
    response ConsumerGroupDescribe ConsumerGroupDescribeResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..],
        /// Each group.
        groups: Vec<DescribedGroup> [0..],
    }

    /// One group.
    part DescribedGroup {
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [0..] [null 0..],
        /// The group.
        group_id: Text [0..],
        /// Its state: Empty, Assigning, Reconciling, Stable or Dead.
        group_state: Text [0..],
        /// How often its members, their wishes or their topics changed.
        group_epoch: i32 [0..],
        /// The group's epoch for which the partitions were shared out last.
        assignment_epoch: i32 [0..],
        /// Who shares out the partitions.
        assignor_name: Text [0..],
        /// The members.
        members: Vec<Member> [0..],
        /// A bit set of what the client may do with the group; the lowest value means that it was not asked.
        authorized_operations: i32 [0..] [or i32::MIN],
    }

    /// One member.
    part Member {
        /// Its id.
        member_id: Text [0..],
        /// The id of a static member.
        instance_id: Option<Text> [0..] [null 0..],
        /// Its rack.
        rack_id: Option<Text> [0..] [null 0..],
        /// Its epoch.
        member_epoch: i32 [0..],
        /// What its client calls itself.
        client_id: Text [0..],
        /// Where it is.
        client_host: Text [0..],
        /// The topics that it wants.
        subscribed_topic_names: Vec<Text> [0..],
        /// The topics that it wants, as a regular expression.
        subscribed_topic_regex: Option<Text> [0..] [null 0..],
        /// What it has.
        assignment: Assignment [0..],
        /// What it is to have.
        target_assignment: Assignment [0..],
        /// 0 a member of the classic protocol, 1 of the consumer protocol, -1 unknown (KIP-1099).
        member_type: i8 [1..] [or -1] [ignorable],
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
        /// The topic's name.
        topic_name: Text [0..],
        /// The partitions' numbers.
        partitions: Vec<i32> [0..],
    }
}
