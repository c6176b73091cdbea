//! Three brokers and the groups that they share, with time and the network in the tests' hands.

use super::*;
use crate::ids::{PartitionIndex, TopicId};

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn group(number: i32) -> PartitionId {
    PartitionId { topic: TopicId([5; 16]), partition: PartitionIndex(number) }
}

/// How a replica stands that has voted for nobody yet.
pub(super) const FOLLOWS: Option<Stand> = Some((Term(0), BrokerId(0)));

/// Brokers 1 to 3, all with replicas of the groups that are opened.
pub(super) struct Three {
    pub(super) brokers: Vec<Liveness>,
    pub(super) now: Duration,
    /// Who cannot be heard by whom.
    cut: BTreeSet<(usize, usize)>,
    due: Vec<(usize, Due)>,
}

impl Three {
    pub(super) fn new() -> Self {
        let mut three = Self { brokers: Vec::new(), now: ms(1000), cut: BTreeSet::new(), due: Vec::new() };
        for broker in 0..3 {
            three.brokers.push(three.born(broker, 1));
        }
        three
    }

    pub(super) fn born(&self, broker: usize, boot: u64) -> Liveness {
        let id = |broker: usize| BrokerId(i32::try_from(broker).unwrap() + 1);
        let mut born = Liveness::new(id(broker), boot, self.now);
        (0..3).for_each(|other| born.add_peer(id(other), self.now));
        born
    }

    pub(super) fn open(&mut self, group: PartitionId) {
        let voters = vec![BTreeSet::from([BrokerId(1), BrokerId(2), BrokerId(3)])];
        self.brokers.iter_mut().for_each(|broker| broker.open(group, voters.clone(), Vec::new(), None));
    }

    /// Time passes, and beats go where they can, of those that live.
    pub(super) fn run(&mut self, time: Duration, lives: &[usize]) {
        let end = self.now + time;
        let mut draw = |below: u64| below / 2;
        while self.now < end {
            if self.now.as_millis().is_multiple_of(BEAT_EVERY.as_millis()) {
                for (from, to) in lives.iter().flat_map(|from| lives.iter().map(move |to| (*from, *to))) {
                    self.send(from, to);
                }
            }
            for broker in lives {
                let due = self.brokers[*broker].due(self.now, &mut draw);
                self.due.extend(due.into_iter().map(|due| (*broker, due)));
            }
            self.now += ms(10);
        }
    }

    fn send(&mut self, from: usize, to: usize) {
        if from == to || self.cut.contains(&(from, to)) {
            return;
        }
        let (sender, receiver) = (self.brokers[from].me, self.brokers[to].me);
        let beat = self.brokers[from].beat(receiver, self.now);
        let Some(ack) = self.brokers[to].heard(sender, beat, self.now, |_| FOLLOWS) else { return };
        if !self.cut.contains(&(to, from)) {
            self.brokers[from].acked(receiver, ack, self.now);
        }
    }

    /// A beat a little later than the last.
    pub(super) fn send_later(&mut self, from: usize, to: usize) {
        self.now += ms(1);
        self.send(from, to);
    }

    pub(super) fn elections(&mut self) -> Vec<usize> {
        let due = std::mem::take(&mut self.due);
        due.into_iter().filter(|(_, due)| matches!(due, Due::Elect(_))).map(|(broker, _)| broker).collect()
    }
}

#[test]
fn a_group_that_is_claimed_is_left_alone_and_everybody_knows_its_leader() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[1].claim(group(1), Term(4));
    three.run(ms(5000), &[0, 1, 2]);
    assert!(three.elections().is_empty());
    for broker in &three.brokers {
        assert_eq!(broker.leader(group(1)), Some((BrokerId(2), Term(4))));
    }
    assert!(three.brokers[1].has_lease(group(1), three.now));
    assert!(!three.brokers[0].has_lease(group(1), three.now), "it claims nothing");
}

