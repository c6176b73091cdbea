//! Bugs that a cluster's checks must catch: each is planted below the brokers that ship, and caught by what clients saw.

use std::time::Duration;

use super::story::{Act, Closed, Scene};
use super::{Plan, run};

/// Seeds that a bug has to be caught on.
const SEEDS_MAX: u64 = 12;

/// What a checker must have said for a bug to count as caught: no broker's own assertion, and nothing that is only late.
const CAUGHT: &[&str] =
    &["lost-write", "unseen", "inconsistent-offset", "read-past-hw", "stale-read", "offset-vs-realtime"];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Everything loses its power at once, after two of three disks have lied.
fn all_dark(seed: u64) -> Vec<Scene> {
    let dark = (ms(700 + seed * 37), Act::Power(vec![0, 1, 2]));
    let acts = vec![(ms(0), Act::Lie(0)), (ms(0), Act::Lie(1)), dark];
    vec![Scene { acts, lasts: ms(1_500), rest: ms(1_000) }]
}

/// The third broker is cut off while the first, whose disk lies, loses its power; when both are back, the second is gone, which alone has what was
/// acknowledged meanwhile.
fn one_dark_then_another_gone(seed: u64) -> Vec<Scene> {
    let cut = |from, to| (ms(0), Act::Close(from, to, Closed::Lost));
    let dark = (ms(900 + seed * 61), Act::Power(vec![0]));
    let acts = vec![cut(2, 0), cut(0, 2), cut(2, 1), cut(1, 2), (ms(100), Act::Lie(0)), dark];
    let first = Scene { acts, lasts: ms(1_000), rest: ms(1) };
    let second = Scene { acts: vec![(ms(0), Act::Kill(vec![1]))], lasts: ms(4_000), rest: ms(500) };
    vec![first, second]
}

/// The story without its bug.
fn sound(mut story: Vec<Scene>) -> Vec<Scene> {
    story.iter_mut().for_each(|scene| scene.acts.retain(|(_, act)| !matches!(act, Act::Lie(_))));
    story
}

fn is_caught(violation: &str) -> bool {
    CAUGHT.iter().any(|id| violation.starts_with(id))
}

/// Runs a story with its bug until clients see a violation.
fn seeds_until_caught(story: fn(u64) -> Vec<Scene>) {
    for seed in 0..SEEDS_MAX {
        let plan = Plan { story: story(seed), value_bytes: 100, partitions: 1, is_early: false, seed };
        let outcome = run(&plan);
        let Some(violation) = outcome.violations.iter().find(|violation| is_caught(violation)) else {
            println!("seed {seed}: not caught; {:?}", outcome.violations.first());
            continue;
        };
        println!("seed {seed}: {violation}");
        let plan = Plan { story: sound(plan.story), ..plan };
        let outcome = run(&plan);
        assert!(outcome.violations.is_empty(), "without the bug: {:#?}", outcome.violations);
        return;
    }
    panic!("not caught");
}

#[test]
fn two_disks_that_lie_are_caught() {
    seeds_until_caught(all_dark);
}

#[test]
fn one_disk_that_lies_is_caught_when_another_broker_was_away() {
    seeds_until_caught(one_dark_then_another_gone);
}
