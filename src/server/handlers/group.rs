//! What the handlers of group requests have in common: which partition coordinates a group, and how its coordinator is asked.

use std::collections::HashMap;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;
use uuid::Uuid;

use super::create_topics;
use crate::ids::{BASE64_URL, PartitionId, PartitionIndex, TopicId};
use crate::machine::controller::names::OFFSETS_TOPIC;
use crate::machine::groups::{Answer, Ticket};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use crate::protocol::value::Text;
use crate::replica::coordinator::{NoAnswer, Turn};
use crate::server::dispatch::Call;

/// Partitions of the topic whose partitions coordinate groups.
const PARTITIONS: i32 = 16;
/// Its configs: Kafka's, but for smaller segments (what lies before the last ones is in the coordinators' snapshots and is given up), and
/// synced whatever the broker does with other topics.
const CONFIGS: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("compression.type", "producer"),
    ("segment.bytes", "33554432"),
    ("ottla.durability", "fsync"),
];
/// What is kept of a name that a client has for itself, and the longest id of a static member. Kafka's clients allow 249 characters.
pub(super) const NAME_BYTES_MAX: usize = 255;
/// How long a client waits for the topic to be made before it is told to come again.
const CREATE_TIME_MAX: Duration = Duration::from_secs(5);

/// The partition that coordinates a group, by the rule that Kafka's own tools know.
pub(super) fn partition_of(group: &str, partitions: usize) -> usize {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // As Kafka: the lowest number has no absolute value.
    let hash = if hash == i32::MIN { 0 } else { hash.unsigned_abs() };
    usize::try_from(hash).expect("32 bits fit") % partitions
}

/// The partition that coordinates a group, if the topic is there.
pub(super) fn coordinator_of(call: &Call, group: &str) -> Option<PartitionId> {
    call.context.controller.read(|controller| {
        let topic = controller.topic(OFFSETS_TOPIC)?;
        let partition = i32::try_from(partition_of(group, topic.partitions.len())).expect("partitions are few");
        Some(PartitionId { topic: topic.id, partition: PartitionIndex(partition) })
    })
}

/// All partitions that coordinate groups.
pub(super) fn coordinators(call: &Call) -> Vec<PartitionId> {
    call.context.controller.read(|controller| {
        let Some(topic) = controller.topic(OFFSETS_TOPIC) else { return Vec::new() };
        let partitions = (0..).take(topic.partitions.len()).map(PartitionIndex);
        partitions.map(|partition| PartitionId { topic: topic.id, partition }).collect()
    })
}

/// Makes the topic of the coordinators, unless it is there, and waits until it is served.
pub(super) async fn make_coordinators(call: &Call) -> Result<(), ErrorCode> {
    if !coordinators(call).is_empty() {
        return Ok(());
    }
    let configs = CONFIGS.map(|(name, value)| CreatableTopicConfig {
        name: Text::from_static(name),
        value: Some(Text::from_static(value)),
    });
    let topic = CreatableTopic {
        name: Text::from_static(OFFSETS_TOPIC),
        num_partitions: PARTITIONS,
        replication_factor: -1,
        configs: configs.into(),
        ..Default::default()
    };
    let deadline = Instant::now() + CREATE_TIME_MAX;
    let made = create_topics::create_and_wait(call, topic, deadline).await;
    made.map_err(|_| ErrorCode::COORDINATOR_NOT_AVAILABLE)
}

/// The names of the topics that a request names by id. A topic that it names again and again is looked up once.
#[derive(Default)]
pub(super) struct Names(HashMap<TopicId, Option<Text>>);

impl Names {
    /// The topic's name, if there is such a topic.
    pub(super) fn of(&mut self, call: &Call, id: TopicId) -> Option<Text> {
        self.0.entry(id).or_insert_with(|| call.context.controller.topic_name(id)).clone()
    }
}

