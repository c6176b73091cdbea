//! Several brokers' groups in one process, over a network in memory: what the tests of replication stand on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::applier::{AppliedState, Observer, Snapshots};
use super::flusher::Flusher;
use super::group::{Group, GroupConfig, ProposeError, Proposed};
use super::transport::Peers;
use super::transport::proto::liveness_server::LivenessServer;
use super::transport::serve::serve_connection;
use super::transport::service::Service;
use super::types::Command;
use crate::flaws::Flaws;
use crate::ids::{BrokerId, Incarnation, PartitionId, PartitionIndex, ReplicaId, Term, TopicId};
use crate::log::disk::Disk;
use crate::log::journal::Journal;
use crate::log::mem_disk::MemDisk;
use crate::log::{Log, LogConfig, OpenAfter};
use crate::machine::Machine;
use crate::machine::partition::PartitionMachine;
use crate::metrics::Metrics;
use crate::net::{BoxFuture, Connection, Listener, Network};
use crate::protocol::compression::Compression;
use crate::protocol::record::{BatchBuilder, NewRecord};

/// The one group there is.
pub(super) const ID: PartitionId = PartitionId { topic: TopicId([8; 16]), partition: PartitionIndex(0) };
const CLUSTER: &str = "kit";
const PIPE_BYTES: usize = 64 << 10;

/// The wires between all brokers.
#[derive(Default)]
struct Wires {
    listeners: HashMap<String, mpsc::UnboundedSender<Connection>>,
    /// Pairs that cannot talk.
    cut: BTreeSet<(i32, i32)>,
    /// Connections that were tried, and that nobody took, by whom and to whom.
    refused: BTreeMap<(i32, i32), u32>,
    /// What carries each connection, by who talks.
    pumps: Vec<((i32, i32), AbortHandle)>,
}

/// One broker's end of the network.
#[derive(Clone)]
pub(super) struct Wire {
    me: i32,
    wires: Arc<Mutex<Wires>>,
}

struct Ear(tokio::sync::Mutex<mpsc::UnboundedReceiver<Connection>>);

impl Listener for Ear {
    fn open(&self) -> io::Result<()> {
        Ok(())
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async {
            let next = self.0.lock().await.recv().await;
            next.ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))
        })
    }

    fn local_addr(&self) -> SocketAddr {
        "127.0.0.1:1".parse().unwrap()
    }
}

impl Network for Wire {
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        let (tell, ear) = mpsc::unbounded_channel();
        self.wires.lock().unwrap().listeners.insert(address.to_owned(), tell);
        Box::pin(async { Ok(Box::new(Ear(tokio::sync::Mutex::new(ear))) as Box<dyn Listener>) })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        Box::pin(async move {
            let mut wires = self.wires.lock().unwrap();
            let peer = broker_at(address);
            let listener = wires.listeners.get(address).filter(|_| !wires.cut.contains(&(self.me, peer))).cloned();
            let Some(listener) = listener else {
                *wires.refused.entry((self.me, peer)).or_default() += 1;
                return Err(refused());
            };
            let (here, there) = (tokio::io::duplex(PIPE_BYTES), tokio::io::duplex(PIPE_BYTES));
            let pairs = [(self.me, peer), (peer, self.me)];
            // What one writes is pumped to where the other reads, so that a cut can stop it in mid-air.
            let ((my_out, out_pump), (my_in, in_pump)) = (here, there);
            let ((their_in, to_them), (their_out, from_them)) =
                (tokio::io::duplex(PIPE_BYTES), tokio::io::duplex(PIPE_BYTES));
            wires.pumps.push((pairs[0], pump(out_pump, to_them)));
            wires.pumps.push((pairs[1], pump(from_them, in_pump)));
            let from = "127.0.0.1:1".parse().unwrap();
            let theirs =
                Connection { reader: Box::new(their_in), writer: Box::new(their_out), peer: from, probe: None };
            listener.send(theirs).map_err(|_| refused())?;
            Ok(Connection { reader: Box::new(my_in), writer: Box::new(my_out), peer: from, probe: None })
        })
    }
}

fn pump(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin + Send + 'static,
) -> AbortHandle {
    tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await }).abort_handle()
}

fn address(broker: i32) -> String {
    format!("broker-{broker}:9192")
}

fn broker_at(address: &str) -> i32 {
    address.trim_start_matches("broker-").trim_end_matches(":9192").parse().unwrap()
}

pub(super) struct Seen {
    state: Mutex<Option<AppliedState>>,
    node: Arc<super::node::Node>,
}

impl<M> Observer<M> for Seen {
    fn voters(&self, voters: &[BTreeSet<ReplicaId>]) {
        self.node.set_voters(ID, voters);
    }

