//! DescribeTopicPartitions: topics in order of their names, a page at a time (KIP-966).

use std::collections::BTreeSet;

use super::authorized;
use super::topic_view::{self, TopicView};
use crate::machine::controller::names::{check_name, is_internal};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use crate::protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// Partitions in one response, whatever the client asks for (Kafka's `max.request.partition.size.limit`).
const PARTITIONS_MAX: usize = 2000;

/// Handles one DescribeTopicPartitions request.
pub async fn handle(call: &Call, request: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let (cursor_name, first_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.clone(), cursor.partition_index),
        None => (Text::default(), 0),
    };
    let is_listed = request.topics.iter().any(|topic| topic.name == cursor_name);
    let wants_all = request.topics.is_empty();
    if request.cursor.is_some() && (first_partition < 0 || !(wants_all || is_listed)) {
        return invalid(&request);
    }
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, PARTITIONS_MAX);
    let mut page = Page { topics: Vec::new(), left: limit, next: None };
    let start = |name: &str| usize::try_from(if *name == *cursor_name { first_partition } else { 0 }).unwrap_or(0);
    if wants_all {
        let views: Vec<TopicView> = call.context.controller.read(|controller| {
            // A topic without room for its partitions is only named as the next page's beginning: no page needs more topics.
            let topics = controller.topics_from(&cursor_name).take(limit + 1);
            topics.map(|topic| TopicView::of(controller, topic)).collect()
        });
        for view in views {
            let from = start(&view.name);
            page.add(call, view, from);
        }
    } else {
        let names: BTreeSet<Text> = request.topics.into_iter().map(|topic| topic.name).collect();
        for name in names.into_iter().filter(|name| *name >= cursor_name) {
            if page.is_full(&name) {
                break;
            }
            match call
                .context
                .controller
                .read(|controller| controller.topic(&name).map(|topic| TopicView::of(controller, topic)))
            {
                Some(view) => {
                    let from = start(&view.name);
                    page.add(call, view, from);
                }
                None => page.topics.push(unknown(name)),
            }
        }
    }
    DescribeTopicPartitionsResponse { topics: page.topics, next_cursor: page.next, ..Default::default() }
}

fn invalid(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|topic| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::INVALID_REQUEST,
        name: Some(topic.name.clone()),
        ..Default::default()
    });
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}

fn unknown(name: Text) -> DescribeTopicPartitionsResponseTopic {
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    DescribeTopicPartitionsResponseTopic {
        error_code: if check_name(&name).is_ok() { unknown } else { ErrorCode::INVALID_TOPIC_EXCEPTION },
        is_internal: is_internal(&name),
        name: Some(name),
        topic_authorized_operations: authorized::TOPIC,
        ..Default::default()
    }
}

/// One response's worth of partitions.
struct Page {
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    left: usize,
    next: Option<Cursor>,
}

impl Page {
    /// Whether there is no room any more; the next page then begins with the topic of that name, or before it.
    fn is_full(&mut self, name: &Text) -> bool {
        if self.next.is_none() && self.left == 0 {
            self.next = Some(Cursor { topic_name: name.clone(), partition_index: 0 });
        }
        self.next.is_some()
    }

    /// Adds a topic's partitions from the one with number `from` on, as far as there is room.
    fn add(&mut self, call: &Call, view: TopicView, from: usize) {
        if self.is_full(&view.name) {
            return;
        }
        let TopicView { id, name, partitions } = view;
        let end = partitions.len().min(from.saturating_add(self.left));
        if end < partitions.len() {
            let partition_index = i32::try_from(end.max(from)).expect("partitions are counted in 31 bits");
            self.next = Some(Cursor { topic_name: name.clone(), partition_index });
        }
        let taken = partitions.into_iter().take(end).skip(from);
        let described = taken.map(|(index, replica_nodes)| {
            let stands = topic_view::partition(&call.context, id, index, &replica_nodes);
            DescribeTopicPartitionsResponsePartition {
                // A missing leader is no error here: the leader's id says it.
                error_code: ErrorCode::NONE,
                partition_index: index.0,
                leader_id: stands.leader_id,
                leader_epoch: stands.leader_epoch,
                replica_nodes,
                isr_nodes: stands.isr,
                eligible_leader_replicas: Some(Vec::new()),
                last_known_elr: Some(Vec::new()),
                offline_replicas: stands.offline,
            }
        });
        let partitions: Vec<_> = described.collect();
        self.left -= partitions.len();
        self.topics.push(DescribeTopicPartitionsResponseTopic {
            error_code: ErrorCode::NONE,
            is_internal: is_internal(&name),
            name: Some(name),
            topic_id: id,
            partitions,
            topic_authorized_operations: authorized::TOPIC,
        });
    }
}
