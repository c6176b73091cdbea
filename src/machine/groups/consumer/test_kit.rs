//! A coordinator and the clients of its members, for tests of the consumer protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::super::classic::{Join, MemberOf, Sync};
use super::super::coordinator::Coordinator;
use super::super::offsets::Commit;
use super::super::record::Committed;
use super::super::test_topics::TestTopics;
use super::super::{Answer, Effects, Limits, Moment, Now, Ticket, Topics};
use super::Heartbeat;
use super::heartbeat::Beat;
use super::record::Partitions;
use crate::ids::{Offset, PartitionIndex, Timestamp};
use crate::machine::keyed::LastValues;
use crate::protocol::consumer_protocol::{Assignment, Subscription, TopicPartitions};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::consumer_group_describe::DescribedGroup;
use crate::protocol::messages::{ConsumerGroupHeartbeatResponse, JoinGroupResponse};
use crate::protocol::value::Text;

pub(super) const SESSION_MS: u64 = 45_000;
pub(super) const REBALANCE_MS: i32 = 60_000;

/// A coordinator, its clock, what it committed, and what it answered.
pub(super) struct Kit {
    pub(super) coordinator: Coordinator,
    pub(super) topics: Arc<TestTopics>,
    pub(super) committed: LastValues,
    now: u64,
    next_ticket: u64,
    answers: Vec<(Ticket, Answer)>,
}

/// A member of the consumer protocol, as its client has it.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) id: &'static str,
    pub(super) instance: Option<&'static str>,
    pub(super) topics: Vec<&'static str>,
    pub(super) regex: Option<&'static str>,
    pub(super) assignor: Option<&'static str>,
    pub(super) epoch: i32,
    pub(super) has: Partitions,
}

pub(super) fn client(id: &'static str) -> Client {
    Client { id, instance: None, topics: vec!["t"], regex: None, assignor: None, epoch: 0, has: Partitions::new() }
}

pub(super) fn group() -> Text {
    Text::from("g")
}

pub(super) fn texts(list: &[&str]) -> Vec<Text> {
    list.iter().map(|text| Text::from(*text)).collect()
}

impl Client {
    pub(super) fn numbers(&self) -> Vec<i32> {
        self.has.values().flatten().copied().collect()
    }

    pub(super) fn beat(&self) -> Heartbeat {
        let joins = self.epoch == 0;
        Heartbeat {
            member_id: self.id.into(),
            epoch: self.epoch,
            instance_id: self.instance.map(Text::from),
            rack_id: None,
            rebalance_timeout_ms: if joins { REBALANCE_MS } else { -1 },
            topics: joins.then(|| texts(&self.topics)),
            regex: self.regex.filter(|_| joins).map(Text::from),
            compiled: self.regex.filter(|_| joins).map(|regex| super::compile(regex).unwrap()),
            assignor: self.assignor.filter(|_| joins).map(Text::from),
            owned: Some(if joins { Partitions::new() } else { self.has.clone() }),
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
        }
    }

    /// Takes over what it is told. Whether that was other partitions.
    pub(super) fn take(&mut self, told: &ConsumerGroupHeartbeatResponse) -> bool {
        assert_eq!(told.error_code, ErrorCode::NONE, "{}: {:?}", self.id, told.error_message);
        self.epoch = told.member_epoch;
        let Some(assignment) = &told.assignment else { return false };
        let of = |it: &crate::protocol::messages::consumer_group_heartbeat::TopicPartitions| {
            (it.topic_id, it.partitions.iter().copied().collect::<BTreeSet<i32>>())
        };
        let new: Partitions = assignment.topic_partitions.iter().map(of).collect();
        std::mem::replace(&mut self.has, new.clone()) != new
    }
}

impl Kit {
    pub(super) fn new(topics: &[(&str, i32)]) -> Self {
        let (topics, committed) = (TestTopics::new(topics), LastValues::default());
        let coordinator = load(&committed, 0, &topics);
        Self { coordinator, topics, committed, now: 0, next_ticket: 0, answers: Vec::new() }
    }

