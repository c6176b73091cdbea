//! One broker in a deterministic simulation: the code that ships, on a disk that loses what was not synced.
//!
//! A run is a seed and a list of faults. The checker looks only at what clients saw; it is proven by planted bugs, each of which it must
//! catch. `OTTLA_SIM_SEEDS` sets which seeds the random runs try.

mod bugs;
mod client;
mod cluster;
mod groups;
mod history;
mod network;
mod panics;
mod runner;
mod sealed;
mod workload;
mod world;

use std::time::Duration;

use bugs::Bug;
use history::Shared;
use runner::simulate;
use workload::{IdempotentProducer, TOPIC};
use world::{Fault, World};

/// Simulated time after which a run that has not finished is stuck.
const RUN_TIME_MAX: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    batches: usize,
    value_bytes: usize,
    /// One a life, in order; the last life has none.
    faults: Vec<Fault>,
    bug: Option<Bug>,
}

impl Plan {
    fn new(seed: u64) -> Self {
        Self { seed, batches: 45, value_bytes: 14_000, faults: Vec::new(), bug: None }
    }
}

struct Outcome {
    violations: Vec<String>,
    faults_hit: usize,
    disk_ops: u64,
    hash: u64,
    events: u64,
    resent: u64,
    acked: usize,
}

/// Runs a plan to its end and checks what the clients saw.
fn run(plan: &Plan) -> Outcome {
    sealed::run(plan.seed, || play(plan))
}

fn play(plan: &Plan) -> Outcome {
    let world = World::new(plan.seed);
    if let Some(bug) = plan.bug {
        world.plant(bug);
    }
    world.plan(&plan.faults);
    let history = Shared::default();
    let (clients, plan_) = (history.clone(), plan.clone());
    let ended = simulate(&world, RUN_TIME_MAX, async move { drive(&clients, &plan_).await });
    let disk = world.disk();
    let history = history.lock();
    let mut violations = history.violations();
    if ended.stuck {
        violations.push(format!("availability-gap: not finished after {} s", RUN_TIME_MAX.as_secs()));
    }
    violations.extend(world.start_errors());
    Outcome {
        violations,
        faults_hit: world.struck(),
        disk_ops: disk.ops(),
        hash: history.wire_hash() ^ disk.trace_hash().rotate_left(1),
        events: ended.disk_ops + history.wire_events,
        resent: history.resent,
        acked: history.acked.len(),
    }
}

async fn drive(history: &Shared, plan: &Plan) {
    workload::create_topic(history, TOPIC).await;
    let mut tails = tokio::task::JoinSet::new();
    let mut producers = tokio::task::JoinSet::new();
    for partition in 0..TOPIC.partitions {
        tails.spawn(workload::tail(history.clone(), TOPIC, partition));
        let name = format!("p{partition}");
        let (batches, value_bytes) = (plan.batches, plan.value_bytes);
        let producer = IdempotentProducer { name, topic: TOPIC, partition, batches, value_bytes, rest: Duration::ZERO };
        producers.spawn(producer.run(history.clone()));
    }
    while let Some(done) = producers.join_next().await {
        done.expect("a producer finishes");
    }
    tails.shutdown().await;
    assert!(workload::topic_exists(history, TOPIC).await, "metadata-lost: the topic's creation was acknowledged");
    workload::read_all(history, TOPIC).await;
}

fn check(plan: &Plan) -> Outcome {
    let outcome = run(plan);
    assert!(outcome.violations.is_empty(), "{plan:?}: {:#?}", outcome.violations);
    assert_eq!(outcome.faults_hit, plan.faults.len(), "{plan:?}: a fault was never reached");
    outcome
}

/// The seeds that random runs try: so many from 0 on, or those that `OTTLA_SIM_SEEDS` says (`300`, or `100..300`).
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("OTTLA_SIM_SEEDS") else { return 0..default };
    let (from, to) = text.split_once("..").unwrap_or(("0", &text));
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) => from..to,
        _ => panic!("OTTLA_SIM_SEEDS is {text:?}: a number, or two with dots between them"),
    }
}

/// A small generator for the plans themselves.
pub fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below.max(1)
}

