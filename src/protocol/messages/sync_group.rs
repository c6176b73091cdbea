//! SyncGroup: the leader of a classic group hands in the assignment, everybody gets their share.

use bytes::Bytes;

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// The assignment, from the leader; nothing from the others.
    request SyncGroup SyncGroupRequest -> SyncGroupResponse {
        /// The group.
        group_id: Text [0..],
        /// The generation that was joined.
        generation_id: i32 [0..],
        /// The member's id.
        member_id: Text [0..],
        /// The id of a static member.
        group_instance_id: Option<Text> [3..] [null 3..],
        /// What kind of group the member takes this for.
        protocol_type: Option<Text> [5..] [null 5..] [ignorable],
        /// The protocol that the member takes for chosen.
        protocol_name: Option<Text> [5..] [null 5..] [ignorable],
        /// Each member's share.
        assignments: Vec<SyncGroupRequestAssignment> [0..],
    }

    /// One member's share.
    part SyncGroupRequestAssignment {
        /// The member.
        member_id: Text [0..],
        /// Its share, in the protocol's own form.
        assignment: Bytes [0..],
    }

    /// The member's share.
    response SyncGroup SyncGroupResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [1..] [ignorable],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// What kind of group this is.
        protocol_type: Option<Text> [5..] [null 5..] [ignorable],
        /// The chosen protocol.
        protocol_name: Option<Text> [5..] [null 5..] [ignorable],
        /// The share, in the protocol's own form.
        assignment: Bytes [0..],
    }
}
