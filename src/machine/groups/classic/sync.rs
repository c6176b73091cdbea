//! How the members of a generation get their shares.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::member::Waiting;
use super::super::record::Phase;
use super::super::{Effects, GROUP_BYTES_MAX, Now, Ticket};
use super::{Group, MemberOf, State, refuse_waiting};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::SyncGroupResponse;
use crate::protocol::value::Text;

/// A SyncGroup.
#[derive(Clone, Debug)]
pub struct Sync {
    /// Who waits for the answer.
    pub ticket: Ticket,
    /// Who asks.
    pub member: MemberOf,
    /// What kind of group it takes this for.
    pub protocol_type: Option<Text>,
    /// The protocol that it takes for chosen.
    pub protocol_name: Option<Text>,
    /// Each member's share, from the leader.
    pub assignments: Vec<(Text, Bytes)>,
}

pub(super) fn sync_refused(error_code: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse { error_code, ..Default::default() }
}

impl Group {
    /// Hands in, or asks for, the shares of this generation.
    pub fn sync(&mut self, now: Now, sync: Sync, out: &mut Effects) {
        let Sync { ticket, member, protocol_type, protocol_name, assignments } = sync;
        let differs = |told: &Option<Text>, ours: &Option<Text>| told.is_some() && told != ours;
        let checked = self.check_generation(&member).and_then(|()| {
            let inconsistent = differs(&protocol_type, &self.protocol_type) || differs(&protocol_name, &self.protocol);
            if inconsistent { Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL) } else { Ok(()) }
        });
        let share_bytes: usize = assignments.iter().map(|(_, share)| share.len()).sum();
        // As Kafka answers for a record that its topic does not take.
        let too_large = || if share_bytes > GROUP_BYTES_MAX { Err(ErrorCode::UNKNOWN_SERVER_ERROR) } else { Ok(()) };
        if let Err(code) = checked.and_then(|()| too_large()) {
            return out.answer(ticket, sync_refused(code));
        }
        let id = member.member_id;
        match self.state {
            State::Empty => out.answer(ticket, sync_refused(ErrorCode::UNKNOWN_MEMBER_ID)),
            State::Preparing => out.answer(ticket, sync_refused(ErrorCode::REBALANCE_IN_PROGRESS)),
            State::Completing => {
                self.has_synced(&id);
                let waiting = &mut self.members.get_mut(&id).expect("it was checked").waiting;
                let before = waiting.replace(Waiting::Sync(ticket));
                refuse_waiting(before, &id, ErrorCode::REBALANCE_IN_PROGRESS, out);
                self.expire_at(&id, None);
                if self.leader.as_ref() == Some(&id) {
                    self.hand_out(now, assignments, out);
                }
            }
            State::Stable => {
                self.has_synced(&id);
                self.is_alive(&id, now);
                out.answer(ticket, self.share_of(&id));
            }
        }
    }

    /// The leader has said who gets what: everybody who waits is told.
    fn hand_out(&mut self, now: Now, assignments: Vec<(Text, Bytes)>, out: &mut Effects) {
        let mut shares: BTreeMap<Text, Bytes> = assignments.into_iter().collect();
        for member in self.members.values_mut() {
            member.assignment = shares.remove(&member.id).unwrap_or_default();
        }
        self.state = State::Stable;
        self.since = now.wall;
        out.records.push(self.record(Phase::Stable));
        let waiting: Vec<(Text, Ticket)> = self.waiting_for_shares().collect();
        for (id, ticket) in waiting {
            self.members.get_mut(&id).expect("it waits").waiting = None;
            self.is_alive(&id, now);
            out.answer(ticket, self.share_of(&id));
        }
    }

    pub(super) fn waiting_for_shares(&self) -> impl Iterator<Item = (Text, Ticket)> {
        self.members.values().filter_map(|member| match member.waiting {
            Some(Waiting::Sync(ticket)) => Some((member.id.clone(), ticket)),
            _ => None,
        })
    }

    fn share_of(&self, id: &Text) -> SyncGroupResponse {
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment: self.members[id].assignment.clone(),
            ..Default::default()
        }
    }

    fn has_synced(&mut self, id: &Text) {
        self.members.get_mut(id).expect("it was checked").synced = true;
        if self.members.values().all(|member| member.synced) {
            self.sync_by = None;
        }
    }
}