#[test]
fn followers_of_a_dead_leader_stand_for_election_once_its_lease_is_over() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(3000), &[0, 1, 2]);
    let died = three.now;
    while three.due.iter().all(|(_, due)| !matches!(due, Due::Elect(_))) {
        three.run(ms(10), &[1, 2]);
    }
    assert!(!three.brokers[0].has_lease(group(1), three.now), "nobody stands while the dead one could still serve");
    assert!(three.now <= died + PROMISE + RETRY, "{:?}", three.now - died);
    let refused = three.brokers[2].refuses(group(1), BrokerId(2), three.now);
    assert_eq!(refused, None);
    three.brokers[1].claim(group(1), Term(5));
    three.run(ms(300), &[1, 2]);
    three.elections();
    three.run(ms(2000), &[1, 2]);
    assert!(three.elections().is_empty());
}

#[test]
fn a_leader_that_is_cut_off_loses_its_lease_before_another_can_be_elected() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    for cut in [vec![(0, 1), (1, 0), (0, 2), (2, 0)], vec![(0, 1), (0, 2)], vec![(1, 0), (2, 0)]] {
        three.cut = BTreeSet::new();
        three.run(ms(3000), &[0, 1, 2]);
        three.cut = cut.into_iter().collect();
        for _ in 0..300 {
            three.run(ms(10), &[0, 1, 2]);
            let free = |voter: usize, candidate| three.brokers[voter].refuses(group(1), candidate, three.now).is_none();
            let can_elect = free(1, BrokerId(3)) || free(2, BrokerId(2));
            assert!(!(can_elect && three.brokers[0].has_lease(group(1), three.now)), "at {:?}", three.now);
        }
        assert!(!three.brokers[0].has_lease(group(1), three.now));
    }
}

#[test]
fn between_two_that_cannot_talk_the_third_lets_neither_take_the_others_leadership() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(3000), &[0, 1, 2]);
    three.cut = BTreeSet::from([(0, 1), (1, 0)]);
    three.run(ms(3000), &[0, 1, 2]);
    assert!(three.elections().contains(&1), "it does not hear the leader");
    assert!(three.brokers[2].refuses(group(1), BrokerId(2), three.now).is_some());
    assert!(three.brokers[0].has_lease(group(1), three.now), "a majority hears it");
}

#[test]
fn a_leader_that_is_back_in_a_new_life_must_claim_anew() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(3000), &[0, 1, 2]);
    // Back before anybody suspects it.
    three.brokers[0] = three.born(0, 2);
    three.run(ms(1500), &[0, 1, 2]);
    let elections = three.elections();
    assert!(elections.contains(&1) && elections.contains(&2), "{elections:?}");
    assert!(!three.due.iter().any(|(broker, _)| *broker == 0), "it has no replica open yet");
}

#[test]
fn who_has_just_started_elects_nobody_for_as_long_as_it_may_have_promised() {
    let mut three = Three::new();
    three.open(group(1));
    let refused = |three: &Three| three.brokers[1].refuses(group(1), BrokerId(1), three.now).is_some();
    assert!(refused(&three));
    three.run(PROMISE, &[0, 1, 2]);
    assert!(!refused(&three));
    assert!(three.elections().is_empty(), "nor does anybody ask for votes that nobody would give");
    three.run(ms(200), &[0, 1, 2]);
    assert!(!three.elections().is_empty());
}

#[test]
fn an_ack_of_one_that_follows_another_gives_no_lease() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    let now = three.now;
    for to in [1, 2] {
        let receiver = three.brokers[to].me;
        let beat = three.brokers[0].beat(receiver, now);
        let ack = three.brokers[to].heard(BrokerId(1), beat, now, |_| Some((Term(5), BrokerId(3)))).unwrap();
        assert_eq!(ack.refused, Some(vec![group(1)]));
        three.brokers[0].acked(receiver, ack, three.now);
    }
    assert!(!three.brokers[0].has_lease(group(1), now));
    // An ack from before the claim was known does not count either.
    three.brokers[0].claim(group(2), Term(1));
    three.open(group(2));
    assert!(!three.brokers[0].has_lease(group(2), now));
}

