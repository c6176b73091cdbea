//! ConsumerGroupHeartbeat: how members of the consumer protocol come, show themselves and go.

use std::collections::BTreeSet;

use super::super::{Effects, GROUP_BYTES_MAX, Limits, Now, Ticket, Topics};
use super::assignor::Assignor;
use super::member::{AWAY, Member, Timers};
use super::record::{Given, MemberValue, Partitions};
use super::{Group, Refusal, refuse};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::ConsumerGroupHeartbeatResponse;
use crate::protocol::messages::consumer_group_heartbeat::{Assignment, TopicPartitions};
use crate::protocol::value::Text;

/// The epoch of a member that joins.
const JOIN: i32 = 0;
/// The epoch of a member that leaves.
const LEAVE: i32 = -1;

/// How often a member shows itself while it has not come to what it shall have; a millisecond more for each member of its group.
const BUSY_HEARTBEAT_MS: i32 = 500;

/// A heartbeat.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    /// The member's id.
    pub member_id: Text,
    /// Its epoch; 0 joins, -1 leaves, -2 leaves for a while.
    pub epoch: i32,
    /// The id of a static member.
    pub instance_id: Option<Text>,
    /// Where it is.
    pub rack_id: Option<Text>,
    /// How long it may take to give up partitions; -1: as before.
    pub rebalance_timeout_ms: i32,
    /// The topics that it names; none: as before.
    pub topics: Option<Vec<Text>>,
    /// The topics that it describes; none: as before.
    pub regex: Option<Text>,
    /// The same, made ready for use; nothing if it stands for no topics.
    pub compiled: Option<regex::Regex>,
    /// The assignor that it would have; none: as before.
    pub assignor: Option<Text>,
    /// The partitions that it has; none: as before.
    pub owned: Option<Partitions>,
    /// What its client calls itself.
    pub client_id: Text,
    /// Where it is.
    pub client_host: Text,
}

impl Heartbeat {
    /// Whether the request makes sense, whatever group it is for. `must_have_id`: the client makes its own id (version 1).
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, group: &str, must_have_id: bool) -> Result<(), Refusal> {
        let invalid = |message: &str| refuse(ErrorCode::INVALID_REQUEST, message);
        let is_blank = |text: &Option<Text>| text.as_ref().is_some_and(|text| text.trim().is_empty());
        if (must_have_id || self.epoch > JOIN || self.epoch == LEAVE) && self.member_id.trim().is_empty() {
            return invalid("MemberId can't be empty.");
        }
        if group.trim().is_empty() {
            return invalid("GroupId can't be empty.");
        }
        if is_blank(&self.instance_id) {
            return invalid("InstanceId can't be empty.");
        }
        if is_blank(&self.rack_id) {
            return invalid("RackId can't be empty.");
        }
        if self.epoch == JOIN {
            if self.rebalance_timeout_ms == -1 {
                return invalid("RebalanceTimeoutMs must be provided in first request.");
            }
            if self.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return invalid("TopicPartitions must be empty when (re-)joining.");
            }
            if self.topics.is_none() && self.regex.is_none() {
                return invalid(
                    "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
                );
            }
        } else if self.epoch == AWAY && self.instance_id.is_none() {
            return invalid("InstanceId can't be null.");
        } else if self.epoch < AWAY {
            return invalid("MemberEpoch is invalid.");
        }
        match &self.assignor {
            Some(name) if Assignor::by_name(name).is_none() => refuse(
                ErrorCode::UNSUPPORTED_ASSIGNOR,
                format!("ServerAssignor {name} is not supported. Supported assignors: {}.", Assignor::NAMES),
            ),
            _ => Ok(()),
        }
    }

    /// Whether the member leaves, for good or for a while.
    #[must_use]
    pub const fn leaves(&self) -> bool {
        self.epoch == LEAVE || self.epoch == AWAY
    }

    /// Whether the member comes new.
    #[must_use]
    pub const fn joins(&self) -> bool {
        self.epoch == JOIN
    }

    /// Whether it says everything, and wants to be told everything.
    const fn is_full(&self) -> bool {
        let subscribes = self.topics.is_some() || self.regex.is_some();
        self.joins() || (self.rebalance_timeout_ms != -1 && subscribes && self.owned.is_some())
    }

    /// What the member says of itself from now on.
    fn says(&self, before: &MemberValue) -> MemberValue {
        let or = |new: &Option<Text>, old: &Option<Text>| new.clone().or_else(|| old.clone());
        MemberValue {
            instance_id: or(&self.instance_id, &before.instance_id),
            rack_id: or(&self.rack_id, &before.rack_id),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            topics: self.topics.as_ref().map_or_else(|| before.topics.clone(), |topics| sorted(topics)),
            regex: or(&self.regex, &before.regex),
            rebalance_timeout_ms: match self.rebalance_timeout_ms {
                -1 => before.rebalance_timeout_ms,
                ms => ms,
            },
            assignor: or(&self.assignor, &before.assignor),
            classic: None,
        }
    }
}

