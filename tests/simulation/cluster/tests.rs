//! What a cluster must bear.

use std::time::{Duration, Instant};

use super::story::{Act, Closed, Kind, story};
use super::{Outcome, Plan, run};

fn check(plan: &Plan) -> Outcome {
    let outcome = run(plan);
    assert!(outcome.violations.is_empty(), "{plan:#?}: {:#?}", outcome.violations);
    assert!(outcome.struck.missed.is_empty(), "seed {}: never struck: {:?}", plan.seed, outcome.struck.missed);
    let stalls = |act: &Act| matches!(act, Act::Close(_, _, Closed::Stalled));
    let has_stalled = plan.story.iter().flat_map(|scene| &scene.acts).any(|(_, act)| stalls(act));
    // While a cluster is founded there may be nobody who has anything to say.
    assert!(
        !has_stalled || plan.is_early || outcome.held_up > 0,
        "seed {}: nobody wanted to talk while ways were stalled",
        plan.seed
    );
    outcome
}

fn calm(seed: u64) -> Plan {
    Plan { seed, story: Vec::new(), value_bytes: 100, partitions: 3, is_early: false }
}

fn plan(seed: u64, kind: Kind, scenes: usize) -> Plan {
    // Now and then large enough for segments to roll.
    let value_bytes = if seed % 3 == 2 { 2_500 } else { 100 };
    Plan { seed, story: story(seed, kind, scenes), value_bytes, partitions: 2, is_early: false }
}

/// Runs so many scenes of a kind on each seed.
fn stories(kind: Kind, default_seeds: u64, scenes: usize, adjust: fn(&mut Plan)) {
    let (began, mut simulated) = (Instant::now(), Duration::ZERO);
    for seed in crate::seeds(default_seeds) {
        let mut plan = plan(seed, kind, scenes);
        adjust(&mut plan);
        let outcome = check(&plan);
        simulated += outcome.took;
        println!(
            "{kind:?} {seed}: {:?}, {} acked, {} resent, {} epochs, {} compared, {} faults",
            outcome.took, outcome.acked, outcome.resent, outcome.epochs, outcome.compared, outcome.struck.hit
        );
    }
    println!("{kind:?}: {simulated:?} simulated in {:?}", began.elapsed());
}

#[test]
fn three_brokers_found_one_cluster_and_keep_every_record_on_each() {
    let outcome = check(&calm(1));
    assert!(outcome.acked >= 6 * 20, "only {} records", outcome.acked);
    assert_eq!(outcome.resent, 0, "nothing went wrong");
    assert!(outcome.compared > 20, "only {} answers were compared", outcome.compared);
}

#[test]
fn a_cluster_does_the_same_for_the_same_seed() {
    let plan = plan(3, Kind::All, 2);
    let (one, two) = (check(&plan), check(&plan));
    assert_eq!(one.hash, two.hash);
    assert!(one.events >= 1_000, "only {} events", one.events);
    assert_ne!(one.hash, check(&calm(3)).hash, "the hash tells runs apart");
}

#[test]
fn killed_and_stopped_brokers_lose_and_repeat_nothing() {
    stories(Kind::Kills, 1, 2, |_| {});
}

#[test]
fn brokers_that_cannot_talk_tell_nobody_old_news() {
    stories(Kind::Cuts, 1, 2, |_| {});
}

#[test]
fn brokers_without_power_lose_nothing_acknowledged() {
    stories(Kind::Power, 1, 2, |_| {});
}

#[test]
fn a_broker_that_lost_its_disk_is_filled_by_the_others() {
    stories(Kind::Wipe, 1, 1, |_| {});
}

#[test]
fn full_disks_lose_nothing_acknowledged() {
    stories(Kind::Full, 1, 2, |_| {});
}

#[test]
fn one_cluster_is_founded_whatever_happens_meanwhile() {
    stories(Kind::Founding, 1, 2, |plan| plan.is_early = true);
}

#[test]
fn all_faults_together_lose_nothing_acknowledged() {
    stories(Kind::All, 1, 3, |_| {});
}
