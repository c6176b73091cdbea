//! One group of the classic protocol: who is a member, which generation it is, who waits for what.
//!
//! As Kafka's: a rebalance waits until every known member has joined again, or the slowest one's rebalance timeout has passed; the new
//! generation's leader hands in the shares; everybody is told theirs. Other than Kafka, a generation is committed before its members hear
//! of it, and so is a leave: a coordinator that takes over never gives the same generation to other members (`docs/compatibility.md`).

mod join;
mod rebalance;
mod sync;

pub use join::Join;
pub use sync::Sync;
use sync::sync_refused;

use std::collections::{BTreeMap, BTreeSet};

use super::member::{Member, Waiting};
use super::record::{GroupValue, Phase, Record, group_key};
use super::{Effects, Limits, Moment, Now};
use crate::ids::Timestamp;
use crate::protocol::consumer_protocol::{CONSUMER, Subscription};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::JoinGroupResponse;
use crate::protocol::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use crate::protocol::value::Text;

/// Where a group is between two generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has no members.
    Empty,
    /// Members join the next generation.
    Preparing,
    /// All have joined; the leader hands in the shares.
    Completing,
    /// Everybody has a share.
    Stable,
}

impl State {
    /// The name that clients know.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing => "PreparingRebalance",
            Self::Completing => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// Until when a rebalance waits.
#[derive(Clone, Copy, Debug)]
enum JoinWait {
    /// The first members of an empty group: each that comes makes the others wait a little more.
    Initial { at: Moment, remaining_ms: u64, more: bool },
    /// The members there were.
    Members { at: Moment },
}

impl JoinWait {
    fn at(self) -> Moment {
        match self {
            Self::Initial { at, .. } | Self::Members { at } => at,
        }
    }
}

/// Who a request says it comes from.
#[derive(Clone, Debug, Default)]
pub struct MemberOf {
    /// The member's id.
    pub member_id: Text,
    /// The id of a static member.
    pub instance_id: Option<Text>,
    /// The generation it belongs to; negative for a client that is no member.
    pub generation: i32,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Group {
    id: Text,
    state: State,
    generation: i32,
    protocol_type: Option<Text>,
    protocol: Option<Text>,
    leader: Option<Text>,
    members: BTreeMap<Text, Member>,
    /// Static members by their instance ids.
    instances: BTreeMap<Text, Text>,
    /// Ids that were given out, whose members have not come back with them yet.
    pending: BTreeSet<Text>,
    /// When members, and pending ids, are given up.
    expiries: BTreeSet<(Moment, Text)>,
    join_wait: Option<JoinWait>,
    /// Until when all members must have asked for their shares.
    sync_by: Option<Moment>,
    since: Timestamp,
}

impl Group {
    /// A group without members.
    #[must_use]
    pub fn new(id: Text, now: Now) -> Self {
        Self {
            id,
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeSet::new(),
            expiries: BTreeSet::new(),
            join_wait: None,
            sync_by: None,
            since: now.wall,
        }
    }

    /// A group of consumers that have their shares.
    #[must_use]
    pub(super) fn of_consumers(id: Text, generation: i32, members: Vec<Member>, now: Now) -> Self {
        let mut group = Self::new(id, now);
        (group.generation, group.protocol_type) = (generation, Some(Text::from_static(CONSUMER)));
        group.state = if members.is_empty() { State::Empty } else { State::Stable };
        for member in members {
            group.take_in(member);
        }
        group.leader = group.members.keys().next().cloned();
        group.protocol = group.select_protocol();
        group
    }

    fn take_in(&mut self, member: Member) {
        self.expiries.extend(member.expires.map(|at| (at, member.id.clone())));
        self.instances.extend(member.instance_id.clone().map(|instance| (instance, member.id.clone())));
        self.members.insert(member.id.clone(), member);
    }

