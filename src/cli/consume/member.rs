//! A member of a consumer group, for `ottla consume --group`: the classic protocol, one topic, shares by range.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::time::{Duration, Instant};

use crate::cli::client::{Client, ClientError};
use crate::cli::connect::Failure;
use crate::protocol::consumer_protocol::{Assignment, CONSUMER, Subscription, TopicPartitions};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::join_group::JoinGroupRequestProtocol;
use crate::protocol::messages::leave_group::MemberIdentity;
use crate::protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use crate::protocol::messages::sync_group::SyncGroupRequestAssignment;
use crate::protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, SyncGroupRequest,
};
use crate::protocol::value::Text;

/// The only protocol that is offered: every consumer knows it.
const RANGE: &str = "range";
/// For how long the member may be silent, and how long a rebalance waits for it.
const SESSION: Duration = Duration::from_secs(30);
const REBALANCE: Duration = Duration::from_secs(60);
const HEARTBEAT: Duration = Duration::from_secs(3);
/// What is committed at least so often.
const COMMIT: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub(super) struct Member {
    group: String,
    topic: String,
    partitions: Vec<i32>,
    id: Text,
    generation: i32,
    heartbeat_at: Instant,
    commit_at: Instant,
}

/// What a heartbeat or commit says about the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It goes on.
    Member,
    /// It has to join again.
    JoinAgain,
}

impl Member {
    /// A member that has not joined yet. `partitions` are all of the topic.
    pub(super) fn new(group: &str, topic: &str, partitions: Vec<i32>) -> Self {
        let now = Instant::now();
        Self {
            group: group.to_owned(),
            topic: topic.to_owned(),
            partitions,
            id: Text::default(),
            generation: -1,
            heartbeat_at: now,
            commit_at: now,
        }
    }

    /// Joins, and says which partitions are this member's.
    pub(super) async fn join(&mut self, client: &mut Client) -> Result<Vec<i32>, Failure> {
        loop {
            let joined = self.ask_to_join(client).await?;
            match joined.error_code {
                ErrorCode::NONE => {}
                ErrorCode::MEMBER_ID_REQUIRED => {
                    self.id = joined.member_id;
                    continue;
                }
                code if rejoins(code) => {
                    self.forget(code);
                    continue;
                }
                code => return Err(self.refused("JoinGroup", code)),
            }
            (self.id, self.generation) = (joined.member_id.clone(), joined.generation_id);
            let assignments = if joined.leader == joined.member_id { self.share_out(&joined)? } else { Vec::new() };
            let request = SyncGroupRequest {
                group_id: self.group.as_str().into(),
                generation_id: self.generation,
                member_id: self.id.clone(),
                protocol_type: Some(CONSUMER.into()),
                protocol_name: Some(RANGE.into()),
                assignments,
                ..SyncGroupRequest::default()
            };
            let coordinator = client.coordinator(&self.group).await?;
            let synced = client.broker(coordinator).await?.call(&request, REBALANCE * 2).await?;
            match synced.error_code {
                ErrorCode::NONE => {}
                code if rejoins(code) => {
                    self.forget(code);
                    continue;
                }
                code => return Err(self.refused("SyncGroup", code)),
            }
            let now = Instant::now();
            (self.heartbeat_at, self.commit_at) = (now + HEARTBEAT, now + COMMIT);
            return self.own(synced.assignment);
        }
    }

    async fn ask_to_join(&self, client: &mut Client) -> Result<JoinGroupResponse, ClientError> {
        let ms = |time: Duration| i32::try_from(time.as_millis()).expect("a minute or less");
        let request = JoinGroupRequest {
            group_id: self.group.as_str().into(),
            session_timeout_ms: ms(SESSION),
            rebalance_timeout_ms: ms(REBALANCE),
            member_id: self.id.clone(),
            protocol_type: CONSUMER.into(),
            protocols: vec![JoinGroupRequestProtocol { name: RANGE.into(), metadata: subscription(&self.topic) }],
            ..JoinGroupRequest::default()
        };
        let coordinator = client.coordinator(&self.group).await?;
        client.broker(coordinator).await?.call(&request, REBALANCE * 2).await
    }

    /// Each member's share of the topic: those who read it get ranges, in the order of their ids. Other topics are not this
    /// leader's to know: a group whose members read different ones needs another client.
    fn share_out(&self, joined: &JoinGroupResponse) -> Result<Vec<SyncGroupRequestAssignment>, Failure> {
        let mut readers = Vec::new();
        for member in &joined.members {
            let says = Subscription::decode(member.metadata.clone()).map_err(|error| Failure::Data {
                what: format!("what member {} of group {} reads", member.member_id, self.group),
                problem: error.to_string(),
            })?;
            let topics = says.topics;
            if topics.iter().any(|topic| topic == self.topic.as_str()) {
                readers.push(member.member_id.clone());
            }
            if let Some(other) = topics.iter().find(|topic| **topic != self.topic.as_str()) {
                let message =
                    format!("group {} also reads topic {other}, which this command does not share out", self.group);
                return Err(Failure::Usage(message));
            }
        }
        readers.sort_unstable();
        let (each, more) = (self.partitions.len() / readers.len().max(1), self.partitions.len() % readers.len().max(1));
        let mut left = self.partitions.as_slice();
        let mut shares = Vec::with_capacity(readers.len());
        for (at, member_id) in readers.into_iter().enumerate() {
            let (mine, rest) = left.split_at(each + usize::from(at < more));
            left = rest;
            shares.push(SyncGroupRequestAssignment { member_id, assignment: assignment(&self.topic, mine) });
        }
        Ok(shares)
    }