#[test]
fn claims_reach_a_peer_as_changes_and_anew_when_it_missed_some() {
    let mut three = Three::new();
    let alone = vec![BTreeSet::from([BrokerId(1)])];
    for number in 0..10_000 {
        three.brokers[0].open(group(number), alone.clone(), Vec::new(), None);
    }
    for number in 0..100 {
        three.brokers[0].claim(group(number), Term(1));
    }
    three.send_later(0, 1);
    three.send_later(0, 1);
    let quiet = three.brokers[0].beat(BrokerId(2), three.now);
    assert!(quiet.claimed.is_empty() && quiet.withdrawn.is_empty());
    three.brokers[0].withdraw(group(3));
    three.brokers[0].claim(group(4), Term(2));
    let change = three.brokers[0].beat(BrokerId(2), three.now);
    assert_eq!((change.claimed.clone(), change.withdrawn.clone()), (vec![(group(4), Term(2))], vec![group(3)]));
    three.send_later(0, 1);
    assert_eq!(three.brokers[1].leader(group(3)), None);
    assert_eq!(three.brokers[1].leader(group(4)), Some((BrokerId(1), Term(2))));
    // Another life of the receiver knows nothing, whatever the sender takes it to know.
    three.brokers[1] = three.born(1, 2);
    three.send_later(0, 1);
    three.send_later(0, 1);
    assert_eq!(three.brokers[1].leader(group(99)), Some((BrokerId(1), Term(1))));
    assert_eq!(three.brokers[1].peers[&BrokerId(1)].claims.len(), 99);
    // More changes than are remembered.
    for number in 100..10_000 {
        three.brokers[0].claim(group(number), Term(1));
    }
    three.send_later(0, 1);
    assert_eq!(three.brokers[1].peers[&BrokerId(1)].claims.len(), 9999);
}

#[test]
fn a_beat_of_a_stranger_is_not_answered_and_a_late_ack_changes_nothing() {
    let mut three = Three::new();
    let beat = three.brokers[0].beat(BrokerId(2), three.now);
    assert_eq!(three.brokers[1].heard(BrokerId(9), beat, three.now, |_| FOLLOWS), None);
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(1));
    three.run(ms(1000), &[0, 1, 2]);
    let refused = Some(vec![group(1)]);
    let late =
        Ack { to: 7, sent: three.now + ms(5000), version: 0, refusals: 1, refused, unheard: Vec::new(), by: None };
    three.brokers[0].acked(BrokerId(2), late.clone(), three.now);
    three.brokers[0].acked(BrokerId(3), Ack { sent: ms(1), to: 1, ..late }, three.now);
    assert!(three.brokers[0].has_lease(group(1), three.now));
}

#[test]
fn who_has_voted_for_another_agrees_to_no_earlier_claim() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    let refused = |three: &mut Three, term| {
        three.now += ms(1);
        three.brokers[0].claim(group(1), term);
        three.send(0, 1);
        !three.brokers[0].peers[&BrokerId(2)].gives_lease(group(1), 1, three.now)
    };
    let (one, other) = (BrokerId(1), BrokerId(3));
    three.brokers[1].vote(group(1), other, Term(5));
    three.brokers[1].vote(group(1), one, Term(5));
    assert!(refused(&mut three, Term(4)));
    three.brokers[1].did_not_vote(group(1), one, Term(5));
    assert!(refused(&mut three, Term(4)), "it may have voted for the other");
    three.brokers[1].did_not_vote(group(1), other, Term(5));
    assert!(!refused(&mut three, Term(4)));
    three.brokers[1].vote(group(1), other, Term(6));
    assert!(refused(&mut three, Term(5)));
    assert!(!refused(&mut three, Term(6)), "that is whom it voted for");
    assert!(!refused(&mut three, Term(7)));
}

#[test]
fn a_claim_that_is_refused_is_no_leader_and_binds_nobody() {
    let mut three = Three::new();
    three.open(group(1));
    three.run(ms(700), &[0, 1, 2]);
    three.elections();
    // Both others have voted in a later term, which came to nothing.
    for voter in [1, 2] {
        three.brokers[voter].vote(group(1), BrokerId(2), Term(5));
    }
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    assert!(!three.brokers[0].has_lease(group(1), three.now));
    let elections = three.elections();
    assert!(elections.contains(&1) && elections.contains(&2), "{elections:?}");
    assert_eq!(three.brokers[2].refuses(group(1), BrokerId(2), three.now), None);
}

