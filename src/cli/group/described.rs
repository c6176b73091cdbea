//! A group as its coordinator describes it, whichever of the two protocols its members speak.

use bytes::Bytes;

use crate::cli::client::{Client, ClientError};
use crate::cli::connect::Failure;
use crate::protocol::api::ApiKey;
use crate::protocol::consumer_protocol::{self, CONSUMER};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::consumer_group_describe as modern;
use crate::protocol::messages::describe_groups as classic;
use crate::protocol::messages::{ConsumerGroupDescribeRequest, DescribeGroupsRequest};

/// The state of a group that is not there.
const DEAD: &str = "Dead";
/// What [`modern::Member::member_type`] says of members.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

/// The protocol of a group or of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The members share the partitions out themselves.
    Classic,
    /// The broker does (KIP-848).
    Consumer,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        }
    }
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) kind: Kind,
    pub(super) state: String,
    /// The broker that coordinates it.
    pub(super) coordinator: i32,
    /// What its members are: consumers, or something else that shares out work, as Kafka Connect.
    pub(super) protocol_type: String,
    /// How its members share out; empty while it is not agreed on.
    pub(super) protocol: String,
    /// The group's epoch, and the one for which its partitions were shared out last. A classic group does not tell.
    pub(super) epochs: Option<(i32, i32)>,
    pub(super) members: Vec<Member>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance: Option<String>,
    pub(super) client: String,
    pub(super) host: String,
    /// The protocol that it speaks: a group of consumers may have members of both (KIP-848).
    pub(super) kind: Option<Kind>,
    /// The epoch that it has reached. A classic group does not tell.
    pub(super) epoch: Option<i32>,
    pub(super) share: Share,
    /// What it is to have. In a classic group that is what it has.
    pub(super) target: Share,
}

/// What a member reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// The partitions, by topic: in order.
    Partitions(Vec<(String, Vec<i32>)>),
    /// So many bytes that are no consumer's.
    Other(usize),
}

impl Group {
    /// Who shares out the partitions, if it is a group of consumers that has agreed on one.
    pub(super) fn assignor(&self) -> Option<&str> {
        (self.protocol_type == CONSUMER && !self.protocol.is_empty()).then_some(&*self.protocol)
    }

    fn of_classic(coordinator: i32, group: classic::DescribedGroup) -> Self {
        Self {
            kind: Kind::Classic,
            state: group.group_state.to_string(),
            coordinator,
            protocol_type: group.protocol_type.to_string(),
            protocol: group.protocol_data.to_string(),
            epochs: None,
            members: group.members.into_iter().map(Member::of_classic).collect(),
        }
    }

    fn of_modern(coordinator: i32, group: modern::DescribedGroup) -> Self {
        Self {
            kind: Kind::Consumer,
            state: group.group_state.to_string(),
            coordinator,
            protocol_type: CONSUMER.to_owned(),
            protocol: group.assignor_name.to_string(),
            epochs: Some((group.group_epoch, group.assignment_epoch)),
            members: group.members.into_iter().map(Member::of_modern).collect(),
        }
    }
}

impl Member {
    /// What it is to have, where that is not what it has.
    pub(super) fn moving_to(&self) -> Option<&Share> {
        (self.target != self.share).then_some(&self.target)
    }

    fn of_classic(member: classic::DescribedGroupMember) -> Self {
        let share = Share::of_classic(member.member_assignment);
        Self {
            id: member.member_id.to_string(),
            instance: member.group_instance_id.map(|instance| instance.to_string()),
            client: member.client_id.to_string(),
            host: member.client_host.to_string(),
            kind: Some(Kind::Classic),
            epoch: None,
            target: share.clone(),
            share,
        }
    }

    fn of_modern(member: modern::Member) -> Self {
        Self {
            id: member.member_id.to_string(),
            instance: member.instance_id.map(|instance| instance.to_string()),
            client: member.client_id.to_string(),
            host: member.client_host.to_string(),
            kind: match member.member_type {
                CLASSIC_MEMBER => Some(Kind::Classic),
                CONSUMER_MEMBER => Some(Kind::Consumer),
                _ => None,
            },
            epoch: Some(member.member_epoch),
            share: Share::of_modern(member.assignment),
            target: Share::of_modern(member.target_assignment),
        }
    }
}

impl Share {
    fn sorted(topics: impl Iterator<Item = (String, Vec<i32>)>) -> Self {
        let mut topics: Vec<_> = topics.collect();
        topics.iter_mut().for_each(|(_, partitions)| partitions.sort_unstable());
        topics.sort_unstable();
        Self::Partitions(topics)
    }

