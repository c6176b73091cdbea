//! All groups of one coordinator partition, as its leader has them in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::classic::{self, Join, MemberOf, Sync};
use super::consumer::heartbeat::Beat;
use super::consumer::{self, Refusal};
use super::record::{GroupValue, Key, Record, decode_key, group_key, offsets_of};
use super::{Answer, Effects, Limits, Moment, Now, Ticket, Topics};
use crate::ids::Timestamp;
use crate::machine::keyed::LastValues;
use crate::protocol::consumer_protocol::CONSUMER;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::ConsumerGroupHeartbeatResponse;
use crate::protocol::messages::consumer_group_describe::DescribedGroup as DescribedConsumers;
use crate::protocol::messages::describe_groups::DescribedGroup;
use crate::protocol::messages::list_groups::ListedGroup;
use crate::protocol::messages::sync_group::SyncGroupResponse;
use crate::protocol::value::Text;

/// The state of a group that is not there.
const DEAD: &str = "Dead";
/// The types of groups that clients know.
const CLASSIC_TYPE: &str = "classic";
const CONSUMER_TYPE: &str = "consumer";

/// A group of one of the two protocols.
#[derive(Debug)]
pub(super) enum Group {
    /// The members share out among themselves.
    Classic(classic::Group),
    /// The coordinator shares out (KIP-848).
    Consumer(consumer::Group),
}

impl Group {
    fn next_deadline(&self) -> Option<Moment> {
        match self {
            Self::Classic(group) => group.next_deadline(),
            Self::Consumer(group) => group.next_deadline(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Classic(group) => group.state() == classic::State::Empty,
            Self::Consumer(group) => group.state() == consumer::State::Empty,
        }
    }

    /// Since when it has been as it is.
    pub(super) fn since(&self) -> Timestamp {
        match self {
            Self::Classic(group) => group.since(),
            Self::Consumer(group) => group.since(),
        }
    }

    /// Whether it never had members: offsets are all it is.
    pub(super) fn is_simple(&self) -> bool {
        match self {
            Self::Classic(group) => group.protocol_type().is_none(),
            Self::Consumer(_) => false,
        }
    }

    fn state_name(&self) -> &'static str {
        match self {
            Self::Classic(group) => group.state().name(),
            Self::Consumer(group) => group.state().name(),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Classic(group) => group.members().count(),
            Self::Consumer(group) => group.size(),
        }
    }

    fn listed(&self, id: &Text) -> ListedGroup {
        let (protocol_type, group_type) = match self {
            Self::Classic(group) => (group.protocol_type().cloned().unwrap_or_default(), CLASSIC_TYPE),
            Self::Consumer(_) => (Text::from_static(CONSUMER), CONSUMER_TYPE),
        };
        ListedGroup {
            group_id: id.clone(),
            protocol_type,
            group_state: Text::from_static(self.state_name()),
            group_type: Text::from_static(group_type),
        }
    }
}

