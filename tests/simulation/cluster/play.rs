//! Plays a story: lets its faults strike the brokers and the ways between them, scene after scene, and puts all right again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ottla::log::disk::Disk;

use super::replicas::{self, Leaders};
use super::room::{CLIENTS, LATENCY_MAX, Room, Struck, host};
use super::story::{Act, BROKERS, Cast, Closed, LEADER, Scene};
use crate::draw;
use crate::world::{Deed, End, Fault};

/// A power cut that was to come with an operation on the disk comes without one after this.
const NEXT_OPERATION_MAX: Duration = Duration::from_millis(400);
/// A fault that is to come with a write or a sync comes within this, as long as the broker has work.
const WORK_WITHIN: Duration = Duration::from_secs(4);
/// Who has not stopped after this, because it is still starting, is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);

/// For what a broker's fault waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Armed {
    /// Its power goes with an operation of its disk.
    Power,
    /// It stops.
    Stop,
    /// Its power goes in a write.
    Tear,
    /// A sync of it fails.
    FailSync,
}

/// What is wrong with a broker now.
#[derive(Default)]
struct State {
    /// It does not run.
    is_down: bool,
    /// A fault waits for something, until then.
    armed: Option<(Armed, Duration)>,
    /// Its disk goes while it is down.
    is_wiped: bool,
    /// It has no power: others hear nothing, not even that it is gone.
    is_dark: bool,
    /// Its disk is damaged, or Raft cores of it have stopped: at the end of the scene it gets another disk, or starts again.
    is_damaged: bool,
    has_dead_cores: bool,
    /// What the disk, or the life, had done when a fault began that does not end it; and that fault.
    since: Vec<(Act, u64)>,
}

/// The story as far as it has come.
pub struct Play<'a> {
    room: &'a Room,
    story: &'a [Scene],
    seed: u64,
    began: Option<Duration>,
    scene: usize,
    cast: Option<Cast>,
    /// Whether the scene has begun.
    is_set: bool,
    scene_began: Duration,
    /// Who led then.
    leaders: Leaders,
    /// Acts of the scene that have begun.
    begun: usize,
    is_resting: bool,
    states: Vec<State>,
    /// Brokers that lose their power together with the one that is armed.
    with_armed: Vec<usize>,
    has_lost_a_disk: bool,
    lost: BTreeSet<(usize, usize)>,
    stalled: BTreeSet<(usize, usize)>,
    slow: BTreeSet<usize>,
    flaps: BTreeMap<usize, u64>,
    /// Brokers that flap and are cut off now.
    away: BTreeSet<usize>,
    /// What has become of the faults.
    pub struck: Struck,
    /// Operations of the disks of lives that are over.
    pub disk_ops: u64,
}

impl<'a> Play<'a> {
    /// A story that has not begun.
    pub fn new(room: &'a Room, story: &'a [Scene], seed: u64) -> Self {
        Self {
            room,
            story,
            seed,
            began: None,
            scene: 0,
            cast: None,
            is_set: false,
            scene_began: Duration::ZERO,
            leaders: Leaders::new(),
            begun: 0,
            is_resting: false,
            states: (0..BROKERS).map(|_| State::default()).collect(),
            with_armed: Vec::new(),
            has_lost_a_disk: false,
            lost: BTreeSet::new(),
            stalled: BTreeSet::new(),
            slow: BTreeSet::new(),
            flaps: BTreeMap::new(),
            away: BTreeSet::new(),
            struck: Struck::default(),
            disk_ops: 0,
        }
    }

