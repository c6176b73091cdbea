//! All groups of one coordinator partition, as its leader has them in memory.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::classic::{Group, Join, MemberOf, State, Sync};
use super::record::{Committed, GroupValue, Key, Record, decode_key, group_key, offset_key, offsets_of};
use super::{Answer, Effects, Limits, Moment, Now, Ticket};
use crate::ids::{PartitionIndex, TopicId};
use crate::machine::keyed::LastValues;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::describe_groups::DescribedGroup;
use crate::protocol::messages::list_groups::ListedGroup;
use crate::protocol::messages::sync_group::SyncGroupResponse;
use crate::protocol::value::Text;

/// The state of a group that is not there.
const DEAD: &str = "Dead";
/// The type of all groups of the classic protocol.
pub const CLASSIC: &str = "classic";

/// Offsets that are forgotten at once, for being old.
const EXPIRED_AT_ONCE_MAX: usize = 10_000;
/// What one request may commit. The group's name stands in the key of each offset, so a small request can ask for much.
const COMMIT_BYTES_MAX: usize = 8 << 20;
/// Bytes of an offset's record besides its names and metadata, roughly.
const OFFSET_BYTES: usize = 64;

/// Offsets to commit.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Who waits for the answer.
    pub ticket: Ticket,
    /// Who commits.
    pub member: MemberOf,
    /// What: topic, partition, offset. Each is known to be there.
    pub offsets: Vec<(Text, PartitionIndex, Committed)>,
    /// Whether the client knows [`ErrorCode::GROUP_ID_NOT_FOUND`] (version 9).
    pub knows_missing_groups: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Coordinator {
    groups: BTreeMap<Text, Group>,
    /// When each group has something to do.
    deadlines: BTreeSet<(Moment, Text)>,
    limits: Limits,
}