    /// What of a share is of the topic that is read here.
    fn own(&self, share: Bytes) -> Result<Vec<i32>, Failure> {
        let share = Assignment::decode(share).map_err(|error| Failure::Data {
            what: format!("the share of group {}", self.group),
            problem: error.to_string(),
        })?;
        let of_topic = share.topics.into_iter().filter(|share| share.topic == self.topic.as_str());
        Ok(of_topic.flat_map(|share| share.partitions).collect())
    }

    /// Commits and shows itself when it is time to.
    pub(super) async fn look_after(
        &mut self,
        client: &mut Client,
        offsets: &BTreeMap<i32, i64>,
    ) -> Result<Standing, Failure> {
        let now = Instant::now();
        if now >= self.commit_at {
            self.commit_at = now + COMMIT;
            return self.commit(client, offsets).await;
        }
        if now < self.heartbeat_at {
            return Ok(Standing::Member);
        }
        self.heartbeat_at = now + HEARTBEAT;
        let request = HeartbeatRequest {
            group_id: self.group.as_str().into(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            ..HeartbeatRequest::default()
        };
        let coordinator = client.coordinator(&self.group).await?;
        let code = client.ask_broker(coordinator, &request).await?.error_code;
        if code == ErrorCode::REBALANCE_IN_PROGRESS {
            // What was read is this member's to commit until it gives its share away.
            self.commit(client, offsets).await?;
        }
        self.standing("Heartbeat", code)
    }

    /// Commits these offsets, by partition.
    pub(super) async fn commit(
        &mut self,
        client: &mut Client,
        offsets: &BTreeMap<i32, i64>,
    ) -> Result<Standing, Failure> {
        if offsets.is_empty() {
            return Ok(Standing::Member);
        }
        let partition = |(index, next): (&i32, &i64)| OffsetCommitRequestPartition {
            partition_index: *index,
            committed_offset: *next,
            ..OffsetCommitRequestPartition::default()
        };
        let topic = OffsetCommitRequestTopic {
            name: self.topic.as_str().into(),
            partitions: offsets.iter().map(partition).collect(),
            ..OffsetCommitRequestTopic::default()
        };
        let request = OffsetCommitRequest {
            group_id: self.group.as_str().into(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.id.clone(),
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        let coordinator = client.coordinator(&self.group).await?;
        let response = client.ask_broker(coordinator, &request).await?;
        let codes = response.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code);
        let failed = codes.into_iter().find(|code| code.is_error());
        self.standing("OffsetCommit", failed.unwrap_or(ErrorCode::NONE))
    }

    /// Leaves, so that others need not wait for the session to end.
    pub(super) async fn leave(&self, client: &mut Client) -> Result<(), ClientError> {
        let members = vec![MemberIdentity { member_id: self.id.clone(), ..MemberIdentity::default() }];
        let request =
            LeaveGroupRequest { group_id: self.group.as_str().into(), members, ..LeaveGroupRequest::default() };
        let coordinator = client.coordinator(&self.group).await?;
        client.ask_broker(coordinator, &request).await.map(drop)
    }

    fn standing(&mut self, api: &str, code: ErrorCode) -> Result<Standing, Failure> {
        match code {
            ErrorCode::NONE => Ok(Standing::Member),
            code if rejoins(code) => {
                self.forget(code);
                Ok(Standing::JoinAgain)
            }
            code => Err(self.refused(api, code)),
        }
    }

    /// A member that its coordinator does not know begins anew.
    fn forget(&mut self, code: ErrorCode) {
        if code == ErrorCode::UNKNOWN_MEMBER_ID {
            self.id = Text::default();
        }
    }

    fn refused(&self, api: &str, code: ErrorCode) -> Failure {
        ClientError::Refused { what: format!("{api} of group {}", self.group), code, message: None }.into()
    }
}

/// Whether the member has to join again, or to look for its coordinator first.
fn rejoins(code: ErrorCode) -> bool {
    [
        ErrorCode::REBALANCE_IN_PROGRESS,
        ErrorCode::ILLEGAL_GENERATION,
        ErrorCode::UNKNOWN_MEMBER_ID,
        ErrorCode::NOT_COORDINATOR,
        ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
    ]
    .contains(&code)
}

/// What a consumer of one topic says of itself.
fn subscription(topic: &str) -> Bytes {
    Subscription { topics: vec![topic.into()], ..Subscription::default() }.encode(0)
}

fn assignment(topic: &str, partitions: &[i32]) -> Bytes {
    let topics = vec![TopicPartitions { topic: topic.into(), partitions: partitions.to_vec() }];
    Assignment { topics, user_data: None }.encode(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_what_it_says_of_the_topic() {
        let member = Member::new("g", "orders", vec![0, 1, 2]);
        assert_eq!(member.own(assignment("orders", &[0, 2])).unwrap(), [0, 2]);
        assert_eq!(member.own(assignment("others", &[0, 2])).unwrap(), [0; 0]);
        assert!(member.own(Bytes::from_static(b"\0")).is_err());
    }
}