#[test]
fn a_replica_that_is_not_open_gives_no_lease() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    assert!(three.brokers[0].has_lease(group(1), three.now));
    three.brokers[1].close(group(1));
    three.brokers[2].close(group(1));
    three.run(ms(1000), &[0, 1, 2]);
    assert!(!three.brokers[0].has_lease(group(1), three.now));
    assert!(three.brokers[1].refuses(group(1), BrokerId(3), three.now).is_some());
}

#[test]
fn a_replica_that_voted_before_it_was_restarted_agrees_to_no_earlier_claim() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    let voters = vec![BTreeSet::from([BrokerId(1), BrokerId(2), BrokerId(3)])];
    for broker in [1, 2] {
        three.brokers[broker] = three.born(broker, 2);
        three.brokers[broker].open(group(1), voters.clone(), Vec::new(), Some(Term(5)));
    }
    three.run(ms(500), &[0, 1, 2]);
    assert!(!three.brokers[0].has_lease(group(1), three.now), "its core may not have said yet how it stands");
}

#[test]
fn a_beat_that_comes_late_changes_nothing() {
    let mut three = Three::new();
    three.open(group(1));
    let late = three.brokers[0].beat(BrokerId(2), three.now);
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(500), &[0, 1, 2]);
    assert_eq!(three.brokers[1].heard(BrokerId(1), late.clone(), three.now, |_| FOLLOWS), None);
    assert_eq!(three.brokers[1].leader(group(1)), Some((BrokerId(1), Term(4))));
    three.brokers[0] = three.born(0, 2);
    three.run(ms(500), &[0, 1, 2]);
    let of_the_last_life = Beat { sent: three.now, ..late };
    assert_eq!(three.brokers[1].heard(BrokerId(1), of_the_last_life, three.now, |_| FOLLOWS), None);
}

#[test]
fn a_leader_hears_of_a_later_one_and_gives_its_own_vote_to_nobody_while_it_serves() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    assert!(three.brokers[0].refuses(group(1), BrokerId(3), three.now).is_some());
    three.brokers[2].claim(group(1), Term(5));
    three.run(ms(300), &[0, 2]);
    assert!(!three.brokers[0].has_lease(group(1), three.now));
}

#[test]
fn an_only_voter_serves_at_once_and_one_that_is_joined_by_others_needs_them() {
    let mut three = Three::new();
    let alone = vec![BTreeSet::from([BrokerId(1)])];
    three.brokers[0].open(group(1), alone, Vec::new(), None);
    three.run(ms(20), &[0]);
    assert_eq!(three.elections(), [0]);
    three.brokers[0].claim(group(1), Term(1));
    assert!(three.brokers[0].has_lease(group(1), three.now));
    three.brokers[0].set_voters(group(1), vec![BTreeSet::from([BrokerId(1), BrokerId(2), BrokerId(3)])]);
    assert!(!three.brokers[0].has_lease(group(1), three.now));
}

#[test]
fn a_follower_in_a_new_life_is_told_what_is_committed() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(5000), &[0, 1, 2]);
    three.due.clear();
    three.brokers[1] = three.born(1, 2);
    three.run(ms(500), &[0, 1, 2]);
    let told = |three: &Three| three.due.iter().filter(|due| **due == (0, Due::Heartbeat(group(1)))).count();
    assert_eq!(told(&three), 1);
    three.run(ms(10_000), &[0, 1, 2]);
    assert_eq!(told(&three), 3, "it may not have opened the group when it was told first, and is not told for ever");
}

