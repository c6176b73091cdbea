//! JoinGroup: becomes a member of a classic group, and waits for its next generation.

use bytes::Bytes;

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Who joins, and what it can do.
    request JoinGroup JoinGroupRequest -> JoinGroupResponse {
        /// The group.
        group_id: Text [0..],
        /// Without a heartbeat for so many milliseconds, the member is gone.
        session_timeout_ms: i32 [0..],
        /// How many milliseconds a rebalance waits for the member to join again; -1 for the session's.
        rebalance_timeout_ms: i32 [1..] [or -1] [ignorable],
        /// The member's id; empty at first.
        member_id: Text [0..],
        /// The id of a static member (KIP-345).
        group_instance_id: Option<Text> [5..] [null 5..],
        /// What kind of group this is: "consumer", "connect" or any other.
        protocol_type: Text [0..],
        /// The protocols that the member knows, the one it likes best first.
        protocols: Vec<JoinGroupRequestProtocol> [0..],
        /// Why it joins, for people (KIP-800).
        reason: Option<Text> [8..] [null 8..] [ignorable],
    }

    /// A protocol that a member knows.
    part JoinGroupRequestProtocol {
        /// Its name.
        name: Text [0..],
        /// What the group's leader needs of the member, in the protocol's own form.
        metadata: Bytes [0..],
    }

    /// The generation that was joined.
    response JoinGroup JoinGroupResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [2..] [ignorable],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The group's generation.
        generation_id: i32 [0..] [or -1],
        /// What kind of group this is.
        protocol_type: Option<Text> [7..] [null 7..] [ignorable],
        /// The protocol that all members know.
        protocol_name: Option<Text> [0..] [null 7..] [or Some(Text::default())],
        /// The member that shares out what there is.
        leader: Text [0..],
        /// Whether the leader keeps the present assignment (KIP-814).
        skip_assignment: bool [9..],
        /// The member's id.
        member_id: Text [0..],
        /// All members, for the leader only.
        members: Vec<JoinGroupResponseMember> [0..],
    }

    /// A member, as its leader sees it.
    part JoinGroupResponseMember {
        /// Its id.
        member_id: Text [0..],
        /// The id of a static member.
        group_instance_id: Option<Text> [5..] [null 5..] [ignorable],
        /// What it said for the chosen protocol.
        metadata: Bytes [0..],
    }
}