    /// After each step of the simulation.
    pub fn go_on(&mut self, sim: &mut turmoil::Sim<'_>) {
        let now = sim.elapsed();
        self.bury(sim, now);
        if self.began.is_none() {
            if !self.room.begins() {
                return;
            }
            self.began = Some(now);
        }
        let Some(scene) = self.story.get(self.scene) else { return self.room.ends() };
        if !self.is_set {
            // Whoever loses a second disk before the first one's replicas are filled has lost a majority.
            // And whoever waits to be taken for another has nothing to do, nor has one that has just come and is not reached yet.
            let loses_a_disk = scene.acts.iter().any(|(_, act)| act.loses_a_disk());
            let needs_work = scene.acts.iter().any(|(_, act)| act.needs_work(!self.has_lost_a_disk));
            if (loses_a_disk || needs_work) && (self.began == Some(now) || replicas::compare(self.room).is_err()) {
                return;
            }
            if !self.is_cast(scene) || (scene.waits && !self.room.pass_gate()) {
                return;
            }
            (self.is_set, self.scene_began) = (true, now);
            self.leaders = replicas::leaders(self.room);
        }
        let into = now.saturating_sub(self.scene_began);
        if self.is_resting {
            if into >= scene.lasts + scene.rest {
                (self.scene, self.is_set, self.begun, self.is_resting) = (self.scene + 1, false, 0, false);
                self.room.ends_scene();
            }
            return;
        }
        while let Some((at, act)) = scene.acts.get(self.begun)
            && *at <= into
        {
            let Some(act) = self.played(act) else { break };
            self.begun += 1;
            self.begin(sim, &act, now);
        }
        self.flap(sim, into);
        let is_armed = self.states.iter().any(|state| state.armed.is_some());
        if into >= scene.lasts && self.begun == scene.acts.len() && !is_armed {
            if scene.serves {
                self.room.has_served(self.scene, now);
            }
            let leaders = replicas::leaders(self.room);
            if scene.keeps_leaders && leaders != self.leaders {
                self.room.has_elected(self.scene, &self.leaders, &leaders);
            }
            if !scene.goes_on {
                self.put_right(sim);
            }
            self.is_resting = true;
        }
    }

    /// Says who plays what in a scene, if that matters and is not said yet: whether it is.
    fn is_cast(&mut self, scene: &Scene) -> bool {
        let by_role = Cast::new(0, None);
        let matters = scene.acts.iter().any(|(_, act)| act.cast(by_role) != *act);
        if !matters || (self.cast.is_some() && !scene.casts) {
            return true;
        }
        let Some(leader) = replicas::leader_of_first(self.room) else { return false };
        // One that has just died is still taken for it.
        if self.states[leader].is_down {
            return false;
        }
        self.cast = Some(Cast::new(leader, self.cast));
        true
    }

    /// A fault, with those who play it. One of whoever leads waits while nobody does: the one that led when the scene began may have lost its followers.
    fn played(&self, act: &Act) -> Option<Act> {
        let cast = self.cast.map_or_else(|| act.clone(), |cast| act.cast(cast));
        // A broker does not start on a disk without room, and says so.
        let starts = |broker: usize| !self.states[broker].is_down && self.room.brokers[broker].running().is_none();
        if matches!(cast, Act::Full(_)) && (0..BROKERS).any(starts) {
            return None;
        }
        let (Act::Cores(meant) | Act::Transfer(meant, _), Act::Cores(who) | Act::Transfer(who, _)) = (act, &cast)
        else {
            return Some(cast);
        };
        let leaders = replicas::leaders(self.room);
        if *meant != LEADER || leaders.values().any(|(_, leader)| leader == who) {
            return Some(cast);
        }
        let leader = replicas::leader_of_first(self.room).filter(|leader| !self.states[*leader].is_down)?;
        Some(act.cast(Cast::new(leader, self.cast)))
    }

    /// Crashes the hosts of brokers whose lives have ended.
    fn bury(&mut self, sim: &mut turmoil::Sim<'_>, now: Duration) {
        for broker in 0..BROKERS {
            let world = &self.room.brokers[broker];
            if self.states[broker].is_down {
                continue;
            }
            let late = self.states[broker].armed.filter(|(_, until)| now >= *until).map(|(armed, _)| armed);
            let (end, is_missed) = match (world.end_of_life(), late) {
                (Some(end), _) => (end, None),
                (None, Some(Armed::Stop)) => (End::Process, None),
                (None, Some(armed)) => {
                    world.disk().cut_power_now();
                    let missed = match armed {
                        Armed::Tear => Some(Act::Tear(broker)),
                        Armed::FailSync => Some(Act::FailSync(broker)),
                        Armed::Power | Armed::Stop => None,
                    };
                    (End::Power, missed)
                }
                (None, None) => continue,
            };
            if let Some(missed) = is_missed {
                self.struck.miss(missed);
            }
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
        self.settle_accounts(broker);
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
            self.has_lost_a_disk = true;
        }
    }

    /// Whether faults that do not end a life have struck anything in it.
    fn settle_accounts(&mut self, broker: usize) {
        for (act, before) in std::mem::take(&mut self.states[broker].since) {
            if self.account(&act, broker) == before {
                self.struck.miss(act);
            }
        }
    }

