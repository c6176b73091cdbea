//! Bugs that a cluster's checks must catch: each is planted in the brokers that ship, or in the disks below them, and caught by what clients saw.
//!
//! A bug has a story that gives it its chance. The same story on the same seeds must be clean without it.

use std::time::Duration;

use ottla::flaws::Flaw;

use super::story::{Act, Closed, FIRST, FORMER, LEADER, OTHER, SECOND, Scene, after_rest, between};
use super::{Plan, run};

/// Seeds that a bug has to be caught on.
const SEEDS_MAX: u64 = 24;

/// What shows that records are gone, or were there too soon: no broker's own assertion, and nothing that is only late.
const LOST: &[&str] =
    &["lost-write", "unseen", "inconsistent-offset", "read-past-hw", "stale-read", "offset-vs-realtime"];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at_once(act: Act) -> (Duration, Act) {
    (ms(0), act)
}

/// Runs seeds with the bug until clients see what it is to be caught as, and each of them without it too.
fn caught(what: &str, ids: &[&str], plan: impl Fn(u64) -> (Plan, Plan)) {
    for seed in 0..SEEDS_MAX {
        let (flawed, sound) = plan(seed);
        let outcome = run(&sound);
        assert!(outcome.violations.is_empty(), "{what}: seed {seed} without the bug: {:#?}", outcome.violations);
        assert!(outcome.struck.missed.is_empty(), "{what}: seed {seed}: never struck: {:?}", outcome.struck.missed);
        assert!(!sound.trims || outcome.moved_starts > 0, "{what}: seed {seed}: nothing was ever deleted");
        let violations = run(&flawed).violations;
        let found = violations.iter().find(|violation| ids.iter().any(|id| violation.starts_with(id)));
        let Some(found) = found else {
            println!("{what}: seed {seed}: not caught; {:?}", violations.first());
            continue;
        };
        println!("{what}: caught with {} seeds, {} violations: {found}", seed + 1, violations.len());
        return;
    }
    panic!("{what} is not caught in {SEEDS_MAX} seeds");
}

fn flaw_caught(flaw: Flaw, ids: &[&str], plan: impl Fn(u64) -> Plan) {
    caught(&format!("{flaw:?}"), ids, |seed| {
        let mut sound = plan(seed);
        sound.story = after_rest(sound.story);
        (Plan { flaw: Some(flaw), ..sound.clone() }, sound)
    });
}

/// Everything loses its power at once, after two of three disks have lied.
fn all_dark(seed: u64) -> Vec<Scene> {
    let dark = (ms(700 + seed * 37), Act::Power(vec![0, 1, 2]));
    vec![Scene::new(vec![at_once(Act::Lie(0)), at_once(Act::Lie(1)), dark], ms(1_500), ms(1_000))]
}

/// The third broker is cut off while the first, whose disk lies, loses its power; when both are back, the second is gone, which alone has what was
/// acknowledged meanwhile.
fn one_dark_then_another_gone(seed: u64) -> Vec<Scene> {
    let mut acts: Vec<_> = [between(2, 0, Closed::Lost), between(2, 1, Closed::Lost)].concat();
    acts.extend([(ms(100), Act::Lie(0)), (ms(900 + seed * 61), Act::Power(vec![0]))]);
    let first = Scene::new(acts, ms(1_000), ms(1));
    vec![first, Scene::new(vec![at_once(Act::Kill(vec![1]))], ms(4_000), ms(500))]
}

