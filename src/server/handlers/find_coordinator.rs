//! FindCoordinator: who coordinates a group. There are no transactions yet: a transactional id gets an error that no client tries again.

use std::time::Duration;

use tokio::time::Instant;

use super::group;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::find_coordinator::Coordinator;
use crate::protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use crate::protocol::value::Text;
use crate::server::brokers::Reachable;
use crate::server::dispatch::Call;

/// The first version that asks for several keys (KIP-699).
const BATCHED_FROM: i16 = 4;
const NO_NODE: i32 = -1;
/// How long a question waits for a coordinator that is just being elected: longer than an election takes, and shorter than librdkafka waits for the answer
/// before it asks again (1 s). Told that there is none, it asks again after that second.
const ELECTED_WITHIN: Duration = Duration::from_millis(700);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// Handles one FindCoordinator request.
pub async fn handle(call: &Call, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let made = match request.key_type {
        GROUP => group::make_coordinators(call).await,
        _ => Ok(()),
    };
    let is_batched = call.version() >= BATCHED_FROM;
    if request.key_type == GROUP && made.is_ok() {
        let one = std::slice::from_ref(&request.key);
        wait_for_leaders(call, if is_batched { &request.coordinator_keys } else { one }).await;
    }
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

/// Waits until each group's coordinator has a leader, but not for long.
async fn wait_for_leaders(call: &Call, keys: &[Text]) {
    let until = Instant::now() + ELECTED_WITHIN;
    for key in keys {
        while leader_of(call, key).is_none() {
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }
}

fn leader_of(call: &Call, key: &Text) -> Option<Reachable> {
    let leader = group::coordinator_of(call, key).and_then(|id| call.context.leader(id));
    leader.and_then(|(leader, _)| call.context.reachable(leader))
}

fn found(call: &Call, key: Text, message: &'static str) -> Coordinator {
    let Some(leader) = leader_of(call, &key) else {
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
