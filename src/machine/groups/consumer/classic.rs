//! Members of the classic protocol in a group of the consumer protocol, while it migrates (KIP-848, "online migration").
//!
//! They join, sync and send heartbeats as ever; generations are member epochs, and nobody of them leads: the coordinator shares out.

use std::collections::{BTreeMap, BTreeSet};

use super::super::classic::{Join, MemberOf, Sync};
use super::super::{Effects, Limits, Now, Topics};
use super::Group;
use super::heartbeat::sorted;
use super::member::{Member, State, Timers};
use super::record::{ClassicProtocol, ClassicValue, Given, MemberValue, Partitions};
use crate::protocol::consumer_protocol::{self, Assignment, CONSUMER, Subscription, TopicPartitions};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::{JoinGroupResponse, SyncGroupResponse};
use crate::protocol::value::Text;

/// The longest id of a member: a coordinator gives none that is longer.
const MEMBER_ID_BYTES_MAX: usize = 512;

/// Partitions by id, of those that are told by name. Topics that are not there any more are left out.
pub(super) fn by_id(told: &[TopicPartitions], topics: &dyn Topics) -> Partitions {
    let mut partitions = Partitions::new();
    for told in told {
        if let Some(topic) = topics.find(&told.topic) {
            let there = told.partitions.iter().filter(|partition| (0..topic.partitions).contains(*partition));
            partitions.entry(topic.id).or_default().extend(there);
        }
    }
    partitions.retain(|_, partitions| !partitions.is_empty());
    partitions
}

/// As members of the classic protocol are told what they have.
pub(super) fn by_name(given: &Given, topics: &dyn Topics) -> Assignment {
    let of = |(topic, partitions): (&crate::ids::TopicId, &BTreeMap<i32, i32>)| {
        Some(TopicPartitions { topic: topics.name(*topic)?, partitions: partitions.keys().copied().collect() })
    };
    Assignment { topics: given.iter().filter_map(of).collect(), user_data: None }
}

/// The protocol of a member that the others go by: the one it likes best.
fn first_protocol(says: &MemberValue) -> Option<&ClassicProtocol> {
    says.classic.as_ref()?.protocols.first()
}

/// The version of what a member says, in which it is told its share.
fn version_of(says: &MemberValue) -> i16 {
    first_protocol(says).and_then(|first| consumer_protocol::version_of(&first.metadata).ok()).unwrap_or(0)
}

impl Group {
    /// A JoinGroup: at once told the member's epoch; it asks for its share next.
    ///
    /// # Errors
    /// Why it may not join. Nothing is changed then.
    pub fn join(
        &mut self,
        now: Now,
        limits: &Limits,
        join: &Join,
        topics: &dyn Topics,
        out: &mut Effects,
    ) -> Result<JoinGroupResponse, ErrorCode> {
        let is_unknown = join.member_id.is_empty();
        let id = if is_unknown { join.new_consumer_id.clone() } else { join.member_id.clone() };
        let (says, subscription) = self.check_join(&id, join, limits)?;
        if join.must_know_id && is_unknown && join.instance_id.is_none() {
            return Ok(JoinGroupResponse { member_id: id, ..join.refused(ErrorCode::MEMBER_ID_REQUIRED) });
        }
        let is_new = self.come(&id, join.instance_id.as_ref(), out);
        let reads_others = self.describe_member(now, &id, says, None, is_new, topics, out);
        self.look_at_topics(now, reads_others, topics, out);
        self.retarget_if_due(now, topics, out);
        let owned = by_id(&subscription.owned, topics);
        self.reconcile(now, &id, reads_others, Some(&owned), topics, out);
        let member = &self.members[&id];
        let (session_ms, rebalance_ms) = (session_ms(member), member.rebalance_timeout_ms());
        let response = JoinGroupResponse {
            generation_id: member.standing.epoch,
            protocol_type: Some(Text::from_static(CONSUMER)),
            protocol_name: first_protocol(&member.says).map(|first| first.name.clone()),
            member_id: id.clone(),
            ..JoinGroupResponse::default()
        };
        self.set_timers(&id, |timers| {
            let session = Some(now.moment.after(session_ms));
            *timers = Timers { session, sync: Some(now.moment.after(rebalance_ms)), ..Timers::default() };
        });
        Ok(response)
    }

