//! Three brokers in a deterministic simulation: faults strike them and the ways between them, and clients look on.
//!
//! A run is a seed and a kind of faults. The story is drawn from the seed; all is well in the end, and then every acknowledged record must be there, once, in
//! order, on every replica, and nobody may ever have been told less than was known. `OTTLA_SIM_SEEDS` sets which seeds are tried.

mod bugs;
mod clients;
mod evidence;
mod groups;
mod idle;
mod movers;
mod play;
mod readers;
mod replicas;
pub mod room;
mod sequences;
pub mod story;
mod tests;
mod trims;

use std::collections::BTreeSet;
use std::time::Duration;

use clients::{Producer, Stage};
use evidence::Evidence;
use ottla::flaws::Flaw;
use room::{Room, Struck};
use story::{BROKERS, Scene};
use tokio::task::JoinSet;

use crate::history::Shared;

/// Simulated time that a run may take beside its story.
const CALM_TIME_MAX: Duration = Duration::from_secs(60);

/// One run.
#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    story: Vec<Scene>,
    value_bytes: usize,
    partitions: i32,
    /// Whether the story begins when the brokers start, and not only when there is a topic.
    is_early: bool,
    /// The bug that is planted in every broker.
    flaw: Option<Flaw>,
    /// Configs of the topic beside those that it always has.
    configs: &'static [(&'static str, &'static str)],
    /// How long clients wait for an answer.
    patience: Duration,
    /// How long producers rest before each batch.
    rest: Duration,
    /// How many producers each partition has.
    producers: u64,
    /// Whether producers ask anew who leads before each batch.
    asks_anew: bool,
    /// Whether the oldest records are deleted all the time.
    trims: bool,
    /// Whether replicas are given to other brokers all the time.
    moves: bool,
    /// Whether each broker is asked all the time who leads.
    tells: bool,
    /// Whether what was acknowledged may be lost: more was lost than the topic's durability can bear.
    may_lose: bool,
}

impl Plan {
    /// Nothing happens, and nothing is planted.
    fn new(seed: u64, story: Vec<Scene>) -> Self {
        Self {
            seed,
            story,
            value_bytes: 100,
            partitions: 1,
            is_early: false,
            flaw: None,
            configs: &[],
            patience: Duration::from_secs(2),
            rest: Duration::from_millis(20),
            producers: 2,
            asks_anew: false,
            trims: false,
            moves: false,
            tells: false,
            may_lose: false,
        }
    }
}

/// What a client may see of records that are lost: not promised to be there where less is durable than was acknowledged.
const LOSSES: &[&str] = &[
    "lost-write",
    "unseen",
    "inconsistent-offset",
    "read-past-hw",
    "stale-read",
    "offset-vs-realtime",
    "producer-forgotten",
];

/// What a run came to.
struct Outcome {
    violations: Vec<String>,
    struck: Struck,
    /// Reads that found their way stalled.
    held_up: u64,
    hash: u64,
    events: u64,
    acked: usize,
    resent: u64,
    epochs: usize,
    compared: u64,
    /// Times that a log start was moved.
    moved_starts: u64,
    /// Changes of a partition's replicas that were seen through.
    moves: u64,
    /// Simulated time.
    took: Duration,
}

/// The simulated time, for what the brokers say.
struct SimTime;

impl tracing_subscriber::fmt::time::FormatTime for SimTime {
    fn format_time(&self, writer: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:?}", turmoil::sim_elapsed().unwrap_or_default())
    }
}

/// What the brokers say is shown if `OTTLA_SIM_LOG` asks for it (`ottla=debug`).
fn listen() {
    if let Ok(filter) = std::env::var("OTTLA_SIM_LOG") {
        let shown = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_timer(SimTime);
        // Another run of this process listens already.
        drop(shown.try_init());
    }
}

fn run(plan: &Plan) -> Outcome {
    crate::sealed::run(plan.seed, || play_through(plan))
}

