//! The room that the brokers of a cluster stand in: starts them, lets the story's faults strike them, and puts all right again.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ottla::config::{Config, HostPort};
use ottla::ids::BrokerId;

use super::replicas;
use super::story::{Act, BROKERS, Closed, Scene};
use crate::network::Wires;
use crate::runner::{self, Ended};
use crate::world::{End, Fault, World};

/// The port for other brokers.
const CLUSTER_PORT: u16 = 9192;
/// The host of the clients.
const CLIENTS: &str = "clients";
/// A power cut that was to come with an operation on the disk comes without one after this.
const NEXT_OPERATION_MAX: Duration = Duration::from_millis(400);
/// Who has not stopped after this, because it is still starting, is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);
/// Messages between hosts otherwise take this long at most.
const LATENCY_MAX: Duration = Duration::from_micros(500);

/// The brokers, and what the clients are told of the story.
#[derive(Clone)]
pub struct Room {
    /// Each broker with its disk.
    pub brokers: Arc<Vec<World>>,
    /// What they hear.
    pub wires: Wires,
    begins: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

/// What has become of the story's faults.
#[derive(Clone, Debug, Default)]
pub struct Struck {
    /// Faults that struck.
    pub hit: usize,
    /// Those that found nothing to strike.
    pub missed: Vec<Act>,
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
    pub fn new(seed: u64) -> Self {
        let wires = Wires::default();
        let broker = |broker: usize| {
            let own = seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(broker as u64);
            let world = World::named(&host(broker), own, wires.clone());
            world.configure(move |config| configure(config, broker), None);
            world
        };
        let brokers = Arc::new((0..BROKERS).map(broker).collect());
        Self { brokers, wires, begins: Arc::default(), over: Arc::default() }
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
        let mut play = Play::new(self, story);
        let mut stuck = false;
        loop {
            let Ok(finished) = sim.step() else {
                stuck = true;
                break;
            };
            play.go_on(&mut sim);
            if finished {
                break;
            }
        }
        let disk_ops = play.disk_ops + self.brokers.iter().map(|broker| broker.disk().ops()).sum::<u64>();
        (Ended { stuck, disk_ops, took: sim.elapsed() }, play.struck)
    }
}

/// What is wrong with a broker now.
#[derive(Default)]
struct State {
    /// It does not run.
    is_down: bool,
    /// A fault waits for an operation of its disk, until then.
    armed: Option<Duration>,
    /// That fault is that it is told to stop.
    stops: bool,
    /// Its disk goes while it is down.
    is_wiped: bool,
    /// It has no power: others hear nothing, not even that it is gone.
    is_dark: bool,
}

/// The story as far as it has come.
struct Play<'a> {
    room: &'a Room,
    story: &'a [Scene],
    began: Option<Duration>,
    scene: usize,
    /// Whether the scene has begun.
    is_set: bool,
    scene_began: Duration,
    /// Acts of the scene that have begun.
    begun: usize,
    is_resting: bool,
    states: Vec<State>,
    /// Brokers that lose their power together with the one that is armed.
    with_armed: Vec<usize>,
    lost: BTreeSet<(usize, usize)>,
    stalled: BTreeSet<(usize, usize)>,
    slow: BTreeSet<usize>,
    struck: Struck,
    disk_ops: u64,
}

impl<'a> Play<'a> {
    fn new(room: &'a Room, story: &'a [Scene]) -> Self {
        Self {
            room,
            story,
            began: None,
            scene: 0,
            is_set: false,
            scene_began: Duration::ZERO,
            begun: 0,
            is_resting: false,
            states: (0..BROKERS).map(|_| State::default()).collect(),
            with_armed: Vec::new(),
            lost: BTreeSet::new(),
            stalled: BTreeSet::new(),
            slow: BTreeSet::new(),
            struck: Struck::default(),
            disk_ops: 0,
        }
    }

    /// After each step of the simulation.
    fn go_on(&mut self, sim: &mut turmoil::Sim<'_>) {
        let now = sim.elapsed();
        self.bury(sim, now);
        if self.began.is_none() {
            if !self.room.begins.load(Ordering::Relaxed) {
                return;
            }
            self.began = Some(now);
        }
        let Some(scene) = self.story.get(self.scene) else {
            self.room.over.store(true, Ordering::Relaxed);
            return;
        };
        if !self.is_set {
            // Whoever loses a second disk before the first one's replicas are filled has lost a majority.
            let loses_a_disk = scene.acts.iter().any(|(_, act)| matches!(act, Act::Wipe(_)));
            if loses_a_disk && (self.began == Some(now) || replicas::compare(self.room).is_err()) {
                return;
            }
            (self.is_set, self.scene_began) = (true, now);
        }
        let into = now.saturating_sub(self.scene_began);
        if self.is_resting {
            if into >= scene.lasts + scene.rest {
                (self.scene, self.is_set, self.begun, self.is_resting) = (self.scene + 1, false, 0, false);
            }
            return;
        }
        while let Some((at, act)) = scene.acts.get(self.begun)
            && *at <= into
        {
            self.begun += 1;
            self.begin(sim, act, now);
        }
        let is_armed = self.states.iter().any(|state| state.armed.is_some());
        if into >= scene.lasts && self.begun == scene.acts.len() && !is_armed {
            self.put_right(sim);
            self.is_resting = true;
        }
    }

