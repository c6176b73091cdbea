//! ListGroups: those of this broker's coordinators.

use super::group;
use crate::machine::groups::Answer;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::list_groups::ListedGroup;
use crate::protocol::messages::{ListGroupsRequest, ListGroupsResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// Handles one ListGroups request.
pub async fn handle(call: &Call, request: ListGroupsRequest) -> ListGroupsResponse {
    let mut groups = Vec::new();
    for id in group::coordinators(call) {
        let asked = group::ask_partition(call, id, false, |turn, ticket| {
            let listed = turn.coordinator.list();
            turn.out.answer(ticket, Answer::Listed(listed));
        });
        match asked.await {
            Ok(Answer::Listed(listed)) => groups.extend(listed),
            Ok(other) => panic!("a list was told {other:?}"),
            // Another broker coordinates it.
            Err(ErrorCode::NOT_COORDINATOR) if call.context.among.is_some() => {}
            Err(error_code) => return ListGroupsResponse { error_code, ..Default::default() },
        }
    }
    let is_one_of = |filter: &[Text], value: &Text| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    groups.retain(|group: &ListedGroup| {
        is_one_of(&request.states_filter, &group.group_state) && is_one_of(&request.types_filter, &group.group_type)
    });
    ListGroupsResponse { groups, ..Default::default() }
}