    /// What shows that a fault has struck: it grows.
    fn account(&self, act: &Act, broker: usize) -> u64 {
        let world = &self.room.brokers[broker];
        match act {
            Act::SlowDisk(..) => world.slowed(),
            _ => world.deeds_done(),
        }
    }

    fn watch(&mut self, act: &Act, broker: usize) {
        let before = self.account(act, broker);
        self.states[broker].since.push((act.clone(), before));
    }

    fn begin(&mut self, sim: &mut turmoil::Sim<'_>, act: &Act, now: Duration) {
        let is_up = |broker: &usize| !self.states[*broker].is_down;
        let hits = match act {
            Act::Kill(brokers) | Act::Power(brokers) => brokers.iter().all(is_up),
            Act::Close(from, to, _) | Act::Open(from, to) => is_up(from) || is_up(to),
            Act::Far(_) => true,
            Act::Stop(broker)
            | Act::Wipe(broker)
            | Act::Lie(broker)
            | Act::Full(broker)
            | Act::Slow(broker, _)
            | Act::Flap(broker, _)
            | Act::Restart(broker)
            | Act::Tear(broker)
            | Act::Blink(broker)
            | Act::SlowDisk(broker, _)
            | Act::FailSync(broker)
            | Act::Flip(broker)
            | Act::Transfer(broker, _)
            | Act::Cores(broker) => is_up(broker),
        };
        if !hits {
            return self.struck.missed.push(act.clone());
        }
        tracing::info!(target: "ottla::story", ?act, ?now, scene = self.scene, "it begins");
        self.struck.hit += 1;
        self.do_it(sim, act, now);
        self.wire(sim);
    }

