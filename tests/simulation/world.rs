//! The simulated machine room: one broker host on a faulty disk, clients, and a clock, all driven by one seed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::broker::{Broker, Env};
use ottla::clock::Clock;
use ottla::config::Config;
use ottla::ids::Timestamp;
use ottla::log::disk::{Disk, Job, Lane};
use ottla::log::mem_disk::MemDisk;
use ottla::net::{BoxFuture, Connection, Listener, Network};

use crate::bugs::{Bug, BuggyDisk};

/// The broker's name in the simulated network.
pub const BROKER: &str = "broker";
/// The port that it listens on.
pub const PORT: u16 = 9092;
/// What a job of the disk takes, on the simulation's clock: several messages long, so that what arrives meanwhile shares the next sync.
const DISK_LATENCY: Duration = Duration::from_micros(2_500);

/// turmoil's network behind the broker's seam.
pub struct SimNetwork;

struct SimListener(turmoil::net::TcpListener);

fn split(stream: turmoil::net::TcpStream, peer: std::net::SocketAddr) -> Connection {
    let (reader, writer) = stream.into_split();
    Connection { reader: Box::new(reader), writer: Box::new(writer), peer }
}

impl Listener for SimListener {
    fn accept(&self) -> BoxFuture<'_, std::io::Result<Connection>> {
        Box::pin(async {
            let (stream, peer) = self.0.accept().await?;
            Ok(split(stream, peer))
        })
    }

    fn local_addr(&self) -> std::net::SocketAddr {
        self.0.local_addr().expect("a listener has an address")
    }
}

impl Network for SimNetwork {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, std::io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = turmoil::net::TcpListener::bind(address).await?;
            Ok(Box::new(SimListener(listener)) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, std::io::Result<Connection>> {
        Box::pin(async move {
            let stream = turmoil::net::TcpStream::connect(address).await?;
            let peer = stream.peer_addr()?;
            Ok(split(stream, peer))
        })
    }
}

/// The simulation's time of day.
struct SimClock;

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        Timestamp(1_700_000_000_000 + i64::try_from(elapsed.as_millis()).expect("a short simulation"))
    }
}

/// The broker's disk and lives, shared between the harness and the host.
#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
}

struct State {
    disk: MemDisk,
    bug: Option<Bug>,
    seed: u64,
    lives: u64,
    boots: u64,
    fatal: Option<String>,
    page_cache: bool,
    start_errors: Vec<String>,
}

/// Runs a job of the disk a little later, on the host that asked.
fn defer(_lane: Lane, job: Job) {
    tokio::spawn(async move {
        tokio::time::sleep(DISK_LATENCY).await;
        job();
    });
}

impl World {
    /// A world with an empty disk.
    pub fn new(seed: u64) -> Self {
        let disk = MemDisk::with_defer(Arc::new(defer)).seeded(seed);
        let state = State {
            disk,
            bug: None,
            seed,
            lives: 0,
            boots: 0,
            fatal: None,
            page_cache: false,
            start_errors: Vec::new(),
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
            Bug::AckBeforeSync => state.page_cache = true,
            Bug::OnlyNewestFileSynced | Bug::RecoveredTailNotSynced => {}
        }
        state.bug = Some(bug);
    }

    /// The present disk.
    pub fn disk(&self) -> MemDisk {
        self.lock().disk.clone()
    }

    /// The reason of a failed sync, if the broker gave one.
    pub fn fatal(&self) -> Option<String> {
        self.lock().fatal.clone()
    }

    /// Why lives did not start, other than because the power went.
    pub fn start_errors(&self) -> Vec<String> {
        self.lock().start_errors.clone()
    }

    /// After the host was crashed: what the disk holds when the power is back.
    pub fn power_is_back(&self) {
        let mut state = self.lock();
        state.fatal = None;
        state.disk = state.disk.after_power_cut();
        state.boots += 1;
    }

    /// After the host was crashed: the process was killed, the page cache stays.
    pub fn process_was_killed(&self) {
        let mut state = self.lock();
        state.fatal = None;
        state.disk = state.disk.crash_process();
    }

    /// One life of the broker, until the host is crashed.
    pub async fn live(self) -> turmoil::Result {
        let (env, config) = self.new_life();
        match Broker::start(config, env).await {
            Ok(_broker) => std::future::pending::<()>().await,
            Err(error) => {
                let mut state = self.lock();
                if !state.disk.is_cut() {
                    state.start_errors.push(error.to_string());
                }
            }
        }
        Ok(())
    }

    fn new_life(&self) -> (Env, Config) {
        let mut state = self.lock();
        state.lives += 1;
        let disk: Arc<dyn Disk> = match state.bug {
            Some(bug) => Arc::new(BuggyDisk::new(state.disk.clone(), bug)),
            None => Arc::new(state.disk.clone()),
        };
        let (world, life) = (self.clone(), state.lives);
        let env = Env {
            disk,
            network: Arc::new(SimNetwork),
            clock: Arc::new(SimClock),
            seed: state.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(state.lives),
            boot_id: format!("boot-{}", state.boots),
            fatal: Arc::new(move |fatal| {
                let mut state = world.lock();
                if state.lives == life {
                    state.fatal = Some(fatal.reason);
                }
            }),
        };
        let mut config = Config::default();
        config.kafka.listen = ottla::config::HostPort::new("0.0.0.0", PORT);
        config.kafka.advertise = Some(ottla::config::HostPort::new(BROKER, PORT));
        config.admin.listen = None;
        if state.page_cache {
            config.broker.durability = ottla::config::Durability::PageCache;
        }
        (env, config)
    }
}
