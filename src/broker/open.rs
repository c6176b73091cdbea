//! Opens a group's log, restores its machine, and starts the group.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::blocking::on_disk;
use super::identity::Home;
use super::mending::Mender;
use super::{BrokerError, Env, Inner};
use crate::config::Config;
use crate::flaws::Flaw;
use crate::ids::{BrokerId, Incarnation, PartitionId, RaftIndex, ReplicaId};
use crate::log::disk::{Disk, Lane, Open};
use crate::log::journal::Journal;
use crate::log::{Log, LogConfig, LogError, OpenAfter, Recovered};
use crate::machine::Machine;
use crate::machine::controller::brokers::FOUNDER;
use crate::machine::controller::names::OFFSETS_TOPIC;
use crate::machine::controller::{Controller, DirectoryId};
use crate::machine::groups::Limits as GroupLimits;
use crate::machine::partition::PartitionMachine;
use crate::machine::topic_config::{Durability, TopicConfig};
use crate::raft::applier::Snapshots;
use crate::raft::transport::link::Link;
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
    /// The replicas that found its group, the preferred leader first.
    pub(super) founders: Vec<ReplicaId>,
    /// The brokers that should lead it, the preferred one first.
    pub(super) order: Vec<BrokerId>,
    /// Whether other replicas have what the group holds, and can fill this one.
    pub(super) is_shared: bool,
    /// The topic's configs.
    pub(super) config: Arc<TopicConfig>,
}

/// Segments of the controller's log: small, so that snapshots free space soon.
pub(super) const CONTROLLER_SEGMENT_BYTES: u64 = 16 << 20;

/// The preferred leader of a new partition stands for election so often, and so soon again: the others may not have opened it yet.
const FIRST_TRIES: u32 = 20;
/// How soon a replica that has forgotten is reported again.
const REPLACE_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How soon it is tried again to mend the controller's log.
const MEND_AGAIN_AFTER: Duration = Duration::from_millis(500);
const FIRST_AGAIN_AFTER: Duration = Duration::from_millis(50);

struct Opened<M> {
    log: Arc<Log>,
    machine: Arc<Mutex<M>>,
    recovered: Recovered,
}

/// Why a log was not opened.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("restore the machine: {0}")]
    Machine(String),
}

/// Whether what was to be synced could not even be opened: nothing has failed to become durable.
fn could_not_begin(error: &io::Error) -> bool {
    let of_no_handle = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
        || of_no_handle.contains(&error.raw_os_error())
}

/// Recovers a log and restores the machine of its newest descriptor. Blocks.
fn open_log<M: Machine>(
    disk: Arc<dyn Disk>,
    journal: Arc<Journal>,
    id: PartitionId,
    config: LogConfig,
    clean: bool,
    fresh: impl FnOnce() -> M,
) -> Result<Opened<M>, Unreadable> {
    let (log, recovered) = Log::open(disk, journal, id, config, OpenAfter { clean })?;
    report(id, &recovered);
    let machine = match &recovered.descriptor {
        Some(descriptor) => M::restore(&descriptor.machine).map_err(|error| Unreadable::Machine(error.to_string()))?,
        None => fresh(),
    };
    Ok(Opened { log: Arc::new(log), machine: Arc::new(Mutex::new(machine)), recovered })
}

/// A planted bug: what stands behind the last flushed mark is cut off.
fn cut_at_mark(disk: &dyn Disk, journal: &Journal, id: PartitionId) {
    let Some(place) = journal.group(id).mark.map(|mark| mark.place) else { return };
    let path = format!("{}/{}.log", crate::log::directory(id), place.segment);
    if let Ok(file) = disk.open(&path, Open::Existing) {
        drop(file.set_len(place.position).and_then(|()| file.sync()));
    }
}

/// Says what recovery found: the operator must hear of every byte that was cut or is damaged.
fn report(id: PartitionId, recovered: &Recovered) {
    if let Some(cut) = &recovered.cut {
        tracing::warn!(partition = %id, ?cut, "cut an unsynced tail; the bytes are kept aside");
    }
    for damage in &recovered.damage {
        tracing::error!(partition = %id, %damage, "a range of the log is damaged");
    }
}

