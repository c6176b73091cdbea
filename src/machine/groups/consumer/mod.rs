//! One group of the consumer protocol (KIP-848): members say what they read and what they have, the coordinator says what each shall have.
//!
//! The group's *epoch* grows with each change of its members, of what they read, or of those topics. For each epoch a *target* is computed
//! ([`assignor`]), to which members come one by one, each at its own pace (`member`). Members of the classic protocol may be among them while a
//! group migrates (`classic`, `migrate`). As Kafka's, but for what `docs/compatibility.md` names.

pub mod assignor;
pub mod heartbeat;
pub mod record;

mod classic;
mod describe;
mod member;
mod migrate;
mod subscription;

#[cfg(test)]
mod consumer_tests;
#[cfg(test)]
mod test_kit;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::classic::MemberOf;
use super::record::{Part, Record};
use super::{Effects, Moment, Now};
use crate::ids::{Timestamp, TopicId};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::primitive::DecodeError;
use crate::protocol::value::Text;

pub use heartbeat::Heartbeat;
use member::{Member, Standing, Timers};
pub(super) use migrate::NoMigration;
use record::{
    CurrentValue, EpochValue, MemberValue, Partitions, RegexValue, TargetEpochValue, TargetValue, decode,
    partitions_of, partitions_value, record, tombstone,
};
use subscription::Seen;
pub use subscription::compile;

/// Where a group is on the way to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has no members.
    Empty,
    /// The target is of an older epoch.
    Assigning,
    /// Members have not come to it yet.
    Reconciling,
    /// Everybody has what it shall have.
    Stable,
}

impl State {
    /// The name that clients know.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// Why a request is refused: what the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error.
    pub code: ErrorCode,
    /// The error in words.
    pub message: String,
}

/// A refusal, in short.
pub(super) fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Group {
    id: Text,
    epoch: i32,
    /// A digest of the topics that members read.
    digest: i64,
    since: Timestamp,
    target_epoch: i32,
    targets: BTreeMap<Text, Partitions>,
    members: BTreeMap<Text, Member>,
    /// Static members by their instance ids.
    instances: BTreeMap<Text, Text>,
    /// Who has each partition, or has still to give it up.
    owners: BTreeMap<(TopicId, i32), Text>,
    /// The topics that members name, and how many do.
    named: BTreeMap<Text, usize>,
    /// The regular expressions of members, how many have each, and the topics that it stands for.
    regexes: BTreeMap<Text, (usize, BTreeSet<Text>)>,
    /// The state of the cluster's topics that the digest and the expressions were last compared with.
    seen: Option<Seen>,
    /// When members must have done something.
    deadlines: BTreeSet<(Moment, Text)>,
    /// Before this, no new target is computed: it takes time, and others wait meanwhile.
    retarget_from: Moment,
    /// A target that is due then.
    retarget_at: Option<Moment>,
}

impl Group {
    /// A group without members.
    #[must_use]
    pub fn new(id: Text, now: Now) -> Self {
        Self {
            id,
            // As Kafka's: there is a target from the beginning, and the first member begins the second epoch.
            epoch: 1,
            digest: 0,
            since: now.wall,
            target_epoch: 1,
            targets: BTreeMap::new(),
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            owners: BTreeMap::new(),
            named: BTreeMap::new(),
            regexes: BTreeMap::new(),
            seen: None,
            deadlines: BTreeSet::new(),
            retarget_from: Moment::default(),
            retarget_at: None,
        }
    }

