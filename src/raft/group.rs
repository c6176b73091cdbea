//! One Raft group on this broker: start, lead, propose, checkpoint, stop.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::impls::leader_id_std;
use openraft::raft::Precondition;
use openraft::vote::RaftLeaderId;
use openraft::{Config, Instant, ReadPolicy, SnapshotPolicy};

use super::applier::{Applier, ApplierConfig, Observer, Snapshots};
use super::flusher::{Flusher, LogFlusher};
use super::log_store::LogStore;
use super::member::GroupMember;
use super::node::Node;
use super::transport::Member;
use super::transport::client::GroupNetwork;
use super::types::{Applied, Callback, Command, Runtime, TypeConfig, decode_vote, log_id, raft_log_id};
use crate::flaws::{Flaw, Flaws};
use crate::ids::{BrokerId, LogId, PartitionId, RaftIndex, ReplicaId, Term};
use crate::log::journal::Journal;
use crate::log::{Descriptor, Log};
use crate::machine::Machine;

pub(super) type Raft<M> = openraft::Raft<TypeConfig, Applier<M>>;

/// Proposals that may wait in a group's core; more wait in the sender.
const CORE_QUEUE: u64 = 1024;

/// For how long after each request of a leader its followers' cores would refuse to elect another, and its own core takes proposals without having asked
/// them again. The first must be long enough for a new leader to commit its first entry and to be heard to lead, on slow disks too; from then on the failure
/// detector decides ([`Member::vote`]). The second must be longer than a slow disk's syncs.
const CORE_LEASE: Duration = Duration::from_secs(1);
/// A leader that was not acked by a majority for so long asks before it proposes: before openraft would refuse, after [`CORE_LEASE`].
const RENEW_AFTER: Duration = Duration::from_millis(700);
/// How long openraft waits for the answer to a heartbeat. None is sent by itself.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(400);

/// What a group is started with.
pub struct GroupConfig<M: Machine> {
    /// This replica: the voter's identity.
    pub me: ReplicaId,
    /// The voters that found the group, if `me` is one of them: a log that is empty begins with them. Not for a replica that has come later, or
    /// that has forgotten: it is told by the leader.
    pub founders: BTreeSet<ReplicaId>,
    /// The brokers that should lead the group, the preferred one first; not more than a wish.
    pub order: Vec<BrokerId>,
    /// This broker among the others.
    pub node: Arc<Node>,
    /// The group's log, already recovered.
    pub log: Arc<Log>,
    /// The data directory's journal.
    pub journal: Arc<Journal>,
    /// The broker's flusher.
    pub flusher: Arc<Flusher>,
    /// Whether appends are acknowledged before they are synced.
    pub page_cache: bool,
    /// The machine, restored from `descriptor`.
    pub machine: Arc<Mutex<M>>,
    /// The recovered restart checkpoint.
    pub descriptor: Option<Descriptor>,
    /// Told what is applied.
    pub observer: Arc<dyn Observer<M>>,
    /// What openraft is shown as the snapshot.
    pub snapshots: Snapshots,
    /// The seed of the group's randomness.
    pub seed: u64,
}

/// Why a group did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The stored state cannot be used.
    #[error("restore the group's state: {0}")]
    Restore(#[from] io::Error),
    /// The Raft core stopped; its storage failed.
    #[error("start the Raft core: {0}")]
    Core(String),
    /// Terms have run out of the Kafka leader epoch's range.
    #[error("term {0} does not fit a Kafka leader epoch: this replica refuses to lead")]
    TermTooHigh(Term),
}

/// Why a proposal was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead the group in the expected term, or the command rested on another place ([`Command::At`]); nothing was appended.
    #[error("this replica does not lead the group")]
    NotLeader,
    /// The entry was appended, and whether it will be committed is unknown.
    #[error("leadership was lost before the entry was committed")]
    Unknown,
    /// The group's core stopped (its storage failed, or the broker is stopping); whether the entry was appended is unknown.
    #[error("the group has stopped")]
    Stopped,
}

