//! This broker's place in its cluster: how it gets one, answers the others, and keeps in touch.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::blocking::on_disk;
use super::identity::{Founding, Identity, announce, directory};
use super::{BrokerError, Env, Inner};
use crate::cluster::founding::{Step, step};
use crate::cluster::port::{Services, serve};
use crate::cluster::{Changed, Desk, Elected, Hello, Introduction, Joined, Peer, Quorum, calls};
use crate::config::Config;
use crate::ids::{BrokerId, PartitionId, RaftIndex};
use crate::log::disk::Lane;
use crate::machine::controller::brokers::FOUNDER;
use crate::machine::controller::{Controller, DirectoryId, Endpoints};
use crate::net::BoxFuture;
use crate::raft::Node;
use crate::raft::transport::service::Service;
use crate::replica::election::elect_preferred;

/// How long a broker waits before it asks the seeds again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// A broker with another data directory takes another's place only when that was silent for so long.
const GONE_AFTER: Duration = Duration::from_secs(5);
/// A cluster is founded only by a broker that was there for so long: if it was one of a cluster whose other brokers run, they call it meanwhile.
const FOUND_AFTER: Duration = Duration::from_millis(500);
/// How often it says for what it waits.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Answers other brokers, from before this one has a cluster.
pub(super) struct FrontDesk {
    me: Mutex<Introduction>,
    /// The cluster whose brokers call, from before this one has any.
    called: Mutex<Option<String>>,
    node: OnceLock<Arc<Node>>,
    inner: OnceLock<Weak<Inner>>,
}

