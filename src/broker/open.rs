//! Opens a group's log, restores its machine, and starts the group.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use super::blocking::on_disk;
use super::identity::Home;
use super::{BrokerError, Env, Inner};
use crate::config::Config;
use crate::ids::{Incarnation, PartitionId, ReplicaId};
use crate::log::disk::{Disk, Lane};
use crate::log::journal::Journal;
use crate::log::{Log, LogConfig, OpenAfter, Recovered};
use crate::machine::Machine;
use crate::machine::controller::names::OFFSETS_TOPIC;
use crate::machine::controller::{Controller, DirectoryId};
use crate::machine::groups::Limits as GroupLimits;
use crate::machine::partition::PartitionMachine;
use crate::machine::topic_config::{Durability, TopicConfig};
use crate::raft::applier::Snapshots;
use crate::raft::{Flusher, Group, GroupConfig, Node};
use crate::replica::controller::{ControllerHandle, Wake};
use crate::replica::set::Held;
use crate::replica::{Publisher, Replica, log_config};

/// What reconciling wants of a partition.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The topic's name, for the log.
    pub(super) name: String,
    /// This broker's replica of it.
    pub(super) me: ReplicaId,
    /// The topic's configs.
    pub(super) config: Arc<TopicConfig>,
}

/// Segments of the controller's log: small, so that snapshots free space soon.
const CONTROLLER_SEGMENT_BYTES: u64 = 16 << 20;

struct Opened<M> {
    log: Arc<Log>,
    machine: Arc<Mutex<M>>,
    recovered: Recovered,
}

/// Recovers a log and restores the machine of its newest descriptor. Blocks.
fn open_log<M: Machine>(
    disk: Arc<dyn Disk>,
    journal: Arc<Journal>,
    id: PartitionId,
    config: LogConfig,
    clean: bool,
    fresh: impl FnOnce() -> M,
) -> Result<Opened<M>, String> {
    let (log, recovered) =
        Log::open(disk, journal, id, config, OpenAfter { clean }).map_err(|error| error.to_string())?;
    report(id, &recovered);
    let machine = match &recovered.descriptor {
        Some(descriptor) => M::restore(&descriptor.machine).map_err(|error| format!("restore the machine: {error}"))?,
        None => fresh(),
    };
    Ok(Opened { log: Arc::new(log), machine: Arc::new(Mutex::new(machine)), recovered })
}

/// Says what recovery found: the operator must hear of every byte that was cut or is damaged.
fn report(id: PartitionId, recovered: &Recovered) {
    if let Some(cut) = &recovered.cut {
        tracing::warn!(partition = %id, ?cut, "cut an unsynced tail; the bytes are kept aside");
    }
    for damage in &recovered.damage {
        tracing::error!(partition = %id, ?damage, "a range of the log is damaged and is not served; run `ottla repair`");
    }
}

/// What the controller's group is opened on.
pub(super) struct Ground<'a> {
    pub(super) env: &'a Env,
    pub(super) config: &'a Config,
    pub(super) home: &'a Home,
    pub(super) journal: &'a Arc<Journal>,
    pub(super) flusher: &'a Arc<Flusher>,
    pub(super) node: &'a Arc<Node>,
    pub(super) clean: bool,
    pub(super) seed: u64,
}

