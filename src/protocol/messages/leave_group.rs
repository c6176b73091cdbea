//! LeaveGroup: members leave a classic group, or are made to (KIP-345).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Who leaves.
    request LeaveGroup LeaveGroupRequest -> LeaveGroupResponse {
        /// The group.
        group_id: Text [0..],
        /// The member.
        member_id: Text [0..=2],
        /// The members.
        members: Vec<MemberIdentity> [3..],
    }

    /// A member that leaves.
    part MemberIdentity {
        /// Its id; may be empty for a static member.
        member_id: Text [3..],
        /// The id of a static member.
        group_instance_id: Option<Text> [3..] [null 3..],
        /// Why it leaves, for people (KIP-800).
        reason: Option<Text> [5..] [null 5..] [ignorable],
    }

    /// Who left.
    response LeaveGroup LeaveGroupResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [1..] [ignorable],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// What became of each member.
        members: Vec<MemberResponse> [3..],
    }

    /// What became of one member.
    part MemberResponse {
        /// Its id.
        member_id: Text [3..],
        /// The id of a static member.
        group_instance_id: Option<Text> [3..] [null 3..],
        /// What went wrong, if anything.
        error_code: ErrorCode [3..],
    }
}