    fn applied(&self, _machine: &M, state: AppliedState) {
        let before = self.state.lock().unwrap().replace(state);
        if let Some(term) = state.blank_term.filter(|term| before.and_then(|before| before.blank_term) != Some(*term)) {
            self.node.began_term(ID, term);
        }
    }
}

/// One broker: its disk, and the group on it while it runs.
pub(super) struct Node {
    pub(super) me: ReplicaId,
    pub(super) disk: MemDisk,
    pub(super) life: Option<Life>,
}

/// A running broker.
pub(super) struct Life {
    pub(super) group: Group<PartitionMachine>,
    seen: Arc<Seen>,
    pub(super) node: Arc<super::node::Node>,
    tasks: [AbortHandle; 2],
}

impl Drop for Life {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// All brokers.
pub(super) struct Cluster {
    wires: Arc<Mutex<Wires>>,
    pub(super) nodes: BTreeMap<i32, Node>,
    founders: BTreeSet<ReplicaId>,
    random: StdRng,
}

pub(super) fn replica(broker: i32) -> ReplicaId {
    ReplicaId { broker: BrokerId(broker), incarnation: Incarnation(u64::try_from(broker).unwrap()) }
}

impl Cluster {
    /// Brokers 1 to `brokers`, of which the first `founders` have a replica from the beginning.
    pub(super) async fn start(brokers: i32, founders: i32) -> Self {
        let node = |broker| Node { me: replica(broker), disk: MemDisk::inline(), life: None };
        let nodes = (1..=brokers).map(|broker| (broker, node(broker))).collect();
        let founders = (1..=founders).map(replica).collect();
        let mut cluster = Self { wires: Arc::default(), nodes, founders, random: StdRng::seed_from_u64(1) };
        for broker in 1..=brokers {
            cluster.boot(broker).await;
        }
        cluster
    }

    /// The ways of a broker of the cluster `of` to the others.
    pub(super) fn peers(&self, broker: i32, of: &str) -> Arc<Peers> {
        let peers = Peers::new(Arc::new(Wire { me: broker, wires: Arc::clone(&self.wires) }), of);
        for other in self.nodes.keys().filter(|other| **other != broker) {
            peers.set_address(BrokerId(*other), &address(*other)).unwrap();
        }
        peers
    }

