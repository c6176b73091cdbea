//! DescribeQuorum: how the replicas of the cluster's metadata stand, from any broker.
//!
//! The topic is called as Kafka calls it, though nobody can read it here. Its offsets are the indexes of the controller's Raft log.

use crate::ids::{RaftIndex, Timestamp, TopicId};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::describe_quorum::{
    DescribeQuorumListener, DescribeQuorumNode, DescribeQuorumReplica, DescribeQuorumRequestTopic,
    DescribeQuorumResponsePartition, DescribeQuorumResponseTopic,
};
use crate::protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use crate::protocol::value::Text;
use crate::replica::quorum::{Quorum, QuorumMember};
use crate::server::brokers::Reachable;
use crate::server::dispatch::Call;

/// The one topic whose replicas can be asked for.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// What the listeners are called that brokers have for each other.
const LISTENER: &str = "CLUSTER";

/// Handles one DescribeQuorum request.
pub async fn handle(call: &Call, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let is_metadata = |topic: &DescribeQuorumRequestTopic| {
        topic.topic_name == METADATA_TOPIC && matches!(topic.partitions.as_slice(), [only] if only.partition_index == 0)
    };
    if !matches!(request.topics.as_slice(), [only] if is_metadata(only)) {
        return unknown(request);
    }
    let Some(quorum) = call.context.controller.quorum().await else {
        return DescribeQuorumResponse {
            error_code: ErrorCode::BROKER_NOT_AVAILABLE,
            error_message: Some("the controller has no leader, or it does not answer: ask again".into()),
            ..Default::default()
        };
    };
    let nodes = quorum.members.iter().filter_map(|member| node(call, member)).collect();
    let topic =
        DescribeQuorumResponseTopic { topic_name: METADATA_TOPIC.into(), partitions: vec![partition(call, &quorum)] };
    DescribeQuorumResponse { error_message: no_error(), topics: vec![topic], nodes, ..Default::default() }
}

/// As Kafka says it.
fn no_error() -> Option<Text> {
    Some("".into())
}

fn unknown(request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let topics = request.topics.into_iter().map(|topic| DescribeQuorumResponseTopic {
        topic_name: topic.topic_name,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| DescribeQuorumResponsePartition {
                partition_index: partition.partition_index,
                error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                error_message: Some("This server does not host this topic-partition.".into()),
                ..Default::default()
            })
            .collect(),
    });
    DescribeQuorumResponse { error_message: no_error(), topics: topics.collect(), ..Default::default() }
}

fn partition(call: &Call, quorum: &Quorum) -> DescribeQuorumResponsePartition {
    let now = call.context.clock.now();
    let replicas = |votes| {
        let chosen = quorum.members.iter().filter(move |member| member.votes == votes);
        chosen.map(|member| replica(call, quorum, member, now)).collect()
    };
    DescribeQuorumResponsePartition {
        partition_index: 0,
        leader_id: quorum.leader.0,
        leader_epoch: quorum.term.epoch(),
        error_message: no_error(),
        high_watermark: offset(Some(quorum.high_watermark)),
        current_voters: replicas(true),
        observers: replicas(false),
        ..Default::default()
    }
}

fn replica(call: &Call, quorum: &Quorum, member: &QuorumMember, now: Timestamp) -> DescribeQuorumReplica {
    let heard = member.silence.and_then(|silence| i64::try_from(silence.as_millis()).ok()).map(|ms| now.0 - ms);
    let has_all = member.end.is_some_and(|end| end >= quorum.high_watermark);
    let directory = call
        .context
        .controller
        .read(|controller| controller.broker(member.broker).map(|broker| TopicId(broker.directory.0)));
    DescribeQuorumReplica {
        replica_id: member.broker.0,
        replica_directory_id: directory.unwrap_or_default(),
        log_end_offset: offset(member.end),
        last_fetch_timestamp: heard.unwrap_or(-1),
        last_caught_up_timestamp: match member.broker == quorum.leader {
            true => now.0,
            false => heard.filter(|_| has_all).unwrap_or(-1),
        },
    }
}

fn offset(index: Option<RaftIndex>) -> i64 {
    index.and_then(|index| i64::try_from(index.0).ok()).unwrap_or(-1)
}

/// Where a broker listens for the others; for clients, if it has no others.
fn node(call: &Call, member: &QuorumMember) -> Option<DescribeQuorumNode> {
    let Reachable { host, port, .. } = call.context.reachable(member.broker)?;
    let cluster = call.context.controller.read(|controller| {
        let endpoints = controller.broker(member.broker)?.endpoints.as_ref()?;
        let (host, port) = endpoints.cluster.rsplit_once(':')?;
        Some((host.into(), port.parse().ok()?))
    });
    let (host, port) = cluster.or_else(|| Some((host, u16::try_from(port).ok()?)))?;
    let listeners = vec![DescribeQuorumListener { name: LISTENER.into(), host, port }];
    Some(DescribeQuorumNode { node_id: member.broker.0, listeners })
}
