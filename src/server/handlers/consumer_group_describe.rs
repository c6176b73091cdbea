//! ConsumerGroupDescribe (KIP-848).

use std::collections::HashSet;

use super::{authorized, group};
use crate::machine::groups::Answer;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::consumer_group_describe::DescribedGroup;
use crate::protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// Handles one ConsumerGroupDescribe request.
pub async fn handle(call: &Call, request: ConsumerGroupDescribeRequest) -> ConsumerGroupDescribeResponse {
    let mut groups = Vec::with_capacity(request.group_ids.len());
    let mut seen = HashSet::new();
    // Asked for once more, it is answered once: an answer may be large.
    for id in request.group_ids.iter().filter(|id| seen.insert(*id)) {
        let mut described = describe(call, id).await;
        if request.include_authorized_operations && !described.error_code.is_error() {
            described.authorized_operations = authorized::GROUP;
        }
        groups.push(described);
    }
    ConsumerGroupDescribeResponse { groups, ..Default::default() }
}

async fn describe(call: &Call, id: &Text) -> DescribedGroup {
    let failed = |error_code| DescribedGroup { error_code, group_id: id.clone(), ..Default::default() };
    if id.is_empty() {
        return failed(ErrorCode::INVALID_GROUP_ID);
    }
    let group_id = id.detached();
    let asked = group::ask(call, id, false, move |turn, ticket| {
        let described = turn.coordinator.describe_consumers(&group_id);
        turn.out.answer(ticket, Answer::DescribedConsumers(described));
    });
    match asked.await {
        Ok(Answer::DescribedConsumers(described)) => described,
        Ok(other) => panic!("a describe was told {other:?}"),
        Err(code) => failed(code),
    }
}