    fn of_classic(bytes: Bytes) -> Self {
        let len = bytes.len();
        match consumer_protocol::Assignment::decode(bytes) {
            Ok(share) => {
                Self::sorted(share.topics.into_iter().map(|topic| (topic.topic.to_string(), topic.partitions)))
            }
            Err(_) => Self::Other(len),
        }
    }

    fn of_modern(share: modern::Assignment) -> Self {
        let topics = share.topic_partitions.into_iter();
        Self::sorted(topics.map(|topic| (topic.topic_name.to_string(), topic.partitions)))
    }
}

/// A group as its coordinator describes it.
///
/// # Errors
/// [`Failure::NoGroup`] if there is none of that name.
pub(super) async fn described(client: &mut Client, name: &str) -> Result<Group, Failure> {
    let coordinator = client.coordinator(name).await?;
    // Brokers before Kafka 3.7 do not have it; those that do may have it switched off.
    if client.broker(coordinator).await?.version(ApiKey::ConsumerGroupDescribe).is_ok() {
        let request = ConsumerGroupDescribeRequest { group_ids: vec![name.into()], ..Default::default() };
        let response = client.ask_broker(coordinator, &request).await?;
        let found = response.groups.into_iter().next().ok_or_else(|| unnamed(name))?;
        let refused = [ErrorCode::GROUP_ID_NOT_FOUND, ErrorCode::UNSUPPORTED_VERSION].contains(&found.error_code);
        if !refused {
            check(name, found.error_code, found.error_message.as_deref())?;
            return Ok(Group::of_modern(coordinator, found));
        }
    }
    let request = DescribeGroupsRequest { groups: vec![name.into()], ..DescribeGroupsRequest::default() };
    let response = client.ask_broker(coordinator, &request).await?;
    let found = response.groups.into_iter().next().ok_or_else(|| unnamed(name))?;
    if is_missing(&found) {
        return Err(Failure::NoGroup(name.to_owned()));
    }
    check(name, found.error_code, found.error_message.as_deref())?;
    Ok(Group::of_classic(coordinator, found))
}

fn unnamed(name: &str) -> Failure {
    Failure::Data { what: format!("group {name}"), problem: "the coordinator's answer does not name it".to_owned() }
}

fn check(name: &str, code: ErrorCode, message: Option<&str>) -> Result<(), ClientError> {
    let message = message.map(ToOwned::to_owned);
    let refused = || ClientError::Refused { what: format!("describing group {name}"), code, message };
    if code.is_error() { Err(refused()) } else { Ok(()) }
}

/// Whether there is no such group: brokers say so in an error from version 6 on, and before that in its state.
fn is_missing(group: &classic::DescribedGroup) -> bool {
    group.error_code == ErrorCode::GROUP_ID_NOT_FOUND || (!group.error_code.is_error() && group.group_state == DEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_missing_however_its_broker_says_it() {
        let group = |error_code, state: &str| classic::DescribedGroup {
            error_code,
            group_state: state.into(),
            ..classic::DescribedGroup::default()
        };
        assert!(is_missing(&group(ErrorCode::NONE, DEAD)));
        assert!(is_missing(&group(ErrorCode::GROUP_ID_NOT_FOUND, DEAD)));
        assert!(!is_missing(&group(ErrorCode::NONE, "Empty")));
        assert!(!is_missing(&group(ErrorCode::NOT_COORDINATOR, "")), "it is somewhere else");
    }

    #[test]
    fn a_member_moves_only_where_other_partitions_wait() {
        let assignment = |topics: &[(&str, &[i32])]| modern::Assignment {
            topic_partitions: topics
                .iter()
                .map(|(name, partitions)| modern::TopicPartitions {
                    topic_name: (*name).into(),
                    partitions: partitions.to_vec(),
                    ..Default::default()
                })
                .collect(),
        };
        let member = |has, wants| {
            let (assignment, target_assignment) = (assignment(has), assignment(wants));
            Member::of_modern(modern::Member { assignment, target_assignment, ..Default::default() })
        };
        let settled = member(&[("b", &[1, 0]), ("a", &[2])], &[("a", &[2]), ("b", &[0, 1])]);
        assert_eq!(settled.moving_to(), None, "the same, in another order");
        let moving = member(&[("a", &[0, 1])], &[("a", &[0])]);
        assert_eq!(moving.moving_to(), Some(&Share::Partitions(vec![("a".to_owned(), vec![0])])));
    }
}