fn disks_caught(what: &str, story: fn(u64) -> Vec<Scene>) {
    caught(what, LOST, |seed| {
        let mut sound = story(seed);
        sound.iter_mut().for_each(|scene| scene.acts.retain(|(_, act)| !matches!(act, Act::Lie(_))));
        (Plan::new(seed, story(seed)), Plan::new(seed, sound))
    });
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn two_disks_that_lie_are_caught() {
    disks_caught("two disks lie", all_dark);
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn one_disk_that_lies_is_caught_when_another_broker_was_away() {
    disks_caught("one disk lies", one_dark_then_another_gone);
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn acknowledging_before_the_sync_is_caught() {
    flaw_caught(Flaw::AckBeforeSync, LOST, |seed| {
        let slow = |broker| at_once(Act::SlowDisk(broker, 60));
        let dark = (ms(900 + seed * 37), Act::Power(vec![0, 1, 2]));
        Plan::new(seed, vec![Scene::new(vec![slow(0), slow(1), slow(2), dark], ms(1_500), ms(1_000))])
    });
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn acknowledging_before_a_majority_has_it_is_caught() {
    flaw_caught(Flaw::AckBeforeMajority, LOST, |seed| Plan::new(seed, vec![leader_cut_off(seed)]));
}

/// The leader is cut off from both others, and not from its clients.
fn leader_cut_off(seed: u64) -> Scene {
    let closed = if seed.is_multiple_of(2) { Closed::Stalled } else { Closed::Lost };
    let acts = [between(LEADER, FIRST, closed), between(LEADER, SECOND, closed)].concat();
    Scene::new(acts, ms(3_000 + seed * 131), ms(1_000)).casts()
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn a_replica_that_has_forgotten_and_votes_is_caught() {
    flaw_caught(Flaw::ForgottenVotes, LOST, |seed| {
        // One is away while another loses its page cache; when both are back, the third is gone, which alone has what was acknowledged.
        let mut acts: Vec<_> = [between(SECOND, LEADER, Closed::Lost), between(SECOND, FIRST, Closed::Lost)].concat();
        acts.push((ms(900 + seed * 61), Act::Power(vec![LEADER])));
        let first = Scene::new(acts, ms(1_000), ms(1));
        let second = Scene::new(vec![at_once(Act::Kill(vec![FIRST]))], ms(4_000), ms(500));
        Plan { configs: &[("ottla.durability", "page-cache")], ..Plan::new(seed, vec![first, second]) }
    });
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn serving_past_the_high_watermark_is_caught() {
    flaw_caught(Flaw::ServedPastHighWatermark, LOST, |seed| Plan::new(seed, vec![leader_cut_off(seed)]));
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn giving_offsets_again_after_a_restart_is_caught() {
    flaw_caught(Flaw::OffsetsReused, LOST, |seed| {
        let kill = (ms(1_700 + seed * 97), Act::Kill(vec![0, 1, 2]));
        Plan::new(seed, vec![Scene::new(vec![kill], ms(2_000), ms(1_000))])
    });
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn a_leader_that_goes_on_in_its_old_term_is_caught() {
    flaw_caught(Flaw::LeaderRestored, LOST, |seed| {
        let scene = |nth: u64| {
            let acts = vec![at_once(Act::SlowDisk(LEADER, 250)), (ms(800 + (seed + nth) * 41), Act::Blink(LEADER))];
            Scene::new(acts, ms(2_500), ms(1_000)).casts()
        };
        // Clients are back before anybody else is elected.
        Plan { patience: ms(150), ..Plan::new(seed, (0..4).map(scene).collect()) }
    });
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn an_overlay_that_survives_a_refused_proposal_is_caught() {
    flaw_caught(Flaw::OverlaySurvives, LOST, |seed| {
        // A replica is replaced while batches are under way: entries of Raft's own come between them, and what was to stand there is refused.
        let wipe = (ms(seed * 29), Act::Wipe(FIRST));
        Plan::new(seed, vec![Scene::new(vec![wipe], ms(1_500), ms(4_000)), leader_cut_off(seed)])
    });
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn taking_a_dead_leader_on_record_for_one_is_caught() {
    flaw_caught(Flaw::LeaderOnRecord, &["availability-gap"], |seed| {
        let scene = Scene::new(vec![at_once(Act::Kill(vec![LEADER]))], ms(6_000), ms(500)).serves();
        Plan { patience: ms(300), ..Plan::new(seed, vec![scene]) }
    });
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn a_checkpoint_ahead_of_its_log_is_caught() {
    flaw_caught(Flaw::CheckpointAhead, &["availability-gap"], |seed| {
        // Syncs of a replica's logs hang, those of its journal go on. It loses what it has not synced, which is nothing that counts: with the leader's
        // it is a majority when the third is gone.
        let scene = |nth: u64| {
            let blinks = 900 + (seed * 3 + nth) * 37;
            let acts = vec![
                at_once(Act::SlowDisk(FIRST, 1_500)),
                (ms(30), Act::SlowDisk(FIRST, 3)),
                (ms(blinks), Act::Blink(FIRST)),
                (ms(blinks + 60), Act::Kill(vec![SECOND])),
            ];
            Scene::new(acts, ms(blinks + 6_000), ms(2_500)).casts().serves()
        };
        Plan { value_bytes: 14_000, partitions: 6, patience: ms(300), ..Plan::new(seed, (0..3).map(scene).collect()) }
    });
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn reading_without_a_lease_is_caught() {
    flaw_caught(Flaw::ReadWithoutLease, &["stale-read"], |seed| Plan::new(seed, vec![leader_cut_off(seed)]));
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn a_log_start_that_only_its_leader_knows_is_caught() {
    flaw_caught(Flaw::LogStartNotReplicated, &["log-start-regress"], |seed| {
        let kill = (ms(2_000 + seed * 53), Act::Kill(vec![LEADER]));
        Plan { trims: true, ..Plan::new(seed, vec![Scene::new(vec![kill], ms(5_000), ms(500))]) }
    });
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn a_vote_in_spite_of_a_promise_is_caught() {
    flaw_caught(Flaw::VoteDespitePromise, &["stale-read", "offset-vs-realtime"], |seed| {
        let scene = |nth: u64| {
            let acts = between(LEADER, SECOND, Closed::Stalled).to_vec();
            Scene::new(acts, ms(4_000 + (seed + nth) * 37), ms(1_500)).casts()
        };
        // A group that is written to refuses votes by itself: this one rests between its batches. Who writes finds a new leader at once.
        let often = Plan { rest: ms(750), producers: 1, asks_anew: true, ..Plan::new(seed, Vec::new()) };
        Plan { patience: ms(300), story: (0..5).map(scene).collect(), ..often }
    });
}

#[test]
#[ignore = "slow where nothing is optimised: tests/simulation/run has it"]
fn votes_that_are_not_stored_are_caught() {
    flaw_caught(Flaw::VoteNotStored, LOST, |seed| {
        // The leader is away, and another is elected by the third. That one starts again among those who do not know.
        let acts = [between(LEADER, FIRST, Closed::Lost), between(LEADER, SECOND, Closed::Lost)].concat();
        let first = Scene::new(acts, ms(3_000 + seed * 71), ms(1)).goes_on();
        let mut acts = between(LEADER, OTHER, Closed::Lost).to_vec();
        acts.extend([at_once(Act::Open(FORMER, OTHER)), at_once(Act::Open(OTHER, FORMER))]);
        acts.push(at_once(Act::Restart(OTHER)));
        let second = Scene::new(acts, ms(5_000), ms(1_000)).casts();
        Plan::new(seed, vec![first, second])
    });
}
