//! How members come into a group, and come back to it.

use bytes::Bytes;

use super::super::member::{Member, Waiting};
use super::super::record::Phase;
use super::super::{Effects, GROUP_BYTES_MAX, Limits, Now, Ticket};
use super::{Group, JoinWait, State, refuse_waiting};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::JoinGroupResponse;
use crate::protocol::messages::join_group::JoinGroupResponseMember;
use crate::protocol::value::Text;

/// How long a member that was never in a generation may wait for its first.
const NEW_MEMBER_JOIN_MS: u64 = 5 * 60_000;

/// A JoinGroup.
#[derive(Clone, Debug)]
pub struct Join {
    /// Who waits for the answer.
    pub ticket: Ticket,
    /// The member's id; empty at first.
    pub member_id: Text,
    /// The id of a static member.
    pub instance_id: Option<Text>,
    /// What its client calls itself.
    pub client_id: Text,
    /// Where it is.
    pub client_host: Text,
    /// For how long it may be silent.
    pub session_timeout_ms: i32,
    /// How long a rebalance waits for it; negative for its session's.
    pub rebalance_timeout_ms: i32,
    /// What kind of group it takes this for.
    pub protocol_type: Text,
    /// The protocols that it knows, the one it likes best first, and what it says for each.
    pub protocols: Vec<(Text, Bytes)>,
    /// An id that no member ever had, for a member without one.
    pub new_id: Text,
    /// The same, if the group turns out to be one of the consumer protocol.
    pub new_consumer_id: Text,
    /// Whether a member without an id is given one and has to join again with it (version 4).
    pub must_know_id: bool,
    /// Whether the leader can be told to keep the shares (KIP-814, version 9).
    pub can_skip_assignment: bool,
}

impl Join {
    pub(in crate::machine::groups) fn refused(&self, error_code: ErrorCode) -> JoinGroupResponse {
        JoinGroupResponse { error_code, member_id: self.member_id.clone(), ..Default::default() }
    }
}

impl Group {
    /// Takes a member in, or notes that it has come back.
    pub fn join(&mut self, now: Now, limits: &Limits, join: Join, out: &mut Effects) {
        if !self.has_room(&join.member_id, limits) || self.bytes_with(&join) > GROUP_BYTES_MAX {
            let refused =
                JoinGroupResponse { member_id: Text::default(), ..join.refused(ErrorCode::GROUP_MAX_SIZE_REACHED) };
            return out.answer(join.ticket, refused);
        }
        if !self.shares_protocol(&join) {
            return out.answer(join.ticket, join.refused(ErrorCode::INCONSISTENT_GROUP_PROTOCOL));
        }
        if join.member_id.is_empty() {
            self.join_new(now, limits, join, out);
        } else {
            self.join_known(now, limits, join, out);
        }
        self.complete_if_all_joined(now, out);
    }

    fn has_room(&self, member_id: &Text, limits: &Limits) -> bool {
        // An id that was given out counts too: somebody may come with it.
        if member_id.is_empty() && self.pending.len() + self.members.len() >= limits.members_max {
            return false;
        }
        match self.state {
            State::Empty => true,
            State::Preparing => {
                self.members.get(member_id).is_some_and(Member::is_joining) || self.joining() < limits.members_max
            }
            State::Completing | State::Stable => {
                self.members.contains_key(member_id) || self.members.len() < limits.members_max
            }
        }
    }

    /// Bytes of what the members say of themselves, with one who joins.
    fn bytes_with(&self, join: &Join) -> usize {
        let of =
            |protocols: &[(Text, Bytes)]| protocols.iter().map(|(name, says)| name.len() + says.len()).sum::<usize>();
        let others = self.members.values().filter(|member| member.id != join.member_id);
        let names = |member: &Member| {
            let instance = member.instance_id.as_ref().map_or(0, |id| id.len());
            member.id.len() + instance + member.client_id.len() + member.client_host.len()
        };
        others.map(|member| of(&member.protocols) + names(member)).sum::<usize>() + of(&join.protocols)
    }

    fn shares_protocol(&self, join: &Join) -> bool {
        if self.members.is_empty() {
            return !join.protocol_type.is_empty() && !join.protocols.is_empty();
        }
        let is_known_to_all = |name: &Text| self.members.values().all(|member| member.knows(name));
        self.protocol_type.as_ref() == Some(&join.protocol_type)
            && join.protocols.iter().any(|(name, _)| is_known_to_all(name))
    }

    fn join_new(&mut self, now: Now, limits: &Limits, join: Join, out: &mut Effects) {
        let known = join.instance_id.as_ref().and_then(|instance| self.instances.get(instance)).cloned();
        match known {
            Some(old) => self.replace_static(now, limits, &old, join, out),
            None if join.must_know_id && join.instance_id.is_none() => {
                let given = join.new_id.clone();
                let session_ms = u64::try_from(join.session_timeout_ms).unwrap_or(0);
                self.pending.insert(given.clone());
                self.expiries.insert((now.moment.after(session_ms), given.clone()));
                let told = JoinGroupResponse { member_id: given, ..join.refused(ErrorCode::MEMBER_ID_REQUIRED) };
                out.answer(join.ticket, told);
            }
            None => {
                let id = join.new_id.clone();
                self.add(now, id, join);
                self.rebalance(now, limits, out);
            }
        }
    }

