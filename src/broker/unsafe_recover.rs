//! What `ottla cluster unsafe-recover` does, while no broker runs on the directory: makes a broker go on with the cluster's metadata alone, after most of those
//! that voted on it are gone for good.
//!
//! Its replica of the controller's group gets a new incarnation, is the only voter, and its log as it stands counts as committed. The brokers that are given
//! up are known by no directory any more: one that comes back with its old one is refused, one with an empty directory is taken for new. What becomes of
//! partitions is decided when the brokers run (`broker/refounding`).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::identity::{self, Identity, IdentityError};
use super::repair::fold;
use crate::ids::{BrokerId, Incarnation, LogId, PartitionId, RaftIndex, ReplicaId};
use crate::log::disk::Disk;
use crate::log::entry::RaftEntryKind;
use crate::log::journal::{GroupState, Journal, JournalError};
use crate::log::repair::{Examined, examine};
use crate::log::{Log, LogConfig, LogError, OpenAfter};
use crate::machine::Machine as _;
use crate::machine::controller::brokers::FOUNDER;
use crate::machine::controller::{Controller, record};
use crate::machine::{Committed, What};
use crate::raft::refound::{go_on_alone, logged_voters, stored_voters};

/// A partition, for people: its topic's name and its number.
pub type Named = (String, i32);

/// What would be, or was, done.
#[derive(Debug)]
pub struct Plan {
    /// The broker whose directory it is.
    pub me: BrokerId,
    /// The cluster's id.
    pub cluster_id: String,
    /// Where its log of the cluster's metadata ends: that of another survivor may be longer.
    pub last: Option<LogId>,
    /// The brokers that are given up.
    pub lost: Vec<BrokerId>,
    /// The others that are left.
    pub left: Vec<BrokerId>,
    /// Partitions that keep their majority.
    pub whole: usize,
    /// Partitions that go on from what is left of them, each with the brokers that have it.
    pub refounded: Vec<(Named, Vec<BrokerId>)>,
    /// Partitions of which nothing is left.
    pub gone: Vec<Named>,
}