    /// Takes over a part of a group that was stored. Parts come in any order, the group's epoch among them.
    ///
    /// # Errors
    /// When the part cannot be read.
    pub fn stored_part(&mut self, part: Part, value: &[u8]) -> Result<(), DecodeError> {
        match part {
            Part::Epoch => {
                let value: EpochValue = decode(value)?;
                (self.epoch, self.digest) = (value.epoch, value.metadata_hash);
                self.since = Timestamp(value.since);
            }
            Part::TargetEpoch => self.target_epoch = decode::<TargetEpochValue>(value)?.epoch,
            Part::Member(id) => self.member_stored(id).says = decode(value)?,
            Part::Current(id) => self.member_stored(id).standing = Standing::stored(decode::<CurrentValue>(value)?),
            Part::Target(id) => {
                self.targets.insert(id.detached(), partitions_of(decode::<TargetValue>(value)?.partitions));
            }
            Part::Regex(regex) => {
                let topics = decode::<RegexValue>(value)?.topics.iter().map(Text::detached).collect();
                self.regexes.insert(regex.detached(), (0, topics));
            }
        }
        Ok(())
    }

    fn member_stored(&mut self, id: Text) -> &mut Member {
        self.members.entry(id.detached()).or_insert_with(|| Member::new(MemberValue::default()))
    }

    /// All parts have been taken over: all members get their whole time again.
    pub fn all_stored(&mut self, now: Now, session_ms: u64) {
        self.own_what_is_stored();
        let epochs = self.members.values().map(|member| member.standing.epoch);
        self.epoch = epochs.fold(self.epoch.max(self.target_epoch), i32::max);
        for (id, member) in &mut self.members {
            self.instances.extend(member.says.instance_id.clone().map(|instance| (instance, id.clone())));
            for topic in &member.says.topics {
                *self.named.entry(topic.clone()).or_default() += 1;
            }
            if let Some(regex) = member.regex() {
                self.regexes.entry(regex.clone()).or_default().0 += 1;
            }
            let session_ms = match &member.says.classic {
                Some(classic) => u64::try_from(classic.session_timeout_ms).unwrap_or(0),
                None => session_ms,
            };
            let revokes = member.standing.state == member::State::Revoking && !member.is_classic();
            member.timers = Timers {
                session: Some(now.moment.after(session_ms)),
                revoke: revokes.then(|| now.moment.after(member.rebalance_timeout_ms())),
                ..Timers::default()
            };
            self.deadlines.extend(member.timers.first().map(|at| (at, id.clone())));
        }
    }

    /// One partition has one owner, whatever is stored: what members may use comes before what they have to give up.
    fn own_what_is_stored(&mut self) {
        for gives_up in [false, true] {
            for (id, member) in &mut self.members {
                let standing = &mut member.standing;
                let held = if gives_up { &mut standing.revoking } else { &mut standing.given };
                for (topic, partitions) in &mut *held {
                    partitions.retain(|partition, _| match self.owners.entry((*topic, *partition)) {
                        Entry::Vacant(free) => {
                            free.insert(id.clone());
                            true
                        }
                        Entry::Occupied(_) => false,
                    });
                }
                held.retain(|_, partitions| !partitions.is_empty());
            }
        }
    }

    /// Where it is on the way to its target.
    #[must_use]
    pub fn state(&self) -> State {
        let is_there = |member: &Member| member.standing.is_reconciled_to(self.target_epoch);
        if self.members.is_empty() {
            State::Empty
        } else if self.epoch > self.target_epoch {
            State::Assigning
        } else if self.members.values().all(is_there) {
            State::Stable
        } else {
            State::Reconciling
        }
    }

    /// How many members it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Since when its epoch is what it is.
    #[must_use]
    pub const fn since(&self) -> Timestamp {
        self.since
    }

    /// Whether it has members, and all are of the classic protocol.
    #[must_use]
    pub fn is_all_classic(&self) -> bool {
        !self.members.is_empty() && self.members.values().all(Member::is_classic)
    }