#[test]
fn a_run_without_faults_shows_clients_every_record_once() {
    let outcome = check(&Plan::new(1));
    assert_eq!(outcome.acked, 180, "two producers with 45 batches of one to three records");
    assert_eq!(outcome.resent, 0);
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_wire_and_disk() {
    let plan = Plan {
        batches: 1_100,
        value_bytes: 40,
        faults: vec![Fault::Power(300), Fault::Kill(200), Fault::Power(150)],
        ..Plan::new(42)
    };
    let (one, two) = (check(&plan), check(&plan));
    assert_eq!(one.hash, two.hash);
    assert!(one.events >= 10_000, "only {} events", one.events);
}

#[test]
fn power_cut_at_every_operation_loses_nothing_acknowledged() {
    let plan = Plan { batches: 180, value_bytes: 4_000, ..Plan::new(7) };
    let ops = check(&plan).disk_ops;
    assert!(ops >= 300, "only {ops} operations to cut at");
    for op in 0..ops {
        // The run's own faults shift its timing, so that a late cut may come after the last operation: then nothing was hit.
        let outcome = run(&Plan { faults: vec![Fault::Power(op)], ..plan.clone() });
        assert!(outcome.violations.is_empty(), "cut at {op}: {:#?}", outcome.violations);
    }
}

#[test]
fn random_power_cuts_and_kills_over_longer_runs_lose_nothing() {
    for seed in seeds(12) {
        let mut state = seed.wrapping_mul(977);
        let mut faults = Vec::new();
        for _ in 0..2 + draw(&mut state, 3) {
            let op = 20 + draw(&mut state, 120);
            faults.push(if draw(&mut state, 3) == 0 { Fault::Kill(op) } else { Fault::Power(op) });
        }
        check(&Plan { batches: 150, faults, ..Plan::new(seed) });
    }
}

#[test]
fn a_kill_then_a_restart_then_a_power_cut_loses_nothing() {
    for seed in seeds(12) {
        let mut state = seed.wrapping_mul(31) + 5;
        // The second life is cut soon after it began: what recovery read from the page cache must have been made durable.
        let faults = vec![
            Fault::Kill(60 + draw(&mut state, 100)),
            Fault::Power(5 + draw(&mut state, 60)),
            Fault::Kill(30 + draw(&mut state, 60)),
            Fault::Power(5 + draw(&mut state, 60)),
        ];
        check(&Plan { batches: 120, faults, ..Plan::new(seed) });
    }
}

/// Runs plans with a planted bug until a client sees a violation. Returns how many it took.
fn seeds_until_caught(bug: Bug, batches: usize, faults: impl Fn(&mut u64) -> Vec<Fault>) -> u64 {
    for seed in 0..100 {
        let mut state = seed + 1;
        // As many bytes whatever the number of batches: some six segments of each partition.
        let value_bytes = 2_400_000 / batches;
        let plan = Plan { batches, value_bytes, bug: Some(bug), faults: faults(&mut state), ..Plan::new(seed) };
        // Beside what clients see, the broker's own assertions and refusals to start count as caught.
        match std::panic::catch_unwind(|| run(&plan)) {
            Err(_) => return seed + 1,
            Ok(outcome) if !outcome.violations.is_empty() => {
                println!("{bug:?}: {}", outcome.violations[0]);
                return seed + 1;
            }
            Ok(_) => {}
        }
    }
    panic!("{bug:?} was not caught");
}

fn one_cut(state: &mut u64) -> Vec<Fault> {
    vec![Fault::Power(60 + draw(state, 120))]
}

fn late_cut(state: &mut u64) -> Vec<Fault> {
    vec![Fault::Power(150 + draw(state, 250))]
}

fn kill_then_cut(state: &mut u64) -> Vec<Fault> {
    vec![Fault::Kill(50 + draw(state, 120)), Fault::Power(20 + draw(state, 60))]
}

#[test]
fn a_sync_that_does_nothing_is_caught() {
    println!("seeds: {}", seeds_until_caught(Bug::SyncIsNoop, 24, one_cut));
}

#[test]
fn a_directory_sync_that_does_nothing_is_caught() {
    println!("seeds: {}", seeds_until_caught(Bug::DirSyncIsNoop, 24, one_cut));
}

#[test]
fn acknowledging_before_the_sync_is_caught() {
    println!("seeds: {}", seeds_until_caught(Bug::AckBeforeSync, 24, one_cut));
}

#[test]
fn syncing_only_the_newest_file_is_caught() {
    println!("seeds: {}", seeds_until_caught(Bug::OnlyNewestFileSynced, 160, late_cut));
}

#[test]
fn not_syncing_the_recovered_tail_is_caught() {
    println!("seeds: {}", seeds_until_caught(Bug::RecoveredTailNotSynced, 24, kill_then_cut));
}
