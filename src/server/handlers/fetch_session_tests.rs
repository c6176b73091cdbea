use bytes::Bytes;

use super::*;
use crate::protocol::value::Records;

fn key(partition: i32) -> Key {
    Key { topic: TopicKey::Id(TopicId([7; 16])), partition }
}

fn want(offset: i64) -> Want {
    Want { offset, max_bytes: 1000, current_epoch: -1, last_fetched_epoch: -1 }
}

fn ask(session_id: i32, session_epoch: i32, partitions: &[i32], forgotten: &[i32]) -> Ask {
    Ask {
        session_id,
        session_epoch,
        uses_ids: true,
        wanted: partitions.iter().map(|partition| (key(*partition), want(0))).collect(),
        forgotten: forgotten.iter().map(|partition| key(*partition)).collect(),
    }
}

fn data(high_watermark: i64, records: &'static [u8]) -> PartitionData {
    let records = Some(Records::from(Bytes::from_static(records)));
    PartitionData { high_watermark, log_start_offset: 0, records, ..Default::default() }
}

fn answers(wanted: &[(Key, Want)], data: impl Fn(i32) -> PartitionData) -> Vec<Answer> {
    let one = |(key, want): &(Key, Want)| Answer { key: key.clone(), want: *want, data: data(key.partition) };
    wanted.iter().map(one).collect()
}

fn partitions(answers: &[Answer]) -> Vec<i32> {
    answers.iter().map(|answer| answer.key.partition).collect()
}

fn run(sessions: &Sessions, ask: Ask, now: Instant, data: impl Fn(i32) -> PartitionData) -> Finished {
    let (ticket, wanted) = sessions.begin(ask, now).expect("the session is as the test says");
    sessions.finish(ticket, answers(&wanted, data), now)
}

fn open(sessions: &Sessions, partitions: &[i32], now: Instant) -> i32 {
    run(sessions, ask(0, 0, partitions, &[]), now, |_| data(0, b"")).session_id
}

#[test]
fn an_incremental_answer_carries_only_what_changed() {
    let (sessions, now) = (Sessions::new(10, 1), Instant::now());
    let id = open(&sessions, &[0, 1, 2], now);
    assert!(id > 0);
    let second = run(&sessions, ask(id, 1, &[], &[]), now, |_| data(0, b""));
    assert_eq!((second.error, second.session_id, second.answers.len()), (ErrorCode::NONE, id, 0));
    let third = run(&sessions, ask(id, 2, &[], &[]), now, |partition| match partition {
        1 => data(5, b"records"),
        2 => data(6, b""),
        _ => data(0, b""),
    });
    assert_eq!(partitions(&third.answers), [1, 2]);
}

#[test]
fn partitions_that_gave_records_go_to_the_end() {
    let (sessions, now) = (Sessions::new(10, 1), Instant::now());
    let id = open(&sessions, &[0, 1, 2], now);
    let _ = run(&sessions, ask(id, 1, &[], &[]), now, |partition| data(3, if partition == 0 { b"x" } else { b"" }));
    let (_, wanted) = sessions.begin(ask(id, 2, &[], &[]), now).unwrap();
    assert_eq!(wanted.iter().map(|(key, _)| key.partition).collect::<Vec<_>>(), [1, 2, 0]);
}

#[test]
fn after_an_error_a_partition_is_told_again_although_nothing_moved() {
    let (sessions, now) = (Sessions::new(10, 1), Instant::now());
    let id = open(&sessions, &[0], now);
    let error = || PartitionData { error_code: ErrorCode::NOT_LEADER_OR_FOLLOWER, ..data(0, b"") };
    assert_eq!(run(&sessions, ask(id, 1, &[], &[]), now, |_| error()).answers.len(), 1);
    assert_eq!(run(&sessions, ask(id, 2, &[], &[]), now, |_| data(0, b"")).answers.len(), 1);
    assert_eq!(run(&sessions, ask(id, 3, &[], &[]), now, |_| data(0, b"")).answers.len(), 0);
}

#[test]
fn added_updated_and_forgotten_partitions_stay_in_the_session() {
    let (sessions, now) = (Sessions::new(10, 1), Instant::now());
    let id = open(&sessions, &[0, 1], now);
    let mut change = ask(id, 1, &[1, 2], &[0]);
    change.wanted[0].1.offset = 40;
    let (_, wanted) = sessions.begin(change, now).unwrap();
    assert_eq!(wanted, [(key(1), want(40)), (key(2), want(0))]);
}

