//! The whole broker from a configuration and an environment. Production, tests and the simulation start it alike.

pub mod blocking;
mod cluster;
mod cluster_figures;
mod expiry;
mod forgotten;
mod group_figures;
mod health;
pub mod identity;
mod janitor;
mod mending;
mod open;
mod reconcile;
mod refounding;
mod relocate;
pub mod repair;
mod scrub;
mod steward;
mod topic_defaults;
pub mod unsafe_recover;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::cluster::Peer;
use crate::config::Config;
use crate::flaws::Flaws;
use crate::ids::{BASE64_URL, BrokerId, PartitionId, ReplicaId, Term};
use crate::log::disk::{Disk, Lane};
use crate::log::journal::{Journal, JournalError};
use crate::machine::controller::Endpoints;
use crate::machine::controller::brokers::FOUNDER;
use crate::metrics::Metrics;
use crate::net::Network;
use crate::protocol::api::ApiKey;
use crate::protocol::error_code::ErrorCode;
use crate::raft::{FatalHook, Flusher, Node, Peers, StartError};
use crate::replica::ReplicaSet;
use crate::replica::controller::ControllerHandle;
use crate::replica::coordinator::{Coordinators, Tamper};
use crate::server::{self, Context};
use blocking::{DiskStopped, on_disk};
use identity::{Founding, Home, IdentityError, LifeState};

