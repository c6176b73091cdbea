//! A member that speaks the consumer protocol (KIP-848): ConsumerGroupHeartbeat.
//!
//! The coordinator says what it has. What it has to give up, it stops to read, commits, and says so; only then another may have it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ottla::ids::TopicId;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::consumer_group_heartbeat::TopicPartitions;
use ottla::protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use tokio::time::Instant;

use super::events::Joined;
use super::holds::Asked;
use super::line::{Line, REST};
use super::member::{Identity, Me, Order, Reader, Spec, commit};
use super::{HEARTBEAT, SESSION, Stage, TOPIC};

const VERSION_HEARTBEAT: i16 = 1;
/// The epochs of members that come, go, and go for a while.
const JOIN: i32 = 0;
const LEAVE: i32 = -1;
const AWAY: i32 = -2;
/// For how long a coordinator waits for partitions that are to be given up: longer than a session.
const REVOCATION_MS: i32 = 3_000;
/// How long a static member tries to take a place in which another still is.
const UNRELEASED_TIME_MAX: Duration = SESSION.saturating_mul(4);
/// What giving partitions up takes, as a multiple of the time for which a member thinks: a restart of the broker fits in between.
const GIVING_UP: u32 = 5;
/// How often a member that has left commits all the same, and how long it waits before each time.
const GHOST_COMMITS: usize = 8;
const GHOST_REST: Duration = Duration::from_millis(120);

struct Consumer {
    stage: Stage,
    spec: Spec,
    me: Me,
    line: Line,
    reader: Reader,
    identity: Identity,
    /// The id of the topic, as it was told.
    topic: TopicId,
    /// What it has, and says it has.
    owned: BTreeSet<i32>,
    /// Whether the next heartbeat says everything: the last answer did not come, or there was none yet.
    says_all: bool,
    /// Whether the next heartbeat is due at once, and says what it has.
    is_due: bool,
    /// What it gave up last, and kept, with the epoch and the offsets that it had.
    before: Option<Before>,
}

/// What a member had at an epoch that may be over.
struct Before {
    identity: Identity,
    kept: BTreeMap<i32, i64>,
    given_up: BTreeMap<i32, i64>,
}

/// What a member does when its time in the group is over for it.
enum Next {
    /// It joins again.
    Join,
    /// It ends.
    End,
}

/// Lives as a member, until it is told to leave or that another has its place.
pub async fn live(stage: Stage, spec: Spec, me: Me) {
    let line = Line::new(&stage, &spec.name, spec.group);
    let reader = Reader::new(&stage, &spec.name, spec.group);
    let identity = Identity {
        member: spec.id.clone(),
        instance: spec.instance.clone(),
        generation: JOIN,
        life: 0,
        knows_epochs: true,
    };
    let mut member = Consumer {
        stage,
        spec,
        me,
        line,
        reader,
        identity,
        topic: TopicId([0; 16]),
        owned: BTreeSet::new(),
        says_all: true,
        is_due: false,
        before: None,
    };
    let mut before = None;
    while let Next::Join = member.membership(before.take()).await {
        before = Some((member.identity.clone(), member.reader.positions()));
        member.abandon();
        member.identity.life += 1;
    }
    member.abandon();
    member.me.status().gone = true;
}

impl Consumer {
    /// From joining to the end of it. `before`: as whom, and where, it was when it was fenced.
    async fn membership(&mut self, before: Option<(Identity, BTreeMap<i32, i64>)>) -> Next {
        self.reader.own(&BTreeSet::new());
        if let Some(next) = self.join().await {
            return next;
        }
        // A thread of its own that has not noticed.
        if let Some((identity, positions)) = before.filter(|(_, positions)| !positions.is_empty()) {
            let _ = commit(&self.stage, &mut self.line, self.spec.group, &identity, &positions).await;
        }
        self.work().await
    }

    /// It has nothing any more.
    fn abandon(&mut self) {
        self.stage.log.lock().abandons(self.spec.group, &self.identity.member);
        self.owned.clear();
        self.before = None;
        self.me.status().owned = None;
    }