/// The port for other brokers, open.
pub(super) struct Port {
    pub(super) address: std::net::SocketAddr,
    desk: Arc<FrontDesk>,
    services: watch::Sender<Services>,
    task: AbortHandle,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Port {
    /// Listens for other brokers, if there are to be any. Says from the first moment whether this broker has a cluster: whoever looks for one must
    /// not take it for empty while it starts.
    pub(super) async fn open(
        config: &Config,
        env: &Env,
        stored: Option<&Identity>,
    ) -> Result<Option<Self>, BrokerError> {
        if config.cluster.seeds.is_empty() {
            return Ok(None);
        }
        let address = config.cluster.listen.to_string();
        let listener = env.network.listen(&address).await.map_err(|source| BrokerError::Listen {
            address,
            what: "other brokers",
            source,
        })?;
        let address = listener.local_addr();
        let me = Introduction {
            broker: config.broker.id,
            directory: DirectoryId(stored.map(Identity::directory).unwrap_or_default()),
            cluster_id: stored.map(|identity| identity.cluster_id.clone()),
            cluster_name: config.cluster.name.clone(),
            address: config.cluster.advertised(address.port()).to_string(),
            seeds: config.cluster.seeds.iter().map(ToString::to_string).collect(),
        };
        let desk =
            FrontDesk { me: Mutex::new(me), called: Mutex::default(), node: OnceLock::new(), inner: OnceLock::new() };
        let desk = Arc::new(desk);
        let (services, served) = watch::channel(Services { groups: None, desk: Arc::clone(&desk) as _ });
        let task = tokio::spawn(serve(listener, served)).abort_handle();
        Ok(Some(Self { address, desk, services, task }))
    }

    /// Finds a cluster for a broker with an empty data directory: founds one, or joins one. Asks until there is one.
    pub(super) async fn arrive(
        &self,
        env: &Env,
        ids: &(String, String),
        endpoints: &Endpoints,
    ) -> Result<(Founding, Vec<Peer>), BrokerError> {
        let (cluster_id, drawn) = ids;
        let (disk, drawn) = (Arc::clone(&env.disk), drawn.clone());
        let directory_id = &on_disk(&env.disk, Lane::Read, move || announce(&disk, &drawn)).await??;
        let me = self.desk.change_me(|me| me.directory = DirectoryId(directory(directory_id)));
        let mut waiting = Waiting::default();
        let opened = Instant::now();
        loop {
            let hellos = join_all(me.seeds.iter().map(|seed| calls::hello(&env.network, seed, &me))).await;
            let answers = me.seeds.iter().cloned().zip(hellos).map(|(seed, answer)| {
                let silent = |error: &calls::CallFailed| tracing::debug!(seed, %error, "a seed does not answer");
                let answer = answer.inspect_err(silent).ok().map(|hello| hello.me);
                (seed, answer)
            });
            let answers: BTreeMap<_, _> = answers.collect();
            let called = self.desk.called();
            match step(&me, &answers).map_err(|trouble| BrokerError::Cluster(trouble.to_string()))? {
                Step::Found if opened.elapsed() < FOUND_AFTER => {}
                Step::Found if called.is_some() => waiting.say(&format!(
                    "brokers of cluster {} take this one for one of theirs, so none is founded: name one of them in cluster.seeds",
                    called.unwrap_or_default()
                )),
                Step::Found => {
                    let founding = Founding {
                        cluster_id: cluster_id.clone(),
                        directory_id: directory_id.clone(),
                        controller: FOUNDER,
                    };
                    tracing::info!(cluster = cluster_id, "founded a cluster");
                    return Ok((founding, Vec::new()));
                }
                Step::Join { address, cluster_id } => {
                    match calls::join(&env.network, &address, &cluster_id, &me, endpoints).await {
                        Ok(Joined::In { cluster_id, controller, peers }) => {
                            tracing::info!(cluster = cluster_id, by = address, "joined a cluster");
                            let founding = Founding { cluster_id, directory_id: directory_id.clone(), controller };
                            return Ok((founding, peers));
                        }
                        Ok(Joined::Refused(why)) => return Err(BrokerError::Cluster(why)),
                        Ok(Joined::Unavailable(why)) => waiting.say(&why),
                        Err(error) => waiting.say(&format!("{address}: {error}")),
                    }
                }
                Step::Wait(why) => waiting.say(&why),
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        }
    }

    /// This broker has a cluster: its groups can be reached from now on.
    pub(super) fn begin(&self, identity: &Identity, node: &Arc<Node>) {
        self.desk.change_me(|me| {
            me.cluster_id = Some(identity.cluster_id.clone());
            me.directory = DirectoryId(identity.directory());
        });
        let _ = self.desk.node.set(Arc::clone(node));
        let groups = Some(Service::new(&identity.cluster_id, Arc::clone(node)));
        self.services.send_replace(Services { groups, desk: Arc::clone(&self.desk) as _ });
    }

    /// The broker is there as a whole: it can decide who joins.
    pub(super) fn attend(&self, inner: &Arc<Inner>) {
        let _ = self.desk.inner.set(Arc::downgrade(inner));
    }
}

/// What is known of a broker that introduces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acquaintance {
    /// It is what it says.
    Known,
    /// This broker has not heard of it; it may be new.
    Unheard,
    /// Another data directory has taken its place.
    Superseded,
    /// It does not belong to the cluster any more.
    Removed,
}

/// Says for what a broker waits: when that changes, and now and then.
#[derive(Default)]
struct Waiting {
    said: Option<(String, Instant)>,
}

impl Waiting {
    fn say(&mut self, why: &str) {
        let is_new = self.said.as_ref().is_none_or(|(said, at)| said != why || at.elapsed() > SAY_AGAIN_AFTER);
        if is_new {
            tracing::info!(why, "waiting for the cluster");
            self.said = Some((why.to_owned(), Instant::now()));
        }
    }
}

impl FrontDesk {
    fn me(&self) -> Introduction {
        self.me.lock().expect("no panic under the lock of an introduction").clone()
    }

    fn called(&self) -> Option<String> {
        self.called.lock().expect("no panic under the lock of who calls").clone()
    }