    fn join_known(&mut self, now: Now, limits: &Limits, join: Join, out: &mut Effects) {
        if self.pending.contains(&join.member_id) && join.instance_id.is_none() {
            self.forget_pending(&join.member_id);
            let id = join.member_id.clone();
            self.add(now, id, join);
            return self.rebalance(now, limits, out);
        }
        if let Err(code) = self.check_member(&join.member_id, join.instance_id.as_ref()) {
            return out.answer(join.ticket, join.refused(code));
        }
        let is_leader = self.leader.as_ref() == Some(&join.member_id);
        let is_same = self.members[&join.member_id].protocols == join.protocols;
        match self.state {
            // The answer of this generation was lost on its way.
            State::Completing if is_same => self.tell_generation(&join, is_leader, out),
            State::Stable if is_same && !is_leader => self.tell_generation(&join, false, out),
            _ => {
                let id = join.member_id.clone();
                self.update(&id, join, out);
                self.rebalance(now, limits, out);
            }
        }
    }

    fn tell_generation(&self, join: &Join, with_members: bool, out: &mut Effects) {
        let members = if with_members { self.joined_members() } else { Vec::new() };
        let told = JoinGroupResponse { members, ..self.joined(join.member_id.clone()) };
        out.answer(join.ticket, told);
    }

    /// What a member is told of this generation.
    pub(super) fn joined(&self, member_id: Text) -> JoinGroupResponse {
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id,
            ..Default::default()
        }
    }

    pub(super) fn joined_members(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.protocol.clone().unwrap_or_default();
        let of = |member: &Member| JoinGroupResponseMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            metadata: member.metadata(&protocol),
        };
        self.members.values().map(of).collect()
    }

    fn add(&mut self, now: Now, id: Text, join: Join) {
        let session_timeout_ms = u64::try_from(join.session_timeout_ms).unwrap_or(0);
        let member = Member {
            id: id.clone(),
            instance_id: join.instance_id.clone(),
            client_id: join.client_id,
            client_host: join.client_host,
            rebalance_timeout_ms: u64::try_from(join.rebalance_timeout_ms).unwrap_or(session_timeout_ms),
            session_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            waiting: Some(Waiting::Join(join.ticket)),
            is_new: true,
            synced: true,
            expires: None,
        };
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.instances.extend(join.instance_id.map(|instance| (instance, id.clone())));
        self.members.insert(id.clone(), member);
        self.expire_at(&id, Some(now.moment.after(NEW_MEMBER_JOIN_MS)));
        if let Some(JoinWait::Initial { more, .. }) = &mut self.join_wait {
            *more = true;
        }
    }

    /// Takes over what a known member says now.
    fn update(&mut self, id: &Text, join: Join, out: &mut Effects) {
        let member = self.members.get_mut(id).expect("it was looked up");
        let session_timeout_ms = u64::try_from(join.session_timeout_ms).unwrap_or(0);
        member.session_timeout_ms = session_timeout_ms;
        member.rebalance_timeout_ms = u64::try_from(join.rebalance_timeout_ms).unwrap_or(session_timeout_ms);
        member.protocols = join.protocols;
        (member.client_id, member.client_host) = (join.client_id, join.client_host);
        let is_new = member.is_new;
        let before = member.waiting.replace(Waiting::Join(join.ticket));
        refuse_waiting(before, id, ErrorCode::REBALANCE_IN_PROGRESS, out);
        if !is_new {
            self.expire_at(id, None);
        }
    }

    /// A static member has come back under a new id. Nobody else has to hear of it if the chosen protocol stays the same.
    fn replace_static(&mut self, now: Now, limits: &Limits, old: &Text, join: Join, out: &mut Effects) {
        let id = join.new_id.clone();
        let leader_before = self.leader.clone().unwrap_or_default();
        let mut member = self.members.remove(old).expect("an instance id leads to a member");
        refuse_waiting(member.waiting.take(), old, ErrorCode::FENCED_INSTANCE_ID, out);
        self.expiries.retain(|(_, expiring)| expiring != old);
        member.id = id.clone();
        member.expires = None;
        self.instances.extend(member.instance_id.clone().map(|instance| (instance, id.clone())));
        self.members.insert(id.clone(), member);
        if self.leader.as_ref() == Some(old) {
            self.leader = Some(id.clone());
        }
        let (ticket, can_skip_assignment) = (join.ticket, join.can_skip_assignment);
        self.update(&id, join, out);
        if self.state != State::Stable || self.select_protocol() != self.protocol {
            return self.rebalance(now, limits, out);
        }
        self.members.get_mut(&id).expect("it was just inserted").waiting = None;
        self.is_alive(&id, now);
        out.records.push(self.record(Phase::Stable));
        let is_leader = self.leader.as_ref() == Some(&id);
        let told = if can_skip_assignment {
            let members = if is_leader { self.joined_members() } else { Vec::new() };
            JoinGroupResponse { members, skip_assignment: is_leader, ..self.joined(id) }
        } else {
            // It must not take itself for the leader: it would hand in new shares, which nobody else would hear of.
            JoinGroupResponse { leader: leader_before, ..self.joined(id) }
        };
        out.answer(ticket, told);
    }
}
