//! ConsumerGroupHeartbeat (KIP-848).

use std::collections::BTreeSet;

use super::group;
use crate::machine::groups::Answer;
use crate::machine::groups::consumer::heartbeat::Beat;
use crate::machine::groups::consumer::record::Partitions;
use crate::machine::groups::consumer::{Heartbeat, compile};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::consumer_group_heartbeat::TopicPartitions;
use crate::protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;
use crate::server::memory::Held;

/// The first version whose clients make their members' ids themselves (KIP-1082).
const MUST_HAVE_ID_FROM: i16 = 1;

/// Handles one ConsumerGroupHeartbeat request.
pub async fn handle(
    call: &Call,
    request: ConsumerGroupHeartbeatRequest,
    memory: &mut Held,
) -> ConsumerGroupHeartbeatResponse {
    let names = [Some(&request.member_id), request.instance_id.as_ref(), request.rack_id.as_ref()];
    if names.into_iter().flatten().any(|name| name.len() > group::NAME_BYTES_MAX) {
        let message = format!("MemberId, InstanceId and RackId may have {} bytes.", group::NAME_BYTES_MAX);
        return refused(ErrorCode::INVALID_REQUEST, Some(message));
    }
    let id = request.group_id.detached();
    let group_id = id.clone();
    let must_have_id = call.version() >= MUST_HAVE_ID_FROM;
    let new_id = group::consumer_id(group::new_uuid(call));
    let mut heartbeat = heartbeat(call, request);
    // Here, where it takes nobody else's time.
    match heartbeat.regex.as_deref().filter(|regex| !regex.is_empty()).map(compile).transpose() {
        Ok(compiled) => heartbeat.compiled = compiled,
        Err(refusal) => return refused(refusal.code, Some(refusal.message)),
    }
    // What it came in is free; its copies count until the coordinator has decided about them.
    let held = std::mem::take(memory);
    let asked = group::ask(call, &group_id, false, move |turn, ticket| {
        let beat = Beat { ticket, heartbeat, must_have_id, new_id };
        turn.coordinator.consumer_heartbeat(turn.now, &id, beat, turn.out);
        drop(held);
    });
    match asked.await {
        Ok(Answer::Heartbeat(response)) => response,
        Ok(other) => panic!("a heartbeat was told {other:?}"),
        Err(code) => refused(code, None),
    }
}

fn heartbeat(call: &Call, request: ConsumerGroupHeartbeatRequest) -> Heartbeat {
    let detached = |text: &Option<Text>| text.as_ref().map(Text::detached);
    Heartbeat {
        member_id: request.member_id.detached(),
        epoch: request.member_epoch,
        instance_id: detached(&request.instance_id),
        rack_id: detached(&request.rack_id),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        topics: request.subscribed_topic_names.map(|names| names.iter().map(Text::detached).collect()),
        regex: detached(&request.subscribed_topic_regex),
        compiled: None,
        assignor: detached(&request.server_assignor),
        owned: request.topic_partitions.map(partitions),
        client_id: Text::from(group::cut(call.header.client_id.as_deref().unwrap_or_default())),
        client_host: format!("/{}", call.peer.ip()).into(),
    }
}

fn partitions(told: Vec<TopicPartitions>) -> Partitions {
    let mut partitions = Partitions::new();
    for told in told {
        let of_topic: &mut BTreeSet<i32> = partitions.entry(told.topic_id).or_default();
        of_topic.extend(told.partitions);
    }
    partitions
}

fn refused(error_code: ErrorCode, message: Option<String>) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse { error_code, error_message: message.map(Text::from), ..Default::default() }
}
