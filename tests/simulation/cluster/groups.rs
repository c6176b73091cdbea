//! Consumer groups of a cluster: members come, go and sleep while brokers die, and the coordinators of their groups with them.
//!
//! The members, and the checks of what they saw, are those of the runs with one broker. A run has two parts: in the first everything happens at once, in the
//! second only brokers are struck, so that no group may rebalance: a coordinator fails over with its groups.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::clients::{Stage, pause};
use super::evidence::Evidence;
use super::replicas;
use super::room::{Room, Struck};
use super::story::{Act, BROKERS, Kind, Scene, story};
use crate::draw;
use crate::groups::acts::{Acts, Broken};
use crate::groups::bugs::Front;
use crate::groups::cast::Cast;
use crate::groups::check;
use crate::groups::events::Log;
use crate::groups::{Stage as GroupStage, TOPIC, others, short_sessions};
use crate::history::Shared;

/// Simulated time after which a run that has not finished is stuck.
const RUN_TIME_MAX: Duration = Duration::from_secs(180);
/// Scenes in which brokers are struck while members come and go, and while they do not.
const CHURN: usize = 2;
const QUIET: usize = 3;
/// A group that never has members.
const MEMBERLESS: &str = "memberless";

/// What a run came to.
struct Outcome {
    violations: Vec<String>,
    struck: Struck,
    coverage: check::Coverage,
    /// Times that a group had another coordinator.
    failovers: usize,
    /// Times that all groups rested as before after brokers were struck.
    kept: usize,
    took: Duration,
}

fn scenes(seed: u64) -> Vec<Scene> {
    let kind = match seed % 3 {
        0 => Kind::Kills,
        1 => Kind::Power,
        _ => Kind::Leaders,
    };
    let mut scenes = story(seed, kind, CHURN);
    let mut turn = seed ^ 0x6772_6f75;
    let mut any = |end: u64| usize::try_from(draw(&mut turn, end)).expect("small");
    let first = any(BROKERS as u64);
    for nth in 0..QUIET {
        // Each broker in its turn: one of them coordinates.
        let broker = (first + nth) % BROKERS;
        let act = [Act::Kill(vec![broker]), Act::Power(vec![broker]), Act::Stop(broker), Act::Restart(broker)][any(4)]
            .clone();
        let lasts = Duration::from_millis(1_500 + any(2_500) as u64);
        scenes.push(Scene::new(vec![(Duration::ZERO, act)], lasts, Duration::from_millis(1_000)).waits());
    }
    scenes
}

fn run(seed: u64, cast: Cast) -> Outcome {
    crate::sealed::run(seed, || play(seed, cast))
}

fn play(seed: u64, cast: Cast) -> Outcome {
    super::listen();
    crate::panics::watch();
    let front = Arc::new(Front::new(None));
    let room = Room::new(seed, short_sessions, Some(Arc::clone(&front) as _));
    let (wire, log) = (Shared::default(), Log::default());
    let groups = GroupStage { wire: wire.clone(), log: log.clone(), front, world: None, room: Some(room.clone()) };
    let clients = Stage {
        history: wire,
        evidence: Evidence::default(),
        room: room.clone(),
        topic: TOPIC.name,
        partitions: TOPIC.partitions,
        patience: Duration::from_millis(500),
        configs: &[],
        may_lose: false,
    };
    let story = scenes(seed);
    let driven = drive(clients.clone(), groups, cast, seed);
    let (ended, struck) = room.simulate(seed, &story, RUN_TIME_MAX, driven);
    let events = log.lock();
    let mut violations = crate::panics::seen();
    violations.extend(check::violations(&events));
    violations.extend(room.brokers.iter().flat_map(crate::world::World::start_errors));
    if ended.stuck {
        let why = clients.evidence.lock().waits_for.clone().unwrap_or_default();
        violations.push(format!("stuck-group: the run was not over after {} s: {why}", RUN_TIME_MAX.as_secs()));
    }
    Outcome {
        violations,
        struck,
        coverage: check::coverage(&events),
        failovers: events.failovers,
        kept: events.kept,
        took: ended.took,
    }
}

async fn drive(clients: Stage, groups: GroupStage, cast: Cast, seed: u64) {
    let mut turn = seed ^ 0xc11e;
    clients.create_topic(&mut turn).await;
    let mut others = JoinSet::new();
    for group in cast.groups().iter().map(|group| group.name).chain([MEMBERLESS]) {
        others.spawn(others::observe(groups.clone(), group));
        if !Cast::is_classic(group) {
            others.spawn(others::watch(groups.clone(), group));
        }
    }
    for n in 0..2 {
        others.spawn(others::commit_alone(groups.clone(), format!("alone-{n}"), turn.rotate_left(n * 7)));
    }
    let mut acts = Acts::new(&groups, cast, seed);
    if let Err(Broken(what)) = happen(&clients.room, &groups, &mut acts).await {
        groups.log.lock().wrong(what);
    }
    acts.end();
    others.shutdown().await;
    // What was not played is not to be waited for.
    while !clients.room.is_over() {
        clients.room.open_gate();
        pause().await;
    }
    while let Err(why) = replicas::compare(&clients.room) {
        clients.evidence.lock().waits_for = Some(why);
        pause().await;
    }
}

async fn happen(room: &Room, groups: &GroupStage, acts: &mut Acts) -> Result<(), Broken> {
    acts.settle().await?;
    room.begin();
    while room.scenes_over() < CHURN {
        acts.happen_to_somebody().await;
    }
    let resting = acts.settle().await?;
    for nth in 1..=QUIET {
        let fenced = groups.log.lock().fenced;
        room.open_gate();
        while room.scenes_over() < CHURN + nth {
            pause().await;
        }
        acts.must_rest_as(&resting, fenced, &format!("brokers were struck, scene {}", CHURN + nth)).await?;
    }
    Ok(())
}

fn check(seed: u64, cast: Cast) {
    let outcome = run(seed, cast);
    let first: Vec<_> = outcome.violations.iter().take(5).collect();
    assert!(first.is_empty(), "seed {seed}: {} violations: {first:#?}", outcome.violations.len());
    assert!(outcome.struck.missed.is_empty(), "seed {seed}: never struck: {:?}", outcome.struck.missed);
    let Outcome { coverage, failovers, kept, took, .. } = outcome;
    println!("seed {seed}: {took:?}, {failovers} failovers, {coverage:?}");
    assert_eq!(kept, QUIET, "seed {seed}: not everything was played");
    assert!(failovers >= 2, "seed {seed}: coordinators failed over {failovers} times");
    assert!(coverage.acked >= 200 && coverage.maybe > 0, "seed {seed}: too little was seen: {coverage:?}");
}

#[test]
fn groups_go_on_with_the_next_coordinator() {
    crate::seeds(2).for_each(|seed| check(seed, Cast::Classic));
}

#[test]
fn groups_of_the_consumer_protocol_go_on_with_the_next_coordinator() {
    crate::seeds(1).for_each(|seed| check(seed, Cast::Consumer));
}
