//! Runs without a bug, which must be clean and must have seen what they are there for, and runs with each planted bug.

use super::acts::{HAPPENED, KEPT, STRUCK};
use super::bugs::Bug;
use super::cast::Cast;
use super::check::Coverage;
use super::{Outcome, run};
use crate::seeds;

/// Seeds of the runs without a bug.
const SEEDS: u64 = 4;
/// Within so many seeds each planted bug is caught; most are by the first.
const BUG_SEEDS: u64 = 16;

/// The same, with groups of the consumer protocol.
const CONSUMER_SEEDS: u64 = 2;

/// What a run has seen at least.
const fn least(cast: Cast) -> Coverage {
    let classic = Coverage {
        acked: 500,
        zombies_refused: 10,
        maybe: 10,
        seen: 1_000,
        generations: 6,
        shared: 6,
        replaced: 2,
        removed: 6,
        lost: 10,
        epochs: 0,
        passed_on: 0,
        kept: 0,
        fenced: 0,
    };
    match cast {
        Cast::Classic => classic,
        Cast::Consumer => Coverage {
            generations: 0,
            shared: 0,
            replaced: 0,
            epochs: 30,
            passed_on: 20,
            kept: 1,
            fenced: 1,
            ..classic
        },
    }
}

/// A run without a planted bug: nothing is wrong, and nothing of what it is there for was missing.
fn check(seed: u64, cast: Cast) -> Outcome {
    let outcome = run(seed, cast, None);
    let first: Vec<_> = outcome.violations.iter().take(5).collect();
    assert!(first.is_empty(), "seed {seed}: {} violations: {first:#?}", outcome.violations.len());
    println!("seed {seed}: {:?}, {} events", outcome.coverage, outcome.events);
    assert!(outcome.coverage.has(least(cast)), "seed {seed}: too little was seen: {:?}", outcome.coverage);
    let occurred = (outcome.struck, outcome.happened, outcome.kept);
    assert_eq!(occurred, (STRUCK, HAPPENED, KEPT), "seed {seed}: something that was planned did not occur");
    outcome
}

#[test]
fn groups_survive_what_befalls_their_members_and_their_broker() {
    for seed in seeds(SEEDS) {
        check(seed, Cast::Classic);
    }
}

#[test]
fn groups_of_the_consumer_protocol_survive_it_too() {
    for seed in seeds(CONSUMER_SEEDS) {
        check(seed, Cast::Consumer);
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_with_groups_too() {
    for cast in [Cast::Classic, Cast::Consumer] {
        let (one, two) = (check(4, cast), check(4, cast));
        assert_eq!((one.hash, one.events), (two.hash, two.events));
    }
}

/// Runs seeds with a planted bug until a client sees the violation that it is there for. Other violations do not count.
fn caught(bug: Bug, id: &str) {
    caught_in(Cast::Classic, bug, id);
}

fn caught_in(cast: Cast, bug: Bug, id: &str) {
    for seed in 0..BUG_SEEDS {
        let violations = run(seed, cast, Some(bug)).violations;
        if let Some(found) = violations.iter().find(|violation| violation.starts_with(id)) {
            println!("{bug:?}: after {} seeds, {} violations: {found}", seed + 1, violations.len());
            return;
        }
    }
    panic!("{bug:?} is not caught as {id} in {BUG_SEEDS} seeds");
}

#[test]
fn answering_before_the_commit_is_caught() {
    caught(Bug::AnsweredFirst, "group-offset-regress");
}

#[test]
fn leaving_out_the_last_record_of_a_turn_is_caught() {
    caught(Bug::LastRecordLeftOut, "group-offset-regress");
}

#[test]
fn not_checking_the_generation_of_a_commit_is_caught() {
    caught(Bug::GenerationNotChecked, "zombie-commit");
}

#[test]
fn not_storing_that_a_member_has_left_is_caught() {
    caught(Bug::LeaveNotStored, "zombie-commit");
}

#[test]
fn storing_a_generation_only_with_its_shares_is_caught() {
    caught(Bug::GenerationStoredLate, "dual-owner");
}

#[test]
fn taking_a_stored_generation_without_shares_for_a_stable_one_is_caught() {
    caught(Bug::PhaseForgotten, "dual-owner");
}

#[test]
fn telling_a_member_the_share_of_another_is_caught() {
    caught(Bug::ShareOfAnother, "dual-owner");
}

#[test]
fn loading_static_members_without_their_instance_ids_is_caught() {
    caught(Bug::InstancesForgotten, "needless-rebalance");
}

#[test]
fn ignoring_instance_ids_is_caught() {
    caught(Bug::InstanceIdIgnored, "needless-rebalance");
}

#[test]
fn loading_groups_from_an_old_checkpoint_is_caught() {
    caught(Bug::LoadedFromOldCheckpoint, "needless-rebalance");
}

#[test]
fn not_waiting_for_the_members_that_there_are_is_caught() {
    caught(Bug::RebalanceNotWaited, "stuck-group");
}

#[test]
fn sessions_that_hardly_end_are_caught() {
    caught(Bug::SessionInSeconds, "stuck-group");
}

#[test]
fn giving_a_partition_away_before_it_is_given_up_is_caught() {
    caught_in(Cast::Consumer, Bug::RevocationNotAwaited, "dual-owner");
}

#[test]
fn forgetting_what_a_member_has_to_give_up_is_caught() {
    caught_in(Cast::Consumer, Bug::RevocationForgotten, "dual-owner");
}

#[test]
fn not_storing_a_members_later_epochs_is_caught() {
    caught_in(Cast::Consumer, Bug::EpochNotStored, "epoch-regress");
}

#[test]
fn not_checking_the_member_epoch_of_a_commit_is_caught() {
    caught_in(Cast::Consumer, Bug::EpochNotChecked, "zombie-commit");
}

#[test]
fn not_storing_what_members_shall_have_is_caught() {
    caught_in(Cast::Consumer, Bug::TargetNotStored, "stuck-group");
}

#[test]
fn taking_out_a_static_member_that_leaves_for_a_while_is_caught() {
    caught_in(Cast::Consumer, Bug::AwayForGood, "needless-rebalance");
}

#[test]
fn loading_static_members_of_the_consumer_protocol_without_their_instance_ids_is_caught() {
    caught_in(Cast::Consumer, Bug::InstancesForgotten, "needless-rebalance");
}
