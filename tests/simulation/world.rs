//! The simulated machine room: one broker host on a faulty disk, clients, and a clock, all driven by one seed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::broker::{Broker, Env};
use ottla::clock::Clock;
use ottla::config::{Config, Durability};
use ottla::flaws::{Flaw, Flaws};
use ottla::ids::{ReplicaId, Timestamp};
use ottla::log::disk::{Disk, Job, Lane};
use ottla::log::mem_disk::MemDisk;
use ottla::replica::coordinator::Tamper;
use ottla::server::Context;
use tokio::sync::Notify;

use crate::bugs::{Bug, BuggyDisk};
use crate::network::{SimNetwork, Wires};

/// The name in the simulated network of a broker that is alone.
pub const BROKER: &str = "broker";
/// The port that it listens on.
pub const PORT: u16 = 9092;
/// What a job of the disk takes, on the simulation's clock: several messages long, so that what arrives meanwhile shares the next sync.
const DISK_LATENCY: Duration = Duration::from_micros(2_500);

/// The simulation's time of day.
struct SimClock;

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        Timestamp(1_700_000_000_000 + i64::try_from(elapsed.as_millis()).expect("a short simulation"))
    }
}

/// What befalls the broker, at an operation of the present life's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power is cut during this operation.
    Power(u64),
    /// The process is killed when the disk reaches this operation.
    Kill(u64),
    /// The process is told to stop when the disk reaches this operation, and stops cleanly.
    Stop(u64),
}

/// What is done within a broker that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It asks the broker with that place to lead what it leads.
    Transfer(usize),
    /// The Raft cores of the partitions that it leads stop.
    StopCores,
}

impl Deed {
    /// Does it; to how many partitions.
    async fn run(self, running: &Context) -> u64 {
        let mut done = 0;
        for replica in running.replicas.open() {
            let group = replica.group();
            if group.term().is_none() || replica.coordinates() {
                continue;
            }
            match self {
                Self::StopCores => group.stop().await,
                Self::Transfer(to) => {
                    let voters = group.members().voters;
                    let is_meant = |replica: &&ReplicaId| usize::try_from(replica.broker.0) == Ok(to + 1);
                    let to = voters.iter().flatten().find(is_meant).copied();
                    let (Some(node), Some(to)) = (&running.among, to) else { continue };
                    node.withdraw(replica.id());
                    group.transfer(to).await;
                }
            }
            done += 1;
        }
        done
    }
}

/// What is to be done in a life, and to how many partitions something was.
#[derive(Default)]
struct Deeds {
    wanted: Mutex<VecDeque<Deed>>,
    changed: Notify,
    done: AtomicU64,
}

impl Deeds {
    /// Does what is wanted, for ever.
    async fn run(&self, running: &Context) {
        loop {
            let next = self.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
            match next {
                Some(deed) => drop(self.done.fetch_add(deed.run(running).await, Ordering::Relaxed)),
                None => self.changed.notified().await,
            }
        }
    }
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The power was cut.
    Power,
    /// The process has ended, by force or by itself; the page cache stays.
    Process,
}

/// The broker's disk and lives, shared between the harness and the host.
#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
}

/// What a broker's configuration has beside what all have.
type Adjust = Arc<dyn Fn(&mut Config) + Send + Sync>;

struct State {
    /// The host's name.
    name: String,
    wires: Wires,
    /// The running broker, once it has started.
    running: Option<Arc<Context>>,
    /// The ids of the clusters that its lives were of.
    clusters: BTreeSet<String>,
    disk: MemDisk,
    /// What the disk is like, whatever it holds.
    device: Device,
    bug: Option<Bug>,
    flaws: Flaws,
    seed: u64,
    lives: u64,
    boots: u64,
    fatal: Option<String>,
    /// Whether a sync is to fail, which ends the process.
    sync_fails: bool,
    start_errors: Vec<String>,
    /// What the configuration of each life has beside what all have.
    adjust: Adjust,
    tamper: Option<Arc<dyn Tamper>>,
    /// The fault that waits for the present life, and those that wait for later ones.
    armed: Option<Fault>,
    planned: VecDeque<Fault>,
    /// Faults that have struck.
    struck: usize,
    /// Tells the present life to stop, and whether it has.
    stop: Arc<Notify>,
    has_stopped: bool,
    deeds: Arc<Deeds>,
}

/// How long the jobs of a disk take.
#[derive(Clone, Default)]
struct Device {
    /// Microseconds; 0 for [`DISK_LATENCY`].
    latency: Arc<AtomicU64>,
    /// Jobs that took longer than that.
    slowed: Arc<AtomicU64>,
}

