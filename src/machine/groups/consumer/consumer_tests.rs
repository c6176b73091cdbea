//! The consumer protocol, as members see it.

use std::collections::BTreeSet;

use super::super::Effects;
use super::super::classic::MemberOf;
use super::super::offsets::ReaderOf;
use super::Heartbeat;
use super::record::Partitions;
use super::test_kit::{Client, Kit, REBALANCE_MS, SESSION_MS, client, group, of, texts};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;

#[test]
fn the_first_member_has_everything_at_once() {
    let mut kit = Kit::new(&[("t", 3), ("u", 2)]);
    let mut a = client("a");
    let told = kit.told(a.beat());
    assert_eq!((told.member_epoch, told.heartbeat_interval_ms, told.member_id.as_deref()), (2, 5_000, Some("a")));
    assert!(a.take(&told));
    assert_eq!(a.numbers(), [0, 1, 2]);
    assert_eq!(kit.described().group_state, "Stable");
    let again = kit.told(Heartbeat { owned: None, ..a.beat() });
    assert_eq!((again.member_epoch, again.assignment), (2, None), "nothing has changed, nothing is told");
}

#[test]
fn a_partition_changes_hands_when_it_was_given_up() {
    let mut kit = Kit::new(&[("t", 4)]);
    let (mut a, mut b) = (client("a"), client("b"));
    kit.beat(&mut a);
    let told = kit.told(b.beat());
    assert_eq!(told.heartbeat_interval_ms, 502, "it waits, and asks again soon");
    b.take(&told);
    assert_eq!((b.numbers(), b.epoch), (vec![], 3), "all is in use");
    let before = a.clone();
    assert!(kit.beat(&mut a));
    assert_eq!((a.numbers().len(), a.epoch), (2, 2), "it has to give up half, at its old epoch");
    assert!(!kit.beat(&mut b), "nobody has said that it has given up");
    let still = kit.told(Heartbeat { owned: Some(before.has), ..a.beat() });
    assert_eq!((still.member_epoch, still.assignment), (2, None));
    assert!(!kit.beat(&mut b));
    kit.beat(&mut a);
    assert_eq!(a.epoch, 3);
    assert!(kit.beat(&mut b));
    assert_eq!((b.numbers().len(), kit.described().group_state.as_ref()), (2, "Stable"));
}

#[test]
fn whoever_takes_over_knows_where_everybody_is() {
    let mut kit = Kit::new(&[("t", 6)]);
    let (mut a, mut b, mut c) = (client("a"), client("b"), client("c"));
    for step in 0..40 {
        kit.take_over();
        kit.beat(&mut a);
        if step > 3 {
            kit.beat(&mut b);
        }
        if step > 6 {
            kit.beat(&mut c);
        }
    }
    assert_eq!(kit.settle(&mut [&mut a, &mut b, &mut c]), 0);
    assert!([&a, &b, &c].iter().all(|client| client.numbers().len() == 2));
    let epoch = kit.described().group_epoch;
    kit.take_over();
    kit.settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(kit.described().group_epoch, epoch, "no rebalance for that alone");
}