/// Opens the controller's log and leads its group.
pub(super) async fn controller(ground: Ground<'_>) -> Result<ControllerHandle, BrokerError> {
    let Ground { env, config, home, journal, flusher, node, clean, seed } = ground;
    let (disk, for_log) = (Arc::clone(&env.disk), Arc::clone(journal));
    let log_config = LogConfig { segment_bytes: CONTROLLER_SEGMENT_BYTES };
    let opened = on_disk(&env.disk, Lane::Read, move || {
        open_log(disk, for_log, PartitionId::CONTROLLER, log_config, clean, Controller::default)
    })
    .await?
    .map_err(BrokerError::Controller)?;
    if opened.recovered.forgotten {
        let reason = "its log ends before its durable checkpoint: something was lost; run `ottla repair`";
        return Err(BrokerError::Controller(reason.to_owned()));
    }
    let wake = Wake::new();
    let me = ReplicaId { broker: config.broker.id, incarnation: Incarnation(1) };
    let group = Group::lead(GroupConfig {
        me,
        founders: BTreeSet::from([me]),
        node: Arc::clone(node),
        log: opened.log,
        journal: Arc::clone(journal),
        flusher: Arc::clone(flusher),
        page_cache: false,
        machine: opened.machine,
        descriptor: opened.recovered.descriptor,
        observer: Arc::clone(&wake) as _,
        snapshots: Snapshots::Latest,
        seed,
    })
    .await?;
    let handle = ControllerHandle::new(group, wake, config.broker.id, super::topic_defaults::file_values(config));
    let found = |controller: &Controller| {
        let identity = &home.identity;
        let directory = DirectoryId(identity.directory());
        let records = controller.decide_found(&identity.cluster_id, config.broker.id, directory);
        Ok::<_, Infallible>((records.unwrap_or_default(), ()))
    };
    match handle.change(found).await {
        Ok(()) => Ok(handle),
        Err(error) => Err(BrokerError::Controller(format!("found the cluster: {error}"))),
    }
}

/// What the file says of groups.
fn group_limits(config: &Config) -> GroupLimits {
    let groups = &config.groups;
    GroupLimits {
        session_ms_min: groups.session_timeout_min_ms,
        session_ms_max: groups.session_timeout_max_ms,
        consumer_session_ms: groups.consumer_session_timeout_ms.into(),
        consumer_heartbeat_ms: groups.consumer_heartbeat_interval_ms,
        initial_delay_ms: groups.initial_rebalance_delay_ms.into(),
        members_max: usize::try_from(groups.members).expect("a u32 fits"),
        offsets_kept_ms: i64::from(groups.offsets_retention_minutes) * 60_000,
    }
}

impl Inner {
    /// Opens a partition and adds it to the set, as serving or as offline.
    pub(super) async fn open_partition(&self, id: PartitionId, wanted: Wanted) {
        let held = match self.try_open(id, &wanted).await {
            Ok(replica) => Held::Open(replica),
            Err(reason) => {
                tracing::error!(topic = wanted.name, partition = %id, reason, "a partition is offline");
                Held::Offline(reason.into())
            }
        };
        self.replicas.insert(id, held);
    }

    async fn try_open(&self, id: PartitionId, wanted: &Wanted) -> Result<Arc<Replica>, String> {
        let (disk, journal, clean) = (Arc::clone(&self.env.disk), Arc::clone(&self.journal), self.clean);
        let config = log_config(&wanted.config);
        let coordinates = wanted.name == OFFSETS_TOPIC;
        let fresh = if coordinates { PartitionMachine::coordinator } else { PartitionMachine::default };
        let work = move || open_log(disk, journal, id, config, clean, fresh);
        let opened = on_disk(&self.env.disk, Lane::Read, work).await.map_err(|error| error.to_string())??;
        if opened.recovered.forgotten {
            return Err(
                "its log ends before its durable checkpoint: acknowledged records were lost; run `ottla repair`"
                    .to_owned(),
            );
        }
        let page_cache = wanted.config.durability == Durability::PageCache;
        let published = Publisher::new(Arc::clone(&self.janitor));
        let group = GroupConfig {
            me: wanted.me,
            founders: BTreeSet::from([wanted.me]),
            node: Arc::clone(&self.node),
            log: opened.log,
            journal: Arc::clone(&self.journal),
            flusher: Arc::clone(&self.flusher),
            page_cache,
            machine: opened.machine,
            descriptor: opened.recovered.descriptor,
            observer: Arc::clone(&published) as _,
            snapshots: Snapshots::AtLogStart,
            seed: self.random(),
        };
        let config = Arc::clone(&wanted.config);
        let opened = Replica::open(group, config, published, |task| self.spawn(task)).await;
        let replica = opened.map_err(|error| error.to_string())?;
        if coordinates {
            let limits = group_limits(&self.config);
            let topics = Arc::clone(&self.controller) as _;
            self.spawn(self.coordinators.start(&replica, Arc::clone(&self.env.clock), limits, topics));
        }
        Ok(replica)
    }
}
