//! ListGroups: the groups that this broker coordinates.

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Which groups.
    request ListGroups ListGroupsRequest -> ListGroupsResponse {
        /// Only groups in one of these states; none for all (KIP-518).
        states_filter: Vec<Text> [4..],
        /// Only groups of one of these types; none for all (KIP-848).
        types_filter: Vec<Text> [5..],
    }

    /// The groups.
    response ListGroups ListGroupsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [1..] [ignorable],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// Each group.
        groups: Vec<ListedGroup> [0..],
    }

    /// One group.
    part ListedGroup {
        /// The group.
        group_id: Text [0..],
        /// What kind of group it is.
        protocol_type: Text [0..],
        /// Its state.
        group_state: Text [4..] [ignorable],
        /// Its type: classic or consumer.
        group_type: Text [5..] [ignorable],
    }
}