#[test]
fn a_request_out_of_turn_or_of_another_kind_is_refused() {
    let (sessions, now) = (Sessions::new(10, 1), Instant::now());
    let id = open(&sessions, &[0], now);
    let refused = |ask| sessions.begin(ask, now).unwrap_err();
    assert_eq!(refused(ask(id, 2, &[], &[])), ErrorCode::INVALID_FETCH_SESSION_EPOCH);
    let unknown = if id == 77 { 78 } else { 77 };
    assert_eq!(refused(ask(unknown, 1, &[], &[])), ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
    let by_name = Ask { uses_ids: false, ..ask(id, 1, &[], &[]) };
    assert_eq!(refused(by_name), ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
    assert!(sessions.begin(ask(id, 1, &[], &[]), now).is_ok(), "a refusal takes no turn");
}

#[test]
fn an_answer_that_was_overtaken_is_an_epoch_error() {
    let (sessions, now) = (Sessions::new(10, 1), Instant::now());
    let id = open(&sessions, &[0], now);
    let (slow, wanted) = sessions.begin(ask(id, 1, &[], &[]), now).unwrap();
    let _ = run(&sessions, ask(id, 2, &[], &[]), now, |_| data(0, b""));
    let finished = sessions.finish(slow, answers(&wanted, |_| data(9, b"x")), now);
    assert_eq!((finished.error, finished.session_id), (ErrorCode::INVALID_FETCH_SESSION_EPOCH, id));
    assert!(finished.answers.is_empty());
}

#[test]
fn a_session_ends_when_asked_replaced_or_empty() {
    let (sessions, now) = (Sessions::new(10, 1), Instant::now());
    let id = open(&sessions, &[0], now);
    let closed = run(&sessions, ask(id, -1, &[0], &[]), now, |_| data(0, b""));
    assert_eq!((closed.session_id, closed.answers.len(), sessions.count()), (0, 1, 0));

    let id = open(&sessions, &[0], now);
    let replaced = run(&sessions, ask(id, 0, &[0], &[]), now, |_| data(0, b""));
    assert_ne!(replaced.session_id, id);
    assert_eq!(sessions.count(), 1);

    let emptied = run(&sessions, ask(replaced.session_id, 1, &[], &[0]), now, |_| data(0, b""));
    assert_eq!((emptied.error, emptied.session_id, sessions.count()), (ErrorCode::NONE, 0, 0));
}

#[test]
fn an_epoch_wraps_to_one() {
    let (sessions, now) = (Sessions::new(10, 1), Instant::now());
    let id = open(&sessions, &[0], now);
    lock(&lock(&sessions.cache).sessions[&id].session).epoch = i32::MAX;
    assert!(sessions.begin(ask(id, i32::MAX, &[], &[]), now).is_ok());
    assert!(sessions.begin(ask(id, 1, &[], &[]), now).is_ok());
}

#[test]
fn a_full_cache_gives_up_unused_sessions_then_smaller_ones_that_are_not_new() {
    let (sessions, start) = (Sessions::new(2, 1), Instant::now());
    let (small, large) = (open(&sessions, &[0], start), open(&sessions, &[0, 1, 2], start));
    assert_eq!(open(&sessions, &[0, 1], start), 0, "both are new");

    let later = start + EVICTION_AGE + Duration::from_secs(1);
    for id in [small, large] {
        let _ = run(&sessions, ask(id, 1, &[], &[]), later, |_| data(0, b""));
    }
    assert_eq!(open(&sessions, &[5], later), 0, "not larger than any");
    let middle = open(&sessions, &[0, 1], later);
    assert!(middle > 0);
    assert_eq!(sessions.begin(ask(small, 2, &[], &[]), later).unwrap_err(), ErrorCode::FETCH_SESSION_ID_NOT_FOUND);

    let much_later = later + EVICTION_AGE + Duration::from_secs(1);
    assert!(open(&sessions, &[9], much_later) > 0, "nobody uses the others any more");
    assert_eq!(sessions.count(), 2);
}

#[test]
fn of_a_partition_listed_twice_the_first_place_and_the_last_wish_count() {
    let (sessions, now) = (Sessions::new(2, 1), Instant::now());
    let mut twice = ask(0, -1, &[3, 4, 3], &[]);
    twice.wanted[2].1.offset = 30;
    let (_, wanted) = sessions.begin(twice, now).unwrap();
    assert_eq!(wanted, [(key(3), want(30)), (key(4), want(0))]);
}

#[test]
fn names_in_a_session_do_not_pin_the_request() {
    let frame = Bytes::from_static(b"....topic....");
    let name = Text::from_utf8(frame.slice(4..9)).unwrap();
    let mut session = Session::new(false);
    for partition in 0..2 {
        session.insert(Key { topic: TopicKey::Name(name.clone()), partition }, want(0), UNTOLD, UNTOLD);
    }
    let kept = |place: u64| match &session.in_order[&place].key.topic {
        TopicKey::Name(kept) => kept.as_ptr(),
        TopicKey::Id(_) => panic!("named"),
    };
    assert_ne!(kept(0), name.as_ptr());
    assert_eq!(kept(0), kept(1));
}
