//! Runs a world: the broker lives, faults strike it, and it lives again, until the clients have done what they wanted.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sealed;
use crate::world::{BROKER, World};

/// Task ids count for the whole process: two runs at once would see each other in them.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How a run ended.
pub struct Ended {
    /// Whether the clients were not done in time.
    pub stuck: bool,
    /// Operations of all lives' disks.
    pub disk_ops: u64,
    /// The simulated time that it took.
    pub took: Duration,
}

/// Runs the broker of `world` and its clients until these are done, or `time_max` of simulated time has passed.
pub fn simulate(world: &World, time_max: Duration, clients: impl Future<Output = ()> + 'static) -> Ended {
    let _one_at_a_time = alone();
    let mut sim = builder(world.seed(), time_max).build();
    let host = world.clone();
    sim.host(BROKER, move || host.clone().live());
    sim.client("clients", async move {
        clients.await;
        Ok(())
    });
    let mut ended = Ended { stuck: false, disk_ops: 0, took: Duration::ZERO };
    loop {
        let Ok(finished) = sim.step() else {
            ended.stuck = true;
            break;
        };
        sealed::advance(sim.elapsed());
        if let Some(end) = world.end_of_life() {
            sim.crash(BROKER);
            ended.disk_ops += world.disk().ops();
            world.next_life(end);
            sim.bounce(BROKER);
        }
        if finished {
            break;
        }
    }
    ended.disk_ops += world.disk().ops();
    ended.took = sim.elapsed();
    ended
}

/// Waits until no other run is under way, and makes the process what it was when the first one began.
pub fn alone() -> MutexGuard<'static, ()> {
    let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    align_task_ids();
    alone
}

/// The network of every run.
pub fn builder(seed: u64, time_max: Duration) -> turmoil::Builder {
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .simulation_duration(time_max)
        .min_message_latency(Duration::from_micros(50))
        .max_message_latency(Duration::from_micros(500))
        .tcp_capacity(1 << 16);
    builder
}

/// Spawns tasks until the next one's id is a multiple of what the runtime shards its tasks by. Ids count for the whole process, and a
/// crashed host's tasks are dropped shard by shard: without this a run would depend on the runs before it.
fn align_task_ids() {
    const ALIGNMENT: u64 = 256;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime for tasks that do nothing");
    while runtime.spawn(async {}).id().to_string().parse::<u64>().expect("ids are numbers") % ALIGNMENT != 0 {}
}