impl Device {
    fn empty_disk(&self, seed: u64) -> MemDisk {
        let device = self.clone();
        MemDisk::with_defer(Arc::new(move |lane, job| device.defer(lane, job))).seeded(seed)
    }

    /// Runs a job of the disk a little later, on the host that asked.
    fn defer(&self, _lane: Lane, job: Job) {
        let latency = match self.latency.load(Ordering::Relaxed) {
            0 => DISK_LATENCY,
            micros => {
                self.slowed.fetch_add(1, Ordering::Relaxed);
                Duration::from_micros(micros)
            }
        };
        tokio::spawn(async move {
            tokio::time::sleep(latency).await;
            job();
        });
    }
}

impl World {
    /// A world with one broker and an empty disk.
    pub fn new(seed: u64) -> Self {
        Self::named(BROKER, seed, Wires::default())
    }

    /// The part of a world that is one broker's: its host is called `name`.
    pub fn named(name: &str, seed: u64, wires: Wires) -> Self {
        let device = Device::default();
        let state = State {
            name: name.to_owned(),
            wires,
            running: None,
            clusters: BTreeSet::new(),
            disk: device.empty_disk(seed),
            device,
            bug: None,
            flaws: Flaws::NONE,
            seed,
            lives: 0,
            boots: 0,
            fatal: None,
            sync_fails: false,
            start_errors: Vec::new(),
            adjust: Arc::new(|_| {}),
            tamper: None,
            armed: None,
            planned: VecDeque::new(),
            struck: 0,
            stop: Arc::default(),
            has_stopped: false,
            deeds: Arc::default(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Plants a bug in every later life.
    pub fn plant(&self, bug: Bug) {
        let mut state = self.lock();
        match bug {
            Bug::SyncIsNoop => state.disk.set_sync_is_noop(true),
            Bug::DirSyncIsNoop => state.disk.set_dir_sync_is_noop(true),
            Bug::AckBeforeSync => {
                let before = Arc::clone(&state.adjust);
                state.adjust = Arc::new(move |config| {
                    before(config);
                    config.broker.durability = Durability::PageCache;
                });
            }
            Bug::OnlyNewestFileSynced | Bug::RecoveredTailNotSynced => {}
        }
        state.bug = Some(bug);
    }

    /// Plants a bug in the code of every later life.
    pub fn flaw(&self, flaw: Flaw) {
        self.lock().flaws = Flaws::plant(flaw);
    }

    /// From now on each job of the disk takes so long; without, as long as always.
    pub fn slow_down(&self, latency: Option<Duration>) {
        let micros = latency.map_or(0, |latency| u64::try_from(latency.as_micros()).expect("short"));
        self.lock().device.latency.store(micros, Ordering::Relaxed);
    }

    /// Jobs of the disk that were slow.
    pub fn slowed(&self) -> u64 {
        self.lock().device.slowed.load(Ordering::Relaxed)
    }

    /// Lets one of the next syncs of the present life fail, which ends it.
    pub fn fail_a_sync(&self) {
        let mut state = self.lock();
        state.sync_fails = true;
        let next = state.disk.counters().syncs;
        state.disk.fail_sync_at(next + next % 3);
    }

    /// Has something done within the present life.
    pub fn order(&self, deed: Deed) {
        let deeds = Arc::clone(&self.lock().deeds);
        deeds.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push_back(deed);
        deeds.changed.notify_one();
    }

    /// To how many partitions something was done in the present life.
    pub fn deeds_done(&self) -> u64 {
        self.lock().deeds.done.load(Ordering::Relaxed)
    }

    /// The present disk.
    pub fn disk(&self) -> MemDisk {
        self.lock().disk.clone()
    }

    /// The seed of everything that is drawn.
    pub fn seed(&self) -> u64 {
        self.lock().seed
    }

    /// Has every later life run with these settings, and with something between its coordinators and their logs.
    pub fn configure(&self, adjust: impl Fn(&mut Config) + Send + Sync + 'static, tamper: Option<Arc<dyn Tamper>>) {
        let mut state = self.lock();
        (state.adjust, state.tamper) = (Arc::new(adjust), tamper);
    }

    /// The host's name.
    pub fn name(&self) -> String {
        self.lock().name.clone()
    }

    /// The running broker, once it has started.
    pub fn running(&self) -> Option<Arc<Context>> {
        self.lock().running.clone()
    }

    /// The ids of the clusters that its lives were of.
    pub fn clusters(&self) -> BTreeSet<String> {
        self.lock().clusters.clone()
    }

    /// Another disk is put in place of the one that the present life has had. The host is down.
    pub fn wipe(&self) {
        let mut state = self.lock();
        state.disk = state.device.empty_disk(state.seed.rotate_left(7) ^ state.lives);
    }

    /// Has these faults strike, one a life.
    pub fn plan(&self, faults: &[Fault]) {
        let mut state = self.lock();
        state.planned.extend(faults);
        state.arm_next();
    }

    /// Has a fault strike the present life.
    pub fn strike(&self, fault: Fault) {
        self.lock().arm(fault);
    }

    /// Faults that have struck.
    pub fn struck(&self) -> usize {
        self.lock().struck
    }

    /// Why lives did not start, other than because the power went, or did not stop when they were told to.
    pub fn start_errors(&self) -> Vec<String> {
        self.lock().start_errors.clone()
    }

    /// How the present life has ended, if it has: the host is to be crashed.
    pub fn end_of_life(&self) -> Option<End> {
        let mut state = self.lock();
        let state = &mut *state;
        if state.disk.is_cut() {
            return Some(End::Power);
        }
        let ops = state.disk.ops();
        match state.armed {
            Some(Fault::Kill(op)) if ops >= op => return Some(End::Process),
            Some(Fault::Stop(op)) if ops >= op => state.stop.notify_one(),
            _ => {}
        }
        if state.sync_fails && state.fatal.is_some() {
            return Some(End::Process);
        }
        assert!(state.fatal.is_none(), "a sync failed that no fault made fail: {:?}", state.fatal);
        state.has_stopped.then_some(End::Process)
    }

    /// After the host was crashed: what the next life finds.
    pub fn next_life(&self, end: End) {
        let mut state = self.lock();
        (state.fatal, state.running, state.sync_fails) = (None, None, false);
        (state.stop, state.has_stopped, state.deeds) = (Arc::default(), false, Arc::default());
        match end {
            End::Power => {
                state.disk = state.disk.after_power_cut();
                state.boots += 1;
            }
            End::Process => state.disk = state.disk.crash_process(),
        }
        state.struck += 1;
        state.arm_next();
    }

    /// One life of the broker, until the host is crashed.
    pub async fn live(self) -> turmoil::Result {
        let (env, config, stop) = self.new_life();
        match Broker::start(config, env).await {
            Ok(broker) => {
                {
                    let mut state = self.lock();
                    state.clusters.insert(broker.context().cluster_id.clone());
                    state.running = Some(Arc::clone(broker.context()));
                }
                let (deeds, running) = (Arc::clone(&self.lock().deeds), Arc::clone(broker.context()));
                tokio::select! {
                    biased;
                    () = stop.notified() => {}
                    () = deeds.run(&running) => {}
                }
                drop(running);
                let stopped = broker.stop().await;
                let mut state = self.lock();
                state.has_stopped = true;
                state.start_errors.extend(stopped.err().map(|error| format!("did not stop: {error}")));
            }
            Err(error) => {
                let mut state = self.lock();
                if state.sync_fails && state.disk.counters().failed_syncs > 0 {
                    // It ends as it would later, and says so to whoever started it.
                    state.fatal = Some(error.to_string());
                } else if !state.disk.is_cut() {
                    state.start_errors.push(format!("did not start: {error}"));
                }
            }
        }
        Ok(())
    }

    fn new_life(&self) -> (Env, Config, Arc<Notify>) {
        let mut state = self.lock();
        state.lives += 1;
        let disk: Arc<dyn Disk> = match state.bug {
            Some(bug) => Arc::new(BuggyDisk::new(state.disk.clone(), bug)),
            None => Arc::new(state.disk.clone()),
        };
        let (world, life) = (self.clone(), state.lives);
        let env = Env {
            disk,
            network: Arc::new(SimNetwork { me: state.name.clone(), wires: state.wires.clone() }),
            clock: Arc::new(SimClock),
            seed: state.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(state.lives),
            boot_id: format!("boot-{}", state.boots),
            fatal: Arc::new(move |fatal| {
                let mut state = world.lock();
                if state.lives == life {
                    state.fatal = Some(fatal.reason);
                }
            }),
            tamper: state.tamper.clone(),
            flaws: state.flaws,
        };
        let mut config = Config::default();
        config.kafka.listen = ottla::config::HostPort::new("0.0.0.0", PORT);
        config.kafka.advertise = Some(ottla::config::HostPort::new(&state.name, PORT));
        config.admin.listen = None;
        (state.adjust)(&mut config);
        (env, config, Arc::clone(&state.stop))
    }
}

impl State {
    fn arm_next(&mut self) {
        self.armed = None;
        if let Some(fault) = self.planned.pop_front() {
            self.arm(fault);
        }
    }

    fn arm(&mut self, fault: Fault) {
        self.armed = Some(fault);
        if let Fault::Power(op) = fault {
            self.disk.cut_power_at(op);
        }
    }
}
