//! What a cluster must bear.

use std::time::{Duration, Instant};

use super::story::{Act, Closed, Kind, story};
use super::{Outcome, Plan, run};

pub fn check(plan: &Plan) -> Outcome {
    let outcome = run(plan);
    assert!(outcome.violations.is_empty(), "{plan:#?}: {:#?}", outcome.violations);
    assert!(outcome.struck.missed.is_empty(), "seed {}: never struck: {:?}", plan.seed, outcome.struck.missed);
    assert!(!plan.trims || outcome.moved_starts > 0, "seed {}: nothing was ever deleted", plan.seed);
    assert!(!plan.moves || outcome.moves > 0, "seed {}: nothing was ever moved", plan.seed);
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
    Plan { partitions: 3, ..Plan::new(seed, Vec::new()) }
}

fn plan(seed: u64, kind: Kind, scenes: usize) -> Plan {
    // Now and then large enough for segments to roll.
    let value_bytes = if seed % 3 == 2 { 2_500 } else { 100 };
    Plan { value_bytes, partitions: 2, ..Plan::new(seed, story(seed, kind, scenes)) }
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
            "{kind:?} {seed}: {:?}, {} acked, {} resent, {} epochs, {} compared, {} faults, {} moves",
            outcome.took,
            outcome.acked,
            outcome.resent,
            outcome.epochs,
            outcome.compared,
            outcome.struck.hit,
            outcome.moves
        );
    }
    let per_second = simulated.as_secs_f64() / began.elapsed().as_secs_f64();
    println!("{kind:?}: {simulated:?} simulated in {:?}: {per_second:.1} s each second", began.elapsed());
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

/// Set in a process that only says what a run came to.
const ONLY_SAY: &str = "OTTLA_SIM_ONLY_SAY";

/// What the runs of some kinds came to, over all bytes that brokers and clients read and that disks were given.
fn hashes() -> String {
    let hash = |(seed, kind)| {
        let outcome = check(&Plan { is_early: kind == Kind::Founding, ..plan(seed, kind, 2) });
        format!("{:016x}", outcome.hash)
    };
    let runs = [(3, Kind::All), (8, Kind::Founding), (1, Kind::Leaders), (5, Kind::Cuts), (2, Kind::Any)];
    runs.map(hash).join(" ")
}

#[test]
fn another_process_does_the_same_for_the_same_seed() {
    let said = |text: &str| text.lines().find_map(|line| line.split_once("hashes: ")).map(|(_, it)| it.to_owned());
    let mine = hashes();
    println!("hashes: {mine}");
    if std::env::var_os(ONLY_SAY).is_some() {
        return;
    }
    let me = std::env::current_exe().expect("a test knows its own program");
    let name = "cluster::tests::another_process_does_the_same_for_the_same_seed";
    let mut other = std::process::Command::new(me);
    let other = other.args(["--exact", name, "--nocapture"]).env(ONLY_SAY, "1").output().expect("it can be run");
    let theirs = said(&String::from_utf8_lossy(&other.stdout));
    assert_eq!(theirs.as_ref(), Some(&mine), "{}", String::from_utf8_lossy(&other.stderr));
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

#[test]
fn failed_syncs_torn_writes_and_flipped_bits_lose_nothing_acknowledged() {
    stories(Kind::Disk, 2, 2, |_| {});
}

/// A scene that was over before its last fault had begun would say of that fault that it found nothing to strike.
#[test]
fn no_fault_is_over_before_it_can_strike() {
    for kind in [Kind::SlowDisk, Kind::Disk, Kind::Full, Kind::Leaders, Kind::All, Kind::Any, Kind::Moves] {
        for (seed, scene) in (0..500).flat_map(|seed| story(seed, kind, 3).into_iter().map(move |scene| (seed, scene)))
        {
            let last = scene.acts.iter().map(|(begins, _)| *begins).max().expect("something happens");
            let strikes = scene.lasts.checked_sub(last);
            assert!(strikes >= Some(Duration::from_millis(300)), "{kind:?}, seed {seed}: {scene:?}");
        }
    }
}

#[test]
fn slow_disks_lose_nothing_acknowledged() {
    stories(Kind::SlowDisk, 1, 2, |_| {});
}

#[test]
fn a_broker_that_comes_and_goes_loses_nothing_acknowledged() {
    stories(Kind::Flaps, 1, 2, |_| {});
}

#[test]
fn leaders_that_are_transferred_and_stopped_lose_nothing_acknowledged() {
    stories(Kind::Leaders, 2, 3, |_| {});
}

#[test]
fn replicas_that_move_meanwhile_lose_nothing_acknowledged() {
    stories(Kind::Moves, 1, 3, |plan| plan.moves = true);
}

#[test]
fn everything_together_loses_nothing_acknowledged() {
    stories(Kind::Any, 1, 3, |plan| plan.trims = plan.seed % 2 == 0);
}

const PAGE_CACHE: &[(&str, &str)] = &[("ottla.durability", "page-cache")];

#[test]
fn power_lost_everywhere_loses_nothing_acknowledged() {
    stories(Kind::AllDark, 1, 1, |_| {});
}

#[test]
fn power_lost_by_one_while_another_is_killed_loses_nothing_acknowledged() {
    stories(Kind::DarkAndKill, 1, 1, |_| {});
}

/// What was not synced anywhere may be gone; nothing else may happen.
#[test]
fn power_lost_everywhere_leaves_page_cache_replicas_equal() {
    stories(Kind::AllDark, 1, 1, |plan| (plan.configs, plan.may_lose) = (PAGE_CACHE, true));
}

#[test]
fn power_lost_by_one_while_another_is_killed_loses_nothing_of_page_cache_topics() {
    stories(Kind::DarkAndKill, 1, 1, |plan| plan.configs = PAGE_CACHE);
}

/// Seeds on which something was once wrong.
fn seed(kind: Kind, seed: u64) {
    let scenes = if kind == Kind::Founding { 2 } else { 3 };
    check(&Plan { is_early: kind == Kind::Founding, ..plan(seed, kind, scenes) });
}

/// The only voter of the controller did not serve it any more after its learner had lost its power.
#[test]
fn founding_5_a_learner_loses_its_power() {
    seed(Kind::Founding, 5);
}

/// The first batch of a producer was refused, and the second taken.
#[test]
fn founding_10_17_and_37_a_new_producers_first_batch_is_refused() {
    [10, 17, 37].into_iter().for_each(|nth| seed(Kind::Founding, nth));
}

/// A sync of the journal failed for which nobody waited, and the broker lived on.
#[test]
fn any_1795332505_a_sync_of_the_journal_fails() {
    seed(Kind::Any, 1_795_332_505);
}

/// A sync failed while a partition was opened: the broker took only that one for broken, and went on.
#[test]
fn any_233_a_sync_fails_while_a_partition_is_opened() {
    seed(Kind::Any, 233);
}

/// The controller's leader did not answer a broker that came back after a power cut.
#[test]
fn all_faults_40_a_broker_comes_back_from_a_power_cut() {
    seed(Kind::All, 40);
}

/// A broker that had been rebuilt was taken for one whose place another has.
#[test]
fn all_faults_44_a_rebuilt_broker_comes_back() {
    seed(Kind::All, 44);
}
