//! SyncGroup.

use super::group;
use crate::machine::groups::Answer;
use crate::machine::groups::classic::{MemberOf, Sync};
use crate::protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;
use crate::server::memory::Held;

/// Handles one SyncGroup request.
pub async fn handle(call: &Call, request: SyncGroupRequest, memory: &mut Held) -> SyncGroupResponse {
    let id = request.group_id.detached();
    let member = MemberOf {
        member_id: request.member_id.detached(),
        instance_id: request.group_instance_id.as_ref().map(Text::detached),
        generation: request.generation_id,
    };
    let protocol_type = request.protocol_type.as_ref().map(Text::detached);
    let protocol_name = request.protocol_name.as_ref().map(Text::detached);
    let assignments = request.assignments.iter();
    let assignments: Vec<_> = assignments
        .map(|share| (share.member_id.detached(), bytes::Bytes::copy_from_slice(&share.assignment)))
        .collect();
    let group_id = id.clone();
    // It may wait for minutes: what it came in is free meanwhile. Its copies count until the coordinator has decided about them.
    drop(request);
    let held = std::mem::take(memory);
    let asked = group::ask_as_member(call, &group_id, move |turn, ticket| {
        let sync = Sync { ticket, member, protocol_type, protocol_name, assignments };
        turn.coordinator.sync(turn.now, &id, sync, turn.out);
        drop(held);
    });
    match asked.await {
        Ok(Answer::Sync(response)) => response,
        Ok(other) => panic!("a sync was told {other:?}"),
        Err(error_code) => SyncGroupResponse { error_code, ..Default::default() },
    }
}