    /// Crashes the hosts of brokers whose lives have ended.
    fn bury(&mut self, sim: &mut turmoil::Sim<'_>, now: Duration) {
        for broker in 0..BROKERS {
            let world = &self.room.brokers[broker];
            if self.states[broker].is_down {
                continue;
            }
            let is_late = self.states[broker].armed.is_some_and(|until| now >= until);
            let end = match world.end_of_life() {
                Some(end) => end,
                None if is_late && self.states[broker].stops => End::Process,
                None if is_late => {
                    world.disk().cut_power_now();
                    End::Power
                }
                None => continue,
            };
            self.states[broker].stops = false;
            let was_armed = self.states[broker].armed.take().is_some();
            self.end_life(sim, broker, end);
            if was_armed && end == End::Power {
                for other in std::mem::take(&mut self.with_armed) {
                    self.room.brokers[other].disk().cut_power_now();
                    self.end_life(sim, other, End::Power);
                }
            }
        }
    }

    fn end_life(&mut self, sim: &mut turmoil::Sim<'_>, broker: usize, end: End) {
        let world = &self.room.brokers[broker];
        self.states[broker].is_dark = end == End::Power;
        self.states[broker].is_down = true;
        // Before it is crashed: what has no power says no goodbye.
        self.wire(sim);
        sim.crash(host(broker));
        self.disk_ops += world.disk().ops();
        world.next_life(end);
        if self.states[broker].is_wiped {
            world.wipe();
        }
    }

    fn begin(&mut self, sim: &mut turmoil::Sim<'_>, act: &Act, now: Duration) {
        let is_up = |broker: &usize| !self.states[*broker].is_down;
        let hits = match act {
            Act::Kill(brokers) | Act::Power(brokers) => brokers.iter().all(is_up),
            Act::Stop(broker) | Act::Wipe(broker) | Act::Lie(broker) | Act::Full(broker) | Act::Slow(broker, _) => {
                is_up(broker)
            }
            Act::Close(from, to, _) => is_up(from) || is_up(to),
        };
        if !hits {
            return self.struck.missed.push(act.clone());
        }
        self.struck.hit += 1;
        match act {
            Act::Kill(brokers) => brokers.iter().for_each(|broker| self.end_life(sim, *broker, End::Process)),
            Act::Power(brokers) => {
                self.with_armed = brokers[1..].to_vec();
                self.arm(brokers[0], now);
            }
            Act::Wipe(broker) => {
                self.states[*broker].is_wiped = true;
                self.arm(*broker, now);
            }
            Act::Full(broker) => self.room.brokers[*broker].disk().set_capacity(Some(0)),
            Act::Lie(broker) => self.room.brokers[*broker].disk().lie(),
            Act::Stop(broker) => {
                self.room.brokers[*broker].strike(Fault::Stop(0));
                self.states[*broker].stops = true;
                self.states[*broker].armed = Some(now + STOP_TIME_MAX);
            }
            Act::Close(from, to, Closed::Lost) => drop(self.lost.insert((*from, *to))),
            Act::Close(from, to, Closed::Stalled) => {
                self.stalled.insert((*from, *to));
                self.room.wires.stall(&host(*from), &host(*to));
            }
            Act::Slow(broker, ms) => {
                self.slow.insert(*broker);
                self.set_latency(sim, *broker, Duration::from_millis(*ms));
            }
        }
        self.wire(sim);
    }

    fn arm(&mut self, broker: usize, now: Duration) {
        let world = &self.room.brokers[broker];
        let op = world.disk().ops();
        world.strike(Fault::Power(op + 1 + op % 7));
        self.states[broker].armed = Some(now + NEXT_OPERATION_MAX);
    }

    fn set_latency(&self, sim: &turmoil::Sim<'_>, broker: usize, max: Duration) {
        let others = (0..BROKERS).filter(|other| *other != broker).map(host);
        others.for_each(|other| sim.set_link_max_message_latency(host(broker), other, max));
    }

    /// Ends what the scene has begun.
    fn put_right(&mut self, sim: &mut turmoil::Sim<'_>) {
        self.lost.clear();
        for (from, to) in std::mem::take(&mut self.stalled) {
            self.room.wires.flow(&host(from), &host(to));
        }
        for broker in std::mem::take(&mut self.slow) {
            self.set_latency(sim, broker, LATENCY_MAX);
        }
        self.room.brokers.iter().for_each(|broker| broker.disk().set_capacity(None));
        let were_down: Vec<usize> = (0..BROKERS).filter(|broker| self.states[*broker].is_down).collect();
        for broker in &were_down {
            self.states[*broker] = State::default();
        }
        self.wire(sim);
        were_down.into_iter().for_each(|broker| sim.bounce(host(broker)));
    }

    /// Has the network lose what is sent where nothing gets through.
    fn wire(&self, sim: &turmoil::Sim<'_>) {
        let is_dark = |broker: usize| broker < BROKERS && self.states[broker].is_dark;
        let name = |place: usize| if place < BROKERS { host(place) } else { CLIENTS.to_owned() };
        for from in 0..=BROKERS {
            for to in (0..=BROKERS).filter(|to| *to != from) {
                if is_dark(from) || is_dark(to) || self.lost.contains(&(from, to)) {
                    sim.partition_oneway(name(from), name(to));
                } else {
                    sim.repair_oneway(name(from), name(to));
                }
            }
        }
    }
}
