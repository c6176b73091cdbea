//! DescribeGroups: classic groups and their members.

use bytes::Bytes;

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// The groups in question.
    request DescribeGroups DescribeGroupsRequest -> DescribeGroupsResponse {
        /// The groups.
        groups: Vec<Text> [0..],
        /// Whether to say what the client may do with each.
        include_authorized_operations: bool [3..],
    }

    /// The groups.
    response DescribeGroups DescribeGroupsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [1..] [ignorable],
        /// Each group.
        groups: Vec<DescribedGroup> [0..],
    }

    /// One group.
    part DescribedGroup {
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [6..] [null 6..],
        /// The group.
        group_id: Text [0..],
        /// Its state: Empty, PreparingRebalance, CompletingRebalance, Stable or Dead.
        group_state: Text [0..],
        /// What kind of group it is.
        protocol_type: Text [0..],
        /// The chosen protocol.
        protocol_data: Text [0..],
        /// The members.
        members: Vec<DescribedGroupMember> [0..],
        /// A bit set of what the client may do with the group; the lowest value means that it was not asked.
        authorized_operations: i32 [3..] [or i32::MIN],
    }

    /// One member.
    part DescribedGroupMember {
        /// Its id.
        member_id: Text [0..],
        /// The id of a static member.
        group_instance_id: Option<Text> [4..] [null 4..] [ignorable],
        /// What its client calls itself.
        client_id: Text [0..],
        /// Where it is.
        client_host: Text [0..],
        /// What it said for the chosen protocol.
        member_metadata: Bytes [0..],
        /// Its share.
        member_assignment: Bytes [0..],
    }
}