/// A proposal that was committed and applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The entry's identity.
    pub id: LogId,
    /// The machine's answer.
    pub applied: Applied,
}

/// A caller's callback, called even if the core that holds it goes away.
struct Promise<F: FnOnce(Result<Proposed, ProposeError>)>(Option<F>);

impl<F: FnOnce(Result<Proposed, ProposeError>)> Promise<F> {
    fn keep(mut self, outcome: Result<Proposed, ProposeError>) {
        if let Some(done) = self.0.take() {
            done(outcome);
        }
    }
}

impl<F: FnOnce(Result<Proposed, ProposeError>)> Drop for Promise<F> {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(ProposeError::Stopped));
        }
    }
}

/// Who belongs to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The voters; two sets while they change.
    pub voters: Vec<BTreeSet<ReplicaId>>,
    /// Those that only learn.
    pub learners: BTreeSet<ReplicaId>,
    /// On the leader: the last entry that each is known to hold.
    pub held: BTreeMap<ReplicaId, Option<RaftIndex>>,
    /// The last entry of this replica's own log.
    pub last: Option<RaftIndex>,
    /// The entry that says so.
    pub at: Option<LogId>,
    /// Whether that entry is committed: else the one before it may come into force again.
    pub is_committed: bool,
}

impl Members {
    /// Whether a replica holds what this one holds, but for what is on its way: at most `behind` entries.
    #[must_use]
    pub fn is_caught_up(&self, replica: ReplicaId, behind: u64) -> bool {
        let last = self.last.map_or(0, |last| last.0);
        self.held.get(&replica).copied().flatten().is_some_and(|held| held.0 + behind >= last)
    }
}

impl Members {
    /// Whether so many voters hold everything up to `index`, synced.
    #[must_use]
    pub fn is_held_by(&self, count: usize, index: RaftIndex) -> bool {
        let holds = |replica: &ReplicaId| self.held.get(replica).copied().flatten() >= Some(index);
        let voters: BTreeSet<ReplicaId> = self.voters.iter().flatten().copied().collect();
        voters.iter().filter(|replica| holds(replica)).count() >= count
    }
}

/// One Raft group, running.
pub struct Group<M: Machine> {
    id: PartitionId,
    me: ReplicaId,
    raft: Raft<M>,
    log: Arc<Log>,
    flusher: Arc<LogFlusher>,
    machine: Arc<Mutex<M>>,
    voters: Vec<BTreeSet<ReplicaId>>,
    order: Vec<BrokerId>,
    voted: Option<Term>,
    seed: u64,
}

fn raft_config(id: PartitionId, flaws: Flaws) -> Config {
    let millis = |time: Duration| u64::try_from(time.as_millis()).expect("a constant fits");
    Config {
        cluster_name: id.to_string(),
        heartbeat_interval: millis(HEARTBEAT_TIMEOUT),
        // How long a vote is waited for: it is synced first, behind whatever else is. Nothing else, as ticks are off.
        election_timeout_min: millis(CORE_LEASE) - 10,
        election_timeout_max: millis(CORE_LEASE),
        heartbeat_min_interval: Some(0),
        quorum_loss_probe_interval: None,
        enable_tick: false,
        enable_pre_vote: Some(true),
        // A restarted leader that lost its unsynced tail would resume its term and use log ids again: acked entries diverge.
        enable_leader_restore: Some(flaws.has(Flaw::LeaderRestored)),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        max_payload_entries: 1024,
        max_append_entries: Some(4096),
        api_channel_size: Some(CORE_QUEUE),
        ..Config::default()
    }
}

fn changed(error: &openraft::errors::RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ProposeError {
    use openraft::errors::RaftError;
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => ProposeError::NotLeader,
        RaftError::APIError(_) => ProposeError::Unknown,
        RaftError::Fatal(_) => ProposeError::Stopped,
    }
}

