//! Produce: checks that need no state, then the partition's leader decides; the reply waits for what its acks promise.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::produce_check::{Checked, NO_APPEND_TIME, check};
use crate::ids::{BrokerId, Offset, PartitionId, PartitionIndex, RaftIndex, TopicId};
use crate::machine::controller::Controller;
use crate::machine::controller::names::is_internal;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::decode_request;
use crate::protocol::messages::produce::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceData, PartitionProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use crate::protocol::messages::{ProduceRequest, ProduceResponse};
use crate::replica::{Replica, Submission, SubmitError, Submitted};
use crate::server::brokers::Reachable;
use crate::server::connection::{ConnectionError, Reply, Slot};
use crate::server::dispatch::Call;
use crate::server::error;
use crate::server::memory::Held;

/// The first version that names topics by id (KIP-516).
const IDS_FROM: i16 = 13;

/// The acks of a client that wants its records on all replicas in sync.
const ALL: i16 = -1;
/// How often it is looked whether more replicas than a majority have a batch.
const HELD_LOOK: Duration = Duration::from_millis(2);

/// How often it is looked whether a leader on whose commit a client waits may still serve, and when its client is sent away.
const LEASE_LOOK: Duration = Duration::from_millis(100);
const CUT_OFF_AFTER: Duration = Duration::from_millis(400);

/// What became of one partition's batch, as far as it is known.
enum Outcome {
    Known(Box<PartitionProduceResponse>),
    Pending {
        id: PartitionId,
        append_time: i64,
        log_start: Offset,
        replica: Arc<Replica>,
        /// How many replicas must have it (`min.insync.replicas`), if that is more than one.
        needed: usize,
        done: oneshot::Receiver<Result<Submitted, SubmitError>>,
    },
}

/// Handles one Produce request: submits its batches in order, and reserves the reply's slot.
///
/// # Errors
/// If the body is malformed.
pub async fn handle(call: &Call, body: Bytes, memory: &mut Held) -> Result<Slot, ConnectionError> {
    let request = decode_request::<ProduceRequest>(body, call.version())?;
    let partitions = request.topic_data.iter().map(|topic| topic.partition_data.len()).sum();
    call.context.request_memory.grow_for_answers(memory, partitions).await?;
    let acks = request.acks;
    // The time that a client gives is for the other replicas: its own leader's append is waited for, as in Kafka.
    let patience = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = (acks == -1 || call.context.among.is_some()).then(|| Instant::now() + patience);
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data.into_iter().filter(|topic| !topic.partition_data.is_empty()) {
        let (found, is_internal) = find(call, &topic);
        let mut outcomes = Vec::with_capacity(topic.partition_data.len());
        for partition in topic.partition_data {
            let outcome = match acks {
                // What stands there is the coordinators' own.
                -1..=1 if is_internal && found.is_ok_and(|topic| exists(call, topic, partition.index)) => {
                    Outcome::Known(Box::new(failed(partition.index, ErrorCode::INVALID_TOPIC_EXCEPTION)))
                }
                -1..=1 => submit(call, found, partition, acks).await,
                _ => Outcome::Known(Box::new(failed(partition.index, ErrorCode::INVALID_REQUIRED_ACKS))),
            };
            outcomes.push(outcome);
        }
        topics.push((topic.name, topic.topic_id, outcomes));
    }
    let call = call.clone();
    Ok(Slot::later(async move {
        let mut response = ProduceResponse::default();
        for (name, topic_id, outcomes) in topics {
            let mut partition_responses = Vec::with_capacity(outcomes.len());
            for outcome in outcomes {
                partition_responses.push(settle(&call, outcome, deadline).await);
            }
            response.responses.push(TopicProduceResponse { name, topic_id, partition_responses });
        }
        finish(&call, acks, response)
    }))
}

/// The topic that is meant, and whether it is one of the cluster's own.
fn find(call: &Call, topic: &TopicProduceData) -> (Result<TopicId, ErrorCode>, bool) {
    if call.version() < IDS_FROM {
        let found = call.context.controller.topic_id(&topic.name);
        return (found.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), is_internal(&topic.name));
    }
    let name_is_internal = |controller: &Controller| Some(is_internal(&controller.topic_by_id(topic.topic_id)?.name));
    match call.context.controller.read(name_is_internal) {
        Some(is_internal) => (Ok(topic.topic_id), is_internal),
        None => (Err(ErrorCode::UNKNOWN_TOPIC_ID), false),
    }
}

fn exists(call: &Call, topic: TopicId, index: i32) -> bool {
    call.context.controller.has_partition(PartitionId { topic, partition: PartitionIndex(index) })
}

fn finish(call: &Call, acks: i16, mut response: ProduceResponse) -> Reply {
    let codes = || response.responses.iter().flat_map(|topic| &topic.partition_responses).map(|p| p.error_code);
    for code in codes().filter(|code| code.is_error()) {
        call.context.metrics.error(call.header.api.key(), code.0);
    }
    if acks == 0 {
        // Closing is how a client that wants no reply learns of an error.
        return if codes().any(|code| code.is_error()) { Reply::Close } else { Reply::Nothing };
    }
    let moved = codes().any(|code| code == ErrorCode::NOT_LEADER_OR_FOLLOWER || code == ErrorCode::FENCED_LEADER_EPOCH);
    if moved && call.version() >= 10 {
        let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        let leaders: BTreeSet<i32> = partitions.map(|partition| partition.current_leader.leader_id).collect();
        let known = leaders.into_iter().filter_map(|leader| call.context.reachable(BrokerId(leader)));
        response.node_endpoints =
            known.map(|Reachable { id, host, port, rack }| NodeEndpoint { node_id: id.0, host, port, rack }).collect();
    }
    call.reply(&response)
}

