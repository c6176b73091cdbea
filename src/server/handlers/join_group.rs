//! JoinGroup.

use super::group;
use crate::machine::groups::Answer;
use crate::machine::groups::classic::Join;
use crate::protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// The first version in which a member without an id has to join again with the one it is given (KIP-394).
const MUST_KNOW_ID_FROM: i16 = 4;
/// The first version that can say that there is no protocol.
const NULL_PROTOCOL_FROM: i16 = 7;
/// The first version in which a leader can be told to keep the shares (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;

/// Handles one JoinGroup request.
pub async fn handle(call: &Call, request: JoinGroupRequest) -> JoinGroupResponse {
    let version = call.version();
    let client_id = call.header.client_id.as_ref().map(Text::detached).unwrap_or_default();
    let instance_id = request.group_instance_id.as_ref().map(Text::detached);
    let new_id = group::new_member_id(call, &client_id, instance_id.as_deref());
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
    let asked = group::ask(call, &request.group_id, false, move |turn, ticket| {
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
            must_know_id: version >= MUST_KNOW_ID_FROM,
            can_skip_assignment: version >= SKIP_ASSIGNMENT_FROM,
        };
        turn.coordinator.join(turn.now, &id, join, turn.out);
    });
    let mut response = match asked.await {
        Ok(Answer::Join(response)) => response,
        Ok(other) => panic!("a join was told {other:?}"),
        Err(error_code) => JoinGroupResponse { error_code, member_id: asked_id, ..Default::default() },
    };
    if response.error_code.is_error() {
        response.protocol_name = None;
    }
    if version < NULL_PROTOCOL_FROM {
        response.protocol_name.get_or_insert_default();
    }
    response
}
