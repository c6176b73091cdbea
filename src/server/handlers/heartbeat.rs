//! Heartbeat.

use super::group;
use crate::machine::groups::classic::MemberOf;
use crate::protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// Handles one Heartbeat request.
pub async fn handle(call: &Call, request: HeartbeatRequest) -> HeartbeatResponse {
    let id = request.group_id.detached();
    let member = MemberOf {
        member_id: request.member_id.detached(),
        instance_id: request.group_instance_id.as_ref().map(Text::detached),
        generation: request.generation_id,
    };
    let asked = group::ask_as_member(call, &request.group_id, move |turn, ticket| {
        turn.coordinator.heartbeat(turn.now, &id, ticket, &member, turn.out);
    });
    HeartbeatResponse { error_code: group::code(asked.await), ..Default::default() }
}
