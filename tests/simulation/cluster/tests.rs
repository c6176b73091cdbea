//! What a cluster must bear.

use std::time::{Duration, Instant};

use super::story::{Kind, story};
use super::{Outcome, Plan, run};

fn check(plan: &Plan) -> Outcome {
    let outcome = run(plan);
    assert!(outcome.violations.is_empty(), "{plan:#?}: {:#?}", outcome.violations);
    assert!(outcome.struck.missed.is_empty(), "seed {}: never struck: {:?}", plan.seed, outcome.struck.missed);
    outcome
}

fn calm(seed: u64) -> Plan {
    Plan { seed, story: Vec::new(), value_bytes: 100, partitions: 3 }
}

#[test]
fn three_brokers_found_one_cluster_and_keep_every_record_on_each() {
    let outcome = check(&calm(1));
    assert!(outcome.acked >= 6 * 20, "only {} records", outcome.acked);
    assert_eq!(outcome.resent, 0, "nothing went wrong");
    assert!(outcome.compared > 20, "only {} answers were compared", outcome.compared);
    println!("took {:?}, {} events, {} epochs", outcome.took, outcome.events, outcome.epochs);
}

#[test]
fn a_cluster_does_the_same_for_the_same_seed() {
    let (one, two) = (check(&calm(2)), check(&calm(2)));
    assert_eq!(one.hash, two.hash);
}

/// Runs so many scenes of a kind on each seed.
fn stories(kind: Kind, default_seeds: u64, scenes: usize) {
    let (began, mut simulated) = (Instant::now(), Duration::ZERO);
    for seed in crate::seeds(default_seeds) {
        let value_bytes = if seed % 3 == 0 { 2_500 } else { 100 };
        let plan = Plan { seed, story: story(seed, kind, scenes), value_bytes, partitions: 3 };
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
fn killed_and_stopped_brokers_lose_and_repeat_nothing() {
    stories(Kind::Kills, 2, 3);
}

#[test]
fn brokers_that_cannot_talk_tell_nobody_old_news() {
    stories(Kind::Cuts, 2, 3);
}

#[test]
fn brokers_without_power_lose_nothing_acknowledged() {
    stories(Kind::Power, 2, 3);
}

#[test]
fn a_broker_that_lost_its_disk_is_filled_by_the_others() {
    stories(Kind::Wipe, 1, 2);
}

#[test]
fn all_faults_together_lose_nothing_acknowledged() {
    stories(Kind::All, 2, 4);
}