#[test]
fn a_leader_that_is_not_heard_is_told_by_those_who_hear_it() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    three.cut = BTreeSet::from([(0, 1), (1, 0)]);
    three.run(ms(2000), &[0, 1, 2]);
    assert_eq!(three.brokers[1].leader(group(1)), None, "it is not heard");
    assert_eq!(three.brokers[1].told_leader(group(1), three.now), Some((BrokerId(1), Term(4))));
    assert!(three.brokers[1].is_heard_of(BrokerId(1), three.now) && !three.brokers[1].is_alive(BrokerId(1)));
    assert!(three.brokers[0].has_lease(group(1), three.now), "one of the others is enough");
    assert!(three.brokers[2].refuses(group(1), BrokerId(2), three.now).is_some(), "nobody takes it away");
    // When nobody hears it any more nobody tells of it.
    three.run(ms(3000), &[1, 2]);
    assert_eq!(three.brokers[1].told_leader(group(1), three.now), None);
    assert!(!three.brokers[1].is_heard_of(BrokerId(1), three.now));
}

#[test]
fn nobody_is_sent_to_a_leader_whose_connections_have_ended() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    let under_way = three.brokers[1].beat(BrokerId(1), three.now);
    let late = three.brokers[0].heard(BrokerId(2), under_way, three.now, |_| FOLLOWS).unwrap();
    three.now += ms(10);
    assert!(three.brokers[1].doubt(BrokerId(1), three.now));
    assert!(!three.brokers[1].doubt(BrokerId(1), three.now), "that is no news");
    three.brokers[1].acked(BrokerId(1), late, three.now);
    assert_eq!(three.brokers[1].told_leader(group(1), three.now), None);
    assert!(three.brokers[1].refuses(group(1), BrokerId(3), three.now).is_some(), "what was promised holds");
    // It was but the connection.
    three.run(ms(200), &[0, 1, 2]);
    assert_eq!(three.brokers[1].told_leader(group(1), three.now), Some((BrokerId(1), Term(4))));
    assert!(three.elections().is_empty());
}

#[test]
fn groups_that_rest_are_not_looked_at_with_each_beat() {
    let mut three = Three::new();
    for number in 0..100 {
        three.open(group(number));
        three.brokers[0].claim(group(number), Term(4));
    }
    three.run(ms(1000), &[0, 1, 2]);
    let looked = std::cell::Cell::new(0);
    let footing = |three: &Three| three.brokers[0].footing(three.now);
    let before = footing(&three);
    for _ in 0..50 {
        three.now += BEAT_EVERY;
        let beat = three.brokers[0].beat(BrokerId(2), three.now);
        let stands = |_| {
            looked.set(looked.get() + 1);
            FOLLOWS
        };
        let ack = three.brokers[1].heard(BrokerId(1), beat, three.now, stands).unwrap();
        three.brokers[0].acked(BrokerId(2), ack, three.now);
        three.send(0, 2);
    }
    assert!(looked.get() <= 1000, "{} looks in 50 beats", looked.get());
    assert_eq!(footing(&three), before, "its leases are what they were");
    assert!(three.brokers[0].has_lease(group(7), three.now));
}

#[test]
fn whatever_changes_a_lease_changes_what_it_stands_on() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    type Change = fn(&mut Three);
    let changes: [(&str, Change); 8] = [
        ("acks are old", |three| three.now += LEASE),
        ("acks are new", |three| three.run(ms(300), &[0, 1, 2])),
        ("a vote", |three| three.brokers[0].vote(group(1), BrokerId(2), Term(5))),
        ("no vote", |three| three.brokers[0].did_not_vote(group(1), BrokerId(2), Term(5))),
        ("others vote", |three| {
            (1..3).for_each(|broker| three.brokers[broker].vote(group(1), BrokerId(2), Term(5)));
            three.run(ms(100), &[0, 1, 2]);
        }),
        ("others' claims", |three| {
            three.brokers[1].claim(group(1), Term(5));
            three.run(ms(100), &[0, 1, 2]);
        }),
        ("withdrawn", |three| three.brokers[0].withdraw(group(1))),
        ("voters", |three| three.brokers[0].set_voters(group(1), vec![BTreeSet::from([BrokerId(1)])])),
    ];
    let (mut footing, mut seen) = (three.brokers[0].footing(three.now), Vec::new());
    for (what, change) in changes {
        change(&mut three);
        let now = three.brokers[0].footing(three.now);
        assert_ne!(now, footing, "{what}");
        footing = now;
        seen.push(three.brokers[0].has_lease(group(1), three.now));
    }
    assert_eq!(seen[..5], [false, true, false, true, false]);
}

