//! FindCoordinator: who coordinates a group. There are no transactions yet: a transactional id gets an error that no client tries again.

use super::group;
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
    let made = match request.key_type {
        GROUP => group::make_coordinators(call).await,
        _ => Ok(()),
    };
    let is_batched = call.version() >= BATCHED_FROM;
    // As Kafka says it: the older versions' message is the code's name.
    let no_message = if is_batched { "" } else { "NONE" };
    let find = |key: Text| match (request.key_type, made) {
        (GROUP, Err(code)) => failed(key, code, "The topic of the coordinators is being made."),
        (GROUP, Ok(())) => found(call, key, no_message),
        (TRANSACTION, _) => failed(key, ErrorCode::INVALID_REQUEST, "This broker does not support transactions."),
        _ => failed(key, ErrorCode::INVALID_REQUEST, "This broker has no coordinators of that type."),
    };
    if is_batched {
        let coordinators = request.coordinator_keys.into_iter().map(find).collect();
        return FindCoordinatorResponse { coordinators, ..Default::default() };
    }
    let Coordinator { node_id, host, port, error_code, error_message, .. } = find(request.key);
    FindCoordinatorResponse { error_code, error_message, node_id, host, port, ..Default::default() }
}

fn found(call: &Call, key: Text, message: &'static str) -> Coordinator {
    let context = &call.context;
    let leader = group::coordinator_of(call, &key).and_then(|id| context.leader(id));
    let Some(leader) = leader.and_then(|(leader, _)| context.reachable(leader)) else {
        return failed(key, ErrorCode::COORDINATOR_NOT_AVAILABLE, "The group's coordinator has no leader.");
    };
    Coordinator {
        key,
        node_id: leader.id.0,
        host: leader.host,
        port: leader.port,
        error_message: Some(Text::from_static(message)),
        ..Default::default()
    }
}

fn failed(key: Text, error_code: ErrorCode, message: &'static str) -> Coordinator {
    let error_message = Some(Text::from_static(message));
    Coordinator { key, node_id: NO_NODE, port: NO_NODE, error_code, error_message, ..Default::default() }
}