impl<M: Machine> Group<M> {
    /// Starts a group whose only voter this is, and leads it: founds it when its log is empty, else is elected in a new term. Returns when the
    /// blank of that term is applied, so the machine has seen everything that was ever acknowledged.
    ///
    /// # Errors
    /// When the stored state cannot be used or the core stops.
    pub async fn lead(config: GroupConfig<M>) -> Result<Self, StartError> {
        let seed = config.seed;
        let lead = async {
            let group = Self::start_seeded(config).await?;
            group.become_leader().await?;
            Ok(group)
        };
        Runtime::scope(seed, lead).await
    }

    /// Starts the group: as its leader if this replica has it for itself (see [`Group::lead`]), else as a follower.
    ///
    /// # Errors
    /// When the stored state cannot be used or the core stops.
    pub async fn open(config: GroupConfig<M>) -> Result<Self, StartError> {
        let seed = config.seed;
        let open = async {
            let me = BTreeSet::from([config.me]);
            let group = Self::start_seeded(config).await?;
            if group.voters.iter().all(|voters| *voters == me) && !group.voters.is_empty() {
                group.become_leader().await?;
            }
            Ok(group)
        };
        Runtime::scope(seed, open).await
    }

    /// Starts the group as a follower.
    ///
    /// # Errors
    /// When the stored state cannot be used or the core stops.
    pub async fn start(config: GroupConfig<M>) -> Result<Self, StartError> {
        let seed = config.seed;
        Runtime::scope(seed, Self::start_seeded(config)).await
    }

    async fn start_seeded(config: GroupConfig<M>) -> Result<Self, StartError> {
        let (id, flaws) = (config.log.id(), config.node.flaws());
        let undescribed_bytes = Arc::clone(&config.flusher.undescribed_bytes);
        let flusher = LogFlusher::new(config.flusher, Arc::clone(&config.log), config.page_cache, flaws);
        let store = LogStore::new(Arc::clone(&config.log), Arc::clone(&config.journal), Arc::clone(&flusher));
        store.refound(config.me, &config.founders, config.descriptor.as_ref()).await?;
        store.found(config.me, &config.founders, config.descriptor.as_ref())?;
        let voters = store.voters(config.descriptor.as_ref())?;
        let voted = config.journal.group(id).vote.map(|vote| decode_vote(&vote)).transpose()?;
        let voted = voted.map(|vote| Term(vote.leader_id.term));
        let log = config.log;
        let applier = Applier::new(ApplierConfig {
            log: Arc::clone(&log),
            journal: config.journal,
            machine: Arc::clone(&config.machine),
            descriptor: config.descriptor,
            observer: config.observer,
            snapshots: config.snapshots,
            undescribed_bytes,
            flaws,
        })?;
        let settings = raft_config(id, flaws).validate().map_err(|error| StartError::Core(error.to_string()))?;
        let network = GroupNetwork::new(Arc::clone(config.node.peers()), config.node, id);
        let raft = Raft::new(config.me, Arc::new(settings), network, store, applier)
            .await
            .map_err(|error| StartError::Core(error.to_string()))?;
        let (me, machine, order, seed) = (config.me, config.machine, config.order, config.seed);
        Ok(Self { id, me, raft, log, flusher, machine, voters, order, voted, seed })
    }

    /// This replica, as its peers reach it.
    #[must_use]
    pub fn member(&self) -> Arc<dyn Member> {
        let log = Arc::clone(&self.log);
        Arc::new(GroupMember::new(self.me, self.raft.clone(), log, self.voted, self.seed))
    }

    /// Stands for election, if the others would elect it. Whether it was elected shows in [`Group::term`].
    pub async fn elect(&self) {
        // A stopped core stands for nothing.
        drop(Runtime::scope(self.seed, self.raft.trigger().elect(true)).await);
    }

