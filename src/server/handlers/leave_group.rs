//! LeaveGroup.

use super::group;
use crate::machine::groups::Answer;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::leave_group::MemberResponse;
use crate::protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// The first version in which several leave at once (KIP-345).
const MANY_FROM: i16 = 3;

/// Handles one LeaveGroup request.
pub async fn handle(call: &Call, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let is_many = call.version() >= MANY_FROM;
    let id = request.group_id.detached();
    let members: Vec<(Text, Option<Text>)> = if is_many {
        let of = request.members.iter();
        of.map(|member| (member.member_id.detached(), member.group_instance_id.as_ref().map(Text::detached))).collect()
    } else {
        vec![(request.member_id.detached(), None)]
    };
    let named = members.clone();
    let asked = group::ask_as_member(call, &request.group_id, move |turn, ticket| {
        turn.coordinator.leave(turn.now, &id, ticket, &members, turn.out);
    });
    let codes = match asked.await {
        Ok(Answer::Left(Some(codes))) => codes,
        Ok(Answer::Left(None)) => vec![ErrorCode::UNKNOWN_MEMBER_ID; named.len()],
        Ok(other) => panic!("a leave was told {other:?}"),
        Err(code) => return failed(code),
    };
    if !is_many {
        return failed(codes.first().copied().unwrap_or(ErrorCode::UNKNOWN_MEMBER_ID));
    }
    let responses = named.into_iter().zip(codes).map(|((member_id, group_instance_id), error_code)| MemberResponse {
        member_id,
        group_instance_id,
        error_code,
    });
    LeaveGroupResponse { members: responses.collect(), ..Default::default() }
}

fn failed(error_code: ErrorCode) -> LeaveGroupResponse {
    LeaveGroupResponse { error_code, ..Default::default() }
}
