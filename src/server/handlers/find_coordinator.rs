//! FindCoordinator: there are no groups and no transactions yet, and clients are not told of this API. One that asks
//! nevertheless gets an error that no client tries again: a coordinator that is merely "not available" would be asked for until
//! the end of time.

use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::find_coordinator::Coordinator;
use crate::protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// The first version that asks for several keys (KIP-699).
const BATCHED_FROM: i16 = 4;
const NO_NODE: i32 = -1;
const TRANSACTION: i8 = 1;

/// Handles one FindCoordinator request.
pub async fn handle(call: &Call, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let message = Some(Text::from_static(match request.key_type {
        TRANSACTION => "This broker does not support transactions.",
        _ => "This broker does not support consumer groups.",
    }));
    if call.version() < BATCHED_FROM {
        return FindCoordinatorResponse {
            error_code: ErrorCode::INVALID_REQUEST,
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
        error_code: ErrorCode::INVALID_REQUEST,
        error_message: message.clone(),
        ..Default::default()
    });
    FindCoordinatorResponse { coordinators: coordinators.collect(), ..Default::default() }
}