    /// When [`Group::expire`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        [self.deadlines.first().map(|(at, _)| *at), self.retarget_at].into_iter().flatten().min()
    }

    /// Does what is due: members that were silent, or held partitions for too long, are out.
    pub fn expire(&mut self, now: Now, topics: &dyn super::Topics, out: &mut Effects) {
        let due = |(at, id): &(Moment, Text)| (*at <= now.moment).then(|| id.clone());
        let late: BTreeSet<Text> = self.deadlines.iter().map_while(due).collect();
        self.remove(now, &late, topics, out);
        if self.retarget_at.is_some_and(|at| at <= now.moment) {
            self.retarget(now, topics, out);
        }
    }

    /// Takes members out.
    fn remove(&mut self, now: Now, ids: &BTreeSet<Text>, topics: &dyn super::Topics, out: &mut Effects) {
        for id in ids {
            let Some(member) = self.members.remove(id) else { continue };
            if let Some(at) = member.timers.first() {
                self.deadlines.remove(&(at, id.clone()));
            }
            member.standing.held().for_each(|partition| drop(self.owners.remove(&partition)));
            self.forget_instance(member.says.instance_id.as_ref(), id);
            self.forget_subscription(&member.says, out);
            self.targets.remove(id);
            self.forget_records(id, out);
        }
        if !ids.is_empty() {
            self.digest = self.digest_of(topics);
            self.next_epoch(now, out);
        }
    }

    fn forget_records(&self, id: &Text, out: &mut Effects) {
        let parts = [Part::Current(id.clone()), Part::Target(id.clone()), Part::Member(id.clone())];
        out.records.extend(parts.iter().map(|part| tombstone(&self.id, part)));
    }

    fn next_epoch(&mut self, now: Now, out: &mut Effects) {
        // Whoever changes a group two thousand million times is left with the last target.
        self.epoch = self.epoch.saturating_add(1);
        self.since = now.wall;
        out.records.push(self.epoch_record());
    }

    fn epoch_record(&self) -> Record {
        let value = EpochValue { epoch: self.epoch, metadata_hash: self.digest, since: self.since.0 };
        record(&self.id, &Part::Epoch, &value)
    }

    fn target_record(&self, id: &Text) -> Record {
        let partitions = self.targets.get(id).map(partitions_value).unwrap_or_default();
        record(&self.id, &Part::Target(id.clone()), &TargetValue { partitions })
    }

    fn member_record(&self, id: &Text) -> Record {
        record(&self.id, &Part::Member(id.clone()), &self.members[id].says)
    }

    fn current_record(&self, id: &Text) -> Record {
        record(&self.id, &Part::Current(id.clone()), &self.members[id].standing.value())
    }

    /// Changes until when a member must have done something.
    fn set_timers(&mut self, id: &Text, change: impl FnOnce(&mut Timers)) {
        let Some(member) = self.members.get_mut(id) else { return };
        let before = member.timers.first();
        change(&mut member.timers);
        let after = member.timers.first();
        if before != after {
            if let Some(before) = before {
                self.deadlines.remove(&(before, id.clone()));
            }
            self.deadlines.extend(after.map(|at| (at, id.clone())));
        }
    }

    /// A member has come a step further.
    fn stand(&mut self, id: &Text, standing: Standing) {
        let member = self.members.get_mut(id).expect("it is one of them");
        let before = std::mem::replace(&mut member.standing, standing);
        for partition in before.held() {
            self.owners.remove(&partition);
        }
        for partition in member.standing.held() {
            let other = self.owners.insert(partition, id.clone());
            assert!(other.is_none(), "dual-owner: {partition:?} of {} is held by {other:?} and {id}", self.id);
        }
    }

    /// Records that forget the whole group.
    pub fn forget_all(&self, out: &mut Effects) {
        self.members.keys().for_each(|id| self.forget_records(id, out));
        let regexes = self.regexes.keys().map(|regex| Part::Regex(regex.clone()));
        let parts = regexes.chain([Part::TargetEpoch, Part::Epoch]);
        out.records.extend(parts.map(|part| tombstone(&self.id, &part)));
    }

    /// Records that store the whole group.
    fn remember_all(&self, now: Now, out: &mut Effects) {
        out.records.push(self.epoch_record());
        let target = TargetEpochValue { epoch: self.target_epoch, at: now.wall.0 };
        out.records.push(record(&self.id, &Part::TargetEpoch, &target));
        for id in self.members.keys() {
            out.records.extend([self.member_record(id), self.target_record(id), self.current_record(id)]);
        }
    }

    /// All that another leader has to know, for tests.
    #[cfg(test)]
    pub(super) fn durable(&self) -> String {
        let targets = self.targets.iter().filter(|(_, target)| !target.is_empty()).collect::<Vec<_>>();
        let members = self.members.iter().map(|(id, member)| (id, &member.says, &member.standing)).collect::<Vec<_>>();
        let group = (self.epoch, self.digest, self.since, self.target_epoch, targets);
        format!("{:#?}", (group, members, &self.owners, &self.instances, &self.named, &self.regexes))
    }

    /// The member with that id, and, where the request names one, that instance.
    fn known(&self, id: &Text, instance_id: Option<&Text>) -> Result<&Member, Refusal> {
        if let Some(instance) = instance_id {
            match self.instances.get(instance) {
                None => {
                    return refuse(
                        ErrorCode::UNKNOWN_MEMBER_ID,
                        format!("Group {} has no member with instance id {instance}.", self.id),
                    );
                }
                Some(owner) if owner != id => {
                    return refuse(
                        ErrorCode::FENCED_INSTANCE_ID,
                        format!("Instance id {instance} belongs to member {owner} now."),
                    );
                }
                Some(_) => {}
            }
        }
        let unknown = || Refusal {
            code: ErrorCode::UNKNOWN_MEMBER_ID,
            message: format!("Member {id} is not a member of group {}.", self.id),
        };
        self.members.get(id).ok_or_else(unknown)
    }

    /// Whether a member may commit offsets, at the epoch that it names, of each of those partitions.
    ///
    /// # Errors
    /// Why not.
    pub fn check_commit(
        &self,
        of: &MemberOf,
        knows_member_epochs: bool,
        partitions: impl IntoIterator<Item = (TopicId, i32)>,
    ) -> Result<(), ErrorCode> {
        let epoch = of.generation;
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        // One in whose place there is another has to hear that: taking itself for unknown, it would join again, and take its place back.
        let is_replaced = || of.instance_id.as_ref().is_some_and(|instance| self.instances.contains_key(instance));
        let Some(member) = self.members.get(&of.member_id) else {
            let replaced = !of.member_id.is_empty() && is_replaced();
            return Err(if replaced { ErrorCode::FENCED_INSTANCE_ID } else { ErrorCode::UNKNOWN_MEMBER_ID });
        };
        if !member.is_classic() && !knows_member_epochs {
            return Err(ErrorCode::UNSUPPORTED_VERSION);
        }
        let stale = if member.is_classic() { ErrorCode::ILLEGAL_GENERATION } else { ErrorCode::STALE_MEMBER_EPOCH };
        let now = member.standing.epoch;
        // It was its own at that epoch, and has been ever since (KIP-1251).
        let has_had =
            |(topic, partition)| member.standing.epoch_of(topic, partition).is_some_and(|since| since <= epoch);
        let is_right = epoch == now || (epoch < now && partitions.into_iter().all(has_had));
        if is_right { Ok(()) } else { Err(stale) }
    }

    /// Whether a member may read offsets at an epoch. One that says nothing of itself may.
    ///
    /// # Errors
    /// Why not.
    pub fn check_fetch(&self, member_id: Option<&Text>, epoch: i32) -> Result<(), ErrorCode> {
        let Some(id) = member_id else {
            return if epoch < 0 { Ok(()) } else { Err(ErrorCode::UNKNOWN_MEMBER_ID) };
        };
        let member = self.members.get(id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        match member.standing.epoch == epoch {
            true => Ok(()),
            false if member.is_classic() => Err(ErrorCode::ILLEGAL_GENERATION),
            false => Err(ErrorCode::STALE_MEMBER_EPOCH),
        }
    }
}
