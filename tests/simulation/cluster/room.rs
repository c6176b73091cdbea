//! The room that the brokers of a cluster stand in: starts them, lets the story's faults strike them, and puts all right again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ottla::config::{Config, HostPort};
use ottla::ids::BrokerId;
use ottla::replica::coordinator::Tamper;

use super::play::Play;
use super::replicas::Leaders;
use super::story::{Act, BROKERS, Scene};
use crate::network::Wires;
use crate::runner::{self, Ended};
use crate::sealed;
use crate::world::World;

/// The port for other brokers.
const CLUSTER_PORT: u16 = 9192;
/// The host of the clients.
pub const CLIENTS: &str = "clients";
/// Of a scene that serves all the time, so much before its end something was acknowledged in each partition, and each broker has named each leader.
const SERVED_WITHIN: Duration = Duration::from_secs(2);
/// Messages between hosts otherwise take this long at most.
pub const LATENCY_MAX: Duration = Duration::from_micros(500);

/// The brokers, and what the clients are told of the story.
#[derive(Clone)]
pub struct Room {
    /// Each broker with its disk.
    pub brokers: Arc<Vec<World>>,
    /// What they hear.
    pub wires: Wires,
    begins: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    /// Whether a scene that waits for it may begin.
    gate: Arc<AtomicBool>,
    /// Scenes that are over.
    scenes: Arc<AtomicUsize>,
    seen: Arc<Mutex<Seen>>,
}

/// When clients saw last that all is well.
#[derive(Default)]
struct Seen {
    /// Something was acknowledged in a partition.
    acked: BTreeMap<i32, Duration>,
    /// A broker named the leader of a partition, if the brokers are asked for that.
    named: BTreeMap<(usize, i32), Duration>,
    broken: Vec<String>,
}

/// What has become of the story's faults.
#[derive(Clone, Debug, Default)]
pub struct Struck {
    /// Faults that struck.
    pub hit: usize,
    /// Those that found nothing to strike.
    pub missed: Vec<Act>,
    /// Entries that were not synced where the power was cut for a moment.
    pub unsynced: u64,
}

impl Struck {
    /// A fault that had begun did not strike anything.
    pub fn miss(&mut self, act: Act) {
        self.hit -= 1;
        self.missed.push(act);
    }
}

/// The name of a broker's host.
pub fn host(broker: usize) -> String {
    format!("broker-{}", broker + 1)
}

fn configure(config: &mut Config, broker: usize) {
    config.broker.id = BrokerId(i32::try_from(broker + 1).expect("few brokers"));
    config.cluster.listen = HostPort::new("0.0.0.0", CLUSTER_PORT);
    config.cluster.advertise = Some(HostPort::new(&host(broker), CLUSTER_PORT));
    config.cluster.seeds = (0..BROKERS).map(|seed| HostPort::new(&host(seed), CLUSTER_PORT)).collect();
}

impl Room {
    /// Brokers with empty disks.
    pub fn new(seed: u64, adjust: fn(&mut Config), tamper: Option<Arc<dyn Tamper>>) -> Self {
        let wires = Wires::default();
        let broker = |broker: usize| {
            let own = seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(broker as u64);
            let world = World::named(&host(broker), own, wires.clone());
            let adjust = move |config: &mut Config| {
                configure(config, broker);
                adjust(config);
            };
            world.configure(adjust, tamper.clone());
            world
        };
        let brokers = Arc::new((0..BROKERS).map(broker).collect());
        Self {
            brokers,
            wires,
            begins: Arc::default(),
            over: Arc::default(),
            gate: Arc::default(),
            scenes: Arc::default(),
            seen: Arc::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client was told that something of a partition is committed.
    pub fn acked(&self, partition: i32) {
        self.seen().acked.insert(partition, turmoil::sim_elapsed().unwrap_or_default());
    }

    /// A broker is asked who leads a partition from now on, and has named somebody now if `is_named`.
    pub fn named(&self, broker: usize, partition: i32, is_named: bool) {
        let mut seen = self.seen();
        let at = seen.named.entry((broker, partition)).or_default();
        if is_named {
            *at = turmoil::sim_elapsed().unwrap_or_default();
        }
    }

    /// A scene in which everything was to be served ends now.
    pub fn has_served(&self, scene: usize, now: Duration) {
        let mut guard = self.seen();
        let seen = &mut *guard;
        let within = SERVED_WITHIN.as_secs();
        let late = |at: &Duration| *at + SERVED_WITHIN < now;
        for (partition, _) in seen.acked.iter().filter(|(_, at)| late(at)) {
            let what = format!("nothing of partition {partition} was acknowledged for {within} s");
            seen.broken
                .push(format!("availability-gap: {what}, at the end of scene {scene}, though a majority was up"));
        }
        for ((broker, partition), _) in seen.named.iter().filter(|(_, at)| late(at)) {
            let what = format!("broker {} names no leader of partition {partition} for {within} s", broker + 1);
            seen.broken.push(format!("leader-hidden: {what}, at the end of scene {scene}"));
        }
    }

    /// Somebody was elected without a reason.
    pub fn has_elected(&self, scene: usize, before: &Leaders, now: &Leaders) {
        let what = format!("needless-election: {before:?} led before scene {scene}, {now:?} afterwards");
        self.seen().broken.push(what);
    }

    /// What was not served in time.
    pub fn broken(&self) -> Vec<String> {
        self.seen().broken.clone()
    }

    /// Whether the story may begin.
    pub fn begins(&self) -> bool {
        self.begins.load(Ordering::Relaxed)
    }

    /// A scene that waits may begin.
    pub fn open_gate(&self) {
        self.gate.store(true, Ordering::Relaxed);
    }

    /// Whether a scene that waits may begin: one.
    pub fn pass_gate(&self) -> bool {
        self.gate.swap(false, Ordering::Relaxed)
    }

    /// A scene is over.
    pub fn ends_scene(&self) {
        self.scenes.fetch_add(1, Ordering::Relaxed);
    }

    /// How many scenes are over.
    pub fn scenes_over(&self) -> usize {
        self.scenes.load(Ordering::Relaxed)
    }

    /// The story is over.
    pub fn ends(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// The story may begin.
    pub fn begin(&self) {
        self.begins.store(true, Ordering::Relaxed);
    }

    /// Whether the story is over and all is well.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Runs the brokers and their clients through a story until the clients are done, or `time_max` of simulated time has passed.
    pub fn simulate(
        &self,
        seed: u64,
        story: &[Scene],
        time_max: Duration,
        clients: impl Future<Output = ()> + 'static,
    ) -> (Ended, Struck) {
        let _one_at_a_time = runner::alone();
        let mut sim = runner::builder(seed, time_max).build();
        for broker in self.brokers.iter() {
            let broker = broker.clone();
            sim.host(broker.name(), move || broker.clone().live());
        }
        sim.client(CLIENTS, async move {
            clients.await;
            Ok(())
        });
        let mut play = Play::new(self, story, seed);
        let mut stuck = false;
        loop {
            let Ok(finished) = sim.step() else {
                stuck = true;
                break;
            };
            sealed::advance(sim.elapsed());
            play.go_on(&mut sim);
            if finished {
                break;
            }
        }
        let disk_ops = play.disk_ops + self.brokers.iter().map(|broker| broker.disk().ops()).sum::<u64>();
        (Ended { stuck, disk_ops, took: sim.elapsed() }, play.struck)
    }
}