    pub(super) fn now(&self) -> Now {
        now(self.now)
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    pub(super) fn done(&mut self, out: Effects) {
        for record in out.records {
            self.committed.put(&record.key, record.value.as_deref());
        }
        self.answers.extend(out.answers);
        let mut due = Effects::default();
        self.coordinator.expire(self.now(), &mut due);
        if !(due.records.is_empty() && due.answers.is_empty()) {
            self.done(due);
        }
        // Whoever takes over now knows the same: what members are told rests on what is committed.
        let of = |coordinator: &Coordinator| coordinator.durable(&group());
        assert_eq!(of(&load(&self.committed, self.now, &self.topics)), of(&self.coordinator));
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.done(Effects::default());
    }

    pub(super) fn take_over(&mut self) {
        self.coordinator = load(&self.committed, self.now, &self.topics);
    }

    pub(super) fn answer(&mut self, ticket: Ticket) -> Answer {
        let at = self.answers.iter().position(|(waiting, _)| *waiting == ticket).expect("it is answered");
        self.answers.remove(at).1
    }

    pub(super) fn told(&mut self, heartbeat: Heartbeat) -> ConsumerGroupHeartbeatResponse {
        let ticket = self.ticket();
        let mut out = Effects::default();
        let beat = Beat { ticket, heartbeat, must_have_id: true, new_id: "new".into() };
        self.coordinator.consumer_heartbeat(self.now(), &group(), beat, &mut out);
        self.done(out);
        match self.answer(ticket) {
            Answer::Heartbeat(told) => told,
            other => panic!("a heartbeat is told {other:?}"),
        }
    }

    /// One heartbeat, and taking over what it tells. Whether that was other partitions.
    pub(super) fn beat(&mut self, client: &mut Client) -> bool {
        let told = self.told(client.beat());
        client.take(&told)
    }

    /// Heartbeats until nobody is told of other partitions; in between, nobody has what another one has.
    pub(super) fn settle(&mut self, clients: &mut [&mut Client]) -> usize {
        for round in 0..20 {
            let mut moved = false;
            for at in 0..clients.len() {
                moved |= self.beat(clients[at]);
                let mut owners = BTreeMap::new();
                for client in clients.iter() {
                    for (topic, partitions) in &client.has {
                        for partition in partitions {
                            let other = owners.insert((*topic, *partition), client.id);
                            assert_eq!(other, None, "dual-owner of {partition}: {}", client.id);
                        }
                    }
                }
            }
            if !moved && self.described().group_state == "Stable" {
                return round;
            }
        }
        panic!("stuck-group: {:?}", self.described());
    }

    pub(super) fn described(&self) -> DescribedGroup {
        self.coordinator.describe_consumers(&group())
    }

    pub(super) fn leave(&mut self, client: &Client, epoch: i32) -> ErrorCode {
        self.told(Heartbeat { epoch, owned: None, topics: None, ..client.beat() }).error_code
    }

    pub(super) fn commit(&mut self, member: &str, epoch: i32, partition: i32) -> ErrorCode {
        self.commit_as(MemberOf { member_id: member.into(), instance_id: None, generation: epoch }, partition)
    }

    pub(super) fn commit_as(&mut self, member: MemberOf, partition: i32) -> ErrorCode {
        let ticket = self.ticket();
        let topic = self.topics.find("t").map(|topic| topic.id);
        let committed = Committed {
            offset: Offset(7),
            leader_epoch: -1,
            metadata: Text::default(),
            at: self.now().wall,
            expires: None,
            topic,
        };
        let offsets = vec![(Text::from("t"), PartitionIndex(partition), committed)];
        let mut out = Effects::default();
        let commit = Commit { ticket, member, offsets, knows_member_epochs: true };
        self.coordinator.commit(self.now(), &group(), commit, &mut out);
        self.done(out);
        self.code(ticket)
    }

    pub(super) fn code(&mut self, ticket: Ticket) -> ErrorCode {
        match self.answer(ticket) {
            Answer::Code(code) => code,
            other => panic!("answered with {other:?}"),
        }
    }

    pub(super) fn join(&mut self, id: &str, owned: &[i32]) -> JoinGroupResponse {
        self.join_as(id, None, owned)
    }

    pub(super) fn join_as(&mut self, id: &str, instance: Option<&str>, owned: &[i32]) -> JoinGroupResponse {
        let ticket = self.ticket();
        let owned = vec![TopicPartitions { topic: "t".into(), partitions: owned.to_vec() }];
        let subscription = Subscription { topics: texts(&["t"]), owned, ..Subscription::default() };
        let join = Join {
            ticket,
            member_id: id.into(),
            instance_id: instance.map(Text::from),
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: "consumer".into(),
            protocols: vec![("cooperative-sticky".into(), subscription.encode(1))],
            new_id: format!("classic-{}", ticket.0).into(),
            new_consumer_id: format!("consumer-{}", ticket.0).into(),
            must_know_id: false,
            can_skip_assignment: true,
        };
        let mut out = Effects::default();
        self.coordinator.join(self.now(), &group(), join, &mut out);
        self.done(out);
        self.pass(3_000);
        match self.answer(ticket) {
            Answer::Join(joined) => joined,
            other => panic!("a join is told {other:?}"),
        }
    }

    pub(super) fn sync(
        &mut self,
        joined: &JoinGroupResponse,
        shares: &[(&Text, &[i32])],
    ) -> Result<Vec<i32>, ErrorCode> {
        let ticket = self.ticket();
        let share = |partitions: &[i32]| -> Bytes {
            let topics = vec![TopicPartitions { topic: "t".into(), partitions: partitions.to_vec() }];
            Assignment { topics, user_data: None }.encode(1)
        };
        let sync = Sync {
            ticket,
            member: of(joined),
            protocol_type: joined.protocol_type.clone(),
            protocol_name: joined.protocol_name.clone(),
            assignments: shares.iter().map(|(id, partitions)| ((*id).clone(), share(partitions))).collect(),
        };
        let mut out = Effects::default();
        self.coordinator.sync(self.now(), &group(), sync, &mut out);
        self.done(out);
        match self.answer(ticket) {
            Answer::Sync(told) if told.error_code == ErrorCode::NONE => Ok(Assignment::decode(told.assignment)
                .unwrap()
                .topics
                .into_iter()
                .flat_map(|it| it.partitions)
                .collect()),
            Answer::Sync(told) => Err(told.error_code),
            other => panic!("a sync is told {other:?}"),
        }
    }

    pub(super) fn classic_heartbeat(&mut self, joined: &JoinGroupResponse) -> ErrorCode {
        let ticket = self.ticket();
        let mut out = Effects::default();
        self.coordinator.heartbeat(self.now(), &group(), ticket, &of(joined), &mut out);
        self.done(out);
        self.code(ticket)
    }
}

pub(super) fn of(joined: &JoinGroupResponse) -> MemberOf {
    MemberOf { member_id: joined.member_id.clone(), instance_id: None, generation: joined.generation_id }
}

pub(super) fn now(ms: u64) -> Now {
    Now { moment: Moment(ms), wall: Timestamp(1_700_000_000_000 + i64::try_from(ms).unwrap()) }
}

pub(super) fn load(committed: &LastValues, ms: u64, topics: &Arc<TestTopics>) -> Coordinator {
    let topics = Arc::clone(topics);
    let (coordinator, unreadable) = Coordinator::load(committed, Limits::default(), now(ms), topics);
    assert!(unreadable.is_empty(), "{unreadable:?}");
    coordinator
}