#[test]
fn who_is_silent_is_out_and_who_does_not_give_up_too() {
    let mut kit = Kit::new(&[("t", 2)]);
    let (mut a, mut b) = (client("a"), client("b"));
    kit.settle(&mut [&mut a]);
    kit.settle(&mut [&mut a, &mut b]);
    kit.pass(SESSION_MS - 1);
    kit.beat(&mut b);
    kit.pass(1);
    assert_eq!(kit.told(a.beat()).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    kit.settle(&mut [&mut b]);
    assert_eq!(b.numbers(), [0, 1]);
    // It shows itself, but holds on to what it should give up.
    a = client("a");
    kit.beat(&mut a);
    let all = b.has.clone();
    for _ in 0..REBALANCE_MS / 5_000 {
        let told = kit.told(Heartbeat { owned: Some(all.clone()), ..b.beat() });
        assert_eq!((told.error_code, told.member_epoch), (ErrorCode::NONE, b.epoch));
        kit.beat(&mut a);
        kit.pass(5_000);
    }
    assert_eq!(kit.told(b.beat()).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    kit.settle(&mut [&mut a]);
    assert_eq!(a.numbers(), [0, 1]);
}

#[test]
fn a_lost_answer_does_no_harm_and_a_wrong_epoch_is_fenced() {
    let mut kit = Kit::new(&[("t", 2)]);
    let mut a = client("a");
    let lost = kit.told(a.beat());
    let again = kit.told(a.beat());
    assert_eq!((&again.member_epoch, &again.assignment), (&lost.member_epoch, &lost.assignment));
    a.take(&again);
    for epoch in [a.epoch + 1, i32::MAX] {
        let fenced = kit.told(Heartbeat { epoch, ..a.beat() });
        assert_eq!(fenced.error_code, ErrorCode::FENCED_MEMBER_EPOCH);
    }
    let mut b = client("b");
    kit.beat(&mut b);
    kit.beat(&mut a);
    let old = a.clone();
    kit.settle(&mut [&mut a, &mut b]);
    // Of the epoch before, with no more than it has.
    assert_eq!(kit.told(old.beat()).error_code, ErrorCode::NONE);
    let all = Partitions::from([(*a.has.keys().next().unwrap(), BTreeSet::from([0, 1]))]);
    assert_eq!(kit.told(Heartbeat { owned: Some(all), ..old.beat() }).error_code, ErrorCode::FENCED_MEMBER_EPOCH);
    assert_eq!(kit.told(Heartbeat { owned: None, ..old.beat() }).error_code, ErrorCode::FENCED_MEMBER_EPOCH);
}

#[test]
fn a_fenced_member_joins_again_at_once() {
    let mut kit = Kit::new(&[("t", 4)]);
    let (mut a, mut b, mut c) = (client("a"), client("b"), client("c"));
    kit.settle(&mut [&mut a]);
    kit.settle(&mut [&mut a, &mut b]);
    kit.settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(kit.told(Heartbeat { epoch: a.epoch + 1, ..a.beat() }).error_code, ErrorCode::FENCED_MEMBER_EPOCH);
    let (epoch, had) = (a.epoch, a.numbers());
    a = client("a");
    kit.beat(&mut a);
    assert_eq!((a.epoch, a.numbers()), (epoch, had), "nothing has changed for the others");
    assert_eq!(kit.described().group_state, "Stable");
    // It was to give up half of what it has: whoever joins has nothing, so that others may have it.
    a = client("a");
    kit.leave(&b, -1);
    kit.leave(&c, -1);
    kit.settle(&mut [&mut a]);
    b = client("b");
    kit.beat(&mut b);
    kit.beat(&mut a);
    a = client("a");
    kit.beat(&mut a);
    assert!(kit.beat(&mut b));
    assert_eq!((a.numbers().len(), b.numbers().len(), a.epoch), (2, 2, b.epoch));
}

#[test]
fn members_leave_and_the_last_one_leaves_an_empty_group() {
    let mut kit = Kit::new(&[("t", 2)]);
    let (mut a, mut b) = (client("a"), client("b"));
    kit.settle(&mut [&mut a]);
    kit.settle(&mut [&mut a, &mut b]);
    assert_eq!(kit.leave(&a, -1), ErrorCode::NONE);
    assert_eq!(kit.leave(&a, -1), ErrorCode::UNKNOWN_MEMBER_ID);
    kit.settle(&mut [&mut b]);
    assert_eq!(b.numbers(), [0, 1]);
    assert_eq!(kit.leave(&b, -1), ErrorCode::NONE);
    assert_eq!((kit.described().group_state.as_ref(), kit.described().members.len()), ("Empty", 0));
    let (mut out, ticket) = (Effects::default(), kit.ticket());
    kit.coordinator.delete(&group(), &kit.committed, ticket, &mut out);
    kit.done(out);
    assert_eq!(kit.code(ticket), ErrorCode::NONE);
    assert_eq!((kit.committed.bytes(), kit.described().error_code), (0, ErrorCode::GROUP_ID_NOT_FOUND));
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut kit = Kit::new(&[("t", 4)]);
    let (mut a, mut b) = (Client { instance: Some("i"), ..client("a") }, client("b"));
    kit.settle(&mut [&mut a]);
    kit.settle(&mut [&mut a, &mut b]);
    let (epoch, had) = (kit.described().group_epoch, a.has.clone());
    let mut new = Client { id: "a2", epoch: 0, has: Partitions::new(), ..a.clone() };
    assert_eq!(kit.told(new.beat()).error_code, ErrorCode::UNRELEASED_INSTANCE_ID, "the old one has not left");
    assert_eq!(kit.leave(&a, -2), ErrorCode::NONE);
    assert_eq!(kit.told(a.beat()).error_code, ErrorCode::FENCED_MEMBER_EPOCH);
    assert!(!kit.beat(&mut b), "nobody takes what it had");
    kit.take_over();
    assert!(kit.beat(&mut new));
    assert_eq!((&new.has, kit.described().group_epoch), (&had, epoch), "no rebalance");
    assert_eq!(kit.told(a.beat()).error_code, ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(
        kit.told(Heartbeat { instance_id: Some("j".into()), ..a.beat() }).error_code,
        ErrorCode::UNKNOWN_MEMBER_ID
    );
    kit.settle(&mut [&mut new, &mut b]);
    // The same client under its old id.
    assert_eq!(kit.leave(&new, -2), ErrorCode::NONE);
    let mut same = Client { epoch: 0, has: Partitions::new(), ..new.clone() };
    assert_eq!(kit.told(same.beat()).error_code, ErrorCode::NONE, "the answer is lost");
    assert!(kit.beat(&mut same));
    assert_eq!((&same.has, kit.described().group_epoch), (&had, epoch), "no rebalance");
    new = same;
    // One member is not two instances.
    assert_eq!(kit.leave(&new, -2), ErrorCode::NONE);
    let taken = kit.told(Heartbeat {
        epoch: 0,
        instance_id: new.instance.map(Text::from),
        owned: Some(Partitions::new()),
        topics: Some(texts(&["t"])),
        rebalance_timeout_ms: REBALANCE_MS,
        ..b.beat()
    });
    assert_eq!(taken.error_code, ErrorCode::UNRELEASED_INSTANCE_ID);
    new = Client { epoch: 0, has: Partitions::new(), ..new };
    kit.settle(&mut [&mut new, &mut b]);
    // One who does not come back is out some time.
    assert_eq!(kit.leave(&new, -2), ErrorCode::NONE);
    kit.pass(SESSION_MS / 2);
    kit.beat(&mut b);
    kit.pass(SESSION_MS / 2);
    kit.settle(&mut [&mut b]);
    assert_eq!(b.numbers(), [0, 1, 2, 3]);
}

#[test]
fn topics_that_come_grow_and_go_are_shared_out() {
    let mut kit = Kit::new(&[("t", 1), ("orders-1", 1), ("other", 1)]);
    let mut a = Client { topics: vec!["t", "later"], ..client("a") };
    let mut b = Client { topics: vec![], regex: Some("orders-.*"), ..client("b") };
    kit.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.numbers().len(), b.numbers().len()), (1, 1));
    kit.topics.set("later", 2);
    kit.topics.set("orders-2", 2);
    kit.topics.set("t", 3);
    kit.pass(2_000);
    kit.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.numbers().len(), b.numbers().len()), (5, 3));
    kit.topics.delete("t");
    kit.topics.delete("orders-1");
    kit.pass(2_000);
    kit.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.numbers().len(), b.numbers().len()), (2, 2));
    let epoch = kit.described().group_epoch;
    kit.topics.set("nobody-reads", 2);
    kit.pass(2_000);
    kit.settle(&mut [&mut a, &mut b]);
    assert_eq!(kit.described().group_epoch, epoch);
    // Another subscription.
    let told = kit.told(Heartbeat { topics: Some(texts(&["other"])), ..a.beat() });
    a.take(&told);
    kit.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.numbers(), b.numbers().len()), (vec![0], 2));
    let told = kit.told(Heartbeat { regex: Some("".into()), topics: Some(texts(&["orders-2", "other"])), ..b.beat() });
    b.take(&told);
    kit.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.numbers().len(), 2);
}

