//! DescribeGroups.

use std::collections::HashSet;

use super::{authorized, group};
use crate::machine::groups::Answer;
use crate::machine::groups::coordinator::Coordinator;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::describe_groups::DescribedGroup;
use crate::protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// The first version whose clients are told that there is no such group, and not that it is dead (KIP-1043).
const MISSING_GROUPS_FROM: i16 = 6;

/// Handles one DescribeGroups request.
pub async fn handle(call: &Call, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    let mut seen = HashSet::new();
    // Asked for once more, it is answered once: an answer may be large.
    for id in request.groups.iter().filter(|id| seen.insert(*id)) {
        let mut described = describe(call, id).await;
        if request.include_authorized_operations && !described.error_code.is_error() {
            described.authorized_operations = authorized::GROUP;
        }
        groups.push(described);
    }
    DescribeGroupsResponse { groups, ..Default::default() }
}

async fn describe(call: &Call, id: &Text) -> DescribedGroup {
    let group_id = id.detached();
    let asked = group::ask(call, id, false, move |turn, ticket| {
        let described = turn.coordinator.describe(&group_id);
        turn.out.answer(ticket, Answer::Described(described));
    });
    match asked.await {
        Ok(Answer::Described(Some(described))) => described,
        Ok(Answer::Described(None)) if call.version() >= MISSING_GROUPS_FROM => DescribedGroup {
            error_code: ErrorCode::GROUP_ID_NOT_FOUND,
            error_message: Some(format!("There is no group {id}.").into()),
            ..Coordinator::dead(id)
        },
        Ok(Answer::Described(None)) => Coordinator::dead(id),
        Ok(other) => panic!("a describe was told {other:?}"),
        Err(error_code) => DescribedGroup { error_code, group_id: id.clone(), ..Default::default() },
    }
}
