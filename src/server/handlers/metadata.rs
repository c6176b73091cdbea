//! Metadata: brokers and topics; it is also how a producer creates a topic by asking for it.
//!
//! A topic that is created here is in the answer, leader and all, if it is ready soon enough; else the client is told that
//! there is no such topic, as Kafka always tells it the first time, and asks again.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::topic_view::{self, PartitionView, TopicView};
use super::{authorized, create_topics};
use crate::ids::TopicId;
use crate::machine::controller::names::{check_name, is_internal};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::metadata::{
    MetadataRequestTopic, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::protocol::messages::{MetadataRequest, MetadataResponse};
use crate::protocol::value::Text;
use crate::server::brokers::Reachable;
use crate::server::dispatch::Call;

/// The version in which no topic listed means all of them.
const EMPTY_IS_ALL_IN: i16 = 0;
/// The first version that may ask by id (the two before have the field only).
const IDS_FROM: i16 = 12;
/// How long one request may be busy with creating topics.
const CREATE_TIME_MAX: Duration = Duration::from_secs(2);

/// Handles one Metadata request.
pub async fn handle(call: &Call, request: MetadataRequest) -> MetadataResponse {
    let version = call.version();
    let listed = match request.topics {
        Some(topics) if version == EMPTY_IS_ALL_IN && topics.is_empty() => None,
        topics => topics,
    };
    if version < IDS_FROM
        && let Some(topics) = &listed
        && topics.iter().any(|topic| topic.name.is_none() || topic.topic_id != TopicId::ZERO)
    {
        return invalid(topics);
    }
    let mut topics = match listed {
        None => all(call),
        Some(listed) if listed.iter().any(|topic| topic.topic_id != TopicId::ZERO) => by_id(call, &listed),
        Some(listed) => by_name(call, listed, request.allow_auto_topic_creation).await,
    };
    if request.include_topic_authorized_operations {
        for topic in &mut topics {
            topic.topic_authorized_operations = authorized::TOPIC;
        }
    }
    let context = &call.context;
    let mut response = MetadataResponse {
        brokers: context.brokers().into_iter().map(told).collect(),
        cluster_id: Some(context.cluster_id.as_str().into()),
        controller_id: context.controller_id(),
        topics,
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = authorized::CLUSTER;
    }
    response
}

fn told(broker: Reachable) -> MetadataResponseBroker {
    let Reachable { id, host, port, rack } = broker;
    MetadataResponseBroker { node_id: id.0, host, port, rack }
}

/// The answer to a request as a whole that cannot be.
fn invalid(topics: &[MetadataRequestTopic]) -> MetadataResponse {
    let topics = topics.iter().map(|topic| MetadataResponseTopic {
        error_code: ErrorCode::INVALID_REQUEST,
        name: Some(topic.name.clone().unwrap_or_default()),
        topic_id: topic.topic_id,
        ..Default::default()
    });
    MetadataResponse { topics: topics.collect(), ..Default::default() }
}

/// All topics, as far as they are served: whoever has not asked for a topic is not told that it has no leader yet. Some clients
/// (kafkajs) fail on one such partition.
fn all(call: &Call) -> Vec<MetadataResponseTopic> {
    let views: Vec<_> = call
        .context
        .controller
        .read(|controller| controller.topics().map(|topic| TopicView::of(controller, topic)).collect());
    let served = views.into_iter().map(|view| describe_some(call, view, |stands| !stands.is_new));
    served.filter(|topic| !topic.partitions.is_empty()).collect()
}

fn by_id(call: &Call, listed: &[MetadataRequestTopic]) -> Vec<MetadataResponseTopic> {
    let mut seen = HashSet::new();
    let ids = listed.iter().map(|topic| topic.topic_id).filter(|id| *id != TopicId::ZERO && seen.insert(*id));
    let found = ids.map(|id| {
        let view = call
            .context
            .controller
            .read(|controller| controller.topic_by_id(id).map(|topic| TopicView::of(controller, topic)));
        match view {
            Some(view) => describe(call, view),
            None => failed(ErrorCode::UNKNOWN_TOPIC_ID, None, id),
        }
    });
    found.collect()
}

async fn by_name(call: &Call, listed: Vec<MetadataRequestTopic>, may_create: bool) -> Vec<MetadataResponseTopic> {
    let may_create = may_create && call.context.topics.auto_create;
    let deadline = Instant::now() + CREATE_TIME_MAX;
    let mut seen = HashSet::new();
    let mut topics = Vec::with_capacity(listed.len());
    for name in listed.into_iter().filter_map(|topic| topic.name) {
        if !seen.insert(name.clone()) {
            continue;
        }
        let found = match view(call, &name) {
            Some(view) => Ok(view),
            None if check_name(&name).is_err() => Err(ErrorCode::INVALID_TOPIC_EXCEPTION),
            None if may_create && !is_internal(&name) && Instant::now() < deadline => {
                create(call, &name, deadline).await
            }
            None => Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        };
        topics.push(match found {
            Ok(view) => describe(call, view),
            Err(code) => failed(code, Some(name), TopicId::ZERO),
        });
    }
    topics
}

fn view(call: &Call, name: &str) -> Option<TopicView> {
    call.context.controller.read(|controller| controller.topic(name).map(|topic| TopicView::of(controller, topic)))
}

async fn create(call: &Call, name: &Text, deadline: Instant) -> Result<TopicView, ErrorCode> {
    create_topics::create_automatically(call, name, deadline).await?;
    view(call, name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
}

fn failed(error_code: ErrorCode, name: Option<Text>, topic_id: TopicId) -> MetadataResponseTopic {
    let is_internal = name.as_deref().is_some_and(is_internal);
    MetadataResponseTopic { error_code, name, topic_id, is_internal, ..Default::default() }
}

fn describe(call: &Call, view: TopicView) -> MetadataResponseTopic {
    describe_some(call, view, |_| true)
}

/// The topic with those of its partitions that stand so.
fn describe_some(call: &Call, view: TopicView, is_shown: fn(&PartitionView) -> bool) -> MetadataResponseTopic {
    let TopicView { id, name, partitions } = view;
    let partitions = partitions.into_iter().filter_map(|(index, replica_nodes)| {
        let stands = topic_view::partition(&call.context, id, index, &replica_nodes);
        is_shown(&stands).then_some(MetadataResponsePartition {
            error_code: stands.error_code,
            partition_index: index.0,
            leader_id: stands.leader_id,
            leader_epoch: stands.leader_epoch,
            replica_nodes,
            isr_nodes: stands.isr,
            offline_replicas: stands.offline,
        })
    });
    MetadataResponseTopic {
        error_code: ErrorCode::NONE,
        is_internal: is_internal(&name),
        name: Some(name),
        topic_id: id,
        partitions: partitions.collect(),
        ..Default::default()
    }
}
