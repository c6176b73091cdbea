//! Consumer groups in the simulation: members that come, go, vanish, sleep and come back, on a broker that is killed, loses its power and
//! stops, and clients that look at what was committed.
//!
//! A run has three acts: *churn*, in which everything happens at once; *quiet*, in which only the broker and static members come back, so that no
//! group may rebalance; churn again. Between them every group must come to rest, with its partitions shared out and its offsets moving.
//!
//! - [`acts`]: what happens in a run.
//! - [`cast`]: the groups of a run, and which protocols their members speak.
//! - [`member`]: what members of every kind have in common; [`classic`] and [`consumer`] are the kinds.
//! - [`others`]: clients that are no members.
//! - [`events`]: what they all saw, [`holds`]: what members had when, [`anew`]: when groups began anew; [`check`]: what of it must not be.
//! - [`bugs`]: what the checks must catch.

pub mod acts;
mod anew;
pub mod bugs;
pub mod cast;
pub mod check;
mod classic;
mod consumer;
pub mod events;
mod holds;
mod line;
pub mod member;
pub mod others;
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ottla::config::Config;

use crate::cluster::room::Room;
use crate::draw;
use crate::history::Shared;
use crate::runner::simulate;
use crate::workload::Topic;
use crate::world::World;
use bugs::{Bug, Front};
use cast::Cast;
use check::Coverage;
use events::Log;

/// What the groups read.
pub const TOPIC: Topic = Topic { name: "grouped", partitions: 5 };
/// A group that never has members.
const MEMBERLESS: &str = "memberless";
/// What instance ids of static members begin with, and no other client's name.
const INSTANCE: &str = "static-";

/// For how long a member may be silent.
const SESSION: Duration = Duration::from_millis(900);
/// For how long a rebalance waits for a member.
const REBALANCE: Duration = Duration::from_millis(1_000);
/// How often a member says that it is alive.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// How often each group's offsets are looked at.
const OBSERVED_EVERY: Duration = Duration::from_millis(25);
/// Simulated time within which the groups come to rest when nothing more happens to them.
const REST_TIME_MAX: Duration = Duration::from_secs(8);
/// Simulated time after which a run that has not finished is stuck.
const RUN_TIME_MAX: Duration = Duration::from_secs(60);

/// What the clients of one run share.
#[derive(Clone)]
pub struct Stage {
    /// What goes over the wire.
    pub wire: Shared,
    /// What the clients saw.
    pub log: Log,
    /// What stands between them and the coordinators.
    pub front: Arc<Front>,
    /// The broker, if there is one only.
    pub world: Option<World>,
    /// The brokers, if there are several.
    pub room: Option<Room>,
}

/// Draws of a run.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: u64) -> u64 {
        draw(&mut self.0, end)
    }

    fn between(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(from_ms + self.below(to_ms - from_ms))
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            let at = usize::try_from(self.below(end as u64 + 1)).expect("small");
            items.swap(at, end);
        }
    }
}

fn partitions() -> BTreeSet<i32> {
    (0..TOPIC.partitions).collect()
}

pub fn short_sessions(config: &mut Config) {
    config.groups.session_timeout_min_ms = 100;
    config.groups.initial_rebalance_delay_ms = 50;
    config.groups.consumer_session_timeout_ms = u32::try_from(SESSION.as_millis()).expect("short");
    config.groups.consumer_heartbeat_interval_ms = i32::try_from(HEARTBEAT.as_millis()).expect("short");
}

/// What a run came to.
struct Outcome {
    violations: Vec<String>,
    coverage: Coverage,
    /// Faults that struck the broker.
    struck: usize,
    /// Events that happened to members in churn.
    happened: usize,
    /// Times that all groups kept their generations over something that gave them no reason to rebalance.
    kept: usize,
    hash: u64,
    events: u64,
}

/// One run: everything follows from its seed.
fn run(seed: u64, cast: Cast, bug: Option<Bug>) -> Outcome {
    crate::sealed::run(seed, || play(seed, cast, bug))
}

fn play(seed: u64, cast: Cast, bug: Option<Bug>) -> Outcome {
    let world = World::new(seed);
    let front = Arc::new(Front::new(bug));
    world.configure(short_sessions, Some(Arc::clone(&front) as _));
    let stage = Stage { wire: Shared::default(), log: Log::default(), front, world: Some(world.clone()), room: None };
    let acts = acts::Acts::new(&stage, cast, seed);
    let ended = simulate(&world, RUN_TIME_MAX, acts.play());
    let events = stage.log.lock();
    let wire = stage.wire.lock();
    let mut violations = check::violations(&events);
    violations.extend(wire.violations());
    violations.extend(world.start_errors());
    if ended.stuck {
        violations.push(format!("stuck-group: the run was not over after {} s", RUN_TIME_MAX.as_secs()));
    }
    Outcome {
        violations,
        coverage: check::coverage(&events),
        struck: world.struck(),
        happened: events.happened,
        kept: events.kept,
        hash: wire.wire_hash() ^ world.disk().trace_hash().rotate_left(1),
        events: ended.disk_ops + wire.wire_events,
    }
}