#[test]
fn bad_requests_change_nothing() {
    let mut kit = Kit::new(&[("t", 1)]);
    let a = client("a");
    let beat = |change: fn(&mut Heartbeat)| {
        let mut beat = client("a").beat();
        change(&mut beat);
        beat
    };
    let invalid: [fn(&mut Heartbeat); 8] = [
        |beat| beat.member_id = "".into(),
        |beat| beat.rebalance_timeout_ms = -1,
        |beat| beat.owned = None,
        |beat| beat.topics = None,
        |beat| beat.instance_id = Some("".into()),
        |beat| beat.rack_id = Some("".into()),
        |beat| beat.epoch = -3,
        |beat| beat.epoch = -2,
    ];
    for change in invalid {
        assert_eq!(kit.told(beat(change)).error_code, ErrorCode::INVALID_REQUEST);
    }
    let of = [
        (beat(|beat| beat.assignor = Some("sticky".into())), ErrorCode::UNSUPPORTED_ASSIGNOR),
        (beat(|beat| beat.epoch = 1), ErrorCode::GROUP_ID_NOT_FOUND),
        (beat(|beat| beat.epoch = -1), ErrorCode::GROUP_ID_NOT_FOUND),
    ];
    for (beat, code) in of {
        assert_eq!(kit.told(beat).error_code, code);
    }
    assert_eq!(kit.committed.bytes(), 0);
    kit.settle(&mut [&mut a.clone()]);
    assert_eq!(kit.told(Heartbeat { epoch: 1, ..client("b").beat() }).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_group_has_bounded_expressions_and_bytes() {
    let mut kit = Kit::new(&[("t", 1)]);
    let join = |id: usize, regex: String, topics: Vec<Text>| Heartbeat {
        member_id: format!("m{id}").into(),
        regex: Some(regex.into()),
        topics: Some(topics),
        ..client("m").beat()
    };
    let codes: BTreeSet<ErrorCode> =
        (0..101).map(|at| kit.told(join(at, format!("t{at}"), vec![])).error_code).collect();
    assert_eq!(codes, BTreeSet::from([ErrorCode::NONE, ErrorCode::INVALID_REGULAR_EXPRESSION]));
    assert_eq!(kit.described().members.len(), 100);
    let many: Vec<Text> = (0..40_000).map(|at| format!("{at:0>240}").into()).collect();
    assert_eq!(kit.told(join(200, String::new(), many)).error_code, ErrorCode::GROUP_MAX_SIZE_REACHED);
}

#[test]
fn offsets_are_taken_of_what_the_member_had_at_its_epoch() {
    let mut kit = Kit::new(&[("t", 2)]);
    let (mut a, mut b) = (client("a"), client("b"));
    kit.settle(&mut [&mut a]);
    assert_eq!(kit.commit("a", 2, 0), ErrorCode::NONE);
    assert_eq!(kit.commit("a", 3, 0), ErrorCode::STALE_MEMBER_EPOCH);
    assert_eq!(kit.commit("", -1, 0), ErrorCode::UNKNOWN_MEMBER_ID);
    kit.settle(&mut [&mut a, &mut b]);
    let (mine, others) = (a.numbers()[0], b.numbers()[0]);
    assert_eq!(a.epoch, 3);
    assert_eq!(kit.commit("a", 2, mine), ErrorCode::NONE, "its own ever since");
    assert_eq!(kit.commit("a", 2, others), ErrorCode::STALE_MEMBER_EPOCH, "zombie-commit");
    assert_eq!(kit.commit("b", 2, others), ErrorCode::STALE_MEMBER_EPOCH, "not at that epoch");
    let fetch = |kit: &Kit, member: Option<&str>, epoch| {
        let reader = ReaderOf { member_id: member.map(Text::from), epoch };
        kit.coordinator.fetch(&group(), &reader, None, &kit.committed).map(|found| found.is_empty())
    };
    assert_eq!(fetch(&kit, None, -1), Ok(false));
    assert_eq!(fetch(&kit, Some("a"), 3), Ok(false));
    assert_eq!(fetch(&kit, Some("a"), 2), Err(ErrorCode::STALE_MEMBER_EPOCH));
    assert_eq!(fetch(&kit, Some("z"), 1), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!((kit.leave(&a, -1), kit.leave(&b, -1)), (ErrorCode::NONE, ErrorCode::NONE));
    assert_eq!(kit.commit("", -1, 0), ErrorCode::NONE, "nobody is there");
}

#[test]
fn what_another_had_meanwhile_is_not_committed_as_of_before() {
    let mut kit = Kit::new(&[("t", 6)]);
    let (mut a, mut b) = (Client { instance: Some("i"), ..client("a") }, client("b"));
    kit.settle(&mut [&mut a]);
    kit.settle(&mut [&mut a, &mut b]);
    let old_epoch = a.epoch;
    // Another comes in its place, and at a later epoch it comes back in that one's.
    assert_eq!(kit.leave(&a, -2), ErrorCode::NONE);
    let mut other = Client { id: "other", epoch: 0, has: Partitions::new(), ..a.clone() };
    let mut c = client("c");
    kit.settle(&mut [&mut other, &mut b, &mut c]);
    assert_eq!(kit.leave(&other, -2), ErrorCode::NONE);
    a = Client { epoch: 0, has: Partitions::new(), ..a };
    kit.settle(&mut [&mut a, &mut b, &mut c]);
    let mine = a.numbers()[0];
    assert_eq!(kit.commit("a", a.epoch, mine), ErrorCode::NONE);
    assert_eq!(kit.commit("a", old_epoch, mine), ErrorCode::STALE_MEMBER_EPOCH, "zombie-commit");
}

#[test]
fn most_members_choose_the_assignor() {
    let mut kit = Kit::new(&[("t", 4), ("u", 4)]);
    let range = |id| Client { assignor: Some("range"), topics: vec!["t", "u"], ..client(id) };
    let (mut a, mut b) = (range("a"), range("b"));
    kit.settle(&mut [&mut a]);
    kit.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.numbers(), b.numbers()), (vec![0, 1, 0, 1], vec![2, 3, 2, 3]));
    assert_eq!(kit.described().assignor_name, "range");
}

#[test]
fn a_classic_group_migrates_member_by_member_and_back() {
    let mut kit = Kit::new(&[("t", 4)]);
    let joined = kit.join("", &[]);
    let id = joined.member_id.clone();
    assert_eq!(kit.sync(&joined, &[(&id, &[0, 1, 2, 3])]), Ok(vec![0, 1, 2, 3]));
    // The first of the new protocol comes: the others are told to join again, and go on meanwhile.
    let mut new = client("new");
    kit.beat(&mut new);
    assert_eq!(new.numbers(), [0; 0]);
    assert_eq!(kit.classic_heartbeat(&joined), ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(kit.commit(&id, joined.generation_id, 0), ErrorCode::NONE);
    kit.take_over();
    // Cooperative: it says what it has, gives up what it is not told to keep, and joins once more.
    let joined = kit.join(&id, &[0, 1, 2, 3]);
    let keeps = kit.sync(&joined, &[]).unwrap();
    assert_eq!(keeps.len(), 2);
    assert!(!kit.beat(&mut new), "dual-owner");
    assert_eq!(kit.classic_heartbeat(&joined), ErrorCode::REBALANCE_IN_PROGRESS);
    let joined = kit.join(&id, &keeps);
    assert_eq!(kit.sync(&joined, &[]), Ok(keeps.clone()));
    assert!(kit.beat(&mut new));
    assert_eq!((new.numbers().len(), kit.described().group_state.as_ref()), (2, "Stable"));
    assert!(new.numbers().iter().all(|partition| !keeps.contains(partition)), "dual-owner");
    assert_eq!(kit.classic_heartbeat(&joined), ErrorCode::NONE);
    assert_eq!(kit.described().members.iter().map(|it| it.member_type).collect::<Vec<_>>(), [0, 1]);
    // The last of the new protocol leaves: it is a classic group again.
    assert_eq!(kit.leave(&new, -1), ErrorCode::NONE);
    assert_eq!(kit.described().error_code, ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(kit.classic_heartbeat(&joined), ErrorCode::REBALANCE_IN_PROGRESS, "it is of the present generation");
    assert_eq!(kit.commit(&id, joined.generation_id, 0), ErrorCode::NONE);
    kit.take_over();
    let joined = kit.join(&id, &keeps);
    assert_eq!((joined.error_code, &joined.leader), (ErrorCode::NONE, &id));
    assert_eq!(kit.sync(&joined, &[(&id, &[0, 1, 2, 3])]), Ok(vec![0, 1, 2, 3]));
}

#[test]
fn a_static_member_whose_place_is_taken_is_told_so_when_it_commits() {
    let mut kit = Kit::new(&[("t", 2)]);
    kit.settle(&mut [&mut client("new")]);
    let old = MemberOf { instance_id: Some("i".into()), ..of(&kit.join_as("", Some("i"), &[])) };
    let taken = kit.join_as("", Some("i"), &[]);
    assert_eq!(taken.error_code, ErrorCode::NONE);
    // Told that it is unknown, it would take its place back, and so would the other, for ever: the one that runs twice.
    assert_eq!(kit.commit_as(old.clone(), 0), ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(kit.commit_as(MemberOf { instance_id: None, ..old.clone() }, 0), ErrorCode::UNKNOWN_MEMBER_ID);
    let other = MemberOf { instance_id: Some("j".into()), ..old };
    assert_eq!(kit.commit_as(other, 0), ErrorCode::UNKNOWN_MEMBER_ID);
    let now = MemberOf { instance_id: Some("i".into()), ..of(&taken) };
    assert_eq!(kit.commit_as(now, 0), ErrorCode::NONE);
}

#[test]
fn members_of_the_old_protocol_that_do_not_come_along_are_out() {
    let mut kit = Kit::new(&[("t", 2)]);
    let joined = kit.join("", &[]);
    let id = joined.member_id.clone();
    kit.sync(&joined, &[(&id, &[0, 1])]).unwrap();
    let mut new = client("new");
    kit.beat(&mut new);
    // It shows itself but does not join again.
    for _ in 0..REBALANCE_MS / 5_000 {
        assert_eq!(kit.classic_heartbeat(&joined), ErrorCode::REBALANCE_IN_PROGRESS);
        kit.beat(&mut new);
        kit.pass(5_000);
    }
    assert_eq!(kit.classic_heartbeat(&joined), ErrorCode::UNKNOWN_MEMBER_ID);
    kit.settle(&mut [&mut new]);
    assert_eq!(new.numbers(), [0, 1]);
}

#[test]
fn what_a_cooperative_member_has_still_to_give_up_is_nobody_elses_in_a_migration() {
    let mut kit = Kit::new(&[("t", 4)]);
    let joined = kit.join("", &[]);
    let id = joined.member_id.clone();
    kit.sync(&joined, &[(&id, &[0, 1, 2, 3])]).unwrap();
    // It joins with all it has, and is told to keep half: it has not heard of that yet.
    let joined = kit.join(&id, &[0, 1, 2, 3]);
    kit.sync(&joined, &[(&id, &[0, 1])]).unwrap();
    let mut new = client("new");
    kit.beat(&mut new);
    assert_eq!(new.numbers(), [0; 0], "dual-owner");
    assert_eq!(kit.classic_heartbeat(&joined), ErrorCode::REBALANCE_IN_PROGRESS);
    let joined = kit.join(&id, &[0, 1]);
    assert_eq!(kit.sync(&joined, &[]), Ok(vec![0, 1]));
    kit.beat(&mut new);
    assert_eq!(new.numbers(), [2, 3]);
}

#[test]
fn who_may_not_join_leaves_a_group_as_it_was() {
    let mut kit = Kit::new(&[("t", 2)]);
    let a = client("a");
    kit.settle(&mut [&mut a.clone()]);
    kit.leave(&a, -1);
    assert_eq!(kit.join("zombie", &[]).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!((kit.described().error_code, kit.described().group_state.as_ref()), (ErrorCode::NONE, "Empty"));
}

#[test]
fn what_is_left_of_a_group_does_not_bind_those_who_come() {
    let mut kit = Kit::new(&[("t", 2)]);
    let mut a = client("a");
    kit.settle(&mut [&mut a]);
    kit.leave(&a, -1);
    let joined = kit.join("", &[]);
    assert_eq!((joined.error_code, &joined.leader), (ErrorCode::NONE, &joined.member_id), "a classic group now");
    let id = joined.member_id.clone();
    kit.sync(&joined, &[(&id, &[0, 1])]).unwrap();
    assert!(kit.coordinator.describe(&group()).is_some());
    kit.pass(10_000);
    a.epoch = 0;
    kit.settle(&mut [&mut a]);
    assert_eq!(a.numbers(), [0, 1], "and one of the consumer protocol again");
}

#[test]
fn many_members_that_come_at_once_are_given_their_shares_soon() {
    let mut kit = Kit::new(&[("t", 300)]);
    let ids: Vec<&'static str> = (0..60).map(|at| &*Box::leak(format!("m{at}").into_boxed_str())).collect();
    let mut clients: Vec<Client> = ids.into_iter().map(client).collect();
    for client in &mut clients {
        kit.beat(client);
    }
    kit.pass(10);
    for _ in 0..4 {
        for client in &mut clients {
            kit.beat(client);
        }
        kit.pass(10);
    }
    assert!(clients.iter().all(|client| client.numbers().len() == 5));
    assert_eq!(kit.described().group_state, "Stable");
}