    /// Starts a broker on its disk.
    pub(super) async fn boot(&mut self, broker: i32) {
        let wire = Wire { me: broker, wires: Arc::clone(&self.wires) };
        let node_seed = self.random.random();
        let among = super::node::Node::new(BrokerId(broker), self.peers(broker, CLUSTER), node_seed, Flaws::NONE);
        for other in self.nodes.keys().filter(|other| **other != broker) {
            among.add_peer(BrokerId(*other), &address(*other)).unwrap();
        }
        let service = Service::new(CLUSTER, Arc::clone(&among));
        let listener = wire.listen(&address(broker)).await.unwrap();
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok(connection) = listener.accept().await {
                connections.spawn(serve_connection(
                    Some(service.clone()),
                    None::<LivenessServer<Service>>,
                    None,
                    connection,
                ));
            }
        });
        let node = self.nodes.get_mut(&broker).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(node.disk.clone());
        let journal = Journal::open(Arc::clone(&disk)).or_else(|_| Journal::create(Arc::clone(&disk))).unwrap();
        let config = LogConfig { segment_bytes: 4096 };
        let (log, recovered) =
            Log::open(Arc::clone(&disk), Arc::clone(&journal), ID, config, OpenAfter { clean: false }).unwrap();
        let machine = match &recovered.descriptor {
            Some(descriptor) => PartitionMachine::restore(&descriptor.machine).unwrap(),
            None => PartitionMachine::default(),
        };
        let seen = Arc::new(Seen { state: Mutex::default(), node: Arc::clone(&among) });
        let group = Group::start(GroupConfig {
            me: node.me,
            founders: self.founders.clone(),
            order: Vec::new(),
            node: Arc::clone(&among),
            log: Arc::new(log),
            journal,
            flusher: Flusher::new(disk, Arc::new(Metrics::new(&[], &[])), Arc::new(|fatal| panic!("{fatal:?}"))),
            page_cache: false,
            machine: Arc::new(Mutex::new(machine)),
            descriptor: recovered.descriptor,
            observer: Arc::clone(&seen) as _,
            snapshots: Snapshots::AtLogStart,
            seed: u64::try_from(broker).unwrap(),
        })
        .await
        .unwrap();
        among.open(ID, group.member(), group.voters(), group.order());
        let beats = tokio::spawn(Arc::clone(&among).run());
        node.life = Some(Life { group, seen, node: among, tasks: [server.abort_handle(), beats.abort_handle()] });
    }

    /// A broker's process is killed.
    pub(super) async fn kill(&mut self, broker: i32) {
        let node = self.nodes.get_mut(&broker).unwrap();
        let life = node.life.take().unwrap();
        self.hang_up(|(from, to)| from == broker || to == broker);
        self.wires.lock().unwrap().listeners.remove(&address(broker));
        life.group.stop().await;
        let node = self.nodes.get_mut(&broker).unwrap();
        node.disk = node.disk.crash_process();
    }

    fn hang_up(&self, which: impl Fn((i32, i32)) -> bool) {
        self.wires.lock().unwrap().pumps.retain(|(pair, pump)| {
            if which(*pair) {
                pump.abort();
            }
            !which(*pair)
        });
    }

    /// Two brokers cannot talk any more.
    pub(super) fn cut(&self, one: i32, other: i32) {
        let pairs = [(one, other), (other, one)];
        self.wires.lock().unwrap().cut.extend(pairs);
        self.hang_up(|pair| pairs.contains(&pair));
    }

    /// A broker's group is not open to the others any more: whoever had a session with it is refused.
    pub(super) fn shut(&self, broker: i32) {
        self.node(broker).close(ID);
        self.hang_up(|(from, to)| from == broker || to == broker);
    }

    /// It is open again.
    pub(super) fn open(&self, broker: i32) {
        let group = self.group(broker);
        self.node(broker).open(ID, group.member(), group.voters(), group.order());
    }

    /// How often a broker has tried in vain to connect to another.
    pub(super) fn refused(&self, from: i32, to: i32) -> u32 {
        self.wires.lock().unwrap().refused.get(&(from, to)).copied().unwrap_or_default()
    }

    /// All can talk again.
    pub(super) fn heal(&self) {
        self.wires.lock().unwrap().cut.clear();
    }

    pub(super) fn node(&self, broker: i32) -> &super::node::Node {
        &self.nodes[&broker].life.as_ref().unwrap().node
    }

    pub(super) fn group(&self, broker: i32) -> &Group<PartitionMachine> {
        &self.nodes[&broker].life.as_ref().unwrap().group
    }

    /// What a broker has applied.
    pub(super) fn seen(&self, broker: i32) -> Option<AppliedState> {
        *self.nodes[&broker].life.as_ref().unwrap().seen.state.lock().unwrap()
    }

    /// Waits until something holds.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came true: {what}");
    }

    /// Who leads, if somebody does and may serve: it has applied the first entry of its term.
    pub(super) fn leader(&self) -> Option<(i32, Term)> {
        self.serving().into_iter().max_by_key(|(_, term)| *term)
    }

    /// The brokers that would serve a read.
    pub(super) fn serving(&self) -> Vec<(i32, Term)> {
        let serves = |(broker, node): (&i32, &Node)| {
            let life = node.life.as_ref().filter(|life| life.node.has_lease(ID))?;
            Some((*broker, life.group.term()?))
        };
        self.nodes.iter().filter_map(serves).collect()
    }

    /// Waits until some broker leads.
    pub(super) async fn elected(&self) -> (i32, Term) {
        self.until("somebody leads", |cluster| cluster.leader().is_some()).await;
        self.leader().unwrap()
    }

    /// Waits until this broker leads: whoever does is asked to make room for it.
    pub(super) async fn elect(&self, broker: i32) -> Term {
        for _ in 0..100 {
            let (leader, term) = self.elected().await;
            if leader == broker {
                return term;
            }
            let life = self.nodes[&leader].life.as_ref().unwrap();
            life.node.withdraw(ID);
            life.group.transfer(replica(broker)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("broker {broker} is not elected");
    }

    /// Proposes a record and waits for what becomes of it.
    pub(super) async fn propose(&self, broker: i32, term: Term, text: &str) -> Result<Proposed, ProposeError> {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(&NewRecord { timestamp: 1, key: None, value: Some(text.as_bytes()), headers: &[] });
        let (tell, outcome) = tokio::sync::oneshot::channel();
        let done = move |result| {
            let _ = tell.send(result);
        };
        self.group(broker).propose(term, Command::Records(builder.build()), done).await;
        outcome.await.unwrap()
    }

    /// All entries that a broker's log still holds.
    pub(super) fn entries(&self, broker: i32) -> Vec<crate::log::entry::StoredEntry> {
        let log = self.group(broker).log();
        let state = log.state();
        let first = state.purged.map_or(0, |id| id.index.0 + 1);
        let end = state.last.map_or(0, |id| id.index.0 + 1);
        let mut entries = Vec::new();
        let mut next = first;
        while next < end {
            let range = crate::ids::RaftIndex(next)..crate::ids::RaftIndex(end);
            entries.extend(log.stored(range, 1 << 20).unwrap());
            next = entries.last().unwrap().id.index.0 + 1;
        }
        entries
    }
}
