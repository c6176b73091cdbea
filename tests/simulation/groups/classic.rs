//! A member that speaks the classic protocol: JoinGroup, SyncGroup, Heartbeat, LeaveGroup.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::join_group::{JoinGroupRequestProtocol, JoinGroupResponseMember};
use ottla::protocol::messages::leave_group::MemberIdentity;
use ottla::protocol::messages::sync_group::SyncGroupRequestAssignment;
use ottla::protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use tokio::time::Instant;

use super::cast::Cast;
use super::events::{Joined, Share};
use super::line::{Line, REST};
use super::member::{Identity, Me, Order, Reader, Spec};
use super::{HEARTBEAT, REBALANCE, SESSION, Stage, TOPIC};
use crate::client::Lost;

const VERSION_SYNC: i16 = 5;
const VERSION_HEARTBEAT: i16 = 4;
const VERSION_LEAVE: i16 = 4;
const PROTOCOL: &str = "range";
/// How long a member waits for the others.
const JOIN_PATIENCE: Duration = REBALANCE.saturating_add(SESSION);
/// How often a member that has left commits all the same, and how long it waits before each time.
const GHOST_COMMITS: usize = 8;
const GHOST_REST: Duration = Duration::from_millis(120);

struct Classic {
    stage: Stage,
    spec: Spec,
    me: Me,
    join_version: i16,
    line: Line,
    reader: Reader,
    identity: Identity,
    /// As whom it was last told what it has, and commits: no client does so as of a generation of which it has not been told its share. In a group of
    /// the consumer protocol its share of that may be what it had before, and somebody else in between: the commit would be taken.
    reads_as: Identity,
}

/// What a member does when its generation is over for it.
enum Next {
    /// It joins again.
    Join,
    /// It ends.
    End,
}

/// Lives as a member, until it is told to leave or that another has its place.
pub async fn live(stage: Stage, spec: Spec, me: Me, join_version: i16) {
    let line = Line::new(&stage, &spec.name, spec.group);
    let reader = Reader::new(&stage, &spec.name, spec.group);
    let identity = Identity { instance: spec.instance.clone(), ..Identity::nobody() };
    let reads_as = identity.clone();
    let mut member = Classic { stage, spec, me, join_version, line, reader, identity, reads_as };
    while let Next::Join = member.generation().await {
        member.me.status().owned = None;
        member.gives_all_up();
    }
    member.gives_all_up();
    let mut status = member.me.status();
    (status.gone, status.owned) = (true, None);
}

impl Classic {
    /// From a JoinGroup to the end of the generation.
    async fn generation(&mut self) -> Next {
        let joined = match self.join().await {
            Ok(joined) => joined,
            Err(next) => return next,
        };
        let share = match self.sync(&joined).await {
            Ok(share) => share,
            Err(next) => return next,
        };
        // A thread of its own that commits what it had in the generation before.
        let before = std::mem::replace(&mut self.reads_as, self.identity.clone());
        let _ = self.reader.commit(&mut self.line, &before).await;
        self.reader.own(&share);
        {
            let mut status = self.me.status();
            (status.member, status.generation) = (self.identity.member.clone(), self.identity.generation);
            status.owned = Some(share);
        }
        self.work().await
    }

    /// It has nothing any more. What the coordinator leaves it at a later epoch of the consumer protocol, it has had ever since for that one.
    fn gives_all_up(&self) {
        self.stage.log.lock().abandons(self.spec.group, &self.identity.member);
    }

    async fn join(&mut self) -> Result<JoinGroupResponse, Next> {
        let mut forces = None;
        loop {
            if let Some(order) = self.me.order()
                && let Some(next) = self.obey(order).await
            {
                return Err(next);
            }
            if let Some(instance) = &self.spec.instance
                && forces.is_none()
                && self.identity.member.is_empty()
            {
                forces = Some(self.stage.log.lock().forces(self.spec.group, instance, ""));
            }
            let sent = self.stage.log.now();
            let mut request = self.join_request();
            let Ok(response) = self.line.call_within(JOIN_PATIENCE, self.join_version, &mut request).await else {
                tokio::time::sleep(REST).await;
                continue;
            };
            match response.error_code {
                ErrorCode::NONE => {
                    self.identity.member = response.member_id.to_string();
                    self.identity.generation = response.generation_id;
                    self.me.status().member.clone_from(&self.identity.member);
                    let mut events = self.stage.log.lock();
                    if let Some(instance) = self.spec.instance.clone() {
                        events.instances.insert(response.member_id.to_string(), instance);
                    }
                    if let Some(number) = forces.take() {
                        events.has_forced(number, true);
                    }
                    let joined = Joined {
                        group: self.spec.group,
                        generation: response.generation_id,
                        leader: Some(response.leader.to_string()).filter(|leader| !leader.is_empty()),
                        member: response.member_id.to_string(),
                        life: 0,
                        sent,
                        told: events.now(),
                    };
                    events.joined.push(joined);
                    return Ok(response);
                }
                ErrorCode::MEMBER_ID_REQUIRED => self.identity.member = response.member_id.to_string(),
                code => match self.told(code) {
                    Some(Next::End) => return Err(Next::End),
                    _ => tokio::time::sleep(REST).await,
                },
            }
        }
    }