fn play_through(plan: &Plan) -> Outcome {
    listen();
    crate::panics::watch();
    let room = Room::new(plan.seed, |_| {}, None);
    let stage = Stage {
        history: Shared::default(),
        evidence: Evidence::default(),
        room: room.clone(),
        topic: clients::TOPIC,
        partitions: plan.partitions,
        patience: plan.patience,
        configs: plan.configs,
        may_lose: plan.may_lose,
    };
    if let Some(flaw) = plan.flaw {
        room.brokers.iter().for_each(|broker| broker.flaw(flaw));
    }
    let lasts: Duration = plan.story.iter().map(|scene| scene.lasts + scene.rest + Duration::from_secs(2)).sum();
    let (played, plan_) = (stage.clone(), plan.clone());
    let driven = async move { drive(&played, &plan_).await };
    let (ended, struck) = room.simulate(plan.seed, &plan.story, lasts + CALM_TIME_MAX, driven);
    let (history, seen) = (stage.history.lock(), stage.evidence.lock());
    let mut violations = crate::panics::seen();
    violations.extend(seen.broken.iter().cloned());
    violations.extend(room.broken());
    if ended.stuck {
        let why = seen.waits_for.as_deref().unwrap_or("the clients are not done");
        violations.push(format!("availability-gap: the run was not over in time: {why}"));
        violations.extend(history.contradictions());
    } else {
        violations.extend(history.violations());
    }
    let mut clusters: BTreeSet<String> = room.brokers.iter().flat_map(crate::world::World::clusters).collect();
    clusters.extend(seen.clusters.iter().cloned());
    if clusters.len() > 1 {
        violations.push(format!("two-clusters: {clusters:?} were founded"));
    }
    let mut hash = history.wire_hash() ^ room.wires.hash().rotate_left(13);
    for broker in room.brokers.iter() {
        violations.extend(broker.start_errors());
        hash = hash.rotate_left(1) ^ broker.disk().trace_hash();
    }
    if plan.may_lose {
        violations.retain(|violation| !LOSSES.iter().any(|loss| violation.starts_with(loss)));
    }
    Outcome {
        violations,
        struck,
        moved_starts: seen.moved_starts,
        moves: seen.moves,
        held_up: room.wires.held_up(),
        hash,
        events: ended.disk_ops + history.wire_events,
        acked: history.acked.len(),
        resent: history.resent,
        epochs: seen.epochs(),
        compared: seen.compared,
        took: ended.took,
    }
}

async fn drive(stage: &Stage, plan: &Plan) {
    let mut turn = plan.seed ^ 0xc11e;
    if plan.is_early {
        stage.room.begin();
    }
    stage.create_topic(&mut turn).await;
    stage.room.begin();
    let (mut lookers, mut producers, mut movers) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    for broker in 0..BROKERS {
        lookers.spawn(stage.clone().probe(broker));
        if plan.tells {
            lookers.spawn(stage.clone().tells(broker));
        }
    }
    for partition in 0..stage.partitions {
        stage.room.acked(partition);
        let turn = turn.wrapping_add(u64::try_from(partition).expect("small") * 7_919);
        lookers.spawn(stage.clone().follow(partition, turn.rotate_left(9)));
        if plan.trims {
            lookers.spawn(stage.clone().trim(partition, turn.rotate_left(29)));
        }
        if plan.moves {
            movers.spawn(stage.clone().moves(partition, turn.rotate_left(41)));
        }
        for nth in 0..plan.producers {
            let producer = Producer {
                stage: stage.clone(),
                name: format!("p{partition}{nth}"),
                partition,
                value_bytes: plan.value_bytes,
                rest: plan.rest + Duration::from_millis(25 * nth),
                asks_anew: plan.asks_anew,
                is_forgotten: false,
                turn: turn.rotate_left(17 + u32::try_from(nth).expect("small")),
            };
            producers.spawn(producer.run());
        }
    }
    while let Some(done) = producers.join_next().await {
        done.expect("a producer finishes");
    }
    while let Some(done) = movers.join_next().await {
        done.expect("a mover finishes");
    }
    while let Err(why) = replicas::compare(&stage.room) {
        stage.evidence.lock().waits_for = Some(why);
        clients::pause().await;
    }
    stage.evidence.lock().waits_for = None;
    lookers.shutdown().await;
    stage.read_all(&mut turn).await;
}