/// See the module's documentation.
pub struct Coordinator {
    pub(super) groups: BTreeMap<Text, Group>,
    /// When each group has something to do.
    deadlines: BTreeSet<(Moment, Text)>,
    pub(super) limits: Limits,
    topics: Arc<dyn Topics + Send + std::marker::Sync>,
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl Coordinator {
    /// A coordinator of what was committed, and what of that cannot be read: it is left where it is, and the group begins without members. All
    /// members of other groups get their whole time again.
    #[must_use]
    pub fn load(
        values: &LastValues,
        limits: Limits,
        now: Now,
        topics: Arc<dyn Topics + Send + std::marker::Sync>,
    ) -> (Self, Vec<String>) {
        let mut unreadable = Vec::new();
        let (mut groups, mut consumers) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in values.with_prefix(&[]) {
            match decode_key(key) {
                Ok(Key::Group(key)) => {
                    let group = match GroupValue::decode(value) {
                        Ok(value) => classic::Group::stored(key.group.clone(), value, now),
                        Err(error) => {
                            unreadable.push(format!("group {}: {error}", key.group));
                            classic::Group::new(key.group.clone(), now)
                        }
                    };
                    groups.insert(key.group, Group::Classic(group));
                }
                Err(error) => unreadable.push(format!("a key of {} bytes: {error}", key.len())),
                Ok(Key::Offset(key)) => {
                    let new = || Group::Classic(classic::Group::new(key.group.detached(), now));
                    groups.entry(key.group.detached()).or_insert_with(new);
                }
                Ok(Key::Consumer { group, part }) => {
                    let new = || consumer::Group::new(group.detached(), now);
                    let stored: &mut consumer::Group = consumers.entry(group.detached()).or_insert_with(new);
                    if let Err(error) = stored.stored_part(part, value) {
                        unreadable.push(format!("part of group {group}: {error}"));
                    }
                }
                Ok(Key::Other(_)) => {}
            }
        }
        let has_members = |group: &Group| matches!(group, Group::Classic(group) if !group.is_vacant());
        for (id, mut group) in consumers {
            // Both are there only where a migration was cut in two: what was first still holds.
            if !groups.get(&id).is_some_and(has_members) {
                group.all_stored(now, limits.consumer_session_ms);
                groups.insert(id, Group::Consumer(group));
            }
        }
        let deadlines = groups.iter().filter_map(|(id, group)| Some((group.next_deadline()?, id.clone()))).collect();
        (Self { groups, deadlines, limits, topics }, unreadable)
    }

    /// When [`Coordinator::expire`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Does what is due.
    pub fn expire(&mut self, now: Now, out: &mut Effects) {
        while let Some((_, id)) = self.deadlines.first().cloned().filter(|(at, _)| *at <= now.moment) {
            let limits = self.limits;
            let next = self.with(&id, |group, topics| {
                match group {
                    Group::Classic(group) => group.expire(now, &limits, out),
                    Group::Consumer(group) => group.expire(now, topics, out),
                }
                group.next_deadline()
            });
            self.downgrade_if_due(now, &id, out);
            let next = next.expect("a group that is forgotten takes its deadline along");
            assert!(next.is_none_or(|next| next > now.moment), "what was due is done");
        }
    }

    /// Changes a group and keeps its deadline.
    pub(super) fn with<T>(&mut self, id: &Text, change: impl FnOnce(&mut Group, &dyn Topics) -> T) -> Option<T> {
        let group = self.groups.get_mut(id)?;
        let before = group.next_deadline();
        let changed = change(group, &*self.topics);
        let after = group.next_deadline();
        if before != after {
            self.deadlines.extend(after.map(|at| (at, id.clone())));
            if let Some(before) = before {
                self.deadlines.remove(&(before, id.clone()));
            }
        }
        Some(changed)
    }

    /// Puts a group where there may be one already.
    pub(super) fn put(&mut self, id: &Text, group: Group) {
        self.take_out(id);
        self.deadlines.extend(group.next_deadline().map(|at| (at, id.clone())));
        self.groups.insert(id.clone(), group);
    }

    /// A group of the consumer protocol whose last member of it has left is a classic one again.
    fn downgrade_if_due(&mut self, now: Now, id: &Text, out: &mut Effects) {
        let is_due = |group: &Group| matches!(group, Group::Consumer(group) if group.is_all_classic());
        if !self.groups.get(id).is_some_and(is_due) {
            return;
        }
        let Some(Group::Consumer(group)) = self.take_out(id) else { return };
        let group = group.into_classic(now, &self.limits, &*self.topics, out);
        self.put(id, Group::Classic(group));
    }

    /// A JoinGroup.
    pub fn join(&mut self, now: Now, id: &Text, join: Join, out: &mut Effects) {
        let sessions = self.limits.session_ms_min..=self.limits.session_ms_max;
        let code = if id.is_empty() {
            Some(ErrorCode::INVALID_GROUP_ID)
        } else if !sessions.contains(&join.session_timeout_ms) {
            Some(ErrorCode::INVALID_SESSION_TIMEOUT)
        } else if !join.member_id.is_empty() && !self.groups.contains_key(id) {
            Some(ErrorCode::UNKNOWN_MEMBER_ID)
        } else {
            None
        };
        if let Some(code) = code {
            return out.answer(join.ticket, join.refused(code));
        }
        let is_new = !self.groups.contains_key(id);
        if is_new {
            self.put(id, Group::Classic(classic::Group::new(id.clone(), now)));
        } else if let Err(code) = self.begin_classic_if_left(now, id, &join, out) {
            return out.answer(join.ticket, join.refused(code));
        }
        let limits = self.limits;
        self.with(id, |group, topics| match group {
            Group::Classic(group) => group.join(now, &limits, join, out),
            Group::Consumer(group) => {
                let joined = group.join(now, &limits, &join, topics, out);
                out.answer(join.ticket, joined.unwrap_or_else(|code| join.refused(code)));
            }
        });
        self.downgrade_if_due(now, id, out);
        if is_new && matches!(self.groups.get(id), Some(Group::Classic(group)) if group.is_vacant()) {
            self.take_out(id);
        }
    }

    /// What is left of a group of the consumer protocol does not bind those who come: it is a classic one from now on, if they may join that.
    fn begin_classic_if_left(&mut self, now: Now, id: &Text, join: &Join, out: &mut Effects) -> Result<(), ErrorCode> {
        let Some(Group::Consumer(group)) = self.groups.get(id).filter(|group| group.is_empty()) else { return Ok(()) };
        if !join.member_id.is_empty() {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        if join.protocol_type != CONSUMER || join.protocols.is_empty() {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        let since = group.since();
        if let Some(Group::Consumer(group)) = self.take_out(id) {
            let group = group.into_classic(Now { wall: since, ..now }, &self.limits, &*self.topics, out);
            self.put(id, Group::Classic(group));
        }
        Ok(())
    }

    /// A SyncGroup.
    pub fn sync(&mut self, now: Now, id: &Text, sync: Sync, out: &mut Effects) {
        let ticket = sync.ticket;
        let refused = |error_code| SyncGroupResponse { error_code, ..SyncGroupResponse::default() };
        let found = self.with(id, |group, topics| match group {
            Group::Classic(group) => group.sync(now, sync, out),
            Group::Consumer(group) => out.answer(ticket, group.sync(now, &sync, topics).unwrap_or_else(refused)),
        });
        if found.is_none() {
            out.answer(ticket, refused(ErrorCode::UNKNOWN_MEMBER_ID));
        }
    }

    /// A Heartbeat.
    pub fn heartbeat(&mut self, now: Now, id: &Text, ticket: Ticket, member: &MemberOf, out: &mut Effects) {
        let code = self.with(id, |group, _| match group {
            Group::Classic(group) => group.heartbeat(now, member),
            Group::Consumer(group) => group.classic_heartbeat(now, member),
        });
        out.answer(ticket, code.unwrap_or(ErrorCode::UNKNOWN_MEMBER_ID));
    }

    /// A LeaveGroup: what becomes of each member, by member id and instance id; `None` if there is no such group.
    pub fn leave(&mut self, now: Now, id: &Text, ticket: Ticket, members: &[(Text, Option<Text>)], out: &mut Effects) {
        let limits = self.limits;
        let left = self.with(id, |group, topics| match group {
            Group::Classic(group) => {
                let mut leave = |(member, instance): &(Text, Option<Text>)| {
                    group.leave(now, &limits, member, instance.as_ref(), out)
                };
                let codes = members.iter().map(&mut leave).collect::<Vec<_>>();
                group.remember_leave(&codes, out);
                codes
            }
            Group::Consumer(group) => group.classic_leave(now, members, topics, out),
        });
        self.downgrade_if_due(now, id, out);
        out.answer(ticket, Answer::Left(left));
    }

    /// A ConsumerGroupHeartbeat.
    pub fn consumer_heartbeat(&mut self, now: Now, id: &Text, beat: Beat, out: &mut Effects) {
        let ticket = beat.ticket;
        let told = self.try_consumer_heartbeat(now, id, beat, out);
        self.downgrade_if_due(now, id, out);
        let refused = |refusal: Refusal| ConsumerGroupHeartbeatResponse {
            error_code: refusal.code,
            error_message: Some(refusal.message.into()),
            ..ConsumerGroupHeartbeatResponse::default()
        };
        out.answer(ticket, told.unwrap_or_else(refused));
    }

    fn try_consumer_heartbeat(
        &mut self,
        now: Now,
        id: &Text,
        beat: Beat,
        out: &mut Effects,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let mut heartbeat = beat.heartbeat;
        heartbeat.check(id, beat.must_have_id)?;
        let limits = self.limits;
        if heartbeat.leaves() {
            self.consumers(id)?;
            let left = self.with(id, |group, topics| match group {
                Group::Consumer(group) => group.leave(now, &heartbeat, topics, out),
                Group::Classic(_) => Err(not_consumers(id)),
            });
            return left.unwrap_or_else(|| Err(no_group(id)));
        }
        if heartbeat.member_id.is_empty() {
            heartbeat.member_id = beat.new_id;
        }
        match self.consumers(id) {
            Ok(group) => group.check_heartbeat(&heartbeat, &limits)?,
            Err(refusal) if !heartbeat.joins() => return Err(refusal),
            Err(_) => self.begin_consumers(now, id, &heartbeat, out)?,
        }
        let told = self.with(id, |group, topics| match group {
            Group::Consumer(group) => Ok(group.heartbeat(now, &limits, &heartbeat, topics, out)),
            Group::Classic(_) => Err(not_consumers(id)),
        });
        told.unwrap_or_else(|| Err(no_group(id)))
    }

    fn consumers(&self, id: &Text) -> Result<&consumer::Group, Refusal> {
        match self.groups.get(id) {
            Some(Group::Consumer(group)) => Ok(group),
            Some(Group::Classic(_)) => Err(not_consumers(id)),
            None => Err(no_group(id)),
        }
    }

    /// Makes a group of the consumer protocol, or makes one of a classic group, for a member that joins and may.
    fn begin_consumers(
        &mut self,
        now: Now,
        id: &Text,
        heartbeat: &consumer::Heartbeat,
        out: &mut Effects,
    ) -> Result<(), Refusal> {
        let limits = self.limits;
        let group = match self.groups.get_mut(id) {
            Some(Group::Classic(classic)) if classic.state() != classic::State::Empty => {
                let group = consumer::Group::from_classic(id, classic, &limits, now, &*self.topics);
                let refused = |consumer::NoMigration(message)| Refusal { code: ErrorCode::GROUP_ID_NOT_FOUND, message };
                let group = group.map_err(refused)?;
                group.check_heartbeat(heartbeat, &limits)?;
                classic.refuse_all(out);
                group.remember_upgrade(now, out);
                group
            }
            found => {
                let group = consumer::Group::new(id.clone(), now);
                group.check_heartbeat(heartbeat, &limits)?;
                if found.is_some_and(|group| !group.is_simple()) {
                    out.records.push(Record { key: group_key(id), value: None });
                }
                group
            }
        };
        self.put(id, Group::Consumer(group));
        Ok(())
    }

    /// One group of DescribeGroups: a classic one. One that is not there is "dead".
    #[must_use]
    pub fn describe(&self, id: &Text) -> Option<DescribedGroup> {
        match self.groups.get(id)? {
            Group::Classic(group) => Some(group.describe()),
            Group::Consumer(_) => None,
        }
    }

    /// One group of ConsumerGroupDescribe.
    #[must_use]
    pub fn describe_consumers(&self, id: &Text) -> DescribedConsumers {
        match self.consumers(id) {
            Ok(group) => group.describe(&*self.topics),
            Err(refusal) => DescribedConsumers {
                error_code: refusal.code,
                error_message: Some(refusal.message.into()),
                group_id: id.clone(),
                ..DescribedConsumers::default()
            },
        }
    }

    /// All that another leader has to know of a group of the consumer protocol, for tests.
    #[cfg(test)]
    pub(super) fn durable(&self, id: &Text) -> Option<String> {
        self.consumers(id).ok().map(consumer::Group::durable)
    }

    /// What DescribeGroups says of a group that is not there.
    #[must_use]
    pub fn dead(id: &Text) -> DescribedGroup {
        DescribedGroup { group_id: id.clone(), group_state: Text::from_static(DEAD), ..Default::default() }
    }

    /// All groups.
    #[must_use]
    pub fn list(&self) -> Vec<ListedGroup> {
        self.groups.iter().map(|(id, group)| group.listed(id)).collect()
    }

    /// For each group the name of its state and how many members it has.
    pub fn sizes(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.groups.values().map(|group| (group.state_name(), group.size()))
    }

    /// Forgets a group without members, and its offsets.
    pub fn delete(&mut self, id: &Text, values: &LastValues, ticket: Ticket, out: &mut Effects) {
        let code = match self.groups.get(id).map(Group::is_empty) {
            None => ErrorCode::GROUP_ID_NOT_FOUND,
            Some(true) => {
                let prefix = offsets_of(id);
                let keys = values.with_prefix(&prefix).map(|(key, _)| Bytes::copy_from_slice(key));
                out.records.extend(keys.map(|key| Record { key, value: None }));
                self.forget(id, values, out);
                ErrorCode::NONE
            }
            Some(false) => ErrorCode::NON_EMPTY_GROUP,
        };
        out.answer(ticket, code);
    }

    /// Forgets a group without members.
    pub(super) fn forget(&mut self, id: &Text, values: &LastValues, out: &mut Effects) {
        match self.take_out(id) {
            Some(Group::Consumer(group)) => group.forget_all(out),
            Some(Group::Classic(_)) | None => {}
        }
        let key = group_key(id);
        if values.get(&key).is_some() {
            out.records.push(Record { key, value: None });
        }
    }

    fn take_out(&mut self, id: &Text) -> Option<Group> {
        let group = self.groups.remove(id)?;
        if let Some(at) = group.next_deadline() {
            self.deadlines.remove(&(at, id.clone()));
        }
        Some(group)
    }
}

fn no_group(id: &Text) -> Refusal {
    Refusal { code: ErrorCode::GROUP_ID_NOT_FOUND, message: format!("Group {id} not found.") }
}

fn not_consumers(id: &Text) -> Refusal {
    Refusal { code: ErrorCode::GROUP_ID_NOT_FOUND, message: format!("Group {id} is not a consumer group.") }
}