    fn join_request(&self) -> JoinGroupRequest {
        let protocol = JoinGroupRequestProtocol { name: PROTOCOL.into(), metadata: subscription() };
        JoinGroupRequest {
            group_id: self.spec.group.into(),
            session_timeout_ms: millis(SESSION),
            rebalance_timeout_ms: millis(REBALANCE),
            member_id: self.identity.member.as_str().into(),
            group_instance_id: self.spec.instance.as_deref().map(Into::into),
            protocol_type: "consumer".into(),
            protocols: vec![protocol],
            ..Default::default()
        }
    }

    async fn sync(&mut self, joined: &JoinGroupResponse) -> Result<BTreeSet<i32>, Next> {
        let leads = joined.leader == joined.member_id && !joined.skip_assignment;
        let mut assignments = Vec::new();
        if leads {
            tokio::time::sleep(self.spec.thinks).await;
            assignments = range(&joined.members, self.marks_shares().then_some(joined.generation_id));
        }
        loop {
            let asked = self.stage.log.lock().ask();
            let mut request = SyncGroupRequest {
                group_id: self.spec.group.into(),
                generation_id: joined.generation_id,
                member_id: joined.member_id.clone(),
                group_instance_id: self.spec.instance.as_deref().map(Into::into),
                protocol_type: Some("consumer".into()),
                protocol_name: Some(PROTOCOL.into()),
                assignments: assignments.clone(),
            };
            let Ok(response) = self.line.call_within(JOIN_PATIENCE, VERSION_SYNC, &mut request).await else {
                tokio::time::sleep(REST).await;
                continue;
            };
            match response.error_code {
                ErrorCode::NONE => {
                    let (partitions, made_for) = read_assignment(response.assignment);
                    let mut events = self.stage.log.lock();
                    let share = Share {
                        group: self.spec.group,
                        generation: joined.generation_id,
                        member: joined.member_id.to_string(),
                        partitions: partitions.clone(),
                        made_for,
                    };
                    events.shares.push(share);
                    if !Cast::is_classic(self.spec.group) {
                        let Identity { member, generation, .. } = &self.identity;
                        events.holds(self.spec.group, member, *generation, &partitions, asked);
                    }
                    return Ok(partitions);
                }
                code => match self.told(code) {
                    Some(next) => return Err(next),
                    None => tokio::time::sleep(REST).await,
                },
            }
        }
    }

    /// Whether it writes into shares for which generation they are: with such a note, no group can migrate.
    fn marks_shares(&self) -> bool {
        Cast::is_classic(self.spec.group)
    }

    /// Reads, commits and shows that it is alive, until the generation is over.
    async fn work(&mut self) -> Next {
        let (mut beat, mut committed) = (Instant::now(), Instant::now());
        loop {
            if let Some(order) = self.me.order()
                && let Some(next) = self.obey(order).await
            {
                return next;
            }
            // What is lost is asked again in the next round.
            let _ = self.reader.read(&mut self.line).await;
            if committed.elapsed() >= self.spec.commits_every {
                committed = Instant::now();
                if let Some(next) = self.commit().await {
                    return next;
                }
            }
            if beat.elapsed() >= HEARTBEAT {
                beat = Instant::now();
                if let Some(next) = self.heartbeat().await {
                    return next;
                }
            }
        }
    }

    async fn heartbeat(&mut self) -> Option<Next> {
        let request = HeartbeatRequest {
            group_id: self.spec.group.into(),
            generation_id: self.identity.generation,
            member_id: self.identity.member.as_str().into(),
            group_instance_id: self.spec.instance.as_deref().map(Into::into),
        };
        let asked = self.stage.log.lock().ask();
        let response = self.line.call(VERSION_HEARTBEAT, request).await.ok()?;
        if !response.error_code.is_error() {
            self.stage.log.lock().is_alive(self.spec.group, &self.identity.member, asked);
        }
        if response.error_code == ErrorCode::REBALANCE_IN_PROGRESS {
            // Its last chance to say how far it has come.
            let _ = self.reader.commit(&mut self.line, &self.reads_as).await;
        }
        self.told(response.error_code)
    }

    async fn commit(&mut self) -> Option<Next> {
        let code = self.reader.commit(&mut self.line, &self.reads_as).await?.ok()?;
        if !code.is_error() {
            self.me.status().acked += 1;
        }
        // What was said to whom it was before says nothing of what it is.
        let is_told =
            self.reads_as.member == self.identity.member && self.reads_as.generation == self.identity.generation;
        if is_told { self.told(code) } else { None }
    }