    /// Whether there is nobody, and nobody on the way.
    pub(super) fn is_vacant(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// Goes on as a group of its own: with the shares there are, or with a rebalance.
    pub(super) fn begin_again(&mut self, now: Now, limits: &Limits, with_shares: bool, out: &mut Effects) {
        if !with_shares {
            self.rebalance(now, limits, out);
        }
        out.records.push(self.record(if with_shares { Phase::Stable } else { Phase::Preparing }));
    }

    /// Tells whoever waits for an answer to join again.
    pub(super) fn refuse_all(&mut self, out: &mut Effects) {
        for (id, member) in &mut self.members {
            refuse_waiting(member.waiting.take(), id, ErrorCode::REBALANCE_IN_PROGRESS, out);
        }
    }

    /// Its generation.
    pub(super) const fn generation(&self) -> i32 {
        self.generation
    }

    /// The protocol that was chosen.
    pub(super) fn protocol(&self) -> Option<&Text> {
        self.protocol.as_ref()
    }

    /// Its members.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// The group as it was stored. All members get their whole time again.
    #[must_use]
    pub fn stored(id: Text, value: GroupValue, now: Now) -> Self {
        let mut group = Self::new(id, now);
        group.generation = value.generation;
        group.protocol_type = Some(value.protocol_type).filter(|it| !it.is_empty());
        group.since = Timestamp(value.current_state_timestamp);
        if value.members.is_empty() {
            return group;
        }
        (group.protocol, group.leader) = (value.protocol, value.leader);
        for member in value.members {
            group.take_in(Member::stored(member, group.protocol.as_ref(), now.moment));
        }
        let wait = now.moment.after(group.rebalance_timeout_ms());
        match Phase::from_number(value.phase) {
            Phase::Stable => group.state = State::Stable,
            Phase::Completing => {
                group.state = State::Completing;
                group.members.values_mut().for_each(|member| member.synced = false);
                group.sync_by = Some(wait);
            }
            Phase::Preparing => {
                group.state = State::Preparing;
                group.join_wait = Some(JoinWait::Members { at: wait });
            }
        }
        group
    }

    /// Where it is between two generations.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// What kind of group it is; nothing if it never had members.
    #[must_use]
    pub fn protocol_type(&self) -> Option<&Text> {
        self.protocol_type.as_ref()
    }

    /// Since when it has been as it is.
    #[must_use]
    pub const fn since(&self) -> Timestamp {
        self.since
    }

    /// When [`Group::expire`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let first = self.expiries.first().map(|(at, _)| *at);
        [first, self.join_wait.map(JoinWait::at), self.sync_by].into_iter().flatten().min()
    }

    /// Whether a member still belongs to the group. It is alive.
    pub fn heartbeat(&mut self, now: Now, member: &MemberOf) -> ErrorCode {
        if let Err(code) = self.check_generation(member) {
            return code;
        }
        self.is_alive(&member.member_id, now);
        if self.state == State::Preparing { ErrorCode::REBALANCE_IN_PROGRESS } else { ErrorCode::NONE }
    }

    /// Takes a member out: by its id, or a static one by its instance id alone.
    pub fn leave(
        &mut self,
        now: Now,
        limits: &Limits,
        member_id: &Text,
        instance_id: Option<&Text>,
        out: &mut Effects,
    ) -> ErrorCode {
        let id = if member_id.is_empty() {
            let found = instance_id.and_then(|instance| self.instances.get(instance));
            let Some(id) = found else { return ErrorCode::UNKNOWN_MEMBER_ID };
            id.clone()
        } else if self.forget_pending(member_id) {
            self.complete_if_all_joined(now, out);
            return ErrorCode::NONE;
        } else {
            if let Err(code) = self.check_member(member_id, instance_id) {
                return code;
            }
            member_id.clone()
        };
        self.remove(&id, out);
        self.rebalance(now, limits, out);
        self.complete_if_all_joined(now, out);
        ErrorCode::NONE
    }

    /// Stores what is left when members have left: whoever takes over must not wait for them. (The first members of a group were in no
    /// generation yet.)
    pub fn remember_leave(&self, codes: &[ErrorCode], out: &mut Effects) {
        let has_left = codes.iter().any(|code| !code.is_error());
        if has_left && matches!(self.join_wait, Some(JoinWait::Members { .. })) {
            out.records.push(self.record(Phase::Preparing));
        }
    }

