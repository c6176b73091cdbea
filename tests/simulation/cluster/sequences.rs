//! What befalls leaders, each by itself: they die while everybody remembers them, come back too soon and with less, stop within a process that lives,
//! or are cut off from one of two.

use std::cell::Cell;
use std::time::Duration;

use super::story::{Act, Closed, FIRST, LEADER, SECOND, Scene, after_rest, between};
use super::tests::check;
use super::{Outcome, Plan};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at_once(act: Act) -> (Duration, Act) {
    (ms(0), act)
}

/// Clients do not wait long for whoever does not answer: a gap is not theirs.
fn one_scene(seed: u64, scene: Scene) -> Plan {
    Plan { patience: ms(300), ..Plan::new(seed, after_rest(vec![scene])) }
}

/// Runs a plan on each seed.
fn each(default_seeds: u64, plan: impl Fn(u64) -> Plan, also: impl Fn(u64, &Outcome)) {
    for seed in crate::seeds(default_seeds) {
        let outcome = check(&plan(seed));
        also(seed, &outcome);
        println!("seed {seed}: {:?}, {} acked, {} epochs", outcome.took, outcome.acked, outcome.epochs);
    }
}

/// The core of each follower goes on to name the one that is dead: in a group that rests nothing else tells it. Somebody else leads all the same, long before
/// the dead one is back.
#[test]
fn a_dead_leader_whose_id_stays_set_is_replaced() {
    let plan = |seed| {
        let kill = at_once(Act::Kill(vec![LEADER]));
        Plan { rest: ms(1_500), ..one_scene(seed, Scene::new(vec![kill], ms(9_000), ms(500))) }
    };
    each(2, plan, |seed, outcome| assert!(outcome.epochs >= 2, "seed {seed}: nobody else led"));
    // Written to all the time, it is served again within two seconds.
    let plan = |seed| one_scene(seed, Scene::new(vec![at_once(Act::Kill(vec![LEADER]))], ms(4_000), ms(500)).serves());
    each(2, plan, |seed, outcome| assert!(outcome.epochs >= 2, "seed {seed}: nobody else led"));
}

/// It is back before anybody suspects it, and its log has lost what it had not synced, which the others have: it must not lead on.
#[test]
fn a_leader_that_is_back_before_it_is_suspected_with_a_shorter_log_leads_a_new_term() {
    let plan = |seed| {
        let acts = vec![at_once(Act::SlowDisk(LEADER, 250)), (ms(1_000 + seed * 41), Act::Blink(LEADER))];
        Plan { patience: ms(150), ..one_scene(seed, Scene::new(acts, ms(4_000), ms(500)).serves()) }
    };
    let lost = Cell::new(0);
    each(2, plan, |seed, outcome| {
        // A sync may have just ended, with nothing behind it.
        lost.set(lost.get() + outcome.struck.unsynced);
        assert!(outcome.epochs >= 2, "seed {seed}: it led on in its old term");
    });
    assert!(lost.get() > 0, "nothing was ever lost");
}

/// Its process lives and sends signs of life, and its cores do not work any more: it does not claim what they led, and others do. All three name them, the one
/// with the dead cores too.
#[test]
fn a_dead_core_in_a_live_process_is_replaced() {
    let plan = |seed| {
        let scene = Scene::new(vec![at_once(Act::Cores(LEADER))], ms(5_000 + seed * 17), ms(500));
        Plan { tells: true, ..one_scene(seed, scene.serves()) }
    };
    each(2, plan, |seed, outcome| assert!(outcome.epochs >= 2, "seed {seed}: nobody else led"));
}

/// Two of three cannot talk, and both reach the third: nobody's leadership has to change, and none does.
#[test]
fn a_cut_between_two_of_three_changes_no_leader() {
    let plan = |seed| {
        let acts = between(LEADER, [FIRST, SECOND][usize::from(seed % 2 == 1)], closed(seed)).to_vec();
        Plan { partitions: 3, ..one_scene(seed, Scene::new(acts, ms(8_000), ms(1_000)).serves().keeps_leaders()) }
    };
    each(4, plan, |seed, outcome| assert!(outcome.epochs >= 3, "seed {seed}: not every partition was led"));
}

/// As above: clients that ask any of the three, one that does not hear a leader among them, are told who leads.
#[test]
fn a_cut_between_two_of_three_hides_no_leader() {
    let plan = |seed| {
        let acts = between(LEADER, [FIRST, SECOND][usize::from(seed % 2 == 1)], closed(seed)).to_vec();
        Plan { partitions: 3, tells: true, ..one_scene(seed, Scene::new(acts, ms(8_000), ms(1_000)).serves()) }
    };
    each(2, plan, |_, _| {});
}

fn closed(seed: u64) -> Closed {
    if seed % 4 < 2 { Closed::Lost } else { Closed::Stalled }
}