    /// What a member makes of a code.
    fn told(&mut self, code: ErrorCode) -> Option<Next> {
        self.stage.log.lock().refused(self.spec.group, &self.identity, code);
        match code {
            ErrorCode::NONE => None,
            ErrorCode::REBALANCE_IN_PROGRESS | ErrorCode::ILLEGAL_GENERATION => Some(Next::Join),
            ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR => {
                self.line.hang_up();
                None
            }
            ErrorCode::UNKNOWN_MEMBER_ID => {
                self.gives_all_up();
                self.identity.member.clear();
                Some(Next::Join)
            }
            ErrorCode::FENCED_INSTANCE_ID => Some(Next::End),
            code => {
                self.stage.log.lock().wrong(format!("{} was told {code:?}", self.spec.name));
                None
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Option<Next> {
        let next = match order {
            Order::Pause(time) => {
                tokio::time::sleep(time).await;
                self.commit().await
            }
            Order::Leave => {
                self.leave().await;
                Some(Next::End)
            }
            Order::Away | Order::Again => panic!("{order:?} is for members of the consumer protocol"),
        };
        self.me.obeyed();
        next
    }

    async fn leave(&mut self) {
        self.me.status().gone = true;
        self.gives_all_up();
        let request = leave_request(self.spec.group, &self.identity.member, self.spec.instance.as_deref());
        if let Ok(response) = self.line.call(VERSION_LEAVE, request).await
            && response.members.iter().all(|member| !member.error_code.is_error())
            && !response.error_code.is_error()
        {
            self.stage.log.lock().is_out(self.spec.group, &self.identity.member, 0);
        }
        for _ in 0..GHOST_COMMITS {
            tokio::time::sleep(GHOST_REST).await;
            let _ = self.reader.commit(&mut self.line, &self.reads_as).await;
        }
    }
}

/// Takes a static member out of its group, as an administrator does.
pub async fn kick(stage: &Stage, group: &'static str, instance: &str) -> Result<(), Lost> {
    let mut line = Line::new(stage, "administrator", group);
    let (sent, number) = (stage.log.now(), stage.log.lock().forces(group, instance, ""));
    let response = line.call(VERSION_LEAVE, leave_request(group, "", Some(instance))).await?;
    stage.log.lock().has_forced(number, true);
    let was_there = response.members.iter().all(|member| !member.error_code.is_error());
    if was_there && !response.error_code.is_error() {
        let mut events = stage.log.lock();
        let of_it =
            |joined: &&Joined| joined.group == group && events.whose(&joined.member) == instance && joined.told < sent;
        let members: BTreeSet<(String, u32)> =
            events.joined.iter().filter(of_it).map(|it| (it.member.clone(), it.life)).collect();
        for (member, life) in members {
            events.is_out(group, &member, life);
        }
    }
    Ok(())
}

fn leave_request(group: &str, member: &str, instance: Option<&str>) -> LeaveGroupRequest {
    let identity =
        MemberIdentity { member_id: member.into(), group_instance_id: instance.map(Into::into), ..Default::default() };
    LeaveGroupRequest { group_id: group.into(), members: vec![identity], ..Default::default() }
}

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).expect("short")
}

/// Version 0 of what a consumer says of itself: the topics that it reads.
fn subscription() -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_i16(0);
    bytes.put_i32(1);
    bytes.put_i16(i16::try_from(TOPIC.name.len()).expect("short"));
    bytes.put_slice(TOPIC.name.as_bytes());
    bytes.put_i32(-1);
    bytes.into()
}

/// The leader's work: consecutive partitions for each member, in the order of their names. A share may say for which generation it was made.
fn range(members: &[JoinGroupResponseMember], made_for: Option<i32>) -> Vec<SyncGroupRequestAssignment> {
    let mut ids: Vec<&str> = members.iter().map(|member| &*member.member_id).collect();
    ids.sort_unstable();
    let (count, mut next) = (i32::try_from(ids.len()).expect("few"), 0);
    let mut shares = Vec::new();
    for (nth, id) in (0..).zip(ids) {
        let end = next + TOPIC.partitions / count + i32::from(nth < TOPIC.partitions % count);
        let mut bytes = Vec::new();
        bytes.put_i16(0);
        bytes.put_i32(1);
        bytes.put_i16(i16::try_from(TOPIC.name.len()).expect("short"));
        bytes.put_slice(TOPIC.name.as_bytes());
        bytes.put_i32(end - next);
        (next..end).for_each(|partition| bytes.put_i32(partition));
        match made_for {
            Some(generation) => {
                bytes.put_i32(4);
                bytes.put_i32(generation);
            }
            None => bytes.put_i32(-1),
        }
        shares.push(SyncGroupRequestAssignment { member_id: id.into(), assignment: bytes.into() });
        next = end;
    }
    shares
}

/// The partitions of a share, and the generation that it was made for, if it says so; a member that the leader did not know has no share.
fn read_assignment(mut bytes: Bytes) -> (BTreeSet<i32>, Option<i32>) {
    const NEVER_MADE: i32 = -1;
    if bytes.is_empty() {
        return (BTreeSet::new(), Some(NEVER_MADE));
    }
    bytes.advance(2);
    let mut partitions = BTreeSet::new();
    for _ in 0..bytes.get_i32() {
        bytes.advance(2 + TOPIC.name.len());
        partitions.extend((0..bytes.get_i32()).map(|_| bytes.get_i32()).collect::<Vec<i32>>());
    }
    let is_marked = bytes.get_i32() > 0;
    (partitions, is_marked.then(|| bytes.get_i32()))
}
