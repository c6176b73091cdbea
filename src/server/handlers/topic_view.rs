//! A topic as Metadata and DescribeTopicPartitions show it: what the controller says, and how this broker's replicas stand.

use crate::ids::{BrokerId, PartitionId, PartitionIndex, Term, TopicId};
use crate::machine::controller::{Controller, Topic};
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
    pub(super) fn of(controller: &Controller, topic: &Topic) -> Self {
        let indexes = (0..).take(topic.partitions.len()).map(PartitionIndex);
        let partitions = indexes.map(|index| {
            let told = controller.told_replicas(PartitionId { topic: topic.id, partition: index });
            (index, told.map(|replica| replica.broker.0).collect())
        });
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
    /// Whether nobody leads it and nothing keeps it from being led: the topic was created or deleted a moment ago.
    pub(super) is_new: bool,
}

/// How a partition of `topic` stands whose replicas are on those brokers.
pub(super) fn partition(context: &Context, topic: TopicId, index: PartitionIndex, replicas: &[i32]) -> PartitionView {
    let id = PartitionId { topic, partition: index };
    let held = context.replicas.held(id);
    let is_broken = matches!(held, Some(Held::Offline(_)));
    let is_offline = |broker: i32| match broker == context.broker.0 {
        true => is_broken,
        false => !context.is_alive(BrokerId(broker)),
    };
    let offline: Vec<i32> = replicas.iter().copied().filter(|broker| is_offline(*broker)).collect();
    // One that was added does not count before its group counts on it.
    let (holders, behind) = (context.controller.read(|controller| controller.holders(id)), context.behind(id));
    let is_in_sync = |broker: &i32| {
        !offline.contains(broker) && holders.contains(&BrokerId(*broker)) && !behind.contains(&BrokerId(*broker))
    };
    let in_sync: Vec<i32> = replicas.iter().copied().filter(is_in_sync).collect();
    // As Kafka: the last one in sync stays so, whatever becomes of it.
    let isr = if in_sync.is_empty() { replicas.to_vec() } else { in_sync };
    match context.leader(id) {
        Some((leader, term)) => PartitionView {
            error_code: ErrorCode::NONE,
            leader_id: leader.0,
            leader_epoch: Term::epoch(term),
            isr,
            offline,
            is_new: false,
        },
        None => PartitionView {
            error_code: ErrorCode::LEADER_NOT_AVAILABLE,
            leader_id: -1,
            leader_epoch: -1,
            isr,
            is_new: !is_broken && !was_led(context, id, held.as_ref()),
            offline,
        },
    }
}

/// Whether somebody has led the partition: it is between two leaders then, and not on its way to its first.
fn was_led(context: &Context, id: PartitionId, held: Option<&Held>) -> bool {
    match &context.among {
        Some(node) => node.was_led(id),
        None => matches!(held, Some(Held::Open(_))),
    }
}