/// Why nothing can be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The journal cannot be used.
    #[error("open the journal: {0}")]
    Journal(#[from] JournalError),
    /// A log cannot be used.
    #[error("the log of the cluster's metadata: {0}")]
    Log(#[from] LogError),
    /// The disk failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It must not be done: why.
    #[error("{0}")]
    Refused(String),
}

fn refuse<T>(why: impl Into<String>) -> Result<T, RecoverError> {
    Err(RecoverError::Refused(why.into()))
}

/// Looks what giving brokers up would mean, and does it if that is wanted. Blocks.
///
/// # Errors
/// If a broker runs on the directory, if it is damaged, if there is nothing to recover, of the disk.
pub fn unsafe_recover(disk: &Arc<dyn Disk>, lost: &[BrokerId], apply: bool) -> Result<Plan, RecoverError> {
    let inspected = identity::inspect(disk)?;
    if let Some(problem) = inspected.problems.first() {
        return refuse(problem.clone());
    }
    let Some(identity) = identity::stored(disk)? else { return refuse("the data directory is empty") };
    let journal = Journal::look(disk.as_ref())?;
    let unknown = GroupState::default();
    let group = journal.get(&PartitionId::CONTROLLER).unwrap_or(&unknown);
    let examined = examine(disk.as_ref(), group, PartitionId::CONTROLLER)?;
    if let Some(hole) = examined.behind_checkpoint() {
        return refuse(format!(
            "{}: what cannot be read there may have made a topic; take another survivor, or put back a copy of the data directory",
            hole.damage
        ));
    }
    let controller = fold(&examined, group).map_err(|error| RecoverError::Refused(error.to_string()))?;
    let voters = voters(&examined, group)?;
    let plan = plan(&controller, &identity, examined.last(), (lost, &voters))?;
    if !apply {
        return Ok(plan);
    }
    drop(examined);
    recover(disk, &identity, &controller, &plan)?;
    Ok(plan)
}

/// Those that decide on the cluster's metadata, as this log has it; two sets while they change.
fn voters(examined: &Examined, group: &GroupState) -> Result<Vec<BTreeSet<ReplicaId>>, RecoverError> {
    let checkpoint = group.checkpoint();
    let mut newest = checkpoint.map(|checkpoint| stored_voters(&checkpoint.membership)).transpose()?;
    let from = checkpoint.map_or(RaftIndex(0), |checkpoint| checkpoint.id.index.next());
    let mut read = Ok(());
    examined.raft_entries(from, |_, kind, body| {
        if kind == RaftEntryKind::Membership {
            match logged_voters(&body) {
                Ok(voters) => newest = Some(voters),
                Err(error) => read = Err(error),
            }
        }
    })?;
    read?;
    newest.map_or_else(|| refuse("its log of the cluster's metadata does not say who decides on it"), Ok)
}

fn plan(
    controller: &Controller,
    identity: &Identity,
    last: Option<LogId>,
    (lost, voters): (&[BrokerId], &[BTreeSet<ReplicaId>]),
) -> Result<Plan, RecoverError> {
    let me = BrokerId(identity.broker_id);
    let known: BTreeSet<BrokerId> = controller.brokers().map(|(id, _)| id).collect();
    if known.is_empty() {
        return refuse("this directory knows no brokers: its log of the cluster's metadata holds nothing");
    }
    let lost: BTreeSet<BrokerId> = lost.iter().copied().collect();
    if lost.contains(&me) {
        return refuse(format!("broker {me} is the one whose directory this is: it is not lost"));
    }
    if let Some(stranger) = lost.difference(&known).next() {
        let names: Vec<String> = known.iter().map(ToString::to_string).collect();
        return refuse(format!("there is no broker {stranger}; the cluster has {}", names.join(", ")));
    }
    if lost.is_empty() {
        return refuse("no broker is said to be lost (--lost)");
    }
    let left: Vec<BrokerId> = known.difference(&lost).copied().filter(|broker| *broker != me).collect();
    // Whoever has another replica by now has an empty one, which does not vote.
    let is_whole = |replica: &&ReplicaId| {
        let now = controller.broker(replica.broker).and_then(|broker| broker.controller);
        // What an earlier try has not finished counts for nothing.
        let is_mine = replica.broker != me || replica.incarnation.0 == identity.controller_incarnation;
        !lost.contains(&replica.broker) && is_mine && now.is_none_or(|now| now == **replica)
    };
    if voters.iter().all(|set| 2 * set.iter().filter(is_whole).count() > set.len()) {
        let names: BTreeSet<String> = voters.iter().flatten().map(|replica| replica.broker.to_string()).collect();
        return refuse(format!(
            "most of the brokers that decide on the cluster's metadata ({}) are left: start them with their data, and all goes on by itself",
            names.into_iter().collect::<Vec<_>>().join(", ")
        ));
    }
    let mut after = controller.clone();
    let new = ReplicaId { broker: me, incarnation: Incarnation(u64::MAX - 1) };
    let lost: Vec<BrokerId> = lost.into_iter().collect();
    fold_in(&mut after, &record::encode_entry(&controller.decide_lost(&lost, new)))?;
    let named = |id: PartitionId| {
        let topic = after.topic_by_id(id.topic).map_or_else(|| id.topic.to_string(), |topic| topic.name.clone());
        (topic, id.partition.0)
    };
    let (mut refounded, mut gone) = (Vec::new(), Vec::new());
    for (id, survivors) in after.without_majority() {
        match survivors.is_empty() {
            true => gone.push(named(id)),
            false => refounded.push((named(id), survivors.iter().map(|replica| replica.broker).collect())),
        }
    }
    let whole = after.partition_count() - refounded.len() - gone.len();
    let cluster_id = identity.cluster_id.clone();
    Ok(Plan { me, cluster_id, last, lost, left, whole, refounded, gone })
}

fn fold_in(controller: &mut Controller, entry: &[u8]) -> Result<(), RecoverError> {
    let id = LogId { term: crate::ids::Term(0), index: controller.version().next() };
    let folded = controller.apply(Committed { id, what: What::Command(entry) });
    folded.map_err(|error| RecoverError::Refused(error.to_string()))
}

fn recover(
    disk: &Arc<dyn Disk>,
    identity: &Identity,
    controller: &Controller,
    plan: &Plan,
) -> Result<(), RecoverError> {
    let journal = Journal::open(Arc::clone(disk))?;
    let config = LogConfig { segment_bytes: super::open::CONTROLLER_SEGMENT_BYTES };
    let how = OpenAfter { clean: false };
    let (log, recovered) = Log::open(Arc::clone(disk), Arc::clone(&journal), PartitionId::CONTROLLER, config, how)?;
    if recovered.forgotten || !log.damage().is_empty() {
        return refuse("its log of the cluster's metadata is damaged: take another survivor");
    }
    let next = controller.next_incarnation().max(FOUNDER.next()).0;
    let incarnation = Incarnation(next.max(identity.controller_incarnation + 1));
    let me = ReplicaId { broker: plan.me, incarnation };
    let records = record::encode_entry(&controller.decide_lost(&plan.lost, me));
    go_on_alone(&log, &journal, me, vec![records])?;
    // Last: before, this replica is none of its group's voters, and a second try does it all again.
    identity::replace(disk, &Identity { controller_incarnation: incarnation.0, ..identity.clone() })?;
    Ok(())
}