    fn do_it(&mut self, sim: &mut turmoil::Sim<'_>, act: &Act, now: Duration) {
        let brokers = &self.room.brokers;
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
            // Whoever writes into space that was given before does not notice.
            Act::Full(broker) => brokers[*broker].disk().set_capacity(Some(0)),
            Act::Lie(broker) => brokers[*broker].disk().lie(),
            Act::Stop(broker) => {
                brokers[*broker].strike(Fault::Stop(0));
                self.states[*broker].armed = Some((Armed::Stop, now + STOP_TIME_MAX));
            }
            Act::Close(from, to, closed) => self.close(*from, *to, *closed),
            Act::Open(from, to) => self.open(*from, *to),
            Act::Slow(broker, ms) => {
                self.slow.insert(*broker);
                self.set_latency(sim, *broker, Duration::from_millis(*ms));
            }
            Act::Far(ms) => self.set_distance(sim, Duration::from_millis(*ms)),
            Act::Flap(broker, ms) => drop(self.flaps.insert(*broker, *ms)),
            Act::Restart(broker) => {
                self.end_life(sim, *broker, End::Process);
                self.start_again(sim, *broker);
            }
            Act::Tear(broker) => {
                brokers[*broker].disk().cut_power_in_write(".log");
                self.states[*broker].armed = Some((Armed::Tear, now + WORK_WITHIN));
            }
            Act::Blink(broker) => self.blink(sim, *broker),
            Act::SlowDisk(broker, ms) => {
                brokers[*broker].slow_down(Some(Duration::from_millis(*ms)));
                self.watch(act, *broker);
            }
            Act::FailSync(broker) => {
                brokers[*broker].fail_a_sync();
                self.states[*broker].armed = Some((Armed::FailSync, now + WORK_WITHIN));
            }
            Act::Flip(broker) => {
                self.states[*broker].is_damaged = true;
                if !self.flip(*broker) {
                    self.struck.miss(act.clone());
                }
            }
            Act::Transfer(broker, to) => {
                brokers[*broker].order(Deed::Transfer(*to));
                self.watch(act, *broker);
            }
            Act::Cores(broker) => {
                brokers[*broker].order(Deed::StopCores);
                self.states[*broker].has_dead_cores = true;
                self.watch(act, *broker);
            }
        }
    }

    fn close(&mut self, from: usize, to: usize, closed: Closed) {
        match closed {
            Closed::Lost => drop(self.lost.insert((from, to))),
            Closed::Stalled => {
                self.stalled.insert((from, to));
                self.room.wires.stall(&host(from), &host(to));
            }
        }
    }

    fn open(&mut self, from: usize, to: usize) {
        self.lost.remove(&(from, to));
        if self.stalled.remove(&(from, to)) {
            self.room.wires.flow(&host(from), &host(to));
        }
    }

    fn arm(&mut self, broker: usize, now: Duration) {
        let world = &self.room.brokers[broker];
        let op = world.disk().ops();
        world.strike(Fault::Power(op + 1 + op % 7));
        self.states[broker].armed = Some((Armed::Power, now + NEXT_OPERATION_MAX));
    }

    /// The power is cut and comes back: nothing is left that was not synced.
    fn blink(&mut self, sim: &mut turmoil::Sim<'_>, broker: usize) {
        let world = &self.room.brokers[broker];
        self.struck.unsynced += replicas::unsynced(world);
        world.disk().set_merciless(true);
        world.disk().cut_power_now();
        self.end_life(sim, broker, End::Power);
        // It is not slow any more either: it is back before it is missed.
        self.room.brokers[broker].slow_down(None);
        self.room.brokers[broker].disk().set_merciless(false);
        self.start_again(sim, broker);
    }

    fn start_again(&mut self, sim: &mut turmoil::Sim<'_>, broker: usize) {
        self.states[broker] = State::default();
        self.wire(sim);
        sim.bounce(host(broker));
    }

    /// Flips a bit of a log of the broker, where it may be read again: whether there was one.
    fn flip(&self, broker: usize) -> bool {
        let disk = self.room.brokers[broker].disk();
        let mut turn = self.seed ^ disk.ops();
        let files = replicas::log_files(&disk);
        let Some(path) = files.get(usize::try_from(draw(&mut turn, files.len() as u64)).expect("few")) else {
            return false;
        };
        let length = disk.open(path, ottla::log::disk::Open::ReadOnly).and_then(|file| file.len()).unwrap_or(0);
        let (pos, bit) = (draw(&mut turn, length), u32::try_from(draw(&mut turn, 8)).expect("small"));
        disk.flip_bit(path, pos, bit).is_ok() && disk.set_cold(path).is_ok()
    }

    fn flap(&mut self, sim: &turmoil::Sim<'_>, into: Duration) {
        let is_away =
            |(broker, ms): (&usize, &u64)| (into.as_millis() / u128::from(*ms)).is_multiple_of(2).then_some(*broker);
        let away: BTreeSet<usize> = self.flaps.iter().filter_map(is_away).collect();
        if away != self.away {
            self.away = away;
            self.wire(sim);
        }
    }

    fn set_latency(&self, sim: &turmoil::Sim<'_>, broker: usize, max: Duration) {
        let others = (0..BROKERS).filter(|other| *other != broker).map(host);
        others.for_each(|other| sim.set_link_max_message_latency(host(broker), other, max));
    }

    fn set_distance(&self, sim: &turmoil::Sim<'_>, one_way: Duration) {
        for one in 0..BROKERS {
            (0..one).for_each(|other| sim.set_link_latency(host(one), host(other), one_way));
            sim.set_link_latency(host(one), CLIENTS, one_way);
        }
    }

    /// Ends what the scenes have begun.
    fn put_right(&mut self, sim: &mut turmoil::Sim<'_>) {
        self.lost.clear();
        self.flaps.clear();
        self.away.clear();
        for (from, to) in std::mem::take(&mut self.stalled) {
            self.room.wires.flow(&host(from), &host(to));
        }
        for broker in std::mem::take(&mut self.slow) {
            self.set_latency(sim, broker, LATENCY_MAX);
        }
        for broker in 0..BROKERS {
            if !self.states[broker].is_down && self.states[broker].is_damaged {
                self.states[broker].is_wiped = true;
                self.room.brokers[broker].disk().cut_power_now();
                self.end_life(sim, broker, End::Power);
            } else if !self.states[broker].is_down && self.states[broker].has_dead_cores {
                self.end_life(sim, broker, End::Process);
            }
            self.settle_accounts(broker);
        }
        for broker in self.room.brokers.iter() {
            broker.disk().set_capacity(None);
            broker.slow_down(None);
        }
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
        let is_away = |from: usize, to: usize| {
            from < BROKERS && to < BROKERS && (self.away.contains(&from) || self.away.contains(&to))
        };
        let name = |place: usize| if place < BROKERS { host(place) } else { CLIENTS.to_owned() };
        for from in 0..=BROKERS {
            for to in (0..=BROKERS).filter(|to| *to != from) {
                if is_dark(from) || is_dark(to) || is_away(from, to) || self.lost.contains(&(from, to)) {
                    sim.partition_oneway(name(from), name(to));
                } else {
                    sim.repair_oneway(name(from), name(to));
                }
            }
        }
    }
}
