//! How a group comes to its next generation.

use super::super::member::{Member, Waiting};
use super::super::record::Phase;
use super::super::{Effects, Limits, Now, Ticket};
use super::sync::sync_refused;
use super::{Group, JoinWait, State};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::JoinGroupResponse;
use crate::protocol::value::Text;

/// A rebalance that nobody has joined waits so long at least before it looks again.
const WAIT_AGAIN_MS: u64 = 1_000;

impl Group {
    /// Does what is due.
    pub fn expire(&mut self, now: Now, limits: &Limits, out: &mut Effects) {
        // What is done may make something else due: members without patience.
        while self.next_deadline().is_some_and(|at| at <= now.moment) {
            self.expire_once(now, limits, out);
        }
    }

    fn expire_once(&mut self, now: Now, limits: &Limits, out: &mut Effects) {
        while let Some((at, id)) = self.expiries.first().cloned().filter(|(at, _)| *at <= now.moment) {
            self.expiries.remove(&(at, id.clone()));
            if !self.pending.remove(&id) {
                self.remove(&id, out);
                self.rebalance(now, limits, out);
            }
            self.complete_if_all_joined(now, out);
        }
        if self.join_wait.is_some_and(|wait| wait.at() <= now.moment) {
            self.waited_for_members(now, limits, out);
        }
        if self.sync_by.is_some_and(|by| by <= now.moment) {
            self.sync_by = None;
            let late: Vec<Text> = self.members.values().filter(|it| !it.synced).map(|it| it.id.clone()).collect();
            for id in &late {
                self.remove(id, out);
            }
            if !late.is_empty() {
                self.rebalance(now, limits, out);
            }
        }
    }

    fn waited_for_members(&mut self, now: Now, limits: &Limits, out: &mut Effects) {
        match self.join_wait {
            Some(JoinWait::Initial { remaining_ms, more: true, .. }) if remaining_ms > 0 => {
                let delay_ms = limits.initial_delay_ms.min(remaining_ms);
                let at = now.moment.after(delay_ms);
                let remaining_ms = remaining_ms.saturating_sub(delay_ms);
                self.join_wait = Some(JoinWait::Initial { at, remaining_ms, more: false });
            }
            _ => self.complete(now, out),
        }
    }

    /// Begins a rebalance, unless one is under way.
    pub(super) fn rebalance(&mut self, now: Now, limits: &Limits, out: &mut Effects) {
        if self.state == State::Preparing {
            return;
        }
        if self.state == State::Completing {
            let waiting: Vec<(Text, Ticket)> = self.waiting_for_shares().collect();
            for (id, ticket) in waiting {
                self.members.get_mut(&id).expect("it waits").waiting = None;
                self.is_alive(&id, now);
                out.answer(ticket, sync_refused(ErrorCode::REBALANCE_IN_PROGRESS));
            }
        }
        self.sync_by = None;
        let timeout_ms = self.rebalance_timeout_ms();
        self.join_wait = Some(if self.state == State::Empty {
            let remaining_ms = timeout_ms.saturating_sub(limits.initial_delay_ms);
            JoinWait::Initial { at: now.moment.after(limits.initial_delay_ms), remaining_ms, more: false }
        } else {
            JoinWait::Members { at: now.moment.after(timeout_ms) }
        });
        self.state = State::Preparing;
        self.since = now.wall;
    }

    pub(super) fn complete_if_all_joined(&mut self, now: Now, out: &mut Effects) {
        let waits = self.state == State::Preparing && matches!(self.join_wait, Some(JoinWait::Members { .. }));
        if waits && self.pending.is_empty() && self.joining() == self.members.len() {
            self.complete(now, out);
        }
    }

    pub(super) fn joining(&self) -> usize {
        self.members.values().filter(|member| member.is_joining()).count()
    }

    /// Ends a rebalance: those who have joined are the next generation. Static members who have not stay for now.
    fn complete(&mut self, now: Now, out: &mut Effects) {
        self.join_wait = None;
        let has_gone = |member: &&Member| !member.is_joining() && member.instance_id.is_none();
        let gone: Vec<Text> = self.members.values().filter(has_gone).map(|it| it.id.clone()).collect();
        for id in gone {
            self.remove(&id, out);
        }
        if !self.members.is_empty() && !self.elect() {
            // Static members who are not back: their sessions end some time.
            let at = now.moment.after(self.rebalance_timeout_ms().max(WAIT_AGAIN_MS));
            self.join_wait = Some(JoinWait::Members { at });
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        self.since = now.wall;
        self.protocol = self.select_protocol();
        if self.members.is_empty() {
            self.state = State::Empty;
            self.leader = None;
            return out.records.push(self.record(Phase::Stable));
        }
        self.state = State::Completing;
        self.sync_by = Some(now.moment.after(self.rebalance_timeout_ms()));
        for member in self.members.values_mut() {
            member.synced = false;
        }
        out.records.push(self.record(Phase::Completing));
        self.tell_all(now, out);
    }

    fn tell_all(&mut self, now: Now, out: &mut Effects) {
        let mut everybody = self.joined_members();
        let ids: Vec<Text> = self.members.keys().cloned().collect();
        for id in ids {
            let member = self.members.get_mut(&id).expect("it is one of them");
            let Some(Waiting::Join(ticket)) = member.waiting else { continue };
            (member.waiting, member.is_new) = (None, false);
            self.is_alive(&id, now);
            let is_leader = self.leader.as_ref() == Some(&id);
            let members = if is_leader { std::mem::take(&mut everybody) } else { Vec::new() };
            out.answer(ticket, JoinGroupResponse { members, ..self.joined(id) });
        }
    }

    /// Whether one of those who have joined leads; the leader there was, if it has.
    fn elect(&mut self) -> bool {
        let has_joined = |id: &Text| self.members.get(id).is_some_and(Member::is_joining);
        if !self.leader.as_ref().is_some_and(has_joined) {
            let first = self.members.values().find(|member| member.is_joining());
            let Some(first) = first else { return false };
            self.leader = Some(first.id.clone());
        }
        true
    }

    /// The protocol that most members like best of those that all of them know.
    pub(super) fn select_protocol(&self) -> Option<Text> {
        let first = self.members.values().next()?;
        let is_known_to_all = |name: &&Text| self.members.values().all(|member| member.knows(name));
        let candidates: Vec<Text> =
            first.protocols.iter().map(|(name, _)| name).filter(is_known_to_all).cloned().collect();
        let votes = |name: &Text| self.members.values().filter(|member| member.vote(&candidates) == Some(name)).count();
        // The first of those with most votes.
        candidates.iter().rev().max_by_key(|name| votes(name)).cloned()
    }
}