/// How long a clean stop waits for requests in flight.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Everything that a broker touches outside itself.
#[derive(Clone)]
pub struct Env {
    /// The data directory.
    pub disk: Arc<dyn Disk>,
    /// Listeners and connections.
    pub network: Arc<dyn Network>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// The seed of all randomness.
    pub seed: u64,
    /// The kernel's boot id: another one than last time means that unsynced writes are gone.
    pub boot_id: String,
    /// Ends the process with exit code 74 when a sync has failed.
    pub fatal: FatalHook,
    /// What a simulation puts between the group coordinators and their logs; nothing otherwise.
    pub tamper: Option<Arc<dyn Tamper>>,
    /// The bug that a simulation plants; none otherwise.
    pub flaws: Flaws,
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The journal cannot be used.
    #[error("open the journal: {0}")]
    Journal(#[from] JournalError),
    /// The controller's log or group cannot be used.
    #[error("open the controller: {0}")]
    Controller(String),
    /// There is no cluster for this broker.
    #[error("{0}")]
    Cluster(String),
    /// A listener could not be opened.
    #[error("listen on {address} for {what}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What for.
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The disk stopped meanwhile.
    #[error(transparent)]
    Disk(#[from] DiskStopped),
}

impl From<StartError> for BrokerError {
    fn from(error: StartError) -> Self {
        Self::Controller(error.to_string())
    }
}

/// What the broker's tasks share.
pub(crate) struct Inner {
    env: Env,
    config: Config,
    broker: BrokerId,
    home: Arc<Home>,
    /// Whether the last life ended cleanly: nothing has to be read back then.
    clean: bool,
    journal: Arc<Journal>,
    flusher: Arc<Flusher>,
    node: Arc<Node>,
    /// The node, if there are to be other brokers.
    among: Option<Arc<Node>>,
    /// How the others and clients reach this broker.
    endpoints: Endpoints,
    /// The addresses of other brokers that this one has taken from the controller.
    met: Mutex<BTreeMap<BrokerId, String>>,
    controller: Arc<ControllerHandle>,
    replicas: Arc<ReplicaSet>,
    coordinators: Arc<Coordinators>,
    /// Whether a partition was dropped since offsets were last looked at.
    has_dropped: AtomicBool,
    /// The replicas of partitions that have but one.
    only_replicas: Mutex<BTreeMap<PartitionId, ReplicaId>>,
    metrics: Arc<Metrics>,
    mender: Arc<mending::Mender>,
    janitor: Arc<Notify>,
    /// A partition on its way to other replicas is led here from now on.
    took_over: Notify,
    /// The cluster does not know this broker any more, or by another data directory: why it ends.
    expelled: watch::Sender<Option<String>>,
    random: Mutex<StdRng>,
    tasks: Mutex<JoinSet<()>>,
}

/// A running broker.
pub struct Broker {
    inner: Arc<Inner>,
    context: Arc<Context>,
    stop: watch::Sender<bool>,
    listener: tokio::task::JoinHandle<()>,
    kafka_address: SocketAddr,
    admin_address: Option<SocketAddr>,
    port: Option<cluster::Port>,
}

impl Broker {
    /// Starts a broker and returns when every local partition has a leader or is named offline.
    ///
    /// # Errors
    /// What is wrong, where, and what to do about it.
    pub async fn start(config: Config, env: Env) -> Result<Self, BrokerError> {
        let (stop, stopping) = watch::channel(false);
        let listen = config.kafka.listen.to_string();
        let refused = |source| BrokerError::Listen { address: listen.clone(), what: "Kafka clients", source };
        let listener = env.network.bind(&listen).await.map_err(refused)?;
        let kafka_address = listener.local_addr();
        let disk = Arc::clone(&env.disk);
        let stored = on_disk(&env.disk, Lane::Read, move || identity::stored(&disk)).await??;
        let port = cluster::Port::open(&config, &env, stored.as_ref()).await?;
        let inner = Inner::open(config, env, kafka_address, port.as_ref(), stored.is_none()).await?;
        if let Some(port) = &port {
            port.attend(&inner);
            inner.serve_as_elected();
            inner.arrive(port).await?;
        }
        let context = Arc::new(inner.context());
        inner.replace_forgotten().await?;
        reconcile::reconcile(&inner).await;
        inner.spawn(reconcile::run(Arc::clone(&inner), stopping.clone()));
        inner.spawn(janitor::run(Arc::clone(&inner), stopping.clone()));
        inner.spawn(mending::run(Arc::clone(&inner), stopping.clone()));
        inner.spawn(scrub::run(Arc::clone(&inner), stopping.clone()));
        if port.is_some() {
            inner.spawn(steward::run(Arc::clone(&inner), stopping.clone()));
            inner.spawn(refounding::run(Arc::clone(&inner), stopping.clone()));
        }
        inner.hear_of_leaders().await;
        listener.open().map_err(refused)?;
        let admin_address = inner.start_admin(stopping.clone()).await?;
        let listener = tokio::spawn(server::serve(Arc::clone(&context), listener, stopping));
        Ok(Self { inner, context, stop, listener, kafka_address, admin_address, port })
    }

    /// Where Kafka clients connect.
    #[must_use]
    pub fn kafka_address(&self) -> SocketAddr {
        self.kafka_address
    }

    /// Where other brokers connect, if there are to be any.
    #[must_use]
    pub fn cluster_address(&self) -> Option<SocketAddr> {
        self.port.as_ref().map(|port| port.address)
    }

    /// Where `/metrics` and the health checks are, if anywhere.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Waits until the cluster has taken this broker out, and says so: there is nothing left to do for it.
    pub async fn expelled(&self) -> String {
        let mut expelled = self.inner.expelled.subscribe();
        match expelled.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The sender lives as long as the broker.
            Err(_) => std::future::pending().await,
        }
    }

    /// What every handler works with.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Stops cleanly: no new requests, those in flight are finished, everything is synced and described.
    ///
    /// # Errors
    /// If the clean stop could not be recorded; the next start then reads back what it must.
    pub async fn stop(self) -> Result<(), BrokerError> {
        self.inner.hand_everything_over().await;
        self.stop.send_replace(true);
        // Members that wait for a rebalance would hold their connections.
        self.inner.coordinators.stop_all();
        if tokio::time::timeout(STOP_GRACE, self.listener).await.is_err() {
            tracing::warn!("connections were still busy after {} s", STOP_GRACE.as_secs());
        }
        self.inner.close().await
    }
}

impl Inner {
    async fn open(
        config: Config,
        env: Env,
        kafka_address: SocketAddr,
        port: Option<&cluster::Port>,
        is_new: bool,
    ) -> Result<Arc<Self>, BrokerError> {
        let (broker, mut random) = (config.broker.id, StdRng::seed_from_u64(env.seed));
        let ids = (kafka_id(&mut random), kafka_id(&mut random));
        let endpoints = endpoints(&config, kafka_address, port);
        let (founding, known) = match port {
            Some(port) if is_new => port.arrive(&env, &ids, &endpoints).await?,
            _ => (Founding { cluster_id: ids.0, directory_id: ids.1, controller: FOUNDER }, Vec::new()),
        };
        let (home, journal) = move_in(&config, &env, founding).await?;
        let (metrics, clean) = (Arc::new(Metrics::new(&api_names(), &error_names())), home.was_clean());
        let flusher =
            Flusher::new(Arc::clone(&env.disk), Arc::clone(&metrics), mark_failed(&home, &env)).watch(&journal);
        let (peers, seed) = (peers(&config, &env, &home), random.random());
        let node = Node::new(broker, peers, env.seed.rotate_left(17), env.flaws);
        let (among, mut tasks) = (port.map(|_| Arc::clone(&node)), JoinSet::new());
        if let Some(port) = port {
            meet_first(&node, broker, &known)?;
            port.begin(&home.identity, &node);
            tasks.spawn(Arc::clone(&node).run());
        }
        let mender = mending::Mender::new(&metrics, among.as_ref());
        let ground = open::Ground {
            mender: &mender,
            env: &env,
            config: &config,
            home: &home,
            journal: &journal,
            flusher: &flusher,
            node: &node,
            among: among.as_ref(),
            clean,
            seed,
        };
        let controller = mender.knows(Arc::new(open::controller(ground).await?));
        let inner = Arc::new(Self {
            clean,
            broker,
            home,
            journal,
            flusher,
            node,
            among,
            endpoints,
            met: Mutex::default(),
            controller,
            replicas: Arc::default(),
            coordinators: Arc::new(Coordinators::new(env.tamper.clone())),
            has_dropped: AtomicBool::new(false),
            only_replicas: Mutex::default(),
            metrics,
            mender,
            janitor: Arc::default(),
            took_over: Notify::new(),
            expelled: watch::Sender::new(None),
            random: Mutex::new(random),
            tasks: Mutex::new(tasks),
            config,
            env,
        });
        inner.meet_all();
        Ok(inner)
    }

