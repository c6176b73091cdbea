//! The Kafka listener: connections, dispatch, one handler file an API.
//!
//! Bounded everywhere: connections, bytes of requests in flight, replies waiting in a connection. Errors meet the wire in
//! [`error`] only.

pub mod brokers;
pub mod configs;
pub mod connection;
pub mod dispatch;
pub mod error;
pub mod handlers;
pub mod memory;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::ids::{BrokerId, TopicId};
use crate::machine::controller::Controller;
use crate::machine::topic_config::BrokerValues;
use crate::metrics::Metrics;
use crate::net::Listener;
use crate::replica::ReplicaSet;
use crate::replica::controller::ControllerHandle;
use crate::replica::coordinator::Coordinators;
use configs::BrokerConfig;
use connection::ConnectionError;
use handlers::fetch_session::Sessions;
use memory::RequestMemory;

/// How long the listener rests when the system has no descriptor for another connection.
pub const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What the listener may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at once; further ones are closed at once.
    pub connections: usize,
    /// The largest request.
    pub request_bytes: usize,
    /// Memory for requests in flight, over all connections.
    pub in_flight_bytes: usize,
    /// The largest fetch reply, whatever the client asks for.
    pub fetch_bytes: usize,
    /// How long a connection may be silent.
    pub idle: Duration,
    /// How long a request may take to arrive, from its first byte.
    pub frame: Duration,
}

/// What topics get that say nothing themselves.
#[derive(Clone, Debug)]
pub struct TopicDefaults {
    /// Whether asking for a topic's metadata creates it.
    pub auto_create: bool,
    /// Partitions of a topic that does not say.
    pub partitions: i32,
    /// Replicas of a topic that does not say; none is the lower of 3 and the number of brokers.
    pub replication_factor: Option<i16>,
}

/// What every handler works with.
pub struct Context {
    /// This broker.
    pub broker: BrokerId,
    /// The cluster's id.
    pub cluster_id: String,
    /// The host that clients are told to connect to.
    pub advertised_host: String,
    /// The port that clients are told to connect to.
    pub advertised_port: i32,
    /// The rack that clients are told this broker stands in.
    pub rack: Option<String>,
    /// The cluster's controller.
    pub controller: Arc<ControllerHandle>,
    /// The other brokers, if there are to be any.
    pub among: Option<Arc<crate::raft::Node>>,
    /// The partitions that this broker holds.
    pub replicas: Arc<ReplicaSet>,
    /// The coordinators of groups on this broker.
    pub coordinators: Arc<Coordinators>,
    /// What topics get that say nothing themselves.
    pub topics: TopicDefaults,
    /// What else this broker shows of its configuration.
    pub broker_configs: Vec<BrokerConfig>,
    /// The data directory's path, for people.
    pub data_dir: String,
    /// Draws the ids of new topics.
    pub random: Mutex<StdRng>,
    /// What the listener may take.
    pub limits: Limits,
    /// The memory for requests in flight.
    pub request_memory: RequestMemory,
    /// The fetch sessions.
    pub sessions: Sessions,
    /// The disk, for reads that have to wait for the device.
    pub disk: Arc<dyn crate::log::disk::Disk>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Context {
    /// The id of a new topic: a random version-4 UUID, never one of the reserved ones.
    #[must_use]
    pub fn draw_topic_id(&self) -> TopicId {
        let bytes = self.random.lock().expect("no panic while drawing").random();
        TopicId(uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes())
    }

    /// Where placing a topic's partitions begins.
    #[must_use]
    pub fn draw_start(&self) -> u32 {
        self.random.lock().expect("no panic while drawing").random()
    }

    /// What this broker says where a topic says nothing.
    #[must_use]
    pub fn broker_values<'a>(&'a self, controller: &'a Controller) -> BrokerValues<'a> {
        self.controller.broker_values(controller)
    }
}

/// Accepts connections until `stop` turns true, then lets them finish what they have begun.
pub async fn serve(context: Arc<Context>, listener: Box<dyn Listener>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) if connections.len() >= context.limits.connections => {
                context.metrics.connections_refused.inc();
                tracing::warn!(peer = %connection.peer, limit = context.limits.connections, "refused a connection: too many are open");
            }
            Ok(connection) => {
                connections.spawn(run(Arc::clone(&context), connection));
            }
            Err(error) => {
                context.metrics.connections_refused.inc();
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn run(context: Arc<Context>, connection: crate::net::Connection) {
    let peer = connection.peer;
    context.metrics.connections_open.inc();
    let outcome = connection::serve(Arc::clone(&context), connection).await;
    context.metrics.connections_open.dec();
    match outcome {
        Ok(()) | Err(ConnectionError::Idle) => tracing::debug!(%peer, "connection closed"),
        Err(ConnectionError::Io(error)) => tracing::debug!(%peer, %error, "connection lost"),
        // A client that dies does this too.
        Err(error @ ConnectionError::CutShort) => tracing::info!(%peer, %error, "closed a connection"),
        Err(error) => tracing::warn!(%peer, %error, "closed a connection"),
    }
}