    fn change_me(&self, change: impl FnOnce(&mut Introduction)) -> Introduction {
        let mut me = self.me.lock().expect("no panic under the lock of an introduction");
        change(&mut me);
        me.clone()
    }

    fn inner(&self) -> Option<Arc<Inner>> {
        self.inner.get().and_then(Weak::upgrade)
    }

    fn peers(&self, me: &Introduction) -> Vec<Peer> {
        let mut peers = self.node.get().map(|node| node.peers().addresses()).unwrap_or_default();
        peers.push((me.broker, me.address.clone()));
        peers
    }

    /// A broker of this cluster says where it is now. What the controller does not know to be it is not believed: answers whether it is known by another
    /// directory, or not any more.
    fn meet(&self, from: &Introduction) -> Acquaintance {
        if let Some(inner) = self.inner() {
            let (is_founded, known, is_given_up) = inner.controller.read(|controller| {
                let known = controller.broker(from.broker).map(|broker| broker.directory);
                (controller.cluster_id().is_some(), known, controller.is_given_up(from.directory))
            });
            // Whoever does not lead the controller may not have heard of the newest directory yet, or of the newest broker.
            let leads = inner.controller.leads();
            let stranger = match known {
                _ if is_given_up => Acquaintance::Superseded,
                Some(known) if leads && known != from.directory => Acquaintance::Superseded,
                None if leads => Acquaintance::Removed,
                None if is_founded => return Acquaintance::Unheard,
                _ => Acquaintance::Known,
            };
            if stranger != Acquaintance::Known {
                tracing::warn!(
                    broker = from.broker.0,
                    address = from.address,
                    ?stranger,
                    "a broker comes with another data directory than the cluster knows it by, or was removed from it, and is not listened to"
                );
                return stranger;
            }
        }
        if let Some(node) = self.node.get()
            && let Err(error) = node.add_peer(from.broker, &from.address)
        {
            tracing::warn!(broker = from.broker.0, address = from.address, %error, "a broker's address cannot be used");
        }
        Acquaintance::Known
    }
}

impl Desk for FrontDesk {
    fn called(&self, cluster: &str) {
        *self.called.lock().expect("no panic under the lock of who calls") = Some(cluster.to_owned());
    }

    fn hello(&self, from: Introduction) -> Hello {
        let me = self.me();
        let is_ours = me.cluster_id.is_some() && from.cluster_id == me.cluster_id && from.broker != me.broker;
        let met = if is_ours { self.meet(&from) } else { Acquaintance::Unheard };
        let (superseded, removed) = (met == Acquaintance::Superseded, met == Acquaintance::Removed);
        let is_listened_to = is_ours && !superseded && !removed;
        if let Some(inner) = self.inner().filter(|inner| is_listened_to && inner.controller.leads()) {
            // It waits to hear what is decided, of which a group that rests says nothing.
            let controller = Arc::clone(&inner.controller);
            inner.spawn(async move { controller.group().heartbeat().await });
        }
        let peers = if me.cluster_id.is_some() { self.peers(&me) } else { Vec::new() };
        Hello { me, peers, superseded, removed }
    }

    fn join(&self, from: Introduction, endpoints: Endpoints) -> BoxFuture<'_, Joined> {
        Box::pin(async move {
            match self.inner() {
                Some(inner) => inner.take_in(&self.me(), &from, &endpoints).await,
                None => Joined::Unavailable("the broker that was asked is starting".to_owned()),
            }
        })
    }

