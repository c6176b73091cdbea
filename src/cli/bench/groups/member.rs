//! A thin member of a group: it joins, shows itself, commits and leaves, and reads nothing.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::cli::client::{ClientError, Connection, RETRY_PAUSE};
use crate::ids::TopicId;
use crate::protocol::consumer_protocol::{Assignment, CONSUMER, Subscription, TopicPartitions};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::join_group::JoinGroupRequestProtocol;
use crate::protocol::messages::leave_group::MemberIdentity;
use crate::protocol::messages::metadata::MetadataResponseTopic;
use crate::protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use crate::protocol::messages::sync_group::SyncGroupRequestAssignment;
use crate::protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    OffsetCommitResponse, SyncGroupRequest,
};
use crate::protocol::value::Text;

const RANGE: &str = "range";

/// What members read.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: Text,
    pub(super) id: TopicId,
}

impl Topic {
    /// As the cluster knows it.
    pub(super) fn of(topic: &MetadataResponseTopic) -> Self {
        Self { name: topic.name.clone().unwrap_or_default().detached(), id: topic.topic_id }
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) group: Text,
    pub(super) topic: Topic,
    pub(super) id: Text,
    pub(super) generation: i32,
    pub(super) session: Duration,
}

impl Member {
    /// One that has not joined yet.
    pub(super) fn new(group: &str, topic: &Topic, session: Duration) -> Self {
        Self { group: group.into(), topic: topic.clone(), id: Text::default(), generation: -1, session }
    }

    /// Joins and takes its share. Only answers that pass are waited out: a coordinator that is not there yet.
    pub(super) async fn enter(&mut self, connection: &mut Connection, patience: Duration) -> Result<(), Failed> {
        let until = Instant::now() + patience;
        loop {
            match self.try_enter(connection, patience).await? {
                ErrorCode::NONE => return Ok(()),
                code if passes(code) && Instant::now() < until => sleep(RETRY_PAUSE).await,
                code => return Err(self.refused("JoinGroup", code)),
            }
        }
    }

    async fn try_enter(&mut self, connection: &mut Connection, patience: Duration) -> Result<ErrorCode, Failed> {
        let joined = self.join(connection, patience).await?;
        if joined.error_code.is_error() {
            return Ok(joined.error_code);
        }
        self.sync(connection, &joined, patience).await
    }

    /// Joins, twice where the coordinator first gives out an id. The answer may be an error.
    pub(super) async fn join(
        &mut self,
        connection: &mut Connection,
        patience: Duration,
    ) -> Result<JoinGroupResponse, Failed> {
        let ms = i32::try_from(self.session.as_millis()).unwrap_or(i32::MAX);
        loop {
            let request = JoinGroupRequest {
                group_id: self.group.clone(),
                session_timeout_ms: ms,
                rebalance_timeout_ms: ms,
                member_id: self.id.clone(),
                protocol_type: CONSUMER.into(),
                protocols: vec![JoinGroupRequestProtocol { name: RANGE.into(), metadata: self.subscription() }],
                ..JoinGroupRequest::default()
            };
            let mut joined = connection.call(&request, patience).await?;
            if joined.error_code == ErrorCode::MEMBER_ID_REQUIRED {
                self.id = joined.member_id.detached();
                continue;
            }
            if !joined.error_code.is_error() {
                (self.id, self.generation) = (joined.member_id.detached(), joined.generation_id);
            }
            if joined.error_code == ErrorCode::UNKNOWN_MEMBER_ID {
                self.id = Text::default();
            }
            joined.members.sort_unstable_by(|one, other| one.member_id.cmp(&other.member_id));
            return Ok(joined);
        }
    }

    /// Asks for its share; a leader hands in those of all: a partition each.
    pub(super) async fn sync(
        &self,
        connection: &mut Connection,
        joined: &JoinGroupResponse,
        patience: Duration,
    ) -> Result<ErrorCode, Failed> {
        let share = |(at, member_id)| SyncGroupRequestAssignment { member_id, assignment: self.share(at) };
        let assignments = joined.members.iter().map(|member| member.member_id.clone());
        let request = SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            protocol_type: Some(CONSUMER.into()),
            protocol_name: Some(RANGE.into()),
            assignments: (0..).zip(assignments).map(share).collect(),
            ..SyncGroupRequest::default()
        };
        Ok(connection.call(&request, patience).await?.error_code)
    }

    fn subscription(&self) -> Bytes {
        Subscription { topics: vec![self.topic.name.clone()], ..Subscription::default() }.encode(0)
    }

    fn share(&self, partition: i32) -> Bytes {
        let topics = vec![TopicPartitions { topic: self.topic.name.clone(), partitions: vec![partition] }];
        Assignment { topics, user_data: None }.encode(0)
    }

    /// A heartbeat of it.
    pub(super) fn heartbeat(&self) -> HeartbeatRequest {
        HeartbeatRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            ..HeartbeatRequest::default()
        }
    }

    /// A commit of these offsets, of partitions 0 and up; as nobody, if it has not joined.
    pub(super) fn commit(&self, offsets: impl Iterator<Item = i64>) -> OffsetCommitRequest {
        let partition = |(index, offset)| OffsetCommitRequestPartition {
            partition_index: index,
            committed_offset: offset,
            ..OffsetCommitRequestPartition::default()
        };
        let partitions = (0..).zip(offsets).map(partition).collect();
        let topic = OffsetCommitRequestTopic { name: self.topic.name.clone(), topic_id: self.topic.id, partitions };
        OffsetCommitRequest {
            group_id: self.group.clone(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.id.clone(),
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        }
    }

    /// Leaves.
    pub(super) async fn leave(&mut self, connection: &mut Connection, patience: Duration) -> Result<(), Failed> {
        let members = vec![MemberIdentity { member_id: std::mem::take(&mut self.id), ..MemberIdentity::default() }];
        let request = LeaveGroupRequest { group_id: self.group.clone(), members, ..LeaveGroupRequest::default() };
        connection.call(&request, patience).await?;
        Ok(())
    }

    /// A refusal that ends the load.
    pub(super) fn refused(&self, api: &str, code: ErrorCode) -> Failed {
        ClientError::Refused { what: format!("{api} of group {}", self.group), code, message: None }
    }
}

/// Why a member cannot go on.
pub(super) type Failed = ClientError;

/// What a commit was answered.
pub(super) fn committed(response: &OffsetCommitResponse) -> ErrorCode {
    let codes = response.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code);
    codes.into_iter().find(|code| code.is_error()).unwrap_or(ErrorCode::NONE)
}

/// Whether a coordinator may answer otherwise in a moment.
pub(super) fn passes(code: ErrorCode) -> bool {
    [
        ErrorCode::NOT_COORDINATOR,
        ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode::REBALANCE_IN_PROGRESS,
        ErrorCode::UNKNOWN_MEMBER_ID,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    ]
    .contains(&code)
}
