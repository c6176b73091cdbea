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

pub mod classic;
pub mod coordinator;
mod member;

use crate::ids::{PartitionIndex, Timestamp};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::describe_groups::DescribedGroup;
use crate::protocol::messages::list_groups::ListedGroup;
use crate::protocol::messages::{JoinGroupResponse, SyncGroupResponse};
use crate::protocol::value::Text;

use record::{Committed, Record};

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
    /// A LeaveGroup: what became of each member, in the request's order; `None` if there is no such group.
    Left(Option<Vec<ErrorCode>>),
    /// A DescribeGroups of one group; `None` if there is no such group.
    Described(Option<DescribedGroup>),
    /// An OffsetFetch of one group: topic, partition, and what was committed, if anything.
    Fetched(Vec<(Text, PartitionIndex, Option<Committed>)>),
    /// An OffsetDelete: what becomes of each topic; an error if the group has none to delete.
    Deleted(Result<Vec<ErrorCode>, ErrorCode>),
    /// Old offsets were forgotten.
    Expired {
        /// Whether there are more.
        rest: bool,
    },
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

impl From<ErrorCode> for Answer {
    fn from(code: ErrorCode) -> Self {
        Self::Code(code)
    }
}