    fn check_join(&self, id: &Text, join: &Join, limits: &Limits) -> Result<(MemberValue, Subscription), ErrorCode> {
        if id.len() > MEMBER_ID_BYTES_MAX {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        if !self.members.contains_key(id) && self.members.len() >= limits.members_max {
            return Err(ErrorCode::GROUP_MAX_SIZE_REACHED);
        }
        if !self.shares_protocol(id, join) {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        if join.instance_id.is_some() && !join.member_id.is_empty() {
            self.known(id, join.instance_id.as_ref()).map_err(|refusal| refusal.code)?;
        }
        let first = join.protocols.first().ok_or(ErrorCode::INCONSISTENT_GROUP_PROTOCOL)?;
        let subscription = Subscription::decode(first.1.clone()).map_err(|_| ErrorCode::INCONSISTENT_GROUP_PROTOCOL)?;
        let before = self.members.get(id).map(|member| &member.says);
        let says = MemberValue {
            instance_id: join.instance_id.clone().or_else(|| before?.instance_id.clone()),
            rack_id: subscription.rack.as_ref().map(Text::detached),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            topics: sorted(&subscription.topics.iter().map(Text::detached).collect::<Vec<_>>()),
            regex: None,
            // Version 0 of JoinGroup has none: the session's.
            rebalance_timeout_ms: match join.rebalance_timeout_ms {
                ms if ms < 0 => join.session_timeout_ms,
                ms => ms,
            },
            assignor: before.and_then(|before| before.assignor.clone()),
            classic: Some(classic_value(join.session_timeout_ms, &join.protocols)),
        };
        self.check_bytes(id, &says).map_err(|refusal| refusal.code)?;
        Ok((says, subscription))
    }

    /// Whether a member knows a protocol that all members of the classic protocol know.
    fn shares_protocol(&self, id: &Text, join: &Join) -> bool {
        let others = || self.members.iter().filter(|(other, _)| *other != id).map(|(_, member)| &member.says);
        let knows = |says: &MemberValue, name: &Text| match &says.classic {
            Some(classic) => classic.protocols.iter().any(|protocol| protocol.name == *name),
            None => true,
        };
        join.protocol_type == CONSUMER && join.protocols.iter().any(|(name, _)| others().all(|says| knows(says, name)))
    }

    /// A SyncGroup: what the member has.
    ///
    /// # Errors
    /// Why it is not told.
    pub fn sync(&mut self, now: Now, sync: &Sync, topics: &dyn Topics) -> Result<SyncGroupResponse, ErrorCode> {
        let member = self.classic_member(&sync.member)?;
        let differs = |told: &Option<Text>, ours: Option<&str>| told.is_some() && told.as_deref() != ours;
        let name = first_protocol(&member.says).map(|first| &*first.name);
        if differs(&sync.protocol_type, Some(CONSUMER)) || differs(&sync.protocol_name, name) {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        let id = sync.member.member_id.clone();
        if self.epoch > member.standing.epoch && member.standing.state != State::Revoking {
            self.has_to_rejoin(now, &id);
            return Err(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        let share = by_name(&member.standing.given, topics).encode(version_of(&member.says));
        let session_ms = session_ms(member);
        self.set_timers(&id, |timers| {
            timers.session = Some(now.moment.after(session_ms));
            timers.sync = None;
        });
        Ok(SyncGroupResponse {
            protocol_type: sync.protocol_type.clone(),
            protocol_name: sync.protocol_name.clone(),
            assignment: share,
            ..SyncGroupResponse::default()
        })
    }

    /// A Heartbeat of the classic protocol: whether the member has to join again.
    pub fn classic_heartbeat(&mut self, now: Now, of: &MemberOf) -> ErrorCode {
        let member = match self.classic_member(of) {
            Ok(member) => member,
            Err(code) => return code,
        };
        let standing = &member.standing;
        let waits_in_vain = standing.state == State::Waiting && !self.waits_for_others(&of.member_id);
        let joins = standing.epoch < self.epoch || standing.state == State::Revoking || waits_in_vain;
        let session_ms = session_ms(member);
        self.set_timers(&of.member_id, |timers| timers.session = Some(now.moment.after(session_ms)));
        if joins {
            self.has_to_rejoin(now, &of.member_id);
        }
        if joins { ErrorCode::REBALANCE_IN_PROGRESS } else { ErrorCode::NONE }
    }

    /// Members leave by LeaveGroup: what becomes of each, by member id and instance id.
    pub fn classic_leave(
        &mut self,
        now: Now,
        leaving: &[(Text, Option<Text>)],
        topics: &dyn Topics,
        out: &mut Effects,
    ) -> Vec<ErrorCode> {
        let mut found = BTreeSet::new();
        let mut code_of = |(id, instance): &(Text, Option<Text>)| {
            let owner = instance.as_ref().and_then(|instance| self.instances.get(instance));
            let id = if id.is_empty() { owner.unwrap_or(id) } else { id };
            match self.known(id, instance.as_ref()) {
                Ok(_) => {
                    found.insert(id.clone());
                    ErrorCode::NONE
                }
                Err(refusal) => refusal.code,
            }
        };
        let codes = leaving.iter().map(&mut code_of).collect();
        self.remove(now, &found, topics, out);
        codes
    }

    fn classic_member(&self, of: &MemberOf) -> Result<&Member, ErrorCode> {
        let member = self.known(&of.member_id, of.instance_id.as_ref()).map_err(|refusal| refusal.code)?;
        if !member.is_classic() {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        if member.standing.epoch == of.generation { Ok(member) } else { Err(ErrorCode::ILLEGAL_GENERATION) }
    }

    /// Whether others still have what a member shall have.
    fn waits_for_others(&self, id: &Text) -> bool {
        let given = &self.members[id].standing.given;
        let has = |topic, partition: &i32| {
            given.get(topic).is_some_and(|partitions: &BTreeMap<i32, i32>| partitions.contains_key(partition))
        };
        let target = self.targets.get(id).into_iter().flatten();
        let mut missing = target.flat_map(|(topic, partitions)| {
            partitions.iter().filter(move |partition| !has(topic, partition)).map(move |partition| (*topic, *partition))
        });
        missing.any(|partition| self.owners.contains_key(&partition))
    }

    fn has_to_rejoin(&mut self, now: Now, id: &Text) {
        let at = now.moment.after(self.members[id].rebalance_timeout_ms());
        self.set_timers(id, |timers| {
            timers.rejoin.get_or_insert(at);
        });
    }
}

fn session_ms(member: &Member) -> u64 {
    let ms = member.says.classic.as_ref().map_or(0, |classic| classic.session_timeout_ms);
    u64::try_from(ms).unwrap_or(0)
}

/// What a member of the classic protocol has besides.
pub(super) fn classic_value(session_timeout_ms: i32, protocols: &[(Text, bytes::Bytes)]) -> ClassicValue {
    let of =
        |(name, metadata): &(Text, bytes::Bytes)| ClassicProtocol { name: name.clone(), metadata: metadata.clone() };
    ClassicValue { session_timeout_ms, protocols: protocols.iter().map(of).collect() }
}
