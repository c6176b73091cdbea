//! The group coordinator: who is in a consumer group, who reads what, and how far each group has come.
//!
//! Durable state is the last value of each key of a `__consumer_offsets` partition ([`record`]). The leader of that partition keeps the
//! groups in memory ([`coordinator::Coordinator`]): it decides at once and answers when the records of the decision, and of all decisions before, are
//! committed. What members wait for, and when they are taken for dead, is the leader's alone: a new leader reads the records and gives
//! every member its whole time again.
//!
//! Pure: time, ids and the outcome of commits come in as arguments.
//!
//! Invariants: `zombie-commit` (an offset is taken from members of the present generation only), `dual-owner` (a member gets a share only of
//! the generation it joined), `group-offset-regress`.

pub mod record;

#[cfg(test)]
mod classic_tests;
#[cfg(test)]
mod test_topics;

pub mod classic;
pub mod consumer;
pub mod coordinator;
mod member;
pub mod offsets;

use crate::ids::{PartitionIndex, Timestamp, TopicId};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::describe_groups::DescribedGroup;
use crate::protocol::messages::list_groups::ListedGroup;
use crate::protocol::messages::{
    ConsumerGroupHeartbeatResponse, JoinGroupResponse, SyncGroupResponse, consumer_group_describe,
};
use crate::protocol::value::Text;

use record::{Committed, Record};

/// What the members of a group may say of themselves, all together, and what their shares may take: what a group is written in at once.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;

/// The topics of the cluster, as a coordinator sees them.
pub trait Topics {
    /// Another number whenever a topic may have changed.
    fn version(&self) -> u64;
    /// The topic that has a name now.
    fn find(&self, name: &str) -> Option<KnownTopic>;
    /// The name of a topic.
    fn name(&self, id: TopicId) -> Option<Text>;
    /// The names of all topics but the cluster's own.
    fn names(&self) -> Vec<Text>;
}

/// A topic of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownTopic {
    /// Its id.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: i32,
}

/// A point in the leader's own time, which never goes back: milliseconds since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// The point so many milliseconds later.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// When something happens: in the leader's time, and by the clock on the wall, which only people and retention read.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The leader's time.
    pub moment: Moment,
    /// The clock on the wall.
    pub wall: Timestamp,
}

/// What a group waits for, in milliseconds, and how large it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The shortest session: `group.min.session.timeout.ms`.
    pub session_ms_min: i32,
    /// The longest session: `group.max.session.timeout.ms`.
    pub session_ms_max: i32,
    /// How long the first members of an empty group wait for others: `group.initial.rebalance.delay.ms`.
    pub initial_delay_ms: u64,
    /// The most members a group may have: `group.max.size`.
    pub members_max: usize,
    /// How long a member of the consumer protocol may be silent: `group.consumer.session.timeout.ms`.
    pub consumer_session_ms: u64,
    /// How often it shall show itself: `group.consumer.heartbeat.interval.ms`.
    pub consumer_heartbeat_ms: i32,
    /// How long offsets are kept that nobody may want any more: `offsets.retention.minutes`.
    pub offsets_kept_ms: i64,
}

impl Default for Limits {
    /// Kafka's.
    fn default() -> Self {
        Self {
            session_ms_min: 6_000,
            session_ms_max: 1_800_000,
            initial_delay_ms: 3_000,
            members_max: usize::MAX,
            consumer_session_ms: 45_000,
            consumer_heartbeat_ms: 5_000,
            offsets_kept_ms: 7 * 24 * 3_600_000,
        }
    }
}

/// What a decision does: records to commit, and answers that leave when they are.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be committed together.
    pub records: Vec<Record>,
    /// Who is told what.
    pub answers: Vec<(Ticket, Answer)>,
}

impl Effects {
    /// Has `ticket` told, when all records so far are committed.
    pub fn answer(&mut self, ticket: Ticket, answer: impl Into<Answer>) {
        self.answers.push((ticket, answer.into()));
    }
}

/// What a request is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A JoinGroup.
    Join(JoinGroupResponse),
    /// A SyncGroup.
    Sync(SyncGroupResponse),
    /// A ConsumerGroupHeartbeat.
    Heartbeat(ConsumerGroupHeartbeatResponse),
    /// A ConsumerGroupDescribe of one group.
    DescribedConsumers(consumer_group_describe::DescribedGroup),
    /// A LeaveGroup: what became of each member, in the request's order; `None` if there is no such group.
    Left(Option<Vec<ErrorCode>>),
    /// A DescribeGroups of one group; `None` if there is no such group.
    Described(Option<DescribedGroup>),
    /// An OffsetFetch of one group: topic, partition, and what was committed, if anything; or why the member may not read it.
    Fetched(Result<Vec<(Text, PartitionIndex, Option<Committed>)>, ErrorCode>),
    /// An OffsetDelete: what becomes of each topic; an error if the group has none to delete.
    Deleted(Result<Vec<ErrorCode>, ErrorCode>),
    /// Old offsets were forgotten: where the next call goes on, if that was not all.
    Expired(offsets::After),
    /// A ListGroups.
    Listed(Vec<ListedGroup>),
    /// A request that is told no more than whether it was right.
    Code(ErrorCode),
}

impl From<JoinGroupResponse> for Answer {
    fn from(response: JoinGroupResponse) -> Self {
        Self::Join(response)
    }
}

impl From<SyncGroupResponse> for Answer {
    fn from(response: SyncGroupResponse) -> Self {
        Self::Sync(response)
    }
}

impl From<ConsumerGroupHeartbeatResponse> for Answer {
    fn from(response: ConsumerGroupHeartbeatResponse) -> Self {
        Self::Heartbeat(response)
    }
}

impl From<ErrorCode> for Answer {
    fn from(code: ErrorCode) -> Self {
        Self::Code(code)
    }
}
