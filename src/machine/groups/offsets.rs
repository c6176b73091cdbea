//! The offsets of the groups of one coordinator: committed, read, and forgotten when nobody wants them any more.
//!
//! They are in committed state only ([`LastValues`]), not a second time with the groups.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::classic::{self, MemberOf};
use super::coordinator::{Coordinator, Group};
use super::record::{Committed, Key, Record, decode_key, offset_key, offsets_of};
use super::{Answer, Effects, Now, Ticket};
use crate::ids::{PartitionIndex, TopicId};
use crate::machine::keyed::LastValues;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;

/// Offsets that are forgotten at once, for being old.
const EXPIRED_AT_ONCE_MAX: usize = 10_000;
/// Offsets that are looked at in one turn: others wait meanwhile.
const LOOKED_AT_ONCE_MAX: usize = 100_000;
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
    /// Whether the client knows [`ErrorCode::GROUP_ID_NOT_FOUND`], and member epochs (version 9).
    pub knows_member_epochs: bool,
}

/// Who reads offsets, as far as it says so.
#[derive(Clone, Debug)]
pub struct ReaderOf {
    /// The member's id.
    pub member_id: Option<Text>,
    /// Its epoch; negative for one that is no member.
    pub epoch: i32,
}

/// Where forgetting old offsets goes on: after this key. Each call looks at a bounded number of offsets.
pub type After = Option<Bytes>;

