//! FindCoordinator: there are no groups and no transactions yet (the API is advertised for librdkafka, which takes it as the sign
//! that a broker can store lz4).
//!
//! A group's coordinator is "not available": consumers that assign partitions themselves look for it in the background, and
//! anything final would reach their users as an error. A transactional id gets an error that no client tries again.

use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::find_coordinator::Coordinator;
use crate::protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// The first version that asks for several keys (KIP-699).
const BATCHED_FROM: i16 = 4;
const NO_NODE: i32 = -1;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// Handles one FindCoordinator request.
pub async fn handle(call: &Call, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let (error_code, message) = match request.key_type {
        GROUP => (ErrorCode::COORDINATOR_NOT_AVAILABLE, "This broker does not support consumer groups."),
        TRANSACTION => (ErrorCode::INVALID_REQUEST, "This broker does not support transactions."),
        _ => (ErrorCode::INVALID_REQUEST, "This broker has no coordinators of that type."),
    };
    let message = Some(Text::from_static(message));
    if call.version() < BATCHED_FROM {
        return FindCoordinatorResponse {
            error_code,
            error_message: message,
            node_id: NO_NODE,
            port: NO_NODE,
            ..Default::default()
        };
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| Coordinator {
        key,
        node_id: NO_NODE,
        port: NO_NODE,
        error_code,
        error_message: message.clone(),
        ..Default::default()
    });
    FindCoordinatorResponse { coordinators: coordinators.collect(), ..Default::default() }
}