impl Coordinator {
    /// A coordinator of what was committed, and what of that cannot be read: it is left where it is, and the group begins without members. All
    /// members of other groups get their whole time again.
    #[must_use]
    pub fn load(values: &LastValues, limits: Limits, now: Now) -> (Self, Vec<String>) {
        let mut unreadable = Vec::new();
        let mut coordinator = Self { groups: BTreeMap::new(), deadlines: BTreeSet::new(), limits };
        for (key, value) in values.with_prefix(&[]) {
            match decode_key(key) {
                Ok(Key::Group(key)) => {
                    let group = match GroupValue::decode(value) {
                        Ok(value) => Group::stored(key.group.clone(), value, now),
                        Err(error) => {
                            unreadable.push(format!("group {}: {error}", key.group));
                            Group::new(key.group.clone(), now)
                        }
                    };
                    coordinator.groups.insert(key.group, group);
                }
                Err(error) => unreadable.push(format!("a key of {} bytes: {error}", key.len())),
                Ok(Key::Offset(key)) => {
                    let new = || Group::new(key.group.detached(), now);
                    coordinator.groups.entry(key.group.detached()).or_insert_with(new);
                }
                Ok(Key::Other(_)) => {}
            }
        }
        for (id, group) in &coordinator.groups {
            coordinator.deadlines.extend(group.next_deadline().map(|at| (at, id.clone())));
        }
        (coordinator, unreadable)
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
            let next = self.with(&id, |group| {
                group.expire(now, &limits, out);
                group.next_deadline()
            });
            let next = next.expect("a group that is forgotten takes its deadline along");
            assert!(next.is_none_or(|next| next > now.moment), "what was due is done");
        }
    }

    /// Changes a group and keeps its deadline.
    fn with<T>(&mut self, id: &Text, change: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let group = self.groups.get_mut(id)?;
        let before = group.next_deadline();
        let changed = change(group);
        let after = group.next_deadline();
        if before != after {
            self.deadlines.extend(after.map(|at| (at, id.clone())));
            if let Some(before) = before {
                self.deadlines.remove(&(before, id.clone()));
            }
        }
        Some(changed)
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
        if !self.groups.contains_key(id) {
            self.groups.insert(id.clone(), Group::new(id.clone(), now));
        }
        let limits = self.limits;
        self.with(id, |group| group.join(now, &limits, join, out));
    }

    /// A SyncGroup.
    pub fn sync(&mut self, now: Now, id: &Text, sync: Sync, out: &mut Effects) {
        let ticket = sync.ticket;
        if self.with(id, |group| group.sync(now, sync, out)).is_none() {
            let error_code = ErrorCode::UNKNOWN_MEMBER_ID;
            out.answer(ticket, SyncGroupResponse { error_code, ..Default::default() });
        }
    }

    /// A Heartbeat.
    pub fn heartbeat(&mut self, now: Now, id: &Text, ticket: Ticket, member: &MemberOf, out: &mut Effects) {
        let code = self.with(id, |group| group.heartbeat(now, member)).unwrap_or(ErrorCode::UNKNOWN_MEMBER_ID);
        out.answer(ticket, code);
    }

    /// A LeaveGroup: what becomes of each member, by member id and instance id; `None` if there is no such group.
    pub fn leave(&mut self, now: Now, id: &Text, ticket: Ticket, members: &[(Text, Option<Text>)], out: &mut Effects) {
        let limits = self.limits;
        let left = self.with(id, |group| {
            let mut leave =
                |(member, instance): &(Text, Option<Text>)| group.leave(now, &limits, member, instance.as_ref(), out);
            let codes = members.iter().map(&mut leave).collect::<Vec<_>>();
            group.remember_leave(&codes, out);
            codes
        });
        out.answer(ticket, Answer::Left(left));
    }

    /// An OffsetCommit: all offsets, or none.
    pub fn commit(&mut self, now: Now, id: &Text, commit: Commit, out: &mut Effects) {
        let Commit { ticket, member, offsets, knows_missing_groups } = commit;
        let checked = match self.with(id, |group| group.check_commit(now, &member)) {
            Some(checked) => checked,
            None if member.generation < 0 => {
                self.groups.insert(id.clone(), Group::new(id.clone(), now));
                Ok(())
            }
            None if knows_missing_groups => Err(ErrorCode::GROUP_ID_NOT_FOUND),
            None => Err(ErrorCode::ILLEGAL_GENERATION),
        };
        let bytes = |(topic, _, committed): &(Text, PartitionIndex, Committed)| {
            OFFSET_BYTES + id.len() + topic.len() + committed.metadata.len()
        };
        let checked = checked.and_then(|()| match offsets.iter().map(bytes).sum::<usize>() > COMMIT_BYTES_MAX {
            true => Err(ErrorCode::INVALID_COMMIT_OFFSET_SIZE),
            false => Ok(()),
        });
        if checked.is_ok() {
            out.records.extend(offsets.into_iter().map(|(topic, partition, committed)| Record {
                key: offset_key(id, &topic, partition),
                value: Some(committed.encode()),
            }));
        }
        out.answer(ticket, checked.err().unwrap_or(ErrorCode::NONE));
    }

    /// What was committed for a group: for the partitions wanted, or for all that there is.
    #[must_use]
    pub fn fetch(
        id: &Text,
        wanted: Option<&[(Text, Vec<i32>)]>,
        values: &LastValues,
    ) -> Vec<(Text, PartitionIndex, Option<Committed>)> {
        // One that cannot be read was never committed by a version that this one knows.
        let read = |value: &[u8]| Committed::decode(value).ok();
        let Some(wanted) = wanted else {
            let prefix = offsets_of(id);
            let all = values.with_prefix(&prefix).filter_map(|(key, value)| match decode_key(key) {
                Ok(Key::Offset(key)) => Some((key.topic, PartitionIndex(key.partition), read(value))),
                _ => None,
            });
            return all.collect();
        };
        let each = wanted.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |partition| (topic.clone(), PartitionIndex(*partition)))
        });
        let found = each.map(|(topic, partition)| {
            let value = values.get(&offset_key(id, &topic, partition)).and_then(read);
            (topic, partition, value)
        });
        found.collect()
    }

    /// Forgets what nobody wants any more: offsets of topics that are gone; those of groups without members, when they are old; those of topics
    /// that a group does not read any more, when they are old; and groups of which nothing is left. `topic_id` says which topic has a
    /// name now. Whether that was not all: what is committed at once is bounded.
    pub fn expire_offsets(
        &mut self,
        now: Now,
        values: &LastValues,
        topic_id: impl Fn(&str) -> Option<TopicId>,
        out: &mut Effects,
    ) -> bool {
        let mut left: BTreeSet<Text> = BTreeSet::new();
        for (key, value) in values.with_prefix(&[]) {
            let (Ok(Key::Offset(offset)), Ok(committed)) = (decode_key(key), Committed::decode(value)) else {
                continue;
            };
            let Some(group) = self.groups.get(&offset.group) else { continue };
            let topic = topic_id(&offset.topic);
            let is_gone = topic.is_none() || committed.topic.is_some_and(|id| Some(id) != topic);
            if is_gone || self.is_old(now, group, &offset.topic, &committed) {
                out.records.push(Record { key: Bytes::copy_from_slice(key), value: None });
                if out.records.len() == EXPIRED_AT_ONCE_MAX {
                    return true;
                }
            } else {
                left.insert(offset.group.detached());
            }
        }
        let is_over = |(id, group): &(&Text, &Group)| {
            let has_been_long = now.wall.0.saturating_sub(group.since().0) >= self.limits.offsets_kept_ms;
            group.state() == State::Empty && !left.contains(*id) && (has_been_long || group.protocol_type().is_none())
        };
        let over: Vec<Text> = self.groups.iter().filter(is_over).map(|(id, _)| id.clone()).collect();
        for id in over {
            self.take_out(&id);
            let key = group_key(&id);
            if values.get(&key).is_some() {
                out.records.push(Record { key, value: None });
            }
        }
        false
    }

    /// Whether an offset has been kept for long enough.
    fn is_old(&self, now: Now, group: &Group, topic: &Text, committed: &Committed) -> bool {
        if let Some(expires) = committed.expires {
            return group.state() == State::Empty && expires <= now.wall;
        }
        // Nothing of this age is old, whatever its group does.
        if now.wall.0.saturating_sub(committed.at.0) < self.limits.offsets_kept_ms {
            return false;
        }
        let since = match group.state() {
            // Those of a group that never had members count from the commit.
            State::Empty if group.protocol_type().is_none() => committed.at,
            State::Empty => committed.at.max(group.since()),
            State::Stable if group.subscribed().is_some_and(|topics| !topics.contains(topic)) => committed.at,
            _ => return false,
        };
        now.wall.0.saturating_sub(since.0) >= self.limits.offsets_kept_ms
    }

    /// Forgets offsets of topics that the group does not read: what becomes of each topic.
    pub fn delete_offsets(
        &mut self,
        id: &Text,
        topics: &[(Text, Vec<PartitionIndex>)],
        values: &LastValues,
        ticket: Ticket,
        out: &mut Effects,
    ) {
        let Some(group) = self.groups.get(id) else {
            return out.answer(ticket, Answer::Deleted(Err(ErrorCode::GROUP_ID_NOT_FOUND)));
        };
        let Some(subscribed) = group.subscribed() else {
            return out.answer(ticket, Answer::Deleted(Err(ErrorCode::NON_EMPTY_GROUP)));
        };
        let mut codes = Vec::with_capacity(topics.len());
        for (topic, partitions) in topics {
            if subscribed.contains(topic) {
                codes.push(ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC);
                continue;
            }
            let keys = partitions.iter().map(|partition| offset_key(id, topic, *partition));
            let there = keys.filter(|key| values.get(key).is_some());
            out.records.extend(there.map(|key| Record { key, value: None }));
            codes.push(ErrorCode::NONE);
        }
        out.answer(ticket, Answer::Deleted(Ok(codes)));
    }

    /// One group of DescribeGroups. One that is not there is "dead".
    #[must_use]
    pub fn describe(&self, id: &Text) -> Option<DescribedGroup> {
        self.groups.get(id).map(Group::describe)
    }

    /// What DescribeGroups says of a group that is not there.
    #[must_use]
    pub fn dead(id: &Text) -> DescribedGroup {
        DescribedGroup { group_id: id.clone(), group_state: Text::from_static(DEAD), ..Default::default() }
    }

    /// All groups.
    #[must_use]
    pub fn list(&self) -> Vec<ListedGroup> {
        let listed = |(id, group): (&Text, &Group)| ListedGroup {
            group_id: id.clone(),
            protocol_type: group.protocol_type().cloned().unwrap_or_default(),
            group_state: Text::from_static(group.state().name()),
            group_type: Text::from_static(CLASSIC),
        };
        self.groups.iter().map(listed).collect()
    }

    /// Forgets a group without members, and its offsets.
    pub fn delete(&mut self, id: &Text, values: &LastValues, ticket: Ticket, out: &mut Effects) {
        let code = match self.groups.get(id).map(Group::state) {
            None => ErrorCode::GROUP_ID_NOT_FOUND,
            Some(State::Empty) => {
                self.forget(id, values, out);
                ErrorCode::NONE
            }
            Some(_) => ErrorCode::NON_EMPTY_GROUP,
        };
        out.answer(ticket, code);
    }

    fn take_out(&mut self, id: &Text) {
        if let Some(group) = self.groups.remove(id)
            && let Some(at) = group.next_deadline()
        {
            self.deadlines.remove(&(at, id.clone()));
        }
    }

    fn forget(&mut self, id: &Text, values: &LastValues, out: &mut Effects) {
        self.take_out(id);
        let tombstone = |key: &[u8]| Record { key: Bytes::copy_from_slice(key), value: None };
        let prefix = offsets_of(id);
        out.records.extend(values.with_prefix(&prefix).map(|(key, _)| tombstone(key)));
        out.records.push(tombstone(&group_key(id)));
    }
}
