//! Heartbeat: a member of a classic group is alive, and learns of a rebalance.

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Who is alive.
    request Heartbeat HeartbeatRequest -> HeartbeatResponse {
        /// The group.
        group_id: Text [0..],
        /// The generation that the member belongs to.
        generation_id: i32 [0..],
        /// The member's id.
        member_id: Text [0..],
        /// The id of a static member.
        group_instance_id: Option<Text> [3..] [null 3..],
    }

    /// Whether the member still belongs to the group.
    response Heartbeat HeartbeatResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [1..] [ignorable],
        /// What went wrong, or that the group rebalances.
        error_code: ErrorCode [0..],
    }
}
