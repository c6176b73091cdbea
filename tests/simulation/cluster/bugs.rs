//! Bugs that a cluster's checks must catch: each is planted below the brokers that ship, and caught by what clients saw.

use std::time::Duration;

use super::story::{Act, Closed, Scene};
use super::{Plan, run};
use crate::bugs::Bug;

/// Seeds that a bug has to be caught on.
const SEEDS_MAX: u64 = 12;

/// What a checker must have said for a bug to count as caught: no broker's own assertion, and nothing that is only late.
const CAUGHT: &[&str] =
    &["lost-write", "unseen", "inconsistent-offset", "read-past-hw", "stale-read", "offset-vs-realtime"];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Everything loses its power at once.
fn all_dark(seed: u64) -> Vec<Scene> {
    let acts = vec![(ms(500 + seed * 37), Act::Power(vec![0, 1, 2]))];
    vec![Scene { acts, lasts: ms(1_500), rest: ms(1_000) }]
}

/// The third broker is cut off while the first loses its power; when both are back, the second is gone, which alone has what was acknowledged meanwhile.
fn one_dark_then_another_gone(seed: u64) -> Vec<Scene> {
    let cut = |from, to| (ms(0), Act::Close(from, to, Closed::Lost));
    let acts = vec![cut(2, 0), cut(0, 2), cut(2, 1), cut(1, 2), (ms(900 + seed * 61), Act::Power(vec![0]))];
    let first = Scene { acts, lasts: ms(1_000), rest: ms(1) };
    let second = Scene { acts: vec![(ms(0), Act::Kill(vec![1]))], lasts: ms(4_000), rest: ms(500) };
    vec![first, second]
}

fn is_caught(violation: &str) -> bool {
    CAUGHT.iter().any(|id| violation.starts_with(id))
}

/// Runs a story with a bug in some brokers until clients see a violation.
fn seeds_until_caught(bug: Bug, brokers: &[usize], story: fn(u64) -> Vec<Scene>) {
    for seed in 0..SEEDS_MAX {
        let bugs = brokers.iter().map(|broker| (*broker, bug)).collect();
        let outcome = run(&Plan { bugs, story: story(seed), value_bytes: 100, partitions: 1, seed });
        if let Some(violation) = outcome.violations.iter().find(|violation| is_caught(violation)) {
            println!("{bug:?} in {brokers:?}, seed {seed}: {violation}");
            let sound = run(&Plan { bugs: Vec::new(), story: story(seed), value_bytes: 100, partitions: 1, seed });
            assert!(sound.violations.is_empty(), "without the bug: {:#?}", sound.violations);
            return;
        }
        println!("{bug:?} in {brokers:?}, seed {seed}: not caught; {:?}", outcome.violations.first());
    }
    panic!("{bug:?} in {brokers:?} was not caught");
}

#[test]
fn syncs_that_do_nothing_anywhere_are_caught() {
    seeds_until_caught(Bug::SyncIsNoop, &[0, 1, 2], all_dark);
}

#[test]
fn directory_syncs_that_do_nothing_anywhere_are_caught() {
    seeds_until_caught(Bug::DirSyncIsNoop, &[0, 1, 2], all_dark);
}

#[test]
fn syncs_that_do_nothing_on_one_broker_are_caught() {
    seeds_until_caught(Bug::SyncIsNoop, &[0], one_dark_then_another_gone);
}

#[test]
fn one_broker_that_acknowledges_before_it_syncs_is_caught() {
    seeds_until_caught(Bug::AckBeforeSync, &[0], one_dark_then_another_gone);
}

#[test]
fn one_broker_that_does_not_sync_what_it_recovered_is_caught() {
    seeds_until_caught(Bug::RecoveredTailNotSynced, &[0], killed_then_dark);
}

/// As [`one_dark_then_another_gone`], with a kill before the power goes.
fn killed_then_dark(seed: u64) -> Vec<Scene> {
    let mut story = one_dark_then_another_gone(seed);
    let kill = Scene { acts: vec![(ms(300 + seed * 41), Act::Kill(vec![0]))], lasts: ms(400), rest: ms(1) };
    story.insert(0, kill);
    story
}
