//! DeleteGroups.

use super::group;
use crate::protocol::messages::delete_groups::DeletableGroupResult;
use crate::protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};
use crate::server::dispatch::Call;

/// Handles one DeleteGroups request.
pub async fn handle(call: &Call, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for name in &request.groups_names {
        let id = name.detached();
        let asked = group::ask(call, name, true, move |turn, ticket| {
            turn.coordinator.delete(&id, turn.committed, ticket, turn.out);
        });
        let error_code = group::code(asked.await);
        results.push(DeletableGroupResult { group_id: name.clone(), error_code });
    }
    DeleteGroupsResponse { results, ..Default::default() }
}
