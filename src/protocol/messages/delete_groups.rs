//! DeleteGroups: forgets groups that have no members.

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Groups to delete.
    request DeleteGroups DeleteGroupsRequest -> DeleteGroupsResponse {
        /// The groups.
        groups_names: Vec<Text> [0..],
    }

    /// What became of the groups.
    response DeleteGroups DeleteGroupsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..],
        /// Each group.
        results: Vec<DeletableGroupResult> [0..],
    }

    /// What became of one group.
    part DeletableGroupResult {
        /// The group.
        group_id: Text [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
    }
}