    fn change(&self, version: RaftIndex, entry: bytes::Bytes) -> BoxFuture<'_, Changed> {
        Box::pin(async move {
            match self.inner() {
                Some(inner) => inner.controller.propose(version, entry).await,
                None => Changed::NotLeader,
            }
        })
    }

    fn barrier(&self) -> BoxFuture<'_, Option<RaftIndex>> {
        Box::pin(async move { self.inner()?.controller.barrier() })
    }

    fn quorum(&self) -> Option<Quorum> {
        self.inner()?.controller.own_quorum()
    }

    fn elect(&self, partitions: Vec<PartitionId>) -> BoxFuture<'_, Vec<Elected>> {
        Box::pin(async move {
            match self.inner() {
                Some(inner) => {
                    let Inner { among, controller, replicas, .. } = &*inner;
                    elect_preferred(among.as_ref(), controller, replicas, &partitions).await
                }
                None => vec![Elected::NotLeader; partitions.len()],
            }
        })
    }
}

impl Inner {
    /// Takes a broker with an empty data directory in.
    async fn take_in(&self, me: &Introduction, from: &Introduction, endpoints: &Endpoints) -> Joined {
        if from.cluster_name != me.cluster_name {
            return Joined::Refused(format!(
                "the cluster is called {:?}, but cluster.name is {:?}",
                me.cluster_name, from.cluster_name
            ));
        }
        let in_use = |broker: BrokerId| {
            format!(
                "broker {broker} is running with another data directory: give each broker an id of its own (broker.id)"
            )
        };
        if from.broker == self.broker {
            return Joined::Refused(in_use(from.broker));
        }
        let is_other = self
            .controller
            .read(|controller| controller.broker(from.broker).is_some_and(|known| known.directory != from.directory));
        // It may have died a moment ago; one that only rests for a moment must not lose its place.
        if is_other && self.among.as_ref().is_some_and(|node| !node.is_silent_for(from.broker, GONE_AFTER)) {
            return Joined::Unavailable(in_use(from.broker));
        }
        let decide = |controller: &Controller| {
            let joining = controller.decide_join(from.broker, from.directory, endpoints);
            Ok::<_, Infallible>((joining.records, joining.forgotten))
        };
        match self.controller.change(decide).await {
            Ok(forgotten) => {
                if forgotten {
                    tracing::warn!(
                        broker = from.broker.0,
                        "a broker comes back with an empty data directory: its replicas are rebuilt"
                    );
                } else {
                    tracing::info!(broker = from.broker.0, address = from.address, "a broker joined");
                }
                self.meet_all();
                let (controller, peers) = self.controller.read(|controller| {
                    let replica = controller.broker(from.broker).and_then(|broker| broker.controller);
                    let known = controller
                        .brokers()
                        .filter_map(|(id, broker)| Some((id, broker.endpoints.as_ref()?.cluster.clone())));
                    (replica.map_or(FOUNDER, |replica| replica.incarnation), known.collect())
                });
                Joined::In { cluster_id: self.home.identity.cluster_id.clone(), controller, peers }
            }
            Err(error) => Joined::Unavailable(error.to_string()),
        }
    }

    /// How the other brokers and clients reach this one.
    pub(super) fn endpoints(&self) -> Endpoints {
        self.endpoints.clone()
    }

    /// Takes note of the addresses that the controller has come to know since the last call.
    pub(super) fn meet_all(&self) {
        let Some(node) = &self.among else { return };
        let known: Vec<Peer> = self.controller.read(|controller| {
            let others = controller.brokers().filter(|(id, _)| *id != self.broker);
            others.filter_map(|(id, broker)| Some((id, broker.endpoints.as_ref()?.cluster.clone()))).collect()
        });
        let mut met = self.met.lock().expect("no panic under the lock of addresses");
        let gone: Vec<BrokerId> =
            met.keys().copied().filter(|broker| known.iter().all(|(known, _)| known != broker)).collect();
        for broker in gone {
            tracing::info!(broker = broker.0, "a broker has left the cluster");
            node.remove_peer(broker);
            met.remove(&broker);
        }
        for (broker, address) in known {
            // Where one has moved to is heard from itself before the controller knows.
            if met.get(&broker) == Some(&address) {
                continue;
            }
            if let Err(error) = node.add_peer(broker, &address) {
                tracing::warn!(broker = broker.0, address, %error, "a broker's address cannot be used");
            }
            met.insert(broker, address);
        }
    }

