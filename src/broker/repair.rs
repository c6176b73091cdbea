//! What `ottla repair` does, while no broker runs: looks at everything in a data directory, and takes out of its logs what cannot be read.
//!
//! What stands in a log and is folded into no durable state is needed for a start; so a hole behind a group's last checkpoint costs the
//! state what was in it. For a topic's partition that is a few producers' sequence numbers. For the controller it may be a topic, whose
//! files the next start would then remove: its log is not repaired there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::identity::{IdentityError, inspect, replace_life};
use crate::ids::{LogId, PartitionId, PartitionIndex, RaftIndex, TopicId};
use crate::log::disk::Disk;
use crate::log::entry::RaftEntryKind;
use crate::log::journal::{GroupState, JOURNAL, Journal, JournalError};
use crate::log::repair::{Examined, examine};
use crate::log::{Hole, LogError, TOPICS};
use crate::machine::controller::Controller;
use crate::machine::{Committed, Machine, What};

/// What is to be looked at.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// One topic, by its name or id; otherwise all, and the controller.
    pub topic: Option<String>,
    /// One partition of it.
    pub partition: Option<i32>,
    /// Whether what can be repaired is.
    pub apply: bool,
}

/// What was found in a data directory, and done.
#[derive(Debug, Default)]
pub struct Report {
    /// What is wrong and cannot be repaired, each with what to do.
    pub problems: Vec<String>,
    /// What was done beside the logs.
    pub done: Vec<String>,
    /// Logs with damage.
    pub damaged: Vec<Damaged>,
    /// Logs that were read.
    pub logs: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Damage was found that could be repaired and was not, since nobody asked for it.
    pub untouched: bool,
}

/// A log with damage.
#[derive(Debug)]
pub struct Damaged {
    /// Its group.
    pub id: PartitionId,
    /// The topic's name, if the controller's log says it.
    pub topic: Option<String>,
    /// What cannot be read, and where the bytes are kept that were taken out.
    pub holes: Vec<(Hole, Option<String>)>,
    /// Whether the holes were taken out.
    pub repaired: bool,
}

/// Why nothing could be looked at.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The journal says what is durable; without it nothing can be told.
    #[error("{what}: put back a copy of it; without what it remembers (votes, checkpoints, what is durable) no log can be judged", what = journal(.0))]
    Journal(JournalError),
    /// There is no such topic or partition.
    #[error("there is no {0}")]
    NotFound(String),
    /// The disk failed.
    #[error("{doing}: {source}")]
    Log {
        /// What was done.
        doing: String,
        /// The cause.
        source: LogError,
    },
}

fn journal(error: &JournalError) -> String {
    match error {
        JournalError::Missing => format!("{JOURNAL} is missing"),
        JournalError::Damaged { position } => {
            format!("{JOURNAL} is damaged at byte {position}, with valid data behind it")
        }
        JournalError::Exists | JournalError::Version { .. } | JournalError::Io(_) => error.to_string(),
    }
}

/// Looks at a data directory, and repairs it if that is wanted. Blocks.
///
/// # Errors
/// If a broker runs on it; if its journal cannot be read; of the disk.
pub fn repair(disk: &Arc<dyn Disk>, wanted: &Wanted) -> Result<Report, RepairError> {
    let inspected = inspect(disk)?;
    let mut report = Report { problems: inspected.problems, ..Report::default() };
    if inspected.life_is_damaged && wanted.apply {
        let aside = replace_life(disk)?;
        report.done.push(format!(
            "the record of the last life cannot be read and is kept as {aside}; the next start reads back more"
        ));
    } else if inspected.life_is_damaged {
        report.problems.push("the record of the last life cannot be read; --apply puts it aside".to_owned());
    }
    let groups = Journal::look(disk.as_ref()).map_err(RepairError::Journal)?;
    let unknown = GroupState::default();
    let state = |id: PartitionId| groups.get(&id).unwrap_or(&unknown);
    let examined = |id: PartitionId| {
        examine(disk.as_ref(), state(id), id).map_err(|source| failed(&format!("read the log of {id}"), source))
    };
    let controller = examined(PartitionId::CONTROLLER)?;
    let topics = fold(&controller, state(PartitionId::CONTROLLER))?;
    let chosen = choose(disk, &topics, wanted)?;
    // What other replicas have is not given up, unless that very topic is named.
    let by_others = |id: PartitionId| match id {
        PartitionId::CONTROLLER => topics.brokers().nth(1).is_some(),
        _ => topics.replicas(id).is_some_and(|replicas| replicas.len() > 1),
    };
    let by_others = |id: PartitionId| wanted.topic.is_none() && by_others(id);
    if wanted.topic.is_none() {
        let (id, mended) = (PartitionId::CONTROLLER, by_others(PartitionId::CONTROLLER));
        look(disk, &mut report, (id, None), controller, (wanted.apply, mended))?;
    }
    for (id, name) in chosen {
        look(disk, &mut report, (id, name), examined(id)?, (wanted.apply, by_others(id)))?;
    }
    Ok(report)
}