#[test]
fn a_vote_is_seen_in_the_very_next_ack_and_what_was_promised_before_holds() {
    let mut three = Three::new();
    three.open(group(1));
    three.brokers[0].claim(group(1), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    assert!(three.brokers[0].has_lease(group(1), three.now));
    let answered = three.now;
    (1..3).for_each(|broker| three.brokers[broker].vote(group(1), BrokerId(2), Term(5)));
    three.send_later(0, 1);
    three.send_later(0, 2);
    assert!(!three.brokers[0].has_lease(group(1), three.now));
    let refused = |three: &Three, now| three.brokers[1].refuses(group(1), BrokerId(3), now).is_some();
    assert!(refused(&three, answered + PROMISE - BEAT_EVERY - ms(1)));
    assert!(!refused(&three, answered + PROMISE));
    // It did not vote after all: it agrees again, and promises anew.
    (1..3).for_each(|broker| three.brokers[broker].did_not_vote(group(1), BrokerId(2), Term(5)));
    three.send_later(0, 1);
    assert!(three.brokers[0].has_lease(group(1), three.now));
    assert!(refused(&three, three.now + PROMISE - ms(1)));
}

#[test]
fn a_follower_that_can_be_reached_again_is_reached_once() {
    let mut three = Three::new();
    three.open(group(1));
    three.open(group(2));
    three.brokers[0].claim(group(1), Term(4));
    three.brokers[0].claim(group(2), Term(4));
    three.run(ms(1000), &[0, 1, 2]);
    let reached = |three: &mut Three| {
        three.now += BEAT_EVERY;
        let beat = three.brokers[0].beat(BrokerId(3), three.now);
        let ack = three.brokers[2].heard(BrokerId(1), beat, three.now, |_| FOLLOWS).unwrap();
        three.brokers[0].acked(BrokerId(3), ack, three.now)
    };
    let (nothing, back) = (Reached::default(), Reached { is_back: true, opened: Vec::new() });
    assert_eq!(reached(&mut three), nothing, "it always was");
    // A group that is opened.
    three.brokers[2].close(group(2));
    (0..3).for_each(|_| assert_eq!(reached(&mut three), nothing, "it is refused"));
    let voters = vec![BTreeSet::from([BrokerId(1), BrokerId(2), BrokerId(3)])];
    three.brokers[2].open(group(2), voters, Vec::new(), None);
    assert_eq!(reached(&mut three), Reached { is_back: false, opened: vec![group(2)] });
    assert_eq!(reached(&mut three), nothing);
    // A broker that was away.
    three.now += peer::BACK_AFTER;
    assert_eq!(reached(&mut three), back);
    assert_eq!(reached(&mut three), nothing);
    // A group that is not led here any more.
    three.brokers[2].close(group(2));
    assert_eq!(reached(&mut three), nothing);
    three.brokers[0].withdraw(group(2));
    assert_eq!(reached(&mut three), nothing);
}

#[test]
fn who_was_away_too_briefly_to_be_missed_has_just_come_all_the_same() {
    let mut three = Three::new();
    three.run(ms(5000), &[0, 1, 2]);
    let for_so_long = |three: &Three| three.brokers[1].heard_for(BrokerId(1), three.now).unwrap();
    assert!(for_so_long(&three) >= ms(4500));
    three.run(ms(200), &[1, 2]);
    three.brokers[0] = three.born(0, 2);
    three.run(ms(500), &[0, 1, 2]);
    assert!(for_so_long(&three) <= ms(500), "a new life, though nobody missed the last one");
    three.run(ms(3000), &[0, 1, 2]);
    three.run(ms(1000), &[1, 2]);
    assert_eq!(three.brokers[1].heard_for(BrokerId(1), three.now), None);
    three.run(ms(700), &[0, 1, 2]);
    assert!(for_so_long(&three) <= ms(700), "the same life, after a break");
}
