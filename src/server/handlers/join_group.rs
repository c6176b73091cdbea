//! JoinGroup.

use super::group;
use crate::machine::groups::Answer;
use crate::machine::groups::classic::Join;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;
use crate::server::memory::Held;

/// The first version in which a member without an id has to join again with the one it is given (KIP-394).
const MUST_KNOW_ID_FROM: i16 = 4;
/// The first version that can say that there is no protocol.
const NULL_PROTOCOL_FROM: i16 = 7;
/// The first version in which a leader can be told to keep the shares (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;

/// Protocols that a member may name: all members are compared by each. Clients have one to four.
const PROTOCOLS_MAX: usize = 100;

/// Handles one JoinGroup request.
pub async fn handle(call: &Call, request: JoinGroupRequest, memory: &mut Held) -> JoinGroupResponse {
    let version = call.version();
    let too_long = request.group_instance_id.as_ref().is_some_and(|id| id.len() > group::NAME_BYTES_MAX);
    if too_long || request.protocols.len() > PROTOCOLS_MAX {
        let error_code = if too_long { ErrorCode::INVALID_REQUEST } else { ErrorCode::INCONSISTENT_GROUP_PROTOCOL };
        return refused(version, request.member_id, error_code);
    }
    let client_id = Text::from(group::cut(call.header.client_id.as_deref().unwrap_or_default()));
    let instance_id = request.group_instance_id.as_ref().map(Text::detached);
    let uuid = group::new_uuid(call);
    let new_id = group::classic_id(uuid, &client_id, instance_id.as_deref());
    let new_consumer_id = group::consumer_id(uuid);
    let member_id = request.member_id.detached();
    let peer = call.peer.ip();
    let id = request.group_id.detached();
    let protocols = request.protocols.iter();
    let protocols: Vec<_> = protocols
        .map(|protocol| (protocol.name.detached(), bytes::Bytes::copy_from_slice(&protocol.metadata)))
        .collect();
    let protocol_type = request.protocol_type.detached();
    let (session_timeout_ms, rebalance_timeout_ms) = (request.session_timeout_ms, request.rebalance_timeout_ms);
    let asked_id = member_id.clone();
    let group_id = id.clone();
    // It may wait for minutes: what it came in is free meanwhile. Its copies count until the coordinator has decided about them.
    drop(request);
    let held = std::mem::take(memory);
    let asked = group::ask(call, &group_id, false, move |turn, ticket| {
        let join = Join {
            ticket,
            member_id,
            instance_id,
            client_id,
            client_host: format!("/{peer}").into(),
            session_timeout_ms,
            rebalance_timeout_ms,
            protocol_type,
            protocols,
            new_id,
            new_consumer_id,
            must_know_id: version >= MUST_KNOW_ID_FROM,
            can_skip_assignment: version >= SKIP_ASSIGNMENT_FROM,
        };
        turn.coordinator.join(turn.now, &id, join, turn.out);
        drop(held);
    });
    let mut response = match asked.await {
        Ok(Answer::Join(response)) => response,
        Ok(other) => panic!("a join was told {other:?}"),
        Err(error_code) => return refused(version, asked_id, error_code),
    };
    if response.error_code.is_error() {
        response.protocol_name = None;
    }
    if version < NULL_PROTOCOL_FROM {
        response.protocol_name.get_or_insert_default();
    }
    response
}

fn refused(version: i16, member_id: Text, error_code: ErrorCode) -> JoinGroupResponse {
    let protocol_name = (version < NULL_PROTOCOL_FROM).then(Text::default);
    JoinGroupResponse { error_code, member_id, protocol_name, ..Default::default() }
}
