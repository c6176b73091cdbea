//! A topic as Metadata and DescribeTopicPartitions show it: what the controller says, and how this broker's replicas stand.

use crate::ids::{PartitionId, PartitionIndex, Term, TopicId};
use crate::machine::controller::Topic;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::replica::set::Held;
use crate::server::Context;

/// A topic, copied out of the controller's state.
pub(super) struct TopicView {
    pub(super) id: TopicId,
    pub(super) name: Text,
    /// The partitions' replicas, by broker, in order.
    pub(super) partitions: Vec<(PartitionIndex, Vec<i32>)>,
}

impl TopicView {
    pub(super) fn of(topic: &Topic) -> Self {
        let brokers = |replicas: &[crate::ids::ReplicaId]| replicas.iter().map(|replica| replica.broker.0).collect();
        let partitions =
            (0..).zip(&topic.partitions).map(|(index, replicas)| (PartitionIndex(index), brokers(replicas)));
        Self { id: topic.id, name: topic.name.as_str().into(), partitions: partitions.collect() }
    }
}

/// How a partition stands.
pub(super) struct PartitionView {
    pub(super) error_code: ErrorCode,
    pub(super) leader_id: i32,
    pub(super) leader_epoch: i32,
    pub(super) isr: Vec<i32>,
    pub(super) offline: Vec<i32>,
    /// Whether no replica is here yet, or no more: the topic was created or deleted a moment ago.
    pub(super) is_unheld: bool,
}

/// How a partition of `topic` stands whose replicas are on those brokers.
pub(super) fn partition(context: &Context, topic: TopicId, index: PartitionIndex, replicas: &[i32]) -> PartitionView {
    let none = PartitionView {
        error_code: ErrorCode::LEADER_NOT_AVAILABLE,
        leader_id: -1,
        leader_epoch: -1,
        isr: replicas.to_vec(),
        offline: Vec::new(),
        is_unheld: false,
    };
    match context.replicas.held(PartitionId { topic, partition: index }) {
        Some(Held::Open(replica)) => match replica.term() {
            Some(term) => PartitionView {
                error_code: ErrorCode::NONE,
                leader_id: context.broker.0,
                leader_epoch: Term::epoch(term),
                ..none
            },
            None => none,
        },
        Some(Held::Offline(_)) => PartitionView { offline: vec![context.broker.0], ..none },
        None => PartitionView { is_unheld: true, ..none },
    }
}
