//! FindCoordinator: which broker coordinates a group or a transactional id.

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// The keys whose coordinators are wanted.
    request FindCoordinator FindCoordinatorRequest -> FindCoordinatorResponse {
        /// The group or transactional id.
        key: Text [0..=3],
        /// What the keys are: 0 groups, 1 transactional ids, 2 share groups' partitions.
        key_type: i8 [1..],
        /// The group or transactional ids.
        coordinator_keys: Vec<Text> [4..],
    }

    /// The coordinators.
    response FindCoordinator FindCoordinatorResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [1..] [ignorable],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..=3],
        /// The error in words, if there is one.
        error_message: Option<Text> [1..=3] [null 1..=3] [ignorable],
        /// The broker's id.
        node_id: i32 [0..=3],
        /// Its host name or address.
        host: Text [0..=3],
        /// Its port.
        port: i32 [0..=3],
        /// The coordinators.
        coordinators: Vec<Coordinator> [4..],
    }

    /// One key's coordinator.
    part Coordinator {
        /// The group or transactional id.
        key: Text [4..],
        /// The broker's id.
        node_id: i32 [4..],
        /// Its host name or address.
        host: Text [4..],
        /// Its port.
        port: i32 [4..],
        /// What went wrong, if anything.
        error_code: ErrorCode [4..],
        /// The error in words, if there is one.
        error_message: Option<Text> [4..] [null 4..] [ignorable],
    }
}