    /// The voters as of the start; two sets while they changed.
    #[must_use]
    pub fn voters(&self) -> &[BTreeSet<ReplicaId>] {
        &self.voters
    }

    /// The brokers that should lead it, the preferred one first, as of the start.
    #[must_use]
    pub fn order(&self) -> &[BrokerId] {
        &self.order
    }

    /// Asks `to` to lead instead, which it does once it holds all that this replica has. Whether it does or not, this replica takes nothing any more
    /// until somebody is elected: [`Node::withdraw`] comes first, so that the others see to that.
    pub async fn transfer(&self, to: ReplicaId) {
        drop(Runtime::scope(self.seed, self.raft.trigger().transfer_leader(to)).await);
    }

    /// Lets the followers show that this replica still leads: the first write after a rest needs that.
    pub async fn heartbeat(&self) {
        drop(Runtime::scope(self.seed, self.raft.trigger().heartbeat()).await);
    }

    /// The replica that this one follows, or itself if it leads. It may be gone.
    #[must_use]
    pub fn leader(&self) -> Option<ReplicaId> {
        self.raft.server_metrics().borrow_watched().current_leader
    }

    /// Adds a replica that learns, and does not vote yet.
    ///
    /// # Errors
    /// If this replica does not lead, or another change is under way.
    pub async fn add_learner(&self, replica: ReplicaId) -> Result<(), ProposeError> {
        self.renew().await;
        let added = Runtime::scope(self.seed, self.raft.add_learner(replica, (), false)).await;
        added.map(drop).map_err(|error| changed(&error))
    }

    /// Takes replicas that only learn out of the group.
    ///
    /// # Errors
    /// If this replica does not lead, or another change is under way.
    pub async fn remove_learners(&self, replicas: BTreeSet<ReplicaId>) -> Result<(), ProposeError> {
        let change = openraft::ChangeMembers::RemoveNodes(replicas);
        self.renew().await;
        let removed = Runtime::scope(self.seed, self.raft.change_membership(change, false)).await;
        removed.map(drop).map_err(|error| changed(&error))
    }

    /// Makes these replicas the voters, if the group's members are still as they were at the entry `at` (of [`Members`]): whoever decides on old knowledge
    /// changes nothing. Those that were voters and are not any more learn from now on.
    ///
    /// # Errors
    /// If this replica does not lead, the members are others by now, or another change is under way.
    pub async fn change_voters(&self, voters: BTreeSet<ReplicaId>, at: Option<LogId>) -> Result<(), ProposeError> {
        self.renew().await;
        let unchanged = Precondition::LastMembershipLogId { last_membership_log_id: at.map(raft_log_id) };
        let change = self.raft.change_membership_if(voters, true, [unchanged]);
        let changed_to = Runtime::scope(self.seed, change).await;
        changed_to.map(drop).map_err(|error| changed(&error))
    }

    /// Who belongs to the group, and how far they are. Only the leader knows how far.
    #[must_use]
    pub fn members(&self) -> Members {
        let server = self.raft.server_metrics();
        let server = server.borrow_watched();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = server.membership_config.membership();
        let held = metrics.replication.iter().flatten().map(|(replica, last)| {
            let index = last.as_ref().map(|last| RaftIndex(last.index()));
            (*replica, index)
        });
        Members {
            voters: membership.get_joint_config().clone(),
            learners: membership.learner_ids().collect(),
            held: held.collect(),
            last: metrics.last_log_index.map(RaftIndex),
            at: server.membership_config.log_id().as_ref().map(log_id),
            is_committed: server.committed_membership_config == server.membership_config,
        }
    }

    async fn become_leader(&self) -> Result<(), StartError> {
        let core = |error: &dyn std::fmt::Display| StartError::Core(error.to_string());
        self.raft.trigger().elect(false).await.map_err(|error| core(&error))?;
        let me = self.me;
        self.raft
            .wait(None)
            .metrics(|metrics| metrics.current_leader == Some(me) && metrics.state.is_leader(), "leads its group")
            .await
            .map_err(|error| core(&error))?;
        self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await.map_err(|error| core(&error))?;
        match self.term() {
            Some(term) if term > Term::MAX => Err(StartError::TermTooHigh(term)),
            Some(_) => Ok(()),
            None => Err(StartError::Core("lost the leadership of a group with one voter".to_owned())),
        }
    }