pub(super) fn failed(index: i32, error_code: ErrorCode) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code,
        base_offset: -1,
        log_append_time_ms: NO_APPEND_TIME,
        log_start_offset: -1,
        ..Default::default()
    }
}

async fn submit(call: &Call, topic: Result<TopicId, ErrorCode>, data: PartitionProduceData, acks: i16) -> Outcome {
    let index = data.index;
    let known = |response| Outcome::Known(Box::new(response));
    let topic = match topic {
        Ok(topic) => topic,
        Err(code) => return known(failed(index, code)),
    };
    let id = PartitionId { topic, partition: PartitionIndex(index) };
    let Some(replica) = call.context.replicas.get(id) else {
        let response = failed(index, error::missing_partition(&call.context, id));
        return known(hint(call, id, response));
    };
    let bytes = data.records.map(|records| records.into_bytes()).unwrap_or_default();
    let config = replica.config();
    let needed = if acks == ALL { usize::try_from(config.min_insync_replicas).unwrap_or(0) } else { 0 };
    let checked = check(&config, call.version(), bytes, call.context.clock.now());
    let Checked { batch, header, append_time } = match checked {
        Ok(checked) => checked,
        Err(refused) => return known(refused.response(index)),
    };
    if needed > 1 && replica.term().is_some() && call.context.in_sync(id) < needed {
        replica.send_back(&header);
        return known(failed(index, ErrorCode::NOT_ENOUGH_REPLICAS));
    }
    call.context.metrics.produced(u64::try_from(batch.len()).unwrap_or(u64::MAX));
    let (tell, done) = oneshot::channel();
    let log_start = replica.watermarks().log_start;
    let done_callback = Box::new(move |outcome| drop(tell.send(outcome)));
    replica.submit(Submission { batch, header, done: done_callback }).await;
    Outcome::Pending { id, append_time, log_start, replica, needed, done }
}

/// Waits for a batch's outcome; nothing when time is up. A leader that is cut off from the others would hold its clients for as long as that lasts: when others may
/// have another leader, they are told to look for it.
async fn wait(
    call: &Call,
    replica: &Replica,
    mut done: oneshot::Receiver<Result<Submitted, SubmitError>>,
    deadline: Option<Instant>,
) -> Option<Result<Submitted, SubmitError>> {
    let mut cut_off: Option<Instant> = None;
    loop {
        let look = Instant::now() + LEASE_LOOK;
        let until = deadline.map_or(look, |deadline| deadline.min(look));
        match tokio::time::timeout_at(until, &mut done).await {
            Ok(outcome) => return Some(outcome.unwrap_or(Err(SubmitError::Unknown))),
            Err(_) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return None,
            Err(_) => {}
        }
        match call.context.among.is_some() && replica.term().is_none() {
            true if cut_off.is_some_and(|since| since.elapsed() >= CUT_OFF_AFTER) => {
                return Some(Err(SubmitError::Unknown));
            }
            true => drop(cut_off.get_or_insert_with(Instant::now)),
            false => cut_off = None,
        }
    }
}

/// Waits until so many replicas hold what is committed now; whether they do in time.
async fn all_hold(replica: &Replica, needed: usize, deadline: Option<Instant>) -> bool {
    let committed = replica.watermarks().applied.map_or(RaftIndex(0), |applied| applied.index);
    while !replica.group().members().is_held_by(needed, committed) {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) || replica.term_to_propose().is_none() {
            return false;
        }
        tokio::time::sleep(HELD_LOOK).await;
    }
    true
}

/// Names the partition's leader to a client that has to go there.
fn hint(call: &Call, id: PartitionId, mut response: PartitionProduceResponse) -> PartitionProduceResponse {
    if call.version() >= 10 && response.error_code == ErrorCode::NOT_LEADER_OR_FOLLOWER {
        let (leader_id, leader_epoch) = call.context.leader_hint(id);
        response.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
    }
    response
}

async fn settle(call: &Call, outcome: Outcome, deadline: Option<Instant>) -> PartitionProduceResponse {
    let (id, append_time, log_start, replica, needed, done) = match outcome {
        Outcome::Known(response) => return *response,
        Outcome::Pending { id, append_time, log_start, replica, needed, done } => {
            (id, append_time, log_start, replica, needed, done)
        }
    };
    let partition = id.partition.0;
    // The batch may still be committed; an idempotent producer finds out when it retries.
    let Some(submitted) = wait(call, &replica, done, deadline).await else {
        return failed(partition, ErrorCode::REQUEST_TIMED_OUT);
    };
    match submitted {
        Ok(submitted) => {
            if needed > 1 && !all_hold(&replica, needed, deadline).await {
                return failed(partition, ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND);
            }
            if submitted.duplicate {
                call.context.metrics.produce_duplicate_batches.inc();
            }
            PartitionProduceResponse {
                index: partition,
                base_offset: submitted.base_offset.0,
                log_append_time_ms: append_time,
                log_start_offset: log_start.0,
                ..Default::default()
            }
        }
        Err(error) => {
            if let SubmitError::StorageFull(_) = error {
                call.context.metrics.storage_full.inc();
            }
            hint(call, id, failed(partition, error::submit(&error)))
        }
    }
}