    /// Whether a member may commit an offset, or somebody who is none. A member that may is alive.
    ///
    /// # Errors
    /// Why not.
    pub fn check_commit(&mut self, now: Now, member: &MemberOf) -> Result<(), ErrorCode> {
        let is_nobody = member.generation < 0 && member.member_id.is_empty() && member.instance_id.is_none();
        if is_nobody {
            return if self.state == State::Empty { Ok(()) } else { Err(ErrorCode::UNKNOWN_MEMBER_ID) };
        }
        self.check_generation(member)?;
        if self.state == State::Completing {
            return Err(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        self.is_alive(&member.member_id, now);
        Ok(())
    }

    fn rebalance_timeout_ms(&self) -> u64 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    fn check_member(&self, member_id: &Text, instance_id: Option<&Text>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.instances.get(instance_id) {
                None => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
                Some(id) if id != member_id => return Err(ErrorCode::FENCED_INSTANCE_ID),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UNKNOWN_MEMBER_ID) }
    }

    fn check_generation(&self, member: &MemberOf) -> Result<(), ErrorCode> {
        self.check_member(&member.member_id, member.instance_id.as_ref())?;
        if member.generation == self.generation { Ok(()) } else { Err(ErrorCode::ILLEGAL_GENERATION) }
    }

    /// A member has shown itself: its session begins anew. One that waits needs none.
    fn is_alive(&mut self, id: &Text, now: Now) {
        let Some(member) = self.members.get(id) else { return };
        if member.waiting.is_none() {
            let at = now.moment.after(member.session_timeout_ms);
            self.expire_at(id, Some(at));
        }
    }

    fn expire_at(&mut self, id: &Text, at: Option<Moment>) {
        let Some(member) = self.members.get_mut(id) else { return };
        if let Some(before) = std::mem::replace(&mut member.expires, at) {
            self.expiries.remove(&(before, id.clone()));
        }
        self.expiries.extend(at.map(|at| (at, id.clone())));
    }

    fn forget_pending(&mut self, id: &Text) -> bool {
        let was_pending = self.pending.remove(id);
        if was_pending {
            self.expiries.retain(|(_, expiring)| expiring != id);
        }
        was_pending
    }

    fn remove(&mut self, id: &Text, out: &mut Effects) {
        self.expire_at(id, None);
        let Some(member) = self.members.remove(id) else { return };
        refuse_waiting(member.waiting, id, ErrorCode::UNKNOWN_MEMBER_ID, out);
        if let Some(instance) = member.instance_id {
            self.instances.remove(&instance);
        }
        if self.leader.as_ref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// The topics that members of a group of consumers read. `None`: there are members, and nobody knows what they read.
    #[must_use]
    pub fn subscribed(&self) -> Option<BTreeSet<Text>> {
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        let protocol = self.protocol.clone()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(Subscription::decode(member.metadata(&protocol)).ok()?.topics);
        }
        Some(topics)
    }

    /// The record of the group as it is.
    fn record(&self, phase: Phase) -> Record {
        let value = GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.since.0,
            members: self.members.values().map(|member| member.value(self.protocol.as_ref())).collect(),
            phase: 0,
        };
        Record { key: group_key(&self.id), value: Some(value.encode(phase)) }
    }

    /// The group, for people.
    #[must_use]
    pub fn describe(&self) -> DescribedGroup {
        let protocol = self.protocol.clone().filter(|_| self.state == State::Stable);
        let of = |member: &Member| DescribedGroupMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            member_metadata: protocol.as_ref().map(|protocol| member.metadata(protocol)).unwrap_or_default(),
            member_assignment: member.assignment.clone(),
        };
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: Text::from_static(self.state.name()),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: self.members.values().map(of).collect(),
            protocol_data: protocol.clone().unwrap_or_default(),
            ..Default::default()
        }
    }
}

/// Answers a request that is not waited for any more.
fn refuse_waiting(waiting: Option<Waiting>, id: &Text, error_code: ErrorCode, out: &mut Effects) {
    match waiting {
        Some(Waiting::Join(ticket)) => {
            out.answer(ticket, JoinGroupResponse { error_code, member_id: id.clone(), ..Default::default() });
        }
        Some(Waiting::Sync(ticket)) => out.answer(ticket, sync_refused(error_code)),
        None => {}
    }
}