impl Coordinator {
    /// An OffsetCommit: all offsets, or none.
    pub fn commit(&mut self, now: Now, id: &Text, commit: Commit, out: &mut Effects) {
        let Commit { ticket, member, offsets, knows_member_epochs } = commit;
        let partitions = offsets.iter().filter_map(|(_, partition, committed)| Some((committed.topic?, partition.0)));
        let checked = self.with(id, |group, _| match group {
            Group::Classic(group) => group.check_commit(now, &member),
            Group::Consumer(group) => group.check_commit(&member, knows_member_epochs, partitions),
        });
        let checked = match checked {
            Some(checked) => checked,
            None if member.generation < 0 && offsets.is_empty() => Ok(()),
            None if member.generation < 0 => {
                self.put(id, Group::Classic(classic::Group::new(id.clone(), now)));
                Ok(())
            }
            None if knows_member_epochs => Err(ErrorCode::GROUP_ID_NOT_FOUND),
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
    ///
    /// # Errors
    /// Why the member may not read it.
    pub fn fetch(
        &self,
        id: &Text,
        reader: &ReaderOf,
        wanted: Option<&[(Text, Vec<i32>)]>,
        values: &LastValues,
    ) -> Result<Vec<(Text, PartitionIndex, Option<Committed>)>, ErrorCode> {
        if let Some(Group::Consumer(group)) = self.groups.get(id) {
            group.check_fetch(reader.member_id.as_ref(), reader.epoch)?;
        }
        // One that cannot be read was never committed by a version that this one knows.
        let read = |value: &[u8]| Committed::decode(value).ok();
        let Some(wanted) = wanted else {
            let prefix = offsets_of(id);
            let all = values.with_prefix(&prefix).filter_map(|(key, value)| match decode_key(key) {
                Ok(Key::Offset(key)) => Some((key.topic, PartitionIndex(key.partition), read(value))),
                _ => None,
            });
            return Ok(all.collect());
        };
        let each = wanted.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |partition| (topic.clone(), PartitionIndex(*partition)))
        });
        let found = each.map(|(topic, partition)| {
            let value = values.get(&offset_key(id, &topic, partition)).and_then(read);
            (topic, partition, value)
        });
        Ok(found.collect())
    }

    /// Forgets what nobody wants any more: offsets of topics that are gone; those of groups without members, when they are old; those of topics
    /// that a group does not read any more, when they are old; and groups of which nothing is left. `topic_id` says which topic has a
    /// name now. Goes through the offsets behind `after`; where the next call has to go on, if that was not all.
    pub fn expire_offsets(
        &mut self,
        now: Now,
        after: &After,
        values: &LastValues,
        topic_id: impl Fn(&str) -> Option<TopicId>,
        out: &mut Effects,
    ) -> After {
        let mut subscribed: BTreeMap<Text, Option<BTreeSet<Text>>> = BTreeMap::new();
        let forgotten_before = out.records.len();
        let mut looked_at = 0;
        for (key, value) in values.behind(after.as_deref()) {
            // Offsets come first, by their keys.
            let Ok(Key::Offset(offset)) = decode_key(key) else { break };
            looked_at += 1;
            let Ok(committed) = Committed::decode(value) else { continue };
            let Some(group) = self.groups.get(&offset.group) else { continue };
            let topic = topic_id(&offset.topic);
            let is_gone = topic.is_none() || committed.topic.is_some_and(|id| Some(id) != topic);
            let mut is_read = |group: &Group| match group {
                Group::Consumer(group) => group.is_subscribed(&offset.topic),
                Group::Classic(group) => {
                    let topics = subscribed.entry(offset.group.detached()).or_insert_with(|| group.subscribed());
                    topics.as_ref().is_none_or(|topics| topics.contains(&offset.topic))
                }
            };
            if is_gone || self.is_old(now, group, &committed, &mut is_read) {
                out.records.push(Record { key: Bytes::copy_from_slice(key), value: None });
            }
            let forgotten = out.records.len() - forgotten_before;
            if forgotten >= EXPIRED_AT_ONCE_MAX || looked_at >= LOOKED_AT_ONCE_MAX {
                return Some(Bytes::copy_from_slice(key));
            }
        }
        // Offsets that are forgotten in this very call are seen to be gone the next time.
        self.forget_groups_without_offsets(now, values, out);
        None
    }

    fn forget_groups_without_offsets(&mut self, now: Now, values: &LastValues, out: &mut Effects) {
        let is_over = |(id, group): &(&Text, &Group)| {
            let has_been_long = now.wall.0.saturating_sub(group.since().0) >= self.limits.offsets_kept_ms;
            let has_offsets = || values.with_prefix(&offsets_of(id)).next().is_some();
            group.is_empty() && (has_been_long || group.is_simple()) && !has_offsets()
        };
        let over: Vec<Text> = self.groups.iter().filter(is_over).map(|(id, _)| id.clone()).collect();
        for id in over {
            self.forget(&id, values, out);
        }
    }

    /// Whether an offset has been kept for long enough.
    fn is_old(&self, now: Now, group: &Group, committed: &Committed, is_read: &mut dyn FnMut(&Group) -> bool) -> bool {
        if let Some(expires) = committed.expires {
            return group.is_empty() && expires <= now.wall;
        }
        // Nothing of this age is old, whatever its group does.
        if now.wall.0.saturating_sub(committed.at.0) < self.limits.offsets_kept_ms {
            return false;
        }
        let is_settled = match group {
            Group::Classic(group) => group.state() == classic::State::Stable,
            Group::Consumer(_) => true,
        };
        let since = if group.is_empty() {
            // Those of a group that never had members count from the commit.
            if group.is_simple() { committed.at } else { committed.at.max(group.since()) }
        } else if is_settled && !is_read(group) {
            committed.at
        } else {
            return false;
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
        let is_read: Box<dyn Fn(&Text) -> bool> = match self.groups.get(id) {
            None => return out.answer(ticket, Answer::Deleted(Err(ErrorCode::GROUP_ID_NOT_FOUND))),
            Some(Group::Classic(group)) => match group.subscribed() {
                None => return out.answer(ticket, Answer::Deleted(Err(ErrorCode::NON_EMPTY_GROUP))),
                Some(topics) => Box::new(move |topic| topics.contains(topic)),
            },
            Some(Group::Consumer(group)) => Box::new(|topic| group.is_subscribed(topic)),
        };
        let mut codes = Vec::with_capacity(topics.len());
        for (topic, partitions) in topics {
            if is_read(topic) {
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
}
