//! The classic protocol, as members see it.

use bytes::Bytes;

use super::classic::{Join, MemberOf, State, Sync};
use super::coordinator::Coordinator;
use super::offsets::Commit;
use super::record::Committed;
use super::test_topics::TestTopics;
use super::{Answer, Effects, Limits, Moment, Now, Ticket};
use crate::ids::{Offset, PartitionIndex, Timestamp};
use crate::machine::keyed::LastValues;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::{JoinGroupResponse, SyncGroupResponse};
use crate::protocol::value::Text;

const SESSION_MS: u64 = 10_000;
const REBALANCE_MS: u64 = 60_000;
const DELAY_MS: u64 = 3_000;

/// A coordinator, its clock, what it committed, and what it answered.
struct Kit {
    coordinator: Coordinator,
    committed: LastValues,
    now: u64,
    next_ticket: u64,
    next_id: u64,
    answers: Vec<(Ticket, Answer)>,
}

/// How a member joins; most do it alike.
#[derive(Clone)]
struct As {
    id: Text,
    instance: Option<&'static str>,
    protocols: Vec<(&'static str, &'static str)>,
    kind: &'static str,
    old_client: bool,
}

fn new() -> As {
    let protocols = vec![("range", "topics")];
    As { id: Text::default(), instance: None, protocols, kind: "consumer", old_client: true }
}

fn fixed(instance: &'static str) -> As {
    As { instance: Some(instance), ..new() }
}

fn again(id: &Text) -> As {
    As { id: id.clone(), ..new() }
}

fn group() -> Text {
    Text::from("g")
}

impl Kit {
    fn new() -> Self {
        let committed = LastValues::default();
        let coordinator = load(&committed, 0);
        Self { coordinator, committed, now: 0, next_ticket: 0, next_id: 0, answers: Vec::new() }
    }