    async fn join(&mut self) -> Option<Next> {
        let (began, mut forces) = (Instant::now(), None);
        self.identity.generation = JOIN;
        self.says_all = true;
        loop {
            if let Some(order) = self.me.order()
                && let Some(next) = self.obey(order).await
            {
                return Some(next);
            }
            if let Some(instance) = &self.spec.instance
                && forces.is_none()
            {
                forces = Some(self.stage.log.lock().forces(self.spec.group, instance, &self.identity.member));
            }
            let asked = self.stage.log.lock().ask();
            let Ok(response) = self.line.call(VERSION_HEARTBEAT, self.request(JOIN)).await else {
                tokio::time::sleep(REST).await;
                continue;
            };
            let code = response.error_code;
            if matches!(code, ErrorCode::NONE | ErrorCode::UNRELEASED_INSTANCE_ID)
                && let Some(number) = forces.take()
            {
                self.stage.log.lock().has_forced(number, !code.is_error());
            }
            match code {
                ErrorCode::NONE => {
                    self.is_told(&response, asked).await;
                    return None;
                }
                ErrorCode::UNRELEASED_INSTANCE_ID if began.elapsed() > UNRELEASED_TIME_MAX => return Some(Next::End),
                ErrorCode::UNRELEASED_INSTANCE_ID => {}
                ErrorCode::FENCED_MEMBER_EPOCH => {
                    let what = format!("stuck-group: {} joins anew, and is told that it has to", self.spec.name);
                    self.stage.log.lock().wrong(what);
                }
                code => {
                    if let Some(Next::End) = self.refused(code) {
                        return Some(Next::End);
                    }
                }
            }
            tokio::time::sleep(REST).await;
        }
    }

    fn request(&self, epoch: i32) -> ConsumerGroupHeartbeatRequest {
        let mut request = ConsumerGroupHeartbeatRequest {
            group_id: self.spec.group.into(),
            member_id: self.identity.member.as_str().into(),
            member_epoch: epoch,
            instance_id: self.spec.instance.as_deref().map(Into::into),
            ..Default::default()
        };
        if epoch >= JOIN && self.says_all {
            request.rebalance_timeout_ms = REVOCATION_MS;
            request.subscribed_topic_names = Some(vec![TOPIC.name.into()]);
        }
        if epoch >= JOIN && (self.says_all || self.is_due) {
            // From here on it has no more than it says.
            self.stage.log.lock().keeps(self.spec.group, &self.identity.member, &self.owned);
            let partitions: Vec<i32> = self.owned.iter().copied().collect();
            let owned = (!partitions.is_empty()).then_some(TopicPartitions { topic_id: self.topic, partitions });
            request.topic_partitions = Some(owned.into_iter().collect());
        }
        request
    }

    /// Reads, commits and shows that it is alive, until that is over.
    async fn work(&mut self) -> Next {
        let (mut beat, mut committed) = (Instant::now(), Instant::now());
        loop {
            if let Some(order) = self.me.order()
                && let Some(next) = self.obey(order).await
            {
                return next;
            }
            if self.is_due || beat.elapsed() >= HEARTBEAT {
                beat = Instant::now();
                if let Some(next) = self.heartbeat().await {
                    return next;
                }
            }
            // What is lost is asked again in the next round.
            let _ = self.reader.read(&mut self.line).await;
            if committed.elapsed() >= self.spec.commits_every {
                committed = Instant::now();
                if let Some(next) = self.commit().await {
                    return next;
                }
            }
        }
    }

    async fn heartbeat(&mut self) -> Option<Next> {
        let asked = self.stage.log.lock().ask();
        let request = self.request(self.identity.generation);
        let Ok(response) = self.line.call(VERSION_HEARTBEAT, request).await else {
            // Nobody knows what was heard and told.
            self.says_all = true;
            return None;
        };
        if response.error_code.is_error() {
            return self.refused(response.error_code);
        }
        self.is_told(&response, asked).await;
        self.commit_as_before().await
    }

    /// Does what it is told.
    async fn is_told(&mut self, response: &ConsumerGroupHeartbeatResponse, asked: Asked) {
        (self.says_all, self.is_due) = (false, false);
        let (group, epoch) = (self.spec.group, response.member_epoch);
        let before = std::mem::replace(&mut self.identity.generation, epoch);
        self.reader.identify(&self.identity);
        let Identity { member, life, .. } = self.identity.clone();
        {
            let mut events = self.stage.log.lock();
            events.is_alive(group, &member, asked);
            if before != epoch {
                let told = events.now();
                let joined = Joined { group, generation: epoch, leader: None, member, life, sent: asked.at, told };
                events.joined.push(joined);
            }
        }
        if let Some(assignment) = &response.assignment {
            let mut given = BTreeSet::new();
            for of_topic in &assignment.topic_partitions {
                self.topic = of_topic.topic_id;
                given.extend(of_topic.partitions.iter().copied());
            }
            self.reconcile(&given, asked).await;
        }
        let mut status = self.me.status();
        (status.member, status.generation) = (self.identity.member.clone(), epoch);
        status.owned = Some(self.owned.clone());
    }