fn failed(doing: &str, source: LogError) -> RepairError {
    RepairError::Log { doing: doing.to_owned(), source }
}

/// Takes an examined log into the report, and its holes out of it if that is wanted and may be, and nobody else mends them.
fn look(
    disk: &Arc<dyn Disk>,
    report: &mut Report,
    (id, topic): (PartitionId, Option<String>),
    examined: Examined,
    (apply, by_others): (bool, bool),
) -> Result<(), RepairError> {
    report.logs += 1;
    report.bytes += examined.read_bytes();
    if examined.holes.is_empty() {
        return Ok(());
    }
    let refused = match by_others {
        true => Some(format!(
            "the log of {id} has other replicas: start the broker, which fetches from them what is damaged; only if none of them has it, name the \
             topic with --topic"
        )),
        false => refusal(id, &examined)?,
    };
    let repaired = apply && refused.is_none();
    report.untouched |= refused.is_none() && !apply;
    report.problems.extend(refused);
    let kept = match repaired {
        true => examined.apply(disk.as_ref()).map_err(|source| failed(&format!("repair the log of {id}"), source))?,
        false => vec![None; examined.holes.len()],
    };
    let holes = examined.holes.into_iter().zip(kept).collect();
    report.damaged.push(Damaged { id, topic, holes, repaired });
    Ok(())
}

/// Why a log is not repaired, if it is not.
fn refusal(id: PartitionId, examined: &Examined) -> Result<Option<String>, RepairError> {
    if id == PartitionId::CONTROLLER {
        return Ok(examined.behind_checkpoint().map(|hole| {
            format!(
                "{}: the cluster's own log is damaged behind its last checkpoint, and what is lost there may have made a topic: put \
                 back a copy of the data directory",
                hole.damage
            )
        }));
    }
    let known = examined.has_membership().map_err(|source| failed(&format!("read the log of {id}"), source))?;
    Ok((!known)
        .then(|| format!("the log of {id} lost the entry that names its voters: put back a copy of its directory")))
}

/// The controller's state, as far as it can be read.
pub(super) fn fold(examined: &Examined, group: &GroupState) -> Result<Controller, RepairError> {
    let (mut controller, from) = match group.checkpoint() {
        Some(checkpoint) => match Controller::restore(&checkpoint.machine) {
            Ok(controller) => (controller, checkpoint.id.index.next()),
            Err(_) => return Ok(Controller::default()),
        },
        None => (Controller::default(), RaftIndex(0)),
    };
    let apply = |id: LogId, kind, body: bytes::Bytes| {
        if kind == RaftEntryKind::Command {
            // What cannot be understood is not applied: names are for people here.
            drop(controller.apply(Committed { id, what: What::Command(&body) }));
        }
    };
    let read = examined.raft_entries(from, apply);
    read.map_err(|source| failed("read the controller's log", source))?;
    Ok(controller)
}

/// The partitions that are wanted, of those that there are files of, with their topics' names.
fn choose(
    disk: &Arc<dyn Disk>,
    controller: &Controller,
    wanted: &Wanted,
) -> Result<BTreeMap<PartitionId, Option<String>>, RepairError> {
    let mut chosen = BTreeMap::new();
    for topic in names(disk, TOPICS)? {
        let Some(id) = TopicId::parse(&topic).filter(|id| *id != TopicId::CONTROLLER) else { continue };
        let name = controller.topic_by_id(id).map(|topic| topic.name.clone());
        if wanted.topic.as_ref().is_some_and(|wanted| Some(wanted) != name.as_ref() && *wanted != topic) {
            continue;
        }
        for partition in names(disk, &format!("{TOPICS}/{topic}"))? {
            let Some(partition) =
                partition.parse().ok().filter(|number| wanted.partition.is_none_or(|it| it == *number))
            else {
                continue;
            };
            chosen.insert(PartitionId { topic: id, partition: PartitionIndex(partition) }, name.clone());
        }
    }
    match &wanted.topic {
        Some(topic) if chosen.is_empty() => {
            let partition = wanted.partition.map(|number| format!(" with a partition {number}")).unwrap_or_default();
            Err(RepairError::NotFound(format!("topic {topic}{partition} in this data directory")))
        }
        _ => Ok(chosen),
    }
}

/// The directories in a directory.
fn names(disk: &Arc<dyn Disk>, dir: &str) -> Result<Vec<String>, RepairError> {
    match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(&format!("list {dir}"), error.into())),
        Ok(entries) => Ok(entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect()),
    }
}