/// Asks a group's coordinator.
///
/// # Errors
/// What the client is told when there is none.
pub(super) async fn ask(
    call: &Call,
    group: &str,
    alone: bool,
    work: impl FnOnce(&mut Turn<'_>, Ticket) + Send + 'static,
) -> Result<Answer, ErrorCode> {
    let id = coordinator_of(call, group).ok_or(ErrorCode::NOT_COORDINATOR)?;
    ask_partition(call, id, alone, work).await
}

/// As [`ask`], for what only members ask: a group without a name has none.
///
/// # Errors
/// As for [`ask`], and [`ErrorCode::INVALID_GROUP_ID`].
pub(super) async fn ask_as_member(
    call: &Call,
    group: &str,
    work: impl FnOnce(&mut Turn<'_>, Ticket) + Send + 'static,
) -> Result<Answer, ErrorCode> {
    if group.is_empty() { Err(ErrorCode::INVALID_GROUP_ID) } else { ask(call, group, false, work).await }
}

/// Asks one coordinator.
///
/// # Errors
/// What the client is told when it is not here.
pub(super) async fn ask_partition(
    call: &Call,
    id: PartitionId,
    alone: bool,
    work: impl FnOnce(&mut Turn<'_>, Ticket) + Send + 'static,
) -> Result<Answer, ErrorCode> {
    let asked = call.context.coordinators.ask(id, alone, Box::new(work)).await;
    asked.map_err(|error| match error {
        NoAnswer::NotHere => ErrorCode::NOT_COORDINATOR,
        NoAnswer::NotCommitted => ErrorCode::COORDINATOR_NOT_AVAILABLE,
    })
}

/// The code of a request that is told no more.
pub(super) fn code(asked: Result<Answer, ErrorCode>) -> ErrorCode {
    match asked {
        Ok(Answer::Code(code)) | Err(code) => code,
        Ok(other) => panic!("a request that is told a code was told {other:?}"),
    }
}

/// Of an id that no member ever had.
pub(super) fn new_uuid(call: &Call) -> Uuid {
    let bytes = call.context.random.lock().expect("no panic while drawing").random();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// A new member's id as Kafka's are in classic groups: what it calls itself, and a random part.
pub(super) fn classic_id(uuid: Uuid, client_id: &str, instance_id: Option<&str>) -> Text {
    format!("{}-{uuid}", cut(instance_id.unwrap_or(client_id))).into()
}

/// A new member's id as Kafka's are in groups of the consumer protocol: base 64, and never a hyphen first.
pub(super) fn consumer_id(uuid: Uuid) -> Text {
    let bits = uuid.as_u128() & (u128::MAX >> 1);
    let shifted = (0..21).map(|at| bits >> (122 - 6 * at)).chain([bits << 4]);
    let digit = |six: u128| char::from(BASE64_URL[usize::try_from(six & 63).expect("six bits")]);
    shifted.map(digit).collect::<String>().into()
}

/// The beginning of a name that a client has for itself: it stands in each record of its group.
pub(super) fn cut(name: &str) -> &str {
    let ends = name.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| *end <= NAME_BYTES_MAX).last().unwrap_or(0);
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_members_are_base_64_of_their_uuid() {
        let id = |uuid: u128| consumer_id(Uuid::from_u128(uuid)).to_string();
        assert_eq!(id(0x0010_8310_5187_2092_8b30_d38f_4114_9351), "ABCDEFGHIJKLMNOPQRSTUQ");
        assert_eq!(id(u128::MAX), "f____________________w", "without its first bit");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(cut("consumer-1"), "consumer-1");
        assert_eq!(cut(&"x".repeat(40_000)).len(), NAME_BYTES_MAX);
        assert_eq!(cut(&"ö".repeat(200)).len(), NAME_BYTES_MAX - 1);
    }

    #[test]
    fn groups_are_where_kafka_has_them() {
        // Java: Math.abs("my-group".hashCode()) % 50, and a name whose hash is the lowest number.
        for (group, of_50) in [("", 0), ("a", 47), ("my-group", 12), ("polygenelubricants", 0)] {
            assert_eq!(partition_of(group, 50), of_50, "{group}");
        }
    }
}