    /// Tells every seed and every broker that is known where this one is, and takes note of those that they know. Answers what cannot come right by
    /// waiting: that only brokers of another cluster are there.
    async fn introduce(&self, port: &Port) -> Result<(), BrokerError> {
        let Some(node) = &self.among else { return Ok(()) };
        let me = port.desk.me();
        let mut addresses: Vec<String> = me.seeds.clone();
        addresses.extend(node.peers().addresses().into_iter().map(|(_, address)| address));
        addresses.sort_unstable();
        addresses.dedup();
        addresses.retain(|address| *address != me.address);
        let hellos = addresses.iter().map(|address| calls::hello(&self.env.network, address, &me));
        let (mut heard_of, mut strangers, mut has_own) = (Vec::new(), None, false);
        for (address, hello) in addresses.iter().zip(join_all(hellos).await) {
            match hello {
                Ok(hello) if hello.me.cluster_id != me.cluster_id => {
                    strangers = hello.me.cluster_id.map(|cluster| (address, cluster)).or(strangers);
                }
                Ok(hello) if hello.me.broker != me.broker => {
                    has_own = true;
                    if hello.superseded {
                        return Err(self.superseded());
                    }
                    if hello.removed {
                        return Err(self.removed());
                    }
                    port.desk.meet(&hello.me);
                    heard_of.extend(hello.peers);
                }
                Ok(_) | Err(_) => {}
            }
        }
        if let Some((address, cluster)) = strangers.filter(|_| !has_own) {
            let mine = me.cluster_id.unwrap_or_default();
            return Err(BrokerError::Cluster(format!(
                "the data directory belongs to cluster {mine}, and the broker at {address} to another cluster, {cluster}: correct \
                 cluster.seeds or broker.data_dir"
            )));
        }
        // Of those that it knows no way to itself, what the others say will do.
        for (broker, address) in heard_of {
            if broker != me.broker && node.peers().link(broker).is_none() {
                drop(node.add_peer(broker, &address));
            }
        }
        Ok(())
    }

    fn superseded(&self) -> BrokerError {
        BrokerError::Cluster(format!(
            "the cluster knows broker {} by another data directory, which took the place of this one: this one's data is old; start with an \
             empty directory",
            self.broker
        ))
    }

    fn removed(&self) -> BrokerError {
        BrokerError::Cluster(format!(
            "broker {} was removed from the cluster, and its data is old: start with an empty directory to take it in as a new broker",
            self.broker
        ))
    }

    /// Waits until this broker knows what the cluster has decided, and has told it where it is.
    ///
    /// # Errors
    /// If the cluster knows this broker by another data directory.
    pub(super) async fn arrive(&self, port: &Port) -> Result<(), BrokerError> {
        let mut waiting = Waiting::default();
        let directory = DirectoryId(self.home.identity.directory());
        loop {
            self.introduce(port).await?;
            if self.controller.catch_up().await {
                self.meet_all();
                let known = self.controller.read(|controller| controller.broker(self.broker).map(|it| it.directory));
                match known {
                    Some(known) if known != directory => return Err(self.superseded()),
                    None => return Err(self.removed()),
                    Some(_) => {}
                }
                let endpoints = self.endpoints();
                let join = |controller: &Controller| {
                    Ok::<_, Infallible>((controller.decide_join(self.broker, directory, &endpoints).records, ()))
                };
                match self.controller.change(join).await {
                    Ok(()) => return Ok(()),
                    Err(error) => waiting.say(&error.to_string()),
                }
            } else {
                let why = match self.controller.leader() {
                    None => "the controller has no leader: most of its brokers have to be there",
                    Some(_) => "the controller's leader does not answer",
                };
                waiting.say(why);
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        }
    }
}