/// What the controller's group is opened on.
pub(super) struct Ground<'a> {
    pub(super) mender: &'a Arc<Mender>,
    pub(super) env: &'a Env,
    pub(super) config: &'a Config,
    pub(super) home: &'a Home,
    pub(super) journal: &'a Arc<Journal>,
    pub(super) flusher: &'a Arc<Flusher>,
    pub(super) node: &'a Arc<Node>,
    pub(super) among: Option<&'a Arc<Node>>,
    pub(super) clean: bool,
    pub(super) seed: u64,
}

/// Opens the controller's log and starts its group. A broker that has it for itself leads it, and has founded the cluster, when this returns.
pub(super) async fn controller(ground: Ground<'_>) -> Result<ControllerHandle, BrokerError> {
    let Ground { mender, env, config, home, journal, flusher, node, among, clean, seed } = ground;
    let (disk, for_log) = (Arc::clone(&env.disk), Arc::clone(journal));
    let log_config = LogConfig { segment_bytes: CONTROLLER_SEGMENT_BYTES };
    let opened = on_disk(&env.disk, Lane::Read, move || {
        open_log(disk, for_log, PartitionId::CONTROLLER, log_config, clean, Controller::default)
    })
    .await?
    .map_err(|error| BrokerError::Controller(error.to_string()))?;
    if opened.recovered.forgotten {
        let reason = "its log ends before its durable checkpoint: something was lost; run `ottla repair`";
        return Err(BrokerError::Controller(reason.to_owned()));
    }
    mender.tend(&opened.log);
    if among.is_some() && !opened.log.damage().is_empty() {
        mend_controller(mender, env, config, home, &opened).await;
    }
    let wake = Wake::new(among.cloned());
    if let Some(descriptor) = &opened.recovered.descriptor {
        wake.restored(descriptor.id.index);
    }
    let broker = config.broker.id;
    let me = ReplicaId { broker, incarnation: Incarnation(home.identity.controller_incarnation) };
    let founders = if me.incarnation == FOUNDER { BTreeSet::from([me]) } else { BTreeSet::new() };
    let group = Group::open(GroupConfig {
        me,
        founders,
        order: Vec::new(),
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
    let has_others = group.voters() != [BTreeSet::from([me])];
    match among {
        Some(node) => {
            node.open(PartitionId::CONTROLLER, group.member(), group.voters(), group.order());
            if let Some(term) = wake.term() {
                node.began_term(PartitionId::CONTROLLER, term);
            }
        }
        None if has_others => {
            let reason = "the data directory is that of a broker among others: set cluster.seeds to where they are";
            return Err(BrokerError::Controller(reason.to_owned()));
        }
        None => {}
    }
    let values = super::topic_defaults::file_values(config);
    let handle = ControllerHandle::new(group, wake, among.cloned(), broker, values);
    if has_others {
        return Ok(handle);
    }
    let found = |controller: &Controller| {
        let identity = &home.identity;
        let directory = DirectoryId(identity.directory());
        let records = controller.decide_found(&identity.cluster_id, broker, directory);
        Ok::<_, Infallible>((records.unwrap_or_default(), ()))
    };
    match handle.change(found).await {
        Ok(()) => Ok(handle),
        Err(error) => Err(BrokerError::Controller(format!("found the cluster: {error}"))),
    }
}

/// Mends the controller's log before it is opened, with what the brokers have that the seeds and its last checkpoint name. Waits for them.
async fn mend_controller(mender: &Mender, env: &Env, config: &Config, home: &Home, opened: &Opened<Controller>) {
    let me = config.broker.id;
    let known: Vec<_> = {
        let controller = opened.machine.lock().expect("nobody else has it yet");
        let others = controller.brokers().filter(|(id, _)| *id != me);
        others.filter_map(|(_, broker)| Some(broker.endpoints.as_ref()?.cluster.clone())).collect()
    };
    let mine = config.cluster.advertised(config.cluster.listen.port).to_string();
    let mut addresses: Vec<String> = config.cluster.seeds.iter().map(ToString::to_string).chain(known).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.retain(|address| *address != mine);
    let link = |address: &String| Link::to_stranger(address, &home.identity.cluster_id, &env.network).ok();
    let links: Vec<_> = addresses.iter().filter_map(link).collect();
    let mut said = String::new();
    while !links.is_empty() {
        match mender.mend_by(&opened.log, &links).await {
            Ok(()) => return,
            Err(why) if why != said => {
                tracing::error!(
                    why,
                    "the controller's log is damaged, and no other broker has lent what is missing; it is tried again. If none has it any more, start this \
                     broker with an empty data directory: it is filled"
                );
                said = why;
            }
            Err(_) => {}
        }
        tokio::time::sleep(MEND_AGAIN_AFTER).await;
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

/// Why a partition was not opened.
enum NotOpened {
    /// The operator has to look.
    Offline(String),
    /// It has lost what it had acknowledged: it must not vote as if it had it.
    Forgotten,
    /// What another replica has is needed first, which none has given yet: why.
    Damaged(Arc<Log>, String),
}

impl Inner {
    /// Opens a partition and adds it to the set, as serving or as offline. One that has forgotten and is not alone is left to a new incarnation, which
    /// the others fill.
    pub(super) async fn open_partition(&self, id: PartitionId, wanted: Wanted) {
        let replica = match self.try_open(id, &wanted).await {
            Ok(replica) => replica,
            Err(NotOpened::Forgotten) if self.among.is_some() && wanted.is_shared => {
                return self.give_up_replica(id, &wanted).await;
            }
            Err(not_opened) => {
                let mut damaged = None;
                let reason = match not_opened {
                    NotOpened::Offline(reason) => reason,
                    NotOpened::Damaged(log, why) => {
                        damaged = Some(log);
                        format!("its log is damaged, and waits for another replica: {why}")
                    }
                    NotOpened::Forgotten => {
                        "its log ends before its durable checkpoint: acknowledged records were lost; run `ottla repair`"
                            .to_owned()
                    }
                };
                tracing::error!(topic = wanted.name, partition = %id, reason, "a partition is offline");
                self.replicas.insert(id, Held::Offline(reason.into()));
                let is_state = wanted.name == OFFSETS_TOPIC;
                return damaged.into_iter().for_each(|log| self.open_when_mended(log, wanted.me, is_state));
            }
        };
        self.replicas.insert(id, Held::Open(Arc::clone(&replica)));
        let Some(node) = &self.among else { return };
        // It may have been elected before it was in the set.
        node.tell_again(id);
        let is_new = replica.log().state().last.is_none_or(|last| last.index == RaftIndex(0));
        if is_new && wanted.founders.first() == Some(&wanted.me) {
            self.stand_first(id, &replica);
        }
    }

    /// The preferred leader of a group that nobody leads yet does not wait for the failure detector.
    fn stand_first(&self, id: PartitionId, replica: &Arc<Replica>) {
        let (node, replica) = (Arc::clone(&self.node), Arc::downgrade(replica));
        self.spawn(async move {
            for _ in 0..FIRST_TRIES {
                let Some(replica) = replica.upgrade().filter(|_| node.leader(id).is_none()) else { return };
                replica.group().elect().await;
                drop(replica);
                tokio::time::sleep(FIRST_AGAIN_AFTER).await;
            }
        });
    }

    /// Has the controller replace a replica that has forgotten, and removes what is left of it.
    async fn give_up_replica(&self, id: PartitionId, wanted: &Wanted) {
        let forgotten = [(id, wanted.me)];
        let replace =
            |controller: &Controller| Ok::<_, Infallible>((controller.decide_replace_replicas(&forgotten), ()));
        if let Err(error) = self.controller.change(replace).await {
            tracing::error!(
                topic = wanted.name, partition = %id, %error,
                "a replica that has lost records could not be replaced; it is tried again"
            );
            let controller = Arc::clone(&self.controller);
            self.spawn(async move {
                tokio::time::sleep(REPLACE_AGAIN_AFTER).await;
                controller.look_again();
            });
            return;
        }
        tracing::warn!(
            topic = wanted.name, partition = %id, replica = %wanted.me,
            "a replica has lost acknowledged records: it begins anew and is filled by the others"
        );
        // Only now: an empty log would vote as if nothing had ever been acknowledged.
        self.remove_replica_files(id).await;
    }

    /// Removes what the disk holds of a partition.
    pub(super) async fn remove_replica_files(&self, id: PartitionId) {
        let (disk, journal) = (Arc::clone(&self.env.disk), Arc::clone(&self.journal));
        let removed = on_disk(&self.env.disk, Lane::Background, move || {
            journal.remove_group(id, Box::new(drop));
            match disk.remove_dir_all(&crate::log::directory(id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        });
        match removed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(partition = %id, %error, "could not remove a partition's files"),
            Err(error) => tracing::error!(partition = %id, %error, "could not remove a partition's files"),
        }
    }

    /// Coordinates the groups of a partition from now on.
    pub(super) fn coordinate(&self, replica: &Arc<Replica>) {
        let limits = group_limits(&self.config);
        let topics = Arc::clone(&self.controller) as _;
        self.spawn(self.coordinators.start(replica, Arc::clone(&self.env.clock), limits, topics));
    }

    /// Of a failed sync nothing is known that it was to make durable, and the names of other partitions are in the same directories: that is not for this
    /// partition alone.
    fn unreadable(&self, id: PartitionId, error: &Unreadable) -> NotOpened {
        if let Unreadable::Log(LogError::Sync(cause)) = error
            && !could_not_begin(cause)
        {
            self.flusher.die(format!("open partition {id}: {error}"));
        }
        NotOpened::Offline(error.to_string())
    }

    async fn try_open(&self, id: PartitionId, wanted: &Wanted) -> Result<Arc<Replica>, NotOpened> {
        let (disk, journal, clean) = (Arc::clone(&self.env.disk), Arc::clone(&self.journal), self.clean);
        let config = log_config(&wanted.config);
        let coordinates = wanted.name == OFFSETS_TOPIC;
        let fresh = if coordinates { PartitionMachine::coordinator } else { PartitionMachine::default };
        let reuses = !clean && self.env.flaws.has(Flaw::OffsetsReused);
        let work = move || {
            if reuses {
                cut_at_mark(disk.as_ref(), &journal, id);
            }
            open_log(disk, journal, id, config, clean, fresh)
        };
        let opened = on_disk(&self.env.disk, Lane::Read, work).await;
        let opened = opened.map_err(|error| NotOpened::Offline(error.to_string()))?;
        let opened = opened.map_err(|error| self.unreadable(id, &error))?;
        if opened.recovered.forgotten && !self.env.flaws.has(Flaw::ForgottenVotes) {
            return Err(NotOpened::Forgotten);
        }
        self.mender.tend(&opened.log);
        if opened.log.is_tended() && !opened.log.damage().is_empty() {
            // It takes part in nothing before: what is damaged may be needed to know who votes, and what was decided.
            self.mender.mend(&opened.log).await.map_err(|why| NotOpened::Damaged(Arc::clone(&opened.log), why))?;
        }
        let page_cache = wanted.config.durability == Durability::PageCache;
        let published = Publisher::new(id, Arc::clone(&self.janitor), self.among.clone());
        let group = GroupConfig {
            me: wanted.me,
            founders: wanted.founders.iter().copied().collect(),
            order: wanted.order.clone(),
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
        let replica = opened.map_err(|error| NotOpened::Offline(error.to_string()))?;
        if coordinates && self.among.is_none() {
            self.coordinate(&replica);
        }
        Ok(replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_opened_to_be_synced_is_no_failed_sync() {
        let of_errno = |errno: rustix::io::Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        for errno in
            [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOENT, rustix::io::Errno::ACCESS]
        {
            assert!(could_not_begin(&of_errno(errno)), "{errno}");
        }
        for errno in [rustix::io::Errno::IO, rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT] {
            assert!(!could_not_begin(&of_errno(errno)), "{errno}");
        }
        assert!(!could_not_begin(&io::Error::other("an earlier sync of this disk has failed")));
    }
}