    fn now(&self) -> Now {
        now(self.now)
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Commits what was decided and lets the answers leave.
    fn done(&mut self, out: Effects) {
        for record in out.records {
            self.committed.put(&record.key, record.value.as_deref());
        }
        self.answers.extend(out.answers);
        let mut due = Effects::default();
        self.coordinator.expire(self.now(), &mut due);
        if !(due.records.is_empty() && due.answers.is_empty()) {
            self.done(due);
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.done(Effects::default());
    }

    /// Another broker takes over.
    fn take_over(&mut self) {
        self.coordinator = load(&self.committed, self.now);
        self.answers.clear();
    }

    fn join(&mut self, how: As) -> Ticket {
        let ticket = self.ticket();
        self.next_id += 1;
        let join = Join {
            ticket,
            member_id: how.id,
            instance_id: how.instance.map(Text::from),
            client_id: Text::from("client"),
            client_host: Text::from("/127.0.0.1"),
            session_timeout_ms: i32::try_from(SESSION_MS).unwrap(),
            rebalance_timeout_ms: i32::try_from(REBALANCE_MS).unwrap(),
            protocol_type: Text::from(how.kind),
            protocols: how
                .protocols
                .iter()
                .map(|(name, says)| (Text::from(*name), Bytes::from_static(says.as_bytes())))
                .collect(),
            new_id: Text::from(format!("member-{}", self.next_id)),
            new_consumer_id: Text::from(format!("consumer-{}", self.next_id)),
            must_know_id: !how.old_client,
            can_skip_assignment: true,
        };
        let mut out = Effects::default();
        self.coordinator.join(self.now(), &group(), join, &mut out);
        self.done(out);
        ticket
    }

    fn answer(&mut self, ticket: Ticket) -> Option<Answer> {
        let at = self.answers.iter().position(|(waiting, _)| *waiting == ticket)?;
        Some(self.answers.remove(at).1)
    }

    fn joined(&mut self, ticket: Ticket) -> JoinGroupResponse {
        match self.answer(ticket) {
            Some(Answer::Join(response)) => response,
            other => panic!("a join is answered with {other:?}"),
        }
    }

    fn sync(&mut self, joined: &JoinGroupResponse, shares: &[(&Text, &'static str)]) -> Ticket {
        let ticket = self.ticket();
        let sync = Sync {
            ticket,
            member: of(joined),
            protocol_type: joined.protocol_type.clone(),
            protocol_name: joined.protocol_name.clone(),
            assignments: shares
                .iter()
                .map(|(id, share)| ((*id).clone(), Bytes::from_static(share.as_bytes())))
                .collect(),
        };
        let mut out = Effects::default();
        self.coordinator.sync(self.now(), &group(), sync, &mut out);
        self.done(out);
        ticket
    }

    fn synced(&mut self, ticket: Ticket) -> SyncGroupResponse {
        match self.answer(ticket) {
            Some(Answer::Sync(response)) => response,
            other => panic!("a sync is answered with {other:?}"),
        }
    }

    fn heartbeat(&mut self, member: &MemberOf) -> ErrorCode {
        let ticket = self.ticket();
        let mut out = Effects::default();
        self.coordinator.heartbeat(self.now(), &group(), ticket, member, &mut out);
        self.done(out);
        self.code(ticket)
    }

    fn code(&mut self, ticket: Ticket) -> ErrorCode {
        match self.answer(ticket) {
            Some(Answer::Code(code)) => code,
            other => panic!("answered with {other:?}"),
        }
    }

    fn leave(&mut self, id: &Text, instance: Option<&'static str>) -> ErrorCode {
        let ticket = self.ticket();
        let mut out = Effects::default();
        let members = [(id.clone(), instance.map(Text::from))];
        self.coordinator.leave(self.now(), &group(), ticket, &members, &mut out);
        self.done(out);
        match self.answer(ticket) {
            Some(Answer::Left(Some(codes))) => codes[0],
            other => panic!("a leave is answered with {other:?}"),
        }
    }

    fn commit(&mut self, member: &MemberOf, offset: i64) -> ErrorCode {
        let ticket = self.ticket();
        let committed = Committed {
            offset: Offset(offset),
            leader_epoch: -1,
            metadata: Text::default(),
            at: Timestamp(0),
            expires: None,
            topic: None,
        };
        let offsets = vec![(Text::from("t"), PartitionIndex(0), committed)];
        let commit = Commit { ticket, member: member.clone(), offsets, knows_member_epochs: true };
        let mut out = Effects::default();
        self.coordinator.commit(self.now(), &group(), commit, &mut out);
        self.done(out);
        self.code(ticket)
    }

    fn state(&self) -> State {
        let name = self.coordinator.describe(&group()).expect("the group is there").group_state;
        let all = [State::Empty, State::Preparing, State::Completing, State::Stable];
        all.into_iter().find(|state| name == state.name()).expect("it has a name")
    }

    /// A stable group of these members; the first of them by id leads.
    fn stable(&mut self, members: &[As]) -> Vec<JoinGroupResponse> {
        let tickets: Vec<Ticket> = members.iter().map(|how| self.join(how.clone())).collect();
        self.pass(DELAY_MS);
        self.pass(DELAY_MS);
        let joined: Vec<JoinGroupResponse> = tickets.into_iter().map(|ticket| self.joined(ticket)).collect();
        self.share_out(&joined);
        joined
    }

    /// All members ask for their shares; the leader hands out their own ids.
    fn share_out(&mut self, joined: &[JoinGroupResponse]) {
        let (leader, others): (Vec<_>, Vec<_>) = joined.iter().partition(|it| it.leader == it.member_id);
        assert!(leader.len() == 1 && joined.iter().all(|it| it.error_code == ErrorCode::NONE), "{joined:?}");
        let waiting: Vec<Ticket> = others.iter().map(|it| self.sync(it, &[])).collect();
        let shares: Vec<(&Text, &'static str)> = joined.iter().map(|it| (&it.member_id, "a share")).collect();
        let ticket = self.sync(leader[0], &shares);
        for ticket in waiting.into_iter().chain([ticket]) {
            assert_eq!(self.synced(ticket).assignment, "a share");
        }
        assert_eq!(self.state(), State::Stable);
    }
}

fn now(ms: u64) -> Now {
    Now { moment: Moment(ms), wall: Timestamp(1_700_000_000_000 + i64::try_from(ms).unwrap()) }
}

fn load(committed: &LastValues, ms: u64) -> Coordinator {
    let (coordinator, unreadable) = Coordinator::load(committed, Limits::default(), now(ms), TestTopics::new(&[]));
    assert!(unreadable.is_empty(), "{unreadable:?}");
    coordinator
}

fn of(joined: &JoinGroupResponse) -> MemberOf {
    MemberOf { member_id: joined.member_id.clone(), instance_id: None, generation: joined.generation_id }
}

#[test]
fn members_join_share_out_and_stay() {
    let mut kit = Kit::new();
    let joined = kit.stable(&[new(), new(), new()]);
    assert!(joined.iter().all(|it| it.generation_id == 1 && it.protocol_name.as_deref() == Some("range")));
    let leader = joined.iter().find(|it| !it.members.is_empty()).expect("one is told of all");
    assert_eq!((leader.members.len(), &leader.leader), (3, &leader.member_id));
    for _ in 0..10 {
        kit.pass(SESSION_MS - 1);
        assert!(joined.iter().all(|it| kit.heartbeat(&of(it)) == ErrorCode::NONE));
    }
}

#[test]
fn the_first_members_wait_for_others_but_not_for_ever() {
    let mut kit = Kit::new();
    let first = kit.join(new());
    let mut waited = 0;
    while kit.answers.is_empty() {
        kit.join(new());
        kit.pass(DELAY_MS);
        waited += DELAY_MS;
        assert!(waited <= REBALANCE_MS);
    }
    assert_eq!(waited, REBALANCE_MS, "each newcomer makes them wait on");
    assert_eq!(kit.joined(first).generation_id, 1);
}

#[test]
fn a_new_client_is_given_its_id_first() {
    let mut kit = Kit::new();
    let how = As { old_client: false, ..new() };
    let ticket = kit.join(how.clone());
    let told = kit.joined(ticket);
    assert_eq!((told.error_code, told.member_id.as_str()), (ErrorCode::MEMBER_ID_REQUIRED, "member-1"));
    let ticket = kit.join(As { id: told.member_id.clone(), ..how });
    kit.pass(DELAY_MS);
    assert_eq!(kit.joined(ticket).member_id, told.member_id);
    let ticket = kit.join(again(&Text::from("nobody")));
    assert_eq!(kit.joined(ticket).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn an_id_that_nobody_comes_back_with_holds_a_rebalance_up_for_its_session_only() {
    let mut kit = Kit::new();
    let joined = kit.stable(&[new()]);
    let ticket = kit.join(As { old_client: false, ..new() });
    kit.joined(ticket);
    let ticket = kit.join(As { protocols: vec![("range", "others")], ..again(&joined[0].member_id) });
    assert_eq!(kit.answer(ticket), None, "somebody has an id and may come");
    kit.pass(SESSION_MS);
    assert_eq!(kit.joined(ticket).generation_id, 2);
}

#[test]
fn a_newcomer_makes_everybody_join_again() {
    let mut kit = Kit::new();
    let joined = kit.stable(&[new(), new()]);
    let third = kit.join(new());
    assert_eq!(kit.state(), State::Preparing);
    assert!(joined.iter().all(|it| kit.heartbeat(&of(it)) == ErrorCode::REBALANCE_IN_PROGRESS));
    assert_eq!(kit.commit(&of(&joined[0]), 5), ErrorCode::NONE, "before it gives its share away");
    let tickets: Vec<Ticket> = joined.iter().map(|it| kit.join(again(&it.member_id))).collect();
    let all: Vec<_> = tickets.into_iter().chain([third]).map(|ticket| kit.joined(ticket)).collect();
    assert!(all.iter().all(|it| it.generation_id == 2));
    assert_eq!(kit.commit(&of(&all[0]), 6), ErrorCode::REBALANCE_IN_PROGRESS, "nobody knows yet whose it is");
    kit.share_out(&all);
    assert_eq!(kit.heartbeat(&of(&joined[0])), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(kit.commit(&of(&joined[0]), 7), ErrorCode::ILLEGAL_GENERATION, "zombie-commit");
}

#[test]
fn who_is_silent_or_slow_is_left_behind() {
    let mut kit = Kit::new();
    let joined = kit.stable(&[new(), new()]);
    kit.pass(SESSION_MS / 2);
    kit.heartbeat(&of(&joined[0]));
    kit.pass(SESSION_MS / 2);
    assert_eq!(kit.heartbeat(&of(&joined[1])), ErrorCode::UNKNOWN_MEMBER_ID, "silent for its session");
    let mut stay = joined[0].clone();
    let ticket = kit.join(again(&stay.member_id));
    stay = kit.joined(ticket);
    assert_eq!(stay.generation_id, 2);
    kit.share_out(std::slice::from_ref(&stay));
    let other = kit.join(new());
    for _ in 0..REBALANCE_MS / 5_000 {
        assert_eq!(kit.answer(other), None);
        assert_eq!(kit.heartbeat(&of(&stay)), ErrorCode::REBALANCE_IN_PROGRESS);
        kit.pass(5_000);
    }
    let other = kit.joined(other);
    assert_eq!((other.generation_id, other.members.len()), (3, 1), "it never joined again");
    assert_eq!(kit.heartbeat(&of(&stay)), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn who_joins_and_never_asks_for_a_share_is_removed() {
    let mut kit = Kit::new();
    let tickets = [kit.join(new()), kit.join(new())];
    kit.pass(DELAY_MS);
    kit.pass(DELAY_MS);
    let joined = tickets.map(|ticket| kit.joined(ticket));
    let (leader, other) = if joined[0].members.is_empty() { (1, 0) } else { (0, 1) };
    let ticket = kit.sync(&joined[leader], &[]);
    kit.synced(ticket);
    for _ in 0..REBALANCE_MS / 5_000 {
        kit.heartbeat(&of(&joined[leader]));
        kit.heartbeat(&of(&joined[other]));
        kit.pass(5_000);
    }
    assert_eq!(kit.heartbeat(&of(&joined[leader])), ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(kit.heartbeat(&of(&joined[other])), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_leave_is_seen_at_once_and_the_last_one_leaves_an_empty_group() {
    let mut kit = Kit::new();
    let joined = kit.stable(&[new(), new()]);
    assert_eq!(kit.leave(&joined[0].member_id, None), ErrorCode::NONE);
    assert_eq!(kit.leave(&joined[0].member_id, None), ErrorCode::UNKNOWN_MEMBER_ID);
    let ticket = kit.join(again(&joined[1].member_id));
    let stay = kit.joined(ticket);
    assert_eq!((stay.generation_id, stay.members.len()), (2, 1));
    assert_eq!(kit.leave(&stay.member_id, None), ErrorCode::NONE);
    assert_eq!(kit.state(), State::Empty);
    let next = kit.stable(&[new()]);
    assert_eq!(next[0].generation_id, 4, "the empty one was the third");
}

#[test]
fn many_who_leave_at_once_are_one_record() {
    let mut kit = Kit::new();
    let joined = kit.stable(&[new(), new(), new()]);
    let leaving: Vec<_> = joined[..2].iter().map(|it| (it.member_id.clone(), None)).collect();
    let ticket = kit.ticket();
    let mut out = Effects::default();
    kit.coordinator.leave(kit.now(), &group(), ticket, &leaving, &mut out);
    assert_eq!(out.records.len(), 1);
    kit.done(out);
    kit.take_over();
    assert_eq!(kit.heartbeat(&of(&joined[0])), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(kit.heartbeat(&of(&joined[2])), ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut kit = Kit::new();
    let joined = kit.stable(&[fixed("a"), fixed("b")]);
    for (number, instance) in ["a", "b"].into_iter().enumerate() {
        let before = &joined[number];
        let ticket = kit.join(fixed(instance));
        let back = kit.joined(ticket);
        assert_ne!(back.member_id, before.member_id);
        assert_eq!((kit.state(), back.generation_id, back.error_code), (State::Stable, 1, ErrorCode::NONE));
        assert_eq!(back.skip_assignment, before.leader == before.member_id, "{back:?}");
        let mut old = of(before);
        old.instance_id = Some(Text::from(instance));
        assert_eq!(kit.heartbeat(&old), ErrorCode::FENCED_INSTANCE_ID);
        let ticket = kit.sync(&back, &[]);
        assert_eq!(kit.synced(ticket).assignment, "a share");
    }
    assert_eq!(kit.leave(&Text::default(), Some("a")), ErrorCode::NONE, "an operator removes it by its instance id");
    assert_eq!(kit.state(), State::Preparing);
}

#[test]
fn a_generation_outlives_the_coordinator_that_gave_it() {
    let mut kit = Kit::new();
    let joined = kit.stable(&[new(), new()]);
    kit.take_over();
    assert!(joined.iter().all(|it| kit.heartbeat(&of(it)) == ErrorCode::NONE), "nobody has to join again for that");
    kit.pass(SESSION_MS - 1);
    assert!(joined.iter().all(|it| kit.heartbeat(&of(it)) == ErrorCode::NONE), "all have their whole time again");

    let tickets: Vec<Ticket> =
        joined.iter().map(|it| kit.join(As { protocols: vec![("range", "new")], ..again(&it.member_id) })).collect();
    let next: Vec<_> = tickets.into_iter().map(|ticket| kit.joined(ticket)).collect();
    kit.take_over();
    assert_eq!(
        kit.state(),
        State::Completing,
        "dual-owner: the shares of the last generation are not those of this one"
    );
    let third = kit.join(new());
    let tickets: Vec<Ticket> = next.iter().map(|it| kit.join(again(&it.member_id))).collect();
    for ticket in tickets.into_iter().chain([third]) {
        assert_eq!(kit.joined(ticket).generation_id, 3, "a generation is given once");
    }
}

#[test]
fn a_leave_outlives_the_coordinator_that_answered_it() {
    let mut kit = Kit::new();
    let joined = kit.stable(&[new(), new()]);
    kit.leave(&joined[0].member_id, None);
    kit.take_over();
    assert_eq!(kit.heartbeat(&of(&joined[0])), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(kit.heartbeat(&of(&joined[1])), ErrorCode::REBALANCE_IN_PROGRESS);
    let ticket = kit.join(again(&joined[1].member_id));
    assert_eq!(kit.joined(ticket).generation_id, 2);
}

#[test]
fn members_agree_on_a_protocol_that_all_know() {
    let mut kit = Kit::new();
    let both = |first, second| As { protocols: vec![(first, "x"), (second, "y")], ..new() };
    let joined = kit.stable(&[both("range", "sticky"), both("sticky", "range"), both("sticky", "other")]);
    assert!(joined.iter().all(|it| it.protocol_name.as_deref() == Some("sticky")));
    for wrong in [As { protocols: vec![("range", "x")], ..new() }, As { kind: "connect", ..both("sticky", "range") }] {
        let ticket = kit.join(wrong);
        assert_eq!(kit.joined(ticket).error_code, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    }
    assert_eq!(kit.state(), State::Stable, "whoever was refused has changed nothing");
}

#[test]
fn who_is_no_member_commits_only_where_nobody_is() {
    let mut kit = Kit::new();
    let nobody = MemberOf { generation: -1, ..MemberOf::default() };
    let stranger = MemberOf { member_id: Text::from("x"), generation: 3, instance_id: None };
    assert_eq!(kit.commit(&stranger, 1), ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(kit.commit(&nobody, 1), ErrorCode::NONE);
    assert_eq!(kit.state(), State::Empty);
    kit.take_over();
    assert_eq!(kit.state(), State::Empty, "its offsets keep the group");
    let joined = kit.stable(&[new()]);
    assert_eq!(kit.commit(&nobody, 2), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(kit.commit(&stranger, 2), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(kit.commit(&of(&joined[0]), 2), ErrorCode::NONE);
}