    /// The group's identity.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// This replica.
    #[must_use]
    pub fn me(&self) -> ReplicaId {
        self.me
    }

    /// The group's log.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The group's place in the flusher.
    #[must_use]
    pub fn flusher(&self) -> &Arc<LogFlusher> {
        &self.flusher
    }

    /// The machine that committed entries fold into.
    #[must_use]
    pub fn machine(&self) -> &Arc<Mutex<M>> {
        &self.machine
    }

    /// The term in which this replica leads, if it does.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        // A core that was restarted has the vote that it was elected with, and does not lead.
        let leader = &metrics.vote.leader_id;
        let leads = metrics.state.is_leader() && metrics.vote.committed && leader.voted_for == self.me;
        leads.then_some(Term(leader.term))
    }

    /// Proposes a command in `term`. Proposals of one caller are appended in the order of these calls. `done` is always called, once:
    /// on the task that applied the entry, or with the reason why nobody knows that it was.
    pub async fn propose(
        &self,
        term: Term,
        command: Command,
        done: impl FnOnce(Result<Proposed, ProposeError>) + Send + 'static,
    ) {
        let promise = Promise(Some(done));
        let responder = Callback::new(move |outcome: openraft::raft::ClientWriteResult<TypeConfig>| {
            promise.keep(match outcome {
                Ok(written) if written.data.is_blank => Err(ProposeError::NotLeader),
                Ok(written) => Ok(Proposed { id: log_id(&written.log_id), applied: written.data }),
                Err(ClientWriteError::ForwardToLeader(_)) => Err(ProposeError::NotLeader),
                Err(_) => Err(ProposeError::Unknown),
            });
        });
        self.renew().await;
        let leader = leader_id_std::LeaderId::new(term.0, self.me).to_committed();
        // A stopped core drops the responder, which breaks the promise: the caller is told.
        drop(self.raft.write(command).with_leader(leader).responder(responder).await);
    }

    /// Asks the followers whether this replica still leads, if it has not heard that for a while. Whether it worked shows when something is proposed.
    async fn renew(&self) {
        if self.must_renew() {
            let renewed = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
            drop(Runtime::scope(self.seed, renewed).await);
        }
    }

    /// Whether the followers have to be asked first if this replica still leads: openraft takes no entry from a leader that has not heard a majority for
    /// as long as an election takes, and a group that rests hears nobody.
    fn must_renew(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let is_old = metrics.last_quorum_acked.is_none_or(|acked| acked.into_inner().elapsed() > RENEW_AFTER);
        is_old && metrics.membership_config.voter_ids().nth(1).is_some()
    }

    /// Captures a restart checkpoint if anything was applied since the last one, and waits until it is with the journal. A machine whose state is
    /// larger than what a restart would read back gets none.
    pub async fn checkpoint(&self) {
        let checkpoint = self.raft.with_state_machine(|applier: &mut Applier<M>| {
            applier.checkpoint();
            Box::pin(std::future::ready(()))
        });
        // A stopped core has nothing left to describe: its log is recovered at the next start.
        drop(Runtime::scope(self.seed, checkpoint).await);
    }

    /// Lets openraft purge what the machine's log start (or, for machines that are snapshotted, the machine itself) has made
    /// superfluous.
    pub async fn purge(&self) {
        drop(Runtime::scope(self.seed, self.raft.trigger().snapshot()).await);
    }

    /// Stops the group's tasks. What is appended stays; what is not applied gets no answer.
    pub async fn stop(&self) {
        drop(Runtime::scope(self.seed, self.raft.shutdown()).await);
    }
}