    /// Takes what is new, and gives up what is not its own any more: it says so at once.
    async fn reconcile(&mut self, given: &BTreeSet<i32>, asked: Asked) {
        self.stage.log.lock().holds(self.spec.group, &self.identity.member, self.identity.generation, given, asked);
        let lost: BTreeSet<i32> = self.owned.difference(given).copied().collect();
        if !lost.is_empty() {
            self.stage.log.lock().revoked += 1;
            // It takes its time, and says how far it has come.
            tokio::time::sleep(self.spec.thinks * GIVING_UP).await;
            let _ = self.reader.commit(&mut self.line, &self.identity).await;
            let (given_up, kept) = self.reader.positions().into_iter().partition(|(it, _)| lost.contains(it));
            self.before = Some(Before { identity: self.identity.clone(), kept, given_up });
        }
        self.reader.change(given);
        self.is_due = *given != self.owned;
        self.owned.clone_from(given);
    }

    /// A thread of its own that commits at the epoch before: what it kept since may be taken (KIP-1251), what it gave up must not.
    async fn commit_as_before(&mut self) -> Option<Next> {
        let is_over = |before: &mut Before| before.identity.generation < self.identity.generation;
        let Before { identity, kept, given_up } = self.before.take_if(is_over)?;
        for offsets in [given_up, kept] {
            if !offsets.is_empty() {
                let _ = commit(&self.stage, &mut self.line, self.spec.group, &identity, &offsets).await;
            }
        }
        None
    }

    async fn commit(&mut self) -> Option<Next> {
        let code = self.reader.commit(&mut self.line, &self.identity).await?.ok()?;
        if !code.is_error() {
            self.me.status().acked += 1;
        }
        self.refused(code)
    }

    /// What a member makes of a code.
    fn refused(&mut self, code: ErrorCode) -> Option<Next> {
        let identity = &self.identity;
        let mut events = self.stage.log.lock();
        events.refused(self.spec.group, identity, code);
        match code {
            ErrorCode::NONE => None,
            ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR => {
                drop(events);
                self.line.hang_up();
                None
            }
            ErrorCode::STALE_MEMBER_EPOCH => {
                // It has missed something: it is told when it shows itself.
                (self.says_all, self.is_due) = (true, true);
                None
            }
            // A group whose members of this protocol were all out may be one of the other protocol meanwhile.
            ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_MEMBER_EPOCH | ErrorCode::GROUP_ID_NOT_FOUND => {
                events.fenced += 1;
                Some(Next::Join)
            }
            ErrorCode::FENCED_INSTANCE_ID => {
                events.fenced += 1;
                Some(Next::End)
            }
            code => {
                events.wrong(format!("{} was told {code:?}", self.spec.name));
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
            Order::Away => {
                self.go_away().await;
                Some(Next::End)
            }
            // As after a leave that was lost.
            Order::Again => Some(Next::Join),
        };
        self.me.obeyed();
        next
    }

    async fn leave(&mut self) {
        self.me.status().gone = true;
        self.stage.log.lock().keeps(self.spec.group, &self.identity.member, &BTreeSet::new());
        if let Ok(response) = self.line.call(VERSION_HEARTBEAT, self.request(LEAVE)).await
            && !response.error_code.is_error()
        {
            self.stage.log.lock().is_out(self.spec.group, &self.identity.member, self.identity.life);
        }
        for _ in 0..GHOST_COMMITS {
            tokio::time::sleep(GHOST_REST).await;
            let _ = self.reader.commit(&mut self.line, &self.identity).await;
        }
    }

    /// It leaves for a while, and makes sure that this is known.
    async fn go_away(&mut self) {
        self.abandon();
        loop {
            if let Ok(response) = self.line.call(VERSION_HEARTBEAT, self.request(AWAY)).await {
                match response.error_code {
                    ErrorCode::NONE => {
                        self.stage.log.lock().is_out(self.spec.group, &self.identity.member, self.identity.life);
                        return;
                    }
                    ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR => self.line.hang_up(),
                    // Somebody else has seen to it.
                    _ => return,
                }
            }
            tokio::time::sleep(REST).await;
        }
    }
}