/// Each name once, in order.
pub(super) fn sorted(names: &[Text]) -> Vec<Text> {
    let names: BTreeSet<&Text> = names.iter().collect();
    names.into_iter().cloned().collect()
}

/// Bytes of what a member says of itself, roughly.
fn bytes_of(says: &MemberValue) -> usize {
    let some = |text: &Option<Text>| text.as_ref().map_or(0, |text| text.len());
    let classic = says.classic.iter().flat_map(|classic| &classic.protocols);
    let names = says.topics.iter().map(|topic| topic.len() + 2).sum::<usize>();
    let fields = [&says.instance_id, &says.rack_id, &says.regex].map(some).iter().sum::<usize>();
    names
        + fields
        + says.client_id.len()
        + says.client_host.len()
        + classic.map(|protocol| protocol.name.len() + protocol.metadata.len()).sum::<usize>()
}

impl Group {
    /// A member leaves.
    ///
    /// # Errors
    /// When it is none.
    pub fn leave(
        &mut self,
        now: Now,
        beat: &Heartbeat,
        topics: &dyn Topics,
        out: &mut Effects,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let id = beat.member_id.clone();
        self.known(&id, beat.instance_id.as_ref())?;
        if beat.epoch == AWAY {
            let member = &self.members[&id];
            let (state, revoking) = (super::member::State::Stable, Given::new());
            let standing = super::Standing { epoch: AWAY, state, revoking, ..member.standing.clone() };
            self.stand(&id, standing);
            out.records.push(self.current_record(&id));
            self.set_timers(&id, |timers| *timers = Timers { session: timers.session, ..Timers::default() });
        } else {
            self.remove(now, &BTreeSet::from([id.clone()]), topics, out);
        }
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(id),
            member_epoch: beat.epoch,
            ..ConsumerGroupHeartbeatResponse::default()
        })
    }

    /// Whether a heartbeat that does not leave is right. Nothing is changed yet.
    ///
    /// # Errors
    /// Why not.
    pub fn check_heartbeat(&self, beat: &Heartbeat, limits: &Limits) -> Result<(), Refusal> {
        let known = self.members.get(&beat.member_id);
        let owner = beat.instance_id.as_ref().and_then(|instance| self.instances.get(instance));
        if known.is_none() && self.members.len() >= limits.members_max {
            return self.full(limits);
        }
        match owner.filter(|owner| **owner != beat.member_id) {
            Some(owner) if beat.joins() => {
                let owner_of = &self.members[owner];
                let is_free = owner_of.is_classic() || owner_of.standing.epoch == AWAY;
                // One that is a member already is not another instance besides.
                if !is_free || known.is_some() {
                    return refuse(
                        ErrorCode::UNRELEASED_INSTANCE_ID,
                        format!(
                            "Static member {} with instance id {} cannot join the group because the instance id is owned by {owner} member.",
                            beat.member_id,
                            beat.instance_id.as_deref().unwrap_or_default()
                        ),
                    );
                }
            }
            // Whoever comes has nothing, and may have been a member before: away, fenced, or never told that it is one.
            _ if beat.joins() => {}
            _ => check_epoch(self.known(&beat.member_id, beat.instance_id.as_ref())?, beat)?,
        }
        let nothing = MemberValue::default();
        let says = beat.says(known.map_or(&nothing, |member| &member.says));
        if beat.regex.as_ref().is_some_and(|regex| !regex.is_empty() && !self.has_room_for_regex(regex)) {
            return refuse(
                ErrorCode::INVALID_REGULAR_EXPRESSION,
                format!("Group {} has as many different regular expressions as are allowed.", self.id),
            );
        }
        self.check_bytes(&beat.member_id, &says)
    }

    /// Whether the group still fits with what a member says of itself.
    pub(super) fn check_bytes(&self, id: &Text, says: &MemberValue) -> Result<(), Refusal> {
        if self.members.get(id).is_some_and(|member| member.says == *says) {
            return Ok(());
        }
        let others = self.members.iter().filter(|(other, _)| *other != id);
        let bytes = others.map(|(id, member)| id.len() + bytes_of(&member.says)).sum::<usize>();
        if bytes + id.len() + bytes_of(says) > GROUP_BYTES_MAX {
            let message = format!("Group {} would take more than {GROUP_BYTES_MAX} bytes.", self.id);
            return refuse(ErrorCode::GROUP_MAX_SIZE_REACHED, message);
        }
        Ok(())
    }

    pub(super) fn full(&self, limits: &Limits) -> Result<(), Refusal> {
        let message = format!("The consumer group has reached its maximum capacity of {} members.", limits.members_max);
        refuse(ErrorCode::GROUP_MAX_SIZE_REACHED, message)
    }

    /// A member shows itself: [`Group::check_heartbeat`] has said that it may. What it is told.
    pub fn heartbeat(
        &mut self,
        now: Now,
        limits: &Limits,
        beat: &Heartbeat,
        topics: &dyn Topics,
        out: &mut Effects,
    ) -> ConsumerGroupHeartbeatResponse {
        let id = beat.member_id.clone();
        let is_new = self.come(&id, beat.instance_id.as_ref(), out);
        let says = beat.says(&self.members[&id].says);
        let expression = beat.compiled.as_ref();
        let reads_others = self.describe_member(now, &id, says, expression, is_new, topics, out);
        self.look_at_topics(now, reads_others, topics, out);
        self.retarget_if_due(now, topics, out);
        let has_others = self.reconcile(now, &id, reads_others, beat.owned.as_ref(), topics, out);
        let session = Some(now.moment.after(limits.consumer_session_ms));
        self.set_timers(&id, |timers| *timers = Timers { session, revoke: timers.revoke, ..Timers::default() });
        let standing = &self.members[&id].standing;
        let assignment = (beat.is_full() || has_others).then(|| assignment(&standing.given));
        ConsumerGroupHeartbeatResponse {
            member_epoch: standing.epoch,
            member_id: Some(id),
            heartbeat_interval_ms: self.heartbeat_ms(standing, limits),
            assignment,
            ..ConsumerGroupHeartbeatResponse::default()
        }
    }

    /// When a member shall show itself again: soon, while there is something that it waits for or has to do.
    fn heartbeat_ms(&self, standing: &super::Standing, limits: &Limits) -> i32 {
        if standing.is_reconciled_to(self.epoch) {
            return limits.consumer_heartbeat_ms;
        }
        let members = i32::try_from(self.members.len()).unwrap_or(i32::MAX);
        limits.consumer_heartbeat_ms.min(BUSY_HEARTBEAT_MS.saturating_add(members))
    }

    /// A member is there from now on: one that was known, one that takes a static member's place, or a new one. Whether it is new.
    pub(super) fn come(&mut self, id: &Text, instance_id: Option<&Text>, out: &mut Effects) -> bool {
        if let Some(member) = self.members.get_mut(id) {
            if member.standing.epoch == AWAY {
                (member.standing.epoch, member.standing.previous_epoch) = (0, 0);
            }
            return false;
        }
        let before = instance_id.and_then(|instance| self.instances.get(instance)).cloned();
        let Some(before) = before else {
            self.members.insert(id.clone(), Member::new(MemberValue::default()));
            return true;
        };
        self.set_timers(&before, |timers| *timers = Timers::default());
        let mut member = self.members.remove(&before).expect("an instance id leads to a member");
        self.forget_records(&before, out);
        (member.standing.epoch, member.standing.previous_epoch) = (0, 0);
        // It has them from now on: what an earlier bearer of its id had before is none of its own.
        member.standing.has_since(self.target_epoch);
        for partition in member.standing.held() {
            self.owners.insert(partition, id.clone());
        }
        if let Some(target) = self.targets.remove(&before) {
            self.targets.insert(id.clone(), target);
        }
        self.instances.extend(instance_id.map(|instance| (instance.clone(), id.clone())));
        self.members.insert(id.clone(), member);
        out.records.extend([self.member_record(id), self.target_record(id), self.current_record(id)]);
        false
    }

    /// Takes over what a member says of itself. Whether it reads other topics than before.
    #[allow(clippy::too_many_arguments, reason = "one place where all of it comes together")]
    pub(super) fn describe_member(
        &mut self,
        now: Now,
        id: &Text,
        says: MemberValue,
        expression: Option<&regex::Regex>,
        is_new: bool,
        topics: &dyn Topics,
        out: &mut Effects,
    ) -> bool {
        let before = &self.members[id].says;
        if *before == says && !is_new {
            return false;
        }
        let before = before.clone();
        let is_regex = |regex: &Option<Text>| regex.clone().filter(|regex| !regex.is_empty());
        let reads_others = before.topics != says.topics || is_regex(&before.regex) != is_regex(&says.regex);
        if before.instance_id != says.instance_id {
            self.forget_instance(before.instance_id.as_ref(), id);
            self.instances.extend(says.instance_id.clone().map(|instance| (instance, id.clone())));
        }
        // The new one first: an expression that stays is not forgotten in between.
        if reads_others {
            self.note_subscription(now, &says, expression, topics, out);
            self.forget_subscription(&before, out);
        }
        self.members.get_mut(id).expect("it is one of them").says = says;
        out.records.push(self.member_record(id));
        reads_others
    }

    /// An instance id is nobody's any more, unless another member has it by now.
    pub(super) fn forget_instance(&mut self, instance_id: Option<&Text>, owner: &Text) {
        if let Some(instance) = instance_id
            && self.instances.get(instance) == Some(owner)
        {
            self.instances.remove(instance);
        }
    }
}

