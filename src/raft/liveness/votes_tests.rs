//! Who stands for election, and when.

use std::collections::BTreeSet;

use super::tests::{FOLLOWS, Three, group, ms};
use super::*;

#[test]
fn a_leader_that_starts_again_is_replaced_at_once() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    let died = three.now;
    (1..3).for_each(|broker| assert!(three.brokers[broker].doubt(BrokerId(1), died)));
    three.run(ms(50), &[1, 2]);
    three.brokers[0] = three.born(0, 2);
    let voters = vec![BTreeSet::from([BrokerId(1), BrokerId(2), BrokerId(3)])];
    three.brokers[0].open(group(1), voters, Vec::new(), None);
    let mut first = None;
    while first.is_none() {
        three.run(ms(10), &[0, 1, 2]);
        first = three.elections().first().map(|_| three.now - died);
    }
    let first = first.unwrap();
    assert!(first <= ms(50) + BEAT_EVERY * 2 + RETRY, "nobody waits for what was promised to the last life: {first:?}");
}

#[test]
fn one_that_answers_in_a_new_life_leads_no_more_before_it_says_anything_itself() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    let before = three.brokers[1].beat(BrokerId(1), three.now);
    let late = three.brokers[0].heard(BrokerId(2), before, three.now, |_| FOLLOWS).unwrap();
    assert!(three.brokers[1].doubt(BrokerId(1), three.now));
    three.brokers[0] = three.born(0, 2);
    three.now += ms(10);
    let beat = three.brokers[1].beat(BrokerId(1), three.now);
    let ack = three.brokers[0].heard(BrokerId(2), beat, three.now, |_| None).unwrap();
    three.brokers[1].acked(BrokerId(1), ack, three.now);
    let (told, leader) = (three.brokers[1].told_leader(group(1), three.now), three.brokers[1].leader(group(1)));
    assert_eq!((told, leader), (None, None), "its last life led");
    // What that has still said is not heard any more, and its beats go on from there.
    let late = Ack { sent: three.now + peer::BACK_AFTER, ..late };
    assert_eq!(three.brokers[1].acked(BrokerId(1), late.clone(), three.now), Reached::default());
    three.send_later(0, 1);
    assert!(three.brokers[1].is_alive(BrokerId(1)));
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(5));
    three.send_later(0, 1);
    // Nor is that of a life nobody had heard of, whose answer was sent for before this one was heard; nor that of another broker at its address.
    let unheard = Ack { sent: ms(1), by: Some((BrokerId(1), 4711)), ..late.clone() };
    let strange = Ack { sent: three.now + ms(300), by: Some((BrokerId(3), 4711)), ..late };
    for ack in [unheard, strange] {
        assert_eq!(three.brokers[1].acked(BrokerId(1), ack, three.now), Reached::default());
        assert_eq!(three.brokers[1].told_leader(group(1), three.now), Some((BrokerId(1), Term(5))));
    }
}

#[test]
fn a_beat_that_was_under_way_when_connections_ended_is_no_sign_of_life() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    three.now += ms(1);
    let last = three.brokers[0].beat(BrokerId(2), three.now);
    assert!(three.brokers[1].doubt(BrokerId(1), three.now));
    three.now += ms(20);
    assert!(three.brokers[1].heard(BrokerId(1), last, three.now, |_| FOLLOWS).is_some());
    assert_eq!(three.brokers[1].told_leader(group(1), three.now), None);
    // It was but the connection.
    three.now += BEAT_EVERY;
    three.send_later(0, 1);
    assert_eq!(three.brokers[1].told_leader(group(1), three.now), Some((BrokerId(1), Term(4))));
}

#[test]
fn whoever_should_lead_stands_first_and_then_the_next_of_those_that_live() {
    for (order, lives, first) in [
        (&[2, 3, 1][..], &[0, 1, 2][..], 1),
        (&[3, 1, 2], &[0, 1, 2], 2),
        (&[2, 3, 1], &[0, 2], 2),
        (&[2, 1, 3], &[0, 2], 0),
        // One of the order is no voter (any more), and one voter is not in it.
        (&[9, 3], &[0, 1, 2], 2),
    ] {
        let mut three = Three::new();
        three.run(ms(1000), lives);
        let voters = vec![BTreeSet::from([BrokerId(1), BrokerId(2), BrokerId(3)])];
        let order: Vec<BrokerId> = order.iter().copied().map(BrokerId).collect();
        three.brokers.iter_mut().for_each(|broker| broker.open(group(1), voters.clone(), order.clone(), None));
        let mut standing = Vec::new();
        while standing.is_empty() {
            three.run(ms(10), lives);
            standing = three.elections();
        }
        assert_eq!(standing, [first], "{order:?} of {lives:?}");
    }
}

#[test]
fn a_silence_is_noticed_when_it_is_long_enough_and_not_at_the_next_beat() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    let alone = &mut three.brokers[1];
    let at = alone.suspects_at().unwrap();
    assert!(at > three.now && at <= three.now + SUSPECT_AFTER, "{at:?}");
    let mut now = three.now;
    while now + BEAT_EVERY < at {
        now += BEAT_EVERY;
        alone.due(now, &mut |_| 0);
    }
    alone.due(at - ms(1), &mut |_| 0);
    assert!(alone.is_alive(BrokerId(1)));
    alone.due(at, &mut |_| 0);
    assert!(!alone.is_alive(BrokerId(1)));
    assert_eq!(alone.suspects_at(), None, "nobody is left to be suspected");
}

#[test]
fn one_that_was_elected_is_waited_for_until_it_is_heard_to_lead_and_no_longer_than_it_lives() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(2000), &[0, 1, 2]);
    let is_over = |three: &Three, term| three.brokers[2].is_over(group(1), Term(term), BrokerId(1), three.now);
    assert!(is_over(&three, 4), "it was heard to lead: the claim says whether it does");
    assert!(!is_over(&three, 5), "it may have just been elected");
    three.run(SUSPECT_AFTER + ms(10), &[1, 2]);
    assert!(is_over(&three, 5), "it is dead");
    three.brokers[0] = three.born(0, 2);
    three.run(BEAT_EVERY * 2, &[0, 1, 2]);
    assert!(is_over(&three, 5), "it was elected in an earlier life, if it was");
    three.run(ms(1000), &[0, 1, 2]);
    assert!(!is_over(&three, 6));
}

#[test]
fn who_stood_still_itself_hears_the_others_before_it_suspects_them() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    // Beats go on, and are not read.
    three.now += ms(2000);
    let woken = &mut three.brokers[1];
    woken.due(three.now, &mut |_| 0);
    assert!(woken.is_alive(BrokerId(1)));
    let at = woken.suspects_at().unwrap();
    assert!(at > three.now && at <= three.now + BEAT_EVERY, "{at:?}");
    woken.due(at, &mut |_| 0);
    assert!(!woken.is_alive(BrokerId(1)), "it has had its time");
}