    /// Tells replicas whether they serve, as this broker learns it.
    fn serve_as_elected(self: &Arc<Self>) {
        let inner = Arc::downgrade(self);
        self.node.on_serving(Box::new(move |id, term| {
            if let Some(inner) = inner.upgrade() {
                inner.serves(id, term);
            }
        }));
    }

    /// A replica here serves in a term, or does not any more.
    fn serves(&self, id: PartitionId, term: Option<Term>) {
        let Some(replica) = self.replicas.get(id) else { return };
        replica.serves(term);
        if replica.coordinates() {
            match term {
                Some(_) => self.coordinate(&replica),
                None => self.coordinators.stop(id),
            }
        }
        if term.is_some() && self.controller.read(|controller| controller.moving(id).is_some()) {
            self.took_over.notify_one();
        }
        self.controller.served();
    }

    fn context(&self) -> Context {
        let endpoints = self.endpoints();
        let advertised_port = i32::from(endpoints.kafka_port);
        let limits = &self.config.limits;
        let size = |bytes: u32| usize::try_from(bytes).expect("a u32 fits");
        let in_flight_bytes = usize::try_from(limits.in_flight_bytes).unwrap_or(usize::MAX);
        Context {
            broker: self.broker,
            cluster_id: self.home.identity.cluster_id.clone(),
            advertised_host: endpoints.kafka_host.clone(),
            advertised_port,
            rack: self.config.broker.rack.clone(),
            controller: Arc::clone(&self.controller),
            among: self.among.clone(),
            replicas: Arc::clone(&self.replicas),
            coordinators: Arc::clone(&self.coordinators),
            topics: server::TopicDefaults {
                auto_create: self.config.topics.auto_create,
                partitions: self.config.topics.partitions,
                replication_factor: self.config.topics.replication_factor,
            },
            broker_configs: server::configs::broker_configs(&self.config, &endpoints.kafka_host, advertised_port),
            data_dir: self.config.broker.data_dir.display().to_string(),
            random: Mutex::new(StdRng::seed_from_u64(self.random())),
            limits: server::Limits {
                connections: size(limits.connections),
                request_bytes: size(limits.request_bytes),
                in_flight_bytes,
                fetch_bytes: size(limits.fetch_bytes),
                idle: Duration::from_secs(u64::from(limits.idle_seconds)),
                frame: Duration::from_secs(u64::from(limits.frame_seconds)),
            },
            request_memory: server::memory::RequestMemory::new(in_flight_bytes),
            sessions: server::handlers::fetch_session::Sessions::new(size(limits.fetch_sessions), self.random()),
            disk: Arc::clone(&self.env.disk),
            clock: Arc::clone(&self.env.clock),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// A draw from the broker's randomness.
    fn random(&self) -> u64 {
        self.random.lock().expect("no panic while drawing").random()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().expect("no panic under the task set's lock");
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// A partition whose log is not open, of those that should be: what the life before left of it, or this one began, may never have been synced.
    fn unopened(&self) -> Option<PartitionId> {
        let known = self.journal.groups().into_iter().filter(|id| *id != PartitionId::CONTROLLER);
        known.chain(self.wanted().into_keys()).find(|id| self.replicas.get(*id).is_none())
    }

    async fn close(&self) -> Result<(), BrokerError> {
        for replica in self.replicas.open() {
            replica.group().checkpoint().await;
            replica.group().stop().await;
        }
        self.controller.stop().await;
        let mut tasks = std::mem::take(&mut *self.tasks.lock().expect("no panic under the task set's lock"));
        // Waited for: one that was dropping a deleted partition must not remove files that are sealed below.
        tasks.shutdown().await;
        let logs: Vec<_> = self.replicas.open().iter().map(|replica| Arc::clone(replica.log())).collect();
        let controller = Arc::clone(self.controller.log());
        let (tell, synced) = tokio::sync::oneshot::channel();
        let sealed = on_disk(&self.env.disk, Lane::Flush, move || {
            logs.iter().chain([&controller]).try_for_each(|log| log.seal_clean())
        })
        .await?;
        self.journal.sync(Box::new(move |outcome| drop(tell.send(outcome))));
        let synced = synced.await.map_err(|_| DiskStopped)?;
        match (sealed, synced) {
            (Ok(()), Ok(())) if !self.flusher.is_dead() => match self.unopened() {
                None => Ok(self.home.record(LifeState::Clean, &self.env.boot_id)?),
                Some(id) => {
                    tracing::warn!(partition = %id, "a partition was never opened: the next start reads back what all of them end with");
                    Ok(())
                }
            },
            (Err(error), _) => Err(BrokerError::Controller(format!("seal the logs: {error}"))),
            (_, Err(error)) => Err(BrokerError::Journal(error.into())),
            (Ok(()), Ok(())) => Err(DiskStopped.into()),
        }
    }
}

/// How the other brokers and clients reach this one.
fn endpoints(config: &Config, kafka_address: SocketAddr, port: Option<&cluster::Port>) -> Endpoints {
    let advertised = config.kafka.advertised(kafka_address.port());
    Endpoints {
        cluster: port.map(|port| config.cluster.advertised(port.address.port()).to_string()).unwrap_or_default(),
        kafka_host: advertised.host,
        kafka_port: advertised.port,
        rack: config.broker.rack.clone().unwrap_or_default(),
    }
}

/// Takes note of the brokers that the one which took this broker in has named.
fn meet_first(node: &Node, me: BrokerId, known: &[Peer]) -> Result<(), BrokerError> {
    for (other, address) in known.iter().filter(|(other, _)| *other != me) {
        node.add_peer(*other, address)
            .map_err(|error| BrokerError::Cluster(format!("broker {other} at {address}: {error}")))?;
    }
    Ok(())
}

/// Opens the data directory, which is founded if it is empty, and its journal.
async fn move_in(config: &Config, env: &Env, founding: Founding) -> Result<(Arc<Home>, Arc<Journal>), BrokerError> {
    let (disk, name, boot_id) = (Arc::clone(&env.disk), config.cluster.name.clone(), env.boot_id.clone());
    let broker = config.broker.id;
    on_disk(&env.disk, Lane::Read, move || -> Result<_, BrokerError> {
        let home = Home::open(Arc::clone(&disk), broker, &name, founding)?;
        let journal = open_journal(&disk, &home)?;
        if !home.lost_page_cache(&boot_id) {
            home.record(LifeState::Running, &boot_id)?;
        }
        Ok((Arc::new(home), journal))
    })
    .await?
}

/// Waits until the broker stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A closed channel means that the broker is gone.
    drop(stop.wait_for(|stop| *stop).await.map(|_| ()));
}

fn open_journal(disk: &Arc<dyn Disk>, home: &Home) -> Result<Arc<Journal>, BrokerError> {
    let names = disk.list("").map_err(|source| IdentityError::Io { doing: "list the data directory", source })?;
    let has = |name: &str| names.iter().any(|entry| entry.name == name);
    if !has(crate::log::journal::JOURNAL) && home.last_life.is_none() && !has("topics") {
        return Ok(Journal::create(Arc::clone(disk))?);
    }
    Ok(Journal::open(Arc::clone(disk))?)
}

/// Marks the directory before the process ends, as well as a failing device allows: the next start then trusts no page cache.
fn mark_failed(home: &Arc<Home>, env: &Env) -> FatalHook {
    let (home, boot_id, fatal) = (Arc::clone(home), env.boot_id.clone(), Arc::clone(&env.fatal));
    Arc::new(move |reason| {
        if let Err(error) = home.record(LifeState::Failed, &boot_id) {
            tracing::error!(%error, "could not mark the data directory as failed");
        }
        fatal(reason);
    })
}

fn api_names() -> Vec<crate::metrics::Named> {
    ApiKey::ALL.iter().map(|api| (api.key(), api.spec().name)).collect()
}

fn error_names() -> Vec<crate::metrics::Named> {
    ErrorCode::ALL.iter().map(|code| (code.0, code.name())).collect()
}

/// A random id in the form Kafka prints: 22 characters of URL-safe base 64.
fn kafka_id(random: &mut StdRng) -> String {
    let mut bits = u128::from_be_bytes(uuid::Builder::from_random_bytes(random.random()).into_uuid().into_bytes());
    let mut out = [0u8; 22];
    for place in out.iter_mut().rev() {
        *place = BASE64_URL[usize::try_from(bits & 63).expect("six bits fit")];
        bits >>= 6;
    }
    String::from_utf8(out.to_vec()).expect("the alphabet is ASCII")
}

/// The ways to the other brokers.
fn peers(config: &Config, env: &Env, home: &Home) -> Arc<Peers> {
    Peers::paced(Arc::clone(&env.network), &home.identity.cluster_id, config.cluster.move_bytes_per_second)
}