/// Whether a member's epoch is the one it was told, or the one before, when the answer was lost.
fn check_epoch(member: &Member, beat: &Heartbeat) -> Result<(), Refusal> {
    let (told, standing) = (beat.epoch, &member.standing);
    let rejoin = "The member must abandon all its partitions and rejoin.";
    if told > standing.epoch {
        return refuse(
            ErrorCode::FENCED_MEMBER_EPOCH,
            format!(
                "The consumer group member has a greater member epoch ({told}) than the one known by the group coordinator ({}). {rejoin}",
                standing.epoch
            ),
        );
    }
    let was_told_before =
        || told == standing.previous_epoch && beat.owned.as_ref().is_some_and(|owned| standing.has_all(owned));
    if told < standing.epoch && !was_told_before() {
        return refuse(
            ErrorCode::FENCED_MEMBER_EPOCH,
            format!(
                "The consumer group member has a smaller member epoch ({told}) than the one known by the group coordinator ({}). {rejoin}",
                standing.epoch
            ),
        );
    }
    Ok(())
}

/// As a member is told what it has.
fn assignment(given: &Given) -> Assignment {
    let of = |(topic, partitions): (&crate::ids::TopicId, &std::collections::BTreeMap<i32, i32>)| TopicPartitions {
        topic_id: *topic,
        partitions: partitions.keys().copied().collect(),
    };
    Assignment { topic_partitions: given.iter().map(of).collect() }
}

/// A heartbeat's request to the coordinator.
#[derive(Clone, Debug)]
pub struct Beat {
    /// Who waits for the answer.
    pub ticket: Ticket,
    /// What the member says.
    pub heartbeat: Heartbeat,
    /// Whether the client makes its member's id itself (version 1).
    pub must_have_id: bool,
    /// An id that no member ever had, for a member without one.
    pub new_id: Text,
}
